"""Model folders of others, as small as can be: the right files with random content where the weights would be."""

from __future__ import annotations

import io
import json
import random
import zipfile
from dataclasses import replace
from pathlib import Path

from LiverCascadeLib.models.catalogue import Catalogue, CatalogueModel, load_catalogue

WEIGHTS_BYTES = 300_000


def nnunet_files(trainer: str, labels: dict | None = None, folds: tuple[str, ...] = ("fold_0",)) -> dict[str, bytes]:
    """The files of nnU-Net's trainer folder, by path; ``trainer`` is the folder."""
    rng = random.Random(trainer)
    labels = labels or {"background": 0, "liver": 1, "tumor": 2}
    files = {
        f"{trainer}/dataset.json": json.dumps({"labels": labels, "channel_names": {"0": "CT"}}).encode(),
        f"{trainer}/plans.json": json.dumps({"plans_name": "nnUNetPlans"}).encode(),
    }
    for fold in folds:
        files[f"{trainer}/{fold}/checkpoint_final.pth"] = rng.randbytes(WEIGHTS_BYTES)
        files[f"{trainer}/{fold}/validation/patient_7.nii.gz"] = b"somebody's liver"
    return files


def bundle_files(root: str) -> dict[str, bytes]:
    """The files of a MONAI bundle."""
    outputs = {"pred": {"channel_def": {"0": "background", "5": "liver", "6": "stomach"}}}
    return {
        f"{root}/configs/metadata.json": json.dumps(
            {"version": "0.2.5", "network_data_format": {"outputs": outputs}}
        ).encode(),
        f"{root}/configs/inference.json": b"{}",
        f"{root}/models/model.pt": random.Random(root).randbytes(WEIGHTS_BYTES),
    }


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip, the same for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def written(files: dict[str, bytes], folder: Path) -> Path:
    """The files below ``folder``, which is given back."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def files_of(entry: CatalogueModel) -> dict[str, bytes]:
    """What the zip of an entry of the catalogue holds, as far as this program cares."""
    if entry.format == "nnunet":
        return nnunet_files(entry.model, {"background": 0, "something": 1})
    return bundle_files(entry.model)


def served_catalogue(base: str, **changes: object) -> tuple[Catalogue, dict[str, bytes]]:
    """The catalogue with small zips from ``base`` in place of the real ones, and these zips by their path."""
    content, models = {}, []
    for entry in load_catalogue().models:
        content[entry.file] = zipped(files_of(entry))
        models.append(replace(entry, base_url=base, size_bytes=None, sha256=None, sha1=None, **changes))
    return Catalogue(tuple(models), load_catalogue().cascades), content
