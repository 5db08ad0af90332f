"""Networks by name, with settings that work, in terms of the engine's allow-list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from LiverCascadeLib.models.networks import arguments_of

from ..names import SettingError, check_arguments, check_name
from .heads import check_levels, with_levels
from .plans import plan_levels


@dataclass(frozen=True)
class Request:
    """What a network is wanted for.

    Attributes:
        in_channels, out_channels: of the network.
        shape: voxels of a patch along (k, j, i).
        spacing: mm along (k, j, i).
    """

    in_channels: int
    out_channels: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class Preset:
    """A network with its settings.

    Attributes:
        title: one line for lists.
        architecture: name from the engine's allow-list; of the 2D network where ``planar``.
        settings: makes the architecture's arguments, other than channels, for a request.
        planar: a 2D network that is led through the patch slice by slice.
        context: slices on either side that a planar network sees too.
        multilevel: has a head for each level.
        source: the paper.
    """

    title: str
    architecture: str
    settings: Callable[[Request], dict[str, Any]]
    planar: bool = False
    context: int = 0
    multilevel: bool = False
    source: str = ""


def _planned(request: Request) -> dict[str, Any]:
    """Arguments of DynUNet by nnU-Net's rule, with deep supervision down to the third-coarsest level."""
    plan = plan_levels(request.spacing, request.shape, most_features=512 if len(request.shape) == 2 else 320)
    if plan.levels < 3:
        raise SettingError(
            f"The patch of {' × '.join(map(str, request.shape[::-1]))} voxels is too small for this network: at least "
            "two of its axes must be halved twice with 4 voxels left."
        )
    deep = {"deep_supervision": True, "deep_supr_num": plan.levels - 3} if plan.levels > 3 else {}
    return {
        "spatial_dims": len(request.shape),
        "kernel_size": plan.kernels,
        "strides": plan.strides,
        "upsample_kernel_size": plan.strides[1:],
        "filters": plan.features,
        **deep,
    }


def _levels(channels: Sequence[int], **more: Any) -> Callable[[Request], dict[str, Any]]:
    """Arguments of a U-Net with these channels, halved at each level."""

    def settings(request: Request) -> dict[str, Any]:
        return {"spatial_dims": len(request.shape), "channels": list(channels), **more}

    return settings


def _halved(channels: Sequence[int], **more: Any) -> Callable[[Request], dict[str, Any]]:
    return _levels(channels, strides=[2] * (len(channels) - 1), **more)


def _hybrid(channels: Sequence[int]) -> Callable[[Request], dict[str, Any]]:
    def settings(request: Request) -> dict[str, Any]:
        sizes = {"hidden_size": 384, "num_heads": 6, "mlp_dim": 1536, "num_layers": 6}
        return {**_levels(channels)(request), "img_size": list(request.shape), **sizes}

    return settings


PRESETS: dict[str, Preset] = {
    "unet": Preset(
        "3D U-Net, 32-64-128-256, trilinear decoder", "TrilinearUNet", _levels([32, 64, 128, 256]),
        source="Çiçek et al., MICCAI 2016",
    ),
    "residual-unet": Preset(
        "residual 3D U-Net, two units per level", "UNet", _halved([32, 64, 128, 256], num_res_units=2),
        source="Kerfoot et al., STACOM 2018",
    ),
    "dynunet": Preset(
        "nnU-Net-like U-Net planned from spacing and patch, deep supervision", "DynUNet", _planned,
        source="Isensee et al., Nature Methods 2021",
    ),
    "segresnet": Preset(
        "SegResNet", "SegResNet",
        lambda request: {
            "spatial_dims": 3, "init_filters": 32, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1],
        },
        source="Myronenko, BrainLes 2018",
    ),
    "attention-unet": Preset(
        "Attention U-Net", "AttentionUnet", _halved([32, 64, 128, 256]), source="Oktay et al., MIDL 2018"
    ),
    "unetr": Preset(
        "UNETR", "UNETR",
        lambda request: {
            "img_size": list(request.shape), "feature_size": 16, "hidden_size": 768, "mlp_dim": 3072, "num_heads": 12,
        },
        source="Hatamizadeh et al., WACV 2022",
    ),
    "swin-unetr": Preset(
        "Swin UNETR", "SwinUNETR", lambda request: {"spatial_dims": 3, "feature_size": 48},
        source="Hatamizadeh et al., BrainLes 2021",
    ),
    "transunet": Preset(
        "hybrid of convolutional encoder, transformer and U-Net decoder, 3D", "TransUNet",
        _hybrid([32, 64, 128, 256]), source="after Chen et al., arXiv:2102.04306",
    ),
    "transunet-2d": Preset(
        "hybrid of convolutional encoder, transformer and U-Net decoder, 2D", "TransUNet",
        _hybrid([32, 64, 128, 256, 384]), planar=True, source="after Chen et al., arXiv:2102.04306",
    ),
    "unet-2d": Preset(
        "2D U-Net, 32-64-128-256-512, bilinear decoder", "TrilinearUNet", _levels([32, 64, 128, 256, 512]),
        planar=True, source="Ronneberger et al., MICCAI 2015",
    ),
    "unet-2.5d": Preset(
        "2D U-Net that sees five slices", "TrilinearUNet", _levels([32, 64, 128, 256, 512]), planar=True, context=2,
        source="Ronneberger et al., MICCAI 2015",
    ),
    "unet-resnet34-2.5d": Preset(
        "2D U-Net on a ResNet-34 that sees three slices", "EncoderUNet", lambda request: {"encoder": "resnet34"},
        planar=True, context=1, source="segmentation-models-pytorch",
    ),
    "fcn": Preset(
        "fully convolutional network on a dilated ResNet-50, 2D", "FCN", lambda request: {"backbone": "resnet50"},
        planar=True, source="Long et al., CVPR 2015; torchvision",
    ),
    "deeplabv3plus": Preset(
        "DeepLabv3+ on a ResNet-34, 2D", "DeepLabV3Plus", lambda request: {"encoder": "resnet34"}, planar=True,
        source="Chen et al., ECCV 2018; segmentation-models-pytorch",
    ),
    "multi-level": Preset(
        "one planned U-Net with heads for liver, lesion and Couinaud segments", "DynUNet", _planned, multilevel=True,
        source="labels that a data set lacks are left out of the loss",
    ),
}  # fmt: skip

# Channels between the trunk of a multi-level network and its heads.
TRUNK_CHANNELS = 32


def build(
    name: str,
    in_channels: int,
    out_channels: int,
    patch_size: Sequence[int],
    spacing: Sequence[float],
    *,
    levels: Sequence[str] = (),
    context: int | None = None,
    **changes: Any,
) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments of a preset, for the manifest and for the engine's ``build_network``.

    Args:
        name: one of :data:`PRESETS`.
        in_channels: channels of a patch.
        out_channels: labels with background; multi-level networks: 2 without lesions, 3 with.
        patch_size: voxels along (R, A, S).
        spacing: mm along (R, A, S).
        levels: make it a multi-level network with these heads; see :func:`.heads.with_levels`.
        context: slices on either side that a 2D network sees too; None takes the preset's.
        changes: arguments of the architecture that are to be others than the preset's.

    Raises:
        SettingError: an unknown preset or argument, or a patch that does not fit; the message says what fits.
    """
    preset = PRESETS[check_name(name, PRESETS, "network")]
    if context is not None and not preset.planar:
        raise SettingError(f"The network {name!r} is no 2D network: it has no 'context'.")
    context = preset.context if context is None else context
    if preset.multilevel and not levels:
        levels = ("liver", "lesion", "couinaud") if out_channels > 2 else ("liver", "couinaud")
    shape, millimeters = tuple(patch_size)[::-1], tuple(spacing)[::-1]
    inputs, outputs = in_channels, out_channels
    if preset.planar:
        inputs, shape, millimeters = in_channels * (2 * context + 1), shape[1:], millimeters[1:]
    if levels:
        check_levels(levels)
        outputs = changes.pop("features", TRUNK_CHANNELS)
        wanted = 3 if "lesion" in levels else 2
        if out_channels != wanted:
            raise SettingError(
                f"A network with the levels {', '.join(levels)} has {wanted} labels, not {out_channels}."
            )
    fixed = ("in_channels", "out_channels", "spatial_dims", "img_size")
    taken = [argument for argument in arguments_of(preset.architecture) if argument not in fixed]
    check_arguments(changes, taken, f"the network {name!r}")
    request = Request(inputs, outputs, shape, millimeters)
    arguments = {"in_channels": inputs, "out_channels": outputs, **preset.settings(request), **changes}
    architecture = preset.architecture
    if preset.planar:
        architecture, arguments = (
            "SliceWise",
            {"architecture": architecture, "arguments": arguments, "context": context},
        )
    if levels:
        architecture, arguments = with_levels(architecture, arguments, levels)
    _check_patch(name, patch_size, divisor_of(architecture, arguments))
    return architecture, arguments


def divisor_of(architecture: str, arguments: dict[str, Any]) -> tuple[int, int, int]:
    """What a patch's sizes along (R, A, S) must be multiples of."""
    if architecture == "MultiLevel":
        return divisor_of(arguments["architecture"], arguments["arguments"])
    if architecture == "SliceWise":
        return (*divisor_of(arguments["architecture"], arguments["arguments"])[:2], 1)
    if architecture in ("DynUNet", "UNet", "AttentionUnet"):
        strides = [stride if isinstance(stride, list) else [stride] * 3 for stride in arguments["strides"]]
        sizes = [prod(along) for along in zip(*strides, strict=True)][::-1]
        return (*sizes, *[1] * (3 - len(sizes)))
    if architecture in ("TrilinearUNet", "TransUNet"):
        return (2 ** (len(arguments["channels"]) - 1),) * 3
    if architecture == "SegResNet":
        return (2 ** (len(arguments["blocks_down"]) - 1),) * 3
    if architecture == "EncoderUNet":
        return (2 ** len(arguments.get("decoder_channels", (0,) * 5)),) * 3
    return ({"SwinUNETR": 32, "UNETR": 16, "DeepLabV3Plus": 16, "FCN": 8, "BasicUNet": 16}.get(architecture, 1),) * 3


def fitting_patch(patch_size: Sequence[int], divisor: Sequence[int]) -> tuple[int, ...]:
    """The smallest patch that is not smaller along any axis and fits."""
    return tuple(-(-n // d) * d for n, d in zip(patch_size, divisor, strict=True))


def _check_patch(name: str, patch_size: Sequence[int], divisor: Sequence[int]) -> None:
    fitting = fitting_patch(patch_size, divisor)
    # A norm over one single voxel says nothing; PyTorch refuses it.
    coarsest = prod(n // d for n, d in zip(fitting, divisor, strict=True) if d > 1)
    if divisor[0] > 1 and coarsest < 2:
        fitting = (2 * fitting[0], *fitting[1:])
    if fitting != tuple(patch_size):
        sizes = [" × ".join(map(str, size)) for size in (patch_size, divisor, fitting)]
        raise SettingError(
            f"A patch of {sizes[0]} voxels does not fit the network {name!r}: its sizes must be multiples of "
            f"{sizes[1]}, with more than one voxel at the coarsest level. The next that fits is {sizes[2]}."
        )
