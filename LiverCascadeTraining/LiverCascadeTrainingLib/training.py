"""The training loop: resumable at any step with the same result, on the CPU or a GPU."""

from __future__ import annotations

import copy
import math
import os
import time
from pathlib import Path

import torch
from LiverCascadeLib.models import build_network, load_manifest
from LiverCascadeLib.predictor import NetworkPredictor
from torch.utils.data import DataLoader

from .cases import Case
from .config import TrainingConfig
from .looks import LESION
from .losses import cascade_loss
from .priors import PriorBank
from .samples import SampleSet

CHECKPOINT = "checkpoint.pt"


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up over 5 % of the steps, then cosine decay to 1 % of the peak."""
    warm = max(1, config.steps // 20)
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    share = (step - warm) / max(1, config.steps - warm)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Trainer:
    """Trains one network.

    Args:
        config: the configuration.
        cases: prepared cases; real and synthetic.
        run: folder of the run: checkpoint and TensorBoard events. An existing checkpoint is resumed.
        device: where to compute.
        workers: processes that make samples; the samples do not depend on it.
        start_from: folder of another run with the same network, whose averaged weights a new run begins with.
        locate: folder of a locate model, whose probabilities become priors; needed where the configuration has a
            ``located_share``.

    Raises:
        FileNotFoundError: ``start_from`` has no checkpoint.
        ValueError: the configuration wants a locate model and there is none.
    """

    def __init__(
        self,
        config: TrainingConfig,
        cases: list[Case],
        run: Path,
        device: str = "cpu",
        workers: int = 1,
        start_from: Path | None = None,
        locate: Path | None = None,
    ):
        self.config, self.run, self.device, self.workers = config, run, torch.device(device), workers
        self.samples = SampleSet(cases, config.sample_spec(), config.seed, self._priors(cases, locate))
        torch.manual_seed(config.seed)
        network = build_network(config.architecture, config.arguments)
        # Channels last is up to three times as fast for strided 3D convolutions on the CPU.
        self.network = network.to(self.device, memory_format=torch.channels_last_3d)
        if start_from is not None:
            self.network.load_state_dict(self._read(start_from)["average"])
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        run.mkdir(parents=True, exist_ok=True)
        if (run / CHECKPOINT).exists():
            self._load()

    def _priors(self, cases: list[Case], locate: Path | None) -> PriorBank | None:
        config = self.config
        if not cases or not config.located_share:
            return None
        if locate is None:
            raise ValueError("This configuration trains with the priors of a locate model: name its folder, --locate.")
        stage = NetworkPredictor(load_manifest(locate), self.device.type)
        return PriorBank.fill(
            self.run / "priors", cases, stage, config.sample_spec(), config.located_looks, config.located_seed
        )

    def _read(self, run: Path) -> dict:
        if not (run / CHECKPOINT).exists():
            raise FileNotFoundError(f"There is no checkpoint in {run}: train that run first.")
        return torch.load(run / CHECKPOINT, map_location=self.device, weights_only=True)

    def _load(self) -> None:
        state = self._read(self.run)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self) -> None:
        """Writes the checkpoint under a temporary name and moves it, so that a stop never leaves half a file."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        temporary = self.run / (CHECKPOINT + ".part")
        torch.save(state, temporary)
        os.replace(temporary, self.run / CHECKPOINT)

    def train(self, until: int | None = None) -> None:
        """Trains up to step ``until`` (default: the configured end), from wherever the run stands."""
        from torch.utils.tensorboard import SummaryWriter

        until = self.config.steps if until is None else min(until, self.config.steps)
        if self.step >= until:
            return
        batch = self.config.batch_size
        # Sample n belongs to step n // batch for ever: that is what makes a resumed run the same run.
        indices = range(self.step * batch, until * batch)
        loader = DataLoader(
            self.samples, batch, sampler=indices, num_workers=self.workers, prefetch_factor=3 if self.workers else None
        )
        self.network.train()
        with SummaryWriter(str(self.run / "tensorboard"), purge_step=self.step) as writer:
            started, waited = time.perf_counter(), 0.0
            fetched = time.perf_counter()
            for image, target in loader:
                waited += time.perf_counter() - fetched
                loss, dice = self._optimize(image.to(self.device), target.to(self.device))
                self.step += 1
                if self.step % self.config.log_every == 0:
                    elapsed = (time.perf_counter() - started) / self.config.log_every
                    self._log(writer, loss, dice, elapsed, waited / self.config.log_every)
                    started, waited = time.perf_counter(), 0.0
                if self.step % self.config.checkpoint_every == 0 or self.step == until:
                    self.save()
                fetched = time.perf_counter()

    def _optimize(self, image: torch.Tensor, target: torch.Tensor) -> tuple[float, dict[str, float]]:
        """One step; returns the loss and the batch's hard Dice per label."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.config)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(image.contiguous(memory_format=torch.channels_last_3d))
        loss = cascade_loss(logits, target, false_lesion_weight=self.config.false_lesion_weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        # The average follows more closely at the start, where the weights still move fast.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            # By parameters and buffers, not by the state: a state may list a tensor twice.
            for average, current in zip(self.average.parameters(), self.network.parameters(), strict=True):
                average.lerp_(current, 1 - decay)
            for average, current in zip(self.average.buffers(), self.network.buffers(), strict=True):
                average.copy_(current)
        return float(loss.detach()), _batch_dice(logits.detach(), target)

    def _log(self, writer, loss: float, dice: dict[str, float], seconds: float, waiting: float) -> None:
        writer.add_scalar("loss", loss, self.step)
        writer.add_scalar("learning_rate", learning_rate_at(self.step - 1, self.config), self.step)
        writer.add_scalar("seconds_per_step", seconds, self.step)
        writer.add_scalar("seconds_waiting_for_data", waiting, self.step)
        for name, value in dice.items():
            writer.add_scalar(f"batch_dice/{name}", value, self.step)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
        print(
            f"step {self.step}/{self.config.steps}: loss {loss:.3f}, Dice {figures}, "
            f"{seconds:.2f} s per step, {waiting:.2f} s of it waiting for data",
            flush=True,
        )


def _batch_dice(logits: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Hard Dice over the batch; absent labels are left out."""
    predicted = logits.argmax(dim=1)
    pairs = {"liver": (predicted > 0, target > 0)}
    if logits.shape[1] > 2 and bool((target == LESION).any()):
        pairs["lesion"] = (predicted == 2, target == LESION)
    result = {}
    for name, (p, t) in pairs.items():
        total = int(p.sum() + t.sum())
        if total:
            result[name] = 2 * int((p & t).sum()) / total
    return result
