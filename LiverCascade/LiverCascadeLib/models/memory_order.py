"""In which order a network keeps voxels and channels in memory, and instance norms that leave that order alone.

oneDNN's 3D convolutions are fastest where the channels of a voxel lie together. PyTorch's instance norm wants each
channel for itself: it copies what it gets, and the convolution after it copies it back, which costs more than is
gained.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .classes import swap_class


class InstanceNorm3dOfOne(nn.InstanceNorm3d):
    """:class:`torch.nn.InstanceNorm3d`; a single sample on the CPU is normalized as a batch of one.

    That is the same by definition: mean and variance are those of all voxels of a channel, of one sample (Ulyanov et
    al., arXiv:1607.08022) or of the whole batch (Ioffe and Szegedy, arXiv:1502.03167). PyTorch's batch norm takes
    voxels in either order.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalized [batch, channels, k, j, i], or without the batch."""
        if input.device.type != "cpu" or input.ndim != 5 or input.shape[0] != 1 or self.track_running_stats:
            return super().forward(input)
        return functional.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)


def keep_memory_order(network: nn.Module) -> nn.Module:
    """Makes every instance norm of a network an :class:`InstanceNorm3dOfOne`, with its weights.

    Returns:
        the same network.
    """
    return swap_class(network, nn.InstanceNorm3d, InstanceNorm3dOfOne)


def fastest_order(network: nn.Module, device: str) -> torch.memory_format:
    """The order of memory in which a network runs fastest: for its weights and for its input.

    Args:
        network: of :func:`.networks.build_network`.
        device: 'cpu', 'cuda' or 'cuda:N'.
    """
    if device != "cpu":
        return torch.channels_last_3d
    kinds = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.BatchNorm3d)
    norms = [module for module in network.modules() if isinstance(module, kinds)]
    keeping = all(isinstance(norm, InstanceNorm3dOfOne | nn.BatchNorm3d) for norm in norms)
    return torch.channels_last_3d if norms and keeping else torch.contiguous_format
