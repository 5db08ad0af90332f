"""Couinaud's segments of the liver as labels, whoever provides them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CouinaudSegment:
    """One of Couinaud's segments, or a half of segment IV.

    Attributes:
        value: in label maps; 1 … 8 as TotalSegmentator's, 9 and 10 for the halves of IV.
        name: Roman numeral.
        code: SNOMED CT; the halves of IV carry the code of IV.
    """

    value: int
    name: str
    code: str


SEGMENTS: tuple[CouinaudSegment, ...] = (
    CouinaudSegment(1, "I", "71133005"),
    CouinaudSegment(2, "II", "277956007"),
    CouinaudSegment(3, "III", "277957003"),
    CouinaudSegment(4, "IV", "277958008"),
    CouinaudSegment(5, "V", "277959000"),
    CouinaudSegment(6, "VI", "277960005"),
    CouinaudSegment(7, "VII", "277961009"),
    CouinaudSegment(8, "VIII", "277962002"),
    CouinaudSegment(9, "IVa", "277958008"),
    CouinaudSegment(10, "IVb", "277958008"),
)
BY_VALUE = {segment.value: segment for segment in SEGMENTS}
BY_NAME = {segment.name: segment for segment in SEGMENTS}


@dataclass(frozen=True)
class Share:
    """How much of something lies in one segment.

    Attributes:
        value: of the :class:`CouinaudSegment`; 0 where it lies in none.
        fraction: of the volume, 0…1.
    """

    value: int
    fraction: float

    @property
    def name(self) -> str:
        """Roman numeral; empty for no segment."""
        return BY_VALUE[self.value].name if self.value else ""


@dataclass(frozen=True, eq=False)
class CouinaudMap:
    """The segments of one liver.

    Attributes:
        labels: uint8 [k, j, i] on the grid of the volume: 0 outside, else :attr:`CouinaudSegment.value`.
        provider: who drew them: 'network', 'landmarks', 'estimate' or 'reader'.
        method: one sentence for the reader: from what, and how sure.
        limitations: plain sentences.
    """

    labels: np.ndarray
    provider: str
    method: str
    limitations: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentVolumes:
    """How large the segments of a liver are, all in mL.

    Attributes:
        couinaud_ml: of each segment that there is, lesions included, by :attr:`CouinaudSegment.value`.
        couinaud_lesion_ml: of the lesions in each segment that has some.
        liver: 'volume_ml' with and 'parenchyma_ml' without lesions.
    """

    couinaud_ml: dict[int, float]
    couinaud_lesion_ml: dict[int, float]
    liver: dict[str, float]


def shares(couinaud: np.ndarray, mask: np.ndarray) -> tuple[Share, ...]:
    """The segments that a mask touches, the main one first; voxels in no segment come as value 0.

    Args:
        couinaud: label values, of any shape.
        mask: bool, of the same shape.
    """
    counts = np.bincount(couinaud[mask].ravel(), minlength=len(SEGMENTS) + 1)
    total = counts.sum()
    found = [Share(int(value), float(counts[value] / total)) for value in np.flatnonzero(counts)]
    return tuple(sorted(found, key=lambda share: (share.value == 0, -share.fraction)))


def segment_volumes_ml(couinaud: np.ndarray, voxel_volume_mm3: float) -> dict[int, float]:
    """Volume of each segment that there is, in mL, by :attr:`CouinaudSegment.value`.

    Args:
        couinaud: label values, of any shape.
        voxel_volume_mm3: of the grid that they lie on.
    """
    counts = np.bincount(couinaud.ravel(), minlength=len(SEGMENTS) + 1)
    return {
        segment.value: float(counts[segment.value] * voxel_volume_mm3 / 1000)
        for segment in SEGMENTS
        if counts[segment.value]
    }
