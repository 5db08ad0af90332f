"""Reads DICOM measurement reports (SR by template TID 1500) of any maker, with pydicom alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..dicom_headers import looks_like_dicom
from ..errors import InputError
from ..lesions.measurements import LIVER_MEASUREMENTS, MEASUREMENTS, Measurement
from . import vocabulary
from .identity import quiet, text_of
from .structured_report import INTERPRETATION, INTERPRETATIONS, coded, concept_of
from .text import fitting

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Triplet = tuple[str, str, str]
_MEASUREMENT_GROUP = "125007"
_TRACKING_ID, _TRACKING_UID = "112039", "112040"
_FINDING, _FINDING_SITES = {"121071"}, {"363698007", "G-C0E3"}
_REFERENCED_SEGMENTS = {"121191", "121214"}
_DERIVATION = "121401"
# Questions that say what a group is about, not what somebody found.
_NO_EVALUATIONS = {"276214006", "370129005", "G-C036"}
# How many of our units (the second) one of theirs (the first) is.
_FACTORS = {("ml", "cm3"): 1.0, ("mL", "cm3"): 1.0, ("mm3", "cm3"): 1e-3, ("cm", "mm"): 10.0}


@dataclass(frozen=True)
class ReadMeasurement:
    """One figure of a report: codes as (value, scheme, meaning), the unit by its UCUM code."""

    concept: Triplet
    value: float
    unit: str
    derivation: Triplet | None = None

    def value_in(self, unit: str) -> float | None:
        """The value in another unit; None where it cannot be expressed in it."""
        factor = 1.0 if unit == self.unit else _FACTORS.get((self.unit, unit))
        return None if factor is None else self.value * factor

    def is_a(self, measurement: Measurement) -> bool:
        """Whether this is the figure that ``measurement`` declares."""
        wanted = concept_of(measurement)
        unit = measurement.unit_code.value
        if not _same(self.concept, (wanted.value, wanted.scheme, "")) or self.value_in(unit) is None:
            return False
        declared = measurement.derivation
        if declared is None or self.derivation is None:
            return declared is self.derivation
        return _same(self.derivation, (declared.value, declared.scheme, ""))


@dataclass(frozen=True)
class ReadGroup:
    """What a report says about one finding.

    Attributes:
        tracking_uid, tracking_id: empty where nobody follows it.
        finding: code; None where there is none.
        sites: codes, the first is the most important.
        segmentation_uid, segment: of the SEG that shows it; empty and 0 where there is none.
        measurements: all figures.
        evaluations: coded questions and answers.
    """

    tracking_uid: str
    tracking_id: str
    finding: Triplet | None
    sites: tuple[Triplet, ...]
    segmentation_uid: str
    segment: int
    measurements: tuple[ReadMeasurement, ...]
    evaluations: tuple[tuple[Triplet, Triplet], ...]

    def values(self, declared: Sequence[Measurement] | None = None) -> dict[str, float]:
        """The figures by the keys of the measurements that declare them; others are left out.

        Args:
            declared: None takes those of lesions, or those of the liver where the finding is no lesion.
        """
        if declared is None:
            kind = vocabulary.kind_of(vocabulary.code(self.finding), None, "")[0] if self.finding else ""
            declared = MEASUREMENTS if kind == vocabulary.LESION else LIVER_MEASUREMENTS
        return {
            m.key: one.value_in(m.unit_code.value) for m in coded(declared) for one in self.measurements if one.is_a(m)
        }

    @property
    def review(self) -> str:
        """'accepted' or 'unsure', where a reader said so; else 'unreviewed'."""
        for question, answer in self.evaluations:
            for review, known in INTERPRETATIONS.items():
                if _same(question, INTERPRETATION) and _same(answer, known):
                    return review
        return "unreviewed"


@dataclass(frozen=True)
class ReadReport:
    """A measurement report."""

    title: str
    study_uid: str
    sop_instance_uid: str
    groups: tuple[ReadGroup, ...]

    def by_tracking_uid(self) -> dict[str, ReadGroup]:
        """The groups that somebody follows, by their tracking identifiers."""
        return {group.tracking_uid: group for group in self.groups if group.tracking_uid}


def read_report(path: Path | str) -> ReadReport:
    """Reads all measurement groups of a structured report.

    Raises:
        InputError: no structured report, or a damaged one.
    """
    import pydicom

    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"There is no file {path}. A DICOM structured report is one file: check the path.")
    try:
        with path.open("rb") as stream:
            is_dicom = looks_like_dicom(stream.read(132))
        with quiet():
            data = pydicom.dcmread(path, stop_before_pixels=True, force=True) if is_dicom else pydicom.Dataset()
            groups = tuple(_group(item) for item in _containers(data, _MEASUREMENT_GROUP))
            modality = text_of(data, "Modality")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its rights."
        ) from error
    except Exception as error:  # whatever the parser stumbles over
        raise InputError(f"{path} is a damaged DICOM file. Copy or export it again.") from error
    if not data.get("ContentSequence"):
        kind = f"DICOM of the kind {modality or 'unknown'}" if is_dicom else "no DICOM file"
        raise InputError(f"{path} is {kind}; a structured report (SR) is expected.")
    return ReadReport(
        _triplet(data, "ConceptNameCodeSequence")[2],
        text_of(data, "StudyInstanceUID"),
        text_of(data, "SOPInstanceUID"),
        groups,
    )


def _containers(item: Dataset, value: str) -> Iterator[Dataset]:
    """All containers of the concept ``value`` below ``item``."""
    for child in item.get("ContentSequence") or ():
        if _triplet(child, "ConceptNameCodeSequence")[0] == value:
            yield child
        else:
            yield from _containers(child, value)


def _group(group: Dataset) -> ReadGroup:
    texts: dict[str, str] = {}
    finding, sites, measurements, evaluations = None, [], [], []
    segmentation, segment = "", 0
    for item in group.get("ContentSequence") or ():
        name, kind = _triplet(item, "ConceptNameCodeSequence"), text_of(item, "ValueType")
        if name[0] in (_TRACKING_ID, _TRACKING_UID):
            texts[name[0]] = text_of(item, "TextValue") or text_of(item, "UID")
        elif name[0] in _REFERENCED_SEGMENTS and item.get("ReferencedSOPSequence"):
            reference = item.ReferencedSOPSequence[0]
            segmentation = text_of(reference, "ReferencedSOPInstanceUID")
            numbers = reference.get("ReferencedSegmentNumber")
            segment = int(numbers if isinstance(numbers, int) else (numbers or [0])[0])
        elif kind == "NUM":
            measurements += _measurement(item, name)
        elif kind == "CODE":
            answer = _triplet(item, "ConceptCodeSequence")
            if name[0] in _FINDING:
                finding = answer
            elif name[0] in _FINDING_SITES:
                sites.append(answer)
            elif name[0] not in _NO_EVALUATIONS:
                evaluations.append((name, answer))
    return ReadGroup(
        tracking_uid=texts.get(_TRACKING_UID, ""),
        tracking_id=fitting(texts.get(_TRACKING_ID, ""), "UT"),
        finding=finding,
        sites=tuple(sites),
        segmentation_uid=segmentation,
        segment=segment,
        measurements=tuple(measurements),
        evaluations=tuple(evaluations),
    )


def _measurement(item: Dataset, name: Triplet) -> list[ReadMeasurement]:
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return []
    exact = measured[0].get("FloatingPointValue")
    value = float(exact if exact is not None else measured[0].NumericValue)
    derivation = None
    for child in item.get("ContentSequence") or ():
        if _triplet(child, "ConceptNameCodeSequence")[0] == _DERIVATION:
            derivation = _triplet(child, "ConceptCodeSequence")
    unit = _triplet(measured[0], "MeasurementUnitsCodeSequence")[0]
    return [ReadMeasurement(name, value, unit, derivation)]


def _triplet(item: Dataset, keyword: str) -> Triplet:
    """The first code of a sequence as (value, scheme, meaning); empty where there is none."""
    items = item.get(keyword)
    if not items:
        return ("", "", "")
    one = items[0]
    value = text_of(one, "CodeValue") or text_of(one, "LongCodeValue")
    return (value, text_of(one, "CodingSchemeDesignator"), fitting(text_of(one, "CodeMeaning"), "UT"))


def _same(one: Triplet, other: Triplet) -> bool:
    return vocabulary.code(one) == vocabulary.code(other)
