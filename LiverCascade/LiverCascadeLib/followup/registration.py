"""The liver of one study onto the liver of another: a rigid map, then a smooth deformation, then how good it is.

The two livers are compared as pictures of 3 mm in which every voxel says how deep it lies under the liver's surface
(signed distance, so that surfaces attract each other), and inside the liver how much brighter than the parenchyma it
is (vessels). Lesions are blanked: they come, go and grow, and must not pull. Where a volume ends inside the liver, the
liver is thought to go on, so that the cut is not taken for a surface.

The deformation is found by demons with symmetric forces (Vercauteren et al., NeuroImage 45:S61, 2009), as SimpleITK
has them, regularised by a Gaussian.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, gaussian_filter, map_coordinates

from ..errors import InputError
from ..findings import Finding, Severity
from ..geometry import Grid
from ..progress import Progress
from .deformation import Deformation
from .liver_sample import LiverSample

if TYPE_CHECKING:
    import SimpleITK as sitk

# Depth counts this far under and above the surface, one unit is ten millimeters.
INSIDE_MM, OUTSIDE_MM, DEPTH_UNIT_MM = 30.0, 18.0, 10.0
# One unit of brightness, and where it is clipped.
VESSEL_UNIT_HU, VESSEL_CLIP = 40.0, 1.5
VESSEL_DEPTH_MM, VESSEL_BLUR = 5.0, 0.7
PAD_MM = 12.0
# The deformation that is kept is known every other voxel: it is smoother than that.
STRIDE = 2
SEED = 1
SMALLEST_JACOBIAN = 0.1
# Squared units of depth: a place that the other study does not show is as bad as one that is 20 mm off.
UNKNOWN_MISFIT = 4.0

# Below these, lesions are not matched by themselves.
LEAST_DICE, MOST_SURFACE_MM, LEAST_COMMON = 0.85, 5.0, 0.25


@dataclass(frozen=True)
class _Stage:
    """One stage of the deformation: shrink factor, iterations, weight of vessels, deepest depth that counts."""

    shrink: int
    iterations: int
    vessels: float
    depth_mm: float


STAGES = (_Stage(2, 60, 1.0, INSIDE_MM), _Stage(1, 30, 4.0, 10.0))
SMOOTHING = 2.0  # voxels of the stage
CHUNK = 10  # iterations between two looks at whether the user cancelled


class PoorRegistration(InputError):
    """Two livers cannot be brought onto each other well enough to match their lesions."""


@dataclass(frozen=True)
class Quality:
    """How well two livers lie upon each other.

    Attributes:
        dice: of the livers after registration, where both studies show the place.
        rigid_dice: the same after the rigid part alone.
        surface_mm: mean distance of the surfaces, both ways.
        smallest_jacobian: smallest local change of volume inside the liver; above 0, nothing is folded.
        moved_mm: mean displacement inside the liver by the deformation alone.
        common_before, common_after: share of each liver that the other study shows.
    """

    dice: float
    rigid_dice: float
    surface_mm: float
    smallest_jacobian: float
    moved_mm: float
    common_before: float
    common_after: float

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return {key: round(float(value), 4) for key, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Registration:
    """A map from the earlier study to the later one.

    Attributes:
        deformation: from positions of the earlier study to those of the later one.
        rigid: its rigid part, 4×4 RAS to RAS.
        quality: how good it is.
        findings: what a reader should know about it.
    """

    deformation: Deformation
    rigid: np.ndarray
    quality: Quality
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, eq=False)
class _Picture:
    """What is compared: arrays [k, j, i] on a grid that reaches beyond the sample.

    Attributes:
        depth: units under the liver's surface, negative outside.
        vessels: units of brightness inside the liver.
        liver: the sample's liver.
        known: where the volume has voxels.
    """

    grid: Grid
    depth: np.ndarray
    vessels: np.ndarray
    liver: np.ndarray
    known: np.ndarray


def register(before: LiverSample, after: LiverSample, progress: Progress | None = None) -> Registration:
    """Finds where the tissue of the earlier liver lies in the later study.

    The same input gives the same result.

    Raises:
        PoorRegistration: the livers do not overlap enough, or do not fit.
        Cancelled: the user asked for it.
    """
    progress = progress or Progress()
    one, other = _picture(before), _picture(after)
    progress.update(0.1)
    rigid = _rigid(one, other)
    progress.update(0.25)
    _check_common(one, other, rigid)
    field, rigid_dice = _deformed(one, other, rigid, progress)
    deformation = _deformation(one.grid, field, rigid)
    quality = _quality(one, other, deformation, field, rigid_dice)
    progress.update(1.0)
    registration = Registration(_thinned(deformation), rigid, quality, _findings(quality))
    check_quality(quality)
    return registration


def check_quality(quality: Quality) -> None:
    """Refuses a registration that is too poor to match lesions with.

    Raises:
        PoorRegistration: with the figures.
    """
    if min(quality.common_before, quality.common_after) < LEAST_COMMON:
        raise PoorRegistration(
            f"The two studies have too little of the liver in common: the later one shows "
            f"{100 * quality.common_before:.0f} % of the earlier liver, the earlier one "
            f"{100 * quality.common_after:.0f} % of the later liver; {100 * LEAST_COMMON:.0f} % of each are needed. "
            "Choose series that show the same part of the liver."
        )
    if quality.dice < LEAST_DICE or quality.surface_mm > MOST_SURFACE_MM:
        raise PoorRegistration(
            f"The two livers could not be brought onto each other: their overlap (Dice) is {quality.dice:.2f}, "
            f"{LEAST_DICE:.2f} is needed, and their surfaces are {quality.surface_mm:.1f} mm apart on average, "
            f"{MOST_SURFACE_MM:.0f} mm is the most. Lesions are not matched on that ground. Check that both belong to "
            "the same patient and that both segmentations are right."
        )


def _findings(quality: Quality) -> tuple[Finding, ...]:
    found = []
    if min(quality.common_before, quality.common_after) < 0.9:
        text = (
            f"The later study shows {100 * quality.common_before:.0f} % of the earlier liver, the earlier one "
            f"{100 * quality.common_after:.0f} % of the later liver. Lesions outside the common part are listed as "
            "not covered."
        )
        found.append(Finding("liver-partly-covered", Severity.WARNING, text))
    return tuple(found)


def _picture(sample: LiverSample) -> _Picture:
    grid, mask = sample.grid, sample.mask
    pad = round(PAD_MM / grid.spacing.min())
    wide = np.pad(mask, pad)
    known = np.zeros(wide.shape, bool)
    known[tuple(_known_slice(sample.cut[axis], pad, grid.size[axis]) for axis in (2, 1, 0))] = True
    solid = np.pad(mask, pad)
    for axis in range(3):
        _extend(solid, 2 - axis, sample.cut[axis], pad)
    sampling = grid.spacing[::-1]
    depth = distance_transform_edt(solid, sampling=sampling) - distance_transform_edt(~solid, sampling=sampling)
    depth = np.clip(depth, -OUTSIDE_MM, INSIDE_MM) / DEPTH_UNIT_MM
    lesions = binary_dilation(np.pad(sample.lesions >= 20, pad))
    core = wide & ~lesions & (depth > VESSEL_DEPTH_MM / DEPTH_UNIT_MM)
    vessels = np.zeros(wide.shape, np.float32)
    if core.any():
        hu = np.pad(sample.hu.astype(np.float32), pad, mode="edge")
        bright = np.clip((hu - np.median(hu[core])) / VESSEL_UNIT_HU, -VESSEL_CLIP, VESSEL_CLIP)
        vessels = np.where(core, gaussian_filter(np.where(core, bright, 0.0), VESSEL_BLUR), 0.0)
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, 3] = grid.to_ras(np.full(3, -pad))
    wide_grid = Grid([n + 2 * pad for n in grid.size], matrix)
    return _Picture(wide_grid, depth.astype(np.float32), vessels.astype(np.float32), wide, known)


def _known_slice(cut: tuple[bool, bool], pad: int, size: int) -> slice:
    return slice(pad if cut[0] else 0, pad + size if cut[1] else size + 2 * pad)


def _extend(mask: np.ndarray, axis: int, cut: tuple[bool, bool], pad: int) -> None:
    """Lets the mask go on beyond an end where the volume was cut off."""
    view = np.moveaxis(mask, axis, 0)
    if cut[0]:
        view[:pad] = view[pad]
    if cut[1]:
        view[-pad:] = view[-pad - 1]


def _image(array: np.ndarray, grid: Grid) -> sitk.Image:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    origin, spacing, direction = grid.to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image


_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def _rigid(one: _Picture, other: _Picture) -> np.ndarray:
    """4×4 from the earlier to the later study, RAS: the best of some starts, then refined."""
    starts = sorted(_starts(one, other), key=lambda start: _misfit(one, other, start))
    best = starts[0]
    if _common(one, other, best) < 0.05:  # nothing to go by
        return best
    refined = _refined(one, other, best)
    return refined if _misfit(one, other, refined) < _misfit(one, other, best) else best


def _starts(one: _Picture, other: _Picture) -> list[np.ndarray]:
    """Shifts that lay middle upon middle, top upon top, bottom upon bottom; and none at all."""
    points, targets = (p.grid.to_ras(np.argwhere(p.liver)[:, ::-1]) for p in (one, other))
    middle = targets.mean(axis=0) - points.mean(axis=0)
    shifts = [middle, np.zeros(3)]
    for share in (2, 98):
        height = np.percentile(targets[:, 2], share) - np.percentile(points[:, 2], share)
        near = [p[np.abs(p[:, 2] - np.percentile(p[:, 2], share)) < 25] for p in (points, targets)]
        way = near[1].mean(axis=0) - near[0].mean(axis=0)
        shifts.append(np.array([way[0], way[1], height]))
    starts = []
    for shift in shifts:
        matrix = np.eye(4)
        matrix[:3, 3] = shift
        starts.append(matrix)
    return starts


def _misfit(one: _Picture, other: _Picture, matrix: np.ndarray) -> float:
    """Mean squared difference of depths near the earlier liver; what the later study does not show counts fully."""
    near = np.argwhere((one.depth > -1.0) & one.known)[::7, ::-1]
    here = one.depth[tuple(near[:, ::-1].T)]
    ras = one.grid.to_ras(near) @ matrix[:3, :3].T + matrix[:3, 3]
    ijk = other.grid.to_ijk(ras)[:, ::-1].T
    there = map_coordinates(other.depth, ijk, order=1, mode="nearest")
    known = map_coordinates(other.known.astype(np.float32), ijk, order=0, mode="nearest") > 0
    return float(np.where(known, (here - there) ** 2, UNKNOWN_MISFIT).mean())


def _refined(one: _Picture, other: _Picture, start: np.ndarray) -> np.ndarray:
    import SimpleITK as sitk

    lps = _FLIP @ start @ _FLIP
    middle = (_FLIP @ np.append(one.grid.to_ras(np.argwhere(one.liver)[:, ::-1]).mean(axis=0), 1.0))[:3]
    transform = sitk.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, True)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.02, 80, 0.5, 1e-4)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([0])
    roi = ((one.depth > -1.5) & one.known).astype(np.uint8)
    method.SetMetricFixedMask(_image(roi, one.grid))
    method.SetMetricMovingMask(_image(other.known.astype(np.uint8), other.grid))
    method.SetMetricSamplingStrategy(method.REGULAR)
    # Even regular samples are shaken by chance: the same chance each time.
    method.SetMetricSamplingPercentage(0.3, SEED)
    try:
        method.Execute(_image(one.depth, one.grid), _image(other.depth, other.grid))
    except RuntimeError:  # no sample falls into the other volume: the start was hopeless, and stays
        return start
    found = np.eye(4)
    found[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    center = np.array(transform.GetCenter())
    found[:3, 3] = center + np.array(transform.GetTranslation()) - found[:3, :3] @ center
    return _FLIP @ found @ _FLIP


def _to_image_transform(matrix: np.ndarray) -> sitk.AffineTransform:
    import SimpleITK as sitk

    lps = _FLIP @ matrix @ _FLIP
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def _common(one: _Picture, other: _Picture, to_other: Deformation | np.ndarray) -> float:
    """Share of the liver of ``one`` whose place the volume of ``other`` shows."""
    ras = one.grid.to_ras(np.argwhere(one.liver & one.known)[::5, ::-1])
    ras = to_other.apply(ras) if isinstance(to_other, Deformation) else ras @ to_other[:3, :3].T + to_other[:3, 3]
    ijk = other.grid.to_ijk(ras)[:, ::-1].T
    return float((map_coordinates(other.known.astype(np.float32), ijk, order=0, mode="nearest") > 0).mean())


def _check_common(one: _Picture, other: _Picture, rigid: np.ndarray) -> None:
    shares = _common(one, other, rigid), _common(other, one, np.linalg.inv(rigid))
    if min(shares) < LEAST_COMMON:
        check_quality(Quality(0.0, 0.0, np.inf, 1.0, 0.0, *shares))


def _deformed(one: _Picture, other: _Picture, rigid: np.ndarray, progress: Progress) -> tuple[np.ndarray, float]:
    """(displacements in LPS mm [k, j, i, 3] on the earlier grid before the rigid map, Dice of the rigid map)."""
    import SimpleITK as sitk

    still = _image(one.depth, one.grid)
    transform = _to_image_transform(rigid)
    known = one.known & (_carried(_image(other.known.astype(np.float32), other.grid), still, transform, 0.0) > 0.5)
    liver = _carried(_image(other.liver.astype(np.float32), other.grid), still, transform, 0.0) > 0.5
    rigid_dice = _dice(one.liver & known, liver & known)
    depth = _carried(_image(other.depth, other.grid), still, transform, -OUTSIDE_MM / DEPTH_UNIT_MM)
    vessels = _carried(_image(other.vessels, other.grid), still, transform, 0.0)
    total, done = sum(stage.iterations * (1 if stage.shrink > 1 else 4) for stage in STAGES), 0
    field = None
    for stage in STAGES:
        deepest = stage.depth_mm / DEPTH_UNIT_MM
        fixed = np.minimum(one.depth, deepest) + stage.vessels * one.vessels
        moving = np.minimum(depth, deepest) + stage.vessels * vessels
        # What one of the two does not show pulls nowhere.
        moving = np.where(known, moving, fixed)
        images = [sitk.Shrink(_image(a.astype(np.float32), one.grid), [stage.shrink] * 3) for a in (fixed, moving)]
        field = _fitted(field, images[0])
        for first in range(0, stage.iterations, CHUNK):
            demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
            demons.SetNumberOfIterations(min(CHUNK, stage.iterations - first))
            demons.SetSmoothDisplacementField(True)
            demons.SetStandardDeviations(SMOOTHING)
            demons.SetMaximumUpdateStepLength(3.0)
            field = demons.Execute(*images, field)
            done += CHUNK * (1 if stage.shrink > 1 else 4)
            progress.update(0.25 + 0.65 * min(1.0, done / total))
    displacement = sitk.GetArrayFromImage(_fitted(field, still)).astype(np.float64)
    return _unfolded(displacement, one), rigid_dice


def _fitted(field: sitk.Image | None, reference: sitk.Image) -> sitk.Image:
    """The displacements on the grid of ``reference``; none where there is no field yet."""
    import SimpleITK as sitk

    if field is None:
        empty = sitk.Image(reference.GetSize(), sitk.sitkVectorFloat64, 3)
        empty.CopyInformation(reference)
        return empty
    if field.GetSize() == reference.GetSize():
        return field
    # Where the reference reaches beyond the outermost centers, the nearest displacement holds.
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(reference)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return resampler.Execute(field)


def _carried(image: sitk.Image, reference: sitk.Image, transform: sitk.Transform, beyond: float) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, sitk.sitkLinear, beyond))


def _unfolded(displacement: np.ndarray, one: _Picture) -> np.ndarray:
    """Smooths until no tissue of the liver is folded or squeezed to nothing."""
    for _ in range(12):
        if _ras(displacement, one.grid).jacobian()[one.liver].min() >= SMALLEST_JACOBIAN:
            break
        displacement = np.stack([gaussian_filter(displacement[..., n], 1.5) for n in range(3)], axis=-1)
    return displacement


def _ras(displacement: np.ndarray, grid: Grid) -> Deformation:
    return Deformation(grid, (displacement * (-1, -1, 1)).astype(np.float32))


def _deformation(grid: Grid, displacement: np.ndarray, rigid: np.ndarray) -> Deformation:
    """The deformation, then the rigid map, as one."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    here = grid.to_ras(np.stack([i, j, k], axis=-1))
    moved = here + displacement * (-1, -1, 1)
    there = moved @ rigid[:3, :3].T + rigid[:3, 3]
    return Deformation(grid, (there - here).astype(np.float32))


def _thinned(deformation: Deformation) -> Deformation:
    grid = deformation.grid
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, :3] *= STRIDE
    values = np.ascontiguousarray(deformation.displacement[::STRIDE, ::STRIDE, ::STRIDE])
    return Deformation(Grid(values.shape[2::-1], matrix), values)


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    total = int(one.sum()) + int(other.sum())
    return float(2 * (one & other).sum() / total) if total else 0.0


def _quality(
    one: _Picture, other: _Picture, deformation: Deformation, field: np.ndarray, rigid_dice: float
) -> Quality:
    grid = one.grid
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    there = grid.to_ras(np.stack([i, j, k], axis=-1)) + deformation.displacement
    ijk = other.grid.to_ijk(there.reshape(-1, 3))[:, ::-1].T
    shape = grid.shape
    liver = map_coordinates(other.liver.astype(np.float32), ijk, order=1, mode="constant").reshape(shape) > 0.5
    seen = map_coordinates(other.known.astype(np.float32), ijk, order=0, mode="nearest").reshape(shape) > 0
    known = one.known & seen
    sampling = grid.spacing[::-1]
    distances = []
    for mine, theirs in ((one.liver, liver), (liver, one.liver)):
        edge, target = (mask & ~binary_erosion(mask) & known for mask in (mine, theirs))
        if edge.any() and target.any():
            distances.append(distance_transform_edt(~target, sampling=sampling)[edge])
    surface = float(np.concatenate(distances).mean()) if distances else float("inf")
    jacobian = _ras(field, grid).jacobian()[one.liver]
    # The later liver without an inverse: what of it is reached from voxels that the earlier study knows.
    reached = float((liver & one.known).sum() / max(1, int(liver.sum())))
    return Quality(
        dice=_dice(one.liver & known, liver & known),
        rigid_dice=rigid_dice,
        surface_mm=surface,
        smallest_jacobian=float(jacobian.min()),
        moved_mm=float(np.linalg.norm(field, axis=-1)[one.liver].mean()),
        common_before=_common(one, other, deformation),
        common_after=reached,
    )
