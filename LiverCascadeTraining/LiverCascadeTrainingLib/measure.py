"""Measures a cascade on the labeled real cases and on the embedded example, and writes the figures to its models."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LiverCascadeLib.cascade import Options, load_cascade, segment
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.models.cascade_file import read_cascade
from LiverCascadeLib.resources import RESOURCES
from LiverCascadeLib.volume import Volume, read_labels, read_volume

from .cards import write_card
from .cases import REAL_CASES, unpacked
from .evaluation import compare, in_order_of
from .names import check_name

EXAMPLE, HELD_OUT = "embedded example", "ircadb_17"


@dataclass(frozen=True)
class Reference:
    """A scan with its truth.

    Attributes:
        volume: the CT.
        labels: 0 background, 1 liver, 2 lesion, [k, j, i] on ``volume.grid``.
        note: what a reader must know about this case: seen in training or not, and what its truth is worth.
        with_lesions: whether the truth tells lesions from liver.
        independent: neither trained on nor chosen for what is found in it; reports quote such cases alone.
    """

    volume: Volume
    labels: np.ndarray
    note: str
    with_lesions: bool
    independent: bool


def references(data: Path) -> Iterator[tuple[str, Reference]]:
    """The cases that are there, by name."""
    for name in (EXAMPLE, *REAL_CASES, HELD_OUT):
        if name == EXAMPLE or (data / name).exists():
            yield name, reference(data, name)


def reference(data: Path, name: str) -> Reference:
    """One of the cases.

    Args:
        data: folder with the real cases.
        name: :data:`EXAMPLE`, one of :data:`.cases.REAL_CASES`, or :data:`HELD_OUT`.

    Raises:
        SettingError: there is no case of this name.
        InputError: its files are not there, or cannot be read.
    """
    check_name(name, (EXAMPLE, *REAL_CASES, HELD_OUT), "case")
    if name == EXAMPLE:
        sample = RESOURCES / "SampleData"
        truth, _ = read_labels(sample / "synthetic_abdomen_truth.nii.gz")
        volume = read_volume(sample / "synthetic_abdomen.nii.gz")
        return Reference(
            volume, truth, "synthetic, not trained on; CHOSEN to have lesions that are found", True, False
        )
    if not (data / name).exists():
        raise InputError(f"There is no folder {data / name}. Name the folder that holds the real cases.")
    if name == HELD_OUT:
        return _ircadb(data / name)
    image, label, values, healthy = REAL_CASES[name]
    with unpacked(data / name / image) as path:
        volume = read_volume(path)
    labels, grid = read_labels(data / name / label)
    note = "TRAINED ON" + ("; no lesion known" if healthy else "; its lesions are not labeled")
    liver = in_order_of(np.isin(labels, values).astype(np.uint8), grid, volume.grid)
    return Reference(volume, liver, note, healthy, False)


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
    return Reference(volume, labels, "never trained on", True, True)


def measure_models(models: Path, data: Path) -> dict[str, dict]:
    """Runs the cascade in ``models`` on all :func:`references`, and writes figures and cards to its models.

    Args:
        models: folder with the models ``locate`` and ``refine``.
        data: folder with the real cases; those that are missing are left out.

    Returns:
        figures by case, as :func:`.evaluation.compare` gives them, with ``note`` and ``independent`` each.
    """
    options = Options(device="cpu")
    cascade = load_cascade(models, options)
    cases = {}
    for name, reference in references(data):
        result = segment(reference.volume, cascade, options)
        figures = compare(result.labels, reference.labels, reference.volume.grid, reference.with_lesions)
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
        cases[name] = {"note": reference.note, "independent": reference.independent, **rounded}
        print(f"{name}: {cases[name]}", flush=True)
    for folder in read_cascade(models).folders:
        manifest = load_manifest(folder)
        measured = {**manifest.measured, "date": datetime.date.today().isoformat(), "cascade": cases}
        dataclasses.replace(manifest, measured=measured).save(folder)
        write_card(folder)
    return cases
