"""Validation: whole cases through the engine's sliding window, with the network that is in memory."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from LiverCascadeLib.models import Manifest
from LiverCascadeLib.predictor import NetworkPredictor
from LiverCascadeLib.progress import Progress

from ..data.cache import PRIOR, CachedCase
from ..data.layouts import LESION
from ..priors import imitate_prior
from .config import RunConfig

INTENDED_USE = "Research use only. Not a medical device; not for diagnosis or treatment decisions."
WEIGHTS = "weights.safetensors"


def manifest_of(config: RunConfig, digest: str, **more: Any) -> Manifest:
    """The manifest of a run's network.

    Args:
        config: the run's.
        digest: of the weights.
        more: further fields of the manifest.
    """
    architecture, arguments = config.architecture()
    grid, augmentation = config.grid, config.prepared.augmentation
    mirrored = augmentation.flip_axes if config.prepared.share and augmentation.flip_chance > 0 else ()
    values = {
        "id": config.model.id,
        "role": config.role,
        "title": config.model.title,
        "architecture": architecture,
        "arguments": arguments,
        "inputs": config.inputs,
        "labels": config.labels,
        "spacing_mm": grid.spacing_mm,
        "patch_size": grid.patch_size,
        "window_hu": grid.window_hu,
        "weights_file": WEIGHTS,
        "weights_sha256": digest,
        "version": config.model.version,
        "license": config.model.license,
        "intended_use": INTENDED_USE,
        "margin_mm": grid.margin_mm if config.with_lesions else 0.0,
        "overlap": grid.overlap,
        "mirror_axes": mirrored,
        "min_lesion_peak": grid.min_lesion_peak,
        "min_lesion_confidence": grid.min_lesion_confidence,
        "input_spacing_mm": grid.input_spacing_mm,
        "training_data": config.model.training_data,
    }
    return Manifest(**{**values, **more})


@dataclass(frozen=True)
class CaseScore:
    """How well a case was segmented; voxel counts of what is known about it.

    Attributes:
        name: of the case.
        liver, lesion: (common, predicted, true) voxels; None where the case does not know.
    """

    name: str
    liver: tuple[int, int, int] | None
    lesion: tuple[int, int, int] | None


def counts(predicted: np.ndarray, true: np.ndarray) -> tuple[int, int, int]:
    """Voxels in both masks, in the first, and in the second."""
    return (int(np.count_nonzero(predicted & true)), int(np.count_nonzero(predicted)), int(np.count_nonzero(true)))


def dice_of(numbers: tuple[int, int, int]) -> float:
    """2 |P ∩ T| / (|P| + |T|); 1 where both are empty."""
    common, predicted, true = numbers
    return 2 * common / (predicted + true) if predicted + true else 1.0


class Judge:
    """Segments prepared cases and compares with their labels.

    Args:
        config: the run's.
        network: whose weights are judged; moved to ``device``.
        device: where to compute.
    """

    def __init__(self, config: RunConfig, network: torch.nn.Module, device: str = "cpu"):
        manifest = manifest_of(config, "0" * 64)
        self.config = config
        # A copy: the predictor chooses the memory layout that is best for it.
        network = copy.deepcopy(network).eval()
        self.predictor = NetworkPredictor(manifest, device, config.validation.overlap, network=network)

    def labels_of(self, case: CachedCase) -> np.ndarray:
        """What the network says about a prepared case: 0, 1, 2, uint8 [k, j, i]."""
        ct = torch.from_numpy(np.array(case.image)).float()
        prior = self._prior(case) if self.config.with_lesions else None
        probability = self.predictor.predict(ct, prior, case.grid, Progress())
        both = torch.cat([1 - probability.sum(dim=0, keepdim=True), probability])
        return both.argmax(dim=0).to(torch.uint8).numpy()

    def _prior(self, case: CachedCase) -> torch.Tensor:
        """A located probability where there is one; otherwise the same imitation each time, from the truth."""
        if case.has(PRIOR):
            return torch.from_numpy(np.array(case.prior)).float() / 255
        labels = torch.from_numpy(np.array(case.labels))
        rng = np.random.default_rng([self.config.training.seed, zlib.crc32(case.name.encode())])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return imitate_prior(labels, self.config.sample_spec(), rng, generator)

    def score(self, case: CachedCase, labels: np.ndarray | None = None) -> CaseScore:
        """Compares a case's labels with the network's."""
        found = self.labels_of(case) if labels is None else labels
        true = np.array(case.labels)
        liver = counts(found > 0, true > 0) if case.known["liver"] else None
        told = self.config.with_lesions and case.known["lesion"]
        return CaseScore(case.name, liver, counts(found == LESION, true == LESION) if told else None)


def figures_of(scores: Iterable[CaseScore]) -> dict[str, float]:
    """Figures over cases: mean Dice of the liver, of lesions over the cases that have any, and the mean of both.

    Returns:
        'dice', and what is known of 'dice_liver', 'dice_lesion', 'dice_lesion_pooled' (one mask over all cases) and
        'false_lesion_cases' (cases without lesions where some were found).
    """
    scores = sorted(scores, key=lambda score: score.name)
    figures: dict[str, float] = {}
    livers = [dice_of(score.liver) for score in scores if score.liver is not None]
    told = [score.lesion for score in scores if score.lesion is not None]
    ill = [numbers for numbers in told if numbers[2]]
    if livers:
        figures["dice_liver"] = float(np.mean(livers))
    if ill:
        figures["dice_lesion"] = float(np.mean([dice_of(numbers) for numbers in ill]))
        figures["dice_lesion_pooled"] = dice_of(tuple(np.sum(ill, axis=0).tolist()))
    if told:
        figures["false_lesion_cases"] = float(sum(1 for n in told if not n[2] and n[1]))
    means = [figures[key] for key in ("dice_liver", "dice_lesion") if key in figures]
    return {"dice": float(np.mean(means)) if means else 0.0, **figures}
