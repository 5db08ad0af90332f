"""Resampling by one matrix per axis: what every interpolation on a regular grid is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_SLAB = 16

# One matrix (wanted, given) per axis of an array; None where an axis stays as it is.
Matrices = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


def apply_matrices(image: torch.Tensor, matrices: Matrices) -> torch.Tensor:
    """``matrices`` applied to ``image``, float32 [k, j, i], on its device; the axis that shrinks most comes first."""
    ratios = [1.0 if m is None else m.shape[0] / m.shape[1] for m in matrices]
    for axis in np.argsort(ratios):
        if matrices[axis] is not None:
            image = _along(image, matrices[axis], int(axis))
    return image


def iter_resampled(channels: torch.Tensor, matrices: Matrices) -> Iterator[tuple[slice, torch.Tensor]]:
    """``channels`` [c, k, j, i] resampled, slab by slab along the first spatial axis: (where, [c, slab, j, i])."""
    import torch

    for where, reach, first in _slabs(channels.shape[1], matrices[0]):
        slab = [apply_matrices(channel.float(), (first, *matrices[1:])) for channel in channels[:, reach]]
        yield where, torch.stack(slab)


def iter_slabs(
    array: np.ndarray, matrices: Matrices, change: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Iterator[torch.Tensor]:
    """``array`` [k, j, i] of any real type resampled, as consecutive float32 slabs along the first axis.

    Only what a slab reaches becomes float, so that a volume of any size costs a few slabs.

    Args:
        array: also a view with axes that run backward.
        matrices: of its axes.
        change: what happens to the values before they are resampled.
    """
    import torch

    for _, reach, first in _slabs(array.shape[0], matrices[0]):
        part = torch.from_numpy(np.array(array[reach], np.float32, order="C"))
        yield apply_matrices(part if change is None else change(part), (first, *matrices[1:]))


def _slabs(size: int, matrix: np.ndarray | None) -> Iterator[tuple[slice, slice, np.ndarray | None]]:
    """Slabs along the first axis: where each stands, what it reaches of the array, and the matrix between the two."""
    count = size if matrix is None else matrix.shape[0]
    for start in range(0, count, _SLAB):
        where = slice(start, min(start + _SLAB, count))
        if matrix is None:
            yield where, where, None
            continue
        rows = matrix[where]
        used = np.flatnonzero(rows.any(axis=0))
        reach = slice(int(used[0]), int(used[-1]) + 1)
        yield where, reach, rows[:, reach]


def _along(image: torch.Tensor, matrix: np.ndarray, axis: int) -> torch.Tensor:
    import torch

    weights = torch.from_numpy(np.ascontiguousarray(matrix)).to(image.device)
    if axis == 2:
        return image @ weights.T
    if axis == 1:
        return torch.matmul(weights, image)
    return torch.tensordot(weights, image, dims=1)
