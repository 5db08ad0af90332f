"""What a cascade is made of, whatever kind of model stands behind it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .border import Border
from .findings import Finding
from .fusing import Answer, Opinion, fuse
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
        probability = self.predict(ct, None, grid, progress).sum(dim=0)
        # Only now it is known whether the liver is near a cut side, which few scans have.
        border = Border.of(ct, probability, grid, volume.grid)
        if border:
            probability = self._continued(border, ct, None, grid, progress).sum(dim=0)
        return probability, grid

    def refine(self, volume: Volume, box: Box, located: Located, wishes: Wishes, progress: Progress) -> Answer:
        """See :meth:`Stage.refine`."""
        opinion = self.opinion(volume, box, located, wishes, progress)
        progress.stage("fuse")
        return fuse([opinion], volume.grid.crop(box), wishes.entropy)

    def opinion(self, volume: Volume, box: Box, located: Located, wishes: Wishes, progress: Progress) -> Opinion:
        """What the network says of a box, on its own grid; arguments as for :meth:`Stage.refine`."""
        crop = volume.grid.crop(box)
        grid = crop.canonical(self.manifest.spacing_mm)
        ct = resample(volume.array[box.slices], crop, grid, AIR_HU)
        prior = resample(located.probability, located.grid, grid, 0.0)
        if wishes.binary_prior:
            prior = (prior > 0.5).float()
        calibration = self.manifest.calibration
        asked = calibration.features if calibration is not None else ()
        self.keep_spread = wishes.entropy or "mirror_spread" in asked
        border = Border.of(ct, prior, grid, volume.grid)
        return Opinion(self._continued(border, ct, prior, grid, progress), grid, self.spread)

    def _continued(
        self, border: Border, ct: torch.Tensor, prior: torch.Tensor | None, grid: Grid, progress: Progress
    ) -> torch.Tensor:
        """:meth:`predict` for ``grid``, with more of the same beyond it as ``border`` says."""
        prior = None if prior is None else border.continued(prior)
        probability = self.predict(border.continued(ct), prior, border.grid(grid), progress)
        self.spread = None if self.spread is None else border.inner(self.spread)
        return border.inner(probability)


class Chain:
    """Refine models of the project's own, one after another, coarse to fine: together one stage.

    Each is told by the one before where the liver is, instead of by the locate stage: a coarse one sees more of the
    surroundings in its windows, a fine one more of the surface. The answer is that of all that tell the classes of the
    last one apart, see :func:`.fusing.fuse`; the others only hand over.

    Args:
        members: coarse to fine; the last one's margin and calibration count.
    """

    def __init__(self, members: Sequence[CanonicalStage]):
        self.members = tuple(members)
        margin = max(member.manifest.margin_mm for member in members)
        self.manifest = dataclasses.replace(members[-1].manifest, margin_mm=margin)

    @property
    def device(self) -> str:
        """Where the last of them computed last."""
        return self.members[-1].device

    @property
    def findings(self) -> list[Finding]:
        """What any of them had to do."""
        return [finding for member in self.members for finding in member.findings]

    @property
    def forward_seconds(self) -> float:
        """That all of them spent inside their networks."""
        return sum(member.forward_seconds for member in self.members)

    def forget(self) -> None:
        """See :meth:`Stage.forget`."""
        for member in self.members:
            member.forget()

    def locate(self, volume: Volume, progress: Progress) -> tuple[torch.Tensor, Grid]:
        """See :meth:`Stage.locate`."""
        raise TypeError("A chain of models refines what another one has located.")

    def refine(self, volume: Volume, box: Box, located: Located, wishes: Wishes, progress: Progress) -> Answer:
        """See :meth:`Stage.refine`."""
        opinions = []
        for number, member in enumerate(self.members):
            progress.stage("refine", number, len(self.members))
            opinion = member.opinion(volume, box, located, wishes, progress)
            located = dataclasses.replace(located, probability=opinion.probability.sum(dim=0), grid=opinion.grid)
            opinions.append(opinion)
        progress.stage("fuse")
        labels = len(opinions[-1].probability)
        opinions = [opinion for opinion in opinions if len(opinion.probability) == labels]
        return fuse(opinions, volume.grid.crop(box), wishes.entropy)


def chained(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The refine stages of a cascade, with one chain in the place of the project's own models among them."""
    own = [stage for stage in stages if isinstance(stage, CanonicalStage)]
    if len(own) < 2:
        return tuple(stages)
    chain = Chain(sorted(own, key=lambda stage: -math.prod(stage.manifest.spacing_mm)))
    return tuple(chain if stage is own[0] else stage for stage in stages if stage is own[0] or stage not in own)
