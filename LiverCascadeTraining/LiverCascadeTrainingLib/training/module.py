"""The Lightning module: one network, its averaged weights, and everything random a function of the step."""

from __future__ import annotations

import copy
import time
from typing import Any

import lightning
import torch
from LiverCascadeLib.models import build_network

from ..data.patches import Finisher, RawSample
from ..losses import build_loss
from ..networks import float32_where_thin, outputs_of
from ..optimizers import build_optimizer, build_schedule
from .config import RunConfig
from .judging import CaseScore, Judge, figures_of
from .pictures import slices_of
from .sources import Sources
from .unlabeled import disturbed, ramp, unlabeled_loss


class SegmentationModule(lightning.LightningModule):
    """Trains ``network``; ``average`` is what is validated and exported.

    Args:
        config: the run's.
        sources: its data; None for a module that is only exported.

    Attributes:
        parts: terms of the loss of the last step.
        unlabeled_samples: samples without labels that were learned from, since the process began.
        validated: scores of the last validation.
        figures: of the last validation, over all processes.
        stopped_at, leads: set by :func:`.fit.fit`.
        pictures: slices of the first validation case, for the overlay and the sweep.
    """

    def __init__(self, config: RunConfig, sources: Sources | None = None):
        super().__init__()
        self.config, self.sources = config, sources
        torch.manual_seed(config.training.seed)
        self.network = build_network(*config.architecture())
        self.average = copy.deepcopy(self.network).eval()
        for parameter in self.average.parameters():
            parameter.requires_grad_(False)
        float32_where_thin(self.network)
        self.loss = build_loss(config.loss.name, labels=config.channels, **config.loss.arguments)
        self.parts: dict[str, float] = {}
        self.unlabeled_samples = 0
        self.validated: list[CaseScore] = []
        self.figures: dict[str, float] = {}
        self.stopped_at, self.leads = 0, True
        self.pictures: Any = None
        self.validation_seconds = 0.0
        self._judge: Judge | None = None
        self._finisher: Finisher | None = None

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimizer and schedule by name."""
        optimizer = build_optimizer(
            self.config.optimizer.name, self.network.parameters(), **self.config.optimizer.arguments
        )
        schedule = build_schedule(
            self.config.schedule.name, self.config.training.steps, **self.config.schedule.arguments
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule.scheduler(optimizer), "interval": "step"},
        }

    def train(self, mode: bool = True) -> SegmentationModule:
        """The averaged weights never learn."""
        super().train(mode)
        self.average.eval()
        return self

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Raw samples get their look here, on the device of the network."""
        if isinstance(batch, list) and batch and isinstance(batch[0], RawSample):
            if self._finisher is None:
                self._finisher = Finisher(self.config.patch_spec(), self.config.grid.spacing_mm, device)
            return self._finisher(batch)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout and disturbances depend on seed, pass and process alone: a resumed run draws the same."""
        torch.manual_seed(
            (self.config.training.seed * 1_000_003 + self.trainer.fit_loop.total_batch_idx) * 64 + self.global_rank
        )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """The loss of one pass."""
        image = self._arranged(batch["image"])
        loss, parts = self.loss(outputs_of(self.network(image)), batch, batch["known"])
        if "unlabeled" in batch:
            extra = self._from_unlabeled(batch["unlabeled"]["image"])
            parts = {**parts, "unlabeled": extra.detach()}
            loss = loss + ramp(self.global_step, self.config.unlabeled) * extra
        self.parts = {"loss": float(loss.detach()), **{f"loss_{name}": float(value) for name, value in parts.items()}}
        return loss

    def arrange(self) -> None:
        """Puts the weights of 3D convolutions into the configured order in memory."""
        for parameter in self.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=self.memory_format)

    def _arranged(self, image: torch.Tensor) -> torch.Tensor:
        return image.contiguous(memory_format=self.memory_format) if image.ndim == 5 else image

    @property
    def memory_format(self) -> torch.memory_format:
        """Order of weights and patches in memory."""
        return torch.channels_last_3d if self.config.training.channels_last else torch.contiguous_format

    def _from_unlabeled(self, image: torch.Tensor) -> torch.Tensor:
        section, labels = self.config.unlabeled, self.config.channels
        with torch.no_grad():
            teacher = outputs_of(self.average(self._arranged(image)))[0][:, :labels]
        student = outputs_of(self.network(self._arranged(disturbed(image, section.noise))))[0][:, :labels]
        self.unlabeled_samples += len(image)
        return unlabeled_loss(student, teacher, section)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *arguments: Any, **settings: Any) -> None:
        """Clips by norm; a step with a gradient that is not finite is left out."""
        clip = self.config.training.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip or float("inf"))
        if not torch.isfinite(norm):
            for parameter in self.network.parameters():
                parameter.grad = None

    def optimizer_step(self, *arguments: Any, **settings: Any) -> None:
        """A step, and the averaged weights follow."""
        super().optimizer_step(*arguments, **settings)
        # Follows more closely at the start, where the weights still move fast.
        step = self.global_step
        decay = min(self.config.training.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            # By parameters and buffers, not by the state: a state may list a tensor twice.
            for average, current in zip(self.average.parameters(), self.network.parameters(), strict=True):
                average.lerp_(current, 1 - decay)
            for average, current in zip(self.average.buffers(), self.network.buffers(), strict=True):
                average.copy_(current)

    def on_validation_epoch_start(self) -> None:
        """The averaged weights go into the engine's predictor."""
        self.validated, self.pictures = [], None
        self._started = time.perf_counter()
        self._judge = Judge(self.config, self.average, str(self.device))

    def validation_step(self, number: torch.Tensor, batch_idx: int) -> None:
        """Segments one whole case; a negative number is none."""
        if int(number) < 0:
            return
        case = self.sources.validation[int(number)]
        labels = self._judge.labels_of(case)
        self.validated.append(self._judge.score(case, labels))
        if int(number) == 0:
            self.pictures = slices_of(case, labels, self.config.grid.window_hu)

    def on_validation_epoch_end(self) -> None:
        """Figures over the cases of all processes."""
        self._judge = None
        scores = self.validated
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, scores)
            scores = [score for part in gathered for score in part]
        self.validated = scores
        self.figures = figures_of(scores)
        self.validation_seconds = time.perf_counter() - self._started
        monitor = self.config.validation.monitor
        # A figure that no case knows counts as 0, so that its name is always there.
        monitored = self.figures.get(monitor, 0.0)
        self.log("dice", monitored, prog_bar=True, logger=False, rank_zero_only=False)
