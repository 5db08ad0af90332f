"""Convolutions over fewer voxels than their kernel has: they learn in float32 on the CPU.

oneDNN's kernels for bfloat16 (3.12, with PyTorch 2.13 on a CPU with AVX-512 or AMX) read memory that nobody wrote when
they compute the gradient of a weight over such an input: two slices under a kernel of three. The gradient is wrong
then, now and then infinite, and some shapes make them write past their own memory. Such inputs are small, so that
float32 costs nothing.
"""

from __future__ import annotations

import torch
from LiverCascadeLib.models.classes import swap_class
from torch import nn


class Conv3dOfThin(nn.Conv3d):
    """:class:`torch.nn.Conv3d` that leaves autocast on the CPU where its input is thinner than its kernel."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolved [batch, channels, k, j, i], or without the batch."""
        extent = ((size - 1) * step + 1 for size, step in zip(self.kernel_size, self.dilation, strict=True))
        thin = any(have < reach for have, reach in zip(input.shape[-3:], extent, strict=True))
        if input.device.type != "cpu" or not thin:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))


def float32_where_thin(network: nn.Module) -> nn.Module:
    """Makes every 3D convolution of a network a :class:`Conv3dOfThin`, with its weights.

    Returns:
        the same network.
    """
    return swap_class(network, nn.Conv3d, Conv3dOfThin)
