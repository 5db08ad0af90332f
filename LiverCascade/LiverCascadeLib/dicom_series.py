"""DICOM series in: which files belong together, where each slice lies, and what is wrong with them.

Slice positions come from ImagePositionPatient alone. SliceThickness says how thick a slice is, not how far it is from
the next, and is never used for the geometry.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dicom_headers import Slice, check_found, chosen_note, count_of, ct_stacks, damaged_note, scan_files, title
from .errors import InputError
from .findings import Finding, Severity
from .geometry import Grid
from .geometry_checks import check_spacing
from .pixels import Int16Sink, array_of, quiet_itk

# A slice may lie this far from its place on an evenly spaced grid, as a share of the step between slices: positions
# are often rounded to 0.1 mm.
UNEVEN_TOLERANCE = 0.1
# Over the whole series, slices may drift sideways by this share of a pixel.
DRIFT_TOLERANCE = 0.5
# Closer than this, two slices are at the same place.
SAME_PLACE_MM = 0.01


@dataclass(frozen=True)
class Series:
    """A series that was read: int16 ``array`` [k, j, i] on ``grid``, and what is to be told about it."""

    array: np.ndarray
    grid: Grid
    name: str
    source: dict[str, object]
    findings: tuple[Finding, ...]


def read_series(path: Path) -> Series:
    """Reads the CT series with the most slices of a folder and its subfolders, or the series of one DICOM file.

    Raises:
        InputError: no CT series, several patients, or slices that make no evenly spaced straight volume.
    """
    scan = scan_files(files_around(path))
    if path.is_dir():
        check_found(path, scan)
        stacks, findings = ct_stacks(path, scan.slices)
    else:
        own = next((s for s in scan.slices if s.path == path), None)
        if own is None:
            check_found(path, scan_files([path]))
        same = [s for s in scan.slices if (s.patient, s.series) == (own.patient, own.series)]
        stacks, findings = ct_stacks(path, same)
        stacks.sort(key=lambda stack: own not in stack)
    if len(stacks) > 1:
        findings.append(chosen_note(stacks[0], stacks[1:]))
    if scan.damaged:
        findings.append(damaged_note(scan.damaged))
    return _read(path, stacks[0], findings)


def files_around(path: Path) -> list[Path]:
    """All files in a folder and below, or those beside a file."""
    if path.is_dir():
        files = (Path(root) / name for root, _, names in os.walk(path) for name in names)
    else:
        files = path.parent.iterdir()
    return sorted(file for file in files if file.is_file())


@dataclass(frozen=True)
class Arrangement:
    """Slices in the order in which they lie along their normal.

    Attributes:
        groups: indices into the given slices, one group per place; more than one index means duplicates.
        grid: where the volume lies.
        step: mm between neighbors.
    """

    groups: tuple[tuple[int, ...], ...]
    grid: Grid
    step: float


def arrange(slices: Sequence[Slice], what: str) -> Arrangement:
    """Orders ``slices``, which share their plane, and derives their grid from their positions.

    Raises:
        InputError: a single slice, missing or unevenly spaced slices, or slices that drift sideways (gantry tilt).
    """
    first = slices[0]
    row, column, normal = _axes(first, what)
    positions = np.array([s.position for s in slices])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    breaks = np.flatnonzero(np.diff(along[order]) > SAME_PLACE_MM) + 1
    groups = tuple(tuple(int(i) for i in group) for group in np.split(order, breaks))
    if len(groups) < 2:
        raise InputError(f"{what} is a single slice; a CT volume needs at least two slices at different positions.")
    _check_drift(positions[order], normal, float(first.spacing.min()), what)
    places = np.array([along[group[0]] for group in groups])
    _check_steps(places, what)
    step = float(places[-1] - places[0]) / (len(places) - 1)
    direction = np.stack([row, column, normal], axis=1)
    origin = positions[groups[0][0]]
    try:
        grid = Grid.from_lps((*first.size, len(groups)), origin, (*first.spacing, step), direction.ravel())
    except ValueError as error:
        raise InputError(f"The geometry of {what} cannot be used. {error} Export the series again.") from error
    return Arrangement(groups, grid, step)


def _axes(item: Slice, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along a slice's rows and columns, made exactly perpendicular, and their normal."""
    row, column = item.orientation[:3], item.orientation[3:]
    check_spacing(what, item.spacing)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.5 or abs(row @ column) / (lengths[0] * lengths[1]) > 1e-2:
        raise InputError(f"The image orientation of {what} is broken: rows and columns are not at right angles.")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    return row, column, np.cross(row, column)


def _check_drift(positions: np.ndarray, normal: np.ndarray, pixel: float, what: str) -> None:
    """Refuses slices that are not stacked along their normal."""
    along = positions @ normal
    sideways = positions - along[:, None] * normal
    if np.linalg.norm(sideways - sideways[0], axis=1).max() <= DRIFT_TOLERANCE * pixel:
        return
    length = along[-1] - along[0]
    slope = (sideways[-1] - sideways[0]) / length
    straight = sideways[0] + (along - along[0])[:, None] * slope
    off = np.linalg.norm(sideways - straight, axis=1).max()
    if off <= max(1.0, DRIFT_TOLERANCE * pixel):
        angle = np.degrees(np.arctan(np.linalg.norm(slope)))
        raise InputError(
            f"{what} was taken with a tilted gantry: its slices drift sideways by "
            f"{np.linalg.norm(slope) * length:.1f} mm, a tilt of {angle:.1f}°. Load it in Slicer, which straightens "
            "it on import (harden the acquisition transform), and pass the volume saved from there."
        )
    raise InputError(
        f"The slices of {what} are shifted sideways against each other by up to {off:.1f} mm, so that they make no "
        "straight volume. Pass one reconstruction at a time."
    )


def _check_steps(places: np.ndarray, what: str) -> None:
    """Refuses slices that are missing or not evenly spaced."""
    count = len(places)
    even = np.linspace(places[0], places[-1], count)
    steps = np.diff(places)
    step = float(np.median(steps))
    if np.abs(places - even).max() <= UNEVEN_TOLERANCE * step:
        return
    ratios = steps / step
    gaps = np.flatnonzero(ratios > 1.5)
    regular = np.abs(ratios - np.maximum(1, np.round(ratios))) <= 2 * UNEVEN_TOLERANCE
    if len(gaps) and regular.all():
        missing = int(np.round(ratios[gaps]).sum()) - len(gaps)
        shown = ", ".join(f"{places[g]:.1f} and {places[g + 1]:.1f} mm" for g in gaps[:3])
        shown += ", …" if len(gaps) > 3 else ""
        raise InputError(
            f"{what} lacks {count_of(missing, 'slice')}: between {shown} along the slice normal "
            f"the gap is up to {steps.max():.2f} mm where the step is {step:.2f} mm. Copy or export the "
            "complete series."
        )
    raise InputError(
        f"The slices of {what} are unevenly spaced: {steps.min():.2f} to {steps.max():.2f} mm apart ({count} slices, "
        f"usually {step:.2f} mm). Pass a series with one step, or resample this one first."
    )


def _read(path: Path, stack: Sequence[Slice], findings: list[Finding]) -> Series:
    what = f"{path} ({title(stack)})"
    arrangement = arrange(stack, what)
    sink = Int16Sink(arrangement.grid.shape, what)
    dropped = 0
    with quiet_itk():
        for k, group in enumerate(arrangement.groups):
            pixels = slice_pixels(stack[group[0]])
            for other in group[1:]:
                if not np.array_equal(slice_pixels(stack[other]), pixels):
                    raise InputError(_several_images(what, stack, arrangement.groups))
                dropped += 1
            sink.put(k, pixels[None])
    array, notes = sink.finish()
    findings.extend(notes)
    if dropped:
        text = f"{count_of(dropped, 'slice')} of {title(stack)} came twice, with identical pixels, and was left out."
        findings.append(Finding("duplicate-slices", Severity.WARNING, text))
    findings.extend(_thickness_note(stack[0], arrangement.step))
    return Series(array, arrangement.grid, _name(path, stack[0]), _source(path, stack[0]), tuple(findings))


def _several_images(what: str, stack: Sequence[Slice], groups: Sequence[Sequence[int]]) -> str:
    crowded = sum(len(group) > 1 for group in groups)
    acquisitions = sorted({s.acquisition for s in stack if s.acquisition})
    hint = f" (acquisitions {', '.join(acquisitions)})" if len(acquisitions) > 1 else ""
    return (
        f"{what} is 4D or holds several phases{hint}: at {crowded} of {len(groups)} positions there are different "
        "images. Pass a folder with one of them."
    )


def slice_pixels(item: Slice) -> np.ndarray:
    """The rescaled pixels of one file, [j, i]."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(item.path))
    try:
        pixels = array_of(reader.Execute())
    except RuntimeError as error:
        raise InputError(
            f"The pixels of {item.path} cannot be decoded: the file is truncated, or compressed in a way that is not "
            "supported. Copy the series again, or export it uncompressed."
        ) from error
    if pixels.size != item.size[0] * item.size[1] or pixels.dtype.kind not in "iuf":
        raise InputError(f"{item.path} does not hold the {item.size[0]}×{item.size[1]} pixels that its header states.")
    return pixels.reshape(item.size[::-1])


def _thickness_note(item: Slice, step: float) -> list[Finding]:
    try:
        thickness = float(item.thickness)
    except ValueError:
        return []
    if abs(thickness - step) <= 0.1 * step:
        return []
    kind = "overlap" if thickness > step else "leave gaps"
    text = f"Slices are {thickness:g} mm thick but {step:.4g} mm apart (they {kind}); the distance was used."
    return [Finding("slice-step", Severity.INFO, text)]


def _name(path: Path, item: Slice) -> str:
    folder = path if path.is_dir() else path.parent
    return item.description or (f"CT {item.series_number}" if item.series_number else folder.resolve().name or "CT")


def _source(path: Path, item: Slice) -> dict[str, object]:
    return {
        "path": str(path),
        "format": "dicom",
        "patient_id": item.patient_id,
        "study_instance_uid": item.study_uid,
        "series_instance_uid": item.series_uid,
        "series_number": item.series_number,
        "series_description": item.description,
        "modality": item.modality,
        "study_date": item.study_date,
        "slice_thickness_mm": item.thickness,
    }
