"""From a run to a model that the engine loads: safetensors, manifest and model card."""

from __future__ import annotations

from pathlib import Path

from LiverCascadeLib.models import Manifest, save_weights

from .cards import write_card
from .training import Trainer

WEIGHTS = "weights.safetensors"
INTENDED_USE = "Research use only. Not a medical device; not for diagnosis or treatment decisions."


def export_model(trainer: Trainer, folder: Path, training_data: list[str], measured: dict | None = None) -> Manifest:
    """Writes the averaged weights, the manifest and the model card of a run.

    Args:
        trainer: a trainer that stands at the state to be exported.
        folder: the model's folder, made where needed.
        training_data: one line for each source of training data, with its license.
        measured: figures for the manifest.

    Returns:
        The manifest as written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = trainer.config
    digest = save_weights(trainer.average, folder / WEIGHTS)
    manifest = Manifest(
        id=config.model_id,
        role=config.role,
        title=config.title,
        architecture=config.architecture,
        arguments=config.arguments,
        inputs=config.inputs,
        labels=config.labels,
        spacing_mm=config.spacing_mm,
        patch_size=config.patch_size,
        window_hu=config.window_hu,
        weights_file=WEIGHTS,
        weights_sha256=digest,
        version=config.version,
        license="CC BY-SA 4.0",
        intended_use=INTENDED_USE,
        margin_mm=config.margin_mm if config.role == "refine" else 0.0,
        overlap=config.overlap,
        min_lesion_peak=config.min_lesion_peak,
        input_spacing_mm=config.input_spacing_mm,
        training_data=tuple(training_data),
        measured={"training_steps": trainer.step, **(measured or {})},
        folder=folder,
    )
    manifest.save(folder)
    write_card(folder)
    return manifest
