"""Two models on the same cases: how much they differ, and how easily chance alone does that.

Patients, not cases or lesions, are what chance draws: several cases of a patient are averaged first, lesions of a
patient change sides together. All p values of one evaluation are corrected together (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from .detection import THRESHOLDS
from .pooled import DataSet, figure_of, mean, ratio

# Few, chosen before any result: every further test makes all others weaker.
COMPARED = (
    "liver_dice",
    "liver_nsd_2mm",
    "liver_hd95_mm",
    "liver_absolute_volume_error_ml",
    "lesion_dice",
    "lesion_nsd_2mm",
    "lesion_absolute_volume_error_ml",
)
FALSE_AT = 0.1
EXACT_PATIENTS, PERMUTATIONS = 14, 10000


@dataclass(frozen=True)
class Difference:
    """How the second model differs from the first in one figure.

    Attributes:
        first, second: names of the models.
        key: such as 'lesion_dice', 'recall_0.1' or 'false_per_patient_0.1'.
        title: for readers.
        digits: after the decimal point.
        better: 'high' or 'low'.
        value_first, value_second: over the cases that are compared.
        difference: second − first, with the ends of its interval.
        low, high: ends of the 95 % interval.
        count: patients, or reference lesions, that are compared.
        left_out: cases in which the figure is not defined for both.
        second_better, first_better: how many patients or lesions speak for which; ties are neither.
        test: its name.
        p: of the test; not a number where there is nothing to test.
        p_holm: corrected for all tests of the evaluation.
        p_mcnemar: exact, of lesions as if they were independent; for detection only.
    """

    first: str
    second: str
    key: str
    title: str
    digits: int
    better: str
    value_first: float
    value_second: float
    difference: float
    low: float
    high: float
    count: int
    left_out: int
    second_better: int
    first_better: int
    test: str
    p: float
    p_holm: float = float("nan")
    p_mcnemar: float = float("nan")

    def as_dict(self) -> dict[str, object]:
        """For JSON; null where it is not known."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in vars(self).items()}


def compare_models(data: Mapping[str, DataSet], seed: int) -> tuple[Difference, ...]:
    """All differences of each two models, corrected together.

    Args:
        data: by model, with the same cases in the same order.
        seed: of the permutations.

    Raises:
        ValueError: the models were judged on different cases.
    """
    found: list[Difference] = []
    for (first, one), (second, other) in combinations(data.items(), 2):
        if [case.name for case in one.cases] != [case.name for case in other.cases]:
            raise ValueError(f"{first} and {second} were judged on different cases.")
        names = {"first": first, "second": second}
        both = one.with_lesions and other.with_lesions
        found += [_figure(names, key, one, other) for key in COMPARED if both or key.startswith("liver_")]
        if both:
            found += [_recall(names, threshold, one, other, seed) for threshold in THRESHOLDS]
            found.append(_false(names, one, other, seed))
    corrected = holm([difference.p for difference in found])
    return tuple(replace(d, p_holm=p) for d, p in zip(found, corrected, strict=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm, Scand. J. Statist. 6, 1979); what is no number stays so."""
    corrected = [float("nan")] * len(p_values)
    known = sorted((p, index) for index, p in enumerate(p_values) if np.isfinite(p))
    running = 0.0
    for rank, (p, index) in enumerate(known):
        running = max(running, min(1.0, p * (len(known) - rank)))
        corrected[index] = running
    return corrected


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed rank test; 1 where nothing differs, not a number without any value."""
    from scipy import stats

    if not len(differences):
        return float("nan")
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided exact p of McNemar's test of what only one of two found."""
    from scipy import stats

    total = first_only + second_only
    return float(stats.binomtest(first_only, total).pvalue) if total else 1.0


def sign_flips(differences: np.ndarray, seed: int) -> float:
    """Two-sided p of the sum of differences, were each patient's sign a matter of chance.

    Exact for up to 14 patients that differ; else from 10 000 permutations, the observed one counted in.
    """
    moving = differences[differences != 0]
    if not len(moving):
        return 1.0
    observed = abs(moving.sum())
    exact = len(moving) <= EXACT_PATIENTS
    if exact:
        signs = np.array(list(product((-1, 1), repeat=len(moving))), float)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(PERMUTATIONS, len(moving)))
    extreme = int((np.abs(signs @ moving) >= observed - 1e-9).sum())
    return extreme / len(signs) if exact else (extreme + 1) / (len(signs) + 1)


def _figure(names: Mapping[str, str], key: str, one: DataSet, other: DataSet) -> Difference:
    structure, figure = figure_of(key)
    first, second = one.values(key), other.values(key)
    defined = np.isfinite(first) & np.isfinite(second)
    difference = np.where(defined, second - first, np.nan)
    by_patient = _patient_means(difference, one)
    better, worse = (by_patient > 0).sum(), (by_patient < 0).sum()
    if figure.better == "low":
        better, worse = worse, better
    value, low, high = one.resampling.interval(mean(difference))
    return Difference(
        **names,
        key=key,
        title=f"{structure.capitalize()} {figure.heading if figure.title.isupper() else _lowered(figure.heading)}",
        digits=figure.digits,
        better=figure.better,
        value_first=float(first[defined].mean()) if defined.any() else float("nan"),
        value_second=float(second[defined].mean()) if defined.any() else float("nan"),
        difference=value,
        low=low,
        high=high,
        count=len(by_patient),
        left_out=int((~defined).sum()),
        second_better=int(better),
        first_better=int(worse),
        test="Wilcoxon",
        p=wilcoxon(by_patient),
    )


def _lowered(text: str) -> str:
    """With a small first letter, unless it begins with an abbreviation or a name."""
    word = text.split()[0]
    return text if word in ("Dice", "IoU") or word[1:] != word[1:].lower() else text[0].lower() + text[1:]


def _patient_means(values: np.ndarray, data: DataSet) -> np.ndarray:
    """Mean of what is a number for each patient that has any."""
    defined = np.isfinite(values)
    owner = data.resampling.owner
    counts = np.bincount(owner, defined, data.resampling.patients)
    sums = np.bincount(owner, np.where(defined, values, 0), data.resampling.patients)
    return sums[counts > 0] / counts[counts > 0]


def _patient_sums(values: np.ndarray, data: DataSet) -> np.ndarray:
    return np.bincount(data.resampling.owner, values, data.resampling.patients)


def _recall(names: Mapping[str, str], threshold: float, one: DataSet, other: DataSet, seed: int) -> Difference:
    pairs = [
        np.array([[a.iou > threshold, b.iou > threshold] for a, b in zip(*lesions, strict=True)], bool).reshape(-1, 2)
        for lesions in (
            (first.reference_lesions, second.reference_lesions)
            for first, second in zip(one.cases, other.cases, strict=True)
        )
    ]
    found = np.array([pair.sum(axis=0) for pair in pairs], float)
    totals = np.array([len(pair) for pair in pairs], float)
    every = np.concatenate(pairs)
    first_only, second_only = (
        int(n) for n in ((every[:, 0] & ~every[:, 1]).sum(), (every[:, 1] & ~every[:, 0]).sum())
    )
    value, low, high = one.resampling.interval(ratio(found[:, 1] - found[:, 0], totals))
    some = len(every) > 0
    return Difference(
        **names,
        key=f"recall_{threshold:g}",
        title=f"Lesion recall, IoU > {threshold:g}",
        digits=3,
        better="high",
        value_first=float(every[:, 0].mean()) if some else float("nan"),
        value_second=float(every[:, 1].mean()) if some else float("nan"),
        difference=value,
        low=low,
        high=high,
        count=len(every),
        left_out=0,
        second_better=second_only,
        first_better=first_only,
        test="permutation",
        p=sign_flips(_patient_sums(found[:, 1] - found[:, 0], one), seed) if some else float("nan"),
        p_mcnemar=mcnemar(first_only, second_only) if some else float("nan"),
    )


def _false(names: Mapping[str, str], one: DataSet, other: DataSet, seed: int) -> Difference:
    first, second = (
        np.array([sum(n.iou <= FALSE_AT for n in case.predicted_lesions) for case in data.cases], float)
        for data in (one, other)
    )
    by_patient = _patient_sums(second - first, one)
    per_patient = 1 / np.bincount(one.resampling.owner)[one.resampling.owner]
    value, low, high = one.resampling.interval(ratio(second - first, per_patient))
    patients = one.resampling.patients
    return Difference(
        **names,
        key=f"false_per_patient_{FALSE_AT:g}",
        title=f"False lesions per patient, IoU > {FALSE_AT:g}",
        digits=2,
        better="low",
        value_first=float(first.sum() / patients),
        value_second=float(second.sum() / patients),
        difference=value,
        low=low,
        high=high,
        count=patients,
        left_out=0,
        second_better=int((by_patient < 0).sum()),
        first_better=int((by_patient > 0).sum()),
        test="permutation",
        p=sign_flips(by_patient, seed),
    )
