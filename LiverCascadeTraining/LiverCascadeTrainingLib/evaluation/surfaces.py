"""Agreement by distances between surfaces, in mm.

Two notions of a surface are in use, and each figure says which it takes:

* *Surface voxels*, those with a face neighbor outside the mask; distances run between voxel centers. Average and
  maximum distances and the 95th percentiles take these, as LiTS, MedPy and MONAI do.
* *Surface elements*, pieces of area between voxel centers as marching cubes cut them (Nikolov et al. 2018,
  arXiv:1809.04430). The surface Dice takes these, as DeepMind's surface-distance and MONAI's ``use_subvoxels`` do.

Nearest points are looked up in a k-d tree of the surface, which is exact and much faster than a distance map of the
box. Far away from a surface a tree is slow; where there are very many points, a distance map answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from LiverCascadeLib.geometry import Box, Grid

TOLERANCES_MM = (1.0, 2.0, 3.0)
# A distance of exactly the tolerance counts, also where computing it rounds up.
ROUNDING_MM = 1e-6
# With more surface voxels than two livers have, distances come from a map.
MOST_POINTS = 600_000


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between the surface voxels of two masks that are not empty.

    Attributes:
        from_predicted: for each surface voxel of the prediction, mm to the nearest of the reference.
        from_reference: the other way round.
    """

    from_predicted: np.ndarray
    from_reference: np.ndarray

    @cached_property
    def all(self) -> np.ndarray:
        """Both directions together."""
        return np.concatenate([self.from_predicted, self.from_reference])

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over the surface voxels of both (Heimann et al. 2009)."""
        return float(self.all.mean())

    @property
    def msd_mm(self) -> float:
        """Maximum symmetric surface distance, the Hausdorff distance."""
        return float(self.all.max())

    @property
    def hd95_mm(self) -> float:
        """The larger of the 95th percentiles of the two directions, as MONAI defines it."""
        return max(float(np.percentile(one, 95)) for one in (self.from_predicted, self.from_reference))

    @property
    def hd95_pooled_mm(self) -> float:
        """95th percentile of both directions together, as MedPy's ``hd95`` and model cards have it."""
        return float(np.percentile(self.all, 95))


def union_block(predicted: np.ndarray, reference: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Index of the smallest block that holds both masks, or None where both are empty."""
    boxes = [box for box in (Box.around(predicted), Box.around(reference)) if box is not None]
    if not boxes:
        return None
    start = np.min([box.start for box in boxes], axis=0)
    return Box(tuple(start.tolist()), tuple(np.max([box.stop for box in boxes], axis=0).tolist())).slices


def surface_distances(predicted: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between the surface voxels of two masks.

    Args:
        predicted, reference: bool [k, j, i], neither empty. Beyond the array is background.
        spacing: mm along (k, j, i).

    Raises:
        ValueError: a mask is empty.
    """
    if not predicted.any() or not reference.any():
        raise ValueError("A surface distance needs two masks that are not empty.")
    first, second = (np.argwhere(_surface_voxels(mask)) for mask in (predicted, reference))
    return SurfaceDistances(_distances(first, second, spacing), _distances(second, first, spacing))


def surface_distance_95(predicted: np.ndarray, reference: np.ndarray, grid: Grid) -> float:
    """95th percentile of the distances between both surfaces, in both directions, in mm.

    Args:
        predicted, reference: masks [k, j, i] on ``grid``, neither empty.

    Raises:
        ValueError: a mask is empty.
    """
    block = union_block(predicted, reference) or (slice(None),) * 3
    return surface_distances(predicted[block], reference[block], grid.spacing[::-1]).hd95_pooled_mm


def surface_dice(
    predicted: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
) -> tuple[float, ...]:
    """Normalized surface Dice (NSD): the share of both surfaces' area that lies within a tolerance of the other.

    Args:
        predicted, reference: bool [k, j, i]. Two empty masks agree perfectly (1), an empty and another not at all (0).
        spacing: mm along (k, j, i).
        tolerances_mm: one figure each.
    """
    if not predicted.any() or not reference.any():
        return (float(predicted.any() == reference.any()),) * len(tolerances_mm)
    areas = _element_areas(tuple(float(s) for s in spacing))
    (first, first_area), (second, second_area) = (_elements(mask, areas, spacing) for mask in (predicted, reference))
    limits = [tolerance + ROUNDING_MM for tolerance in tolerances_mm]
    reach = max(limits)
    there, back = (_nearest(a, b, reach) for a, b in ((first, second), (second, first)))
    total = first_area.sum() + second_area.sum()
    return tuple(float((first_area[there <= t].sum() + second_area[back <= t].sum()) / total) for t in limits)


def _surface_voxels(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask with a face neighbor outside; what lies beyond the array is outside."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1, 1:-1].copy()
    for axis in range(3):
        for shift in (0, 2):
            block = [slice(1, -1)] * 3
            block[axis] = slice(shift, shift + mask.shape[axis])
            inner &= padded[tuple(block)]
    return mask & ~inner


def _elements(mask: np.ndarray, areas: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Positions in mm and areas in mm² of the surface elements: one for each 2×2×2 voxels that are not all alike."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([n - 1 for n in padded.shape], np.uint8)
    for bit, (a, b, c) in enumerate(np.ndindex(2, 2, 2)):
        codes |= padded[tuple(slice(s, s + n) for s, n in zip((a, b, c), codes.shape, strict=True))] << (7 - bit)
    found = (codes != 0) & (codes != 255)
    return np.argwhere(found) * np.asarray(spacing), areas[codes[found]]


@lru_cache(maxsize=64)
def _element_areas(spacing: tuple[float, float, float]) -> np.ndarray:
    """Area in mm² of the surface in 2×2×2 voxels, by the code of which of them are inside; from MONAI's table."""
    from monai.metrics.utils import create_table_neighbour_code_to_surface_area

    return create_table_neighbour_code_to_surface_area(spacing)[0].numpy().astype(np.float64)


def _distances(points: np.ndarray, others: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance in mm from each voxel to the nearest of the others; both are indices (k, j, i)."""
    if len(points) + len(others) <= MOST_POINTS:
        return _nearest(points * np.asarray(spacing), others * np.asarray(spacing))
    import SimpleITK as sitk

    start = np.minimum(points.min(axis=0), others.min(axis=0))
    points, others = points - start, others - start
    there = np.zeros(np.maximum(points.max(axis=0), others.max(axis=0)) + 1, np.uint8)
    there[tuple(others.T)] = 1
    image = sitk.GetImageFromArray(there)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    # Inside counts as negative; a voxel of the surface itself is at distance 0 by definition here.
    signed = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    distances = sitk.GetArrayViewFromImage(signed)[tuple(points.T)].astype(np.float64)
    distances[there[tuple(points.T)] > 0] = 0
    return distances


def _nearest(points: np.ndarray, others: np.ndarray, reach: float = float("inf")) -> np.ndarray:
    """Distance from each point to the nearest of the others; infinite beyond ``reach``."""
    from scipy.spatial import cKDTree

    return cKDTree(others).query(points, distance_upper_bound=reach)[0]
