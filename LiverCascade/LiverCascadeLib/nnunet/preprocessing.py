"""nnU-Net's way from voxels to the network's grid and back.

Its splines are linear and separable, so that along each axis they are a matrix: the one that SciPy's own ``zoom``
makes of the unit vectors. Multiplying with three matrices gives what nnU-Net computes, in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.ndimage import binary_fill_holes

from ..geometry import Box
from ..separable import Matrices, apply_matrices
from .plans import Normalization, Resampling

if TYPE_CHECKING:
    import torch

# From this ratio of the largest to the smallest spacing on, nnU-Net treats the coarser axis apart.
ANISOTROPY = 3.0
_LEAST_DEVIATION = 1e-8


def new_shape(shape: Sequence[int], spacing: Sequence[float], wanted: Sequence[float]) -> tuple[int, ...]:
    """Voxels along each axis at the ``wanted`` spacing, in mm as ``spacing``."""
    return tuple(max(1, round(s / w * n)) for n, s, w in zip(shape, spacing, wanted, strict=True))


def normalize(image: np.ndarray, rule: Normalization, whole: np.ndarray) -> None:
    """Normalizes ``image``, float32 [k, j, i], in place.

    Args:
        image: HU.
        rule: see :class:`.plans.Normalization`.
        whole: the volume that ``image`` is a part of; mean, deviation and range are those of the scan, not of a part.
    """
    if rule.scheme == "CTNormalization":
        np.clip(image, rule.low, rule.high, out=image)
        image -= np.float32(rule.mean)
        image /= np.float32(max(rule.std, _LEAST_DEVIATION))
        return
    if rule.scheme == "NoNormalization":
        return
    found = Box.around(whole != 0)
    scan = whole if found is None else whole[found.slices]
    if rule.scheme == "RescaleTo01Normalization":
        low, high = float(scan.min()), float(scan.max())
        image -= np.float32(low)
        image /= np.float32(max(high - low, _LEAST_DEVIATION))
        return
    inside = binary_fill_holes(image != 0) if rule.only_nonzero else np.ones(image.shape, bool)
    values = scan[binary_fill_holes(scan != 0)] if rule.only_nonzero else scan
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    image[inside] -= np.float32(mean)
    image[inside] /= np.float32(max(deviation, _LEAST_DEVIATION))


def resampling_matrices(
    shape: Sequence[int],
    wanted: Sequence[int],
    spacing: Sequence[float],
    wanted_spacing: Sequence[float],
    rule: Resampling,
) -> Matrices:
    """One matrix (wanted, shape) per axis; None where an axis stays as it is.

    Args:
        shape: of the array, in voxels.
        wanted: shape after resampling.
        spacing, wanted_spacing: of both, in mm; they decide whether one axis is treated apart.
        rule: order of the spline, and what happens to a coarser axis.
    """
    apart = coarse_axis(spacing, wanted_spacing, rule.separate_z)
    return tuple(
        None if n == m else _matrix(n, m, rule.order_z if axis == apart else rule.order, axis == apart)
        for axis, (n, m) in enumerate(zip(shape, wanted, strict=True))
    )


def coarse_axis(spacing: Sequence[float], wanted: Sequence[float], separate: bool | None) -> int | None:
    """The axis that nnU-Net resamples apart from the others; None where there is none."""
    if separate is None:
        judged = next((s for s in (spacing, wanted) if max(s) / min(s) > ANISOTROPY), None)
    else:
        judged = spacing if separate else None
    if judged is None:
        return None
    coarsest = [axis for axis, s in enumerate(judged) if s == max(judged)]
    return coarsest[0] if len(coarsest) == 1 else None


@lru_cache(maxsize=32)
def _matrix(size: int, wanted: int, order: int, apart: bool) -> np.ndarray:
    """What a spline makes of ``size`` unit vectors, float32 (wanted, size)."""
    units = np.eye(size)
    if apart:
        # nnU-Net samples the coarser axis by coordinates instead of zooming.
        position = size / wanted * (np.arange(wanted) + 0.5) - 0.5
        matrix = [ndimage.map_coordinates(unit, position[None], order=order, mode="nearest") for unit in units]
        return np.stack(matrix, axis=1).astype(np.float32)
    return ndimage.zoom(units, (wanted / size, 1), order=order, mode="nearest", grid_mode=True).astype(np.float32)


def resample_image(image: torch.Tensor, matrices: Matrices) -> torch.Tensor:
    """:func:`apply_matrices`, kept within the range of the values that went in, as scikit-image's resize does."""
    if all(matrix is None for matrix in matrices):
        return image
    low, high = float(image.min()), float(image.max())
    return apply_matrices(image, matrices).clamp_(low, high)
