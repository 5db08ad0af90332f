"""Several sources of samples as one: prepared data sets, synthetic bodies, in shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from LiverCascadeLib.errors import InputError

from ..samples import SampleSet


class SyntheticSource(torch.utils.data.Dataset):
    """The samples of synthetic bodies in the form of :class:`.patches.PatchDataset`.

    Args:
        samples: what paints them.
        length: number of samples.
    """

    def __init__(self, samples: SampleSet, length: int = 2**31 - 1):
        self.samples, self.length = samples, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self.length:
            raise IndexError(number)
        image, target = self.samples[number]
        # Voxels of which nobody knows whether they are lesion say so themselves: lesions beside them are known.
        known = {"liver": True, "lesion": self.samples.spec.with_lesions, "couinaud": False}
        return {
            "image": image,
            "target": target,
            "known": {group: torch.tensor(value) for group, value in known.items()},
            "name": "synthetic",
            "number": torch.tensor(number),
        }


class MixedDataset(torch.utils.data.Dataset):
    """Samples from several sources; which one gives item n depends on the seed and n alone.

    Args:
        sources: data sets whose items have the same form.
        shares: of each source; need not add up to 1.
        seed: of the choice.
        length: number of samples.

    Raises:
        InputError: shares that do not fit.
    """

    def __init__(
        self,
        sources: Sequence[torch.utils.data.Dataset],
        shares: Sequence[float],
        seed: int,
        length: int = 2**31 - 1,
    ):
        if not sources or len(sources) != len(shares) or min(shares) < 0 or sum(shares) <= 0:
            raise InputError(f"{len(sources)} sources with the shares {list(shares)}: one share for each, not all 0.")
        self.sources, self.seed, self.length = list(sources), seed, length
        self.shares = np.array(shares, dtype=float) / sum(shares)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self.length:
            raise IndexError(number)
        choice = np.random.default_rng([self.seed, number, 1]).choice(len(self.sources), p=self.shares)
        return self.sources[int(choice)][number]
