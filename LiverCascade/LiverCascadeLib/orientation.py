"""Voxels turned to the axes that a network wants, without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .geometry import Grid
from .sampling import upright_view


def oriented(
    array: np.ndarray, grid: Grid, orientation: str, transpose: Sequence[int] = (0, 1, 2)
) -> tuple[np.ndarray, Grid]:
    """A view of ``array`` with its axes turned, and the grid that it then lies on.

    What is written into the view is written into ``array``: the way back of a result is to write it there.

    Args:
        array: [k, j, i] on ``grid``.
        grid: where its voxels lie.
        orientation: where i, j and k shall grow: 'RAS', 'LPS', or 'stored' for as they are.
        transpose: order of the turned array's axes in the view.

    Raises:
        ValueError: an orientation that is not known.
    """
    if orientation not in ("RAS", "LPS", "stored"):
        raise ValueError(f"The orientation is {orientation!r}, expected 'RAS', 'LPS' or 'stored'.")
    if orientation != "stored":
        array, grid = upright_view(array, grid)
    if orientation == "LPS":
        array, grid = array[:, ::-1, ::-1], _flipped(grid, (0, 1))
    order = [2 - transpose[2 - axis] for axis in range(3)]
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, :3] = matrix[:3, :3][:, order]
    return array.transpose(transpose), Grid([grid.size[axis] for axis in order], matrix)


def _flipped(grid: Grid, axes: Sequence[int]) -> Grid:
    """The grid of an array that is flipped along some of i, j, k (0, 1, 2)."""
    matrix = grid.ijk_to_ras.copy()
    corner = [grid.size[axis] - 1 if axis in axes else 0 for axis in range(3)]
    matrix[:3, 3] = grid.to_ras(np.array(corner))
    matrix[:3, list(axes)] *= -1
    return Grid(grid.size, matrix)
