"""What lies around the scanned circle, where a program filled it with something brighter than any air.

The corners of slices are not scanned. Mostly they hold air or a value far below it; some exports leave the largest
number there that fits, and a filling below −32768 comes back as a large one when it is pressed into 16 bits. Networks
would take it for metal beside the body.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from .sampling import upright_view
from .volume import AIR_HU, Volume

# No air and no tissue but dense bone, which does not lie in the corners of slices, without noise.
BRIGHT_HU = 1000
# Of the voxels along the four edges of the volume that run from foot to head.
LEAST_SHARE = 0.9


def bright_fill(upright: np.ndarray) -> np.ndarray | None:
    """Where a volume is filled with one bright value, from the corners of its slices on.

    Args:
        upright: HU, [S, A, R], see :func:`.sampling.upright_view`.

    Returns:
        bool [S, A, R]; None where there is no such filling, or nothing else.
    """
    corners = upright[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    values, counts = np.unique(corners, return_counts=True)
    value = values[np.argmax(counts)]
    if value < BRIGHT_HU or counts.max() < LEAST_SHARE * corners.size:
        return None
    filled = np.zeros(upright.shape, bool)
    for plane, where in zip(upright, filled, strict=True):
        numbers, _ = ndimage.label(plane == value)
        at_corners = numbers[[0, 0, -1, -1], [0, -1, 0, -1]]
        where[...] = np.isin(numbers, at_corners[at_corners > 0])
    return None if filled.all() else filled


def with_air_around(volume: Volume) -> Volume:
    """``volume`` with air in the place of a bright filling; itself where there is none."""
    upright, _ = upright_view(volume.array, volume.grid)
    filled = bright_fill(upright)
    if filled is None:
        return volume
    array = volume.array.copy()
    view, _ = upright_view(array, volume.grid)
    view[filled] = AIR_HU
    return dataclasses.replace(volume, array=array)
