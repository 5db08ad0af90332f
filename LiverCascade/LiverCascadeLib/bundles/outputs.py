"""From a network's outputs to probabilities and labels, without keeping outputs that nobody asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..fusing import entropy_of
from .plan import Plan

if TYPE_CHECKING:
    import torch

# Of more outputs than this, those that are asked for are kept, and the best of the others.
MOST_OUTPUTS = 16
# What is drawn over what, where structures may overlap: a lesion lies in the liver.
_ORDER = ("liver", "couinaud_", "vessel", "lesion")


class Outputs:
    """Which of the outputs are kept, and what they mean.

    Windows are put together before the activation, as MONAI does. Of many outputs that exclude each other, only what
    is asked for goes that way, with the largest of the others and the logarithm of the sum of all exponentials: within
    a window that gives the same probabilities.

    Args:
        plan: activation and number of outputs.
        names: structures by label value.

    Attributes:
        kept: what stands in each kept channel: a label value, or 0 for the best of the others.
    """

    def __init__(self, plan: Plan, names: Mapping[int, str]):
        self._plan, self.names = plan, dict(names)
        self._reduces = plan.softmax and plan.outputs > MOST_OUTPUTS
        if self._reduces:
            # The last one is the logarithm of the sum.
            self.kept = [0, *sorted(names), 0]
        else:
            self.kept = list(range(plan.outputs)) if plan.softmax else sorted(names, key=self._rank)

    def reduced(self, answer: torch.Tensor) -> torch.Tensor:
        """What is kept of the network's answer [batch, outputs, k, j, i]."""
        import torch

        if not self._plan.softmax:
            return answer[:, [self._plan.channel_of(value) for value in self.kept]]
        if not self._reduces:
            return answer
        wanted = self.kept[1:-1]
        others = [channel for channel in range(answer.shape[1]) if channel not in wanted]
        best, total = answer[:, others].amax(dim=1, keepdim=True), torch.logsumexp(answer, dim=1, keepdim=True)
        return torch.cat([best, answer[:, wanted], total], dim=1)

    def shares(self, blend: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
        """Probabilities [c, k, j, i] of what was put together from windows; nothing is there where ``unseen``."""
        import torch

        if not self._plan.softmax:
            return torch.sigmoid(blend).masked_fill_(unseen, 0.0)
        shares = (blend[:-1] - blend[-1]).exp_().clamp_(max=1.0) if self._reduces else torch.softmax(blend, dim=0)
        shares.masked_fill_(unseen, 0.0)
        shares[0][unseen] = 1.0
        return shares

    def background(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """Probabilities of nothing but background."""
        import torch

        shares = torch.zeros(tuple(shape), device=device)
        if self._plan.softmax:
            shares[0] = 1.0
        return shares

    def decided(self, shares: torch.Tensor) -> torch.Tensor:
        """The label value of each voxel, uint8; of outputs that are not kept 0."""
        import torch

        if self._plan.softmax:
            table = torch.tensor(self._values(), dtype=torch.uint8, device=shares.device)
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
            for channel, value in enumerate(self._values())
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
            return entropy_of(
                [share for share, value in zip(shares, self._values(), strict=True) if value in self.names]
            )
        shares = shares.clamp(0, 1)
        entropy = torch.special.entr(shares) + torch.special.entr(1 - shares)
        return entropy.amax(dim=0).div_(float(np.log(2)))

    def _values(self) -> list[int]:
        return self.kept[:-1] if self._reduces else self.kept

    def _is(self, value: int, structure: str) -> bool:
        name = self.names.get(value, "")
        return name.startswith(structure) if structure.endswith("_") else name == structure

    def _rank(self, value: int) -> tuple[int, int]:
        name = self.names[value]
        return next(n for n, start in enumerate(_ORDER) if name.startswith(start)), value
