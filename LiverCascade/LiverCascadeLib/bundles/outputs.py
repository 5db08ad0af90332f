"""From a network's outputs to probabilities and labels, without keeping outputs that nobody asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..fusing import entropy_of
from .plan import Plan

if TYPE_CHECKING:
    import torch

# Of more outputs than this, those that are asked for are kept, the background, and the best of the others.
MOST_OUTPUTS = 16
# What is drawn over what, where structures may overlap: a lesion lies in the liver.
_ORDER = ("liver", "couinaud_", "vessel", "lesion")


class Outputs:
    """Which of the outputs are kept, and what they mean.

    Windows are put together before the activation, as MONAI does, and many outputs only a few slices at a time. Of
    those that exclude each other, what is asked for stays, the background, and the largest of the others: between
    voxels where two others take turns it says more than either.

    Args:
        plan: activation and number of outputs.
        names: structures by label value.

    Attributes:
        kept: what stands in each kept channel: a label value, or 0 for background and the best of the others.
        leaves_out: whether there are more outputs than are kept.
    """

    def __init__(self, plan: Plan, names: Mapping[int, str]):
        self._plan, self.names = plan, dict(names)
        if not plan.softmax:
            self.kept = sorted(names, key=self._rank)
        elif plan.outputs > max(MOST_OUTPUTS, len(names) + 2):
            self.kept = [0, 0, *sorted(names)]
        else:
            self.kept = list(range(plan.outputs))
        self.leaves_out = len(self.kept) < plan.outputs

    def shares(self, blend: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
        """Probabilities of what is kept, [c, k, j, i].

        Args:
            blend: all outputs, put together from windows, [outputs, k, j, i].
            unseen: where no window was, and nothing is.
        """
        import torch

        if not self._plan.softmax:
            channels = [self._plan.channel_of(value) for value in self.kept]
            return torch.sigmoid(blend[channels]).masked_fill_(unseen, 0.0)
        shares = torch.softmax(blend, dim=0)
        if self.leaves_out:
            wanted = self.kept[2:]
            others = [channel for channel in range(1, len(shares)) if channel not in wanted]
            shares = torch.cat([shares[:1], shares[others].amax(dim=0, keepdim=True), shares[wanted]])
        shares.masked_fill_(unseen, 0.0)
        shares[0][unseen] = 1.0
        return shares

    def decided(self, shares: torch.Tensor) -> torch.Tensor:
        """The label value of each voxel, uint8; of outputs that are not kept 0."""
        import torch

        if self._plan.softmax:
            table = torch.tensor(self.kept, dtype=torch.uint8, device=shares.device)
            return table[shares.argmax(dim=0)]
        labels = torch.zeros(shares.shape[1:], dtype=torch.uint8, device=shares.device)
        for channel, value in zip(shares, self.kept, strict=True):
            labels[channel >= self._plan.threshold] = value
        return labels

    def probability(self, shares: torch.Tensor, *structures: str) -> torch.Tensor:
        """That a voxel belongs to any of ``structures``; a name that ends in '_' stands for all that begin so."""
        import torch

        chosen = [
            channel
            for channel, value in enumerate(self.kept)
            if any(self._is(value, structure) for structure in structures)
        ]
        if not chosen:
            return torch.zeros(shares.shape[1:], device=shares.device)
        return shares[chosen].sum(dim=0).clamp_(0, 1) if self._plan.softmax else shares[chosen].amax(dim=0)

    def doubt(self, shares: torch.Tensor) -> torch.Tensor:
        """Entropy as a share of its highest value: of the structures asked for and all else, or of the least certain
        structure where they may overlap."""
        import torch

        if self._plan.softmax:
            return entropy_of([share for share, value in zip(shares, self.kept, strict=True) if value in self.names])
        shares = shares.clamp(0, 1)
        entropy = torch.special.entr(shares) + torch.special.entr(1 - shares)
        return entropy.amax(dim=0).div_(float(np.log(2)))

    def _is(self, value: int, structure: str) -> bool:
        name = self.names.get(value, "")
        return name.startswith(structure) if structure.endswith("_") else name == structure

    def _rank(self, value: int) -> tuple[int, int]:
        name = self.names[value]
        return next(n for n, start in enumerate(_ORDER) if name.startswith(start)), value
