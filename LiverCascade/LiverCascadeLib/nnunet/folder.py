"""An nnU-Net model as its owner exports it, without a word about how it is to be used."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ModelError
from ..models.label_names import structures_of
from ..models.stage_file import StageFile
from .plans import DATASET_FILE, PLANS_FILE


def model_folder(folder: Path) -> Path | None:
    """The trainer's folder at or below ``folder``: the one that holds ``plans.json`` and ``dataset.json``."""
    for candidate in (folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))):
        if (candidate / PLANS_FILE).is_file() and (candidate / DATASET_FILE).is_file():
            return candidate
    return None


def is_nnunet_folder(folder: Path) -> bool:
    """Whether an nnU-Net model lies at or up to two levels below ``folder``."""
    return folder.is_dir() and model_folder(folder) is not None


def stage_file_for(folder: Path, role: str) -> StageFile:
    """How to use the model in ``folder``, as its labels' names say.

    Args:
        folder: see :func:`model_folder`.
        role: 'locate' or 'refine'.

    Raises:
        ModelError: no label sounds like liver or lesion.
    """
    found = model_folder(folder)
    if found is None:
        raise ModelError(f"{folder} is no nnU-Net model: it holds no {PLANS_FILE} beside a {DATASET_FILE}.")
    name = found.parent.name if found.name.startswith("nnUNetTrainer") else found.name
    checkpoint = next((path.name for path in sorted(found.glob("fold_*/checkpoint_*.pth"))), "checkpoint_final.pth")
    if any(found.glob("fold_*/checkpoint_final.pth")):
        checkpoint = "checkpoint_final.pth"
    return StageFile(
        format="nnunet",
        id=name,
        role=role,
        title=name,
        model=found.relative_to(folder).as_posix(),
        structures=guessed_structures(found),
        margin_mm=10.0 if role == "refine" else 0.0,
        mirror=True,
        checkpoint=checkpoint,
        folder=folder,
    )


def guessed_structures(folder: Path) -> dict[str, tuple[int, ...]]:
    """Which labels are what, by their names in ``dataset.json``: liver, lesion, Couinaud's segments, vessels.

    Raises:
        ModelError: none sounds like any of them, or the file cannot be read.
    """
    try:
        labels = json.loads((folder / DATASET_FILE).read_text(encoding="utf-8"))["labels"]
        given = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{folder / DATASET_FILE} names no labels ({error}). Export the model again.") from None
    found = structures_of(given)
    if not found:
        raise ModelError(
            f"No label of the model in {folder} sounds like liver or lesion; it has {', '.join(given)}. Say "
            "which label is what: livercascade models import FOLDER --structure liver=1 --structure lesion=2"
        )
    return {structure: tuple(values) for structure, values in found.items()}
