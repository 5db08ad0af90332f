"""Weights: safetensors only, verified by SHA-256 before anything of them is used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from .manifest import Manifest
from .networks import build_network

if TYPE_CHECKING:
    import torch


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _aliases(network: torch.nn.Module) -> dict[str, str]:
    """Second names of tensors that a network lists more than once, as DynUNet does, and their first names."""
    first: dict[int, str] = {}
    aliases = {}
    for name, tensor in network.state_dict().items():
        owner = first.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
        if owner != name:
            aliases[name] = owner
    return aliases


def save_weights(network: torch.nn.Module, path: Path, half: bool = True) -> str:
    """Writes a network's state as safetensors and returns the file's SHA-256.

    Args:
        network: the trained network.
        path: where to write.
        half: store floating-point tensors in half precision; they are computed with in float32 all the same.
    """
    import torch
    from safetensors.torch import save_file

    aliases = _aliases(network)
    state = {}
    for name, tensor in network.state_dict().items():
        if name not in aliases:
            tensor = tensor.detach().cpu()
            state[name] = (tensor.to(torch.float16) if half and tensor.is_floating_point() else tensor).contiguous()
    save_file(state, str(path))
    return sha256_of(path)


def load_network(manifest: Manifest) -> torch.nn.Module:
    """Builds the manifest's network with its verified weights, in float32 on the CPU, in evaluation mode.

    Raises:
        ModelError: the weights are missing, altered, unreadable, or do not fit the architecture.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = manifest.weights_path
    if not path.is_file():
        raise ModelError(f"The weights of model {manifest.id} are missing: expected {path}.")
    digest = sha256_of(path)
    if digest != manifest.weights_sha256:
        raise ModelError(
            f"The weights of model {manifest.id} are not the ones that its manifest names: {path} has SHA-256 "
            f"{digest[:12]}…, expected {manifest.weights_sha256[:12]}…. The file is damaged or was exchanged; "
            "install the model again."
        )
    network = build_network(manifest.architecture, manifest.arguments)
    try:
        state = {n: t.float() if t.is_floating_point() else t for n, t in load_file(str(path)).items()}
        state.update({name: state[owner] for name, owner in _aliases(network).items() if owner in state})
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"The weights of model {manifest.id} do not fit its architecture: {first}") from error
    network.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.to(torch.float32)
