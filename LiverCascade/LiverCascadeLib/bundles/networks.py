"""The network of a bundle or of a TorchScript file, with its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ModelError
from ..models.checkpoints import first_line, read_numbers
from ..models.networks import build_network
from ..models.stage_file import STAGE_NAME, StageFile
from .plan import Network

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_WRAPPER = "module."


def open_network(model: StageFile, root: Path, network: Network) -> torch.nn.Module:
    """The network in float32 on the CPU, in evaluation mode.

    Args:
        model: its digests say which TorchScript file may be opened.
        root: what the path of the weights starts from.
        network: what to open.

    Raises:
        ModelError: the file is missing, damaged, leads out of the model's folder, or does not fit.
    """
    path = root / network.weights
    if not path.resolve().is_relative_to(model.folder.resolve()):
        raise ModelError(
            f"The weights of the model {model.id} lie outside its folder: {path} leads to {path.resolve()}."
        )
    if not path.is_file():
        raise ModelError(f"The weights of the model {model.id} are missing: expected {path}. Install it again.")
    opened = _built(path, network) if network.architecture else _scripted(model, path)
    for parameter in opened.parameters():
        parameter.requires_grad_(False)
    return opened.eval()


def _built(path: Path, network: Network) -> torch.nn.Module:
    import torch

    content = read_numbers(path, "Save the weights alone, as torch.save(network.state_dict(), …) does.")
    if isinstance(content, dict) and isinstance(content.get(network.key), dict):
        content = content[network.key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"{path} holds no weights: expected tensors by name, alone or under '{network.key}'.")
    weights = {name.removeprefix(_WRAPPER): tensor for name, tensor in content.items()}
    built = build_network(network.architecture, network.arguments or {})
    try:
        built.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"The weights in {path} are not those of the {network.architecture} that the bundle describes: {reason}"
        ) from error
    return built.float()


def _scripted(model: StageFile, path: Path) -> torch.nn.Module:
    """TorchScript is a program: it is opened only where somebody answers for this very file."""
    import torch

    named = any((model.folder / name).resolve() == path.resolve() for name in model.files_sha256)
    if not named:
        raise ModelError(
            f"{path} is TorchScript, which is a program and not only numbers. It is run only where {STAGE_NAME} names "
            "the file in files_sha256, by somebody who knows where it comes from."
        )
    try:
        return torch.jit.load(str(path), map_location="cpu").float()
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be opened as TorchScript: {first_line(error)} Get the file again.") from error
