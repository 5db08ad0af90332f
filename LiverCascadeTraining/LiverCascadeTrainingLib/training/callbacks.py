"""What happens beside the training: checkpoints that are whole or not there, figures, pictures, a stop on wish."""

from __future__ import annotations

import csv
import io
import os
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO

from .config import RunConfig
from .pictures import add_animation, animated, grid_picture, write_bytes

CHECKPOINTS, LAST, METRICS, SWEEPS, STOP = "checkpoints", "last.ckpt", "metrics.csv", "sweeps", "stop"


class WholeFileCheckpoints(TorchCheckpointIO):
    """Writes beside the file and moves: a process that is killed leaves the old checkpoint or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves ``checkpoint`` as ``path``."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as stream:
            torch.save(checkpoint, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)


class KeepLast(Callback):
    """Saves the run's state every so many steps, at the end of each epoch, and where it is to stop.

    Args:
        folder: of the run.
        every: steps.
        until: the run stops after this step; None goes on to the end.
    """

    def __init__(self, folder: Path, every: int, until: int | None = None):
        self.folder, self.every, self.until = folder, every, until
        self.saved = -1

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        """Between the steps of an epoch; its last one waits for the validation."""
        step = trainer.global_step
        wanted = step % self.every == 0 or step == self.until
        if wanted and step != self.saved and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """After the validation."""
        if trainer.is_last_batch:
            self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        self.saved = trainer.global_step
        trainer.save_checkpoint(self.folder / CHECKPOINTS / LAST)


class StopOnWish(Callback):
    """Stops at the end of a step when a file named 'stop' appears in the run's folder; the state is saved."""

    def __init__(self, folder: Path):
        self.file = folder / STOP

    def on_train_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        """Looks for the file."""
        wish = trainer.strategy.broadcast(self.file.exists())
        if wish and not trainer.is_last_batch:
            trainer.save_checkpoint(self.file.parent / CHECKPOINTS / LAST)
            if trainer.is_global_zero:
                self.file.unlink(missing_ok=True)
            # The way by which a run ends that reached its last step: nothing is validated that would not be later.
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step


class Bar(TQDMProgressBar):
    """A progress bar for each epoch, with loss and Dice."""

    def get_metrics(self, trainer: lightning.Trainer, module: Any) -> dict[str, Any]:
        """What stands behind the bar."""
        metrics = super().get_metrics(trainer, module)
        metrics.pop("v_num", None)
        return {**metrics, **{name: f"{value:.3g}" for name, value in module.parts.items() if name == "loss"}}


class Figures(Callback):
    """Writes curves to TensorBoard and to ``metrics.csv``, and pictures of the first validation case.

    Args:
        folder: of the run.
        config: the run's.
        quiet: print nothing.
    """

    COLUMNS = (
        "step", "epoch", "loss", "learning_rate", "seconds_per_step", "seconds_waiting", "dice", "dice_liver",
        "dice_lesion", "dice_lesion_pooled", "false_lesion_cases", "validation_seconds",
    )  # fmt: skip

    def __init__(self, folder: Path, config: RunConfig, quiet: bool = False):
        self.path, self.folder, self.config, self.quiet = folder / METRICS, folder, config, quiet
        self._ended = self._since = 0.0
        self._waited, self._steps = 0.0, 0
        self._epoch_ended = -1

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Rows of steps that are trained again are dropped."""
        self._ended = self._since = time.perf_counter()
        if not trainer.is_global_zero:
            return
        rows = read_metrics(self.path)
        kept = [row for row in rows if int(row["step"]) <= trainer.global_step]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, self.COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_bytes(self.path, stream.getvalue().encode())

    def on_train_batch_start(self, *arguments: Any) -> None:
        """The time since the last step was spent waiting for samples."""
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *arguments: Any) -> None:
        """Every ``log_every`` steps a row."""
        self._ended = time.perf_counter()
        if trainer.fit_loop._should_accumulate():
            return
        self._steps += 1
        step = trainer.global_step
        if step % self.config.training.log_every or not trainer.is_global_zero:
            return
        now = time.perf_counter()
        row = {
            **module.parts,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds_per_step": (now - self._since) / self._steps,
            "seconds_waiting": self._waited / self._steps,
        }
        self._since, self._waited, self._steps = now, 0.0, 0
        self._write(trainer, step, row, "training")

    def on_validation_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Validation does not count as a step's time."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """A row and the pictures."""
        paused = time.perf_counter() - self._paused
        self._since += paused
        self._ended += paused
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        step = trainer.global_step
        self._write(trainer, step, {**module.figures, "validation_seconds": module.validation_seconds}, "validation")
        if module.pictures is not None:
            self._show(trainer, module.pictures, step)

    def _show(self, trainer: lightning.Trainer, pictures: Any, step: int) -> None:
        writer = trainer.logger.experiment
        writer.add_image("overlay", grid_picture(pictures), step, dataformats="HWC")
        if self.config.validation.sweep:
            gif = animated(pictures)
            write_bytes(self.folder / SWEEPS / f"step{step:07d}.gif", gif)
            add_animation(writer, "sweep", gif, pictures.shape[1:], step)

    def _write(self, trainer: lightning.Trainer, step: int, row: dict[str, float], group: str) -> None:
        for name, value in row.items():
            trainer.logger.experiment.add_scalar(f"{group}/{name}", value, step)
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, self.COLUMNS, extrasaction="ignore", lineterminator="\n")
            shown = {name: f"{value:.6g}" for name, value in row.items()}
            writer.writerow({"step": step, "epoch": (step - 1) // self.config.validation.every, **shown})
        if not self.quiet:
            text = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
            print(f"step {step}/{self.config.training.steps}: {text}", flush=True)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of ``metrics.csv``; a last line that was cut off by a stop is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]
    return [row for row in csv.DictReader(io.StringIO(whole)) if (row.get("step") or "").isdigit()]


def keep_best(folder: Path, config: RunConfig) -> ModelCheckpoint:
    """The best checkpoints by the monitored figure."""
    best = ModelCheckpoint(
        dirpath=folder / CHECKPOINTS,
        filename="step{step:07d}-dice{dice:.4f}",
        monitor="dice",
        mode="max",
        save_top_k=config.validation.keep,
        auto_insert_metric_name=False,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    return best


def stop_early(config: RunConfig) -> EarlyStopping:
    """Stops when nothing gets better for a while."""
    # Decided with the validation, before the state is saved: a resumed run knows that it was stopped.
    patience = config.validation.patience
    return EarlyStopping("dice", patience=patience, mode="max", verbose=False, check_on_train_epoch_end=False)
