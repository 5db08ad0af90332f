"""``stage.json``: how a model of somebody else is used as a stage, beside its untouched files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ModelError
from .json_files import field_problems, read_json
from .weights import sha256_of

SCHEMA_VERSION = 1
STAGE_NAME = "stage.json"
FORMATS = ("nnunet", "monai-bundle", "torchscript")
ROLES = ("locate", "refine")
ORIENTATIONS = ("RAS", "LPS", "stored")
COUINAUD = tuple(f"couinaud_{number}" for number in range(1, 9))
STRUCTURES = ("liver", "lesion", *COUINAUD, "vessel")


@dataclass(frozen=True)
class StageFile:
    """What a foreign model does not say of itself.

    Attributes:
        format: whose files they are, one of :data:`FORMATS`.
        id: unique name, stays with the weights.
        role: 'locate' or 'refine'.
        title: name shown to the user.
        model: path of the model below ``folder``: nnU-Net's trainer folder, a bundle's root, a TorchScript file.
        structures: label values of the model that make up each structure, of :data:`STRUCTURES`.
        version, license, citation, intended_use: for people.
        configuration: nnU-Net: which of the plans; empty takes the one that the checkpoint names.
        orientation: axes along which the network wants the voxels; 'stored' takes them as they lie in the file.
        margin_mm: refine models: tissue around the located liver that belongs to the box.
        mirror: whether its owners average over mirrored copies.
        folds: nnU-Net: which folds; None takes all.
        checkpoint: nnU-Net: file name in each fold.
        files_sha256: hexadecimal digests by path below ``folder``, recorded when the model was installed; checked
            each time that it is loaded.
        settings: TorchScript: what the network wants, see :mod:`..bundles`.
        folder: where ``stage.json`` was read from.
    """

    format: str
    id: str
    role: str
    title: str
    model: str
    structures: dict[str, tuple[int, ...]]
    version: str = ""
    license: str = ""
    citation: str = ""
    intended_use: str = ""
    configuration: str = ""
    orientation: str = "stored"
    margin_mm: float = 0.0
    mirror: bool = False
    folds: tuple[int | str, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"
    files_sha256: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path = field(default=Path("."), compare=False)

    @property
    def path(self) -> Path:
        """Where the model itself lies."""
        return self.folder / self.model

    @property
    def sha256(self) -> str:
        """One digest for all files together, for the provenance; empty where none were recorded."""
        import hashlib

        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.files_sha256.items()))
        return hashlib.sha256(lines.encode()).hexdigest() if lines else ""

    def save(self) -> None:
        """Writes ``stage.json`` into :attr:`folder`."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        del content["folder"]
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (self.folder / STAGE_NAME).write_text(text + "\n", encoding="utf-8")

    def verify(self) -> None:
        """Compares the files with what was recorded.

        Raises:
            ModelError: a file is missing or altered.
        """
        for name, expected in self.files_sha256.items():
            path = self.folder / name
            if not path.is_file():
                raise ModelError(f"The model {self.id} is not whole: {path} is missing. Install it again.")
            digest = sha256_of(path)
            if digest != expected:
                raise ModelError(
                    f"A file of the model {self.id} is not the one that was installed: {path} has SHA-256 "
                    f"{digest[:12]}…, expected {expected[:12]}…. It is damaged or was exchanged; install it again."
                )


def read_stage_file(folder: Path) -> StageFile:
    """Reads and validates ``stage.json`` in ``folder``.

    Raises:
        ModelError: not there, not JSON, or not valid; the message names the field, what was found and what was
            expected.
    """
    path = folder / STAGE_NAME
    content = read_json(path, f"There is no model at {folder}: {STAGE_NAME} is missing.")
    problems = list(_problems(content))
    if problems:
        raise ModelError(f"{path} is not valid: {'; '.join(problems)}.")
    content.pop("schema_version")
    content["structures"] = {name: tuple(values) for name, values in content["structures"].items()}
    folds = content.get("folds")
    content["folds"] = None if folds in (None, "all") else tuple(folds)
    return StageFile(**content, folder=folder)


def _problems(content: Any):
    """Yields what is wrong with the content, in words."""
    if not isinstance(content, dict):
        yield f"expected a JSON object, found {type(content).__name__}"
        return
    if content.get("schema_version") != SCHEMA_VERSION:
        yield f"schema_version is {content.get('schema_version')!r}, this version reads {SCHEMA_VERSION}"
        return
    yield from field_problems(StageFile, content)
    for name, (accepts, expected) in _RULES.items():
        if name in content and not accepts(content[name]):
            yield f"{name} is {content[name]!r}, expected {expected}"


def _is_inside(value: Any) -> bool:
    if not isinstance(value, str) or not value or "\\" in value:
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and ".." not in path.parts and ":" not in value


def _is_structures(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            name in STRUCTURES
            and isinstance(labels, list)
            and labels
            and all(isinstance(label, int) and not isinstance(label, bool) and 1 <= label <= 255 for label in labels)
            for name, labels in value.items()
        )
    )


def _is_folds(value: Any) -> bool:
    return value in (None, "all") or (
        isinstance(value, list) and bool(value) and all(fold == "all" or type(fold) is int for fold in value)
    )


def _is_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_inside(name) and isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        for name, digest in value.items()
    )


_TEXT = (lambda v: isinstance(v, str), "a text")
_NAME = (lambda v: isinstance(v, str) and bool(v.strip()), "a text")
_RULES = {
    "format": (lambda v: v in FORMATS, f"one of {', '.join(FORMATS)}"),
    "id": _NAME,
    "role": (lambda v: v in ROLES, f"one of {', '.join(ROLES)}"),
    "title": _NAME,
    "model": (_is_inside, "a path below this folder"),
    "structures": (_is_structures, f"label values (lists of 1 to 255) by names of {', '.join(STRUCTURES)}"),
    "version": _TEXT,
    "license": _TEXT,
    "citation": _TEXT,
    "intended_use": _TEXT,
    "configuration": _TEXT,
    "orientation": (lambda v: v in ORIENTATIONS, f"one of {', '.join(ORIENTATIONS)}"),
    "margin_mm": (lambda v: type(v) in (int, float) and 0 <= v < 1000, "a number of millimetres, not negative"),
    "mirror": (lambda v: isinstance(v, bool), "true or false"),
    "folds": (_is_folds, "'all' or a list of fold numbers"),
    "checkpoint": (lambda v: _is_inside(v) and "/" not in v, "a file name"),
    "files_sha256": (_is_digests, "64 hexadecimal digits by paths below this folder"),
    "settings": (lambda v: isinstance(v, dict), "an object"),
}
