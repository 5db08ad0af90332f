"""What a run produced, and its provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .findings import Finding
from .geometry import Box, Grid
from .structures import Structures
from .volume import Volume

LIVER_LABEL = 1
FIRST_LESION_LABEL = 2


def summarize(liver_volume_ml: float, lesion_volumes_ml: Sequence[float]) -> str:
    """The sentence that a reader gets about a liver, lesions included, and its lesions."""
    if liver_volume_ml == 0:
        return "No liver was found."
    liver = f"Liver {liver_volume_ml:.0f} mL"
    if not lesion_volumes_ml:
        return f"{liver}; no lesion found."
    total = sum(lesion_volumes_ml)
    count = "1 lesion" if len(lesion_volumes_ml) == 1 else f"{len(lesion_volumes_ml)} lesions"
    return f"{liver}; {count}, {total:.1f} mL together ({100 * total / liver_volume_ml:.1f} % of the liver)."


@dataclass(frozen=True)
class Lesion:
    """One connected lesion.

    Attributes:
        id: 1, 2, … in order of falling volume; the lesion's label value is ``id + 1``.
        voxel_count: number of voxels on the input grid.
        volume_ml: voxel count × voxel volume, in mL.
        centroid_ras: mean position of the voxel centres, RAS mm.
        box: the smallest box of the input grid that holds the lesion.
    """

    id: int
    voxel_count: int
    volume_ml: float
    centroid_ras: tuple[float, float, float]
    box: Box

    @property
    def label(self) -> int:
        """Value of this lesion in ``Result.labels``."""
        return self.id - 1 + FIRST_LESION_LABEL


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How undecided the networks were, voxel by voxel.

    Attributes:
        entropy: uint8 [k, j, i] of the box: Shannon's entropy −Σ p ln p of the fused probabilities of background,
            liver and lesion, 0 where one of them is certain, 255 where all are equally likely.
        box: of the input grid; what lies outside was not asked of the refine network.
    """

    entropy: np.ndarray
    box: Box

    def on(self, grid: Grid) -> np.ndarray:
        """The entropy on the whole input grid, uint8 [k, j, i], 0 outside the box."""
        whole = np.zeros(grid.shape, np.uint8)
        whole[self.box.slices] = self.entropy
        return whole


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        volume: the input.
        labels: uint8, or uint16 from 255 lesions on, on ``volume.grid``, [k, j, i]:
            0 background, 1 liver, ``id + 1`` lesion ``id``.
        lesions: in the order of their ids.
        liver_volume_ml: liver including lesions.
        findings: from reading, preflight and the cascade.
        timings: seconds per stage.
        provenance: models, software, parameters, device, identity of the input; serialisable as JSON.
        confidences: how sure the refine model is of each lesion, 0…1, by its id; empty where the model is not
            calibrated. See :class:`.models.calibration.Calibration` for what that means.
        evidence: what the confidences are made of, by lesion id; see :func:`.lesions.confidence.evidence`.
        uncertainty: where :attr:`.cascade.Options.uncertainty` asked for it and a liver was located.
        structures: what models drew beside liver and lesions; None where there is no such model.
    """

    volume: Volume
    labels: np.ndarray
    lesions: tuple[Lesion, ...]
    liver_volume_ml: float
    findings: tuple[Finding, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    confidences: dict[int, float] = field(default_factory=dict)
    evidence: dict[int, dict[str, float]] = field(default_factory=dict)
    uncertainty: Uncertainty | None = None
    structures: Structures | None = None

    @property
    def summary(self) -> str:
        """One sentence for the reader."""
        return summarize(self.liver_volume_ml, [lesion.volume_ml for lesion in self.lesions])
