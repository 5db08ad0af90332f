"""Whether a liver holds lesions at all: an optional network that sees the located liver and nothing else.

The located probability masks the CT: as it is ('soft', so that an unsure edge fades out) or cut at one half
('binary'). A network judges every axial slice, or the liver as a whole. Training cuts and masks livers with these same
functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .geometry import Box, Grid, resample
from .models import Manifest, load_network
from .models.slicewise import neighbors
from .volume import AIR_HU

if TYPE_CHECKING:
    import torch

# A slice with less liver than this is not judged.
LEAST_LIVER_MM2 = 400.0
_SLICES_AT_ONCE = 32


def crop_grid(grid: Grid, located: Grid, box: Box, spacing: Sequence[float], size: Sequence[int]) -> tuple[Grid, bool]:
    """A block of fixed size with the located liver in its middle.

    Args:
        grid: of the CT.
        located: of the located probability.
        box: of the liver, on ``located``.
        spacing: of the block in mm along (R, A, S).
        size: of the block in voxels along (R, A, S).

    Returns:
        its grid, which may reach beyond the CT, and whether the whole liver fits in.
    """
    whole = grid.canonical(spacing)
    liver = whole.box_covering(box, located)
    start, stop = np.array(liver.start), np.array(liver.stop)
    corner = np.round((start + stop - np.array(size)) / 2)
    matrix = whole.ijk_to_ras.copy()
    matrix[:3, 3] = whole.to_ras(corner)
    return Grid(size, matrix), bool((stop - start <= np.array(size)).all())


def masked(hu: torch.Tensor, probability: torch.Tensor, window_hu: Sequence[float], mask: str) -> torch.Tensor:
    """What the network sees: windowed values 0…1 times the liver's mask.

    Args:
        hu: of any shape.
        probability: of liver, of that shape, 0…1.
        window_hu: (low, high).
        mask: 'soft' or 'binary'.
    """
    low, high = window_hu
    share = probability if mask == "soft" else (probability > 0.5).to(hu.dtype)
    return ((hu - low) / (high - low)).clamp(0, 1) * share


def slices_with_liver(probability: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """Which slices of a block [k, j, i] have enough liver to be judged: bool [k]; ``spacing`` along (R, A, S)."""
    area = (probability > 0.5).flatten(1).sum(dim=1) * float(spacing[0] * spacing[1])
    return area >= LEAST_LIVER_MM2


def case_score(slices: Sequence[float], top: int) -> float:
    """A liver's figure from those of its slices: the mean of the ``top`` highest, or of all if they are fewer."""
    return float(np.sort(np.asarray(slices, dtype=np.float64))[-top:].mean())


def judge(network: torch.nn.Module, image: torch.Tensor, judged: torch.Tensor, level: str, context: int) -> np.ndarray:
    """Probabilities of lesion of a masked block.

    Args:
        network: gives two logits: no lesion, lesion.
        image: masked block, float32 [k, j, i].
        judged: slices to judge, bool [k]; for ``level`` 'slice'.
        level: 'slice' or 'case'.
        context: slices on either side that are seen too.

    Returns:
        float64: one for each judged slice, or one.
    """
    import torch

    device = next(network.parameters()).device
    block = image[None, None]
    views = block if level == "case" else neighbors(block, context)[0][judged]
    with torch.inference_mode():
        answers = [network(part.to(device)).float().softmax(dim=1)[:, 1] for part in views.split(_SLICES_AT_ONCE)]
    return torch.cat(answers).cpu().double().numpy() if answers else np.zeros(0)


class Gate:
    """A classification network from a manifest.

    Args:
        manifest: of role 'classify'.
        device: 'cpu', 'cuda' or 'cuda:N'.
        network: already in memory; None loads the manifest's weights.

    Raises:
        ModelError: the weights are missing, altered or do not fit.
    """

    def __init__(self, manifest: Manifest, device: str = "cpu", network: torch.nn.Module | None = None):
        self.manifest, self.device = manifest, device
        self._network = (load_network(manifest) if network is None else network).to(device).eval()

    @property
    def threshold(self) -> float:
        """Livers whose probability stays below it count as free of lesions."""
        return float(self.manifest.gate["threshold"])

    def probability(self, array: np.ndarray, grid: Grid, located: torch.Tensor, located_grid: Grid, box: Box) -> float:
        """Probability that the liver holds a lesion, as the network gives it: not calibrated.

        Args:
            array: HU [k, j, i] on ``grid``.
            grid: of the CT.
            located: liver probability [k, j, i] on ``located_grid``, whose axes are those of ``grid``.
            located_grid: see above.
            box: of the liver, on ``located_grid``.

        Returns:
            0…1; 1 where no slice has enough liver to be judged, so that nothing is held back unseen.
        """
        manifest = self.manifest
        block, _ = crop_grid(grid, located_grid, box, manifest.spacing_mm, manifest.patch_size)
        hu = resample(array, grid, block, AIR_HU)
        probability = resample(located, located_grid, block, 0.0)
        image = masked(hu, probability, manifest.window_hu, manifest.gate["mask"])
        judged = slices_with_liver(probability, manifest.spacing_mm)
        found = self._judged(image, judged)
        return case_score(found, manifest.gate["top"]) if found.size else 1.0

    def _judged(self, image: torch.Tensor, judged: torch.Tensor) -> np.ndarray:
        """:func:`judge`, on the CPU where the GPU has no memory left."""
        import torch

        level, context = self.manifest.gate["level"], self.manifest.gate["context"]
        try:
            return judge(self._network, image, judged, level, context)
        except torch.OutOfMemoryError:
            self.device = "cpu"
            self._network.cpu()
            return judge(self._network, image, judged, level, context)
