"""Small synthetic label maps for the tests of the evaluation: a liver with lesions, and models that err on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.volume import write_labels

SHAPE = (24, 48, 56)
GRID = Grid(SHAPE[::-1], np.array([[-2.0, 0, 0, 60], [0, -2.0, 0, 40], [0, 0, 3.0, -500], [0, 0, 0, 1]]))


def ball(center: tuple[float, float, float], radius_mm: float, grid: Grid = GRID) -> np.ndarray:
    """A sphere, bool [k, j, i]; ``center`` in voxels (k, j, i)."""
    axes = np.ogrid[tuple(slice(0, n) for n in grid.shape)]
    parts = [((a - c) * s) ** 2 for a, c, s in zip(axes, center, grid.spacing[::-1], strict=True)]
    return sum(parts) <= radius_mm**2


def truth(number: int, lesions: int | None = None) -> np.ndarray:
    """Reference ``number``, uint8 [k, j, i]: every fourth has no lesion."""
    rng = np.random.default_rng(number)
    labels = ball((12, 24, 28), 27 + rng.uniform(-3, 3)).astype(np.uint8)
    inside = np.argwhere(ball((12, 24, 28), 16))
    count = (0 if number % 4 == 3 else 1 + number % 4) if lesions is None else lesions
    for _ in range(count):
        labels[ball(tuple(inside[rng.integers(len(inside))]), rng.uniform(4, 11)) & (labels > 0)] = 2
    return labels


def prediction(number: int, shift: int, misses: float, false: float = 0.3) -> np.ndarray:
    """What a model makes of it: the liver shifted, lesions missed by chance, sometimes a false one."""
    from scipy import ndimage

    rng = np.random.default_rng([number, shift])
    reference = truth(number)
    labels = np.roll(reference > 0, shift, axis=2).astype(np.uint8)
    numbers, count = ndimage.label(reference == 2, np.ones((3, 3, 3)))
    for index in range(1, count + 1):
        if rng.random() > misses:
            labels[np.roll(numbers == index, shift, axis=1)] = 2
    if rng.random() < false:
        labels[ball((12, 30, 18), 6) & (labels > 0)] = 2
    return labels


def write_folders(folder: Path, count: int = 6) -> None:
    """Folders truth, good, poor and ct, named as LiTS and as nnU-Net do."""
    for name in ("truth", "good", "poor", "ct"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        write_labels(folder / "truth" / f"segmentation-{number}.nii.gz", truth(number), GRID)
        write_labels(
            folder / "good" / f"case_{number}.nii.gz".replace("case_", "volume-"), prediction(number, 1, 0.2), GRID
        )
        write_labels(folder / "poor" / f"volume-{number}_seg.nrrd", prediction(number, 3, 0.6, 0.8), GRID)
        noise = np.random.default_rng(number).normal(0, 15, SHAPE)
        hounsfield = (np.array([-80, 110, 60])[truth(number)] + noise).astype(np.int16)
        write_labels(folder / "ct" / f"volume-{number}_0000.nii.gz", hounsfield, GRID)
