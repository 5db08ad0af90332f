"""``stage.json`` and ``cascade.json``: what an installed model of others is, and which of them work together.

A stage is a folder with a ``stage.json`` beside the untouched files of the model. A cascade is a ``cascade.json`` that
names one stage or model folder that locates and some that refine, relative to itself or absolute.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ModelError
from .catalogue import STAGE_VERSION

STAGE_FILE, CASCADE_FILE = "stage.json", "cascade.json"
STAGE_ROLES = ("locate", "refine")
FORMATS = ("nnunet", "monai-bundle", "torchscript")
ORIENTATIONS = ("RAS", "LPS", "stored")
STRUCTURES = ("liver", "lesion", "vessel", *(f"couinaud_{n}" for n in range(1, 9)))
_TEXTS = ("id", "title", "version", "license", "intended_use", "model")


@dataclass(frozen=True)
class InstalledModel:
    """An installed model of others.

    Attributes:
        folder: holds ``stage.json``.
        content: of ``stage.json``.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def id(self) -> str:
        """Unique name."""
        return self.content["id"]

    @property
    def role(self) -> str:
        """'locate' or 'refine'."""
        return self.content["role"]

    @property
    def title(self) -> str:
        """Name for people."""
        return self.content["title"]

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def load_stage(folder: Path) -> InstalledModel:
    """Reads ``stage.json`` in ``folder``.

    Raises:
        ModelError: it is missing or damaged; the text says what is wrong with it.
    """
    content = _read(folder / STAGE_FILE)
    found = stage_problems(content)
    if found:
        raise ModelError(f"{folder / STAGE_FILE} is not valid: {'; '.join(found)}. Install the model again.")
    return InstalledModel(folder, content)


def stage_problems(content: dict[str, Any]) -> list[str]:
    """What is wrong with the content of a ``stage.json``, in words."""
    found = [f"{name} is no text" for name in _TEXTS if not isinstance(content.get(name), str) or not content[name]]
    if content.get("schema_version") != STAGE_VERSION:
        found.append(f"schema_version is {content.get('schema_version')!r}, expected {STAGE_VERSION}")
    for name, known in (("role", STAGE_ROLES), ("format", FORMATS), ("orientation", ORIENTATIONS)):
        if content.get(name) not in known:
            found.append(f"{name} is {content.get(name)!r}, expected one of {', '.join(known)}")
    structures = content.get("structures")
    if not isinstance(structures, dict) or not structures or not set(structures) <= set(STRUCTURES):
        found.append(f"structures are {structures!r}, expected an object with some of {', '.join(STRUCTURES)}")
    elif not all(isinstance(v, list) and v and all(type(n) is int and n > 0 for n in v) for v in structures.values()):
        found.append(f"structures are {structures!r}, expected lists of label values")
    digests = content.get("files_sha256")
    if not isinstance(digests, dict) or not digests or not all(map(_is_inside, digests)):
        found.append("files_sha256 names no files inside the folder")
    if isinstance(content.get("model"), str) and not _is_inside(content["model"]):
        found.append(f"model is {content['model']!r}, which is not inside the folder")
    return found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a small JSON file, whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def read_cascade(path: Path) -> dict[str, Any]:
    """Reads a ``cascade.json``.

    Raises:
        ModelError: it is missing or damaged.
    """
    content = _read(path)
    refine = content.get("refine")
    named = [content.get("locate"), *(refine if isinstance(refine, list) else [None])]
    if content.get("schema_version") != 1 or len(named) < 2 or not all(isinstance(name, str) for name in named):
        raise ModelError(
            f"The cascade {path} is not valid. Expected schema_version 1, 'locate' with a folder and 'refine' with a "
            "list of folders."
        )
    return content


def cascade_members(path: Path) -> tuple[Path, ...]:
    """The folders that a ``cascade.json`` names, the one that locates first.

    Raises:
        ModelError: it is missing or damaged.
    """
    content = read_cascade(path)
    return tuple((path.parent / name).resolve() for name in (content["locate"], *content["refine"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"There is no {path.name} in {path.parent}.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no JSON object.")
    return content


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name
