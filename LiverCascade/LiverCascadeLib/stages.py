"""What a cascade is made of, whatever kind of model stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .findings import Finding
from .fusing import Answer, fuse
from .geometry import Box, Grid, resample
from .located import Located
from .models import Manifest
from .progress import Progress
from .volume import AIR_HU, Volume

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Wishes:
    """What is asked of a refine stage.

    Attributes:
        binary_prior: the located liver is handed over as a mask instead of a probability.
        entropy: give the entropy of every voxel.
    """

    binary_prior: bool = False
    entropy: bool = False


class Stage(Protocol):
    """One model of a cascade.

    Attributes:
        manifest: who it is, and its margin.
        device: on which it computed last.
        findings: what had to be done on the way of the last run.
        forward_seconds: that the last run spent inside the network.
    """

    manifest: Manifest
    device: str
    findings: list[Finding]
    forward_seconds: float

    def forget(self) -> None:
        """Begins anew what is told about the last run."""
        ...

    def locate(self, volume: Volume, progress: Progress) -> tuple[torch.Tensor, Grid]:
        """Probability of liver, float32 [k, j, i] on the CPU, on a coarse grid over the volume, and that grid."""
        ...

    def refine(self, volume: Volume, box: Box, located: Located, wishes: Wishes, progress: Progress) -> Answer:
        """What stands on the voxels of ``box``, a box of the volume's grid around the located liver."""
        ...


class CanonicalStage:
    """A stage whose network works on the canonical grid of its manifest's spacing: the project's own models.

    A subclass gives :meth:`predict`; tests put an oracle there.

    Attributes:
        spread: see :attr:`.predictor.NetworkPredictor.spread`.
    """

    manifest: Manifest
    device = "none"
    forward_seconds = 0.0
    keep_spread = False
    spread: torch.Tensor | None = None

    def predict(self, ct: torch.Tensor, prior: torch.Tensor | None, grid: Grid, progress: Progress) -> torch.Tensor:
        """Probabilities of all labels but the background.

        Args:
            ct: HU on ``grid``, float32 [k, j, i].
            prior: located liver probability on ``grid``, for models that take one.
            grid: canonical grid with the manifest's spacing.
            progress: updated after every window; may raise Cancelled.

        Returns:
            float32 [labels - 1, k, j, i] on the CPU.
        """
        raise TypeError(f"{type(self).__name__} does not say how it predicts.")

    @property
    def findings(self) -> list[Finding]:
        """What had to be done on the way of the last run."""
        return []

    def forget(self) -> None:
        """See :meth:`Stage.forget`."""

    def locate(self, volume: Volume, progress: Progress) -> tuple[torch.Tensor, Grid]:
        """See :meth:`Stage.locate`."""
        grid = volume.grid.canonical(self.manifest.spacing_mm)
        ct = resample(volume.array, volume.grid, grid, AIR_HU)
        return self.predict(ct, None, grid, progress).sum(dim=0), grid

    def refine(self, volume: Volume, box: Box, located: Located, wishes: Wishes, progress: Progress) -> Answer:
        """See :meth:`Stage.refine`."""
        crop = volume.grid.crop(box)
        grid = crop.canonical(self.manifest.spacing_mm)
        ct = resample(volume.array[box.slices], crop, grid, AIR_HU)
        prior = resample(located.probability, located.grid, grid, 0.0)
        if wishes.binary_prior:
            prior = (prior > 0.5).float()
        calibration = self.manifest.calibration
        asked = calibration.features if calibration is not None else ()
        self.keep_spread = wishes.entropy or "mirror_spread" in asked
        probability = self.predict(ct, prior, grid, progress)
        progress.stage("fuse")
        return fuse(probability, grid, crop, self.spread, wishes.entropy)
