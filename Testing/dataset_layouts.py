"""Data sets as they are downloaded, made of what is at hand: LiTS, MSD, 3D-IRCADb, CHAOS, and a table of pairs.

``python Testing/dataset_layouts.py --data ../shared/data --to FOLDER --layout lits`` lays out real CTs with synthetic
lesions and invented bodies around label maps. Without ``--data`` the bodies come from formulas and are nobody's.
"""

from __future__ import annotations

import argparse
import csv
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from dicom_writer import write_slice
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.volume import read_labels, read_volume, write_labels
from LiverCascadeTrainingLib.anatomy import Tissue, invent_body
from LiverCascadeTrainingLib.cases import REAL_CASES, unpacked
from LiverCascadeTrainingLib.data.reading import placed_on
from LiverCascadeTrainingLib.lesions import LesionRanges, add_lesions
from LiverCascadeTrainingLib.painting import draw_palette, paint, scan
from LiverCascadeTrainingLib.phantom import SPACING_MM, phantom_organs

LAYOUTS = ("lits", "msd", "ircadb", "chaos", "csv")
# Away from the numbers that public data sets use, so that no known patient is meant.
FIRST_NUMBER = 200


@dataclass(frozen=True, eq=False)
class LabeledScan:
    """A CT with its labels.

    Attributes:
        name: what it is made of.
        array: int16 HU [k, j, i].
        labels: 0 background, 1 liver, 2 lesion, uint8 [k, j, i].
        grid: where both lie.
        lesions_known: false where real lesions may hide in the liver.
    """

    name: str
    array: np.ndarray
    labels: np.ndarray
    grid: Grid
    lesions_known: bool = True


@lru_cache(maxsize=2)
def _phantom(seed: int) -> np.ndarray:
    """A tissue map [k, j, i], voxels of 2 mm, from formulas."""
    rng = np.random.default_rng(seed)
    return invent_body(phantom_organs(rng), SPACING_MM, rng)


def invented(seed: int, step: int = 2, lesions: bool = True, tissue: np.ndarray | None = None) -> LabeledScan:
    """A CT of a body that was never anybody's.

    Args:
        seed: of densities, lesions and noise.
        step: every n-th voxel of 2 mm is taken.
        lesions: whether the liver has any.
        tissue: the body; None takes one from formulas.
    """
    rng = np.random.default_rng([seed, 5])
    generator = torch.Generator().manual_seed(seed)
    # Scans begin at different heights, so that no two have the same liver label.
    tissue = (_phantom(1) if tissue is None else tissue)[(seed % 9) * step :: step, ::step, ::step]
    tissue = torch.from_numpy(np.ascontiguousarray(tissue))
    spacing = (SPACING_MM * step,) * 3
    palette = draw_palette(rng)
    while palette.phase != "portal-venous" or not 70 < palette.mean_hu[Tissue.LIVER] < 150:
        palette = draw_palette(rng)
    liver = tissue == Tissue.LIVER
    hu = paint(tissue, palette, spacing, rng, generator)
    mask = torch.zeros_like(liver)
    if lesions:
        ranges = LesionRanges((8.0, 22.0), chance=1.0, mean_count=2.0)
        hu, mask = add_lesions(hu, liver, spacing, ranges, rng, generator)
    hu = scan(hu, spacing, rng, generator)
    array = hu.round().clamp(-1024, 3071).short().numpy()
    labels = (liver.byte() + (mask & liver).byte()).numpy()
    # Along (L, A, S), as most volumes of LiTS.
    affine = np.diag([-spacing[2], spacing[1], spacing[0], 1.0])
    affine[:3, 3] = (120.0 + seed, -150.0, 40.0)
    array, labels = (np.ascontiguousarray(a[:, :, ::-1]) for a in (array, labels))
    return LabeledScan(f"invented {seed}", array, labels, Grid(array.shape[::-1], affine))


def around_label_maps(data: Path, count: int, step: int = 1) -> Iterator[LabeledScan]:
    """CTs of bodies invented around the label maps of ``labels_btcv``."""
    for number, path in enumerate(sorted((data / "labels_btcv").glob("*.nii.gz"))[:count]):
        rng = np.random.default_rng([number, 6])
        # The headers' identity affine mirrors the patient: flipped, the first axis grows to the right.
        organs = read_labels(path)[0][:, :, ::-1].astype(np.uint8)
        yield invented(number, step, number % 4 != 3, invent_body(organs, SPACING_MM, rng))


def real_scans(data: Path) -> Iterator[LabeledScan]:
    """The real CTs that may be trained on; healthy ones get synthetic lesions, so that lesions are known in all."""
    for number, (name, (image, label, values, healthy)) in enumerate(REAL_CASES.items()):
        if not (data / name).exists():
            continue
        with unpacked(data / name / image) as path:
            volume = read_volume(path)
        labels, grid = read_labels(data / name / label)
        liver = placed_on(np.isin(labels, values), grid, volume.grid)
        if liver is None:
            continue
        array, mask = volume.array, np.zeros(liver.shape, np.uint8)
        if healthy:
            rng, generator = np.random.default_rng([number, 7]), torch.Generator().manual_seed(number)
            ranges = LesionRanges((5.0, 20.0), chance=1.0, mean_count=3.0)
            spacing = tuple(float(s) for s in volume.grid.spacing[::-1])
            hu, found = add_lesions(
                torch.from_numpy(array.astype(np.float32)), torch.from_numpy(liver), spacing, ranges, rng, generator
            )
            array, mask = hu.round().clamp(-1024, 3071).short().numpy(), found.byte().numpy()
        yield LabeledScan(name, array, liver.astype(np.uint8) + mask, volume.grid, healthy)


def write_nifti(path: Path, array: np.ndarray, grid: Grid) -> Path:
    """Writes any array [k, j, i] on its grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(path, array, grid)
    return path


def without_header(grid: Grid) -> Grid:
    """The identity that LiTS 28–47 have for a header."""
    return Grid(grid.size, np.eye(4))


def lay_out_lits(folder: Path, scans: Sequence[LabeledScan], first: int = FIRST_NUMBER) -> Path:
    """LiTS: two batches, ``volume-N.nii`` beside ``segmentation-N.nii``."""
    for number, item in enumerate(scans):
        batch = folder / f"Training Batch {1 + number % 2}"
        write_nifti(batch / f"volume-{first + number}.nii", item.array, item.grid)
        write_nifti(batch / f"segmentation-{first + number}.nii", item.labels, item.grid)
    return folder


def lay_out_msd(folder: Path, scans: Sequence[LabeledScan], first: int = FIRST_NUMBER) -> Path:
    """MSD Task03: ``imagesTr``, ``labelsTr``, ``dataset.json``."""
    root = folder / "Task03_Liver"
    training = []
    for number, item in enumerate(scans):
        name = f"liver_{first + number}.nii.gz"
        write_nifti(root / "imagesTr" / name, item.array, item.grid)
        write_nifti(root / "labelsTr" / name, item.labels, item.grid)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": "Liver",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": len(training),
        "training": training,
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return folder


def _write_dicom(folder: Path, array: np.ndarray, grid: Grid, series: str, **elements: object) -> None:
    """One axial file per slice of an array on a grid along (L, P, S)."""
    origin, spacing, direction = grid.to_lps()
    for k, pixels in enumerate(array):
        position = np.array(origin) + k * spacing[2] * np.array(direction).reshape(3, 3)[:, 2]
        write_slice(
            folder / f"image_{k}",
            pixels,
            position,
            InstanceNumber=k,
            PixelSpacing=[spacing[1], spacing[0]],
            SliceThickness=spacing[2],
            SeriesInstanceUID=series,
            **elements,
        )


def _as_lps(item: LabeledScan) -> LabeledScan:
    """``item`` with its axes along (L, P, S), as scanners write them."""
    canonical = item.grid.canonical()
    matrix = canonical.ijk_to_ras @ np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix[:3, 3] = canonical.to_ras(np.array([canonical.size[0] - 1, canonical.size[1] - 1, 0]))
    grid = Grid(canonical.size, matrix)
    array, labels = (placed_on(values, item.grid, grid) for values in (item.array, item.labels))
    return LabeledScan(item.name, array, labels, grid, item.lesions_known)


def lay_out_ircadb(folder: Path, scans: Sequence[LabeledScan], first: int = 1, zipped: bool = False) -> Path:
    """3D-IRCADb: ``3Dircadb1.N`` with ``PATIENT_DICOM`` and one folder of masks per structure."""
    for number, item in enumerate(_as_lps(item) for item in scans):
        root = folder / f"3Dircadb1.{first + number}"
        _write_dicom(root / "PATIENT_DICOM", item.array, item.grid, f"1.2.{number}.1")
        masks = {"liver": item.labels > 0, "livertumor01": item.labels == 2, "bone": item.array > 400}
        for structure, mask in masks.items():
            series = f"1.2.{number}.2.{len(structure)}"
            pixels = mask.astype(np.uint8) * 255
            _write_dicom(root / "MASKS_DICOM" / structure, pixels, item.grid, series)
        if zipped:
            for name in ("PATIENT_DICOM", "MASKS_DICOM"):
                _zip(root / name)
    return folder


def _zip(folder: Path) -> None:
    """Puts a folder into a zip file of its name, and removes it."""
    import shutil

    with zipfile.ZipFile(
        folder.with_name(f"{folder.name}.zip"), "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder.parent))
    shutil.rmtree(folder)


def lay_out_chaos(folder: Path, scans: Sequence[LabeledScan], first: int = 1) -> Path:
    """CHAOS: ``CT/N/DICOM_anon`` and ``CT/N/Ground``, the first file of each being the highest slice."""
    from PIL import Image

    for number, item in enumerate(_as_lps(item) for item in scans):
        root = folder / "Train_Sets" / "CT" / str(first + number)
        (root / "Ground").mkdir(parents=True, exist_ok=True)
        origin, spacing, direction = item.grid.to_lps()
        for place, k in enumerate(reversed(range(len(item.array)))):
            position = np.array(origin) + k * spacing[2] * np.array(direction).reshape(3, 3)[:, 2]
            write_slice(
                root / "DICOM_anon" / f"i{place:04d},0000b.dcm",
                item.array[k],
                position,
                InstanceNumber=place + 1,
                PixelSpacing=[spacing[1], spacing[0]],
                # Its anonymization gave every file a series of its own.
                SeriesInstanceUID=f"1.2.{number}.{place}",
            )
            mask = (item.labels[k] > 0).astype(np.uint8) * 255
            Image.fromarray(mask).save(root / "Ground" / f"liver_GT_{place:03d}.png")
    return folder


def lay_out_csv(folder: Path, scans: Sequence[LabeledScan], first: int = FIRST_NUMBER) -> Path:
    """A table of pairs; every second patient has Couinaud segments (here the liver in slabs of its own height)."""
    rows = []
    for number, item in enumerate(scans):
        name = f"p{first + number}"
        write_nifti(folder / "images" / f"{name}.nii.gz", item.array, item.grid)
        write_nifti(folder / "labels" / f"{name}.nii.gz", item.labels, item.grid)
        row = {
            "image": f"images/{name}.nii.gz",
            "label": f"labels/{name}.nii.gz",
            "patient": f"patient {first + number}",
            "group": "A" if number % 2 else "B",
            "lesions_known": "yes" if item.lesions_known else "no",
            "couinaud": "",
        }
        if number % 2 == 0:
            heights = np.flatnonzero((item.labels > 0).any(axis=(1, 2)))
            slab = np.clip((np.arange(len(item.labels)) - heights[0]) * 8 // max(1, len(heights)), 0, 7) + 1
            segments = np.where(item.labels > 0, slab[:, None, None], 0).astype(np.uint8)
            write_nifti(folder / "couinaud" / f"{name}.nii.gz", segments, item.grid)
            row["couinaud"] = f"couinaud/{name}.nii.gz"
        rows.append(row)
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


LAY_OUT = {
    "lits": lay_out_lits,
    "msd": lay_out_msd,
    "ircadb": lay_out_ircadb,
    "chaos": lay_out_chaos,
    "csv": lay_out_csv,
}


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with label maps and real CTs; without it, formulas only")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--layout", choices=LAYOUTS, default="lits")
    parser.add_argument("--bodies", type=int, default=6, help="invented bodies")
    parser.add_argument("--step", type=int, default=1, help="voxels of invented bodies are this many times 2 mm")
    parser.add_argument("--no-real", action="store_true", help="leave the real CTs out")
    options = parser.parse_args()
    scans: list[LabeledScan] = []
    if options.data is None:
        scans += [invented(seed, options.step, seed % 4 != 3) for seed in range(options.bodies)]
    else:
        scans += around_label_maps(options.data, options.bodies, options.step)
        if not options.no_real:
            scans += real_scans(options.data)
    if options.layout != "csv":
        # These layouts cannot say that lesions are unknown; CHAOS has none.
        scans = [item for item in scans if item.lesions_known]
    LAY_OUT[options.layout](options.to, scans)
    print(f"{len(scans)} cases as {options.layout} in {options.to}: {', '.join(item.name for item in scans)}.")


if __name__ == "__main__":
    main()
