"""How much liver would stay: the future liver remnant of a chosen set of segments; and a hint on number and size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from .assessment import Assessment
from .couinaud import BY_VALUE, SegmentVolumes
from .measurements import is_known

Denominator = Literal["liver", "parenchyma"]
# Percent of the liver that is usually wanted at least; for the reader's information, not a verdict.
THRESHOLDS: tuple[tuple[float, str], ...] = (
    (20.0, "normal liver"),
    (30.0, "after chemotherapy"),
    (40.0, "cirrhosis"),
)
_DENOMINATORS = {"liver": "of the liver, lesions included", "parenchyma": "of the liver without its lesions"}
# The halves of IV belong to IV.
_PARTS = {4: (9, 10)}
MOST_NODULES, MOST_NODULE_MM = 3, 30.0


@dataclass(frozen=True)
class Remnant:
    """What would stay.

    Attributes:
        kept: values of the segments that stay, of those that there are.
        ml: their volume without lesions: a lesion that stays is no working liver.
        percent: of ``denominator_ml``.
        denominator: 'liver' with its lesions, or 'parenchyma' without them.
        denominator_ml: its volume.
    """

    kept: tuple[int, ...]
    ml: float
    percent: float
    denominator: Denominator
    denominator_ml: float

    @property
    def names(self) -> str:
        """The segments that stay, such as 'II, III, IVa'."""
        return ", ".join(BY_VALUE[value].name for value in self.kept) or "none"

    @property
    def sentence(self) -> str:
        """The figure with its denominator."""
        return (
            f"Future liver remnant (segments {self.names}): {self.ml:.0f} mL, {self.percent:.0f} % "
            f"{_DENOMINATORS[self.denominator]} ({self.denominator_ml:.0f} mL)."
        )

    @property
    def note(self) -> str:
        """The minimums that are in use, as information."""
        limits = ", ".join(f"{percent:.0f} % ({liver})" for percent, liver in THRESHOLDS)
        return f"Usual minimum: {limits}. The figure alone decides nothing."


def future_liver_remnant(
    assessment: Assessment | SegmentVolumes, kept: Iterable[int], denominator: Denominator = "parenchyma"
) -> Remnant:
    """Volume and share of the liver that stays when only the segments ``kept`` do.

    Args:
        kept: values of :class:`.couinaud.CouinaudSegment`; 4 stands for its halves too.
        denominator: what the percentage refers to.

    Raises:
        InputError: the liver's segments are not known, or there is no liver.
        ValueError: there is no such segment or denominator.
    """
    kept = set(kept)
    if denominator not in _DENOMINATORS:
        raise ValueError(f"'{denominator}' is no denominator. Choose 'liver' or 'parenchyma'.")
    if unknown := kept - BY_VALUE.keys():
        raise ValueError(f"There are no segments {sorted(unknown)}.")
    if not assessment.couinaud_ml:
        raise InputError("A future liver remnant needs the liver's segments, which are not known. Make them first.")
    for whole, parts in _PARTS.items():
        if whole in kept:
            kept |= set(parts)
    there = tuple(value for value in BY_VALUE if value in kept and value in assessment.couinaud_ml)
    ml = sum(assessment.couinaud_ml[n] - assessment.couinaud_lesion_ml.get(n, 0.0) for n in there)
    whole_ml = float(assessment.liver["volume_ml" if denominator == "liver" else "parenchyma_ml"])
    if whole_ml <= 0:
        raise InputError("A future liver remnant needs a liver, and there is none.")
    return Remnant(there, ml, 100 * ml / whole_ml, denominator, whole_ml)


def nodule_hint(assessment: Assessment) -> str:
    """Whether number and size lie within three nodules of 3 cm; empty without lesions or where a size is not known."""
    sizes = [lesion.values["long_axis_mm"] for lesion in assessment.lesions]
    if not sizes or not all(is_known(size) for size in sizes):
        return ""
    within = len(sizes) <= MOST_NODULES and max(sizes) <= MOST_NODULE_MM
    return f"Number and size are {'within' if within else 'outside'} ≤ 3 nodules ≤ 3 cm; this is not a stage."
