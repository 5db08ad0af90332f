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
_LEAST_WEIGHT = 1e-3


def spaced(grid: Grid, spacing: Sequence[float] | None) -> tuple[Grid, Matrices, Matrices]:
    """The grid that MONAI's Spacing makes of ``grid``, and the way there and back.

    The first voxel stays where it is, and the last one comes within half a voxel of the old last one. Values are
    interpolated linearly between voxels, without averaging where voxels become larger; beyond the outer voxels the
    outermost value goes on.

    Args:
        grid: of the voxels.
        spacing: wanted, in mm along the axes of the array (k, j, i); None keeps the voxels.

    Returns:
        (grid, there, back): one matrix per axis of the array, see :mod:`..separable`.
    """
    old = grid.spacing[::-1]
    new = old if spacing is None else np.array(spacing, np.float64)
    new = np.where(np.abs(new - old) <= _SAME_SPACING, old, new)
    shape = np.round((np.array(grid.shape) - 1) * old / new + 1).astype(int)
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, :3] *= (new / old)[::-1]
    pairs = [(int(n), int(m), float(b / a)) for n, m, a, b in zip(grid.shape, shape, old, new, strict=True)]
    there = tuple(None if n == m and ratio == 1 else _linear(n, m, ratio) for n, m, ratio in pairs)
    back = tuple(None if n == m and ratio == 1 else _linear(m, n, 1 / ratio) for n, m, ratio in pairs)
    return Grid(shape[::-1], matrix), there, back


@lru_cache(maxsize=32)
def _linear(size: int, wanted: int, ratio: float) -> np.ndarray:
    """Weights (wanted, size) that interpolate between voxels at multiples of ``ratio``."""
    position = np.clip(np.arange(wanted) * ratio, 0, size - 1)
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
