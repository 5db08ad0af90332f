"""Where the liver is, as far as the locate stage knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .geometry import Box, Grid

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Located:
    """The located liver: probability outside the plausible component is zero."""

    probability: torch.Tensor
    mask: np.ndarray
    grid: Grid
    box: Box

    def near(self, margin_mm: float) -> torch.Tensor:
        """The liver with ``margin_mm`` around it along each axis, bool [k, j, i] on its grid."""
        import torch

        grown = torch.from_numpy(self.mask).float()[None, None]
        for axis, spacing in enumerate(self.grid.spacing[::-1]):
            size = 2 * int(np.ceil(margin_mm / spacing)) + 1
            kernel = [size if a == axis else 1 for a in range(3)]
            grown = torch.nn.functional.max_pool3d(grown, kernel, 1, [n // 2 for n in kernel])
        return grown[0, 0] > 0
