"""What a bundle says of itself, as the ``stage.json`` that it lacks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import ModelError
from ..models.stage_file import COUINAUD, StageFile
from .reading import CONFIGS, METADATA, read_bundle, read_metadata

# How bundles call what is drawn here, in small letters with spaces.
_NAMES = {
    "liver": "liver",
    "liver tumor": "lesion",
    "liver tumour": "lesion",
    "liver lesion": "lesion",
    "liver cancer": "lesion",
    "hepatic tumor": "lesion",
    "hepatic tumour": "lesion",
    "hepatic lesion": "lesion",
    "hepatic vessel": "vessel",
    "hepatic vessels": "vessel",
    "liver vessel": "vessel",
    "liver vessels": "vessel",
    **{f"liver segment {name[-1]}": name for name in COUINAUD},
}
# Of the liver only where the model draws the liver too.
_BESIDE_LIVER = {"tumor": "lesion", "tumour": "lesion", "lesion": "lesion", "cancer": "lesion"}
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
    structures = structures_in(labels)
    if "liver" not in structures and (role == "locate" or not structures):
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
        structures=structures,
        version=str(metadata.get("version", "")),
        license="",
        citation="\n".join(map(str, references)) if isinstance(references, list) else "",
        intended_use=str(metadata.get("intended_use", "")),
        margin_mm=USUAL_MARGIN_MM if role == "refine" else 0.0,
        folder=folder,
    )


def structures_in(labels: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """Label values by structure, from the names that a model gives its labels."""
    plain = {value: re.sub(r"[\s_-]+", " ", name.lower()).strip() for value, name in labels.items()}
    known = {**_NAMES, **(_BESIDE_LIVER if "liver" in plain.values() else {})}
    found: dict[str, tuple[int, ...]] = {}
    for value, name in sorted(plain.items()):
        if value > 0 and name in known:
            found[known[name]] = (*found.get(known[name], ()), value)
    return found
