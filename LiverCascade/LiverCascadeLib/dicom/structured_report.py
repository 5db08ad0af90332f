"""Writes DICOM measurement reports (Comprehensive 3D SR, template TID 1500) about the segments of a segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..lesions.assessment import Assessment, Value
from ..lesions.measurements import LIVER_MEASUREMENTS, MEASUREMENTS, Code, Measurement, is_known
from . import vocabulary
from .equipment import MANUFACTURER, Algorithm, common_arguments, notes, required, serial_number
from .instances import Instances
from .segmentation_writer import SEGMENTATION_STORAGE, Segment
from .text import fitting, stable_uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Concepts that no standard terminology has; their values are the keys of the measurements.
PRIVATE_SCHEME = "99LIVERCASCADE"
_LONGEST_CODE = 16
# What a reader said: SNOMED CT's 'Has interpretation' with a value.
INTERPRETATION = ("363713009", "SCT", "Has interpretation")
INTERPRETATIONS = {"accepted": ("52101004", "SCT", "Present"), "unsure": ("42425007", "SCT", "Equivocal")}
_CT_ABDOMEN = ("41806-1", "LN", "CT Abdomen")


def concept_of(measurement: Measurement) -> Code:
    """The concept by which a measurement is named: the declared one, else a private one."""
    return measurement.code or Code(measurement.key[:_LONGEST_CODE], PRIVATE_SCHEME, measurement.title)


def coded(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The measurements that a report can hold: numbers with a unit that has a code."""
    return [measurement for measurement in measurements if measurement.kind == "number" and measurement.unit_code]


def report(
    assessment: Assessment, instances: Instances, segments: Sequence[Segment], segmentation: Dataset
) -> Dataset:
    """A report with one volumetric group per segment, liver first, tied to it by number and tracking identifier.

    Raises:
        MissingPackageError: highdicom is not installed.
    """
    highdicom = required()
    groups = [_group(assessment, instances, segment, segmentation) for segment in segments]
    content = highdicom.sr.MeasurementReport(
        observation_context=highdicom.sr.ObservationContext(observer_device_context=_device(assessment)),
        procedure_reported=vocabulary.code(_CT_ABDOMEN),
        imaging_measurements=groups,
        title=_dicom_code("ImagingMeasurementReport"),
        referenced_images=_library(instances),
    )
    document = highdicom.sr.Comprehensive3DSR(
        evidence=[*instances.headers, segmentation],
        content=content[0],
        is_complete=True,
        coding_schemes=[_private_scheme()],
        **common_arguments(assessment, instances, "measurements", 2),
    )
    if instances.generated:  # no attribute of a report's own, but what it says must not be missed
        document.CommentsOnThePerformedProcedureStep = notes(instances)
    return document


def _library(instances: Instances) -> list[Dataset] | None:
    """The slices for the report's list of images; none where they lack what such a list says of each."""
    return list(instances.headers) if all("SliceThickness" in header for header in instances.headers) else None


def _device(assessment: Assessment) -> Any:
    highdicom = required()
    attributes = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=stable_uid(MANUFACTURER, __version__),
        name="LiverCascade",
        manufacturer_name=MANUFACTURER,
        model_name="LiverCascade",
        serial_number=serial_number(assessment.provenance),
    )
    return highdicom.sr.ObserverContext(
        observer_type=_dicom_code("Device"), observer_identifying_attributes=attributes
    )


def _private_scheme() -> Any:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME,
        name="LiverCascade measurements",
        version=__version__,
        responsible_organization=MANUFACTURER,
    )


def _dicom_code(keyword: str) -> Any:
    from pydicom.sr.codedict import codes

    return getattr(codes.DCM, keyword)


def _group(assessment: Assessment, instances: Instances, segment: Segment, segmentation: Dataset) -> Any:
    highdicom = required()
    evaluations = []
    if segment.lesion is not None and segment.lesion.review in INTERPRETATIONS:
        answer = INTERPRETATIONS[segment.lesion.review]
        evaluations = [highdicom.sr.QualitativeEvaluation(vocabulary.code(INTERPRETATION), vocabulary.code(answer))]
    return highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(segment.tracking_uid, segment.label),
        referenced_segment=highdicom.sr.ReferencedSegment(
            sop_class_uid=SEGMENTATION_STORAGE,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=segment.number,
            source_series=highdicom.sr.SourceSeriesForSegmentation(instances.headers[0].SeriesInstanceUID),
        ),
        finding_category=vocabulary.code(segment.category),
        finding_type=vocabulary.code(segment.type),
        finding_sites=_sites(segment),
        algorithm_id=_algorithm(segment.algorithm),
        measurements=_figures(assessment, segment),
        qualitative_evaluations=evaluations,
    )


def _sites(segment: Segment) -> list[Any]:
    """The liver, and Couinaud's segments that a lesion touches, the main one first."""
    highdicom = required()
    sites = [vocabulary.LIVER_CODE]
    if segment.lesion is not None:
        touched = (vocabulary.couinaud_code(share.value) for share in segment.lesion.couinaud if share.value)
        sites += dict.fromkeys(touched)  # the halves of IV share their code
    return [highdicom.sr.FindingSite(vocabulary.code(site)) for site in sites]


def _algorithm(algorithm: Algorithm) -> Any:
    if algorithm.kind == "MANUAL":
        return None
    return required().sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=[fitting(f"{name}: {value}", "LO") for name, value in algorithm.parameters.items()] or None,
    )


def _figures(assessment: Assessment, segment: Segment) -> list[Any]:
    if segment.lesion is not None:
        return _measured(MEASUREMENTS, segment.lesion.values)
    if not segment.couinaud:
        return _measured(LIVER_MEASUREMENTS, assessment.liver)
    values = {
        "volume_ml": assessment.couinaud_ml.get(segment.couinaud),
        "lesion_ml": assessment.couinaud_lesion_ml.get(segment.couinaud, 0.0),
    }
    return _measured(LIVER_MEASUREMENTS, values)


def _measured(measurements: Sequence[Measurement], values: Mapping[str, Value]) -> list[Any]:
    highdicom = required()
    return [
        highdicom.sr.Measurement(
            name=_concept(concept_of(measurement)),
            value=float(values[measurement.key]),
            unit=_concept(measurement.unit_code),
            derivation=_concept(measurement.derivation) if measurement.derivation else None,
        )
        for measurement in coded(measurements)
        if is_known(values.get(measurement.key))
    ]


def _concept(code: Code) -> Any:
    return vocabulary.code((code.value, code.scheme, code.meaning))
