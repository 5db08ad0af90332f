"""Writes DICOM segmentations (SEG): the liver, each lesion, and Couinaud's segments where they are known.

The segments overlap, because the liver holds its lesions. highdicom would want one dense mask per segment for that,
which does not fit into memory with hundreds of lesions: it makes the parts, the frames are put together here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..lesions.assessment import AssessedLesion, Assessment
from ..lesions.couinaud import SEGMENTS, CouinaudMap
from ..result import LIVER_LABEL
from . import vocabulary
from .equipment import Algorithm, algorithm_of, common_arguments, notes, required
from .instances import Instances, decimal
from .text import fitting, stable_uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
_SEGMENT_NUMBER, _SEGMENT_ITEM = 0x0062000B, 0x0062000A
_POSITION, _POSITION_ITEM = 0x00200032, 0x00209113
_PROVIDER_KINDS = {"network": "AUTOMATIC", "estimate": "AUTOMATIC", "landmarks": "SEMIAUTOMATIC", "reader": "MANUAL"}
_FRAMES_PER_BLOCK = 8


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment to be written.

    Attributes:
        number: 1, 2, …
        mask: bool [k, j, i] along the slices of the instances, as small as it may be.
        corner: (k, j, i) of its first voxel.
        tracking_uid: the same as in the report.
        lesion, couinaud: what it is, if not the liver.
    """

    number: int
    label: str
    mask: np.ndarray
    corner: tuple[int, int, int]
    category: tuple[str, str, str]
    type: tuple[str, str, str]
    algorithm: Algorithm
    description: str = ""
    tracking_uid: str = ""
    lesion: AssessedLesion | None = None
    couinaud: int = 0

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Slices that are not empty, with their numbers."""
        for index, plane in enumerate(self.mask):
            if plane.any():
                yield self.corner[0] + index, plane


def segments_of(assessment: Assessment, instances: Instances) -> list[Segment]:
    """Liver, lesions, Couinaud's segments, in this order; what is empty is left out.

    Raises:
        InputError: there is nothing at all.
    """
    labels = instances.frames(assessment.labels, assessment.volume.grid)
    places = ndimage.find_objects(np.ascontiguousarray(labels))
    if not any(places):
        raise InputError(
            "Nothing is segmented: neither liver nor lesion. A DICOM segmentation needs at least one segment; "
            "segment the CT first."
        )
    algorithm = algorithm_of(assessment.provenance)
    found: list[Segment] = []

    series = instances.headers[0].SeriesInstanceUID

    def add(label: str, mask: np.ndarray, corner: tuple[int, ...], *rest: Any, **more: Any) -> None:
        label = fitting(label, "LO")
        uid = more.pop("tracking_uid", "") or stable_uid(series, label)
        found.append(Segment(len(found) + 1, label, mask, corner, *rest, tracking_uid=uid, **more))

    box, liver = _boxed(labels >= LIVER_LABEL)
    add("Liver", liver, box, vocabulary.STRUCTURE_CODE, vocabulary.LIVER_CODE, algorithm)
    for lesion in assessment.lesions:
        place = places[lesion.label - 1] if lesion.label <= len(places) else None
        if place is None:
            continue
        add(
            lesion.name or f"Lesion {lesion.label - LIVER_LABEL}",
            labels[place] == lesion.label,
            tuple(part.start for part in place),
            vocabulary.ALTERED_CODE,
            vocabulary.LESION_CODE,
            algorithm,
            fitting(lesion.comment, "ST"),
            tracking_uid=lesion.tracking_uid,
            lesion=lesion,
        )
    if assessment.couinaud is not None:
        _add_couinaud(add, assessment.couinaud, instances.frames(assessment.couinaud.labels, assessment.volume.grid))
    return found


def _add_couinaud(add: Any, couinaud: CouinaudMap, labels: np.ndarray) -> None:
    kind = _PROVIDER_KINDS.get(couinaud.provider, "AUTOMATIC")
    algorithm = Algorithm(kind, fitting(f"LiverCascade Couinaud {couinaud.provider}", "LO"), "1", {})
    places = ndimage.find_objects(np.ascontiguousarray(labels), max_label=len(SEGMENTS))
    for segment in SEGMENTS:
        place = places[segment.value - 1]
        if place is not None:
            add(
                vocabulary.segment_name(segment.value),
                labels[place] == segment.value,
                tuple(part.start for part in place),
                vocabulary.STRUCTURE_CODE,
                vocabulary.couinaud_code(segment.value),
                algorithm,
                fitting(couinaud.method, "ST"),
                couinaud=segment.value,
            )


def _boxed(mask: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """The first voxel (k, j, i) and the content of the smallest box around ``mask``."""
    place = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        place.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(part.start for part in place), mask[tuple(place)]


def segmentation(assessment: Assessment, instances: Instances, segments: Sequence[Segment]) -> Dataset:
    """A BINARY segmentation of ``segments``, frames without voxels left out.

    Raises:
        MissingPackageError: highdicom is not installed.
    """
    data = _document(assessment, instances)
    first = instances.headers[0]
    _set_image(data, first)
    data.SegmentSequence = [_description(segment) for segment in segments]
    data.SegmentsOverlap = "YES" if len(segments) > 1 else "NO"
    planes = [(segment, k, plane) for segment in segments for k, plane in segment.frames()]
    data.NumberOfFrames = len(planes)
    _set_dimensions(data)
    _set_geometry(data, instances)
    positions = {k: rank for rank, k in enumerate(sorted({k for _, k, _ in planes}), start=1)}
    data.PerFrameFunctionalGroupsSequence = _frame_items(planes, instances.headers, positions)
    _set_references(data, [instances.headers[k] for k in sorted(positions)])
    data.PixelData = _packed(planes, (first.Rows, first.Columns))
    data["PixelData"].VR = "OB"
    return data


def _document(assessment: Assessment, instances: Instances) -> Dataset:
    highdicom = required()
    first = instances.headers[0]
    data = highdicom.SOPClass(
        study_instance_uid=first.StudyInstanceUID,
        sop_class_uid=SEGMENTATION_STORAGE,
        modality="SEG",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id=first.PatientID,
        patient_name=first.PatientName,
        patient_birth_date=first.PatientBirthDate or None,
        patient_sex=first.PatientSex or None,
        accession_number=first.AccessionNumber,
        study_id=first.StudyID,
        study_date=first.StudyDate or None,
        study_time=first.StudyTime or None,
        referring_physician_name=first.ReferringPhysicianName,
        **common_arguments(assessment, instances, "segmentation", 1),
    )
    data.copy_patient_and_study_information(first)
    data.CommentsOnThePerformedProcedureStep = notes(instances)
    data.ContentLabel = "LIVER"
    data.ContentDescription = fitting("Liver, lesions and liver segments", "LO")
    data.ContentCreatorName = ""
    return data


def _set_image(data: Dataset, first: Dataset) -> None:
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelRepresentation, data.BitsAllocated, data.BitsStored, data.HighBit = 0, 1, 1, 0
    data.Rows, data.Columns = first.Rows, first.Columns
    data.SegmentationType = "BINARY"
    # What was lost in the CT's pixels is lost for whoever drew on them.
    data.LossyImageCompression = first.get("LossyImageCompression") or "00"
    if data.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if first.get(keyword):
                setattr(data, keyword, first.get(keyword))


def _description(segment: Segment) -> Dataset:
    highdicom = required()
    from pydicom.sr.codedict import codes

    algorithm = segment.algorithm
    identification = None
    if algorithm.kind != "MANUAL":
        identification = highdicom.AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=codes.DCM.ArtificialIntelligence,
            version=algorithm.version,
            source="LiverCascade",
            parameters=algorithm.parameters or None,
        )
    color = vocabulary.colors().get(segment.type[0])
    item = highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=vocabulary.code(segment.category),
        segmented_property_type=vocabulary.code(segment.type),
        algorithm_type=algorithm.kind,
        algorithm_identification=identification,
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.label,
        anatomic_regions=[vocabulary.code(vocabulary.LIVER_CODE)] if segment.lesion else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*color) if color else None,
    )
    if segment.description:
        item.SegmentDescription = segment.description
    return item


def _set_dimensions(data: Dataset) -> None:
    """Frames are told apart by segment, then by position."""
    from pydicom.dataset import Dataset

    organization = Dataset()
    organization.DimensionOrganizationUID = required().UID()
    data.DimensionOrganizationSequence = [organization]
    data.DimensionIndexSequence = []
    for pointer, group, label in (
        (_SEGMENT_NUMBER, _SEGMENT_ITEM, "Segment Number"),
        (_POSITION, _POSITION_ITEM, "Image Position Patient"),
    ):
        index = Dataset()
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, group
        index.DimensionDescriptionLabel = label
        data.DimensionIndexSequence.append(index)


def _set_geometry(data: Dataset, instances: Instances) -> None:
    from pydicom.dataset import Dataset

    first, step = instances.headers[0], decimal(instances.grid.spacing[2])
    data.FrameOfReferenceUID = first.FrameOfReferenceUID
    data.PositionReferenceIndicator = first.get("PositionReferenceIndicator", "")
    measures = Dataset()
    measures.PixelSpacing = first.PixelSpacing
    # A voxel of the mask fills the step between slices, however thick the slices were reconstructed.
    measures.SliceThickness = measures.SpacingBetweenSlices = step
    orientation = Dataset()
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    data.SharedFunctionalGroupsSequence = [shared]


def _frame_items(
    planes: Sequence[tuple[Segment, int, np.ndarray]], headers: Sequence[Dataset], ranks: dict[int, int]
) -> list[Dataset]:
    """One item per frame; what frames of one segment or one slice share is made once, for there may be thousands."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    identifications: dict[int, Items] = {}
    places = {k: _place(headers[k]) for k in ranks}
    found = []
    for segment, k, _ in planes:
        if segment.number not in identifications:
            identification = Dataset()
            identification.ReferencedSegmentNumber = segment.number
            identifications[segment.number] = Items([identification])
        item, content = Dataset(), Dataset()
        content.DimensionIndexValues = [segment.number, ranks[k]]
        item.FrameContentSequence = Items([content])
        item.SegmentIdentificationSequence = identifications[segment.number]
        item.PlanePositionSequence, item.DerivationImageSequence = places[k]
        found.append(item)
    return found


def _place(header: Dataset) -> tuple[Any, Any]:
    """Where a slice lies, and the reference to it, as items of a frame."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items
    from pydicom.sr.codedict import codes

    position = Dataset()
    position.ImagePositionPatient = header.ImagePositionPatient
    source = _reference(header)
    source.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.SourceImageForImageProcessingOperation)]
    source.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.SourceImageSequence = [source]
    derivation.DerivationCodeSequence = [_coded(codes.DCM.Segmentation)]
    return Items([position]), Items([derivation])


def _reference(header: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item


def _coded(code: Any) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _set_references(data: Dataset, headers: Sequence[Dataset]) -> None:
    from pydicom.dataset import Dataset

    series = Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = [_reference(header) for header in headers]
    data.ReferencedSeriesSequence = [series]


def _packed(planes: Sequence[tuple[Segment, int, np.ndarray]], shape: tuple[int, int]) -> bytes:
    """One bit per pixel, first pixel in the lowest bit, frame after frame without a gap."""
    parts = []
    # Eight frames of any size end with a whole byte.
    for start in range(0, len(planes), _FRAMES_PER_BLOCK):
        block = planes[start : start + _FRAMES_PER_BLOCK]
        frames = np.zeros((len(block), *shape), bool)
        for frame, (segment, _, plane) in zip(frames, block, strict=True):
            _, j, i = segment.corner
            frame[j : j + plane.shape[0], i : i + plane.shape[1]] = plane
        parts.append(np.packbits(frames.ravel(), bitorder="little").tobytes())
    packed = b"".join(parts)
    return packed + b"\0" * (len(packed) % 2)
