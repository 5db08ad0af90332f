"""Synthetic scans that no network was trained on: livers of other patients in bodies that were not seen before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from LiverCascadeLib.geometry import Box, Grid, resample
from LiverCascadeLib.postprocess import components
from LiverCascadeLib.volume import Volume

from .anatomy import Tissue, invent_body
from .lesions import LesionRanges, add_lesions
from .livers import BODY_MM, HELD_OUT_LIVERS, organs_of, with_liver
from .painting import draw_palette, paint, scan

# Painted at this spacing along (k, j, i), close to the refine network's, before the scanner makes slices of it.
PAINTED_MM = (1.5, 1.0, 1.0)
# Slice distances of scanners, and how often they are met.
SLICES_MM = {1.5: 0.3, 2.5: 0.25, 3.0: 0.2, 5.0: 0.25}
# Air that is scanned around the body.
RIM_MM = 10.0
LESIONS = LesionRanges((3.0, 35.0), chance=0.9, mean_count=4.0, bright_chance=0.1, patchy_chance=0.4)


@dataclass(frozen=True, eq=False)
class HeldOutScan:
    """A scan with its truth.

    Attributes:
        volume: the CT.
        truth: 0 background, 1 liver, 2 and above lesions (26-connected components), [k, j, i] on ``volume.grid``.
        facts: what it was made of.
    """

    volume: Volume
    truth: np.ndarray
    facts: dict[str, object]


def make_scan(data: Path, seed: int, number: int, ranges: LesionRanges = LESIONS) -> HeldOutScan:
    """Scan ``number`` of a series: a function of seed and number alone.

    Args:
        data: folder with ``labels_btcv`` and ``labels_lits_liver``.
        seed: of the series. Training uses 2020 … 2039.
        number: counts from 0.
        ranges: sizes and counts of lesions.

    Raises:
        FileNotFoundError: the label maps are not there.
    """
    rng = np.random.default_rng([seed, number])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    bodies = sorted((data / "labels_btcv").glob("*.nii.gz"))
    if not bodies:
        raise FileNotFoundError(f"There are no label maps in {data / 'labels_btcv'}.")
    # Shuffled once per seed, so that no liver comes twice before all have come.
    liver_number = int(np.random.default_rng(seed).permutation(HELD_OUT_LIVERS)[number % len(HELD_OUT_LIVERS)])
    body = bodies[int(rng.integers(len(bodies)))]
    organs = with_liver(organs_of(body), data, liver_number)
    tissue = _without_air(invent_body(organs, BODY_MM, rng))
    volume, truth, phase = _scanned(tissue, ranges, rng, generator)
    facts = {"liver": f"LiTS {liver_number}", "body": f"BTCV {body.name[:4]}", "phase": phase}
    return HeldOutScan(volume, truth, {**facts, "spacing_mm": [float(s) for s in volume.grid.spacing]})


def _without_air(tissue: np.ndarray) -> np.ndarray:
    """``tissue`` with little air beside the body; a table's ends and arms far off may be cut, as scanners do."""
    body = np.isin(tissue, (Tissue.AIR, Tissue.TABLE), invert=True)
    rim = int(RIM_MM / BODY_MM)
    hits = [np.flatnonzero(body.any(axis=tuple(a for a in range(3) if a != axis))) for axis in (1, 2)]
    j, i = (slice(max(0, hit[0] - rim), hit[-1] + rim + 1) for hit in hits)
    return tissue[:, j, i]


def _scanned(tissue: np.ndarray, ranges: LesionRanges, rng, generator) -> tuple[Volume, np.ndarray, str]:
    """CT, truth and contrast phase of a body; slices are as thick as they lie apart."""
    extent = np.array(tissue.shape) * BODY_MM
    shape = np.maximum(2, np.round(extent / PAINTED_MM)).astype(int)
    painted = Grid(shape[::-1], np.diag([*PAINTED_MM[::-1], 1.0]))
    painted_tissue = _refined(tissue, painted)
    palette = draw_palette(rng)
    liver = painted_tissue == Tissue.LIVER
    hu = paint(painted_tissue, palette, PAINTED_MM, rng, generator)
    hu, lesions = add_lesions(hu, liver, PAINTED_MM, ranges, rng, generator)
    thickness = float(rng.choice(list(SLICES_MM), p=list(SLICES_MM.values())))
    grid = painted.canonical((*PAINTED_MM[:0:-1], thickness))
    hu = resample(hu, painted, grid, -1024)
    hu = scan(hu, tuple(float(s) for s in grid.spacing[::-1]), rng, generator)
    masks = [resample(mask.byte(), painted, grid, 0).gt(0.5).numpy() for mask in (liver, lesions)]
    truth = masks[0].astype(np.uint16)
    numbers, _ = components(masks[1] & masks[0])
    truth[numbers > 0] = numbers[numbers > 0] + 1
    array = hu.round().clamp(-1024, 3071).short().numpy()
    return Volume(array, grid, "held out"), truth, palette.phase


def _refined(tissue: np.ndarray, painted: Grid) -> torch.Tensor:
    """The tissue that most of the neighborhood has, uint8 [k, j, i] on ``painted``, whose first voxel is that of the
    map; air beyond the map.
    """
    source = Grid(tissue.shape[::-1], np.diag([BODY_MM] * 3 + [1.0]))
    best = torch.full(painted.shape, 1e-3)
    refined = torch.full(painted.shape, int(Tissue.AIR), dtype=torch.uint8)
    for candidate in np.unique(tissue).tolist():
        mask = tissue == candidate
        box = Box.around(mask).grown(1, source.size)
        block = painted.box_covering(box, source)
        votes = resample(mask[box.slices].view(np.uint8), source.crop(box), painted.crop(block), 0)
        wins = votes > best[block.slices]
        refined[block.slices][wins] = candidate
        best[block.slices] = torch.maximum(best[block.slices], votes)
    return refined


def matched(labels: np.ndarray, truth: np.ndarray, label: int) -> float:
    """Largest intersection over union of one predicted lesion with any single true lesion, 0 where it touches none.

    Args:
        labels, truth: 0 background, 1 liver, 2 and above lesions, of one shape.
        label: the predicted lesion's value in ``labels``.
    """
    mask = labels == label
    touched: Sequence[int] = [int(n) for n in np.unique(truth[mask]) if n > 1]
    sizes = {n: np.count_nonzero(truth == n) for n in touched}
    together = {n: np.count_nonzero(mask & (truth == n)) for n in touched}
    size = np.count_nonzero(mask)
    return max((together[n] / (size + sizes[n] - together[n]) for n in touched), default=0.0)


def save_scan(scan: HeldOutScan, path: Path) -> None:
    """Writes a scan to a file; the file is complete or not there."""
    part = path.with_suffix(".part.npz")
    affine = scan.volume.grid.ijk_to_ras
    np.savez_compressed(part, array=scan.volume.array, truth=scan.truth, affine=affine, facts=json.dumps(scan.facts))
    part.rename(path)


def load_scan(path: Path) -> HeldOutScan:
    """What :func:`save_scan` wrote."""
    with np.load(path) as content:
        array = content["array"]
        volume = Volume(array, Grid(array.shape[::-1], content["affine"]), "held out")
        return HeldOutScan(volume, content["truth"], json.loads(str(content["facts"])))
