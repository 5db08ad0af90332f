"""Where a point of one study lies in another: a smooth map between two patients' coordinates, and its inverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from ..geometry import Grid

INVERSE_TOLERANCE_MM = 0.05
INVERSE_STEPS = 40


@dataclass(frozen=True, eq=False)
class Deformation:
    """Takes positions in the earlier study to positions in the later one.

    Beyond the grid, the displacement is that of its nearest border.

    Attributes:
        grid: on which the displacements are known, in the earlier study.
        displacement: float32 [k, j, i, 3], RAS mm: what is added to a position.
    """

    grid: Grid
    displacement: np.ndarray

    def __post_init__(self) -> None:
        if self.displacement.shape != (*self.grid.shape, 3):
            raise ValueError(f"A displacement for {self.grid.shape} voxels has not {self.displacement.shape} values.")

    def displaced(self, ras: np.ndarray) -> np.ndarray:
        """How far the positions (…, 3), RAS mm of the earlier study, move: (…, 3) in mm; linear interpolation."""
        ras = np.asarray(ras, dtype=np.float64)
        ijk = self.grid.to_ijk(ras.reshape(-1, 3))
        parts = [
            map_coordinates(self.displacement[..., axis], ijk[:, ::-1].T, order=1, mode="nearest") for axis in range(3)
        ]
        return np.stack(parts, axis=-1).reshape(ras.shape).astype(np.float64)

    def apply(self, ras: np.ndarray) -> np.ndarray:
        """Positions (…, 3) of the earlier study as positions in the later one, RAS mm."""
        return np.asarray(ras, dtype=np.float64) + self.displaced(ras)

    def invert(self, ras: np.ndarray) -> np.ndarray:
        """Positions (…, 3) of the later study as positions in the earlier one, RAS mm; found by fixed-point steps.

        Source: Chen et al., Med Phys 35:81 (2008), 'A simple fixed-point approach to invert a deformation field'.
        """
        ras = np.asarray(ras, dtype=np.float64)
        linear = self.affine()
        back = np.linalg.inv(linear)
        # The best affine map takes away most of it; the rest is small enough for the steps to converge.
        found = ras @ back[:3, :3].T + back[:3, 3]
        for _ in range(INVERSE_STEPS):
            wrong = ras - self.apply(found)
            found = found + wrong @ back[:3, :3].T
            if not wrong.size or np.abs(wrong).max() < INVERSE_TOLERANCE_MM:
                break
        return found

    def affine(self) -> np.ndarray:
        """The 4×4 affine map that comes nearest (least squares over the grid)."""
        step = [max(1, n // 12) for n in self.grid.shape]
        k, j, i = np.meshgrid(*[np.arange(0, n, s) for n, s in zip(self.grid.shape, step, strict=True)], indexing="ij")
        here = self.grid.to_ras(np.stack([i, j, k], axis=-1).reshape(-1, 3))
        there = here + self.displacement[k.ravel(), j.ravel(), i.ravel()]
        solution, *_ = np.linalg.lstsq(np.column_stack([here, np.ones(len(here))]), there, rcond=None)
        matrix = np.eye(4)
        matrix[:3] = solution.T
        return matrix

    def jacobian(self) -> np.ndarray:
        """By how much volumes change at each voxel: determinant of the map's derivative, [k, j, i]; 1 is unchanged."""
        to_ras = self.grid.ijk_to_ras[:3, :3]
        if min(self.grid.size) < 2:
            return np.ones(self.grid.shape)
        slopes = [np.gradient(self.displacement[..., axis].astype(np.float64)) for axis in range(3)]
        # np.gradient gives d/dk, d/dj, d/di of each component.
        by_index = np.stack([np.stack(part[::-1], axis=-1) for part in slopes], axis=-2)
        return np.linalg.det(np.eye(3) + by_index @ np.linalg.inv(to_ras))
