"""What refine models draw beside liver and lesions: Couinaud's segments and vessels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .geometry import Box, Grid
from .pixels import write_raw

COUINAUD_RAW, VESSELS_RAW = "couinaud.raw", "vessels.raw"


@dataclass(frozen=True, eq=False)
class Structures:
    """Arrays [k, j, i] of the voxels of a box.

    Attributes:
        box: of the input grid.
        couinaud: Couinaud's segments as a network drew them, uint8, values as
            :class:`.lesions.couinaud.CouinaudSegment`; neither cleaned nor cut at the liver. None where no model
            draws them.
        couinaud_model: title of that model.
        vessels: of the liver, uint8 of 0 and 1; None where no model draws them.
    """

    box: Box
    couinaud: np.ndarray | None = None
    couinaud_model: str = ""
    vessels: np.ndarray | None = None

    def on(self, part: np.ndarray, grid: Grid) -> np.ndarray:
        """One of the arrays on the whole input grid, 0 outside the box."""
        whole = np.zeros(grid.shape, part.dtype)
        whole[self.box.slices] = part
        return whole

    def write(self, folder: Path) -> dict[str, Any]:
        """Writes the arrays as raw files into ``folder``; returns the rest, serializable as JSON."""
        for name, array in ((COUINAUD_RAW, self.couinaud), (VESSELS_RAW, self.vessels)):
            if array is not None:
                write_raw(folder / name, array)
        return {
            "box": [list(self.box.start), list(self.box.stop)],
            "couinaud": self.couinaud is not None,
            "couinaud_model": self.couinaud_model,
            "vessels": self.vessels is not None,
        }

    @classmethod
    def read(cls, folder: Path, known: dict[str, Any]) -> Structures:
        """The inverse of :meth:`write`.

        Raises:
            OSError, ValueError: a file is missing or not complete.
        """
        box = Box(*(tuple(corner) for corner in known["box"]))
        couinaud, vessels = (
            np.fromfile(folder / name, np.uint8).reshape(box.size[::-1]) if known[what] else None
            for what, name in (("couinaud", COUINAUD_RAW), ("vessels", VESSELS_RAW))
        )
        return cls(box, couinaud, known["couinaud_model"], vessels)
