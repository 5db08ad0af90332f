"""The original instances behind a volume: what DICOM objects about it refer to, and whether they honestly can."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..dicom_headers import Slice, count_of, ct_stacks, scan_files, title
from ..dicom_series import arrange, files_around, slice_pixels
from ..errors import InputError
from ..findings import Finding, Severity
from ..geometry import Grid
from ..pixels import quiet_itk
from ..volume import Volume
from .identity import quiet, read_header, text_of
from .text import fitting, stable_uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
# A volume's voxels may lie this far from those of its instances, as a share of the smallest voxel edge: headers of
# other formats are rounded.
PLACE_TOLERANCE = 0.1
# Values below this are air or padding, which converters change at will.
AIR_HU = -1000
# Share of voxels of a slice that may differ by more than 1 HU.
VALUE_TOLERANCE = 0.01

_UID = re.compile(r"[0-9.]{1,64}")
_LEVELS = {
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "FrameOfReferenceUID": "series",
    "SOPClassUID": "instance",
    "SOPInstanceUID": "instance",
}
# Copied where they hold what their value representation allows; the patient and the study must stay the same.
_TEXTS = {
    "PatientID": "LO",
    "IssuerOfPatientID": "LO",
    "AccessionNumber": "SH",
    "StudyID": "SH",
    "StudyDescription": "LO",
    "SeriesDescription": "LO",
    "PositionReferenceIndicator": "LO",
    "DeidentificationMethod": "LO",
}
_NAMES = ("PatientName", "ReferringPhysicianName")
_PATTERNS = {
    "PatientBirthDate": r"\d{8}",
    "PatientSex": r"[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "PatientIdentityRemoved": r"YES|NO",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "SeriesDate": r"\d{8}",
    "SeriesTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "AcquisitionDate": r"\d{8}",
    "AcquisitionTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "LossyImageCompression": r"0[01]",
    "LossyImageCompressionRatio": r"\d+(\.\d+)?",
    "LossyImageCompressionMethod": r"[A-Z0-9_ ]{1,16}",
    "SeriesNumber": r"\d{1,9}",
    "InstanceNumber": r"\d{1,9}",
}
# What a type 2 attribute of the written objects needs, even if it is empty.
_ALWAYS = (
    "PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime "
    "ReferringPhysicianName"
)


class MissingIdentifiers(InputError):
    """The series lacks identifiers, which could be generated if the user wants that."""


@dataclass(frozen=True, eq=False)
class Instances:
    """The slices of one series, in the order in which they lie along their normal.

    Attributes:
        headers: one per slice, without pixels: what objects that refer to it need, in clean values.
        grid: of the volume that the slices make.
        generated: keywords of identifiers that were missing and were made up on request.
        findings: what was noticed.
    """

    headers: tuple[Dataset, ...]
    grid: Grid
    generated: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default=())

    def frames(self, array: np.ndarray, grid: Grid) -> np.ndarray:
        """``array`` [k, j, i] on ``grid`` as a view along the slices, rows and columns of the instances.

        Raises:
            ValueError: the grid is not that of the instances, up to the order and direction of its axes.
        """
        return along(array, grid, self.grid)


def along(array: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """A view of ``array`` [k, j, i] on ``grid`` with the axes of ``target``, which holds the same voxels.

    Raises:
        ValueError: the grids differ by more than the order and direction of their axes; says by what.
    """
    order, flips = same_voxels(grid, target)
    # Axis a of a grid is axis 2 - a of its array.
    view = array.transpose([2 - order[axis] for axis in (2, 1, 0)])
    return view[tuple(slice(None, None, -1) if flips[axis] else slice(None) for axis in (2, 1, 0))]


def same_voxels(grid: Grid, target: Grid) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """How the voxels of ``target`` are found in ``grid``: for i, j and k of the target the axis, and if it is flipped.

    Raises:
        ValueError: the grids hold different voxels.
    """
    linear = (np.linalg.inv(grid.ijk_to_ras) @ target.ijk_to_ras)[:3, :3]
    order = np.abs(linear).argmax(axis=0)
    flips = linear[order, range(3)] < 0
    size = tuple(grid.size[axis] for axis in order)
    if len(set(order.tolist())) != 3 or size != target.size:
        raise ValueError(f"the volume has {_times(grid.size)} voxels, the series {_times(target.size)}")
    matrix = np.eye(4)
    columns = np.where(flips, -1, 1) * grid.ijk_to_ras[:3, order]
    start = np.zeros(3)
    start[order] = np.where(flips, np.array(size) - 1, 0)
    matrix[:3, :3], matrix[:3, 3] = columns, grid.to_ras(start)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size])).reshape(3, -1).T
    off = float(np.linalg.norm(Grid(size, matrix).to_ras(corners) - target.to_ras(corners), axis=1).max())
    if off > PLACE_TOLERANCE * float(target.spacing.min()):
        raise ValueError(f"their voxels lie up to {off:.2f} mm apart")
    return tuple(int(axis) for axis in order), tuple(bool(flip) for flip in flips)


def _times(size: Sequence[int]) -> str:
    return "×".join(map(str, size))


def find_instances(source: Path | str | Sequence[Path], volume: Volume, generate_uids: bool = False) -> Instances:
    """The instances that ``volume`` was made of.

    Args:
        source: a folder with DICOM files, one file of the series, or the files themselves.
        volume: must hold the voxels of the series, in any order and direction of its axes.
        generate_uids: makes up identifiers that are missing. Whatever refers to them refers to nothing that any
            archive knows, and says so.

    Raises:
        InputError: there is no such series, the volume is not (or no longer) made of it.
        MissingIdentifiers: identifiers are missing, and ``generate_uids`` is not set.
    """
    what = str(source) if isinstance(source, Path | str) else count_of(len(source), "DICOM file")
    try:
        slices = scan_files(_files(source)).slices
    except OSError as error:
        raise InputError(
            f"{what} cannot be read: {error.strerror or error}. Check the path and its rights."
        ) from error
    if not slices:
        raise InputError(
            f"{what} holds no DICOM image. DICOM objects refer to the original slices: pass the folder with the "
            "DICOM series that the CT was read from."
        )
    stacks = _candidates(Path(what), slices, volume)
    chosen, grid, groups = _matching(what, stacks, volume)
    return _instances(what, [chosen[group[0]] for group in groups], grid, generate_uids)


def _files(source: Path | str | Sequence[Path]) -> list[Path]:
    if not isinstance(source, Path | str):
        return sorted(Path(file) for file in source)
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"There is no file or folder {path}. Check the path.")
    return files_around(path)


def _candidates(path: Path, slices: Sequence[Slice], volume: Volume) -> list[list[Slice]]:
    """Stacks that may be the volume's, the likeliest first: the series that its source names, or all."""
    wanted = str(volume.source.get("series_instance_uid") or "")
    named = [item for item in slices if item.series_uid == wanted] if wanted else []
    if wanted and not named:
        raise InputError(
            f"{path} does not hold the series that this CT was read from ({wanted}). Pass the folder of that series."
        )
    stacks, _ = ct_stacks(path, named or slices)
    return stacks


def _matching(
    what: str, stacks: list[list[Slice]], volume: Volume
) -> tuple[list[Slice], Grid, tuple[tuple[int, ...], ...]]:
    """The stack that makes the volume.

    Raises:
        InputError: none does; says why the first one does not.
    """
    reasons = []
    for stack in stacks:
        try:
            arrangement = arrange(stack, title(stack))
            _check_values(stack, arrangement.groups, arrangement.grid, volume)
        except (InputError, ValueError) as error:
            reasons.append(f"{title(stack)}: {error}")
        else:
            return stack, arrangement.grid, arrangement.groups
    reason = reasons[0].rstrip(".")
    raise InputError(
        f"DICOM objects cannot refer to {what}: the CT is not made of its slices as they are ({reason}). "
        "A volume that was resampled, cropped, straightened or moved since has no slices of its own to refer to: "
        "segment the original series."
    )


def _check_values(stack: Sequence[Slice], groups: Sequence[Sequence[int]], grid: Grid, volume: Volume) -> None:
    """Checks place and values: the phases of one examination lie at the same place, and are not the same."""
    frames = along(volume.array, volume.grid, grid)
    with quiet_itk():
        for k in sorted({0, len(groups) // 2, len(groups) - 1}):
            pixels = np.maximum(slice_pixels(stack[groups[k][0]]).astype(np.float32), AIR_HU)
            values = np.maximum(frames[k].astype(np.float32), AIR_HU)
            share = float(np.mean(np.abs(pixels - values) > 1))
            if share > VALUE_TOLERANCE:
                raise ValueError(f"{100 * share:.0f} % of the voxels of slice {k + 1} have other values")


def _instances(what: str, slices: Sequence[Slice], grid: Grid, generate_uids: bool) -> Instances:
    from pydicom.dataset import Dataset

    headers, changed = [], Counter()
    tags = [*_LEVELS, *_TEXTS, *_NAMES, *_PATTERNS, "SpecificCharacterSet", "Manufacturer", "ManufacturerModelName"]
    for item in slices:
        full = read_header(item.path, tags)
        header = Dataset()
        with quiet():
            changed.update(_copy_values(full, header))
            _set_place(header, item)
        headers.append(header)
    missing = _missing(headers)
    if missing and not generate_uids:
        raise MissingIdentifiers(_why_not(what, missing, len(headers)))
    findings = []
    if missing:
        _generate(headers, slices, missing)
        text = (
            f"{_listed(missing)} missing in the DICOM series and generated on request: the written objects refer to "
            "identifiers that no archive knows, and say so."
        )
        findings.append(Finding("generated-uids", Severity.WARNING, text))
    if changed:
        text = (
            f"Values that DICOM does not allow were cleaned or left out of the written objects: "
            f"{', '.join(sorted(changed))}. Check that an archive still knows the patient."
        )
        findings.append(Finding("cleaned-values", Severity.WARNING, text))
    return Instances(tuple(headers), grid, tuple(missing), tuple(findings))


def _copy_values(full: Dataset, header: Dataset) -> set[str]:
    """Copies what is valid; returns the keywords whose values had to be changed or left out."""
    changed = set()
    for keyword in _LEVELS:
        value = text_of(full, keyword)
        setattr(header, keyword, value if _UID.fullmatch(value) else "")
    for keyword, vr in {**_TEXTS, **dict.fromkeys(_NAMES, "PN")}.items():
        text = text_of(full, keyword)
        value = fitting(text, vr)
        if value or keyword in _ALWAYS.split():
            setattr(header, keyword, value)
        if value != text:
            changed.add(keyword)
    for keyword, pattern in _PATTERNS.items():
        text = text_of(full, keyword)
        value = text if re.fullmatch(pattern, text) else ""
        if value or keyword in _ALWAYS.split():
            setattr(header, keyword, value)
        if text and not value and keyword in _ALWAYS.split():
            changed.add(keyword)
    for keyword in ("Manufacturer", "ManufacturerModelName"):
        setattr(header, keyword, fitting(text_of(full, keyword), "LO"))
    return changed


def _set_place(header: Dataset, item: Slice) -> None:
    header.Modality = "CT"
    header.Columns, header.Rows = item.size
    header.ImagePositionPatient = [decimal(value) for value in item.position]
    header.ImageOrientationPatient = [decimal(value) for value in item.orientation]
    header.PixelSpacing = [decimal(value) for value in item.spacing[::-1]]
    with suppress(ValueError):
        if 0 < float(item.thickness) < 1000:
            header.SliceThickness = decimal(float(item.thickness))


def decimal(value: float) -> str:
    """A number as a decimal string (DS) of at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    # A negative zero, or noise far below what DICOM writes for a direction, helps nobody.
    return format_number_as_ds(round(float(value), 12) + 0.0)


def _missing(headers: Sequence[Dataset]) -> dict[str, int]:
    """Keywords of identifiers that slices lack, or share though they must not, and how many slices."""
    found = {keyword: sum(not header.get(keyword) for header in headers) for keyword in _LEVELS}
    uids = Counter(header.SOPInstanceUID for header in headers if header.SOPInstanceUID)
    found["SOPInstanceUID"] += sum(count for count in uids.values() if count > 1)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if len({header.get(keyword) for header in headers}) > 1 and not found[keyword]:
            found[keyword] = len(headers)
    return {keyword: count for keyword, count in found.items() if count}


def _listed(missing: dict[str, int]) -> str:
    names = [keyword for keyword in missing]
    return names[0] + " is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


def _why_not(what: str, missing: dict[str, int], count: int) -> str:
    details = ", ".join(f"{keyword} ({n} of {count_of(count, 'slice')})" for keyword, n in missing.items())
    return (
        f"DICOM objects cannot refer to {what}: identifiers are missing, invalid or used twice: {details}. "
        "They were probably removed by anonymization. Take the original series; or have identifiers generated, which "
        "ties the objects to nothing that an archive knows, and is marked in them."
    )


def _generate(headers: Sequence[Dataset], slices: Sequence[Slice], missing: dict[str, int]) -> None:
    """Makes up identifiers from the content of the files, so that they are the same the next time."""
    digests = [hashlib.sha256(item.path.read_bytes()).hexdigest() for item in slices]
    whole = hashlib.sha256("".join(digests).encode()).hexdigest()
    uids = Counter(header.SOPInstanceUID for header in headers)
    for keyword in missing:
        made = stable_uid(keyword, whole)
        for header, digest in zip(headers, digests, strict=True):
            if keyword == "SOPClassUID":
                header.SOPClassUID = header.SOPClassUID or CT_IMAGE_STORAGE
            elif keyword != "SOPInstanceUID":
                setattr(header, keyword, made)
            elif not header.SOPInstanceUID or uids[header.SOPInstanceUID] > 1:
                position = "/".join(map(str, header.ImagePositionPatient))
                header.SOPInstanceUID = stable_uid(keyword, digest, position)
