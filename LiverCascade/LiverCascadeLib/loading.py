"""From files on disk to the stages of a cascade, whatever kind of model lies there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .bundles.deducing import deduced_stage, is_bundle
from .bundles.stage import BundleStage
from .errors import ModelError
from .models import Manifest, load_manifest
from .models.cascade_file import CascadeFile
from .models.manifest import MANIFEST_NAME
from .models.stage_file import STAGE_NAME, StageFile, read_stage_file
from .nnunet.folder import is_nnunet_folder, stage_file_for
from .nnunet.stage import NnUnetStage
from .predictor import NetworkPredictor
from .stages import Stage


@dataclass(frozen=True)
class StageOptions:
    """How stages compute; see :class:`.cascade.Options`."""

    device: str = "cpu"
    overlap: float | None = None
    thorough: bool = False
    faithful: bool = False


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
    model = _described(folder, role)
    if isinstance(model, Manifest):
        return NetworkPredictor(model, options.device, options.overlap, thorough=options.thorough)
    if model.format == "nnunet":
        return NnUnetStage(model, options.device, options.faithful, options.thorough, options.overlap)
    return BundleStage(model, options.device, options.faithful, options.overlap)


def check_models(found: CascadeFile) -> None:
    """Reads what the models of a cascade say of themselves, without their weights.

    Raises:
        ModelError: one is missing, not valid, or has another role.
    """
    for role, folders in (("locate", [found.locate]), ("refine", found.refine)):
        for folder in folders:
            _described(folder, role)
    if found.classify is not None:
        load_manifest_for(found.classify, "classify")


def load_manifest_for(folder: Path, role: str) -> Manifest:
    """The manifest of one of the project's own models.

    Raises:
        ModelError: it is missing, not valid, or of another role.
    """
    manifest = load_manifest(folder)
    _check_role(folder, manifest.role, role)
    return manifest


def _described(folder: Path, role: str) -> Manifest | StageFile:
    """What the model in ``folder`` says of itself, with the right role."""
    if (folder / MANIFEST_NAME).is_file():
        return load_manifest_for(folder, role)
    model = _stage_file(folder, role)
    _check_role(folder, model.role, role)
    return model


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
