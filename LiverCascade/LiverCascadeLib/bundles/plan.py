"""What has to be known of a model in order to run it: where its voxels lie, what they hold, and how windows go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Triple = tuple[float, float, float]
Corner = tuple[int, int, int]


@dataclass(frozen=True)
class Rescale:
    """From ``low`` … ``high`` to ``start`` … ``stop``: MONAI's ScaleIntensityRange.

    Attributes:
        start, stop: None leaves 0 … 1.
        clip: values outside are brought to the nearer end.
    """

    low: float
    high: float
    start: float | None = None
    stop: float | None = None
    clip: bool = False
    is_open = False

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """The values changed, as a new tensor."""
        image = (image - self.low) / (self.high - self.low)
        if self.start is not None and self.stop is not None:
            image = image * (self.stop - self.start) + self.start
        if self.clip and (self.start is not None or self.stop is not None):
            image = image.clamp_(self.start, self.stop)
        return image


@dataclass(frozen=True)
class Clip:
    """Values outside ``low`` … ``high`` are brought to the nearer end."""

    low: float
    high: float
    is_open = False

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """The values changed, as a new tensor."""
        return image.clamp(self.low, self.high)


@dataclass(frozen=True)
class Normalize:
    """The mean is subtracted, and what is left divided by the standard deviation: MONAI's NormalizeIntensity.

    Attributes:
        mean, deviation: None takes those of the scan.
        nonzero: voxels that are exactly 0 stay 0 and do not count.
    """

    mean: float | None = None
    deviation: float | None = None
    nonzero: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the scan has to be looked at first."""
        return self.mean is None or self.deviation is None

    def measured(self, scan: Iterable[torch.Tensor]) -> Normalize:
        """With mean and deviation of all values in ``scan``."""
        count, total, squares = 0, 0.0, 0.0
        for part in scan:
            values = part[part != 0].double() if self.nonzero else part.double()
            count += values.numel()
            total += float(values.sum())
            squares += float(values.square().sum())
        mean = total / max(count, 1)
        deviation = float(np.sqrt(max(squares / max(count, 1) - mean**2, 0.0)))
        return replace(
            self,
            mean=mean if self.mean is None else self.mean,
            deviation=deviation if self.deviation is None else self.deviation,
        )

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """The values changed, as a new tensor."""
        changed = (image - self.mean) / (self.deviation or 1.0)
        return changed.masked_fill_(image == 0, 0.0) if self.nonzero else changed


@dataclass(frozen=True)
class Stretch:
    """From the least and the greatest value of the scan to ``start`` … ``stop``: MONAI's ScaleIntensity.

    Attributes:
        low, high: None until the scan was looked at.
    """

    start: float = 0.0
    stop: float = 1.0
    low: float | None = None
    high: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the scan has to be looked at first."""
        return self.low is None or self.high is None

    def measured(self, scan: Iterable[torch.Tensor]) -> Stretch:
        """With the least and the greatest of all values in ``scan``."""
        ends = [(float(part.min()), float(part.max())) for part in scan]
        return replace(self, low=min(low for low, _ in ends), high=max(high for _, high in ends))

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """The values changed, as a new tensor."""
        if self.low == self.high:
            return image * self.start
        return (image - self.low) / (self.high - self.low) * (self.stop - self.start) + self.start


Step = Rescale | Clip | Normalize | Stretch


@dataclass(frozen=True)
class Plan:
    """How a model is run. Axes are those of the array that the network sees, after ``transpose``.

    Attributes:
        orientation: where i, j, k of the turned voxels grow: 'RAS', 'LPS', or 'stored'.
        transpose: order of the axes of the turned array [k, j, i] in the array that the network sees.
        spacing: of the network's grid in mm; None leaves the voxels as they are.
        before, after: what happens to the values before and after the spacing is changed, in this order.
        crop_above_zero: only the box of values above 0 goes through the network.
        patch_size: of the sliding window in voxels.
        overlap: of neighboring windows along each axis, as a share of a patch.
        gaussian: windows count most in their middle; otherwise the same everywhere.
        sigma: of that Gaussian, as a share of a patch, along each axis.
        padding: 'constant' or 'replicate': what lies around a scan that is smaller than a window.
        padding_value: of constant padding.
        softmax: outputs exclude each other and the first is background; otherwise each is a structure of its own.
        threshold: without softmax: from which probability on an output draws.
        outputs: channels of the network's output.
        half: whether the owners compute in half precision on a GPU.
    """

    orientation: str
    transpose: tuple[int, int, int]
    spacing: Triple | None
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    crop_above_zero: bool
    patch_size: Corner
    overlap: Triple
    gaussian: bool
    sigma: Triple
    padding: str
    padding_value: float
    softmax: bool
    threshold: float
    outputs: int
    half: bool

    def channel_of(self, value: int) -> int:
        """The output that draws a label value: without a channel for background, the first draws 1."""
        return value if self.softmax else value - 1

    @property
    def most(self) -> int:
        """The greatest label value."""
        return self.outputs - 1 if self.softmax else self.outputs


@dataclass(frozen=True)
class Network:
    """What the windows go through.

    Attributes:
        weights: path of the file below the model's folder.
        architecture, arguments: see :mod:`..models.networks`; the architecture is empty where the file is TorchScript,
            which brings the network along.
        key: under which a checkpoint may hold the weights.
    """

    weights: str
    architecture: str = ""
    arguments: dict | None = None
    key: str = ""


@dataclass(frozen=True)
class Described:
    """What a bundle or a settings object says.

    Attributes:
        plan, network: how it is run, and what is run.
        labels: names by label value, as far as they are told.
    """

    plan: Plan
    network: Network
    labels: dict[int, str]
