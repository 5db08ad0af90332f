"""The catalogue: models of others that can be downloaded, and cascades that are made of them.

It lies in ``Resources/Models/catalogue.json`` beside its JSON schema. Each entry's ``comment`` says what was checked,
and where. The panel, the command line and the documentation show what is written there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..resources import EMBEDDED_MODELS
from .stage_file import SCHEMA_VERSION as STAGE_SCHEMA_VERSION

CATALOGUE_FILE = EMBEDDED_MODELS / "catalogue.json"
SCHEMA_FILE = EMBEDDED_MODELS / "catalogue.schema.json"


@dataclass(frozen=True)
class CatalogueModel:
    """One model that can be downloaded.

    Attributes:
        id: unique; the installed model keeps it.
        title, version, license, license_url, intended_use: for people.
        role: 'locate' or 'refine'.
        format: 'nnunet', 'monai-bundle' or 'torchscript'.
        commercial_use: whether the license allows it.
        citation: what its authors want to be cited.
        base_url, file: where the zip is; a mirror takes the place of the base.
        size_bytes: of the zip; None where nobody says.
        sha256: of the zip; None where nobody says, and then it is recorded at the first download.
        sha1: of the zip, where its publisher gives that instead.
        model: folder or file of the model inside the zip.
        structures: label values of the model by the structure that they make up.
        configuration, orientation, margin_mm, mirror, folds, checkpoint, settings: see ``stage.json``.
        spacing_mm: of the network along R, A and S; None where the model's own plans decide.
        comment: what was checked, and where.
    """

    id: str
    title: str
    role: str
    format: str
    version: str
    license: str
    license_url: str
    commercial_use: bool
    citation: tuple[str, ...]
    intended_use: str
    base_url: str
    file: str
    size_bytes: int | None
    sha256: str | None
    sha1: str | None
    model: str
    configuration: str | None
    structures: dict[str, list[int]]
    orientation: str
    spacing_mm: tuple[float, float, float] | None
    margin_mm: float
    mirror: bool
    folds: tuple[int, ...] | None
    checkpoint: str | None
    settings: dict[str, Any]
    comment: str

    @property
    def url(self) -> str:
        """Where the zip is."""
        return f"{self.base_url}/{self.file}"

    def stage(self) -> dict[str, Any]:
        """The content of the installed model's ``stage.json``, but for the checksums of its files."""
        content = {
            "schema_version": STAGE_SCHEMA_VERSION,
            "format": self.format,
            "id": self.id,
            "role": self.role,
            "title": self.title,
            "version": self.version,
            "license": self.license,
            "citation": "\n".join(self.citation),
            "intended_use": self.intended_use,
            "model": self.model,
            "configuration": self.configuration,
            "structures": self.structures,
            "orientation": self.orientation,
            "margin_mm": self.margin_mm,
            "mirror": self.mirror,
            "folds": None if self.folds is None else list(self.folds),
            "checkpoint": self.checkpoint,
            "settings": self.settings,
        }
        return {name: value for name, value in content.items() if value is not None}


@dataclass(frozen=True)
class CatalogueCascade:
    """A ready-made cascade: one model that locates and some that work in its box, by their ids."""

    id: str
    title: str
    locate: str
    refine: tuple[str, ...]
    intended_use: str

    @property
    def members(self) -> tuple[str, ...]:
        """All its models."""
        return (self.locate, *self.refine)


@dataclass(frozen=True)
class Catalogue:
    """What can be installed."""

    models: tuple[CatalogueModel, ...]
    cascades: tuple[CatalogueCascade, ...]

    def model(self, model_id: str) -> CatalogueModel | None:
        """The model with this id, if there is one."""
        return next((model for model in self.models if model.id == model_id), None)

    def cascade(self, cascade_id: str) -> CatalogueCascade | None:
        """The cascade with this id, if there is one."""
        return next((cascade for cascade in self.cascades if cascade.id == cascade_id), None)

    def members(self, model_or_cascade_id: str) -> tuple[CatalogueModel, ...]:
        """The model with this id, or all models of the cascade with this id.

        Raises:
            ModelError: there is neither.
        """
        model, cascade = self.model(model_or_cascade_id), self.cascade(model_or_cascade_id)
        if model is not None:
            return (model,)
        if cascade is not None:
            return tuple(model for model in self.models if model.id in cascade.members)
        known = ", ".join(entry.id for entry in (*self.cascades, *self.models))
        raise ModelError(f"The catalogue has no model or cascade {model_or_cascade_id!r}. It has: {known}.")


@cache
def load_catalogue(path: Path = CATALOGUE_FILE) -> Catalogue:
    """Reads a catalogue. The tests hold the one that comes with the program against its schema.

    Raises:
        ModelError: it is missing or damaged, or has another format than this program reads.
    """
    content = read_catalogue(path)
    if content.get("format_version") != 1:
        raise ModelError(f"The catalogue {path} has another format than this program reads. Install it again.")
    try:
        return Catalogue(
            tuple(CatalogueModel(**_tuples(CatalogueModel, entry)) for entry in content["models"]),
            tuple(CatalogueCascade(**_tuples(CatalogueCascade, entry)) for entry in content["cascades"]),
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"The catalogue {path} is damaged ({error}). Install the program again.") from None


def read_catalogue(path: Path = CATALOGUE_FILE) -> dict[str, Any]:
    """The JSON object in a catalogue file.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The catalogue of models {path} cannot be read: {error}. Install the program again."
        ) from None
    if not isinstance(content, dict):
        raise ModelError(f"The catalogue of models {path} is no JSON object. Install the program again.")
    return content


def problems(content: Mapping[str, Any]) -> list[str]:
    """What is wrong with a catalogue's content: its shape, double ids, and cascades whose models do not fit."""
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    found = [
        f"{'/'.join(map(str, problem.absolute_path)) or 'its top'}: {problem.message[:300]}"
        for problem in Draft202012Validator(schema).iter_errors(content)
    ]
    if found:
        return found
    ids = [entry["id"] for entry in (*content["models"], *content["cascades"])]
    found += [f"the id {name} is there twice" for name in sorted({name for name in ids if ids.count(name) > 1})]
    roles = {model["id"]: model["role"] for model in content["models"]}
    for cascade in content["cascades"]:
        for name, role in [(cascade["locate"], "locate"), *((name, "refine") for name in cascade["refine"])]:
            if roles.get(name) != role:
                found.append(f"the cascade {cascade['id']} names {name}, which is no model for the role {role}")
    return found


def _tuples(kind: type, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an entry, lists as tuples."""
    values = {field.name: entry[field.name] for field in fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def in_megabytes(size_bytes: int | None) -> str:
    """A size for people."""
    return "size not known" if size_bytes is None else f"{max(1, round(size_bytes / 1e6))} MB"


def markdown_table(catalogue: Catalogue) -> str:
    """The table of the documentation; a test holds the two against each other."""
    lines = [
        "| id | what | role | spacing (mm) | license | commercial use | download |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in catalogue.models:
        spacing = "by its plans" if model.spacing_mm is None else " × ".join(f"{s:.3g}" for s in model.spacing_mm)
        commercial = "yes" if model.commercial_use else "no"
        license_link = f"[{model.license}]({model.license_url})"
        cells = (
            f"`{model.id}`",
            model.title,
            model.role,
            spacing,
            license_link,
            commercial,
            in_megabytes(model.size_bytes),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| cascade | what | models |", "|---|---|---|"]
    for cascade in catalogue.cascades:
        lines.append(f"| `{cascade.id}` | {cascade.title} | {', '.join(f'`{name}`' for name in cascade.members)} |")
    return "\n".join(lines) + "\n"
