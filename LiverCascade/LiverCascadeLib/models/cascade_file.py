"""``cascade.json``: which models work together.

It names one folder of a model that locates and some of models that refine, relative to itself or absolute.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ModelError

CASCADE_FILE = "cascade.json"
SCHEMA_VERSION = 1


def read_cascade_file(path: Path) -> dict[str, Any]:
    """Reads a ``cascade.json``.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"There is no cascade {path}.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"The cascade {path} cannot be read as JSON: {error}.") from None
    refine = content.get("refine") if isinstance(content, dict) else None
    named = [content.get("locate"), *refine] if isinstance(refine, list) and refine else [None]
    if not all(isinstance(name, str) for name in named) or content.get("schema_version") != SCHEMA_VERSION:
        raise ModelError(
            f"The cascade {path} is not valid. Expected schema_version {SCHEMA_VERSION}, 'locate' with a folder and "
            "'refine' with a list of folders."
        )
    return content


def cascade_members(path: Path) -> tuple[Path, ...]:
    """The folders that a ``cascade.json`` names, the one that locates first.

    Raises:
        ModelError: it is missing or damaged.
    """
    content = read_cascade_file(path)
    return tuple((path.parent / name).resolve() for name in (content["locate"], *content["refine"]))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a small JSON file, whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
