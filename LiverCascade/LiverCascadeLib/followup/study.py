"""One time point of a patient, the order of several, and whether they may be compared at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..findings import Finding, Severity
from ..lesions.assessment import Assessment

# Livers of one patient differ less; an operation in between is what --force is for.
MOST_VOLUME_RATIO = 2.0
MOST_STUDIES = 20


class Identity(Protocol):
    """What :class:`~..report.identity.StudyIdentity` knows, as far as it is needed here."""

    patient_name: str
    patient_id: str
    birth_date: str
    study_date: str
    study_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, eq=False)
class Study:
    """A time point.

    Attributes:
        assessment: liver and lesions.
        name: for tables; the date where it is known.
        date: YYYY-MM-DD; empty where nobody knows it.
        patient_id, patient_name, birth_date: to tell patients apart; empty where unknown. Never shown.
        series_uid: DICOM identifier of the series; empty where unknown.
    """

    assessment: Assessment
    name: str
    date: str = ""
    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    series_uid: str = ""

    @property
    def label(self) -> str:
        """How tables call it: its date, else its name."""
        return self.date or self.name


def study_of(assessment: Assessment, identity: Identity | None = None, name: str = "") -> Study:
    """A time point; what the identity does not say is taken from the volume's source."""
    source = assessment.volume.source

    def known(attribute: str, key: str) -> str:
        return str(getattr(identity, attribute, "") or source.get(key) or "").strip()

    return Study(
        assessment=assessment,
        name=name or assessment.volume.name,
        date=iso_date(known("study_date", "study_date")),
        patient_id=known("patient_id", "patient_id"),
        patient_name=known("patient_name", "patient_name"),
        birth_date=iso_date(known("birth_date", "birth_date")),
        series_uid=known("series_instance_uid", "series_instance_uid"),
    )


def iso_date(text: str) -> str:
    """YYYY-MM-DD from that or from DICOM's YYYYMMDD; empty for anything else."""
    match = re.fullmatch(r"(\d{4})-?(\d{2})-?(\d{2})", text.strip()[:10])
    if not match or not ("01" <= match[2] <= "12" and "01" <= match[3] <= "31"):
        return ""
    return "-".join(match.groups())


def ordered(studies: Sequence[Study]) -> tuple[tuple[Study, ...], tuple[Finding, ...]]:
    """The studies by date, names made unique, and what was found about their order.

    Raises:
        InputError: fewer than two, or too many.
    """
    if not 2 <= len(studies) <= MOST_STUDIES:
        raise InputError(f"A comparison needs 2 to {MOST_STUDIES} studies, found {len(studies)}.")
    found = []
    result = list(studies)
    if all(study.date for study in studies):
        result = sorted(studies, key=lambda study: study.date)
        if [id(study) for study in result] != [id(study) for study in studies]:
            text = "The studies were not given in the order of their dates. They were sorted: " + ", ".join(
                study.date for study in result
            )
            found.append(Finding("studies-sorted", Severity.INFO, f"{text}."))
        if len({study.date for study in result}) < len(result):
            text = "Studies of the same date are compared in the order in which they were given."
            found.append(Finding("studies-same-date", Severity.WARNING, text))
    else:
        text = (
            "Not every study has a date. They are compared in the order in which they were given: the first is the "
            "baseline."
        )
        found.append(Finding("studies-without-date", Severity.WARNING, text))
    labels = [study.label for study in result]
    if len(set(labels)) < len(labels):
        result = [replace(s, name=f"Study {n}", date="") for n, s in enumerate(result, start=1)]
    return tuple(result), tuple(found)


def check_comparable(studies: Sequence[Study], force: bool = False) -> tuple[Finding, ...]:
    """Refuses studies that do not belong together.

    Args:
        studies: in the order of time.
        force: compare studies whose identities differ (as after anonymization) or whose livers differ much in size.

    Returns:
        findings that take the place of the refusals.

    Raises:
        InputError: another patient, the same series twice, no liver, or livers of very different size.
    """
    found: list[Finding] = []
    for study in studies:
        if not (study.assessment.labels > 0).any():
            raise InputError(f"There is no liver in '{study.label}': nothing can be compared. Segment it first.")
    for index, one in enumerate(studies):
        for other in studies[index + 1 :]:
            _refuse_same(one, other)
            found += _told(_other_patient(one, other), "other-patient", force)
    for one, other in pairwise(studies):
        found += _told(_other_size(one, other), "liver-sizes-differ", force)
    return tuple({finding.message: finding for finding in found}.values())


def _told(problem: str, code: str, force: bool) -> list[Finding]:
    if not problem:
        return []
    if not force:
        raise InputError(f"{problem} If they belong together all the same, force the comparison.")
    return [Finding(code, Severity.WARNING, f"{problem} They were compared because this was asked for.")]


def _other_patient(one: Study, other: Study) -> str:
    if one.patient_id and other.patient_id:
        if one.patient_id != other.patient_id:
            return f"The studies '{one.label}' and '{other.label}' carry different patient IDs."
        return ""
    for attribute, words in (("patient_name", "patient names"), ("birth_date", "dates of birth")):
        mine, theirs = (getattr(study, attribute).casefold() for study in (one, other))
        if mine and theirs and mine != theirs:
            return f"The studies '{one.label}' and '{other.label}' carry different {words}."
    return ""


def _refuse_same(one: Study, other: Study) -> None:
    mine, theirs = one.assessment.volume, other.assessment.volume
    same = bool(one.series_uid) and one.series_uid == other.series_uid
    if not same and mine.grid.is_close(theirs.grid):
        same = mine.array is theirs.array or np.array_equal(mine.array, theirs.array)
    if same:
        raise InputError(
            f"The studies '{one.label}' and '{other.label}' are the same series. Choose two examinations of different "
            "dates."
        )


def _other_size(one: Study, other: Study) -> str:
    sizes = []
    for study in (one, other):
        labels = study.assessment.labels
        if any(part.any() for part in (labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[..., 0])):
            return ""  # the volume ends inside the liver: its size says nothing
        sizes.append(int((labels > 0).sum()) * study.assessment.volume.grid.voxel_volume_mm3 / 1000)
    if max(sizes) <= MOST_VOLUME_RATIO * min(sizes):
        return ""
    return (
        f"The livers of '{one.label}' and '{other.label}' differ too much in size: {sizes[0]:.0f} and {sizes[1]:.0f} "
        "mL. Check that both belong to the same patient and that both segmentations are right."
    )
