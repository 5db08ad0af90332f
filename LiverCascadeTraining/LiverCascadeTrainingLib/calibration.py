"""How far the score of a lesion can be trusted: fitted and tested on scans that no network was trained on.

Every found lesion of a held-out scan is real or not: real where its intersection over union with a true lesion is
above 0.1. A logistic model of few features is fitted to that. How good it is, is told by two more fits, each to one
half of the scans and tested on the other: no lesion is judged by a score that was fitted to its scan. What came out is
written down, also where it is bad.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from LiverCascadeLib.cascade import Cascade, Options, load_cascade, segment
from LiverCascadeLib.models import Calibration, load_manifest
from LiverCascadeLib.models.calibration import FEATURES, ReliabilityBin, RiskAt
from LiverCascadeLib.postprocess import CleanUp
from scipy import optimize

from .cards import write_card
from .evaluation import LESION_HIT_IOU, dice
from .held_out import HeldOutScan, load_scan, make_scan, matched
from .limits import limits_of, overlaps_of

CALIBRATION = "calibration.json"
# What is always known; 'mirror_spread' is known only of runs that average over mirrored copies.
USUAL_FEATURES = ("mean_logit", "peak_logit", "halo_logit", "entropy", "log_diameter", "log_slice")
# Draws the standardized coefficients to zero: few lesions must not give steep scores.
RIDGE = 1.0
# Lesions that the model's own limits drop are fitted to as well, down to this peak: what decides is a feature.
CANDIDATES = CleanUp(min_lesion_peak=0.5, min_lesion_confidence=0.0)
# Of real lesions, and of others, in each half of the cases.
LEAST_OF_EACH_KIND = 5
BINS = 5
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
NOTE = (
    "Calibrated on synthetic scans with synthetic lesions only. On scans of patients the score orders lesions by how "
    "sure the network is; how often it is right there was not measured."
)


def calibrate_models(models: Path, data: Path, folder: Path, cases: int, seed: int) -> Calibration:
    """Runs the cascade on held-out scans, fits and tests the score, and writes ``calibration.json``.

    What a case gave is kept in a file each, so that a stopped calibration goes on where it was.

    Args:
        models: folder with the models ``locate`` and ``refine``.
        data: folder with ``labels_btcv`` and ``labels_lits_liver``.
        folder: where the files go.
        cases: how many scans.
        seed: of the scans.

    Raises:
        ValueError: too few lesions were found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cascade = load_cascade(models, Options(device="cpu"))
    found = [_case(number, cascade, data, folder, seed) for number in range(cases)]
    manifest = cascade.refine.manifest
    calibration = fit(found, manifest.weights_sha256, seed, manifest.min_lesion_confidence)
    (folder / CALIBRATION).write_text(json.dumps(calibration.as_dict(), indent=2) + "\n", encoding="utf-8")
    return calibration


def apply_calibration(models: Path, calibration: Calibration) -> None:
    """Writes a calibration into the manifest and the card of the refine model in ``models``."""
    folder = models / "refine"
    dataclasses.replace(load_manifest(folder), calibration=calibration).save(folder)
    write_card(folder)


def _case(number: int, cascade: Cascade, data: Path, folder: Path, seed: int) -> dict:
    """What the cascade found on one scan; from its file, where it was run already."""
    path, scan_path = folder / f"case-{number:03d}.json", folder / f"scan-{number:03d}.npz"
    weights = cascade.weights
    if path.exists():
        case = json.loads(path.read_text(encoding="utf-8"))
        if (case["seed"], case["weights"]) == (seed, weights) and "overlaps" in case:
            return case
    scan = load_scan(scan_path) if scan_path.exists() else make_scan(data, seed, number)
    case = {"number": number, "seed": seed, "weights": weights, **found_lesions(scan, cascade)}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(case), encoding="utf-8")
    part.rename(path)
    scan_path.unlink(missing_ok=True)
    shown = [lesion for lesion in case["lesions"] if lesion["shown"]]
    real = sum(lesion["iou"] > LESION_HIT_IOU for lesion in shown)
    more = len(case["lesions"]) - len(shown)
    print(f"case {number}: {len(shown)} lesions found, {real} of them real; {more} dropped", flush=True)
    return case


def found_lesions(scan: HeldOutScan, cascade: Cascade) -> dict:
    """The lesions that a cascade finds on a scan, each with its features and with its IoU with a true lesion."""
    options = Options(device="cpu", clean_up=CANDIDATES)
    result = segment(scan.volume, cascade, options)
    shown = _logit_of(cascade.refine.manifest.min_lesion_peak)
    lesions = [
        {
            "evidence": result.evidence[lesion.id],
            "iou": round(matched(result.labels, scan.truth, lesion.label), 4),
            "volume_ml": round(lesion.volume_ml, 4),
            "shown": result.evidence[lesion.id]["peak_logit"] >= shown,
        }
        for lesion in result.lesions
    ]
    return {
        "facts": scan.facts,
        "liver_dice": round(dice(result.labels > 0, scan.truth > 0), 4),
        "lesions": lesions,
        "overlaps": overlaps_of(result.labels, scan.truth, scan.volume.grid),
    }


def _logit_of(probability: float) -> float:
    """The logit, with a little less than the rounding of features off it."""
    clipped = min(max(probability, 1e-3), 1 - 1e-3)
    return float(np.log(clipped / (1 - clipped))) - 1e-3


def fit(cases: Sequence[dict], weights_sha256: str, seed: int, least_confidence: float = 0.0) -> Calibration:
    """The score that fits the lesions of all cases, and what such a score is worth on cases that it was not fitted to.

    Args:
        cases: as :func:`found_lesions` gives them.
        weights_sha256: of the refine model that found the lesions.
        seed: of the scans, for the record.
        least_confidence: lesions with a lower score are not shown, and have no part in what is tested.

    Raises:
        ValueError: too few lesions, or all of one kind.
    """
    features, real, shown = _lesions_of(cases)
    scores = np.full(len(real), np.nan)
    halves = [_lesions_of(cases[first::2]) for first in (0, 1)]
    where = np.repeat([n % 2 for n in range(len(cases))], [len(case["lesions"]) for case in cases])
    for half, (others, other_real, _) in enumerate(reversed(halves)):
        good = np.count_nonzero(other_real)
        if min(good, len(other_real) - good) < LEAST_OF_EACH_KIND:
            raise ValueError(
                f"Among the {len(other_real)} lesions of one half of the cases, {good} are real. A score needs "
                f"{LEAST_OF_EACH_KIND} of each kind at least: calibrate on more cases."
            )
        scores[where == half] = _scores(_draft(others, other_real), features[where == half])
    by_case = np.split(scores, np.cumsum([len(case["lesions"]) for case in cases])[:-1])
    true_lesions, limits = limits_of([case["overlaps"] for case in cases], by_case)
    shown &= scores >= least_confidence
    tested, tested_real = scores[shown], real[shown]
    if not 0 < np.count_nonzero(tested_real) < len(tested_real):
        raise ValueError("The lesions that the model shows are all of one kind: calibrate on more cases.")
    bins = reliability(tested, tested_real)
    error = sum(row.count * abs(row.mean_confidence - row.observed) for row in bins) / len(tested)
    draft = _draft(features, real)
    return Calibration(
        **draft,
        weights_sha256=weights_sha256,
        real_iou=LESION_HIT_IOU,
        fitted_on=(
            f"{len(cases)} synthetic scans (seed {seed}): livers of LiTS label maps among BTCV organs in newly "
            "invented bodies, with synthetic lesions"
        ),
        cases=len(cases),
        lesions_fitted=len(real),
        lesions_tested=len(tested),
        real_share=round(float(tested_real.mean()), 4),
        expected_calibration_error=round(error, 4),
        area_under_curve=round(area_under_curve(tested, tested_real), 4),
        reliability=bins,
        risk_coverage=risk_coverage(tested, tested_real),
        date=datetime.date.today().isoformat(),
        note=NOTE,
        true_lesions=true_lesions,
        healthy_cases=sum(not case["overlaps"]["true"] for case in cases),
        limits=limits,
    )


def _draft(features: np.ndarray, real: np.ndarray) -> dict:
    """The fields of a calibration that make the score, rounded as they are delivered."""
    coefficients, intercept = fit_logistic(features, real, [FEATURES[name] for name in USUAL_FEATURES])
    ranges = zip(features.min(axis=0), features.max(axis=0), strict=True)
    return {
        "features": USUAL_FEATURES,
        "coefficients": tuple(round(float(c), 5) for c in coefficients),
        "intercept": round(float(intercept), 5),
        "ranges": tuple((round(float(low), 5), round(float(high), 5)) for low, high in ranges),
    }


def _scores(draft: dict, features: np.ndarray) -> np.ndarray:
    """What :meth:`LiverCascadeLib.models.Calibration.confidence` gives for features [n, features]."""
    low, high = np.array(draft["ranges"]).T
    return 1 / (1 + np.exp(-(draft["intercept"] + np.clip(features, low, high) @ np.array(draft["coefficients"]))))


def _lesions_of(cases: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all lesions that were found: features [n, features], whether they are real and whether they are shown."""
    lesions = [lesion for case in cases for lesion in case["lesions"]]
    features = [[lesion["evidence"][name] for name in USUAL_FEATURES] for lesion in lesions]
    real = np.array([lesion["iou"] > LESION_HIT_IOU for lesion in lesions], bool)
    shown = np.array([lesion["shown"] for lesion in lesions], bool)
    return np.array(features, float).reshape(-1, len(USUAL_FEATURES)), real, shown


def fit_logistic(
    features: np.ndarray, real: np.ndarray, directions: Sequence[int], ridge: float = RIDGE
) -> tuple[np.ndarray, float]:
    """Coefficients and intercept of a logistic model, by penalized maximum likelihood.

    The penalty is ``ridge`` / 2 · Σ c² of the coefficients of the standardized features.

    Args:
        features: [n, features].
        real: bool [n].
        directions: the sign that each coefficient may have, 1 or −1.
        ridge: weight of the penalty, in lesions.

    Returns:
        (coefficients [features], intercept) for the features as they are.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    standard = (features - mean) / scale
    sign = np.where(real, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = parameters[:-1], parameters[-1]
        margin = sign * (standard @ weights + intercept)
        pull = -sign / (1 + np.exp(np.clip(margin, -50, 50)))
        value = np.logaddexp(0, -margin).sum() + ridge / 2 * weights @ weights
        return float(value), np.append(standard.T @ pull + ridge * weights, pull.sum())

    bounds = [(0, None) if direction > 0 else (None, 0) for direction in directions]
    start = np.zeros(features.shape[1] + 1)
    best = optimize.minimize(loss, start, jac=True, bounds=[*bounds, (None, None)], method="L-BFGS-B").x
    coefficients = best[:-1] / scale
    return coefficients, float(best[-1] - coefficients @ mean)


def reliability(scores: np.ndarray, real: np.ndarray, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Lesions in bins of rising score, as many in each.

    Args:
        scores: [n], 0…1.
        real: bool [n].
        bins: how many, at most; none is empty.
    """
    order = np.argsort(scores, kind="stable")
    return tuple(
        ReliabilityBin(
            low=round(float(scores[part[0]]), 4),
            high=round(float(scores[part[-1]]), 4),
            count=len(part),
            mean_confidence=round(float(scores[part].mean()), 4),
            observed=round(float(real[part].mean()), 4),
        )
        for part in np.array_split(order, min(bins, len(order)))
        if len(part)
    )


def risk_coverage(scores: np.ndarray, real: np.ndarray, coverages: Sequence[float] = COVERAGES) -> tuple[RiskAt, ...]:
    """How many of the surest lesions are not real, for falling shares of lesions that are kept.

    Args:
        scores: [n], 0…1.
        real: bool [n].
        coverages: shares, 0…1; at least one lesion is kept.
    """
    order = np.argsort(-scores, kind="stable")
    rows = []
    for coverage in coverages:
        kept = order[: max(1, round(coverage * len(order)))]
        rows.append(RiskAt(coverage, round(float(scores[kept[-1]]), 4), round(float(1 - real[kept].mean()), 4)))
    return tuple(rows)


def area_under_curve(scores: np.ndarray, real: np.ndarray) -> float:
    """Probability that a real lesion has a higher score than one that is not; equal scores count half.

    Args:
        scores: [n].
        real: bool [n], with both kinds in it.
    """
    above = scores[real][:, None] - scores[~real][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())
