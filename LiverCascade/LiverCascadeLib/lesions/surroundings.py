"""A lesion against the liver that it lies in: contrast, and distance to the capsule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from ..geometry import Box, Grid
from ..pixels import array_of
from .region import BEYOND, LIVER, OTHER_LESION, OUTSIDE, THIS_LESION, Region, common, cut, grown_by_mm, moved

# Liver between these distances from the lesion (voxel center to voxel center) is what it is compared with. What is
# nearer is partly lesion, by partial volume and by the doubt of its outline; what is farther may be another territory.
SHELL_MM = (2.0, 10.0)
# Voxels; a mean of fewer says little.
LEAST_SHELL = 30
# Cubes into which surfaces are cut: their side, and how many of them are laid along a lesion.
LEAST_CUBE_MM, MOST_CUBES = 6.0, 12
_RIGHT_ANGLE_TOLERANCE = 1e-3
# Distances that differ by less are the same: many are exactly those of the shell, but for rounding.
_ROUNDING_MM = 1e-3


def contrast_hu(region: Region) -> float:
    """Mean HU of the lesion minus mean HU of the liver in a shell around it.

    The shell is liver at :data:`SHELL_MM` from the lesion and not nearer than its inner edge to another lesion. Not a
    number where it has fewer than :data:`LEAST_SHELL` voxels, or where there is no CT or no liver.
    """
    around = region.around
    if around is None or not around.has_liver or not region.hounsfield.size:
        return float("nan")
    box = common(grown_by_mm(region.box, region.grid, SHELL_MM[1]), around.bounds)
    classes = around.classes(box)
    distance = _distance_to(classes == THIS_LESION, region.grid)
    nearest, farthest = (limit + _ROUNDING_MM for limit in SHELL_MM)
    shell = (classes == LIVER) & (distance > nearest) & (distance <= farthest)
    others = classes == OTHER_LESION
    if others.any():
        shell &= _distance_to(others, region.grid) > nearest
    values = around.hounsfield(box)[shell]
    values = values[np.isfinite(values)]
    if values.size < LEAST_SHELL:
        return float("nan")
    return float(region.hounsfield.mean(dtype=np.float64) - values.mean(dtype=np.float64))


def capsule_distance_mm(region: Region) -> float:
    """Smallest distance of the lesion's boundary and the liver's outer surface, in mm; 0 where the lesion touches it.

    Both are taken at the middles of the faces between a voxel inside and its neighbor outside. The liver includes its
    lesions; where the volume ends there is no surface. Not a number without a liver, or where no surface is in sight.
    """
    around = region.around
    if around is None or not around.has_liver or not region.voxel_count:
        return float("nan")
    voxel = float(region.grid.spacing.max())
    margin = SHELL_MM[1]
    while True:
        box = common(grown_by_mm(region.box, region.grid, margin + voxel), around.bounds)
        classes = around.classes(box)
        surface = _faces((classes != OUTSIDE) & (classes != BEYOND), classes == OUTSIDE, region.grid)
        own = np.pad(cut(classes, _within(region.box, box), OUTSIDE, np.uint8) == THIS_LESION, 1)
        shift = region.grid.ijk_to_ras[:3, :3] @ np.subtract(region.box.start, np.add(box.start, 1))
        distance = _smallest_distance(_faces(own, ~own, region.grid) + shift, surface)
        # Within the margin nothing can be nearer outside the box.
        if distance <= margin or box == around.bounds:
            return distance if np.isfinite(distance) else float("nan")
        margin *= 2


def _within(inner: Box, outer: Box) -> Box:
    """``inner``, counted from the first voxel of ``outer``."""
    return moved(inner, np.negative(outer.start))


def _distance_to(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """mm from each voxel center to the nearest one in ``mask``, which is not empty; not above 0 inside it."""
    unit = grid.ijk_to_ras[:3, :3] / grid.spacing
    if np.abs(unit.T @ unit - np.eye(3)).max() <= _RIGHT_ANGLE_TOLERANCE:
        image = sitk.GetImageFromArray(mask.view(np.uint8))
        image.SetSpacing(grid.spacing.tolist())
        # Four times as fast as SciPy's, which a user interface would have to wait for.
        return array_of(sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True))
    steps = grid.ijk_to_ras[:3, :3]
    edge = mask & ~ndimage.binary_erosion(mask)
    found, _ = cKDTree(np.argwhere(edge)[:, ::-1] @ steps.T).query(np.argwhere(~mask)[:, ::-1] @ steps.T)
    result = np.zeros(mask.shape)
    result[~mask] = found
    return result


def _faces(inside: np.ndarray, outside: np.ndarray, grid: Grid) -> np.ndarray:
    """Middles (n, 3) of the faces between both, in mm from the first voxel's center, along R, A, S."""
    found = []
    for axis in range(3):
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        between = (inside[low] & outside[high]) | (outside[low] & inside[high])
        # Some ten times faster than a search in three dimensions.
        kji = np.unravel_index(np.flatnonzero(between), between.shape)
        middles = np.column_stack(kji[::-1]).astype(float)
        middles[:, 2 - axis] += 0.5
        found.append(middles)
    return np.concatenate(found) @ grid.ijk_to_ras[:3, :3].T


@dataclass(frozen=True, eq=False)
class _Cubes:
    """Points, sorted by the cube that they lie in, and each cube's first point and bounds."""

    points: np.ndarray
    starts: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def of(points: np.ndarray, side: float) -> _Cubes:
        places = np.floor((points - points.min(axis=0)) / side).astype(np.int64)
        numbers = np.ravel_multi_index(tuple(places.T), tuple(places.max(axis=0) + 1))
        order = np.argsort(numbers, kind="stable")
        points, numbers = points[order], numbers[order]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        return _Cubes(points, starts, np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts))

    def of_cube(self, number: int) -> np.ndarray:
        stop = self.starts[number + 1] if number + 1 < len(self.starts) else None
        return self.points[self.starts[number] : stop]


def _smallest_distance(points: np.ndarray, others: np.ndarray) -> float:
    """Of any two points, one of each set; infinite where one is empty.

    Both sets are cut into cubes. Pairs of cubes are looked at by the distance of their boxes, until no pair can be
    nearer than what was found: a search tree would compare almost everything where two surfaces run in parallel.
    """
    if not len(points) or not len(others):
        return float("inf")
    side = max(LEAST_CUBE_MM, float(np.ptp(points, axis=0).max()) / MOST_CUBES)
    mine, theirs = _Cubes.of(points, side), _Cubes.of(others, side)
    apart = np.maximum(mine.low[:, None] - theirs.high, theirs.low - mine.high[:, None])
    gaps = np.linalg.norm(np.maximum(0, apart), axis=-1)
    best = np.inf
    for pair in np.argsort(gaps, axis=None):
        row, column = np.unravel_index(pair, gaps.shape)
        if gaps[row, column] >= best:
            break
        best = min(best, float(cdist(mine.of_cube(row), theirs.of_cube(column)).min()))
    return best
