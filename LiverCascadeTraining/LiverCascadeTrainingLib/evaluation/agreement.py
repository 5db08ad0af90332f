"""The few figures of a model card, for one case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.postprocess import components
from LiverCascadeLib.volume import read_labels

from .detection import SharedVoxels
from .files import in_order_of
from .overlap import dice
from .surfaces import surface_distance_95

LESION_HIT_IOU = 0.1
LARGE_LESION_MM = 10.0


def lesion_counts(predicted: np.ndarray, reference: np.ndarray, grid: Grid) -> dict[str, int]:
    """Lesions by components (26 neighbors): a hit is a reference lesion whose IoU with all predicted lesions that
    touch it, taken together, is above 0.1; a predicted lesion that touches no reference lesion is false.

    Args:
        predicted, reference: lesion masks [k, j, i] on ``grid``.

    Returns:
        ``lesions``, ``hit``, the same for lesions whose volume-equivalent diameter is at least 10 mm, ``predicted``
        and ``false``.
    """
    shared = SharedVoxels.of(components(predicted)[0], components(reference)[0])
    hit = shared.touching_iou() > LESION_HIT_IOU
    large = (6 * shared.reference * grid.voxel_volume_mm3 / np.pi) ** (1 / 3) >= LARGE_LESION_MM
    counts = {
        "lesions": len(hit),
        "hit": hit.sum(),
        "lesions_ge10": large.sum(),
        "hit_ge10": (hit & large).sum(),
        "predicted": len(shared.predicted),
        "false": len(shared.predicted) - len(np.unique(shared.rows)),
    }
    return {name: int(count) for name, count in counts.items()}


def compare(predicted: np.ndarray, reference: np.ndarray, grid: Grid, with_lesions: bool = True) -> dict[str, float]:
    """The figures of one case.

    Args:
        predicted, reference: labels [k, j, i] on ``grid``: 1 liver, 2 and above lesions.
        with_lesions: whether the reference tells lesions from liver.
    """
    figures: dict[str, float] = {"liver_dice": dice(predicted > 0, reference > 0)}
    if predicted.any() and reference.any():
        figures["liver_hd95_mm"] = surface_distance_95(predicted > 0, reference > 0, grid)
    voxel_ml = grid.voxel_volume_mm3 / 1000
    figures["liver_ml"] = float(np.count_nonzero(predicted)) * voxel_ml
    figures["reference_liver_ml"] = float(np.count_nonzero(reference)) * voxel_ml
    if with_lesions:
        figures["lesion_dice"] = dice(predicted > 1, reference > 1)
        figures.update(lesion_counts(predicted > 1, reference > 1, grid))
    else:
        figures["predicted"] = len(components(predicted > 1)[1])
    return figures


def compare_files(predicted: Path, reference: Path, with_lesions: bool = True) -> dict[str, float]:
    """:func:`compare` for two files, which may store the same voxels in another order (flipped or permuted axes).

    Raises:
        ValueError: the two do not cover the same voxels of the patient.
    """
    (first, grid), (second, other) = (read_labels(path) for path in (predicted, reference))
    try:
        return compare(in_order_of(first, grid, other), second, other, with_lesions)
    except ValueError as error:
        raise ValueError(f"{predicted} and {reference} cannot be compared. {error}") from None
