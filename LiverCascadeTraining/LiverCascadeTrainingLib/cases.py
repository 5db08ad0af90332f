"""The training cases: synthetic bodies made from label maps, and real CTs, prepared once and memory-mapped."""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LiverCascadeLib.cascade import Options, load_cascade, segment
from LiverCascadeLib.geometry import resample
from LiverCascadeLib.volume import read_labels, read_volume

from .anatomy import invent_body
from .livers import BODY_MM, TRAINING_LIVERS, organs_of, with_liver
from .reviewed import REVIEWS, reviewed_liver

AIR_HU = -1024

# Real CTs of the default training: where they are, their liver label, and whether the liver is free of real lesions.
# 3D-IRCADb and its LiTS twins are for evaluation only and must not appear here.
REAL_CASES = {
    "lits_000": ("series.zip", "liver.nii.gz", (1,), False),
    "chaos_03": ("ct.nii.gz", "liver.nii.gz", (1,), True),
    "ts_example": ("ct.nii.gz", "seg_104_classes.nii.gz", (5,), True),
    "dicom_ct20": ("series", "seg.nii.gz", (5,), True),
}


@dataclass(frozen=True)
class Case:
    """A prepared case on an axis-aligned RAS grid.

    Attributes:
        name: identifies the case.
        kind: 'synthetic' (``image`` is a tissue map) or 'real' (``image`` is int16 HU).
        image: [k, j, i], memory-mapped.
        liver: bool-like uint8 [k, j, i]; for synthetic cases None, the tissue map says it.
        spacing: mm along (k, j, i).
        lesions_known: false where real lesions may hide inside the liver label.
        liver_box: (low, high) corners of the liver, voxels [k, j, i].
    """

    name: str
    kind: str
    image: np.ndarray
    liver: np.ndarray | None
    spacing: tuple[float, float, float]
    lesions_known: bool
    liver_box: tuple[tuple[int, int, int], tuple[int, int, int]]


def prepare(data: Path, cache: Path, bodies_per_map: int = 2, seed: int = 2026) -> None:
    """Makes the cache of cases; what exists already is kept, so that it can be interrupted.

    Args:
        data: folder with ``labels_btcv``, ``labels_lits_liver`` and the real CTs named in :data:`REAL_CASES`.
        cache: where the prepared cases go.
        bodies_per_map: how many bodies are invented around each label map.
        seed: of the invented bodies.
    """
    cache.mkdir(parents=True, exist_ok=True)
    maps = sorted((data / "labels_btcv").glob("*.nii.gz"))
    for path in maps:
        for variant in range(bodies_per_map):
            name = f"btcv_{path.name[:4]}_{variant}"
            if not (cache / f"{name}.json").exists():
                rng = np.random.default_rng([seed, int(path.name[:4]), variant])
                _save_body(cache, name, organs_of(path), rng)
    if maps and (data / "labels_lits_liver").exists():
        _prepare_shaped(data, maps, cache, seed)
    for name, (image, label, values, healthy) in REAL_CASES.items():
        if (cache / f"{name}.json").exists() or not (data / name).exists():
            continue
        with unpacked(data / name / image) as path:
            volume = read_volume(path)
        labels, label_grid = read_labels(data / name / label)
        # A label map may be stored with other flips than its image; both are resampled by their own grids.
        if not label_grid.canonical().is_close(volume.grid.canonical(), 0.5):
            raise ValueError(f"{name}: the label map {label_grid} does not cover the image {volume.grid}.")
        _save_real(cache, name, volume, np.isin(labels, values), label_grid, healthy)


def _prepare_shaped(data: Path, maps: Sequence[Path], cache: Path, seed: int) -> None:
    """Adds a body around each liver of LiTS that is for training, among the organs of one of ``maps``."""
    for number in TRAINING_LIVERS:
        name = f"shaped_{number:03d}"
        if not (cache / f"{name}.json").exists():
            # The last number is above every variant's, so that no other body is drawn with the same three.
            rng = np.random.default_rng([seed, number, len(maps)])
            organs = organs_of(maps[int(rng.integers(len(maps)))])
            _save_body(cache, name, with_liver(organs, data, number), rng)


def _save_body(cache: Path, name: str, organs: np.ndarray, rng: np.random.Generator) -> None:
    """Invents a body around organs and saves it."""
    _save(cache, name, "synthetic", invent_body(organs, BODY_MM, rng), None, (BODY_MM,) * 3, True)


def prepare_reviewed(data: Path, cache: Path, models: Path) -> None:
    """Adds the real CTs without labels, with what the cascade says of them and a review of it.

    Args:
        data: folder with ``unlabelled``; what is not there is left out.
        cache: where the prepared cases go; what exists already is kept.
        models: folder of the cascade.
    """
    options = Options()
    cascade = None
    for name, review in REVIEWS.items():
        path = data / "unlabelled" / review.file
        if (cache / f"{name}.json").exists() or not path.exists():
            continue
        cascade = cascade or load_cascade(models, options)
        volume = read_volume(path)
        liver = reviewed_liver(volume, segment(volume, cascade, options).labels > 0, review)
        _save_real(cache, name, volume, liver, volume.grid, False)


def _save_real(cache, name, volume, liver, label_grid, lesions_known) -> None:
    """Saves a real CT on the canonical grid, with voxels of 0.75 mm at least."""
    spacing = tuple(max(s, n) for s, n in zip((0.75, 0.75, 0.75), volume.grid.canonical().spacing, strict=True))
    target = volume.grid.canonical(spacing)
    hu = resample(volume.array, volume.grid, target, AIR_HU).round().clamp(-32768, 32767).short().numpy()
    mask = resample(liver.astype(np.uint8), label_grid, target, 0).gt(0.5).byte().numpy()
    _save(cache, name, "real", hu, mask, tuple(float(s) for s in target.spacing[::-1]), lesions_known)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """``path``, or a temporary folder with its content where it is a zip file."""
    if path.suffix != ".zip":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        for number, member in enumerate(m for m in archive.infolist() if not m.is_dir()):
            # Only the last folder's name is kept, so that no member can point outside.
            parent = Path(folder) / Path(member.filename).parent.name
            parent.mkdir(exist_ok=True)
            (parent / f"{number:06d}").write_bytes(archive.read(member))
        yield Path(folder)


def _save(cache, name, kind, image, liver, spacing, lesions_known) -> None:
    mask = image == 6 if liver is None else liver > 0
    hits = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    np.save(cache / f"{name}_image.npy", np.ascontiguousarray(image))
    if liver is not None:
        np.save(cache / f"{name}_liver.npy", np.ascontiguousarray(liver))
    facts = {
        "name": name,
        "kind": kind,
        "spacing": spacing,
        "lesions_known": lesions_known,
        "liver_box": [[int(h[0]) for h in hits], [int(h[-1]) for h in hits]],
        "crc32": zlib.crc32(np.ascontiguousarray(image)),
    }
    (cache / f"{name}.json").write_text(json.dumps(facts))


def load_cases(cache: Path, exclude: Iterable[str] = ()) -> list[Case]:
    """All prepared cases, memory-mapped, sorted by name; names that start with an entry of ``exclude`` are left out.

    Raises:
        FileNotFoundError: the cache is empty.
    """
    cases = []
    for path in sorted(cache.glob("*.json")):
        facts = json.loads(path.read_text())
        if any(facts["name"].startswith(prefix) for prefix in exclude):
            continue
        liver = cache / f"{facts['name']}_liver.npy"
        cases.append(
            Case(
                facts["name"],
                facts["kind"],
                np.load(cache / f"{facts['name']}_image.npy", mmap_mode="r"),
                np.load(liver, mmap_mode="r") if liver.exists() else None,
                tuple(facts["spacing"]),
                facts["lesions_known"],
                tuple(tuple(corner) for corner in facts["liver_box"]),
            )
        )
    if not cases:
        raise FileNotFoundError(f"No prepared cases in {cache}: run 'livercascade-train prepare' first.")
    return cases
