"""What a bundle says of itself, as the ``stage.json`` that it lacks."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ModelError
from ..models.label_names import structures_of
from ..models.stage_file import StageFile
from .reading import CONFIGS, METADATA, read_bundle, read_metadata

# Around the located liver, in mm, where nobody says.
USUAL_MARGIN_MM = 10.0


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` looks like a MONAI bundle."""
    return (folder / CONFIGS / METADATA).is_file()


def deduced_stage(folder: Path, role: str) -> StageFile:
    """How the bundle in ``folder`` is used, as far as its metadata tell.

    Args:
        folder: the bundle's root.
        role: 'locate' or 'refine'.

    Raises:
        ModelError: the bundle is not covered, or draws nothing of the liver.
    """
    labels = read_bundle(folder).labels
    structures = structures_of({name: [value] for value, name in labels.items() if value > 0})
    # A tumor alone may be any organ's.
    if "liver" not in structures and (role == "locate" or set(structures) <= {"lesion"}):
        told = ", ".join(labels.values()) or "no names"
        raise ModelError(
            f"The MONAI bundle in {folder} does not say which label is the liver: its {METADATA} names {told}. "
            "Write a stage.json beside it that says so in 'structures'."
        )
    metadata = read_metadata(folder)
    title = str(metadata.get("name") or folder.resolve().name)
    references = metadata.get("references")
    return StageFile(
        format="monai-bundle",
        id=re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "bundle",
        role=role,
        title=title,
        model=".",
        structures={name: tuple(values) for name, values in structures.items()},
        version=str(metadata.get("version", "")),
        license="",
        citation="\n".join(map(str, references)) if isinstance(references, list) else "",
        intended_use=str(metadata.get("intended_use", "")),
        margin_mm=USUAL_MARGIN_MM if role == "refine" else 0.0,
        folder=folder,
    )
