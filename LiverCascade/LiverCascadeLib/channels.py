"""What a network is shown: the channels of its input, made in one place for training and for use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

INPUTS = ("ct", "liver_probability", "liver_contrast")

# HU around the liver's own density that 'liver_contrast' spreads over 0…1. Lesions differ by 10 to 60 HU from the
# liver, which is a tenth of the usual window and drowns in it.
CONTRAST_HU = 120.0

# Standard deviation in mm of the Gaussian that takes the noise out of it: a lesion of 1 cm keeps most of its contrast,
# and noise that is a few voxels wide loses half and more.
CONTRAST_BLUR_MM = 2.0

# The density that is assumed where no liver is in sight: between an unenhanced and a portal-venous one.
USUAL_LIVER_HU = 85.0
_LEAST_VOXELS = 200


def windowed(ct: torch.Tensor, window_hu: tuple[float, float]) -> torch.Tensor:
    """HU scaled to 0…1 and clipped there, so that air is 0."""
    low, high = window_hu
    return ((ct - low) / (high - low)).clamp_(0, 1)


def blur(volume: torch.Tensor, sigma: Sequence[float]) -> torch.Tensor:
    """Gaussian blur of [k, j, i] by ``sigma`` voxels along each axis; 0 leaves an axis alone."""
    import torch

    result = volume
    for axis, s in enumerate(sigma):
        if s < 0.2:
            continue
        reach = max(1, int(np.ceil(2.5 * s)))
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / s) ** 2)
        pad = [0, 0, 0, 0, 0, 0]
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = reach
        padded = torch.nn.functional.pad(result[None, None], pad, mode="replicate")[0, 0]
        # A handful of shifted sums is faster than a one-channel convolution.
        size = result.shape[axis]
        result = padded.narrow(axis, 0, size) * float(taps[0] / taps.sum())
        for n in range(1, len(taps)):
            result.add_(padded.narrow(axis, n, size), alpha=float(taps[n] / taps.sum()))
    return result


def liver_density(ct: torch.Tensor, liver: torch.Tensor) -> float:
    """The liver's own density in HU: the median over where it is, which small lesions and vessels do not move.

    Args:
        ct: HU, float32 [k, j, i].
        liver: where the liver is, bool [k, j, i].

    Returns:
        :data:`USUAL_LIVER_HU` where hardly any liver is in sight.
    """
    values = ct[liver]
    return float(values.median()) if len(values) >= _LEAST_VOXELS else USUAL_LIVER_HU


def liver_contrast(ct: torch.Tensor, density_hu: float, spacing_mm: Sequence[float]) -> torch.Tensor:
    """How much brighter or darker than the liver it is at a voxel, without most of the noise.

    Clipped before it is smoothed, so that fat and air beside the liver do not darken more of its rim than must be.

    Args:
        ct: HU, float32 [k, j, i].
        density_hu: of the liver, which becomes 0.5; air is 0.
        spacing_mm: of the voxels, along (k, j, i).

    Returns:
        float32 [k, j, i] in 0…1.
    """
    narrow = windowed(ct, (density_hu - CONTRAST_HU / 2, density_hu + CONTRAST_HU / 2))
    return blur(narrow, [CONTRAST_BLUR_MM / s for s in spacing_mm])


def network_channels(
    inputs: Sequence[str],
    window_hu: tuple[float, float],
    ct: torch.Tensor,
    prior: torch.Tensor | None,
    spacing_mm: Sequence[float],
) -> torch.Tensor:
    """The network's input channels.

    Args:
        inputs: names of the channels, of :data:`INPUTS`.
        window_hu: of the channel 'ct'.
        ct: HU, float32 [k, j, i].
        prior: located liver probability, float32 [k, j, i]; None where nothing has located the liver.
        spacing_mm: of the voxels, along (k, j, i).

    Returns:
        float32 [channels, k, j, i] in 0…1.
    """
    import torch

    prior = torch.zeros_like(ct) if prior is None else prior
    made = {
        "ct": lambda: windowed(ct, window_hu),
        "liver_probability": lambda: prior,
        "liver_contrast": lambda: liver_contrast(ct, liver_density(ct, prior > 0.5), spacing_mm),
    }
    return torch.stack([made[name]() for name in inputs])
