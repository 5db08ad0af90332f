"""The networks of nnU-Net v2: plain and residual-encoder U-Nets, with the parameter names of its checkpoints.

Isensee et al., nnU-Net (Nature Methods 18, 2021) and nnU-Net Revisited (MICCAI 2024). Arguments are plain JSON values.
Only the decoder's last output exists: the others serve deep supervision in training and are never asked at inference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

Kernel = Sequence[int]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = ("instance", "batch")
ACTIVATIONS = ("leaky_relu", "relu")


class Layers:
    """Makes the layers that all blocks of one network share.

    Args:
        dimensions: 2 or 3.
        conv_bias: convolutions have a bias.
        norm: 'instance' or 'batch'; always with scale and shift.
        eps: of the norm.
        activation: 'leaky_relu' with a slope of 0.01, or 'relu'.
    """

    def __init__(self, dimensions: int, conv_bias: bool, norm: str, eps: float, activation: str):
        if norm not in NORMS:
            raise ValueError(f"The norm is {norm!r}, expected one of {', '.join(NORMS)}.")
        if activation not in ACTIVATIONS:
            raise ValueError(f"The activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}.")
        self._index, self._bias, self._norm, self._eps, self._activation = (
            dimensions - 1,
            conv_bias,
            norm,
            eps,
            activation,
        )
        self.ones = (1,) * dimensions

    def convolution(self, inputs: int, outputs: int, kernel: Kernel, stride: Kernel, bias: bool) -> nn.Module:
        """A convolution whose output has the size of its input, over the stride."""
        padding = [(size - 1) // 2 for size in kernel]
        return _CONVOLUTIONS[self._index](inputs, outputs, tuple(kernel), tuple(stride), padding, bias=bias)

    def upsampling(self, inputs: int, outputs: int, stride: Kernel) -> nn.Module:
        """A transposed convolution that undoes ``stride``."""
        return _TRANSPOSED[self._index](inputs, outputs, tuple(stride), tuple(stride), bias=self._bias)

    def pool(self, stride: Kernel) -> nn.Module:
        """The mean over ``stride`` voxels."""
        return _POOLS[self._index](tuple(stride), tuple(stride))

    def norm(self, channels: int) -> nn.Module:
        """The norm behind a convolution."""
        kinds = _INSTANCE_NORMS if self._norm == "instance" else _BATCH_NORMS
        return kinds[self._index](channels, eps=self._eps, affine=True)

    def activation(self) -> nn.Module:
        """The activation behind a norm."""
        return nn.LeakyReLU(0.01, inplace=True) if self._activation == "leaky_relu" else nn.ReLU(inplace=True)

    def block(
        self, inputs: int, outputs: int, kernel: Kernel, stride: Kernel, bias: bool | None = None, active: bool = True
    ) -> ConvBlock:
        """Convolution, norm and, where ``active``, activation; ``bias`` None takes the network's."""
        convolution = self.convolution(inputs, outputs, kernel, stride, self._bias if bias is None else bias)
        return ConvBlock(convolution, self.norm(outputs), self.activation() if active else None)


class ConvBlock(nn.Module):
    """Convolution, norm, activation."""

    def __init__(self, conv: nn.Module, norm: nn.Module, nonlin: nn.Module | None):
        super().__init__()
        self.conv, self.norm, self.nonlin = conv, norm, nonlin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, …] in and out."""
        x = self.norm(self.conv(x))
        return x if self.nonlin is None else self.nonlin(x)


class ConvStack(nn.Module):
    """Several convolution blocks, of which the first may have a stride."""

    def __init__(self, layers: Layers, count: int, inputs: int, outputs: int, kernel: Kernel, stride: Kernel):
        super().__init__()
        first = layers.block(inputs, outputs, kernel, stride)
        more = [layers.block(outputs, outputs, kernel, layers.ones) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, …] in and out."""
        return self.convs(x)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut that averages where there is a stride (ResNet-D, He et al., CVPR 2019)."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, kernel: Kernel, stride: Kernel):
        super().__init__()
        self.conv1 = layers.block(inputs, outputs, kernel, stride)
        self.conv2 = layers.block(outputs, outputs, kernel, layers.ones, active=False)
        self.nonlin2 = layers.activation()
        shortcut: list[nn.Module] = [layers.pool(stride)] if any(step != 1 for step in stride) else []
        if inputs != outputs:
            shortcut.append(layers.block(inputs, outputs, layers.ones, layers.ones, bias=False, active=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, …] in and out."""
        return self.nonlin2(self.conv2(self.conv1(x)).add_(self.skip(x)))


class ResidualStack(nn.Module):
    """Several residual blocks, of which the first may have a stride."""

    def __init__(self, layers: Layers, count: int, inputs: int, outputs: int, kernel: Kernel, stride: Kernel):
        super().__init__()
        first = ResidualBlock(layers, inputs, outputs, kernel, stride)
        more = [ResidualBlock(layers, outputs, outputs, kernel, layers.ones) for _ in range(count - 1)]
        self.blocks = nn.Sequential(first, *more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, …] in and out."""
        return self.blocks(x)


class Encoder(nn.Module):
    """Stages of falling resolution, behind a stem where there is one."""

    def __init__(self, stages: Sequence[nn.Module], stem: nn.Module | None = None):
        super().__init__()
        if stem is not None:
            self.stem = stem
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The output of every stage, the finest first."""
        if hasattr(self, "stem"):
            x = self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    """From the coarsest features back to the finest, and to one value per label."""

    def __init__(
        self,
        layers: Layers,
        features: Sequence[int],
        kernels: Sequence[Kernel],
        strides: Sequence[Kernel],
        convolutions: Sequence[int],
        classes: int,
    ):
        super().__init__()
        levels = range(len(features) - 2, -1, -1)
        self.transpconvs = nn.ModuleList(
            layers.upsampling(features[level + 1], features[level], strides[level + 1]) for level in levels
        )
        self.stages = nn.ModuleList(
            ConvStack(layers, count, 2 * features[level], features[level], kernels[level], layers.ones)
            for level, count in zip(levels, convolutions, strict=True)
        )
        last = str(len(features) - 2)
        self.seg_layers = nn.ModuleDict(
            {last: layers.convolution(features[0], classes, layers.ones, layers.ones, True)}
        )

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        """Logits of the finest level; ``skips`` are emptied on the way, so that their memory is free early."""
        x = skips.pop()
        for upsample, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat((upsample(x), skips.pop()), dim=1))
        (head,) = self.seg_layers.values()
        return head(x)


class _UNet(nn.Module):
    """What both kinds share; see their arguments."""

    _stack: type[nn.Module]
    _with_stem: bool

    def _build(
        self,
        layers: Layers,
        input_channels: int,
        num_classes: int,
        features: Sequence[int],
        kernels: Sequence[Kernel],
        strides: Sequence[Kernel],
        encoder_counts: Sequence[int],
        decoder_counts: Sequence[int],
    ) -> None:
        counts = (len(kernels), len(strides), len(encoder_counts), len(decoder_counts) + 1)
        if any(count != len(features) for count in counts):
            raise ValueError(f"There are {len(features)} stages by their features, and {counts} by the other lists.")
        stem = ConvStack(layers, 1, input_channels, features[0], kernels[0], layers.ones) if self._with_stem else None
        inputs = [features[0] if self._with_stem else input_channels, *features[:-1]]
        stages = [
            self._stack(layers, *arguments)
            for arguments in zip(encoder_counts, inputs, features, kernels, strides, strict=True)
        ]
        self.encoder = Encoder(stages if self._with_stem else [nn.Sequential(stage) for stage in stages], stem)
        self.decoder = Decoder(layers, features, kernels, strides, decoder_counts, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [batch, classes, …] of images [batch, channels, …]."""
        return self.decoder(self.encoder(x))


class PlainConvUNet(_UNet):
    """nnU-Net's plain U-Net.

    Args:
        input_channels: of the image.
        num_classes: of the output.
        features_per_stage: channels of every stage, the finest first.
        kernel_sizes: per stage, along the array's axes; their length says how many dimensions there are.
        strides: per stage; the first is all ones.
        n_conv_per_stage: convolutions of every stage of the encoder.
        n_conv_per_stage_decoder: of every stage of the decoder, the coarsest first: one less.
        conv_bias, norm, norm_eps, activation: see :class:`Layers`.

    Raises:
        ValueError: lists of different lengths, an unknown norm or activation.
    """

    _stack, _with_stem = ConvStack, False

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Kernel],
        strides: Sequence[Kernel],
        n_conv_per_stage: Sequence[int],
        n_conv_per_stage_decoder: Sequence[int],
        conv_bias: bool = True,
        norm: str = "instance",
        norm_eps: float = 1e-5,
        activation: str = "leaky_relu",
    ):
        super().__init__()
        layers = Layers(len(kernel_sizes[0]), conv_bias, norm, norm_eps, activation)
        self._build(
            layers,
            input_channels,
            num_classes,
            features_per_stage,
            kernel_sizes,
            strides,
            n_conv_per_stage,
            n_conv_per_stage_decoder,
        )


class ResidualEncoderUNet(_UNet):
    """nnU-Net's U-Net with a residual encoder.

    Args:
        n_blocks_per_stage: residual blocks of every stage of the encoder.
        others: as for :class:`PlainConvUNet`.

    Raises:
        ValueError: lists of different lengths, an unknown norm or activation.
    """

    _stack, _with_stem = ResidualStack, True

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Kernel],
        strides: Sequence[Kernel],
        n_blocks_per_stage: Sequence[int],
        n_conv_per_stage_decoder: Sequence[int],
        conv_bias: bool = True,
        norm: str = "instance",
        norm_eps: float = 1e-5,
        activation: str = "leaky_relu",
    ):
        super().__init__()
        layers = Layers(len(kernel_sizes[0]), conv_bias, norm, norm_eps, activation)
        self._build(
            layers,
            input_channels,
            num_classes,
            features_per_stage,
            kernel_sizes,
            strides,
            n_blocks_per_stage,
            n_conv_per_stage_decoder,
        )
