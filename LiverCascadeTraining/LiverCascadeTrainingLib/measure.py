"""Measures a cascade on the labeled real cases and on the embedded example, and writes the figures to its models."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LiverCascadeLib.cascade import Options, load_cascade, segment
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.resources import RESOURCES
from LiverCascadeLib.volume import Volume, read_labels, read_volume

from .cards import write_card
from .cases import REAL_CASES, unpacked
from .evaluation import compare, in_order_of

HELD_OUT = "ircadb_17"


@dataclass(frozen=True)
class Reference:
    """A scan with its truth.

    Attributes:
        volume: the CT.
        labels: 0 background, 1 liver, 2 lesion, [k, j, i] on ``volume.grid``.
        note: what a reader must know about this case: seen in training or not, and what its truth is worth.
        with_lesions: whether the truth tells lesions from liver.
    """

    volume: Volume
    labels: np.ndarray
    note: str
    with_lesions: bool


def references(data: Path) -> Iterator[tuple[str, Reference]]:
    """The cases that are there, by name."""
    sample = RESOURCES / "SampleData"
    truth, _ = read_labels(sample / "synthetic_abdomen_truth.nii.gz")
    yield (
        "embedded example",
        Reference(read_volume(sample / "synthetic_abdomen.nii.gz"), truth, "synthetic, not trained on", True),
    )
    for name, (image, label, values, healthy) in REAL_CASES.items():
        if (data / name).exists():
            with unpacked(data / name / image) as path:
                volume = read_volume(path)
            labels, grid = read_labels(data / name / label)
            note = "TRAINED ON" + ("; no lesion known" if healthy else "; its lesions are not labeled")
            turned = in_order_of(np.isin(labels, values).astype(np.uint8), grid, volume.grid)
            yield name, Reference(volume, turned, note, healthy)
    if (data / HELD_OUT).exists():
        yield HELD_OUT, _ircadb(data / HELD_OUT)


def _ircadb(folder: Path) -> Reference:
    with unpacked(folder / "PATIENT_DICOM.zip") as path:
        volume = read_volume(path)
    labels = np.zeros(volume.grid.shape, np.uint8)
    with unpacked(folder / "MASKS_DICOM.zip") as path:
        for mask in sorted(path.glob("**/liver*")):
            values = read_volume(mask).array > 0
            if mask.name == "liver":
                labels[values & (labels == 0)] = 1
            else:
                labels[values] = 2
    return Reference(volume, labels, "never trained on", True)


def measure_models(models: Path, data: Path) -> dict[str, dict]:
    """Runs the cascade in ``models`` on all :func:`references`, and writes figures and cards to its two models.

    Args:
        models: folder with the models ``locate`` and ``refine``.
        data: folder with the real cases; those that are missing are left out.

    Returns:
        figures by case, as :func:`.evaluation.compare` gives them, with a ``note`` each.
    """
    options = Options(device="cpu")
    cascade = load_cascade(models, options)
    cases = {}
    for name, reference in references(data):
        result = segment(reference.volume, cascade, options)
        figures = compare(result.labels, reference.labels, reference.volume.grid, reference.with_lesions)
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
        cases[name] = {"note": reference.note, **rounded}
        print(f"{name}: {cases[name]}", flush=True)
    for role in ("locate", "refine"):
        manifest = load_manifest(models / role)
        measured = {**manifest.measured, "date": datetime.date.today().isoformat(), "cascade": cases}
        dataclasses.replace(manifest, measured=measured).save(models / role)
        write_card(models / role)
    return cases
