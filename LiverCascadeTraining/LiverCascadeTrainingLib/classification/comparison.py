"""Masks side by side: ROC and AUC per slice and per case over seeds, and how much the masks differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .figures import Interval, at_threshold, auc, bootstrap, delong, mean_auc, threshold_for
from .training import Judged

SLICES, CASES = "slices", "cases"


@dataclass(frozen=True)
class Scores:
    """Scores of the same rows by every seed.

    Attributes:
        patients: of each row.
        truth: bool [n].
        values: [seeds, n].
    """

    patients: tuple[str, ...]
    truth: np.ndarray
    values: np.ndarray


def scores_of(runs: Sequence[Sequence[Judged]], unit: str) -> Scores:
    """The rows of ``unit`` ('slices' or 'cases') whose truth is clear.

    Args:
        runs: what the network of each seed says of the same livers.
        unit: see above.
    """
    keys = [_rows(run, unit) for run in runs]
    names = list(keys[0])
    if any(list(other) != names for other in keys[1:]):
        raise ValueError("The runs did not judge the same livers.")
    truth = np.array([keys[0][name][1] for name in names], dtype=bool)
    values = np.array([[run[name][2] for name in names] for run in keys], dtype=np.float64).reshape(len(runs), -1)
    return Scores(tuple(keys[0][name][0] for name in names), truth, values)


def _rows(run: Sequence[Judged], unit: str) -> dict[Any, tuple[str, bool, float]]:
    rows = {}
    for liver in run:
        if unit == CASES and liver.truth is not None and liver.score is not None:
            rows[liver.name] = (liver.patient, liver.truth, liver.score)
        if unit == SLICES:
            for number, truth, score in liver.slices:
                if truth is not None:
                    rows[liver.name, number] = (liver.patient, truth, score)
    return rows


@dataclass(frozen=True)
class MaskFigures:
    """One mask's figures for slices or cases.

    Attributes:
        patients, rows, positives: how many there are.
        auc_by_seed: in the order of the seeds.
        auc: their mean; its interval draws patients.
        spread: standard deviation over the seeds; not a number for one seed.
        delong: for cases: AUC and interval of each seed, livers taken as independent.
    """

    patients: int
    rows: int
    positives: int
    auc_by_seed: tuple[float, ...]
    auc: Interval
    spread: float
    delong: tuple[Interval, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "patients": self.patients,
            "rows": self.rows,
            "positives": self.positives,
            "auc": self.auc.as_dict(),
            "auc_by_seed": list(self.auc_by_seed),
            "sd_over_seeds": self.spread,
            "delong_by_seed": [interval.as_dict() for interval in self.delong],
        }


def figures_of(scores: Scores, unit: str) -> MaskFigures:
    """AUC by seed, and their mean with its interval."""
    by_seed = tuple(auc(scores.truth, values) for values in scores.values)
    interval = bootstrap(scores.patients, lambda weights: mean_auc(scores.truth, scores.values, weights))
    return MaskFigures(
        len(set(scores.patients)),
        len(scores.truth),
        int(scores.truth.sum()),
        by_seed,
        interval,
        float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else float("nan"),
        tuple(delong(scores.truth, values) for values in scores.values) if unit == CASES else (),
    )


def difference(soft: Scores, binary: Scores) -> dict[str, Any]:
    """AUC of the soft mask less that of the binary one: mean over seeds, interval over patients, and each seed's."""
    if soft.patients != binary.patients:
        raise ValueError("The two masks did not judge the same rows.")

    def figure(weights: np.ndarray) -> np.ndarray:
        return mean_auc(soft.truth, soft.values, weights) - mean_auc(soft.truth, binary.values, weights)

    pairs = zip(soft.values, binary.values, strict=True)
    by_seed = [auc(soft.truth, a) - auc(binary.truth, b) for a, b in pairs]
    return {
        **bootstrap(soft.patients, figure).as_dict(),
        "by_seed": by_seed,
        "seeds_for_soft": int(sum(d > 0 for d in by_seed)),
        "seeds_for_binary": int(sum(d < 0 for d in by_seed)),
    }


def gate_threshold(validation: Sequence[Judged], sensitivity: float) -> tuple[float, int]:
    """The gate's threshold from the validation part, and how many livers with lesions it rests on.

    Without any it is 0, which lets everything pass.
    """
    known = [liver for liver in validation if liver.truth is not None and liver.score is not None]
    truth = np.array([liver.truth for liver in known], dtype=bool)
    score = np.array([liver.score for liver in known], dtype=np.float64)
    found = threshold_for(truth, score, sensitivity)
    return (float(found) if np.isfinite(found) else 0.0), int(truth.sum())


def gate_figures(test: Sequence[Judged], threshold: float) -> dict[str, float]:
    """Sensitivity and specificity of the gate on livers that had no part in its threshold."""
    known = [liver for liver in test if liver.truth is not None and liver.score is not None]
    return at_threshold(
        np.array([liver.truth for liver in known], dtype=bool), np.array([v.score for v in known]), threshold
    )


def compare(
    test: Mapping[str, Sequence[Sequence[Judged]]], validation: Mapping[str, Sequence[Sequence[Judged]]], aim: float
) -> dict[str, Any]:
    """All figures of a run.

    Args:
        test: by mask and seed, what was said of the test part.
        validation: the same of the validation part.
        aim: sensitivity of the gate that the validation part fits its threshold to.

    Returns:
        'masks' → mask → 'slices', 'cases', 'gate'; with two masks also 'difference' → 'slices', 'cases'.
    """
    units = [unit for unit in (SLICES, CASES) if any(_rows(run, unit) for runs in test.values() for run in runs)]
    scores = {mask: {unit: scores_of(runs, unit) for unit in units} for mask, runs in test.items()}
    masks: dict[str, Any] = {}
    for mask, runs in test.items():
        masks[mask] = {unit: figures_of(scores[mask][unit], unit).as_dict() for unit in units}
        gates = []
        for judged, fitted in zip(runs, validation[mask], strict=True):
            threshold, positives = gate_threshold(fitted, aim)
            gates.append({**gate_figures(judged, threshold), "fitted_on_positives": positives})
        masks[mask]["gate"] = gates
    answer: dict[str, Any] = {"masks": masks}
    if {"soft", "binary"} <= set(scores):
        answer["difference"] = {unit: difference(scores["soft"][unit], scores["binary"][unit]) for unit in units}
    return answer
