"""One small file for each case that was run, which is only taken up again where everything behind it is the same."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from LiverCascadeLib.errors import InputError
from LiverCascadeLib.models import load_manifest

from ..cards import write_card


@dataclass(frozen=True)
class Records:
    """Results by name, in a folder.

    Attributes:
        folder: is made when the first result is written.
        key: what the results depend on, such as the hashes of the weights; plain JSON values.
    """

    folder: Path
    key: Mapping[str, Any]

    def path(self, name: str) -> Path:
        """The file of a result."""
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.json"

    def get(self, name: str) -> dict[str, Any] | None:
        """A result; None where it was not computed, or with another key.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path(name)
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return content["result"] if content["key"] == self.key and content["name"] == name else None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path} is no result of this command, or is damaged. Delete it.") from None

    def put(self, name: str, result: Mapping[str, Any]) -> None:
        """Keeps a result; the file is complete or not there."""
        write_json(self.path(name), {"name": name, "key": self.key, "result": result})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, with its folder; the file is complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.rename(path)


def into_card(models: Path, name: str, summary: Mapping[str, Any]) -> None:
    """Writes a proof into the manifest and the card of the refine model in ``models``.

    Args:
        models: folder with the model ``refine``.
        name: of the proof among what was measured.
        summary: plain JSON values.
    """
    manifest = load_manifest(models / "refine")
    dataclasses.replace(manifest, measured={**manifest.measured, name: dict(summary)}).save(models / "refine")
    write_card(models / "refine")
