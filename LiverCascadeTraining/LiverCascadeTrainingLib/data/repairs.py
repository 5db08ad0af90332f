"""What is wrong with known data sets and can be put right: every change is judged by the images, and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.findings import Severity
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.preflight import judge_orientation
from LiverCascadeLib.sampling import body_silhouette, sample
from LiverCascadeLib.volume import Volume

from .layouts import Study
from .patients import IRCADB_VOXELS, ircadb_number
from .reading import (
    RawStudy,
    StudyError,
    by_meaning,
    placed_on,
    read_image,
    read_raw,
    soft_tissue_share,
)

# A liver, lesions included, has between these volumes in mL; a repaired voxel size that says otherwise is refused.
LIVER_ML = (400.0, 6000.0)
# Labels are moved onto the image's own grid only where that puts them onto soft tissue, and the headers do not.
_ON_TISSUE = 0.75
_BETTER_BY = 0.15
_AXIS_OF = {"orientation-left-right": 0, "orientation-head-foot": 2}
# The spine: denser than this in more than this share of the slices, over this area. It lies 8 to 26 % of the body's
# depth behind the middle in eight invented and two real scans; in four others it cannot be told.
_BONE_HU, _BONE_SLICES, _BONE_MM2 = 150, 0.6, 200.0
_CLEARLY = 0.05


@dataclass(frozen=True)
class Repair:
    """One change.

    Attributes:
        case: name of the study.
        kind: 'voxel-size', 'orientation', 'label-grid' or 'slice-order'.
        text: what was changed and why, in a sentence.
        before, after: what it was and what it is.
    """

    case: str
    kind: str
    text: str
    before: str
    after: str

    def as_dict(self) -> dict[str, str]:
        """Plain texts, for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class LoadedStudy:
    """A study that can be used.

    Attributes:
        study: where it came from.
        volume: the CT, its header repaired where that was needed.
        labels: 0 background, 1 liver, 2 lesion, uint8 [k, j, i] on the volume's grid; None without labels.
        couinaud: 0, or 1–10, uint8 [k, j, i]; None where there are none.
        out_of_range: {value: voxels} of labels without a meaning; they count as background.
        repairs: what was changed.
        notes: what was noticed.
    """

    study: Study
    volume: Volume
    labels: np.ndarray | None
    couinaud: np.ndarray | None
    out_of_range: Mapping[int, int]
    repairs: tuple[Repair, ...]
    notes: tuple[str, ...] = ()


def load_study(study: Study, twins: Mapping[int, Study] | None = None, unknown_size: bool = False) -> LoadedStudy:
    """Reads a study, repairs what is known to be wrong with it, and puts its labels onto its CT.

    Args:
        study: what to read.
        twins: studies of 3D-IRCADb by number, whose DICOM headers know voxel sizes that LiTS lost.
        unknown_size: take 1 mm for true where a voxel size was lost and nobody knows it.

    Raises:
        StudyError: it cannot be read or repaired.
    """
    raw = read_raw(study)
    repairs: list[Repair] = []
    if is_identity(raw.volume.grid):
        raw = _with_voxel_size(study, raw, twins or {}, unknown_size, repairs)
    labels, out_of_range = None, {}
    if raw.labels is not None:
        placed = _placed_labels(study, raw, repairs)
        labels, out_of_range = by_meaning(placed, raw.meanings)
    couinaud = _placed_couinaud(study, raw) if raw.couinaud is not None else None
    volume = raw.volume
    if labels is not None and any(repair.kind == "voxel-size" for repair in repairs):
        volume = _upright(study, volume, labels, repairs, unknown_size)
    return LoadedStudy(study, volume, labels, couinaud, out_of_range, tuple(repairs), raw.notes)


def is_identity(grid: Grid) -> bool:
    """True where a header says nothing: voxels of 1 mm in the order of the axes, at the origin."""
    return bool(np.allclose(np.abs(grid.ijk_to_ras), np.eye(4), atol=1e-6))


def _with_voxel_size(
    study: Study, raw: RawStudy, twins: Mapping[int, Study], unknown_size: bool, repairs: list[Repair]
) -> RawStudy:
    """``raw`` with the voxel size that the header lost, from the twin's DICOM or from 3D-IRCADb's table."""
    volume, number = raw.volume, ircadb_number(study.patient)
    size = volume.grid.size
    spacing, origin = None, ""
    if number is not None and number in twins:
        try:
            twin = read_image(twins[number].image).grid
        except InputError:
            twin = None
        if twin is not None and twin.size == size:
            spacing, origin = tuple(float(s) for s in twin.spacing), f"the DICOM headers of {twins[number].name}"
    if spacing is None and number is not None and size[2] == IRCADB_VOXELS[number][2]:
        within, between, _ = IRCADB_VOXELS[number]
        spacing, origin = (within, within, between), f"3D-IRCADb's table, patient {number}"
    if spacing is None and unknown_size:
        spacing, origin = (1.0, 1.0, 1.0), "the header, for want of anything better"
    if spacing is None:
        raise StudyError(
            "identity-affine",
            f"{study.name} has an identity affine: its voxel size was lost, and it is no known patient of 3D-IRCADb "
            f"with {size[2]} slices. Correct its header, or leave it out.",
        )
    text = f"The header is an identity; the voxel size is from {origin}, which has as many slices ({size[2]})."
    shown = "×".join(f"{s:.4g}" for s in spacing)
    repairs.append(Repair(study.name, "voxel-size", text, "1×1×1 mm, identity", f"{shown} mm"))
    grids = [raw.label_grid, raw.couinaud[1] if raw.couinaud else None]
    scaled = [_scaled(grid, spacing) if grid is not None and is_identity(grid) else grid for grid in grids]
    couinaud = (raw.couinaud[0], scaled[1]) if raw.couinaud else None
    volume = replace(volume, grid=_scaled(volume.grid, spacing))
    return replace(raw, volume=volume, label_grid=scaled[0], couinaud=couinaud)


def _scaled(grid: Grid, spacing: tuple[float, ...]) -> Grid:
    return Grid(grid.size, grid.ijk_to_ras @ np.diag([*spacing, 1.0]))


def _placed_labels(study: Study, raw: RawStudy, repairs: list[Repair]) -> np.ndarray:
    """The stored labels on the grid of the CT, by their headers or, where these contradict the CT, by their voxels."""
    grid, target = raw.label_grid, raw.volume.grid
    placed = placed_on(raw.labels, grid, target)
    inside = [value for value, meaning in raw.meanings.items() if meaning]
    by_header = soft_tissue_share(raw.volume.array, np.isin(placed, inside)) if placed is not None else 0.0
    if placed is not None and (grid.is_close(target, 0.5) or by_header >= _ON_TISSUE or grid.size != target.size):
        return placed
    if grid.size == target.size:
        by_voxel = soft_tissue_share(raw.volume.array, np.isin(raw.labels, inside))
        if by_voxel >= _ON_TISSUE and by_voxel > by_header + _BETTER_BY:
            text = (
                "The headers of CT and labels differ, but voxel by voxel they fit: so placed, "
                f"{by_voxel:.0%} of the labels lie on tissue of a liver's density, by the headers {by_header:.0%}."
            )
            repairs.append(Repair(study.name, "label-grid", text, repr(grid), repr(target)))
            return raw.labels
    if placed is not None:
        return placed
    raise StudyError(
        "grid-mismatch",
        f"{study.name}: the labels lie on {grid}, the CT on {target}. They do not have the same voxels. Resample the "
        "labels to the CT, or leave the case out.",
    )


def _placed_couinaud(study: Study, raw: RawStudy) -> np.ndarray:
    labels, grid = raw.couinaud
    placed = placed_on(labels, grid, raw.volume.grid)
    if placed is None:
        raise StudyError(
            "grid-mismatch", f"{study.name}: the Couinaud labels lie on {grid}, the CT on {raw.volume.grid}."
        )
    if placed.min() < 0 or placed.max() > 10:
        raise StudyError(
            "label-out-of-range",
            f"{study.name}: Couinaud labels run from {placed.min()} to {placed.max()}; expected 0 to 10 "
            "(1–8, 9 = IVa, 10 = IVb).",
        )
    return placed.astype(np.uint8)


def _upright(study: Study, volume: Volume, labels: np.ndarray, repairs: list[Repair], unknown_size: bool) -> Volume:
    """``volume`` with its axes turned to where liver, lungs and spine say that they point."""
    liver_ml = float(np.count_nonzero(labels)) * volume.grid.voxel_volume_mm3 / 1000
    if labels.any() and not unknown_size and not LIVER_ML[0] <= liver_ml <= LIVER_ML[1]:
        raise StudyError(
            "identity-affine",
            f"{study.name}: with the voxel size that is known for this patient the liver would have {liver_ml:.0f} "
            "mL, so that it is another patient. Correct its header, or leave it out.",
        )
    wrong = _mirrored(volume, labels)
    if not wrong:
        return volume
    turned = volume.grid.ijk_to_ras.copy()
    # The header of an identity has one row for each of R, A, S.
    turned[list(wrong)] = -turned[list(wrong)]
    grid = Grid(volume.grid.size, turned)
    repaired = replace(volume, grid=grid)
    if still := _mirrored(repaired, labels):
        reasons = " ".join(still.values())
        text = f"{study.name}: no turn of the axes puts liver, lungs and spine where they belong. {reasons}"
        raise StudyError("orientation", text)
    text = f"The identity header mirrors the patient. {' '.join(wrong.values())} Turned, all are in their places."
    repairs.append(Repair(study.name, "orientation", text, volume.grid.axes, grid.axes))
    return repaired


def _mirrored(volume: Volume, labels: np.ndarray) -> dict[int, str]:
    """Axes (0 R, 1 A, 2 S) that point the other way, by liver, lungs and spine, each with the evidence."""
    wrong = {}
    for finding in judge_orientation(labels > 0, volume.grid, volume):
        # What it says of front and back, bright bowel says too.
        if finding.severity is Severity.ERROR:
            wrong[_AXIS_OF[finding.code]] = finding.message.split(":")[0] + "."
    behind = spine_behind(volume)
    if behind is not None and behind < -_CLEARLY:
        wrong[1] = f"The spine lies {-behind:.0%} of the body's depth in front of its middle."
    return wrong


def spine_behind(volume: Volume) -> float | None:
    """How far the spine lies behind the body's middle, as a share of its depth; None where it cannot be told.

    The spine is where bone goes on from slice to slice; contrast in bowel and vessels does not.
    """
    taken = sample(volume.array, volume.grid)
    inside = body_silhouette(taken.values)
    if inside is None:
        return None
    slices = max(1, np.count_nonzero(inside.any(axis=(1, 2))))
    column = ((taken.values > _BONE_HU) & inside).sum(axis=0) > _BONE_SLICES * slices
    if np.count_nonzero(column) * float(taken.grid.spacing[0] * taken.grid.spacing[1]) < _BONE_MM2:
        return None
    rows = np.arange(inside.shape[1])
    middle = np.average(rows, weights=inside.sum(axis=(0, 2)))
    depth = np.count_nonzero(inside.any(axis=(0, 2)))
    return float((middle - np.average(rows, weights=column.sum(axis=1))) / depth)
