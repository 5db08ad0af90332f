"""Couinaud's segments from a network's labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from ..errors import InputError, ModelError
from ..geometry import Box, Grid
from ..result import Result
from .couinaud import BY_NAME, BY_VALUE, CouinaudMap

PREFIX = "couinaud_"
# A piece of a segment that is smaller than this part of its largest piece is taken for a mistake.
LEAST_PIECE = 0.1


def couinaud_channels(labels: Mapping[str, int]) -> dict[int, int]:
    """Segment values by channel numbers, of a manifest's ``labels``: names such as ``couinaud_VIII``.

    Returns:
        an empty dictionary where a model does not know the segments.

    Raises:
        ModelError: a name that begins like a segment's is none.
    """
    found = {}
    for name, channel in labels.items():
        if name.startswith(PREFIX):
            segment = BY_NAME.get(name.removeprefix(PREFIX))
            if segment is None:
                known = ", ".join(PREFIX + roman for roman in BY_NAME)
                raise ModelError(f"The model's label '{name}' is no segment of Couinaud. Known are {known}.")
            found[channel] = segment.value
    return found


def couinaud_of(result: Result) -> CouinaudMap | None:
    """The segments of a run whose models draw them; None where they do not, or drew none in this liver."""
    structures, grid = result.structures, result.volume.grid
    if structures is None or structures.couinaud is None or not structures.couinaud.any():
        return None
    channels = structures.on(structures.couinaud, grid)
    if not channels[result.labels != 0].any():
        return None
    return couinaud_from_network(channels, {n: n for n in BY_VALUE}, result.labels, grid, structures.couinaud_model)


def couinaud_from_network(
    channels: np.ndarray, values: Mapping[int, int], liver: np.ndarray, grid: Grid, model: str
) -> CouinaudMap:
    """Segments of a liver from the strongest channel of a network in each voxel.

    Small islands are given up, nothing outside the liver is kept, and liver without a segment takes the nearest one.

    Args:
        channels: [k, j, i], channel numbers.
        values: of segments by channels, see :func:`couinaud_channels`.
        liver: [k, j, i]; not zero where there is liver, lesions included.
        grid: of both.
        model: title or id, for the reader.

    Raises:
        InputError: there is no liver, or the network drew no segment in it.
        ValueError: an array does not lie on the grid.
    """
    if channels.shape != grid.shape or liver.shape != grid.shape:
        raise ValueError(f"Labels of shape {channels.shape} and a liver of shape {liver.shape} on a {grid}.")
    box = Box.around(liver != 0)
    if box is None:
        raise InputError("There is no liver to divide into segments. Segment the liver first.")
    inside = liver[box.slices] != 0
    drawn = np.zeros(inside.shape, np.uint8)
    for channel, value in values.items():
        drawn[_without_islands(inside & (channels[box.slices] == channel))] = value
    missing = inside & (drawn == 0)
    if missing.sum() == inside.sum():
        raise InputError(f"The model '{model}' drew no segment in this liver. Use landmarks instead.")
    if missing.any():
        spacing = grid.spacing[::-1]
        nearest = ndimage.distance_transform_edt(
            drawn == 0, sampling=spacing, return_distances=False, return_indices=True
        )
        drawn[missing] = drawn[tuple(nearest[:, missing])]
    labels = np.zeros(grid.shape, np.uint8)
    labels[box.slices] = drawn
    filled = float(missing.sum() / inside.sum())
    texts = ["The borders are a network's; they were not drawn along vessels by a reader."]
    if filled > 0.005:
        texts.append(f"{filled:.0%} of the liver had no segment and took the nearest one.")
    return CouinaudMap(labels, "network", f"Segments drawn by the network '{model}'.", tuple(texts))


def _without_islands(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= LEAST_PIECE * sizes.max())[parts]
