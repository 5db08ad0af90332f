"""Looks of a case: where a patch lies in it, and what a scanner would make of it this time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from LiverCascadeLib.channels import CONTRAST_BLUR_MM, blur
from scipy import ndimage
from torch.nn.functional import grid_sample, interpolate

from .anatomy import Tissue
from .cases import AIR_HU, Case
from .lesions import LesionRanges, add_lesions
from .painting import draw_palette, paint, scan, torch_noise

BACKGROUND, LIVER, LESION, LIVER_OR_LESION = 0, 1, 2, 3
# A lesion of 2 cm: from there on, shape tells it from noise whatever its contrast.
_VISIBLE_MM3 = np.pi / 6 * 20.0**3
# Voxels from which parenchyma in a patch tells what the liver around a lesion is like.
LEAST_PARENCHYMA = 1000


@dataclass(frozen=True)
class SampleSpec:
    """What a sample looks like.

    Attributes:
        spacing_mm: along (R, A, S).
        patch_size: along (R, A, S).
        window_hu: clipped to and scaled to 0…1.
        inputs: channels, see :mod:`LiverCascadeLib.channels`; 'liver_probability' imitates the locate network's.
        with_lesions: distinguish lesions; otherwise everything is liver.
        real_share: share of samples from real CTs.
        negative_share: share of samples without a liver (phantoms, heads, limbs).
        centered_share: share of samples centered inside the liver's box.
        gentle_prior_until: samples up to this number get a prior that is nearly right, later ones one with errors as
            large as real ones, so that the network first learns where to look and then not to trust it.
        lesions: sizes and counts of synthetic lesions.
        located_share: share of the priors that come from a trained locate network, where there is one.
        located_errors: how often and how much such priors are made worse than they are: 1 often, 0 never.
        vessel_contrast_chance: probability that a real liver's vessels get another contrast.
        lesions_beside_unknown: put synthetic lesions also into real livers that may hide real ones.
        neighbor_contrast_chance: probability that what lies around a real liver gets other densities, each part its
            own, so that the liver is not known by how its neighbors differ from it on a handful of CTs.
        least_lesion_contrast: lesions below 2 cm that differ less from the liver are neither lesion nor liver in the
            target: see :func:`leave_invisible_out`. 0 keeps all.
    """

    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    window_hu: tuple[float, float]
    inputs: tuple[str, ...]
    with_lesions: bool
    real_share: float = 0.4
    negative_share: float = 0.05
    centered_share: float = 0.8
    gentle_prior_until: int = 0
    lesions: LesionRanges = field(default_factory=LesionRanges)
    located_share: float = 0.0
    located_errors: float = 1.0
    vessel_contrast_chance: float = 0.0
    lesions_beside_unknown: bool = False
    neighbor_contrast_chance: float = 0.0
    least_lesion_contrast: float = 0.0


def _liver_voxel(case: Case, rng: np.random.Generator) -> np.ndarray:
    """A random voxel of the liver, found by trying points of its box."""
    low, high = np.array(case.liver_box)
    point = (low + high) // 2
    for _ in range(20):
        point = rng.integers(low, high + 1)
        value = case.image[tuple(point)] == Tissue.LIVER if case.liver is None else case.liver[tuple(point)]
        if value:
            break
    return point.astype(float)


def offsets(size: Sequence[int], spacing: Sequence[float]) -> torch.Tensor:
    """Where the voxels of a patch lie from its middle: float32 [k, j, i, 3] in mm along (k, j, i)."""
    axes = [
        torch.from_numpy(((np.arange(n) - (n - 1) / 2) * s).astype(np.float32))
        for n, s in zip(size, spacing, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def source_positions(case: Case, spec: SampleSpec, rng, generator) -> torch.Tensor:
    """Where the patch's voxels lie in the case: float32 [k, j, i, 3], in source voxels (k, j, i)."""
    source_spacing = np.array(case.spacing)
    spacing, size = np.array(spec.spacing_mm[::-1]), np.array(spec.patch_size[::-1])
    extent = size * spacing / source_spacing
    if rng.random() < spec.centered_share:
        center = _liver_voxel(case, rng) + rng.uniform(-0.3, 0.3, 3) * extent
    else:
        shape = np.array(case.image.shape)
        center = rng.uniform(np.minimum(extent / 4, shape / 2), np.maximum(shape - extent / 4, shape / 2))
    angles = np.deg2rad(rng.normal(0, 7, 3)) if rng.random() < 0.7 else np.zeros(3)
    linear = np.diag(np.exp(rng.normal(0, 0.1)) * np.exp(rng.normal(0, 0.05, 3)))
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        linear = turn @ linear
    from_middle = offsets(size, spacing)
    position = from_middle @ torch.from_numpy(linear.T.astype(np.float32))
    if rng.random() < 0.6:
        coarse = [max(2, int(np.ceil(n * s / 40)) + 1) for n, s in zip(size, spacing, strict=True)]
        shift = torch.randn((1, 3, *coarse), generator=generator) * float(rng.uniform(1, 6))
        shift = interpolate(shift, size=tuple(int(n) for n in size), mode="trilinear", align_corners=True)
        position = position + shift[0].permute(1, 2, 3, 0)
    return position / torch.from_numpy(source_spacing.astype(np.float32)) + torch.from_numpy(center.astype(np.float32))


def _crop_around(position: torch.Tensor, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], torch.Tensor]:
    """The part of the source that ``position`` needs, and the positions as ``grid_sample`` wants them."""
    flat = position.reshape(-1, 3)
    low = torch.clamp(flat.min(dim=0).values.floor().long() - 1, min=0)
    high = torch.minimum(flat.max(dim=0).values.ceil().long() + 2, torch.tensor(shape))
    low = torch.minimum(low, torch.tensor(shape) - 2)
    high = torch.maximum(high, low + 2)
    block = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    normalized = (position - low) * 2 / (high - low - 1) - 1
    return block, normalized.flip(-1)[None]


def sample_tissues(image: np.ndarray, position: torch.Tensor, smooth: bool = True) -> torch.Tensor:
    """Looks tissues up at positions between voxels.

    Args:
        image: :class:`Tissue` map [k, j, i].
        position: float32 [..., 3], voxels of ``image`` as (k, j, i).
        smooth: let the neighbors vote, for smooth surfaces; otherwise the nearest voxel decides.

    Returns:
        uint8 [...]; air outside the map.
    """
    block, where = _crop_around(position, image.shape)
    crop = torch.from_numpy(np.array(image[block]))
    if not smooth:
        nearest = grid_sample(
            crop[None, None].float(), where, mode="nearest", padding_mode="zeros", align_corners=True
        )
        return nearest[0, 0].to(torch.uint8)
    # Where all eight neighbors agree there is nothing to vote on, which is nearly everywhere.
    corner = torch.stack([(position[..., a] - block[a].start).floor().long() for a in range(3)])
    inside = torch.stack([(c >= 0) & (c < n - 1) for c, n in zip(corner, crop.shape, strict=True)]).all(dim=0)
    k, j, i = (c.clamp(0, n - 2) for c, n in zip(corner, crop.shape, strict=True))
    corners = [crop[a : a + crop.shape[0] - 1, b : b + crop.shape[1] - 1, c : c + crop.shape[2] - 1]
               for a in (0, 1) for b in (0, 1) for c in (0, 1)]  # fmt: skip
    agreed = torch.stack([other == corners[0] for other in corners[1:]]).all(dim=0)
    tissue = corners[0][k, j, i]
    asked = ~(agreed[k, j, i] & inside)
    places = where[0][asked][None, None, None]
    # Outside the map no tissue has a vote, which leaves air.
    winner = torch.full((places.shape[3],), Tissue.AIR, dtype=torch.uint8)
    best = torch.full(winner.shape, 1e-3)
    for candidate in np.flatnonzero(np.bincount(crop.numpy().ravel())).tolist():
        votes = (crop == candidate).float()[None, None]
        votes = grid_sample(votes, places, mode="bilinear", padding_mode="zeros", align_corners=True).flatten()
        wins = votes > best
        winner[wins], best[wins] = candidate, votes[wins]
    tissue[asked] = winner
    return tissue


def look_up(image: np.ndarray, position: torch.Tensor, outside: float = 0.0) -> torch.Tensor:
    """Values of an image at positions between voxels, trilinear.

    Args:
        image: numbers [k, j, i].
        position: float32 [..., 3], voxels of ``image`` as (k, j, i).
        outside: value beyond the image.

    Returns:
        float32 [...].
    """
    block, where = _crop_around(position, image.shape)
    crop = torch.from_numpy(np.ascontiguousarray(image[block]).astype(np.float32)) - outside
    sampled = grid_sample(crop[None, None], where, mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled[0, 0] + outside


def scan_of(case: Case, position: torch.Tensor, spec: SampleSpec, rng, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A new look of a case: other densities, lesions, noise.

    Args:
        case: synthetic or real.
        position: where to look, float32 [k, j, i, 3], voxels of the case as (k, j, i), ``spec.spacing_mm`` apart.
        spec: ranges.

    Returns:
        (HU float32 [k, j, i], target uint8 [k, j, i] as in :class:`SampleSet`).
    """
    make = _from_synthetic if case.kind == "synthetic" else _from_real
    hu, target = make(case, position, spec, rng, generator)
    if spec.least_lesion_contrast:
        target = leave_invisible_out(hu, target, spec.spacing_mm[::-1], spec.least_lesion_contrast)
    return hu, target


def parenchyma_of(target: torch.Tensor) -> torch.Tensor:
    """Liver that is no known lesion, bool; ``target`` as in :class:`.samples.SampleSet`."""
    return (target == LIVER) | (target == LIVER_OR_LESION)


def leave_invisible_out(
    hu: torch.Tensor, target: torch.Tensor, spacing: Sequence[float], least_contrast: float
) -> torch.Tensor:
    """The target without lesions that nobody could see, where nobody knows what is lesion instead.

    A network that is asked for what noise has buried learns to guess, and guesses elsewhere too.

    Args:
        hu: what the scanner shows, float32 [k, j, i].
        target: as in :class:`.samples.SampleSet`.
        spacing: mm along (k, j, i).
        least_contrast: a lesion with a volume-equivalent diameter below 2 cm counts as invisible where its mean
            differs from the parenchyma's median by less than so many of the parenchyma's standard deviations, both
            smoothed as in :func:`LiverCascadeLib.channels.liver_contrast`.

    Returns:
        uint8 [k, j, i].
    """
    parenchyma = parenchyma_of(target)
    lesion = target == LESION
    if not bool(lesion.any()) or int(parenchyma.sum()) < LEAST_PARENCHYMA:
        return target
    smooth = blur(hu, [CONTRAST_BLUR_MM / s for s in spacing])
    around = smooth[parenchyma]
    numbers, count = ndimage.label(lesion.numpy(), np.ones((3, 3, 3)))
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    means = ndimage.mean(smooth.numpy(), numbers, np.arange(1, count + 1))
    contrasts = np.abs(means - float(around.median())) / max(float(around.std()), 1e-6)
    invisible = (contrasts < least_contrast) & (sizes * np.prod(spacing) < _VISIBLE_MM3)
    target = target.clone()
    target[torch.from_numpy(np.append(False, invisible)[numbers])] = LIVER_OR_LESION
    return target


def _from_synthetic(case: Case, position: torch.Tensor, spec: SampleSpec, rng, generator):
    tissue = sample_tissues(case.image, position, smooth=max(spec.spacing_mm) < 2.5)
    spacing = spec.spacing_mm[::-1]
    liver = tissue == Tissue.LIVER
    hu = paint(tissue, draw_palette(rng), spacing, rng, generator)
    hu, lesions = add_lesions(hu, liver, spacing, spec.lesions, rng, generator)
    hu = scan(hu, spacing, rng, generator)
    target = liver.to(torch.uint8)
    target[lesions] = LESION
    return hu, target


def _from_real(case: Case, position: torch.Tensor, spec: SampleSpec, rng, generator):
    hu = look_up(case.image, position, AIR_HU)
    liver = look_up(case.liver, position) > 0.5
    spacing = spec.spacing_mm[::-1]
    soft = blur(liver.float(), tuple(1.0 / s for s in spacing))
    if rng.random() < spec.vessel_contrast_chance and bool(liver.any()):
        # Vessels brighter, fainter, or darker than the liver as in unenhanced scans: their shape tells them from
        # lesions, not their brightness.
        factor = float(rng.choice([rng.uniform(-1.2, -0.3), rng.uniform(-0.3, 0.8), rng.uniform(1.2, 1.8)]))
        detail = (hu - hu[liver].median()).clamp(-60, 120)
        hu = hu + (factor - 1) * blur(detail, tuple(0.6 / s for s in spacing)) * soft
    if spec.neighbor_contrast_chance and rng.random() < spec.neighbor_contrast_chance:
        hu = shade_neighbors(hu, soft, spacing, rng, generator)
    if rng.random() < 0.4:  # another contrast in the liver than the rest has
        hu = hu + float(rng.uniform(-35, 35)) * soft
    if rng.random() < 0.6:
        hu = hu * float(rng.uniform(0.92, 1.08)) + float(rng.uniform(-20, 20))
    target = liver.to(torch.uint8)
    hidden = spec.with_lesions and not case.lesions_known
    if hidden:
        target = target * LIVER_OR_LESION
    if not hidden or spec.lesions_beside_unknown:
        hu, lesions = add_lesions(hu, liver, spacing, spec.lesions, rng, generator)
        target[lesions] = LESION
    if rng.random() < 0.3:
        hu = blur(hu, tuple(float(rng.uniform(0.3, 1.2)) / s for s in spacing))
    noise = blur(torch.randn(hu.shape, generator=generator), (0.4, 0.5, 0.5))
    return hu + float(rng.uniform(0, 14)) * noise / noise.std(), target


def shade_neighbors(
    hu: torch.Tensor, liver: torch.Tensor, spacing: Sequence[float], rng: np.random.Generator, generator
) -> torch.Tensor:
    """Soft tissue around a liver with other densities, each part of it its own.

    Fat, gas and bone keep theirs, which are the same on every scan.

    Args:
        hu: float32 [k, j, i].
        liver: share of liver in each voxel, 0…1, [k, j, i].
        spacing: mm along (k, j, i).
    """
    soft_tissue = torch.sigmoid((hu + 20) / 8) * torch.sigmoid((220 - hu) / 15)
    shading = torch_noise(tuple(hu.shape), float(rng.uniform(20, 60)) / max(spacing), generator)
    return hu + float(rng.uniform(5, 25)) * shading * soft_tissue * (1 - liver)


def no_liver(spec: SampleSpec, rng, generator):
    """Something that is not an abdomen: a water phantom, a head, limbs, noise."""
    spacing, size = np.array(spec.spacing_mm[::-1]), spec.patch_size[::-1]
    position = offsets(size, spacing)
    hu = torch.full(size, float(AIR_HU))
    bodies = int(rng.integers(1, 3))
    for number in range(bodies):
        beside = np.array([0, 0, (number - (bodies - 1) / 2) * 180])
        center = torch.tensor(rng.normal(0, 15, 3) + beside, dtype=torch.float32)
        radii = rng.uniform(55, 110, 3)
        radii[0] = rng.choice([1e4, rng.uniform(70, 130)])
        scaled = (position - center) / torch.tensor(radii, dtype=torch.float32)
        depth = (1 - scaled.norm(dim=-1)) * float(radii[1:].min())
        depth = depth + float(rng.uniform(0, 5)) * torch_noise(size, 30 / spacing.max(), generator)
        shells = [(0, rng.uniform(-20, 20)), (rng.uniform(2, 20), rng.uniform(20, 70))]
        if rng.random() < 0.6:  # skull around brain
            skull = rng.uniform(3, 15)
            shells += [(skull, rng.uniform(400, 1100)), (skull + rng.uniform(4, 9), rng.uniform(0, 60))]
            shells += [(rng.uniform(35, 55), rng.uniform(0, 40))]
        for limit, value in shells:
            hu = torch.where(depth > limit, torch.full_like(hu, float(value)), hu)
        if rng.random() < 0.5:  # a long bone
            bone = (position[..., 1:] - center[1:]).norm(dim=-1)
            hu = torch.where(bone < float(rng.uniform(8, 16)), torch.full_like(hu, float(rng.uniform(300, 900))), hu)
    hu = hu + float(rng.uniform(0, 15)) * torch_noise(size, 20 / spacing.max(), generator)
    return scan(hu, tuple(spacing), rng, generator), torch.zeros(size, dtype=torch.uint8)
