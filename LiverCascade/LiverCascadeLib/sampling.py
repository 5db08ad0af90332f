"""A thinned-out look at a volume: upright, about 4 mm fine, with the body and its lungs found by thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .geometry import Grid, axis_maps

if TYPE_CHECKING:
    import torch

SAMPLE_MM = 4.0
MOST_VOXELS = 2_500_000
BODY_ABOVE = -300
LUNG = (-950, -600)
# A side cuts the body where it has this much muscle or organ, in cm² of values above 0 HU. Uncut, the sides of six CTs
# had 14 at most; cut through organs, 50 or more.
CUT_THROUGH_CM2 = 20.0


@dataclass(frozen=True)
class Sample:
    """Every n-th voxel of an array, turned so that its axes run along S, A and R.

    Attributes:
        values: [S, A, R], each growing toward the head, the front and the patient's right.
        grid: where the sampled voxels lie, axes along (R, A, S).
    """

    values: np.ndarray
    grid: Grid

    @property
    def voxel_ml(self) -> float:
        """Volume that one sampled voxel stands for, in mL."""
        return self.grid.voxel_volume_mm3 / 1000


def sample(array: np.ndarray, grid: Grid, spacing_mm: float = SAMPLE_MM, most: int = MOST_VOXELS) -> Sample:
    """Takes every n-th voxel of ``array`` [k, j, i] on ``grid``.

    Args:
        array: any type.
        grid: where its voxels lie.
        spacing_mm: wanted distance between the voxels taken; axes that are coarser stay as they are.
        most: where that gives more voxels than this, they are taken further apart.
    """
    view, upright = upright_view(array, grid)
    steps = np.maximum(1, np.floor(spacing_mm / upright.spacing + 1e-6)).astype(int)
    while np.prod(np.ceil(np.array(upright.size) / steps)) > most:
        steps[int(np.argmin(upright.spacing * steps))] += 1
    view = view[tuple(slice(None, None, int(steps[axis])) for axis in (2, 1, 0))]
    matrix = upright.ijk_to_ras.copy()
    matrix[:3, :3] *= steps
    return Sample(np.ascontiguousarray(view), Grid(view.shape[::-1], matrix))


def upright_view(array: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """``array`` [k, j, i] on ``grid`` as [S, A, R], without a copy, and the canonical grid that it then lies on."""
    upright = grid.canonical()
    maps = axis_maps(grid, upright)
    view = array.transpose([2 - maps[axis].source_axis for axis in (2, 1, 0)])
    return view[tuple(slice(None, None, int(np.sign(maps[axis].scale))) for axis in (2, 1, 0))], upright


def cuts_body(side: np.ndarray | torch.Tensor, pixel_cm2: float) -> bool:
    """Whether a side of a volume, HU of its outermost voxels, lies in muscle or organs."""
    return float((side > 0).sum()) * pixel_cm2 >= CUT_THROUGH_CM2


def body_silhouette(values: np.ndarray) -> np.ndarray | None:
    """The body in a sample [S, A, R], lungs and gas included and the table left out; None where there is none."""
    from scipy import ndimage

    # Opening within slices cuts the thin table top off the patient.
    tissue = ndimage.binary_opening(values > BODY_ABOVE, np.ones((1, 3, 3), dtype=bool))
    labels, count = ndimage.label(tissue)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    body = labels == 1 + int(np.argmax(sizes[1:]))
    inside = np.ones_like(body)
    for axis in (1, 2):
        before = np.logical_or.accumulate(body, axis=axis)
        after = np.flip(np.logical_or.accumulate(np.flip(body, axis), axis=axis), axis)
        inside &= before & after
    return inside


def lungs_in(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Voxels with the density of lung within the silhouette ``inside``."""
    return inside & (values > LUNG[0]) & (values < LUNG[1])
