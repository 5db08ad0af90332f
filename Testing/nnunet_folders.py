"""Small models in nnU-Net's folder format, written without nnU-Net, for tests of how they are read and used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from LiverCascadeLib.models import build_network
from LiverCascadeLib.models.stage_file import StageFile
from LiverCascadeLib.nnunet.plans import read_plan
from nnunet_reference import Kind, dataset_of, plans_of


def write_model(folder: Path, kind: Kind | None = None, labels: Mapping[str, int] | None = None) -> Path:
    """A trainer folder with one fold of random weights.

    Args:
        folder: is made.
        kind: what the plans say.
        labels: of the data set; None takes the kind's.
    """
    kind = kind or Kind()
    folder.mkdir(parents=True)
    dataset = dataset_of(kind)
    if labels is not None:
        dataset["labels"] = dict(labels)
    (folder / "plans.json").write_text(json.dumps(plans_of(kind)))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.manual_seed(0)
    save_checkpoint(folder, {"network_weights": network_of(folder).state_dict()})
    return folder


def network_of(folder: Path) -> torch.nn.Module:
    """An untrained network as the plans in ``folder`` say."""
    plan = read_plan(folder, "3d_fullres")
    return build_network(plan.architecture, plan.arguments)


def save_checkpoint(folder: Path, content: Mapping[str, Any], fold: int | str = 0) -> Path:
    """``checkpoint_final.pth`` with what nnU-Net's trainer writes beside ``content``."""
    path = folder / f"fold_{fold}" / "checkpoint_final.pth"
    path.parent.mkdir(exist_ok=True)
    usual = {"trainer_name": "nnUNetTrainer", "init_args": {"configuration": "3d_fullres"}}
    torch.save({**usual, "inference_allowed_mirroring_axes": None, **content}, path)
    return path


def change(path: Path, **changes: Any) -> None:
    """Sets entries of a JSON file; dots lead into objects (``configurations.base.spacing``)."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *outer, last = name.split(".")
        part = content
        for step in outer:
            part = part[step]
        part[last] = value
    path.write_text(json.dumps(content))


def stage_of(folder: Path, structures: Mapping[str, tuple[int, ...]], **more: Any) -> StageFile:
    """How the model in ``folder`` is used."""
    usual = {"format": "nnunet", "id": folder.name, "role": "refine", "title": folder.name, "model": "."}
    return StageFile(**{**usual, **more}, structures=dict(structures), folder=folder)
