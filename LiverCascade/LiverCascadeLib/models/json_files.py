"""JSON files that describe models, read with sentences for what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ..errors import ModelError


def read_json(path: Path, missing: str) -> Any:
    """The content of a JSON file.

    Args:
        missing: what to say where there is no such file.

    Raises:
        ModelError: it is missing, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(missing) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}.") from None


def field_problems(kind: type, content: dict[str, Any]) -> Iterator[str]:
    """Yields which fields of a dataclass are missing in ``content``, and what it has that is none; never 'folder'."""
    known = {f.name: f for f in fields(kind) if f.name != "folder"}
    optional = {n for n, f in known.items() if f.default is not MISSING or f.default_factory is not MISSING}
    yield from (f"{name} is missing" for name in known if name not in content and name not in optional)
    yield from (f"{name} is not a known field" for name in content if name not in known and name != "schema_version")
