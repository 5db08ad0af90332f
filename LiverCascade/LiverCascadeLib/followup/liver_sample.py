"""A liver at the resolution that registration needs: small, and the same whatever scanner it came from."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import Box, Grid, axis_maps
from ..steps import exhausted
from ..volume import Volume

SPACING_MM = 3.0
MARGIN_MM = 12.0


@dataclass(frozen=True, eq=False)
class LiverSample:
    """Liver and CT around it on a coarse grid, whose axes are those of the study, nearest to R, A and S.

    Attributes:
        grid: about 3 mm, no voxel beyond the volume.
        hu: int16 [k, j, i], mean of the voxels underneath.
        liver: uint8 [k, j, i], share of liver or lesion in each voxel, 0…255.
        lesions: uint8 [k, j, i], share of lesions, 0…255.
        cut: for the grid's low and high ends along i, j, k: whether the volume ends there.
    """

    grid: Grid
    hu: np.ndarray
    liver: np.ndarray
    lesions: np.ndarray
    cut: tuple[tuple[bool, bool], ...]

    @property
    def mask(self) -> np.ndarray:
        """Bool [k, j, i]: voxels that are liver for the most part."""
        return self.liver >= 128


def liver_sample(volume: Volume, labels: np.ndarray, spacing_mm: float = SPACING_MM) -> LiverSample:
    """Takes the sample at once; see :func:`liver_sample_steps`."""
    return exhausted(liver_sample_steps(volume, labels, spacing_mm))


def liver_sample_steps(
    volume: Volume, labels: np.ndarray, spacing_mm: float = SPACING_MM
) -> Generator[None, None, LiverSample]:
    """Samples the liver of a study in short steps.

    Args:
        volume: the CT.
        labels: [k, j, i] on its grid: 0 background, 1 liver, 2 and above lesions.
        spacing_mm: of the sample.

    Raises:
        InputError: there is no liver.
    """
    box = Box.around(labels)
    if box is None:
        raise InputError(f"There is no liver in '{volume.name}': nothing can be compared. Segment it first.")
    yield
    room = tuple(int(np.ceil(MARGIN_MM / s)) for s in volume.grid.spacing)
    start = tuple(max(0, a - r) for a, r in zip(box.start, room, strict=True))
    stop = tuple(min(n, b + r) for n, b, r in zip(volume.grid.size, box.stop, room, strict=True))
    box = Box(start, stop)
    source = volume.grid.crop(box)
    target = source.canonical((spacing_mm,) * 3)
    hu = yield from _coarse_steps(volume.array[box.slices], source, target, lambda part: part)
    inner = labels[box.slices]
    liver = yield from _coarse_steps(inner, source, target, lambda part: part > 0)
    lesions = yield from _coarse_steps(inner, source, target, lambda part: part > 1)
    return LiverSample(
        target,
        np.rint(hu).astype(np.int16),
        np.rint(255 * liver).astype(np.uint8),
        np.rint(255 * lesions).astype(np.uint8),
        _cuts(box, volume.grid, source, target),
    )


def _cuts(box: Box, whole: Grid, source: Grid, target: Grid) -> tuple[tuple[bool, bool], ...]:
    ends = [(a == 0, b == n) for a, b, n in zip(box.start, box.stop, whole.size, strict=True)]
    cuts = []
    for axis in axis_maps(source, target):
        low, high = ends[axis.source_axis]
        cuts.append((low, high) if axis.scale > 0 else (high, low))
    return tuple(cuts)


def _coarse_steps(
    array: np.ndarray, source: Grid, target: Grid, of: Callable[[np.ndarray], np.ndarray]
) -> Generator[None, None, np.ndarray]:
    """``of(array)`` on a grid that shares its axes: float32 [k, j, i]; every voxel of the source is averaged in."""
    maps = axis_maps(source, target)
    view = array.transpose([2 - maps[axis].source_axis for axis in (2, 1, 0)])
    weights = []
    for axis in range(3):
        size = source.size[maps[axis].source_axis]
        first, last, part = maps[axis].weights(size, 0, target.size[axis])
        full = np.zeros((target.size[axis], size), np.float32)
        full[:, first:last] = part
        full /= np.maximum(full.sum(axis=1, keepdims=True), 1e-6)
        weights.append(full)
    result = np.zeros(target.shape, np.float32)
    for k in range(view.shape[0]):
        takers = np.flatnonzero(weights[2][:, k])
        if not len(takers):
            continue
        piece = weights[1] @ np.ascontiguousarray(of(view[k]), dtype=np.float32) @ weights[0].T
        result[takers] += weights[2][takers, k][:, None, None] * piece
        yield
    return result
