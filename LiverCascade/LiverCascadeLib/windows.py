"""Where the windows of a network stand, and how much each of them says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from .ladder import MemoryLadder

Corner = tuple[int, int, int]


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows that cover ``size`` voxels, evenly spread, ``overlap`` of a patch at least."""
    if size <= patch:
        return [0]
    count = int(np.ceil((size - patch) / max(1.0, patch * (1 - overlap)))) + 1
    return [round((size - patch) / (count - 1) * n) for n in range(count)]


def gaussian_profile(patch: int) -> np.ndarray:
    """Weights of a window along one axis: a Gaussian with σ = patch / 8 that never falls below 1e-3."""
    distance = np.arange(patch) - (patch - 1) / 2
    return np.maximum(np.exp(-0.5 * (distance / (patch / 8)) ** 2), 1e-3).astype(np.float32)


def windows_over(region: np.ndarray, patch: Corner, overlap: float) -> list[Corner]:
    """First voxels of the windows that cover a region with as few windows as possible.

    A liver is a wedge: a regular grid over its box puts windows where there is no liver. Here windows are laid along
    the first axis, in each of their layers along the second, and in each row along the third, only as far as the
    region goes there.

    Args:
        region: bool [k, j, i]; what is outside needs no window.
        patch: voxels of a window along k, j and i; no axis is longer than the region's.
        overlap: of neighboring windows, as a share of a patch, at least.
    """
    corners = []
    for k, layer in _layers(region, 0, patch[0], overlap):
        for j, row in _layers(layer, 1, patch[1], overlap):
            corners.extend((k, j, i) for i, _ in _layers(row, 2, patch[2], overlap))
    return corners


def _layers(region: np.ndarray, axis: int, patch: int, overlap: float) -> list[tuple[int, np.ndarray]]:
    """Windows along one axis of ``region``, each with the part of the region that it is responsible for."""
    others = tuple(a for a in range(3) if a != axis)
    hits = np.flatnonzero(region.any(axis=others))
    if not hits.size:
        return []
    size = region.shape[axis]
    low, high = int(hits[0]), int(hits[-1]) + 1
    if high - low <= patch:
        # In the middle of what it is for, so that it sees as much of the surroundings on one side as on the other.
        starts = [int(np.clip((low + high - patch) // 2, 0, size - patch))]
    else:
        starts = [low + start for start in window_starts(high - low, patch, overlap)]
    # Each takes what lies nearest to its middle.
    borders = [0, *((one + other + patch) // 2 for one, other in pairwise(starts)), size]
    layers = []
    for start, (first, last) in zip(starts, pairwise(borders), strict=True):
        own = np.zeros_like(region)
        index = tuple(slice(first, last) if a == axis else slice(None) for a in range(3))
        own[index] = region[index]
        if own.any():
            layers.append((start, own))
    return layers


def touching(region: np.ndarray, corners: Sequence[Corner], patch: Corner) -> list[Corner]:
    """Those of ``corners`` whose window holds some of ``region``, bool [k, j, i]."""
    return [c for c in corners if region[tuple(slice(n, n + p) for n, p in zip(c, patch, strict=True))].any()]


def iter_blended(
    image: torch.Tensor,
    corners: Sequence[Corner],
    weight: torch.Tensor,
    channels: int,
    forward: Callable[[torch.Tensor], torch.Tensor],
    ladder: MemoryLadder,
    update: Callable[[float], object],
    depth: int | None = None,
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """The weighted mean of what a network says in all windows, as far as no later window adds to it.

    Args:
        image: [1, k, j, i] on the ladder's store.
        corners: first voxels of the windows.
        weight: of a window's voxels, [k, j, i] on the store; its shape is the window's.
        channels: how many ``forward`` gives.
        forward: from windows [n, 1, k, j, i] to float32 [n, channels, k, j, i].
        ladder: says where windows are put together, and how many go through at once.
        update: told the share of windows that are done; may raise Cancelled.
        depth: slices that are kept at once, a window's at least; None keeps all and gives them in one piece.

    Yields:
        (where, mean, unseen): slices along k, in a row from the first to the last; float32 [channels, k, j, i], 0
        where no window was; and where that is, bool [k, j, i].
    """
    import torch

    store, batch, patch, size = ladder.store, ladder.batch, weight.shape, image.shape[1]
    depth = size if depth is None else min(size, max(depth, patch[0]))
    total = torch.zeros((channels, depth, *image.shape[2:]), device=store)
    sums = torch.zeros((1, depth, *image.shape[2:]), device=store)
    first, corners = 0, sorted(corners)
    update(0.0)
    for n in range(0, len(corners), batch):
        windows = corners[n : n + batch]
        places = [[slice(c, c + p) for c, p in zip(corner, patch, strict=True)] for corner in windows]
        answers = forward(torch.stack([image[(slice(None), *place)] for place in places])).to(store)
        for (rows, *plane), values in zip(places, answers, strict=True):
            while rows.stop - first > depth:
                done = min(rows.start - first, depth)
                yield slice(first, first + done), *_mean(total[:, :done], sums[:, :done])
                first, total, sums = first + done, _moved(total, done), _moved(sums, done)
            inside = (slice(None), slice(rows.start - first, rows.stop - first), *plane)
            total[inside].addcmul_(values, weight)
            sums[inside] += weight
        update((n + len(windows)) / len(corners))
    while first < size:
        done = min(size - first, depth)
        yield slice(first, first + done), *_mean(total[:, :done], sums[:, :done])
        first += done
        if first < size:
            total, sums = _moved(total, done), _moved(sums, done)


def _mean(total: torch.Tensor, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``total`` divided in place by the weights of all windows, and where there was none."""
    unseen = sums == 0
    total /= sums.masked_fill_(unseen, 1)
    return total, unseen[0]


def _moved(array: torch.Tensor, slices: int) -> torch.Tensor:
    """``array`` without its first ``slices``, and as many empty ones at its end."""
    import torch

    moved = torch.zeros_like(array)
    moved[:, : array.shape[1] - slices] = array[:, slices:]
    return moved


def windows_at_once(device: str, patch: Sequence[int], channels: int) -> int:
    """Windows per forward pass: on the CPU one, on a GPU what half of its free memory holds.

    Args:
        patch: voxels of a window.
        channels: features of the network's finest level, of which about a dozen maps live at once, in half precision.
    """
    import torch

    if not device.startswith("cuda"):
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return int(np.clip(free // 2 // (12 * 2 * channels * int(np.prod(patch))), 1, 8))
