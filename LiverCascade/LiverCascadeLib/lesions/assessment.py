"""A liver and its lesions as tables, reports, DICOM objects and follow-up know them, with everything measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..findings import Finding
from ..geometry import Box
from ..volume import Volume
from .couinaud import CouinaudMap, Share

# A number, a flag, a category; not a number, or None, where there is no answer.
Value = float | bool | str | None


@dataclass(frozen=True)
class Axis:
    """A measured line; both ends in RAS mm."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]

    @property
    def length_mm(self) -> float:
        """Distance of the ends."""
        return float(np.linalg.norm(np.subtract(self.end, self.start)))


@dataclass(frozen=True)
class AssessedLesion:
    """One lesion.

    Attributes:
        label: its value in :attr:`Assessment.labels`.
        name: as the reader knows it, such as 'Lesion 3'.
        box: the smallest box of the grid that holds it.
        values: by the keys of :data:`.measurements.MEASUREMENTS`.
        long_axis, short_axis: in the same axial plane of the patient; None where nothing can be measured.
        couinaud: the segments that it touches, the main one first; empty where segments are not known.
        review: 'unreviewed', 'accepted' or 'unsure'; a rejected lesion is none.
        comment: of the reader.
        tracking_uid: DICOM UID that stays with the lesion in everything that is written about it.
    """

    label: int
    name: str
    box: Box
    values: dict[str, Value]
    long_axis: Axis | None
    short_axis: Axis | None
    couinaud: tuple[Share, ...]
    review: str
    comment: str
    tracking_uid: str

    @property
    def couinaud_text(self) -> str:
        """The segments that it touches, such as 'IVa, VIII'; empty where they are not known."""
        return couinaud_text(self.couinaud)


def couinaud_text(shares: Sequence[Share]) -> str:
    """Names of segments in the order of ``shares``, such as 'IVa, VIII'."""
    return ", ".join(share.name for share in shares if share.value)


@dataclass(frozen=True, eq=False)
class Assessment:
    """Everything that is known about a liver.

    Attributes:
        volume: the CT.
        labels: [k, j, i] on ``volume.grid``: 0 background, 1 liver, 2 and above one value per lesion.
        lesions: in the order of their labels.
        liver: by the keys of :data:`.measurements.LIVER_MEASUREMENTS`.
        rejected: how many lesions the reader rejected; they are liver in ``labels``.
        couinaud: the liver's segments, where they are known.
        couinaud_ml: volume of each segment that there is, lesions included, by :attr:`CouinaudSegment.value`.
        couinaud_lesion_ml: volume of lesions in each segment.
        findings: about the input and the run.
        provenance: of the run; empty where somebody drew by hand.
        summary: one sentence.
    """

    volume: Volume
    labels: np.ndarray
    lesions: tuple[AssessedLesion, ...]
    liver: dict[str, Value]
    rejected: int = 0
    couinaud: CouinaudMap | None = None
    couinaud_ml: dict[int, float] = field(default_factory=dict)
    couinaud_lesion_ml: dict[int, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
