"""How sure a model is of a lesion, and how that was found out: a logistic score, fitted on cases with known truth.

The score of a lesion is 1 / (1 + exp(−(intercept + Σ coefficient · feature))). Features are clipped to the range in
which they were met when the coefficients were fitted, and each may work in one direction only (:data:`FEATURES`): a
larger lesion is never less sure than a smaller one that is equal in everything else.

What such a score means ends with the cases that it was fitted on. Where these were synthetic, it orders the lesions
of a patient, and is no probability for them; readers are shown the word 'confidence'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

# By name, the sign that a coefficient may have. :mod:`..lesions.confidence` computes them.
FEATURES = {
    "mean_logit": 1,
    "peak_logit": 1,
    "halo_logit": 1,
    "entropy": -1,
    "log_diameter": 1,
    "log_slice": -1,
    "mirror_spread": -1,
}


@dataclass(frozen=True)
class ReliabilityBin:
    """Lesions of similar score, on cases that neither the network nor the score that is tested was fitted to.

    Attributes:
        low, high: the lowest and the highest score among them.
        count: how many lesions.
        mean_confidence: their mean score.
        observed: the share of them that are real.
    """

    low: float
    high: float
    count: int
    mean_confidence: float
    observed: float


@dataclass(frozen=True)
class RiskAt:
    """What is wrong among the surest lesions.

    Attributes:
        coverage: share of all lesions that is kept, the surest first.
        threshold: the lowest score among them.
        risk: the share of them that are not real.
    """

    coverage: float
    threshold: float
    risk: float


@dataclass(frozen=True)
class LimitAt:
    """What is found, and what is shown in vain, where lesions are shown from a certain score.

    Attributes:
        threshold: lesions with a lower score are not shown.
        recall_below_10_mm, recall_10_to_20_mm, recall_above_20_mm: share of the true lesions of a long axis that are
            found.
        false_per_case: shown lesions that are not real, per case.
        healthy_with_false: how many cases without a lesion have one that is shown.
    """

    threshold: float
    recall_below_10_mm: float
    recall_10_to_20_mm: float
    recall_above_20_mm: float
    false_per_case: float
    healthy_with_false: int


@dataclass(frozen=True)
class Calibration:
    """The score of a model's lesions, and how far it can be trusted.

    Attributes:
        features: names from :data:`FEATURES`.
        coefficients: one for each feature.
        intercept: of the logistic model.
        ranges: (low, high) of each feature among the lesions that it was fitted on.
        weights_sha256: of the weights that it belongs to.
        real_iou: a lesion counts as real where its intersection over union with a true lesion is above this.
        fitted_on: the cases, in words.
        cases: how many. For the figures below, each half of them is judged by a score that was fitted to the other.
        lesions_fitted: how many lesions on them, those included that the model's own limits drop.
        lesions_tested: those that the model shows.
        real_share: share of real lesions among these.
        expected_calibration_error: mean over the bins of |mean score − observed share|, weighted by their counts.
        area_under_curve: probability that a real tested lesion has a higher score than one that is not.
        reliability: bins of rising score.
        risk_coverage: of falling coverage.
        date: ISO 8601.
        note: what a reader must know.
        true_lesions: how many the cases have, by the sizes of :class:`LimitAt`; empty where it was not counted.
        healthy_cases: how many of the cases have no lesion.
        limits: of rising threshold.
    """

    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    ranges: tuple[tuple[float, float], ...]
    weights_sha256: str
    real_iou: float
    fitted_on: str
    cases: int
    lesions_fitted: int
    lesions_tested: int
    real_share: float
    expected_calibration_error: float
    area_under_curve: float
    reliability: tuple[ReliabilityBin, ...]
    risk_coverage: tuple[RiskAt, ...]
    date: str
    note: str
    true_lesions: tuple[int, ...] = ()
    healthy_cases: int = 0
    limits: tuple[LimitAt, ...] = ()

    def confidence(self, evidence: Mapping[str, float]) -> float | None:
        """The score of a lesion, 0…1.

        Args:
            evidence: the lesion's features, by name.

        Returns:
            None where a feature is missing: the score was fitted for another kind of run.
        """
        total = self.intercept
        for name, coefficient, (low, high) in zip(self.features, self.coefficients, self.ranges, strict=True):
            value = evidence.get(name, math.nan)
            if math.isnan(value):
                return None
            total += coefficient * min(max(value, low), high)
        return 1 / (1 + math.exp(-min(max(total, -50.0), 50.0)))

    def identity(self) -> dict[str, Any]:
        """What a result says about where its confidences come from; plain JSON values."""
        names = ("fitted_on", "date", "note", "lesions_fitted", "lesions_tested", "expected_calibration_error")
        return {**{name: getattr(self, name) for name in names}, "features": list(self.features)}

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of :meth:`as_dict`, for values in which :func:`problems` finds nothing."""
        content = {
            **values,
            "features": tuple(values["features"]),
            "coefficients": tuple(values["coefficients"]),
            "ranges": tuple(tuple(pair) for pair in values["ranges"]),
            "reliability": tuple(ReliabilityBin(**row) for row in values["reliability"]),
            "risk_coverage": tuple(RiskAt(**row) for row in values["risk_coverage"]),
            "true_lesions": tuple(values.get("true_lesions", ())),
            "limits": tuple(LimitAt(**row) for row in values.get("limits", ())),
        }
        return cls(**content)


def problems(values: Any) -> Iterator[str]:
    """Yields what is wrong with a calibration in a manifest, in words; nothing for None."""
    if values is None:
        return
    if not isinstance(values, dict):
        yield f"calibration is a {type(values).__name__}, expected an object or null"
        return
    yield from _keys(values, Calibration, "calibration")
    for name, (accepts, expected) in _RULES.items():
        if name in values and not accepts(values[name]):
            yield f"calibration.{name} is {values[name]!r}, expected {expected}"
    for name, kind in (("reliability", ReliabilityBin), ("risk_coverage", RiskAt), ("limits", LimitAt)):
        rows = values.get(name)
        for number, row in enumerate(rows if isinstance(rows, list) else ()):
            where = f"calibration.{name}[{number}]"
            if not isinstance(row, dict):
                yield f"{where} is {row!r}, expected an object"
                continue
            yield from _keys(row, kind, where)
            yield from (f"{where}.{key} is {v!r}, expected a number" for key, v in row.items() if not _is_number(v))
    yield from _parts_that_disagree(values)


def _parts_that_disagree(values: dict[str, Any]) -> Iterator[str]:
    """What is wrong between fields that are right by themselves."""
    limits, counts = (values.get(name, []) for name in ("limits", "true_lesions"))
    recalls = [f.name for f in fields(LimitAt) if f.name.startswith("recall_")]
    if isinstance(limits, list) and isinstance(counts, list) and limits and len(counts) != len(recalls):
        yield (
            f"calibration has limits and {len(counts)} counts of true lesions, expected {len(recalls)}: one each for "
            + ", ".join(recalls)
        )
    features, coefficients, ranges = (values.get(name) for name in ("features", "coefficients", "ranges"))
    if not all(isinstance(part, list) for part in (features, coefficients, ranges)):
        return
    if not len(features) == len(coefficients) == len(ranges):
        yield (
            f"calibration has {len(features)} features, {len(coefficients)} coefficients and {len(ranges)} ranges, "
            "expected as many of each"
        )
        return
    for name, coefficient in zip(features, coefficients, strict=True):
        sign = FEATURES[name] if _is_feature(name) else 0
        if _is_number(coefficient) and coefficient * sign < 0:
            wanted = "at least" if sign > 0 else "at most"
            yield f"calibration's coefficient of {name} is {coefficient:g}, expected {wanted} 0"


def _keys(values: dict[str, Any], kind: type, where: str) -> Iterator[str]:
    known = {f.name: f.default is MISSING for f in fields(kind)}
    yield from (f"{where}.{name} is missing" for name, needed in known.items() if needed and name not in values)
    yield from (f"{where}.{name} is not a known field" for name in values if name not in known)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_feature(value: Any) -> bool:
    return isinstance(value, str) and value in FEATURES


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]


_TEXT, _SHARE, _COUNT = (_is_text, "a text"), (_is_share, "a number from 0 to 1"), (_is_count, "a count")
_RULES = {
    "features": (
        lambda v: isinstance(v, list) and bool(v) and all(map(_is_feature, v)) and len(set(v)) == len(v),
        f"a list of some of {', '.join(FEATURES)}",
    ),
    "coefficients": (lambda v: isinstance(v, list) and all(map(_is_number, v)), "a list of numbers"),
    "intercept": (_is_number, "a number"),
    "ranges": (lambda v: isinstance(v, list) and all(map(_is_range, v)), "a list of pairs of rising numbers"),
    "weights_sha256": _TEXT,
    "real_iou": _SHARE,
    "fitted_on": _TEXT,
    "cases": _COUNT,
    "lesions_fitted": _COUNT,
    "lesions_tested": _COUNT,
    "real_share": _SHARE,
    "expected_calibration_error": _SHARE,
    "area_under_curve": _SHARE,
    "reliability": (lambda v: isinstance(v, list), "a list"),
    "risk_coverage": (lambda v: isinstance(v, list), "a list"),
    "date": _TEXT,
    "note": _TEXT,
    "true_lesions": (lambda v: isinstance(v, list) and all(map(_is_count, v)), "a list of counts"),
    "healthy_cases": _COUNT,
    "limits": (lambda v: isinstance(v, list), "a list"),
}
