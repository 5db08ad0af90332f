"""MONAI's grids and windows: where its Spacing puts voxels, and where its sliding window stands.

Sources: ``Spacing``, ``compute_shape_offset``, ``dense_patch_slices`` and ``compute_importance_map`` of MONAI 1.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..geometry import Grid
from ..separable import Matrices
from .plan import Plan

# Spacings that differ by less are the same to MONAI, in mm.
_SAME_SPACING = 1e-3
# As near to each other corners must come to be the same, in voxels.
_SAME_CORNER = 1e-8
_LEAST_WEIGHT = 1e-3


def spaced(grid: Grid, spacing: Sequence[float] | None) -> tuple[Grid, Matrices, Matrices]:
    """The grid that MONAI's Spacing makes of ``grid``, and the way there and back.

    The first voxel stays where it is; in a scan that lies obliquely the middle does, see :func:`_keeps_corner`.
    Values are interpolated linearly between voxels, without averaging where voxels become larger; beyond the outer
    voxels the outermost value goes on.

    Args:
        grid: of the voxels.
        spacing: wanted, in mm along the axes of the array (k, j, i); None keeps the voxels.

    Returns:
        (grid, there, back): one matrix per axis of the array, see :mod:`..separable`.
    """
    old = grid.spacing[::-1]
    new = old if spacing is None else np.array(spacing, np.float64)
    new = np.where(np.abs(new - old) <= _SAME_SPACING, old, new)
    given = np.array(grid.shape)
    shape = np.round((given - 1) * old / new + 1).astype(int)
    ratio = new / old
    first = np.zeros(3) if _keeps_corner(grid, ratio) else (given - ratio * shape) / 2
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, 3] = grid.to_ras(first[::-1])
    matrix[:3, :3] *= ratio[::-1]
    same = (given == shape) & (ratio == 1) & (np.abs(first) <= _SAME_SPACING)
    axes = [(int(n), int(m), float(r), float(f)) for n, m, r, f in zip(given, shape, ratio, first, strict=True)]
    there = tuple(None if s else _linear(n, m, r, f) for s, (n, m, r, f) in zip(same, axes, strict=True))
    back = tuple(None if s else _linear(m, n, 1 / r, -f / r) for s, (n, m, r, f) in zip(same, axes, strict=True))
    return Grid(shape[::-1], matrix), there, back


def _keeps_corner(grid: Grid, ratio: np.ndarray) -> bool:
    """Whether the first voxel stays where it is.

    MONAI looks for a corner of the scan that is the least along all axes of the new grid, with a tolerance of 1e-8
    voxels. In a scan that lies straight that is the first voxel; in an oblique one the rounding of its matrix, which
    MONAI frees of shearing first, decides, and mostly no corner is found.

    Args:
        grid: of the voxels.
        ratio: of new to old spacings along the axes of the array.
    """
    affine = grid.ijk_to_ras[:3, [2, 1, 0]]
    scale = np.linalg.cholesky(affine.T @ affine).T
    turned = affine @ np.linalg.inv(scale)
    new = turned * (np.linalg.norm(affine, axis=0) * ratio)
    edges = np.meshgrid(*[(0.0, n - 1.0) for n in grid.shape], indexing="ij")
    corners = np.linalg.solve(new, affine) @ np.array(edges).reshape(3, -1)
    return bool(np.abs((corners - corners[:, :1]).min(axis=1)).max() <= _SAME_CORNER)


@lru_cache(maxsize=32)
def _linear(size: int, wanted: int, ratio: float, first: float) -> np.ndarray:
    """Weights (wanted, size) that interpolate between voxels at ``first`` and at every ``ratio`` from there."""
    position = np.clip(first + np.arange(wanted) * ratio, 0, size - 1)
    distance = np.abs(np.arange(size)[None, :] - position[:, None])
    return np.clip(1 - distance, 0, None).astype(np.float32)


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of MONAI's windows along one axis: as far apart as the overlap says, the last one moved inward."""
    if size <= patch:
        return [0]
    step = max(1, int(patch * (1 - overlap)))
    count = 1 + int(np.ceil((size - patch) / step))
    return [min(n * step, size - patch) for n in range(count)]


def window_weight(plan: Plan) -> np.ndarray:
    """How much each voxel of a window says, float32, of the shape of a patch."""
    if not plan.gaussian:
        return np.ones(plan.patch_size, np.float32)
    profiles = []
    for size, sigma in zip(plan.patch_size, plan.sigma, strict=True):
        distance = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
        profiles.append(np.exp(distance**2 / np.float32(-2 * (sigma * size) ** 2)))
    weight = profiles[0][:, None, None] * profiles[1][:, None] * profiles[2]
    return np.maximum(weight, max(float(weight.min()), _LEAST_WEIGHT)).astype(np.float32)
