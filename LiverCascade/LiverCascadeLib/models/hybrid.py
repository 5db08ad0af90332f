"""A hybrid: convolutions see detail, a transformer at the coarsest level sees everything at once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


@cache
def _trans_unet() -> type[torch.nn.Module]:
    import torch
    from monai.networks.blocks import Convolution
    from monai.networks.blocks.dynunet_block import UnetResBlock
    from monai.networks.nets.basic_unet import UpCat

    class TransUNet(torch.nn.Module):
        """Residual convolutional encoder, transformer bottleneck, interpolating U-Net decoder.

        After Chen et al., TransUNet, 2021 (arXiv:2102.04306): the tokens are the voxels of the coarsest feature map,
        with learned positions, and the decoder upsamples in cascade with skips. In 2D and in 3D, with instance norms
        and without a pretrained backbone.

        Args:
            spatial_dims: 2 or 3.
            in_channels, out_channels: of the network.
            img_size: voxels of a training patch along (k, j, i), or (j, i); multiples of 2 to the number of levels
                less one. For other sizes the learned positions are interpolated.
            channels: features of the convolutional levels, finest first.
            hidden_size, num_heads, mlp_dim, num_layers: of the transformer.
            dropout: inside the transformer.
        """

        def __init__(
            self,
            spatial_dims: int,
            in_channels: int,
            out_channels: int,
            img_size: Sequence[int],
            channels: Sequence[int] = (32, 64, 128, 256),
            hidden_size: int = 384,
            num_heads: int = 6,
            mlp_dim: int = 1536,
            num_layers: int = 6,
            dropout: float = 0.0,
        ):
            super().__init__()
            factor = 2 ** (len(channels) - 1)
            if len(img_size) != spatial_dims or any(n % factor for n in img_size):
                raise ValueError(f"img_size is {list(img_size)}, expected {spatial_dims} multiples of {factor}")
            norm = ("instance", {"affine": True})
            act = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})
            widths = [in_channels, *channels]
            self.encoder = torch.nn.ModuleList(
                [
                    UnetResBlock(spatial_dims, widths[n], widths[n + 1], 3, 1 if n == 0 else 2, norm, act)
                    for n in range(len(channels))
                ]
            )
            self.embed = Convolution(spatial_dims, channels[-1], hidden_size, kernel_size=1, conv_only=True)
            grid = [n // factor for n in img_size]
            self.position = torch.nn.Parameter(torch.empty(1, hidden_size, *grid))
            torch.nn.init.trunc_normal_(self.position, std=0.02)
            self.transformer = torch.nn.ModuleList(
                [
                    torch.nn.TransformerEncoderLayer(
                        hidden_size, num_heads, mlp_dim, dropout, "gelu", batch_first=True, norm_first=True
                    )
                    for _ in range(num_layers)
                ]
            )
            self.norm = torch.nn.LayerNorm(hidden_size)
            self.project = Convolution(spatial_dims, hidden_size, channels[-1], kernel_size=1, norm=norm, act=act)
            self.decoder = torch.nn.ModuleList(
                [
                    UpCat(
                        spatial_dims, coarse, fine, fine, act=act, norm=norm, bias=True, upsample="nontrainable",
                        align_corners=False, is_pad=False,
                    )
                    for fine, coarse in zip(channels[-2::-1], channels[:0:-1], strict=True)
                ]
            )  # fmt: skip
            self.last = Convolution(spatial_dims, channels[0], out_channels, kernel_size=1, conv_only=True)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            features = []
            for block in self.encoder:
                image = block(image)
                features.append(image)
            coarse = self._attend(features.pop())
            for up in self.decoder:
                coarse = up(coarse, features.pop())
            return self.last(coarse)

        def _attend(self, features: torch.Tensor) -> torch.Tensor:
            """The transformer over all voxels of the coarsest level [N, C, …]."""
            embedded = self.embed(features)
            grid = embedded.shape[2:]
            position = self.position
            if position.shape[2:] != grid:
                mode = "trilinear" if len(grid) == 3 else "bilinear"
                position = torch.nn.functional.interpolate(position, size=grid, mode=mode, align_corners=False)
            tokens = (embedded + position).flatten(2).transpose(1, 2)
            for block in self.transformer:
                tokens = block(tokens)
            tokens = self.norm(tokens).transpose(1, 2)
            return self.project(tokens.reshape(len(tokens), -1, *grid))

    TransUNet.__qualname__ = "TransUNet"
    return TransUNet


def __getattr__(name: str) -> type:
    """The class is made when it is first asked for, so that importing this file does not import PyTorch."""
    if name == "TransUNet":
        return _trans_unet()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
