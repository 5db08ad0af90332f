"""The architectures that a manifest may name. Nothing outside this list is ever built from a file."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import LiverCascadeError, MissingPackageError, ModelError

if TYPE_CHECKING:
    from types import ModuleType

    import torch

_OWN = __package__
# A torchvision that was compiled for another PyTorch fails in ways of its own.
_IMPORT_ERRORS = (ImportError, RuntimeError, OSError)

# Name in manifests → module and class: MONAI's, and the project's own, some of which lean on further packages.
ARCHITECTURES = {
    "DynUNet": ("monai.networks.nets.dynunet", "DynUNet"),
    "UNet": ("monai.networks.nets.unet", "UNet"),
    "BasicUNet": ("monai.networks.nets.basic_unet", "BasicUNet"),
    "SegResNet": ("monai.networks.nets.segresnet", "SegResNet"),
    "AttentionUnet": ("monai.networks.nets.attentionunet", "AttentionUnet"),
    "UNETR": ("monai.networks.nets.unetr", "UNETR"),
    "SwinUNETR": ("monai.networks.nets.swin_unetr", "SwinUNETR"),
    "ResNet": ("monai.networks.nets.resnet", "ResNet"),
    "PlainConvUNet": (f"{_OWN}.nnunet_networks", "PlainConvUNet"),
    "ResidualEncoderUNet": (f"{_OWN}.nnunet_networks", "ResidualEncoderUNet"),
    "TrilinearUNet": (f"{_OWN}.trilinear", "TrilinearUNet"),
    "TransUNet": (f"{_OWN}.hybrid", "TransUNet"),
    "FCN": (f"{_OWN}.planar", "FCN"),
    "DeepLabV3Plus": (f"{_OWN}.planar", "DeepLabV3Plus"),
    "EncoderUNet": (f"{_OWN}.planar", "EncoderUNet"),
    "SliceWise": (f"{_OWN}.slicewise", "SliceWise"),
    "MultiLevel": (f"{_OWN}.multilevel", "MultiLevel"),
}


def build_network(architecture: str, arguments: dict[str, Any]) -> torch.nn.Module:
    """Builds an untrained network.

    Args:
        architecture: a name in :data:`ARCHITECTURES`.
        arguments: keyword arguments of that class, as plain JSON values.

    Raises:
        ModelError: unknown architecture, or arguments that it does not take.
        MissingPackageError: the architecture needs a package that is not installed.
    """
    network_class = _class_of(architecture)
    accepted = inspect.signature(network_class).parameters
    unknown = [argument for argument in arguments if argument not in accepted]
    if unknown:
        raise ModelError(f"{architecture} does not take {', '.join(unknown)}; it takes {', '.join(accepted)}.")
    try:
        # MONAI imports some packages when a network is made.
        with _missing_in_words(architecture, ImportError):
            network = network_class(**arguments)
    except LiverCascadeError:
        raise
    except Exception as error:
        # MONAI raises many types here; whatever it is, the cause is the manifest's arguments.
        raise ModelError(f"{architecture} cannot be built from its arguments: {error}") from error
    from .memory_order import keep_memory_order

    return keep_memory_order(network)


def arguments_of(architecture: str) -> tuple[str, ...]:
    """Names of the arguments that an architecture takes.

    Raises:
        ModelError: unknown architecture.
        MissingPackageError: the architecture needs a package that is not installed.
    """
    return tuple(inspect.signature(_class_of(architecture)).parameters)


def load_package(module: str, architecture: str) -> ModuleType:
    """Imports what an architecture is made of.

    Raises:
        MissingPackageError: it is not installed, or does not fit the installed PyTorch.
    """
    with _missing_in_words(architecture, *_IMPORT_ERRORS):
        return importlib.import_module(module)


def _class_of(architecture: str) -> type[torch.nn.Module]:
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"The architecture {architecture!r} is not on the allow-list. Known are: {known}.")
    module, name = ARCHITECTURES[architecture]
    with _missing_in_words(architecture, *_IMPORT_ERRORS):
        return getattr(importlib.import_module(module), name)


@contextmanager
def _missing_in_words(architecture: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turns what a failed import raises into a sentence for the user."""
    try:
        yield
    except kinds as error:
        # MONAI says it in the text only.
        found = re.search(r"No module named '(\w+)", str(error))
        package = found.group(1) if found else (getattr(error, "name", None) or "").split(".")[0]
        if package and (found or isinstance(error, ModuleNotFoundError)):
            package = package.replace("_", "-")
            raise MissingPackageError(
                f"The architecture {architecture} needs the Python package {package}, which is not installed. "
                f"Install it (pip install {package}), or choose a model of another architecture."
            ) from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MissingPackageError(
            f"A Python package that the architecture {architecture} needs cannot be loaded: {reason}. Where that is "
            "torchvision, it must be the one for the installed PyTorch: install both again, from the same place."
        ) from error
