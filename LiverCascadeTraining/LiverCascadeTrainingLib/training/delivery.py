"""From a run to a model that the engine loads: safetensors, manifest and model card, in the run's own folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LiverCascadeLib.errors import InputError
from LiverCascadeLib.models import Manifest, save_weights

from ..cards import write_card
from .callbacks import CHECKPOINTS, LAST, read_metrics
from .fit import load_checkpoint
from .judging import WEIGHTS, manifest_of
from .module import SegmentationModule
from .record import RunFolder

if TYPE_CHECKING:
    import torch

CHOICES = ("best", "last")


def best_checkpoint(folder: Path) -> Path | None:
    """The kept checkpoint with the highest figure, the earlier of equal ones; None where nothing was validated."""
    found = []
    for path in (folder / CHECKPOINTS).glob("step*-dice*.ckpt"):
        match = re.fullmatch(r"step(\d+)-dice(-?[\d.]+)", path.stem)
        if match:
            found.append((-float(match[2]), int(match[1]), path))
    return min(found)[2] if found else None


def export_run(
    folder: Path, to: Path | None = None, choice: str = "best", sources: Sequence[str] | None = None
) -> Manifest:
    """Writes the averaged weights, the manifest and the model card of a run.

    Args:
        folder: of the run.
        to: the model's folder; None takes the run's own, so that the folder with the runs 'locate' and 'refine' is a
            cascade.
        choice: 'best' by validation (the last where nothing was validated), or 'last'.
        sources: one line for each source of training data, with its license; None takes the configuration's.

    Returns:
        The manifest as written.

    Raises:
        InputError: there is no run, or it has no checkpoint yet.
    """
    run, to = RunFolder(folder), Path(to or folder)
    config = run.config()
    path = (best_checkpoint(run.path) if choice == "best" else None) or run.path / CHECKPOINTS / LAST
    if not path.is_file():
        raise InputError(f"The run {folder} has no checkpoint yet. Train it first.")
    module = SegmentationModule(config)
    step = load_checkpoint(module, path)
    data = tuple(config.model.training_data if sources is None else sources)
    measured: dict[str, Any] = {"training_steps": step, **validation_at(run.path, step)}
    manifest = write_model(
        module.average.float(),
        to,
        lambda digest: manifest_of(config, digest, training_data=data, measured=measured, folder=to),
    )
    if to.resolve() != run.path.resolve():
        shutil.copyfile(run.path / "config.yaml", to / "training.yaml")
    return manifest


def write_model(network: torch.nn.Module, to: Path, manifest_for: Callable[[str], Manifest]) -> Manifest:
    """Writes weights, manifest and card of a model; weights are complete or those of before.

    Args:
        network: with the weights.
        to: the model's folder; its parents are made.
        manifest_for: makes the manifest, once the SHA-256 of the weights is known.

    Returns:
        The manifest as written.
    """
    to.mkdir(parents=True, exist_ok=True)
    part = to / f".{WEIGHTS}"
    manifest = manifest_for(save_weights(network, part))
    os.replace(part, to / WEIGHTS)
    manifest.save(to)
    write_card(to)
    return manifest


def validation_at(folder: Path, step: int) -> dict[str, Any]:
    """The figures of the validation at ``step``, for the manifest; nothing where there was none."""
    for row in read_metrics(folder / "metrics.csv"):
        if int(row["step"]) == step and row.get("dice"):
            names = ("dice", "dice_liver", "dice_lesion", "dice_lesion_pooled")
            return {"validation": {name: float(row[name]) for name in names if row.get(name)}}
    return {}
