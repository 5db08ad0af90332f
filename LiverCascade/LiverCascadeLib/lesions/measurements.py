"""What is measured of a lesion, declared once: tables, exports and reports follow from :data:`MEASUREMENTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..geometry import Grid


@dataclass(frozen=True)
class Region:
    """A set of voxels of a grid, held in a small box.

    Attributes:
        mask: bool [k, j, i].
        grid: where voxels lie in the patient. The box may reach beyond its size.
        offset: (i, j, k) of the first voxel of ``mask`` on ``grid``.
    """

    mask: np.ndarray
    grid: Grid
    offset: tuple[int, int, int] = (0, 0, 0)

    @cached_property
    def voxels(self) -> np.ndarray:
        """Indices (n, 3) of the voxels on ``grid``, as (i, j, k)."""
        return np.argwhere(self.mask)[:, ::-1] + np.array(self.offset)

    @cached_property
    def voxel_count(self) -> int:
        """How many voxels there are."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def centroid_ras(self) -> np.ndarray:
        """Mean position of the voxel centers, RAS mm; not a number where there is no voxel."""
        if self.voxel_count == 0:
            return np.full(3, np.nan)
        return self.grid.to_ras(self.voxels.mean(axis=0))


@dataclass(frozen=True)
class Measurement:
    """One figure of a lesion.

    Attributes:
        key: identifier in tables and files; ends with the unit.
        title: for a table's header.
        unit: as it is shown; empty where there is none.
        digits: decimals worth showing.
        compute: the figure of a :class:`Region`.
    """

    key: str
    title: str
    unit: str
    digits: int
    compute: Callable[[Region], float]

    def text(self, value: float) -> str:
        """``value`` as it is shown; empty where it is not a number."""
        return f"{value:.{self.digits}f}" if np.isfinite(value) else ""


def volume_ml(region: Region) -> float:
    """Voxel count × voxel volume, in mL."""
    return region.voxel_count * region.grid.voxel_volume_mm3 / 1000


def equivalent_diameter_mm(region: Region) -> float:
    """Diameter of the sphere that has the region's volume V: (6 V / π)^(1/3), in mm."""
    return float(np.cbrt(6 * region.voxel_count * region.grid.voxel_volume_mm3 / np.pi))


def _centroid(axis: int) -> Callable[[Region], float]:
    return lambda region: float(region.centroid_ras[axis])


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement("volume_ml", "Volume", "mL", 2, volume_ml),
    Measurement("diameter_mm", "Diameter", "mm", 1, equivalent_diameter_mm),
    *(Measurement(f"centroid_{letter.lower()}_mm", letter, "mm", 1, _centroid(n)) for n, letter in enumerate("RAS")),
)


def measure(mask: np.ndarray, grid: Grid, offset: Sequence[int] = (0, 0, 0)) -> dict[str, float]:
    """All :data:`MEASUREMENTS` of a lesion, by their keys.

    Args:
        mask: the lesion's voxels [k, j, i], true where it is; a box that holds it is enough.
        grid: where voxels lie in the patient.
        offset: (i, j, k) of the first voxel of ``mask`` on ``grid``.

    Raises:
        ValueError: the mask has not three dimensions.
    """
    if mask.ndim != 3:
        raise ValueError(f"A lesion's mask has three dimensions [k, j, i], this one has {mask.ndim}.")
    region = Region(mask != 0, grid, tuple(int(n) for n in offset))
    return {measurement.key: measurement.compute(region) for measurement in MEASUREMENTS}
