"""ROC curves, the area below them, and how sure that area is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

DRAWS = 2000
_AT_ONCE = 250


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95 % interval; not numbers where it is not defined."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Plain values, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def text(self, digits: int = 3) -> str:
        """Value and interval for readers."""
        if not np.isfinite(self.value):
            return "not defined"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive has the higher score than a negative, ties counting half.

    Hanley and McNeil, Radiology 143:29–36 (1982). Not a number where one of the classes is missing.

    Args:
        truth: bool [n].
        score: [n], higher where positive is more likely.
    """
    truth = np.asarray(truth, dtype=bool)
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def roc_curve(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false-positive rate, sensitivity, threshold) from the strictest threshold to the laxest.

    At each threshold, scores of at least that much count as positive. Not numbers where one of the classes is missing.
    """
    truth, score = np.asarray(truth, dtype=bool), np.asarray(score, dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order]
    last = np.flatnonzero(np.append(np.diff(score) != 0, True)) if score.size else np.zeros(0, int)
    hits, false = np.cumsum(truth)[last], np.cumsum(~truth)[last]
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = np.append(0.0, hits / truth.sum())
        rate = np.append(0.0, false / (~truth).sum())
    return rate, sensitivity, np.append(np.inf, score[last])


def delong(truth: np.ndarray, score: np.ndarray) -> Interval:
    """AUC with the interval of DeLong, DeLong and Clarke-Pearson, Biometrics 44:837–845 (1988), within 0…1.

    Takes the rows as independent, and gives no width where the classes are told apart perfectly.
    """
    truth = np.asarray(truth, dtype=bool)
    score = np.asarray(score, dtype=np.float64)
    value = auc(truth, score)
    positive, negative = score[truth], score[~truth]
    if len(positive) < 2 or len(negative) < 2:
        return Interval(value, float("nan"), float("nan"))
    # Placements: for each row the share of the other class that it is on the right side of.
    both = rankdata(np.append(positive, negative))
    of_positives = (both[: len(positive)] - rankdata(positive)) / len(negative)
    of_negatives = 1 - (both[len(positive) :] - rankdata(negative)) / len(positive)
    variance = of_positives.var(ddof=1) / len(positive) + of_negatives.var(ddof=1) / len(negative)
    reach = float(norm.ppf(0.975) * np.sqrt(variance))
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def weighted_auc(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """:func:`auc` where rows count as often as their weights say, for many sets of weights at once.

    Args:
        truth: bool [n].
        score: [n].
        weights: [draws, n], not negative.

    Returns:
        float64 [draws]; not a number where one of the classes has no weight.
    """
    order = np.argsort(score, kind="stable")
    ordered, truth = np.asarray(score)[order], np.asarray(truth, dtype=bool)[order]
    if not ordered.size:
        return np.full(len(weights), np.nan)
    starts = np.flatnonzero(np.append(True, np.diff(ordered) != 0))
    drawn = np.asarray(weights, dtype=np.float64)[:, order]
    positive = np.add.reduceat(drawn * truth, starts, axis=1)
    negative = np.add.reduceat(drawn * ~truth, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def bootstrap(
    patients: Sequence[str], figure: Callable[[np.ndarray], np.ndarray], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """A figure with its percentile interval over drawn patients: rows of one patient are drawn together.

    Args:
        patients: of each row.
        figure: of weights [draws, rows], one value for each draw.
        draws: how often patients are drawn, with repetition; draws without a figure are left out.
        seed: of the draws: two calls with the same patients and seed draw the same ones.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    value = float(figure(np.ones((1, len(owner))))[0])
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, draws if len(names) else 0, _AT_ONCE):
        taken = rng.integers(len(names), size=(min(_AT_ONCE, draws - start), len(names)))
        counts = np.stack([np.bincount(row, minlength=len(names)) for row in taken])
        found.append(figure(counts[:, owner]))
    values = np.concatenate(found) if found else np.zeros(0)
    known = values[np.isfinite(values)]
    if not np.isfinite(value) or len(known) < max(2, draws // 2):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def mean_auc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over seeds of :func:`weighted_auc`; ``scores`` is [seeds, n], ``weights`` [draws, n]."""
    return np.mean([weighted_auc(truth, score, weights) for score in scores], axis=0)


def threshold_for(truth: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """The highest threshold that leaves at least this share of the positives at or above it.

    Not a number without positives.
    """
    positive = np.sort(np.asarray(score, dtype=np.float64)[np.asarray(truth, dtype=bool)])
    if not positive.size:
        return float("nan")
    missed = int(np.floor((1 - sensitivity) * positive.size + 1e-9))
    return float(positive[missed])


def at_threshold(truth: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, float]:
    """Counts, sensitivity and specificity where scores of at least ``threshold`` are positive."""
    truth, called = np.asarray(truth, dtype=bool), np.asarray(score) >= threshold
    positives, negatives = int(truth.sum()), int((~truth).sum())
    hits, spared = int((truth & called).sum()), int((~truth & ~called).sum())
    return {
        "threshold": float(threshold),
        "positives": positives,
        "negatives": negatives,
        "sensitivity": hits / positives if positives else float("nan"),
        "specificity": spared / negatives if negatives else float("nan"),
    }
