"""What is found, and what is shown in vain, where lesions are shown from a certain confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models.calibration import LimitAt
from LiverCascadeLib.postprocess import components

from .evaluation import LESION_HIT_IOU
from .evaluation.detection import BINS, LEAST_LESION_MM, SharedVoxels, find_lesions

LIMITS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def overlaps_of(labels: np.ndarray, truth: np.ndarray, grid: Grid) -> dict:
    """How found and true lesions overlap, as plain values, from which :func:`limits_of` counts later.

    Args:
        labels, truth: 0 background, 1 liver, 2 and above one value per lesion, [k, j, i] on ``grid``.

    Returns:
        ``voxels`` of each found lesion, by label; ``true`` lesions, each with its voxels and its size, an index of
        :data:`.evaluation.detection.BINS`, or None for crumbs below 4 mm; ``pairs`` of both that share voxels:
        (found, true, how many), counted from 0.
    """
    found, true = np.maximum(labels.astype(np.int64) - 1, 0), components(truth > 1)[0]
    shared = SharedVoxels.of(found, true)
    sizes = {
        lesion.number: BINS.index(lesion.size_bin)
        for lesion in find_lesions(np.zeros(truth.shape, bool), truth > 1, grid)[1]
        if lesion.equivalent_diameter_mm >= LEAST_LESION_MM
    }
    return {
        "voxels": shared.predicted.tolist(),
        "true": [{"voxels": int(n), "size": sizes.get(index + 1)} for index, n in enumerate(shared.reference)],
        "pairs": np.stack([shared.rows, shared.columns, shared.counts], axis=1).tolist(),
    }


def limits_of(
    overlaps: Sequence[Mapping], scores: Sequence[np.ndarray], limits: Sequence[float] = LIMITS
) -> tuple[tuple[int, ...], tuple[LimitAt, ...]]:
    """Recall by size and false lesions per scan, for rising limits.

    A true lesion is found where its IoU with all shown lesions that touch it is above 0.1, a shown one is false where
    its IoU with all true ones that it touches is not, as in the rest of the evaluation.

    Args:
        overlaps: of each scan, as :func:`overlaps_of` gives them.
        scores: of the found lesions of each scan, by label.
        limits: lesions with a lower score are not shown.

    Returns:
        (true lesions by size, one row for each limit). The recall of a size that no lesion has is 0.
    """
    scans = [_shared(overlap) for overlap in overlaps]
    sizes = [np.array([-1 if t["size"] is None else t["size"] for t in overlap["true"]], int) for overlap in overlaps]
    there = np.sum([np.bincount(size[size >= 0], minlength=len(BINS)) for size in sizes], axis=0)
    rows = []
    for limit in limits:
        found, false, marred = np.zeros(len(BINS)), 0, 0
        for scan, size, score in zip(scans, sizes, scores, strict=True):
            shown = np.asarray(score) >= limit
            kept = shown[scan.rows]
            part = SharedVoxels(scan.rows[kept], scan.columns[kept], scan.counts[kept], scan.predicted, scan.reference)
            hit = (part.touching_iou() > LESION_HIT_IOU) & (size >= 0)
            found += np.bincount(size[hit], minlength=len(BINS))
            wrong = np.count_nonzero(shown & (part.transposed.touching_iou() <= LESION_HIT_IOU))
            false += wrong
            marred += bool(wrong) and not len(size)
        recall = [round(float(value), 4) for value in found / np.maximum(there, 1)]
        rows.append(LimitAt(limit, *recall, round(false / max(1, len(scans)), 4), marred))
    return tuple(int(n) for n in there), tuple(rows)


def _shared(overlap: Mapping) -> SharedVoxels:
    pairs = np.array(overlap["pairs"], np.int64).reshape(-1, 3)
    reference = np.array([lesion["voxels"] for lesion in overlap["true"]], np.int64)
    return SharedVoxels(*pairs.T, np.array(overlap["voxels"], np.int64), reference)
