"""Bodies that are known exactly in RAS, and grids to put them on: the ground truth of the alignment tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.result import Lesion, Result
from LiverCascadeLib.volume import Volume

SUBSAMPLES = 2


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """The 3×3 matrix of a rotation about ``axis`` (Rodrigues' formula)."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """A solid ellipsoid.

    Attributes:
        center_ras: mm.
        radii: mm, along the ellipsoid's own axes.
        rotation: 3×3, its columns are the ellipsoid's axes in RAS.
    """

    center_ras: tuple[float, float, float]
    radii: tuple[float, float, float]
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))

    def contains(self, ras: np.ndarray) -> np.ndarray:
        """Whether the positions (…, 3), RAS mm, are inside."""
        own = (ras - np.array(self.center_ras)) @ self.rotation / np.array(self.radii)
        return (own**2).sum(axis=-1) <= 1.0

    @property
    def volume_ml(self) -> float:
        return float(4 / 3 * np.pi * np.prod(self.radii) / 1000)


def positions(grid: Grid) -> np.ndarray:
    """RAS of all voxel centers, [k, j, i, 3]."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    return grid.to_ras(np.stack([i, j, k], axis=-1))


def rasterize(body: Ellipsoid, grid: Grid) -> np.ndarray:
    """Voxels [k, j, i] of ``grid`` whose centers are inside ``body``."""
    return body.contains(positions(grid))


@lru_cache(maxsize=16)
def truth(body: Ellipsoid, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The body within the volume: its voxels [k, j, i], and its centroid (i, j, k) from points finer than voxels."""
    inside = rasterize(body, grid)
    offsets = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5
    box = Box.around(inside)
    axes = [np.add.outer(np.arange(a, b), offsets).ravel() for a, b in zip(box.start, box.stop, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return inside, points[body.contains(grid.to_ras(points))].mean(axis=0)


def overlap(mask: np.ndarray, body: Ellipsoid, grid: Grid) -> tuple[float, float]:
    """How well ``mask`` [k, j, i] covers the part of ``body`` that lies in the volume.

    Returns:
        (Dice, distance of the centroids in voxels along the worst axis).
    """
    inside, center = truth(body, grid)
    dice = 2 * (mask & inside).sum() / (mask.sum() + inside.sum())
    if not mask.any():
        return float(dice), float("inf")
    return float(dice), float(np.abs(np.argwhere(mask)[:, ::-1].mean(axis=0) - center).max())


LIVER = Ellipsoid((32.0, -6.0, 11.0), (64.0, 48.0, 40.0), rotation((1, 2, 3), 25))
LESIONS = (
    Ellipsoid((55.0, -14.0, 20.0), (17.0, 17.0, 17.0)),
    Ellipsoid((2.0, 6.0, 6.0), (12.0, 12.0, 12.0)),
)


def _grid(
    axes: str, size: tuple[int, int, int], spacing: tuple[float, float, float], turn=None, shift=(0, 0, 0)
) -> Grid:
    """A grid around the bodies whose i, j and k grow toward the letters ``axes``, turned by a 3×3 rotation."""
    columns = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        row = ["RL", "AP", "SI"].index(next(pair for pair in ("RL", "AP", "SI") if letter in pair))
        columns[row, column] = 1 if letter in "RAS" else -1
    linear = (np.eye(3) if turn is None else turn) @ columns * np.array(spacing)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(LIVER.center_ras) + np.array(shift) - linear @ ((np.array(size) - 1) / 2)
    return Grid(size, matrix)


TEST_GRIDS: dict[str, Grid] = {
    "RAS": _grid("RAS", (72, 57, 50), (2.0, 2.0, 2.0)),
    "LPS": _grid("LPS", (95, 77, 33), (1.5, 1.5, 3.0)),
    "LAS left-handed": _grid("LAS", (75, 61, 49), (2.0, 2.0, 2.0)),
    "RPI": _grid("RPI", (72, 57, 50), (2.0, 2.0, 2.0)),
    "LPI left-handed": _grid("LPI", (73, 57, 51), (2.0, 2.0, 2.0)),
    "ASR permuted": _grid("ASR", (57, 51, 71), (2.0, 2.0, 2.0)),
    "SRA permuted": _grid("SRA", (49, 73, 59), (2.0, 2.0, 2.0)),
    "PIR permuted": _grid("PIR", (57, 51, 71), (2.0, 2.0, 2.0)),
    "ILA left-handed": _grid("ILA", (51, 71, 57), (2.0, 2.0, 2.0)),
    "SAL left-handed": _grid("SAL", (49, 59, 75), (2.0, 2.0, 2.0)),
    "oblique": _grid("LPS", (83, 71, 67), (2.0, 2.0, 2.0), rotation((1, 1, 0.3), 21)),
    "oblique left-handed": _grid("RPS", (81, 75, 61), (2.0, 2.0, 2.0), rotation((0.2, 1, 0.8), -33)),
    "thick slices": _grid("LPS", (155, 121, 21), (0.9, 0.9, 5.0)),
    "fine slices": _grid("RAS", (31, 25, 177), (5.0, 5.0, 0.5)),
    "odd and anisotropic": _grid("PLI", (127, 47, 39), (0.9, 3.3, 2.7), rotation((0, 0, 1), 12)),
    "liver at the border": _grid("LPS", (61, 49, 37), (2.0, 2.0, 2.0), shift=(14.0, 10.0, -8.0)),
}


def analytic_result(grid: Grid, liver: Ellipsoid = LIVER, lesions: tuple[Ellipsoid, ...] = LESIONS) -> Result:
    """The result that a perfect run gives for the bodies on ``grid``: lesions inside the liver, by falling size."""
    return result_from_masks(grid, rasterize(liver, grid), [rasterize(lesion, grid) for lesion in lesions])


def result_from_masks(grid: Grid, liver: np.ndarray, lesions: list[np.ndarray], name: str = "body") -> Result:
    """A result of masks [k, j, i]; the CT is made of water, with a denser liver and darker lesions."""
    array = np.zeros(grid.shape, np.int16)
    array[liver] = 110
    labels = liver.astype(np.uint8 if len(lesions) < 254 else np.uint16)
    found = []
    for number, mask in enumerate((mask & liver for mask in lesions), start=1):
        labels[mask], array[mask] = number + 1, 50
        box = Box.around(mask)
        centroid = grid.to_ras(np.argwhere(mask)[:, ::-1]).mean(axis=0)
        count = int(mask.sum())
        volume_ml = count * grid.voxel_volume_mm3 / 1000
        found.append(Lesion(number, count, volume_ml, tuple(centroid.tolist()), box))
    volume_ml = float(liver.sum() * grid.voxel_volume_mm3 / 1000)
    return Result(Volume(array, grid, name), labels, tuple(found), volume_ml)
