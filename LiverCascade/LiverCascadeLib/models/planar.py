"""2D networks of torchvision and segmentation-models-pytorch, without pretrained weights: nothing is fetched."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from .networks import load_package

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

# Encoders that a manifest may name; the packages know more, some of which are fetched from elsewhere.
ENCODERS = ("resnet18", "resnet34", "resnet50", "mobilenet_v2", "efficientnet-b0")
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")


def _known(name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise ValueError(f"the encoder {name!r} is not known; known are {', '.join(known)}")
    return name


@cache
def _fcn() -> type[torch.nn.Module]:
    import torch

    models = load_package("torchvision.models", "FCN")
    segmentation = load_package("torchvision.models.segmentation.fcn", "FCN")

    class FCN(torch.nn.Module):
        """Fully convolutional network of torchvision (Long et al., CVPR 2015) on a ResNet.

        Args:
            in_channels, out_channels: of the network.
            backbone: one of :data:`BACKBONES`; from resnet50 on its last two levels are dilated, so that the coarsest
                features have an eighth of the resolution instead of a 32nd.
        """

        def __init__(self, in_channels: int, out_channels: int, backbone: str = "resnet50"):
            super().__init__()
            deep = _known(backbone, BACKBONES) in ("resnet50", "resnet101")
            dilation = {"replace_stride_with_dilation": [False, True, True]} if deep else {}
            encoder = models.get_model(backbone, weights=None, **dilation)
            encoder.conv1 = torch.nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
            # All but what makes a classifier of it: pooling and the last layer.
            self.backbone = torch.nn.Sequential(*list(encoder.children())[:-2])
            self.classifier = segmentation.FCNHead(encoder.fc.in_features, out_channels)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            coarse = self.classifier(self.backbone(image))
            return torch.nn.functional.interpolate(coarse, image.shape[2:], mode="bilinear", align_corners=False)

    FCN.__qualname__ = "FCN"
    return FCN


@cache
def _deeplab() -> type[torch.nn.Module]:
    import torch

    library = load_package("segmentation_models_pytorch", "DeepLabV3Plus")

    class DeepLabV3Plus(torch.nn.Module):
        """DeepLabv3+ of segmentation-models-pytorch (Chen et al., ECCV 2018).

        Args:
            in_channels, out_channels: of the network.
            encoder: one of :data:`ENCODERS`.
            decoder_channels: features of the decoder.
            atrous_rates: of the three dilated convolutions at a 16th of the resolution.
            dropout: in the pyramid.
        """

        def __init__(
            self,
            in_channels: int,
            out_channels: int,
            encoder: str = "resnet34",
            decoder_channels: int = 256,
            atrous_rates: Sequence[int] = (12, 24, 36),
            dropout: float = 0.1,
        ):
            super().__init__()
            self.network = library.DeepLabV3Plus(
                _known(encoder, ENCODERS),
                encoder_weights=None,
                decoder_channels=decoder_channels,
                decoder_atrous_rates=tuple(atrous_rates),
                decoder_aspp_dropout=dropout,
                in_channels=in_channels,
                classes=out_channels,
            )

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.network(image)

    DeepLabV3Plus.__qualname__ = "DeepLabV3Plus"
    return DeepLabV3Plus


@cache
def _encoder_unet() -> type[torch.nn.Module]:
    import torch

    library = load_package("segmentation_models_pytorch", "EncoderUNet")

    class EncoderUNet(torch.nn.Module):
        """U-Net of segmentation-models-pytorch on the encoder of a classifier.

        Args:
            in_channels, out_channels: of the network.
            encoder: one of :data:`ENCODERS`.
            decoder_channels: features of the decoder's levels, coarsest first.
        """

        def __init__(
            self,
            in_channels: int,
            out_channels: int,
            encoder: str = "resnet34",
            decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        ):
            super().__init__()
            self.network = library.Unet(
                _known(encoder, ENCODERS),
                encoder_weights=None,
                encoder_depth=len(decoder_channels),
                decoder_channels=tuple(decoder_channels),
                in_channels=in_channels,
                classes=out_channels,
            )

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.network(image)

    EncoderUNet.__qualname__ = "EncoderUNet"
    return EncoderUNet


_MAKERS = {"FCN": _fcn, "DeepLabV3Plus": _deeplab, "EncoderUNet": _encoder_unet}


def __getattr__(name: str) -> type:
    """A class is made when it is first asked for, so that importing this file imports neither package."""
    if name in _MAKERS:
        return _MAKERS[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
