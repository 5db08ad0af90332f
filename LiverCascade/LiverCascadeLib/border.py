"""Volumes that end in tissue, continued for networks: these take the end of all tissue for the end of the liver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .geometry import Box, Grid, axis_maps
from .sampling import BODY_ABOVE

if TYPE_CHECKING:
    import torch

# How far a volume is continued. The liver near a cut side was found again on four CTs that were cut in half.
BEYOND_MM = 20.0
# Less tissue than this at a side is the table, or an elbow.
LEAST_CM2 = 4.0

Margins = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Border:
    """How many voxels a network's grid is continued beyond the volume.

    Attributes:
        margins: before the first and behind the last voxel of i, j and k; 0 where the volume goes on, or ends in air.
    """

    margins: Margins

    @staticmethod
    def of(ct: torch.Tensor, grid: Grid, volume_grid: Grid) -> Border:
        """The sides of ``grid`` at which the volume ends while the body goes on.

        Args:
            ct: HU on ``grid``, [k, j, i].
            grid: covers the volume or a part of it.
            volume_grid: of the whole volume; its axes are those of ``grid``, up to swaps, flips and scale.
        """
        margins = []
        for axis, along in enumerate(axis_maps(volume_grid, grid)):
            voxels = round(BEYOND_MM / float(grid.spacing[axis]))
            pixel_cm2 = grid.voxel_volume_mm3 / float(grid.spacing[axis]) / 100
            sides = []
            for face, outside in ((0, -1), (grid.size[axis] - 1, grid.size[axis])):
                index = along.scale * outside + along.offset
                ends = not -0.5 <= index <= volume_grid.size[along.source_axis] - 0.5
                tissue = float((ct.select(2 - axis, face) > BODY_ABOVE).sum()) * pixel_cm2 if ends else 0.0
                sides.append(voxels if tissue >= LEAST_CM2 else 0)
            margins.append(tuple(sides))
        return Border(tuple(margins))

    def continued(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` [k, j, i] with their outermost voxels repeated over the margins."""
        import torch

        flat = [margin for sides in self.margins for margin in sides]
        if not any(flat):
            return values
        return torch.nn.functional.pad(values[None, None], flat, mode="replicate")[0, 0]

    def grid(self, grid: Grid) -> Grid:
        """``grid`` with the margins."""
        low, high = zip(*self.margins, strict=True)
        return grid.crop(Box(tuple(-n for n in low), tuple(n + m for n, m in zip(grid.size, high, strict=True))))

    def inner(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` […, k, j, i] without the margins."""
        shape = values.shape[-3:][::-1]
        ranges = [slice(low, n - high) for (low, high), n in zip(self.margins, shape, strict=True)]
        return values[(..., *reversed(ranges))].contiguous()
