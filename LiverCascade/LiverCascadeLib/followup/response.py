"""Response by RECIST 1.1 (Eisenhauer et al., Eur J Cancer 45:228, 2009), as far as the liver alone can tell it.

The program proposes candidates for target lesions and says which rule gives which category. Choosing targets, and
saying that a lesion which is no target progressed beyond doubt, is the reader's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..lesions.assessment import AssessedLesion

MOST_TARGETS = 2
PARTIAL_FALL, PROGRESS_RISE, PROGRESS_MM = 0.30, 0.20, 5.0
COMPLETE, PARTIAL, STABLE, PROGRESSIVE = (
    "complete response",
    "partial response",
    "stable disease",
    "progressive disease",
)
NOT_EVALUABLE, NEITHER = "not evaluable", "neither complete response nor progression"
ONLY_LIVER = "Only the liver is judged: lesions elsewhere can change the category."
# Sums are made of rounded measurements: at the very limit, the limit is reached.
_SLACK = 1e-6


@dataclass(frozen=True)
class Seen:
    """What one study shows, as far as the rules need it.

    Attributes:
        sum_mm: sum of the targets' long axes; None where there are no targets.
        targets_seen: False where the study does not show the place of a target.
        new: names of lesions that were not there at the baseline.
        doubtful: names of those that the reader is not sure of; they change nothing.
        others: how many lesions there are beside the targets.
        others_grown: names of those that grew since the study before.
    """

    sum_mm: float | None
    targets_seen: bool = True
    new: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    others: int = 0
    others_grown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """The response at one study.

    Attributes:
        sum_mm: sum of the targets' long axes; None without targets, or where one is not shown.
        nadir_mm: smallest sum of the studies before; None at the baseline.
        category: empty at the baseline, and where nothing can be said.
        rule: the rule that gave the category, as a sentence.
        cautions: sentences that the reader should weigh.
    """

    sum_mm: float | None
    nadir_mm: float | None
    category: str
    rule: str
    cautions: tuple[str, ...] = ()


def candidates(lesions: Sequence[AssessedLesion]) -> tuple[int, ...]:
    """Labels of the lesions of the baseline that are proposed as targets: the largest measurable ones, at most two.

    Lesions that the reader is not sure of, and those cut by the volume's edge, come only where there are no others.
    """

    def is_second(lesion: AssessedLesion) -> bool:
        return lesion.review == "unsure" or bool(lesion.values.get("touches_border"))

    fit = [lesion for lesion in lesions if lesion.values.get("measurable") and long_axis_mm(lesion) > 0]
    fit.sort(key=lambda lesion: (is_second(lesion), -long_axis_mm(lesion)))
    return tuple(sorted(lesion.label for lesion in fit[:MOST_TARGETS]))


def long_axis_mm(lesion: AssessedLesion) -> float:
    """Its long axis; 0 where none was measured."""
    value = lesion.values.get("long_axis_mm")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def judge(seen: Sequence[Seen]) -> tuple[Judged, ...]:
    """The response at each study, in the order of time; the first one is the baseline and has none."""
    judged = [Judged(seen[0].sum_mm, None, "", "This is the baseline: one time point has no response category.")]
    sums = [seen[0].sum_mm]
    for now in seen[1:]:
        known = [value for value in sums if value is not None]
        nadir = min(known, default=None)
        total = now.sum_mm if now.targets_seen else None
        category, rule = _rule(seen[0], now, total, nadir)
        judged.append(Judged(total, nadir, category, rule, _cautions(now, category)))
        sums.append(total)
    return tuple(judged)


def _rule(first: Seen, now: Seen, total: float | None, nadir: float | None) -> tuple[str, str]:
    baseline = first.sum_mm
    gone = now.others == 0 and not now.doubtful and not total
    if now.new:
        word = "a new lesion" if len(now.new) == 1 else f"{len(now.new)} new lesions"
        return PROGRESSIVE, f"There {'is' if len(now.new) == 1 else 'are'} {word}: {', '.join(now.new)}."
    if not now.targets_seen:
        return NOT_EVALUABLE, "The study does not show the place of every target lesion."
    if baseline is None:
        if first.others == 0:
            return "", "There was no lesion at the baseline and there is none now: nothing is judged."
        if gone:
            return COMPLETE, "All lesions are gone; there was no target lesion."
        return NEITHER, "There is no target lesion, lesions are still there, and none is new."
    if nadir is not None and total - nadir >= PROGRESS_MM - _SLACK and total >= (1 + PROGRESS_RISE) * nadir - _SLACK:
        rise = f"{100 * (total / nadir - 1):.0f} %" if nadir else "from nothing"
        return (
            PROGRESSIVE,
            f"The sum of diameters, {total:.1f} mm, is {rise} ({total - nadir:.1f} mm) above the smallest one so far, "
            f"{nadir:.1f} mm; the rule is at least {100 * PROGRESS_RISE:.0f} % and at least {PROGRESS_MM:.0f} mm.",
        )
    if gone:
        return COMPLETE, "All lesions are gone."
    fall = 1 - total / baseline if baseline else 0.0
    if fall >= PARTIAL_FALL - _SLACK:
        rest = " Lesions that are no targets are still there." if total == 0 else ""
        return (
            PARTIAL,
            f"The sum of diameters, {total:.1f} mm, is {100 * fall:.0f} % below the baseline, {baseline:.1f} mm; the "
            f"rule is at least {100 * PARTIAL_FALL:.0f} %.{rest}",
        )
    return (
        STABLE,
        f"The sum of diameters, {total:.1f} mm, is neither {100 * PARTIAL_FALL:.0f} % below the baseline, "
        f"{baseline:.1f} mm, nor {100 * PROGRESS_RISE:.0f} % and {PROGRESS_MM:.0f} mm above the smallest one so far, "
        f"{nadir:.1f} mm, and no lesion is new.",
    )


def _cautions(now: Seen, category: str) -> tuple[str, ...]:
    told = []
    if now.doubtful:
        told.append(
            f"{', '.join(now.doubtful)}: new, but marked as unsure by the reader; it does not count as progression."
        )
    if now.others_grown and category != PROGRESSIVE:
        told.append(
            f"{', '.join(now.others_grown)}: no target lesion, but larger than before. Whether that is unequivocal "
            "progression is for the reader to decide."
        )
    return tuple(told)
