"""``cascade.json``: which models work together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .json_files import read_json
from .manifest import MANIFEST_NAME

CASCADE_NAME = "cascade.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CascadeFile:
    """Which models make up a cascade.

    Attributes:
        locate: folder of the model that finds the liver.
        refine: folders of the models that work in its box, the main one first.
        classify: folder of the gate's model; None where there is none.
        title: for the user; empty where the folder says all.
    """

    locate: Path
    refine: tuple[Path, ...]
    classify: Path | None = None
    title: str = ""

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders, in the order in which the models work."""
        return (self.locate, *self.refine, *(() if self.classify is None else (self.classify,)))


def read_cascade(path: Path) -> CascadeFile:
    """Which models lie at ``path``.

    Args:
        path: a ``cascade.json``, a folder that holds one, or a folder with the model folders ``locate`` and
            ``refine``, ``context`` for a coarser one that works before ``refine``, and ``classify`` if there is to be
            a gate.

    Raises:
        ModelError: ``cascade.json`` cannot be read or is not valid.
    """
    file = path / CASCADE_NAME if path.is_dir() else path
    if not file.is_file() or file.name == MANIFEST_NAME:
        context, classify = path / "context", path / "classify"
        refine = (path / "refine", *([context] if context.is_dir() else []))
        return CascadeFile(path / "locate", refine, classify if classify.is_dir() else None)
    content = read_json(file, f"There is no {CASCADE_NAME} at {file.parent}.")
    problems = list(_problems(content))
    if problems:
        raise ModelError(f"{file} is not valid: {'; '.join(problems)}.")
    classify = content.get("classify")
    return CascadeFile(
        file.parent / content["locate"],
        tuple(file.parent / model for model in content["refine"]),
        file.parent / classify if classify else None,
        str(content.get("title", "")),
    )


def _problems(content: Any):
    """Yields what is wrong with a cascade file, in words."""
    if not isinstance(content, dict):
        yield f"expected a JSON object, found {type(content).__name__}"
        return
    if content.get("schema_version") != SCHEMA_VERSION:
        yield f"schema_version is {content.get('schema_version')!r}, this version reads {SCHEMA_VERSION}"
    if not isinstance(content.get("locate"), str):
        yield f"locate is {content.get('locate')!r}, expected the folder of a model"
    refine = content.get("refine")
    if not (isinstance(refine, list) and refine and all(isinstance(model, str) for model in refine)):
        yield f"refine is {refine!r}, expected a list of folders of models"
    if not isinstance(content.get("classify", None), str | None):
        yield f"classify is {content['classify']!r}, expected the folder of a model, or nothing"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a small JSON file, whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
