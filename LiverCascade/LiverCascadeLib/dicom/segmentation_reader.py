"""Reads DICOM segmentations (SEG) of any maker back onto a volume, with pydicom alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..dicom_headers import count_of, looks_like_dicom
from ..errors import InputError
from ..findings import Finding, Severity
from ..geometry import Box, Grid
from ..lesions.assess import LesionNote
from ..lesions.couinaud import BY_VALUE, CouinaudMap
from ..result import FIRST_LESION_LABEL, LIVER_LABEL
from ..volume import Volume
from . import vocabulary
from .identity import quiet, text_of
from .segmentation_writer import SEGMENTATION_STORAGE
from .text import fitting

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
# A frame may lie this far from its slice, in voxels.
PLACE_TOLERANCE = 0.1
_PIXELS = 0x7FE00010


@dataclass(frozen=True, eq=False)
class ReadSegment:
    """One segment of a DICOM segmentation on the voxels of a volume.

    Attributes:
        number: in its segmentation.
        name: its label.
        kind: 'liver', 'lesion', 'couinaud' or 'other', by its codes.
        couinaud: label value of the Couinaud segment; else 0.
        category, type: SNOMED or other codes as (value, scheme, meaning).
        tracking_uid, tracking_id: empty where nobody follows it.
        description: of whoever drew it.
        algorithm: such as 'AUTOMATIC LiverCascade refine-1'.
        box: the smallest box of the volume's grid that holds it; None where it is empty.
        mask: bool [k, j, i], the content of ``box``.
    """

    number: int
    name: str
    kind: str
    couinaud: int
    category: tuple[str, str, str]
    type: tuple[str, str, str]
    tracking_uid: str
    tracking_id: str
    description: str
    algorithm: str
    box: Box | None
    mask: np.ndarray

    def on(self, grid: Grid) -> np.ndarray:
        """The whole mask, bool [k, j, i] on ``grid``, the one that it was read for."""
        whole = np.zeros(grid.shape, bool)
        if self.box is not None:
            whole[self.box.slices] = self.mask
        return whole


@dataclass(frozen=True)
class ReadSegmentation:
    """A DICOM segmentation on the voxels of a volume.

    Attributes:
        grid: of the volume.
        segments: in the order of their numbers.
        patient_id: as DICOM says it.
        study_uid, series_uid: of the images that were segmented, where it says so.
        sop_instance_uid: of the segmentation itself.
        findings: what was noticed.
    """

    grid: Grid
    segments: tuple[ReadSegment, ...]
    patient_id: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    findings: tuple[Finding, ...] = ()

    def of_kind(self, kind: str) -> list[ReadSegment]:
        """The segments of one kind that are not empty."""
        return [segment for segment in self.segments if segment.kind == kind and segment.box is not None]


@dataclass(frozen=True, eq=False)
class ImportedLabels:
    """A segmentation as the engine's labels.

    Attributes:
        labels: uint8 or uint16 [k, j, i]: 0 background, 1 liver, 2 and above lesions in the order of their segments.
        notes: name, comment and tracking identifier of each lesion.
        couinaud: where the segmentation has segments of the liver.
        findings: overlaps, and segments that were left out.
        origin: the segmentation's identifier, and the algorithm that it names.
    """

    labels: np.ndarray
    notes: tuple[LesionNote, ...]
    couinaud: CouinaudMap | None = None
    findings: tuple[Finding, ...] = ()
    origin: dict[str, str] = field(default_factory=dict)


def read_segmentation(path: Path | str, grid: Grid) -> ReadSegmentation:
    """Reads a SEG (BINARY, FRACTIONAL or LABELMAP) onto the voxels of ``grid``.

    Frames may cover a part of the slices and of their area, in any order and direction of the axes, but their voxels
    must be those of the grid: nothing is resampled. Of a FRACTIONAL segmentation, values of one half and above count.

    Raises:
        InputError: no segmentation, a damaged one, or one that lies on other voxels.
    """
    path = Path(path).expanduser()
    try:
        with quiet():
            return _placed(path, _read(path), grid)
    except (InputError, MemoryError):
        raise
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its rights."
        ) from error
    except Exception as error:  # whatever a parser stumbles over that reads sequences when they are asked for
        raise InputError(f"{path} is a damaged DICOM file. Copy or export it again.") from error


def _placed(path: Path, data: Dataset, grid: Grid) -> ReadSegmentation:
    layout = _Layout(path, data, grid)
    frames = _frames(path, data)
    collected: dict[int, _Collector] = {}
    numbers = [int(item.SegmentNumber) for item in data.SegmentSequence]
    for index, plane in enumerate(frames):
        for number, mask in _segments_of_frame(data, layout, index, plane, numbers):
            if mask.any():
                collected.setdefault(number, _Collector()).add(*layout.placed(index, mask))
    segments = tuple(_segment(item, collected.get(int(item.SegmentNumber))) for item in data.SegmentSequence)
    referenced = data.get("ReferencedSeriesSequence") or []
    return ReadSegmentation(
        grid=grid,
        segments=segments,
        patient_id=text_of(data, "PatientID"),
        study_uid=text_of(data, "StudyInstanceUID"),
        series_uid=text_of(referenced[0], "SeriesInstanceUID") if referenced else "",
        sop_instance_uid=text_of(data, "SOPInstanceUID"),
        findings=_findings(data, segments),
    )


def import_segmentation(path: Path | str, volume: Volume) -> ImportedLabels:
    """Reads a SEG that was drawn on ``volume`` as the engine's labels.

    Raises:
        InputError: no segmentation, another patient's, one on other voxels, or one without liver and lesions.
    """
    segmentation = read_segmentation(path, volume.grid)
    patient = str(volume.source.get("patient_id") or "")
    if patient and segmentation.patient_id and patient != segmentation.patient_id:
        raise InputError(
            f"The segmentation {path} is of the patient with the PatientID '{segmentation.patient_id}', the CT of "
            f"'{patient}'. Pass the segmentation of this patient."
        )
    imported = labels_from_segmentation(segmentation)
    series = str(volume.source.get("series_instance_uid") or "")
    if series and segmentation.series_uid and series != segmentation.series_uid:
        text = (
            f"The segmentation was drawn on another series ({segmentation.series_uid}) with the same voxels, such as "
            "another phase. Check that it fits."
        )
        findings = (*imported.findings, Finding("other-series", Severity.WARNING, text))
        return replace(imported, findings=findings)
    return imported


def labels_from_segmentation(segmentation: ReadSegmentation) -> ImportedLabels:
    """The engine's labels of a segmentation: its liver, its lesions, its Couinaud segments; all else is left out.

    Where lesions overlap, the later one has the voxels. A lesion may lie outside the liver.

    Raises:
        InputError: there is neither a liver nor a lesion.
    """
    livers, lesions = segmentation.of_kind(vocabulary.LIVER), segmentation.of_kind(vocabulary.LESION)
    couinaud = segmentation.of_kind(vocabulary.COUINAUD)
    if not livers and not lesions and not couinaud:
        names = ", ".join(f"'{segment.name}' ({segment.type[2]})" for segment in segmentation.segments[:6])
        raise InputError(
            f"The segmentation holds neither a liver nor a lesion of it, but {names or 'nothing'}. Segments are "
            "recognized by their codes: Liver; Lesion, Mass or Neoplasm; Couinaud's segments."
        )
    highest = FIRST_LESION_LABEL + len(lesions) - 1
    labels = np.zeros(segmentation.grid.shape, np.uint8 if highest <= 255 else np.uint16)
    for segment in [*livers, *couinaud]:
        labels[segment.box.slices][segment.mask] = LIVER_LABEL
    findings, notes = list(segmentation.findings), []
    overlap = 0
    for label, segment in enumerate(lesions, start=FIRST_LESION_LABEL):
        part = labels[segment.box.slices]
        overlap += int(np.count_nonzero(part[segment.mask] >= FIRST_LESION_LABEL))
        part[segment.mask] = label
        notes.append(LesionNote(label, segment.name, comment=segment.description, tracking_uid=segment.tracking_uid))
    findings += _import_findings(segmentation, bool(livers or couinaud), overlap)
    origin = {
        "sop_instance_uid": segmentation.sop_instance_uid,
        "algorithm": next((segment.algorithm for segment in [*lesions, *livers, *couinaud]), ""),
    }
    return ImportedLabels(labels, tuple(notes), _couinaud_map(segmentation, couinaud), tuple(findings), origin)


def _couinaud_map(segmentation: ReadSegmentation, segments: Sequence[ReadSegment]) -> CouinaudMap | None:
    if not segments:
        return None
    labels = np.zeros(segmentation.grid.shape, np.uint8)
    for segment in segments:
        labels[segment.box.slices][segment.mask] = segment.couinaud
    names = ", ".join(BY_VALUE[value].name for value in sorted({segment.couinaud for segment in segments}))
    return CouinaudMap(
        labels,
        "reader",
        f"Segments {names} were imported from a DICOM segmentation ({segments[0].algorithm or 'maker not named'}).",
    )


def _import_findings(segmentation: ReadSegmentation, has_liver: bool, overlap: int) -> list[Finding]:
    found = []
    others = segmentation.of_kind(vocabulary.OTHER)
    if others:
        names = ", ".join(f"'{segment.name}' ({segment.type[2]})" for segment in others[:6])
        more = f" and {len(others) - 6} more" if len(others) > 6 else ""
        text = f"{count_of(len(others), 'segment')} left out, neither liver nor lesion of it: {names}{more}."
        found.append(Finding("foreign-segments", Severity.INFO, text))
    if not has_liver:
        text = "The segmentation has no liver. Figures that need one, such as burden and distance, stay empty."
        found.append(Finding("no-liver-segment", Severity.WARNING, text))
    if overlap:
        text = f"Lesions overlapped in {overlap} voxels, which were given to the later one."
        found.append(Finding("overlapping-lesions", Severity.WARNING, text))
    return found


def _findings(data: Dataset, segments: Sequence[ReadSegment]) -> tuple[Finding, ...]:
    found = []
    if _type(data) == "FRACTIONAL":
        text = "The segmentation holds fractions or probabilities; voxels of one half and above were taken."
        found.append(Finding("fractional-segmentation", Severity.INFO, text))
    empty = [segment.name for segment in segments if segment.box is None]
    if empty:
        text = f"{count_of(len(empty), 'segment')} without voxels left out: {', '.join(empty[:6])}."
        found.append(Finding("empty-segments", Severity.INFO, text))
    return tuple(found)


def _type(data: Dataset) -> str:
    if text_of(data, "SOPClassUID") == LABEL_MAP_STORAGE:
        return "LABELMAP"
    return text_of(data, "SegmentationType").upper()


def _read(path: Path) -> Dataset:
    """The whole dataset.

    Raises:
        InputError: not there, no DICOM, or no segmentation.
    """
    import pydicom

    if not path.is_file():
        raise InputError(f"There is no file {path}. A DICOM segmentation is one file: check the path.")
    with path.open("rb") as stream:
        is_dicom = looks_like_dicom(stream.read(132))
    if not is_dicom:
        raise InputError(f"{path} is no DICOM file; a DICOM segmentation (SEG) is expected.")
    data = pydicom.dcmread(path, force=True)
    sop_class, modality = text_of(data, "SOPClassUID"), text_of(data, "Modality")
    if sop_class not in (SEGMENTATION_STORAGE, LABEL_MAP_STORAGE):
        raise InputError(f"{path} is DICOM of the kind {modality or 'unknown'}; a segmentation (SEG) is expected.")
    wanted = ("SegmentSequence", "PerFrameFunctionalGroupsSequence", "Rows", "Columns")
    lacking = [keyword for keyword in wanted if not data.get(keyword)]
    if lacking or _PIXELS not in data:
        raise InputError(
            f"The segmentation {path} is damaged or cut off: {', '.join(lacking) or 'PixelData'} is missing."
        )
    return data


class _Layout:
    """Where the frames of a segmentation lie on a grid.

    Raises:
        InputError: on other voxels, or nowhere.
    """

    def __init__(self, path: Path, data: Dataset, grid: Grid):
        self._path, self._grid = path, grid
        shared = data.get("SharedFunctionalGroupsSequence") or [None]
        self._shared = shared[0]
        self._items = list(data.PerFrameFunctionalGroupsSequence)
        self._rows, self._columns = int(data.Rows), int(data.Columns)
        self._places = [self._place(item) for item in self._items]

    def segment_number(self, index: int) -> int:
        """The number of the segment that frame ``index`` shows.

        Raises:
            InputError: it does not say.
        """
        item = self._group(self._items[index], "SegmentIdentificationSequence")
        if item is None or not item.get("ReferencedSegmentNumber"):
            raise InputError(f"The segmentation {self._path} does not say which segment frame {index + 1} shows.")
        return int(item.ReferencedSegmentNumber)

    def placed(self, index: int, plane: np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
        """Frame ``index`` on the grid: first voxel (i, j, k) and a bool array [k, j, i] that is one voxel thick."""
        origin, axes, signs = self._places[index]
        column_axis, row_axis = axes
        # plane[row, column]: columns are counted along axes[0] of the grid, rows along axes[1].
        if signs[0] < 0:
            plane = plane[:, ::-1]
        if signs[1] < 0:
            plane = plane[::-1]
        shape = [1, 1, 1]
        shape[2 - column_axis], shape[2 - row_axis] = plane.shape[1], plane.shape[0]
        if column_axis > row_axis:  # [k, j, i]: the higher axis comes first
            plane = plane.T
        return origin, plane.reshape(shape)

    def _group(self, item: Dataset, keyword: str) -> Dataset | None:
        for home in (item, self._shared):
            found = home.get(keyword) if home is not None else None
            if found:
                return found[0]
        return None

    def _place(self, item: Dataset) -> tuple[tuple[int, int, int], tuple[int, int], tuple[int, int]]:
        """First voxel on the grid, the grid's axes along columns and rows, and their directions."""
        try:
            orientation = np.array(
                self._group(item, "PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64
            )
            position = np.array(self._group(item, "PlanePositionSequence").ImagePositionPatient, dtype=np.float64)
            spacing = np.array(self._group(item, "PixelMeasuresSequence").PixelSpacing, dtype=np.float64)
            steps = np.stack([orientation[:3] * spacing[1], orientation[3:] * spacing[0]], axis=1)
            position = position * (-1, -1, 1)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"The segmentation {self._path} does not say where its frames lie in the patient."
            ) from error
        steps = np.linalg.inv(self._grid.ijk_to_ras)[:3, :3] @ (steps * np.array([[-1], [-1], [1]]))
        axes = [int(np.abs(steps[:, n]).argmax()) for n in (0, 1)]
        signs = [1 if steps[axes[n], n] > 0 else -1 for n in (0, 1)]
        whole = np.zeros((3, 2))
        whole[axes, (0, 1)] = signs
        start = self._grid.to_ijk(position)
        drift = np.abs(steps - whole) @ (self._columns - 1, self._rows - 1)
        off = np.abs(start - np.rint(start))
        if axes[0] == axes[1] or drift.max() > PLACE_TOLERANCE or off.max() > PLACE_TOLERANCE:
            raise InputError(self._other_voxels("lie between the CT's voxels, or are turned or scaled against them"))
        first, last = np.rint(start), np.rint(start + steps @ (self._columns - 1, self._rows - 1))
        if (np.minimum(first, last) < 0).any() or (np.maximum(first, last) >= self._grid.size).any():
            raise InputError(self._other_voxels("reach beyond it"))
        origin = tuple(int(n) for n in np.minimum(first, last))
        return origin, (axes[0], axes[1]), (signs[0], signs[1])

    def _other_voxels(self, what: str) -> str:
        size = "×".join(map(str, self._grid.size))
        return (
            f"The segmentation {self._path} was made on other voxels than this CT ({size}): its frames "
            f"({self._columns}×{self._rows}) {what}. Pass the series that it was drawn on; it is not resampled."
        )


class _Collector:
    """Puts a segment together from its frames."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, origin: tuple[int, int, int], plane: np.ndarray) -> None:
        box = Box.around(plane)
        self._parts.append((np.array(origin) + box.start, plane[box.slices].copy()))

    def finish(self) -> tuple[Box, np.ndarray]:
        start = np.min([origin for origin, _ in self._parts], axis=0)
        stop = np.max([origin + plane.shape[::-1] for origin, plane in self._parts], axis=0)
        box = Box(tuple(int(n) for n in start), tuple(int(n) for n in stop))
        mask = np.zeros(box.size[::-1], bool)
        for origin, plane in self._parts:
            low = origin - start
            place = tuple(slice(a, a + n) for a, n in zip(low[::-1], plane.shape, strict=True))
            mask[place] |= plane
        return box, mask


def _segments_of_frame(data: Dataset, layout: _Layout, index: int, plane: np.ndarray, numbers: Sequence[int]):
    """(number, bool [row, column]) of each segment that a frame shows."""
    kind = _type(data)
    if kind == "LABELMAP":
        present = set(np.unique(plane).tolist())
        for number in numbers:
            if number in present:
                yield number, plane == number
    elif kind == "FRACTIONAL":
        yield layout.segment_number(index), plane >= int(data.get("MaximumFractionalValue") or 255) / 2
    else:
        yield layout.segment_number(index), plane != 0


def _frames(path: Path, data: Dataset):
    """The frames [row, column], one at a time: whole objects may hold thousands.

    Raises:
        InputError: fewer pixels than frames, or a compression that cannot be decoded.
    """
    rows, columns, count = int(data.Rows), int(data.Columns), len(data.PerFrameFunctionalGroupsSequence)
    compressed = data.file_meta.TransferSyntaxUID.is_compressed if data.get("file_meta") else False
    if int(data.get("BitsAllocated") or 0) == 1 and not compressed:
        content = np.frombuffer(data.PixelData, np.uint8)
        if content.size * 8 < rows * columns * count:
            raise InputError(
                f"The segmentation {path} is cut off: it holds fewer pixels than its {count} frames need."
            )
        for index in range(count):
            first, last = index * rows * columns, (index + 1) * rows * columns
            bits = np.unpackbits(content[first // 8 : (last + 7) // 8], bitorder="little")
            yield bits[first % 8 : first % 8 + rows * columns].reshape(rows, columns)
        return
    from pydicom.pixels import iter_pixels

    try:
        for frame in iter_pixels(data):
            yield frame.reshape(rows, columns)
    except Exception as error:
        raise InputError(
            f"The pixels of the segmentation {path} cannot be decoded: it is damaged, or compressed in a way that is "
            "not supported. Export it uncompressed."
        ) from error


def _segment(item: Dataset, collector: _Collector | None) -> ReadSegment:
    kind_code, category = (
        _code(item, "SegmentedPropertyTypeCodeSequence"),
        _code(item, "SegmentedPropertyCategoryCodeSequence"),
    )
    region = _code(item, "AnatomicRegionSequence")
    name = fitting(text_of(item, "SegmentLabel") or kind_code.meaning or f"Segment {item.SegmentNumber}", "UT")
    kind, couinaud = vocabulary.kind_of(kind_code, region if region.value else None, name)
    box, mask = collector.finish() if collector else (None, np.zeros((0, 0, 0), bool))
    algorithm = " ".join(filter(None, (text_of(item, "SegmentAlgorithmType"), text_of(item, "SegmentAlgorithmName"))))
    return ReadSegment(
        number=int(item.SegmentNumber),
        name=name,
        kind=kind,
        couinaud=couinaud,
        category=(category.value, category.scheme_designator, category.meaning),
        type=(kind_code.value, kind_code.scheme_designator, kind_code.meaning),
        tracking_uid=text_of(item, "TrackingUID"),
        tracking_id=fitting(text_of(item, "TrackingID"), "UT"),
        description=fitting(text_of(item, "SegmentDescription"), "UT"),
        algorithm=fitting(algorithm, "UT"),
        box=box,
        mask=mask,
    )


def _code(item: Dataset, keyword: str) -> Code:
    """The first code of a sequence; an empty one where there is none."""
    items = item.get(keyword)
    if not items:
        return vocabulary.code(("", "", ""))
    one = items[0]
    value = text_of(one, "CodeValue") or text_of(one, "LongCodeValue")
    return vocabulary.code((value, text_of(one, "CodingSchemeDesignator"), fitting(text_of(one, "CodeMeaning"), "UT")))
