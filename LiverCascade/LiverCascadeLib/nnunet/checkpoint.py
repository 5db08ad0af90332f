"""Weights from nnU-Net's checkpoints, which are pickles: only numbers are let in, nothing that could run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from ..models.checkpoints import read_numbers

if TYPE_CHECKING:
    import torch

# What compiled and data-parallel networks put before each name.
_WRAPPERS = ("_orig_mod.", "module.")
# The same tensors again: nnU-Net's blocks and decoder list their parts twice.
_REPEATED = (".all_modules.", "decoder.encoder.")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint says.

    Attributes:
        weights: of the network, by nnU-Net's own names, without those that it lists twice.
        configuration: that was trained, such as '3d_fullres'; None where the checkpoint does not say.
        mirror_axes: spatial axes of the network's input (0, 1, 2) along which test-time mirroring is allowed.
    """

    weights: dict[str, torch.Tensor]
    configuration: str | None
    mirror_axes: tuple[int, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads ``checkpoint_*.pth`` without running anything from it.

    Raises:
        ModelError: missing, damaged, no checkpoint of nnU-Net, or it holds more than numbers, lists and texts.
    """
    if not path.is_file():
        raise ModelError(f"The checkpoint {path} is missing. Export the model again, with this fold.")
    content = read_numbers(path, "Save it with nnU-Net v2's own trainer.", _numpy_types(), mapped=True)
    if not isinstance(content, dict) or not isinstance(content.get("network_weights"), dict):
        raise ModelError(f"{path} is no checkpoint of nnU-Net v2: it holds no 'network_weights'.")
    arguments = content.get("init_args") or {}
    axes = content.get("inference_allowed_mirroring_axes") or ()
    return Checkpoint(
        _cleaned(content["network_weights"]), arguments.get("configuration"), tuple(int(axis) for axis in axes)
    )


def fitting(weights: dict[str, torch.Tensor], network: torch.nn.Module, path: Path) -> dict[str, torch.Tensor]:
    """The weights that ``network`` has, in float32: outputs that serve training alone are left out.

    Raises:
        ModelError: they do not fit the network.
    """
    wanted = network.state_dict()
    spare = {name for name in weights if name.startswith("decoder.seg_layers.")} - set(wanted)
    missing, more = set(wanted) - set(weights), set(weights) - set(wanted) - spare
    other = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    if missing or more or other:
        first = next(iter(sorted(missing) or sorted(more) or other))
        raise ModelError(
            f"The weights in {path} are not those of the network that its plans describe: {len(missing)} are missing, "
            f"{len(more)} are unknown, {len(other)} have another size (such as {first}). The trainer may have built "
            "another network than the plans say."
        )
    return {name: weights[name].to(wanted[name].dtype) for name in wanted}


def folds_in(folder: Path, checkpoint: str, wanted: Sequence[int | str] | None = None) -> list[Path]:
    """The checkpoints of the wanted folds, or of all folds that there are.

    Raises:
        ModelError: there is none, or a wanted one is missing.
    """
    found = {path.parent.name.removeprefix("fold_"): path for path in sorted(folder.glob(f"fold_*/{checkpoint}"))}
    if wanted is None:
        # As nnU-Net does: 'all' is one network that was trained on everything, not one more fold.
        numbered = {name: path for name, path in found.items() if name != "all"}
        found = numbered or found
    else:
        missing = [str(fold) for fold in wanted if str(fold) not in found]
        if missing:
            there = ", ".join(found) or "none"
            raise ModelError(f"{folder} has no {checkpoint} for the fold {', '.join(missing)}; there is {there}.")
        found = {str(fold): found[str(fold)] for fold in wanted}
    if not found:
        raise ModelError(f"{folder} holds no fold_*/{checkpoint}: it is no trained nnU-Net model, or not all of it.")
    return list(found.values())


def _cleaned(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    cleaned = {}
    for name, tensor in weights.items():
        for wrapper in _WRAPPERS:
            name = name.removeprefix(wrapper)
        if not any(part in name for part in _REPEATED):
            cleaned[name] = tensor
    return cleaned


def _numpy_types() -> list[Any]:
    """NumPy's numbers, of which nnU-Net keeps its losses; under their names of today and of before NumPy 2."""
    kinds = [np.dtype(kind) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
    scalar = np._core.multiarray.scalar
    return [
        np.dtype,
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        *{type(kind) for kind in kinds},
    ]
