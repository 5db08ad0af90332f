"""What somebody's model folder is: nnU-Net's and MONAI's own files say most of what a ``stage.json`` needs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ModelError
from .archive import is_wanted
from .catalogue import Catalogue, CatalogueModel
from .stage_file import STAGE_NAME

_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")


@dataclass(frozen=True)
class Recognized:
    """A model that was found in a folder.

    Attributes:
        path: of the model, relative to the folder.
        files: that belong to it, relative to the folder.
        format: see ``stage.json``.
        labels: label values by the name that the model's owners gave them.
        facts: what the model's files say for ``stage.json``.
        entry: the catalogue's, where it is known.
        stage: the ``stage.json`` that was there already.
    """

    path: PurePosixPath
    files: tuple[PurePosixPath, ...]
    format: str
    labels: dict[str, list[int]]
    facts: dict[str, Any] = field(default_factory=dict)
    entry: CatalogueModel | None = None
    stage: dict[str, Any] | None = None


def recognize(folder: Path, catalogue: Catalogue) -> list[Recognized]:
    """All models below ``folder``.

    Raises:
        ModelError: a file of a model is damaged.
    """
    files = sorted(_files_below(folder))
    names = set(files)
    if PurePosixPath(STAGE_NAME) in names:
        return [_own_stage(folder, files)]
    found = []
    for path in files:
        if path.name == "plans.json" and path.with_name("dataset.json") in names:
            found.append(_nnunet(folder, path.parent, files, catalogue))
        elif path.name == "metadata.json" and path.parent.name == "configs":
            found.append(_bundle(folder, path.parent.parent, files, catalogue))
    return found


def _files_below(folder: Path) -> list[PurePosixPath]:
    found = []
    for path in folder.rglob("*"):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        if not is_wanted(relative):
            continue
        if path.is_symlink():
            raise ModelError(f"{path} is a link. Copy the model with real files and import the copy.")
        if path.is_file():
            found.append(relative)
    return found


def _nnunet(folder: Path, place: PurePosixPath, files: list[PurePosixPath], catalogue: Catalogue) -> Recognized:
    # The folder itself may be the trainer's, whose name says the configuration.
    name = place.name or folder.name
    trainer, _, rest = name.partition("__")
    configuration = rest.rpartition("__")[2]
    if "cascade" in configuration:
        raise ModelError(
            f"{name} is the second step of nnU-Net's own cascade, which needs the result of the first. Import the "
            "configuration 3d_fullres or 3d_lowres instead."
        )
    folds = sorted({f.parts[len(place.parts)] for f in files if _is_checkpoint(f, place)})
    checkpoint = next((c for c in _CHECKPOINTS if all(place / fold / c in files for fold in folds)), None)
    if not folds or checkpoint is None:
        raise ModelError(f"{name} has no fold with a {' or '.join(_CHECKPOINTS)}, so nothing can be computed.")
    numbers = [int(fold.removeprefix("fold_")) for fold in folds if fold != "fold_all"]
    wanted = [f for f in files if f.is_relative_to(place) and _is_nnunet_file(f.relative_to(place), checkpoint)]
    facts = {
        "configuration": configuration or None,
        "folds": numbers or "all",
        "checkpoint": checkpoint,
        "orientation": "stored",
        "mirror": "NoMirroring" not in trainer,
    }
    labels = _dataset_labels(folder / place / "dataset.json")
    entry = _in_catalogue(catalogue, "nnunet", (*folder.parts, *place.parts))
    return Recognized(place, tuple(wanted), "nnunet", labels, facts, entry)


def _is_checkpoint(path: PurePosixPath, place: PurePosixPath) -> bool:
    inside = path.is_relative_to(place) and len(path.parts) == len(place.parts) + 2
    return inside and re.fullmatch(r"fold_(\d+|all)", path.parts[-2]) is not None and path.name in _CHECKPOINTS


def _is_nnunet_file(path: PurePosixPath, checkpoint: str) -> bool:
    return (len(path.parts) == 1 and path.suffix == ".json") or (len(path.parts) == 2 and path.name == checkpoint)


def _bundle(folder: Path, place: PurePosixPath, files: list[PurePosixPath], catalogue: Catalogue) -> Recognized:
    metadata = _json(folder / place / "configs" / "metadata.json")
    formats = metadata.get("network_data_format", {})
    outputs = formats.get("outputs", {}) if isinstance(formats, dict) else {}
    pred = outputs.get("pred", {}) if isinstance(outputs, dict) else {}
    channels = pred.get("channel_def", {}) if isinstance(pred, dict) else {}
    channels = channels if isinstance(channels, dict) else {}
    labels = {str(name): [int(number)] for number, name in channels.items() if str(number).isdecimal() and int(number)}
    facts = {"orientation": "RAS", "mirror": False, "version": str(metadata.get("version", ""))}
    wanted = tuple(f for f in files if f.is_relative_to(place))
    entry = _in_catalogue(catalogue, "monai-bundle", (*folder.parts, *place.parts))
    return Recognized(place, wanted, "monai-bundle", labels, facts, entry)


def _own_stage(folder: Path, files: list[PurePosixPath]) -> Recognized:
    content = _json(folder / STAGE_NAME)
    wanted = tuple(path for path in files if path.name != STAGE_NAME)
    model = content.get("model")
    if not isinstance(model, str) or not any(path.is_relative_to(model) for path in wanted):
        raise ModelError(f"{folder / STAGE_NAME} names the model {model!r}, which is not beside it.")
    return Recognized(PurePosixPath(model), wanted, str(content.get("format")), {}, stage=content)


def _in_catalogue(catalogue: Catalogue, kind: str, parts: tuple[str, ...]) -> CatalogueModel | None:
    """The entry whose model's path is the end of ``parts``."""
    for entry in catalogue.models:
        ending = PurePosixPath(entry.model).parts
        if entry.format == kind and parts[-len(ending) :] == ending:
            return entry
    return None


def _dataset_labels(path: Path) -> dict[str, list[int]]:
    labels = _json(path).get("labels")
    if not isinstance(labels, dict):
        raise ModelError(f"{path} has no labels, so it is not nnU-Net's of version 2.")
    found = {}
    for name, value in labels.items():
        values = value if isinstance(value, list) else [value]
        if not all(type(number) is int for number in values):
            raise ModelError(f"The label {name} in {path} is {value!r}, expected a number or a list of numbers.")
        if values != [0]:
            found[name] = values
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} of the model cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path.name} of the model is no JSON object.")
    return content
