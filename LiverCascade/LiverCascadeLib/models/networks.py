"""The architectures that a manifest may name. Nothing outside this list is ever built from a file."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    import torch

# Name in manifests → module and class in MONAI.
ARCHITECTURES = {
    "DynUNet": ("monai.networks.nets.dynunet", "DynUNet"),
    "UNet": ("monai.networks.nets.unet", "UNet"),
    "BasicUNet": ("monai.networks.nets.basic_unet", "BasicUNet"),
    "SegResNet": ("monai.networks.nets.segresnet", "SegResNet"),
    "AttentionUnet": ("monai.networks.nets.attentionunet", "AttentionUnet"),
    "UNETR": ("monai.networks.nets.unetr", "UNETR"),
    "SwinUNETR": ("monai.networks.nets.swin_unetr", "SwinUNETR"),
}


def build_network(architecture: str, arguments: dict[str, Any]) -> torch.nn.Module:
    """Builds an untrained network.

    Args:
        architecture: a name in :data:`ARCHITECTURES`.
        arguments: keyword arguments of that class, as plain JSON values.

    Raises:
        ModelError: unknown architecture, or arguments that it does not take.
    """
    import importlib

    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"The architecture {architecture!r} is not on the allow-list. Known are: {known}.")
    module, name = ARCHITECTURES[architecture]
    network_class = getattr(importlib.import_module(module), name)
    accepted = inspect.signature(network_class).parameters
    unknown = [argument for argument in arguments if argument not in accepted]
    if unknown:
        raise ModelError(f"{architecture} does not take {', '.join(unknown)}; it takes {', '.join(accepted)}.")
    try:
        return network_class(**arguments)
    except Exception as error:
        # MONAI raises many types here; whatever it is, the cause is the manifest's arguments.
        raise ModelError(f"{architecture} cannot be built from its arguments: {error}") from error
