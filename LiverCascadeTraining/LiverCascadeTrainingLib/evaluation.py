"""How well a label map agrees with a reference: one definition of each figure, written where it is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from LiverCascadeLib.geometry import Grid, axis_maps
from LiverCascadeLib.postprocess import components
from LiverCascadeLib.volume import read_labels

LESION_HIT_IOU = 0.1


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """2 |P ∩ R| / (|P| + |R|) of two masks of one shape; two empty masks agree perfectly (1)."""
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(reference))
    return 1.0 if total == 0 else 2 * int(np.count_nonzero(predicted & reference)) / total


def surface_distance_95(predicted: np.ndarray, reference: np.ndarray, grid: Grid) -> float:
    """95th percentile of the distances between both surfaces, in both directions, in mm (HD95).

    A surface voxel is one with a face neighbor outside the mask; distances run between voxel centers.

    Args:
        predicted, reference: masks [k, j, i] on ``grid``, neither empty.

    Raises:
        ValueError: a mask is empty.
    """
    from scipy import ndimage

    if not predicted.any() or not reference.any():
        raise ValueError("A surface distance needs two masks that are not empty.")
    spacing = grid.spacing[::-1]
    both = np.argwhere(predicted | reference)
    block = tuple(slice(max(0, a - 1), b + 2) for a, b in zip(both.min(axis=0), both.max(axis=0), strict=True))
    masks = [predicted[block], reference[block]]
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in masks]
    distances = [
        ndimage.distance_transform_edt(~other, sampling=spacing)[one] for one, other in (surfaces, surfaces[::-1])
    ]
    return float(np.percentile(np.concatenate(distances), 95))


def lesion_counts(predicted: np.ndarray, reference: np.ndarray, grid: Grid) -> dict[str, int]:
    """Lesions by components (26 neighbors): a hit is a reference lesion whose IoU with all predicted lesions that
    touch it, taken together, is above 0.1; a predicted lesion that touches no reference lesion is false.

    Args:
        predicted, reference: lesion masks [k, j, i] on ``grid``.

    Returns:
        ``lesions``, ``hit``, the same for lesions whose volume-equivalent diameter is at least 10 mm, ``predicted``
        and ``false``.
    """
    found, found_sizes = components(predicted)
    true, true_sizes = components(reference)
    counts = {"lesions": len(true_sizes), "hit": 0, "lesions_ge10": 0, "hit_ge10": 0}
    touched: set[int] = set()
    for number, size in enumerate(true_sizes, start=1):
        mask = true == number
        touching = set(np.unique(found[mask]).tolist()) - {0}
        touched |= touching
        together = np.isin(found, list(touching))
        iou = np.count_nonzero(mask & together) / np.count_nonzero(mask | together)
        large = (6 * size * grid.voxel_volume_mm3 / np.pi) ** (1 / 3) >= 10
        counts["hit"] += iou > LESION_HIT_IOU
        counts["lesions_ge10"] += large
        counts["hit_ge10"] += large and iou > LESION_HIT_IOU
    counts["predicted"], counts["false"] = len(found_sizes), len(found_sizes) - len(touched)
    return {name: int(count) for name, count in counts.items()}


def compare(predicted: np.ndarray, reference: np.ndarray, grid: Grid, with_lesions: bool = True) -> dict[str, float]:
    """All figures for one case.

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


def in_order_of(labels: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Labels on ``grid`` in the voxel order of ``target``, which has the same voxels with other flips or axes.

    Raises:
        ValueError: the two grids do not have the same voxels.
    """
    if not grid.canonical().is_close(target.canonical(), 0.5):
        raise ValueError(f"One is on {grid}, the other on {target}.")
    maps = axis_maps(grid, target)
    turned = labels.transpose([2 - maps[axis].source_axis for axis in (2, 1, 0)])
    return turned[tuple(slice(None, None, -1 if maps[axis].scale < 0 else 1) for axis in (2, 1, 0))]
