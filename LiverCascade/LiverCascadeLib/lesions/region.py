"""A lesion as a set of voxels, and what lies around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from ..geometry import Box, Grid
from .diameters import AxialDiameters, axial_diameters

# What a voxel around a lesion is.
OUTSIDE, LIVER, THIS_LESION, OTHER_LESION, BEYOND = range(5)


class Around(Protocol):
    """What a lesion lies in. Boxes are on the lesion's own grid and may reach beyond everything that is known.

    Attributes:
        bounds: nothing of the liver and its lesions lies beyond it, and it is one voxel wider than they are.
        ct_grid: of the CT; None where there is no CT.
        slice_thickness_mm: of the CT; not a number where there is none.
        has_liver: whether a liver is known at all.
    """

    bounds: Box
    ct_grid: Grid | None
    slice_thickness_mm: float
    has_liver: bool

    def hounsfield(self, box: Box) -> np.ndarray:
        """float32 [k, j, i], in HU; not a number beyond the CT."""

    def classes(self, box: Box) -> np.ndarray:
        """uint8 [k, j, i]: OUTSIDE, LIVER, THIS_LESION, OTHER_LESION, or BEYOND the CT, where nothing is known."""


@dataclass(frozen=True, eq=False)
class Region:
    """A set of voxels of a grid, held in a small box.

    Attributes:
        mask: bool [k, j, i].
        grid: where voxels lie in the patient. The box may reach beyond its size.
        offset: (i, j, k) of the first voxel of ``mask`` on ``grid``.
        around: what the region lies in; None where nothing is known but its shape.
        confidence: of the network, 0…1; not a number where there is none.
    """

    mask: np.ndarray
    grid: Grid
    offset: tuple[int, int, int] = (0, 0, 0)
    around: Around | None = None
    confidence: float = float("nan")

    @property
    def box(self) -> Box:
        """The box of ``mask`` on ``grid``."""
        return Box(self.offset, tuple(a + n for a, n in zip(self.offset, self.mask.shape[::-1], strict=True)))

    @cached_property
    def voxels(self) -> np.ndarray:
        """Indices (n, 3) of the voxels on ``grid``, as (i, j, k)."""
        return np.argwhere(self.mask)[:, ::-1] + np.array(self.offset)

    @cached_property
    def voxel_count(self) -> int:
        """How many voxels there are."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def centroid_ras(self) -> np.ndarray:
        """Mean position of the voxel centers, RAS mm; not a number where there is no voxel."""
        if self.voxel_count == 0:
            return np.full(3, np.nan)
        return self.grid.to_ras(self.voxels.mean(axis=0))

    @cached_property
    def axial(self) -> AxialDiameters:
        """Long and short axis; see :func:`.diameters.axial_diameters`."""
        return axial_diameters(self.mask, self.grid, self.offset)

    @cached_property
    def hounsfield(self) -> np.ndarray:
        """HU of the voxels of the region, as far as the CT reaches; empty without a CT."""
        if self.around is None or self.around.ct_grid is None or not self.voxel_count:
            return np.zeros(0, np.float32)
        values = self.around.hounsfield(self.box)[self.mask]
        return values[np.isfinite(values)]

    @cached_property
    def ct_voxels(self) -> np.ndarray | None:
        """Indices (n, 3) of the nearest voxels of the CT, which may lie beyond it; None without a CT or a voxel."""
        ct_grid = None if self.around is None else self.around.ct_grid
        if ct_grid is None or not self.voxel_count:
            return None
        matrix, shift = between(self.grid, ct_grid)
        if shift is not None:
            return self.voxels + shift
        return np.rint(self.voxels @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.int64)


def between(source: Grid, target: Grid, reach: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """How voxel indices of ``source`` become those of ``target``.

    Args:
        reach: how many voxels along each axis are asked for; None takes the size of ``target``.

    Returns:
        (matrix, shift): 4×4 to fractional indices, and three whole steps where both count the same voxels, else None.
    """
    if source is target:
        return np.eye(4), np.zeros(3, np.int64)
    matrix = np.linalg.inv(target.ijk_to_ras) @ source.ijk_to_ras
    shift = np.rint(matrix[:3, 3])
    # A hundredth of a voxel at the far end of the grid is what files lose.
    drift = np.abs(matrix[:3] - np.column_stack([np.eye(3), shift])) @ np.array([*(reach or target.size), 1])
    return matrix, shift.astype(np.int64) if drift.max() <= 0.01 else None


def cut(array: np.ndarray, box: Box, fill: float, dtype: type) -> np.ndarray:
    """A copy of ``array[box]`` as ``dtype``, also where the box reaches beyond the array: ``fill`` stands there."""
    result = np.full(box.size[::-1], fill, dtype)
    inner = common(box, Box((0, 0, 0), array.shape[::-1]))
    result[moved(inner, np.negative(box.start)).slices] = array[inner.slices]
    return result


def nearest(array: np.ndarray, matrix: np.ndarray, box: Box, fill: float, dtype: type) -> np.ndarray:
    """``array`` at the voxels of ``box``, by nearest neighbors.

    Args:
        matrix: 4×4, from voxel indices (i, j, k) that ``box`` counts to those of ``array``.
        fill: stands beyond ``array``.
    """
    result = np.full(box.size[::-1], fill, dtype)
    axes = [np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)]
    i, j, k = np.meshgrid(*axes[::-1], indexing="ij")[::-1]
    places = [np.rint(row[0] * i + row[1] * j + row[2] * k + row[3]).astype(np.int64) for row in matrix[:3]]
    there = np.logical_and.reduce([(p >= 0) & (p < n) for p, n in zip(places, array.shape[::-1], strict=True)])
    result[there] = array[tuple(p[there] for p in places[::-1])]
    return result


def moved(box: Box, steps: Sequence[int]) -> Box:
    """``box`` carried along by whole ``steps`` (i, j, k)."""
    start, stop = (tuple(int(a + b) for a, b in zip(c, steps, strict=True)) for c in (box.start, box.stop))
    return Box(start, stop)


def grown_by_mm(box: Box, grid: Grid, margin_mm: float) -> Box:
    """The box of all voxels that may lie within ``margin_mm`` of one in ``box``, also on oblique and sheared grids."""
    steps = np.ceil(margin_mm * np.linalg.norm(np.linalg.inv(grid.ijk_to_ras[:3, :3]), axis=1)).astype(int)
    start = tuple(int(a - n) for a, n in zip(box.start, steps, strict=True))
    return Box(start, tuple(int(b + n) for b, n in zip(box.stop, steps, strict=True)))


def common(one: Box, other: Box) -> Box:
    """The part that two boxes share; of size 0 along an axis where they do not meet."""
    start = tuple(max(a, b) for a, b in zip(one.start, other.start, strict=True))
    stop = tuple(max(a, min(b, c)) for a, b, c in zip(start, one.stop, other.stop, strict=True))
    return Box(start, stop)
