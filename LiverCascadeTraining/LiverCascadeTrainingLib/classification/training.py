"""One network for one mask and one seed: samples, training on Lightning, and what it says of livers."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from LiverCascadeLib.gate import AIR_HU, case_score, judge, masked
from LiverCascadeLib.models import build_network
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import DataLoader, Dataset

from ..training.fit import Machine
from .config import ClassifyConfig
from .livers import Liver


class LiverSamples(Dataset):
    """Masked slices, or whole livers, as many with lesions as without: item n depends on the seed and n alone.

    Items are (image, truth): float32 [2 · context + 1, j, i] or [1, k, j, i], and 0 or 1.

    Args:
        livers: to draw from; both kinds must be there.
        config: of the run.
        mask: 'soft' or 'binary'.
        seed: of everything random.
    """

    def __init__(self, livers: Sequence[Liver], config: ClassifyConfig, mask: str, seed: int):
        self.config, self.mask, self.seed = config, mask, seed
        self.length = config.training.steps * config.training.batch_size
        self._choices: tuple[list, list] = ([], [])
        for liver in livers:
            if config.level == "case":
                truth = liver.truth(config.labels.least_lesion_ml)
                if truth is not None:
                    self._choices[truth].append((liver, np.zeros(0, int)))
                continue
            numbers, truths = liver.slices(config.labels.least_lesion_mm2)
            for truth in (0, 1):
                if (truths == truth).any():
                    self._choices[truth].append((liver, numbers[truths == truth]))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        if not 0 <= number < self.length:
            raise IndexError(number)
        rng = np.random.default_rng([self.seed, number])
        truth = int(rng.random() < 0.5)
        liver, slices = self._choices[truth][int(rng.integers(len(self._choices[truth])))]
        if self.config.level == "case":
            part = slice(None)
        else:
            middle, context = int(rng.choice(slices)), self.config.context
            part = np.clip(np.arange(middle - context, middle + context + 1), 0, len(liver.hu) - 1)
        hu = torch.from_numpy(liver.hu[part].astype(np.float32))
        probability = torch.from_numpy(liver.probability[part].astype(np.float32)) / 255
        hu, probability = self._changed(hu, probability, rng)
        image = masked(hu, probability, self.config.grid.window_hu, self.mask)
        return (image[None] if self.config.level == "case" else image), truth

    def _changed(self, hu: torch.Tensor, probability: torch.Tensor, rng: np.random.Generator):
        """Turned about S, zoomed and shifted within the slices; other gain, offset and noise of the values."""
        section = self.config.training
        angle = math.radians(float(rng.uniform(-1, 1)) * section.turn_degrees)
        zoom = math.exp(float(rng.uniform(-1, 1)) * section.zoom)
        shift = rng.uniform(-2, 2, 2) * section.shift
        gain = 1 + float(rng.uniform(-1, 1)) * section.gain
        offset = float(rng.uniform(-1, 1)) * section.offset_hu
        noise = float(rng.uniform(0, 1)) * section.noise_hu
        count, rows, columns = hu.shape
        mm = np.array(self.config.grid.spacing_mm[:2]) * (columns, rows)
        cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
        # In units of half a side, which are not the same in mm along both axes.
        matrix = [[cos, -sin * mm[1] / mm[0], shift[0]], [sin * mm[0] / mm[1], cos, shift[1]]]
        where = affine_grid(torch.tensor([matrix], dtype=torch.float32), [1, 1, rows, columns], align_corners=False)
        both = torch.cat([hu - AIR_HU, probability])[None]
        moved = grid_sample(both, where, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
        hu, probability = moved[:count] + AIR_HU, moved[count:]
        if noise:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            hu = hu + noise * torch.randn(hu.shape, generator=generator)
        return hu * gain + offset, probability


class Classifier(lightning.LightningModule):
    """A ResNet with its optimizer.

    Args:
        config: of the run.

    Attributes:
        losses: (step, mean cross entropy since the last entry), about fifty of them.
    """

    def __init__(self, config: ClassifyConfig):
        super().__init__()
        self.config = config
        self.network = build_network(*config.architecture())
        self.losses: list[tuple[int, float]] = []
        self._sum, self._count = 0.0, 0
        self._every = max(1, config.training.steps // 50)

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        """Cross entropy of a batch."""
        image, truth = batch
        smoothing = self.config.training.label_smoothing
        loss = torch.nn.functional.cross_entropy(self.network(image), truth, label_smoothing=smoothing)
        self._sum, self._count = self._sum + float(loss.detach()), self._count + 1
        if self._count == self._every:
            self.losses.append((self.global_step + 1, self._sum / self._count))
            self._sum, self._count = 0.0, 0
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW whose rate falls along a cosine, step by step."""
        section = self.config.training
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=section.learning_rate, weight_decay=section.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, section.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


@dataclass(frozen=True)
class Judged:
    """What a network says of a liver.

    Attributes:
        name, patient: whose it is.
        truth: whether it holds lesions; None where that is not clear.
        score: of the liver; None where no slice could be judged.
        slices: number, truth (None where not clear) and probability of each judged slice; none for 'case'.
    """

    name: str
    patient: str
    truth: bool | None
    score: float | None
    slices: tuple[tuple[int, bool | None, float], ...] = ()


def train(livers: Sequence[Liver], config: ClassifyConfig, mask: str, seed: int, machine: Machine) -> Classifier:
    """Trains a network; on one device, as these networks are small.

    Args:
        livers: of the training part.
        config: of the run.
        mask: 'soft' or 'binary'.
        seed: of weights, samples and their order.
        machine: where to compute.
    """
    torch.manual_seed(seed)
    module = Classifier(config)
    samples = LiverSamples(livers, config, mask, seed)
    loader = DataLoader(
        samples,
        batch_size=config.training.batch_size,
        num_workers=machine.workers,
        persistent_workers=machine.workers > 0,
    )
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Hints on numbers of workers, and on PyTorch's own names.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = lightning.Trainer(
            accelerator=machine.chosen(),
            devices=1,
            max_steps=config.training.steps,
            max_epochs=-1,
            deterministic=config.training.deterministic,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=machine.progress,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
    module.network.eval()
    return module


def judge_livers(network: torch.nn.Module, livers: Sequence[Liver], config: ClassifyConfig, mask: str) -> list[Judged]:
    """What a network says of livers, by the engine's own functions."""
    network.eval()
    answers = []
    for liver in livers:
        probability = torch.from_numpy(liver.probability.astype(np.float32)) / 255
        image = masked(torch.from_numpy(liver.hu.astype(np.float32)), probability, config.grid.window_hu, mask)
        found = judge(network, image, torch.from_numpy(liver.judged), config.level, config.context)
        truth = liver.truth(config.labels.least_lesion_ml)
        score = case_score(found, config.labels.top) if found.size else None
        slices = ()
        if config.level == "slice":
            clear = dict(zip(*(a.tolist() for a in liver.slices(config.labels.least_lesion_mm2)), strict=True))
            numbers = np.flatnonzero(liver.judged).tolist()
            slices = tuple((n, clear.get(n), float(p)) for n, p in zip(numbers, found, strict=True))
        answers.append(Judged(liver.name, liver.patient, truth, score, slices))
    return answers
