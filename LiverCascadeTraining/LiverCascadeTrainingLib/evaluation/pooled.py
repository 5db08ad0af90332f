"""Figures of a whole data set, with intervals from drawing patients again.

Every pooled figure is a function of how often each case counts. Counting each once gives the figure; counting each as
often as its patient was drawn, with replacement, gives the figures of other data sets that might have been collected,
and the middle 95 % of those are the interval (percentile bootstrap, Efron 1979). It says how much chance of sampling
patients lies in a figure; it does not say how the model does elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .cases import FIGURES, STRUCTURES, Case, Figure
from .detection import BINS, ONE_TO_ONE_IOU, THRESHOLDS, FoundLesion

DRAWS, SEED, LEVEL = 2000, 2026, 0.95
ALL_SIZES = "all"
# Values [n] of cases and weights [draws, n] to figures [draws].
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pooled:
    """A figure of a data set.

    Attributes:
        value: not a number where nothing defines it.
        low, high: its interval; not a number where there are fewer than two patients, or where drawing rarely
            defines it.
        count: how many cases, or lesions, it is made of.
        undefined: cases in which the figure is not defined, so that it says nothing about them.
        median, deviation: of the cases, for means; else not a number.
    """

    value: float
    low: float
    high: float
    count: int
    undefined: int = 0
    median: float = float("nan")
    deviation: float = float("nan")

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON; null where it is not known."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in vars(self).items()
        }


class Resampling:
    """Draws patients with replacement.

    Args:
        patients: of each case.
        draws: how often.
        seed: the same seed gives the same intervals.
    """

    def __init__(self, patients: Sequence[str], draws: int = DRAWS, seed: int = SEED):
        self.names = sorted(set(patients))
        self.owner = np.searchsorted(self.names, patients)
        count = len(self.names)
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
        self.weights = drawn[:, self.owner].astype(float)
        self.once = np.ones((1, len(patients)))

    @property
    def patients(self) -> int:
        """How many there are."""
        return len(self.names)

    def interval(self, statistic: Statistic) -> tuple[float, float, float]:
        """The figure and the ends of its interval."""
        value = float(statistic(self.once)[0])
        if self.patients < 2 or not math.isfinite(value):
            return value, float("nan"), float("nan")
        drawn = statistic(self.weights)
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) < len(self.weights) / 2:
            return value, float("nan"), float("nan")
        low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        return value, float(low), float(high)


def mean(values: np.ndarray) -> Statistic:
    """The mean of what is a number."""
    return ratio(np.nan_to_num(values), np.isfinite(values).astype(float))


def ratio(parts: np.ndarray, wholes: np.ndarray) -> Statistic:
    """Sum of parts / sum of wholes; not a number where the wholes are 0."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        return _divided(weights @ parts, weights @ wholes)

    return statistic


def _divided(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)


def root_mean_square(values: np.ndarray) -> Statistic:
    """√ of the mean of squares."""
    of_squares = mean(values**2)
    return lambda weights: np.sqrt(of_squares(weights))


def largest(values: np.ndarray) -> Statistic:
    """The largest size, without sign, that was drawn at all."""
    sizes = np.nan_to_num(np.abs(values), nan=-np.inf)
    return lambda weights: np.where(weights > 0, sizes, -np.inf).max(axis=1)


def f1(recall: Statistic, precision: Statistic) -> Statistic:
    """Harmonic mean of recall and precision."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        first, second = recall(weights), precision(weights)
        total = first + second
        value = np.divide(2 * first * second, total, out=np.zeros(len(total)), where=total > 0)
        return np.where(np.isnan(total), np.nan, value)

    return statistic


@dataclass(frozen=True)
class Detection:
    """How lesions of one size were found at one threshold.

    Attributes:
        rule: 'touching' or 'LiTS', see :mod:`.detection`.
        size: a bin of the long axis, or 'all': of reference lesions for recall, of predicted ones for the rest.
        threshold: the IoU that must be exceeded.
        references, detected, predicted, false: counts.
        recall, precision, f1, false_per_patient: with intervals.
    """

    rule: str
    size: str
    threshold: float
    references: int
    detected: int
    predicted: int
    false: int
    recall: Pooled
    precision: Pooled
    f1: Pooled
    false_per_patient: Pooled

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {name: value.as_dict() if isinstance(value, Pooled) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class ReliabilityBin:
    """Predicted lesions of similar confidence.

    Attributes:
        low, high, mean: of their confidence.
        observed: share of them that is true at IoU > 0.1.
        count: how many.
    """

    low: float
    high: float
    mean: float
    observed: float
    count: int


class DataSet:
    """All cases of one model.

    Args:
        cases: of one model, each name once.
        draws, seed: of the intervals.
    """

    def __init__(self, cases: Sequence[Case], draws: int = DRAWS, seed: int = SEED):
        self.cases = tuple(cases)
        self.resampling = Resampling([case.patient for case in cases], draws, seed)
        self.with_lesions = all(case.with_lesions for case in cases)

    @property
    def structures(self) -> tuple[str, ...]:
        """'liver', and 'lesion' where the references tell lesions from liver."""
        return tuple(STRUCTURES) if self.with_lesions else ("liver",)

    def values(self, key: str) -> np.ndarray:
        """A figure of all cases, [n]."""
        return np.array([case.values[key] for case in self.cases], float)

    def pooled(self, statistic: Statistic, count: int | None = None) -> Pooled:
        """Any statistic of the cases with its interval."""
        return Pooled(*self.resampling.interval(statistic), len(self.cases) if count is None else count)

    def mean_of(self, key: str, where: np.ndarray | None = None) -> Pooled:
        """Mean of a figure over the cases in which it is defined, or those of them that ``where`` names."""
        values = self.values(key)
        kept = np.full(len(values), True) if where is None else where
        defined = values[kept & np.isfinite(values)]
        few = len(defined) < 2
        return Pooled(
            *self.resampling.interval(mean(np.where(kept, values, np.nan))),
            count=len(defined),
            undefined=int(kept.sum()) - len(defined),
            median=float(np.median(defined)) if len(defined) else float("nan"),
            deviation=float("nan") if few else float(defined.std(ddof=1)),
        )

    @cached_property
    def figures(self) -> dict[str, Pooled]:
        """Means over cases, by key such as 'liver_dice'."""
        return {
            f"{structure}_{figure.key}": self.mean_of(f"{structure}_{figure.key}")
            for structure in self.structures
            for figure in FIGURES
        }

    @cached_property
    def overall(self) -> dict[str, Pooled]:
        """What is no mean of a figure of cases: global Dice, burden, false lesions on cases without lesions."""
        found = {}
        for structure in self.structures:
            overlaps = [case.overlaps[structure] for case in self.cases]
            both = np.array([2 * o.both for o in overlaps], float)
            total = np.array([o.predicted + o.reference for o in overlaps], float)
            found[f"{structure}_dice_global"] = self.pooled(ratio(both, total) if total.any() else mean(total + 1))
        if not self.with_lesions:
            return found
        healthy = np.array([not case.has_lesion for case in self.cases])
        false = np.array([len(case.predicted_lesions) for case in self.cases], float)
        volume = self.values("lesion_volume_ml")
        found["lesion_dice_with_lesions"] = self.mean_of("lesion_dice", ~healthy)
        found["burden_rmse"] = self.pooled(root_mean_square(self.values("burden_error")))
        found["burden_max"] = self.pooled(largest(self.values("burden_error")))
        found["labels_right"] = self.mean_of("labels_right")
        count = int(healthy.sum())
        for key, values in (
            ("healthy_false_lesions", false),
            ("healthy_with_false", (false > 0).astype(float)),
            ("healthy_false_ml", volume),
        ):
            found[key] = self.pooled(ratio(values * healthy, healthy.astype(float)), count)
        found["panoptic_recognition"], found["panoptic_segmentation"], found["panoptic_quality"] = self._panoptic()
        return found

    def _panoptic(self) -> tuple[Pooled, Pooled, Pooled]:
        """Recognition, segmentation and panoptic quality of lesions, pooled over the data set (IoU > 0.5)."""
        pairs = [[n.pair_iou for n in c.reference_lesions if n.pair_iou > ONE_TO_ONE_IOU] for c in self.cases]
        hits = np.array([len(p) for p in pairs], float)
        sums = np.array([sum(p) for p in pairs], float)
        lesions = np.array([len(c.reference_lesions) + len(c.predicted_lesions) for c in self.cases], float)
        count = int(lesions.sum())
        return (
            self.pooled(ratio(2 * hits, lesions), count),
            self.pooled(ratio(sums, hits), int(hits.sum())),
            self.pooled(ratio(2 * sums, lesions), count),
        )

    @cached_property
    def detections(self) -> tuple[Detection, ...]:
        """Lesions found, by size and threshold; by the rule of LiTS for all sizes."""
        if not self.with_lesions:
            return ()
        rows = [self.detection("touching", size, t) for size in (ALL_SIZES, *BINS) for t in THRESHOLDS]
        return (*rows, *(self.detection("LiTS", ALL_SIZES, t) for t in (0.0, 0.5)))

    def detection(self, rule: str, size: str, threshold: float) -> Detection:
        """One row of :attr:`detections`."""

        def counted(side: str) -> tuple[np.ndarray, np.ndarray]:
            kept = [[n for n in getattr(case, side) if size in (ALL_SIZES, n.size_bin)] for case in self.cases]
            hits = [[n for n in lesions if agreement(n, rule) > threshold] for lesions in kept]
            return np.array([len(n) for n in kept], float), np.array([len(n) for n in hits], float)

        references, detected = counted("reference_lesions")
        predicted, true = counted("predicted_lesions")
        recall, precision = ratio(detected, references), ratio(true, predicted)
        cases_of_patient = np.bincount(self.resampling.owner)[self.resampling.owner]
        total, found = int(references.sum()), int(predicted.sum())
        return Detection(
            rule=rule,
            size=size,
            threshold=threshold,
            references=total,
            detected=int(detected.sum()),
            predicted=found,
            false=int((predicted - true).sum()),
            recall=self.pooled(recall, total),
            precision=self.pooled(precision, found),
            f1=self.pooled(f1(recall, precision), total + found),
            false_per_patient=self.pooled(ratio(predicted - true, 1 / cases_of_patient), self.resampling.patients),
        )

    def reliability(self, bins: int = 5, threshold: float = 0.1) -> tuple[ReliabilityBin, ...]:
        """Predicted lesions with a confidence, in bins of rising confidence with as many in each."""
        lesions = [n for case in self.cases for n in case.predicted_lesions if n.confidence is not None]
        scores = np.array([n.confidence for n in lesions], float)
        true = np.array([n.iou > threshold for n in lesions], float)
        order = np.argsort(scores, kind="stable")
        return tuple(
            ReliabilityBin(
                float(scores[part[0]]),
                float(scores[part[-1]]),
                float(scores[part].mean()),
                float(true[part].mean()),
                len(part),
            )
            for part in np.array_split(order, min(bins, max(1, len(order))))
            if len(part)
        )

    def calibration_error(self, bins: int = 5) -> float:
        """Expected calibration error: mean distance of confidence and observed share, weighted by lesions."""
        rows = self.reliability(bins)
        total = sum(row.count for row in rows)
        if not total:
            return float("nan")
        return sum(row.count * abs(row.mean - row.observed) for row in rows) / total


def agreement(lesion: FoundLesion, rule: str) -> float:
    """The IoU by which a rule judges a lesion."""
    return lesion.lits_iou if rule == "LiTS" else lesion.iou


@dataclass(frozen=True)
class Overall:
    """How a figure of :attr:`DataSet.overall` is shown."""

    key: str
    title: str
    unit: str
    digits: int
    definition: str


OVERALL: tuple[Overall, ...] = (
    Overall("liver_dice_global", "Liver Dice, global", "", 3, "2 Σ|P∩R| / Σ(|P|+|R|) over all cases (LiTS)"),
    Overall("lesion_dice_global", "Lesion Dice, global", "", 3, "2 Σ|P∩R| / Σ(|P|+|R|) over all cases (LiTS)"),
    Overall(
        "lesion_dice_with_lesions", "Lesion Dice, cases with lesions", "", 3, "mean over cases whose reference has one"
    ),
    Overall("burden_rmse", "Lesion burden, RMSE", "", 4, "lesion / liver volume, root mean square error (LiTS)"),
    Overall("burden_max", "Lesion burden, largest error", "", 4, "lesion / liver volume, largest error (LiTS)"),
    Overall("labels_right", "Voxels with the right label", "", 5, "of background, liver and lesion; whole scan"),
    Overall("healthy_false_lesions", "False lesions per case without lesions", "", 2, "reference has no lesion"),
    Overall("healthy_with_false", "Cases without lesions with a false one", "", 3, "share of them"),
    Overall("healthy_false_ml", "False volume per case without lesions", "mL", 2, "mean volume called lesion"),
    Overall("panoptic_quality", "Panoptic quality of lesions", "", 3, "pairs one to one, IoU > 0.5, pooled"),
    Overall("panoptic_recognition", "Recognition quality", "", 3, "2 pairs / all lesions of both sides: F1"),
    Overall("panoptic_segmentation", "Segmentation quality", "", 3, "mean IoU of the pairs"),
)


def summary(data: DataSet) -> Mapping[str, object]:
    """Everything pooled, for JSON."""
    reliability = data.reliability() if data.with_lesions else ()
    return {
        "cases": len(data.cases),
        "patients": data.resampling.patients,
        "with_lesions": data.with_lesions,
        "per_case_means": {key: pooled.as_dict() for key, pooled in data.figures.items()},
        "overall": {key: pooled.as_dict() for key, pooled in data.overall.items()},
        "detection": [row.as_dict() for row in data.detections],
        "reliability": [vars(row) for row in reliability],
        "calibration_error": data.calibration_error() if reliability else None,
    }


def figure_of(key: str) -> tuple[str, Figure]:
    """The structure and the figure of a key such as 'liver_dice'."""
    structure, _, rest = key.partition("_")
    return structure, next(figure for figure in FIGURES if figure.key == rest)
