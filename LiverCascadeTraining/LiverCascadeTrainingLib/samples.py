"""Training samples: a pure function of (configuration, cases, index), so that a stopped run resumes exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from LiverCascadeLib.channels import liver_contrast, windowed

from .cases import AIR_HU, Case
from .looks import BACKGROUND, LIVER, SampleSpec, no_liver, scan_of, source_positions
from .priors import PriorBank, density_in_patch, imitate_prior


class SampleSet(torch.utils.data.Dataset):
    """An endless data set: item ``n`` depends on the seed and ``n`` alone.

    Items are (image, target): float32 [channels, k, j, i] and uint8 [k, j, i] with 0 background, 1 liver, 2 lesion,
    3 liver of which nobody knows whether it is lesion.

    Args:
        cases: prepared cases.
        spec: what a sample looks like.
        seed: of everything random.
        bank: what a trained locate network gives on the cases.
        weights: how often single real cases come, against 1 for those that are not named.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        spec: SampleSpec,
        seed: int,
        bank: PriorBank | None = None,
        weights: Mapping[str, float] | None = None,
    ):
        self.spec, self.seed, self.bank = spec, seed, bank
        self.synthetic = [case for case in cases if case.kind == "synthetic"]
        self.real = [case for case in cases if case.kind == "real"]
        self._real_shares: np.ndarray | None = None
        if weights and self.real:
            wanted = np.array([weights.get(case.name, 1.0) for case in self.real], float)
            self._real_shares = wanted / wanted.sum()

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        spec = self.spec
        case, position = self._draw(rng, generator)
        if case is None:
            hu, target = no_liver(spec, rng, generator)
        else:
            hu, target = scan_of(case, position, spec, rng, generator)
        hu, target = _cut_field_of_view(hu, target, rng)
        channels = {"ct": windowed(hu, spec.window_hu)}
        if "liver_probability" in spec.inputs:
            prior = channels["liver_probability"] = self._prior(index, case, position, target, rng, generator)
            if "liver_contrast" in spec.inputs:
                density = density_in_patch(hu, target, prior, rng)
                channels["liver_contrast"] = liver_contrast(hu, density, spec.spacing_mm[::-1])
        if not spec.with_lesions:
            target = target.clamp(max=LIVER)
        return torch.stack([channels[name] for name in spec.inputs]), target.to(torch.uint8)

    def _draw(self, rng, generator) -> tuple[Case | None, torch.Tensor | None]:
        """A case and where in it the patch lies; no case for a sample without a liver."""
        spec, kind = self.spec, rng.random()
        if kind < spec.negative_share:
            return None, None
        from_real = self.real and (kind < spec.negative_share + spec.real_share or not self.synthetic)
        pool = self.real if from_real else self.synthetic
        if from_real and self._real_shares is not None:
            case = pool[int(rng.choice(len(pool), p=self._real_shares))]
        else:
            case = pool[int(rng.integers(len(pool)))]
        return case, source_positions(case, spec, rng, generator)

    def _prior(self, index: int, case, position, target, rng, generator) -> torch.Tensor:
        if self.bank is not None and case is not None and rng.random() < self.spec.located_share:
            return self.bank.prior(case, position, target, self.spec, rng, generator)
        gentle = index < self.spec.gentle_prior_until
        return imitate_prior(target, self.spec, rng, generator, gentle)


def _cut_field_of_view(hu, target, rng):
    """Now and then the scan begins or ends inside the patch; outside it the engine pads with air."""
    if rng.random() < 0.25:
        cut = int(rng.integers(1, max(2, hu.shape[0] // 3)))
        part = slice(0, cut) if rng.random() < 0.5 else slice(hu.shape[0] - cut, None)
        hu, target = hu.clone(), target.clone()
        hu[part], target[part] = AIR_HU, BACKGROUND
    return hu, target
