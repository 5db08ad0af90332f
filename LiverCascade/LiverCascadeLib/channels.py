"""What a network is shown: the channels of its input, made in one place for training and for use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

INPUTS = ("ct", "liver_probability", "liver_contrast")

# HU around the liver's own density that 'liver_contrast' spreads over 0…1. Lesions differ by 10 to 60 HU from the
# liver, which is a tenth of the usual window and drowns in it.
CONTRAST_HU = 150.0

# The density that is assumed where no liver is in sight: between an unenhanced and a portal-venous one.
USUAL_LIVER_HU = 85.0
_LEAST_VOXELS = 200


def windowed(ct: torch.Tensor, window_hu: tuple[float, float]) -> torch.Tensor:
    """HU scaled to 0…1 and clipped there, so that air is 0."""
    low, high = window_hu
    return ((ct - low) / (high - low)).clamp_(0, 1)


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


def liver_contrast(ct: torch.Tensor, density_hu: float) -> torch.Tensor:
    """How much brighter or darker than the liver a voxel is: the liver's density is 0.5, air is 0."""
    return windowed(ct, (density_hu - CONTRAST_HU / 2, density_hu + CONTRAST_HU / 2))


def network_channels(
    inputs: Sequence[str], window_hu: tuple[float, float], ct: torch.Tensor, prior: torch.Tensor | None
) -> torch.Tensor:
    """The network's input channels.

    Args:
        inputs: names of the channels, of :data:`INPUTS`.
        window_hu: of the channel 'ct'.
        ct: HU, float32 [k, j, i].
        prior: located liver probability, float32 [k, j, i]; None where nothing has located the liver.

    Returns:
        float32 [channels, k, j, i] in 0…1.
    """
    import torch

    prior = torch.zeros_like(ct) if prior is None else prior
    made = {
        "ct": lambda: windowed(ct, window_hu),
        "liver_probability": lambda: prior,
        "liver_contrast": lambda: liver_contrast(ct, liver_density(ct, prior > 0.5)),
    }
    return torch.stack([made[name]() for name in inputs])
