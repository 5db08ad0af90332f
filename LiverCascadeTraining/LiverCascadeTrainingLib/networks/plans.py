"""Kernels, strides and features of a U-Net by rule, from the voxel spacing and the patch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Axes whose spacing is not yet twice the finest are treated alike.
ISOTROPIC_BELOW = 2.0


@dataclass(frozen=True)
class Plan:
    """A U-Net's levels, finest first; axes in the order of arrays: (k, j, i), or (j, i).

    Attributes:
        kernels: of the convolutions of each level.
        strides: by which each level is coarser than the one before; all ones for the first.
        features: channels of each level.
    """

    kernels: list[list[int]]
    strides: list[list[int]]
    features: list[int]

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.strides)


def plan_levels(
    spacing: Sequence[float],
    shape: Sequence[int],
    first_features: int = 32,
    most_features: int = 320,
    smallest_map: int = 4,
    most_levels: int = 7,
) -> Plan:
    """Plans the levels of a U-Net.

    The rule is nnU-Net's (Isensee et al., Nature Methods 2021, supplement): an axis is halved as long as at least
    ``smallest_map`` voxels remain and its spacing is below twice the finest of the axes that can still be halved, so
    that thick slices wait until the pixels have grown to their size; a kernel spans an axis from the level on at which
    its spacing is below twice the finest.

    Args:
        spacing: mm, along (k, j, i) or (j, i).
        shape: voxels of a patch, in the same order.
        first_features: channels of the first level; doubled at each further one.
        most_features: bound of the channels.
        smallest_map: voxels along an axis that are not halved any more.
        most_levels: bound of the levels.
    """
    spacing, shape = list(map(float, spacing)), list(map(int, shape))
    axes = range(len(shape))
    kernel = [1] * len(shape)
    kernels, strides = [], []
    stride = [1] * len(shape)
    while True:
        kernel = [3 if kernel[a] == 3 or spacing[a] < ISOTROPIC_BELOW * min(spacing) else 1 for a in axes]
        kernels.append(kernel)
        strides.append(stride)
        large = [a for a in axes if shape[a] >= 2 * smallest_map]
        finest = min((spacing[a] for a in large), default=0.0)
        halved = [a for a in large if spacing[a] < ISOTROPIC_BELOW * finest]
        if not halved or len(strides) == most_levels:
            break
        stride = [2 if a in halved else 1 for a in axes]
        shape = [n // s for n, s in zip(shape, stride, strict=True)]
        spacing = [mm * s for mm, s in zip(spacing, stride, strict=True)]
    features = [min(first_features * 2**n, most_features) for n in range(len(strides))]
    return Plan(kernels, strides, features)
