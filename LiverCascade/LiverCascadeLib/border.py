"""Livers near a cut side of the volume: networks are shown more, since they take the end of all tissue for its end.

Top and bottom are left alone. Most scans end there in the body, and the networks were trained on such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .geometry import Box, Grid, axis_maps
from .sampling import cuts_body

if TYPE_CHECKING:
    import torch

# How far a volume is continued, and how near the liver must be found to a side.
BEYOND_MM = 20.0
NEAR_MM = 25.0

Margins = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Border:
    """How many voxels a network's grid is continued beyond the volume.

    Attributes:
        margins: before the first and behind the last voxel of i, j and k; 0 where nothing is continued.
    """

    margins: Margins

    @staticmethod
    def of(ct: torch.Tensor, liver: torch.Tensor, grid: Grid, volume_grid: Grid) -> Border:
        """The sides of ``grid`` that need more: the volume ends there, the body does not, and the liver is near.

        Args:
            ct: HU on ``grid``, [k, j, i].
            liver: its probability as far as it is known, on the same voxels.
            grid: canonical, covers the volume or a part of it.
            volume_grid: of the whole volume; its axes are those of ``grid``, up to swaps, flips and scale.
        """
        margins = []
        for axis, along in enumerate(axis_maps(volume_grid, grid)[:2]):
            spacing, size = float(grid.spacing[axis]), grid.size[axis]
            pixel_cm2 = grid.voxel_volume_mm3 / spacing / 100
            near = min(size, round(NEAR_MM / spacing))
            sides = []
            for face, first, outside in ((0, 0, -1), (size - 1, size - near, size)):
                index = along.scale * outside + along.offset
                ends = not -0.5 <= index <= volume_grid.size[along.source_axis] - 0.5
                cut = ends and cuts_body(ct.select(2 - axis, face), pixel_cm2)
                needed = cut and bool((liver.narrow(2 - axis, first, near) > 0.5).any())
                sides.append(round(BEYOND_MM / spacing) if needed else 0)
            margins.append(tuple(sides))
        return Border((*margins, (0, 0)))

    def __bool__(self) -> bool:
        """Whether anything is continued."""
        return any(margin for sides in self.margins for margin in sides)

    def continued(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` [k, j, i] with their outermost voxels repeated over the margins."""
        import torch

        flat = [margin for sides in self.margins for margin in sides]
        return torch.nn.functional.pad(values[None, None], flat, mode="replicate")[0, 0] if self else values

    def grid(self, grid: Grid) -> Grid:
        """``grid`` with the margins."""
        low, high = zip(*self.margins, strict=True)
        return grid.crop(Box(tuple(-n for n in low), tuple(n + m for n, m in zip(grid.size, high, strict=True))))

    def inner(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` […, k, j, i] without the margins."""
        shape = values.shape[-3:][::-1]
        ranges = [slice(low, n - high) for (low, high), n in zip(self.margins, shape, strict=True)]
        return values[(..., *reversed(ranges))].contiguous()
