"""From files on disk to the stages of a cascade, whatever kind of model lies there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bundles.deducing import deduced_stage, is_bundle
from .bundles.stage import BundleStage
from .errors import ModelError
from .models import Manifest, load_manifest
from .models.manifest import MANIFEST_NAME
from .models.stage_file import STAGE_NAME, StageFile, read_stage_file
from .nnunet.folder import is_nnunet_folder, stage_file_for
from .nnunet.stage import NnUnetStage
from .predictor import NetworkPredictor
from .stages import Stage

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


@dataclass(frozen=True)
class StageOptions:
    """How stages compute; see :class:`.cascade.Options`."""

    device: str = "cpu"
    overlap: float | None = None
    thorough: bool = False
    faithful: bool = False


def read_cascade(path: Path) -> CascadeFile:
    """Which models lie at ``path``.

    Args:
        path: a ``cascade.json``, a folder that holds one, or a folder with the model folders ``locate`` and
            ``refine``, and ``classify`` if there is to be a gate.

    Raises:
        ModelError: ``cascade.json`` cannot be read or is not valid.
    """
    file = path / CASCADE_NAME if path.is_dir() else path
    if not file.is_file() or file.name == MANIFEST_NAME:
        folder = path
        classify = folder / "classify"
        return CascadeFile(folder / "locate", (folder / "refine",), classify if classify.is_dir() else None)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{file} cannot be read as JSON: {error}.") from None
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


def load_stage(folder: Path, role: str, options: StageOptions) -> Stage:
    """The model in ``folder``, ready to work.

    Args:
        folder: of one of the project's own models (``manifest.json``), of an installed one of others
            (``stage.json``), or as its owners export it.
        role: 'locate' or 'refine'.
        options: device and windows.

    Raises:
        ModelError: there is no model, it is damaged, it has another role, or it is of a kind that is not run here.
    """
    if (folder / MANIFEST_NAME).is_file():
        manifest = load_manifest_for(folder, role)
        return NetworkPredictor(manifest, options.device, options.overlap, thorough=options.thorough)
    model = _stage_file(folder, role)
    _check_role(folder, model.role, role)
    if model.format == "nnunet":
        return NnUnetStage(model, options.device, options.faithful, options.thorough, options.overlap)
    return BundleStage(model, options.device, options.faithful, options.overlap)


def load_manifest_for(folder: Path, role: str) -> Manifest:
    """The manifest of one of the project's own models.

    Raises:
        ModelError: it is missing, not valid, or of another role.
    """
    manifest = load_manifest(folder)
    _check_role(folder, manifest.role, role)
    return manifest


def _stage_file(folder: Path, role: str) -> StageFile:
    if (folder / STAGE_NAME).is_file():
        return read_stage_file(folder)
    if is_nnunet_folder(folder):
        return stage_file_for(folder, role)
    if is_bundle(folder):
        return deduced_stage(folder, role)
    # The sentence about what is expected.
    load_manifest(folder)
    raise ModelError(f"There is no model at {folder}.")


def _check_role(folder: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ModelError(f"{folder} holds a model for the role {found!r}, expected {expected!r}.")


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
