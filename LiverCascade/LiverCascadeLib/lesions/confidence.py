"""What speaks for a lesion and against it: features of the fused probability, of its size and of the scan.

:class:`..models.calibration.Calibration` makes a score of them. Fitted on synthetic lesions, that score does not carry
over to patients by itself: it is called confidence, never probability, and a model without a calibration has none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..geometry import Grid
from ..models.calibration import Calibration

# Probabilities nearer to 0 and 1 say nothing about a network that was trained in half precision.
_EDGE = 0.005


def slice_distance_mm(grid: Grid) -> float:
    """Distance of the slices: spacing along the grid's axis that lies nearest to S, in mm."""
    return float(grid.canonical().spacing[2])


def evidence(
    labels: np.ndarray,
    probability: np.ndarray,
    entropy: np.ndarray,
    grid: Grid,
    spread: np.ndarray | None = None,
    halo: np.ndarray | None = None,
) -> dict[int, dict[str, float]]:
    """The features of all lesions.

    * ``mean_logit``: logit of the mean probability of lesion in it;
    * ``peak_logit``: logit of the highest one;
    * ``halo_logit``: logit of the mean one over the lesion with its halo, see :func:`..postprocess.halo_means`;
    * ``entropy``: mean entropy of the classes in it as a share of the highest possible, 0…1;
    * ``log_diameter``: natural logarithm of its volume-equivalent diameter in mm, (6 V / π)^(1/3);
    * ``log_slice``: natural logarithm of the distance of the slices in mm;
    * ``mirror_spread``: root mean variance of the probability over mirrored copies, where these were compared.

    Args:
        labels: label values of voxels, 2 and above for lesions, of any shape.
        probability: of lesion, of that shape, 0…1.
        entropy: of the classes as a share of the highest possible, of that shape.
        grid: for the size of the voxels and the distance of the slices.
        spread: standard deviation of the probability of lesion over mirrored copies, of that shape.
        halo: what :func:`..postprocess.halo_means` gives, of that shape.

    Returns:
        features by name, by lesion id (label value − 1).
    """
    inside = labels >= 2
    ids = labels[inside].astype(np.int64) - 1
    if not ids.size:
        return {}
    counts = np.bincount(ids)
    known = np.flatnonzero(counts)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(ids, values.astype(np.float64))[known] / counts[known]

    likely = probability[inside].astype(np.float64)

    def highest(values: np.ndarray) -> np.ndarray:
        peaks = np.zeros(len(counts))
        np.maximum.at(peaks, ids, values)
        return peaks[known]

    features = {
        "mean_logit": _logit(mean(likely)),
        "peak_logit": _logit(highest(likely)),
        "entropy": mean(entropy[inside]),
        "log_diameter": np.log(np.cbrt(6 * counts[known] * grid.voxel_volume_mm3 / np.pi)),
        "log_slice": np.full(len(known), np.log(slice_distance_mm(grid))),
    }
    if halo is not None:
        features["halo_logit"] = _logit(highest(halo[inside]))
    if spread is not None:
        features["mirror_spread"] = np.sqrt(mean(np.square(spread[inside].astype(np.float64))))
    return {
        int(number): {name: round(float(values[n]), 5) for name, values in features.items()}
        for n, number in enumerate(known)
    }


def _logit(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.log(clipped / (1 - clipped))


def confidences(features: Mapping[int, Mapping[str, float]], calibration: Calibration | None) -> dict[int, float]:
    """Scores of lesions, 0…1, by their ids; empty where the model is not calibrated for this kind of run."""
    if calibration is None:
        return {}
    scores = {number: calibration.confidence(values) for number, values in features.items()}
    return {number: score for number, score in scores.items() if score is not None}
