"""A plain 2D or 3D U-Net whose decoder interpolates instead of learning to."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


@cache
def _trilinear_unet() -> type[torch.nn.Module]:
    import torch
    from monai.networks.blocks import Convolution
    from monai.networks.nets.basic_unet import Down, TwoConv, UpCat

    class TrilinearUNet(torch.nn.Module):
        """U-Net of MONAI's blocks: max-pooling down, interpolation up, two convolutions at each level.

        Çiçek et al., 3D U-Net, MICCAI 2016, with instance norm and an interpolating decoder, which leaves no
        checkerboard. MONAI's BasicUNet has the same blocks but always five levels.

        Args:
            spatial_dims: 2 or 3.
            in_channels, out_channels: of the network.
            channels: features at each level, finest first; each further level halves the resolution.
            dropout: share of features that are dropped in training.
        """

        def __init__(
            self,
            spatial_dims: int,
            in_channels: int,
            out_channels: int,
            channels: Sequence[int] = (32, 64, 128, 256),
            dropout: float = 0.0,
        ):
            super().__init__()
            if len(channels) < 2:
                raise ValueError(f"channels is {list(channels)}: a U-Net has at least two levels")
            act = ("LeakyReLU", {"negative_slope": 0.1, "inplace": True})
            norm = ("instance", {"affine": True})
            block = {"act": act, "norm": norm, "bias": True, "dropout": dropout}
            pairs = list(pairwise(channels))
            self.first = TwoConv(spatial_dims, in_channels, channels[0], **block)
            self.down = torch.nn.ModuleList([Down(spatial_dims, fine, coarse, **block) for fine, coarse in pairs])
            self.up = torch.nn.ModuleList(
                [
                    UpCat(
                        spatial_dims, coarse, fine, fine, **block, upsample="nontrainable", align_corners=False,
                        is_pad=False,
                    )
                    for fine, coarse in reversed(pairs)
                ]
            )  # fmt: skip
            self.last = Convolution(spatial_dims, channels[0], out_channels, kernel_size=1, conv_only=True)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            features = [self.first(image)]
            for down in self.down:
                features.append(down(features[-1]))
            coarse = features.pop()
            for up in self.up:
                coarse = up(coarse, features.pop())
            return self.last(coarse)

    TrilinearUNet.__qualname__ = "TrilinearUNet"
    return TrilinearUNet


def __getattr__(name: str) -> type:
    """The class is made when it is first asked for, so that importing this file does not import PyTorch."""
    if name == "TrilinearUNet":
        return _trilinear_unet()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
