"""From a configuration and data to trained weights; a stopped run goes on where it was."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from LiverCascadeLib.errors import InputError, ResourceError
from LiverCascadeLib.models import load_manifest, load_network
from LiverCascadeLib.models.manifest import MANIFEST_NAME
from torch.utils.data import DataLoader

from ..data.patches import PatchDataset
from .callbacks import Bar, Figures, KeepLast, StopOnWish, WholeFileCheckpoints, keep_best, stop_early
from .config import PRECISIONS, RunConfig
from .module import SegmentationModule
from .record import RunFolder
from .sources import DataPlaces, PairedDataset, Sources, StepSampler

TENSORBOARD = "tensorboard"
_HINTS = (
    ".*does not have many workers.*",
    ".*resuming from a checkpoint that ended before.*",
    ".*Checkpoint directory.*",
    ".*in eval mode at the start.*",
    ".*You have overridden `transfer.*",
    ".*is smaller than the logging interval.*",
    ".*LeafSpec.*",
)


@dataclass(frozen=True)
class Machine:
    """Where a run computes; nothing of it changes what is computed, but for rounding.

    Attributes:
        accelerator: 'auto', 'cpu' or 'gpu'.
        devices: per node.
        nodes: number of nodes; each starts the same command with Lightning's variables (MASTER_ADDR, NODE_RANK).
        workers: processes that make samples, per device.
        strategy: of Lightning; None takes 'ddp' where there is more than one device.
        look_on_device: samples of prepared data get their look on the network's device rather than in the workers;
            None does so on a GPU. Mixed sources, and those with unlabeled samples, are always finished by workers.
        progress: show a progress bar.
        quiet: print nothing.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int = 1
    strategy: str | None = None
    look_on_device: bool | None = None
    progress: bool = False
    quiet: bool = False

    def chosen(self) -> str:
        """'cpu' or 'gpu'.

        Raises:
            ResourceError: a GPU was asked for and there is none.
        """
        there = torch.cuda.device_count()
        if self.accelerator == "cpu" or (self.accelerator == "auto" and not there):
            return "cpu"
        if there < self.devices:
            raise ResourceError(f"{self.devices} GPUs were asked for, {there} can be used here. Choose fewer, or cpu.")
        return "gpu"


class RunData(lightning.LightningDataModule):
    """Loaders of a run's samples and of its validation cases."""

    def __init__(self, config: RunConfig, sources: Sources, machine: Machine):
        super().__init__()
        self.config, self.sources, self.machine = config, sources, machine

    def train_dataloader(self) -> DataLoader:
        """Passes of one epoch, from wherever the run stands."""
        trainer, section = self.trainer, self.config.training
        passes = self.config.validation.every * section.accumulate
        sampler = StepSampler(passes, section.batch_size, trainer.global_rank, trainer.world_size)
        sampler.passes_done = lambda: trainer.global_step * section.accumulate
        data = self.sources.train
        on_gpu = trainer.strategy.root_device.type == "cuda"
        wish = self.machine.look_on_device
        raw = isinstance(data, PatchDataset) and (on_gpu if wish is None else wish)
        if isinstance(data, PatchDataset):
            data.raw = raw
        workers = self.machine.workers
        return DataLoader(
            data,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=list if raw else None,
            prefetch_factor=3 if workers else None,
            persistent_workers=False,
            worker_init_fn=_one_thread if workers else None,
            pin_memory=on_gpu and not raw,
        )

    def val_dataloader(self) -> DataLoader:
        """Numbers of validation cases, shared out among the processes."""
        rank, world, count = self.trainer.global_rank, self.trainer.world_size, len(self.sources.validation)
        # Every process gets as many; -1 is no case.
        numbers = [n if n < count else -1 for n in range(rank, count + -count % world, world)]
        return DataLoader(numbers, batch_size=1)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def fit(
    config: RunConfig,
    folder: Path,
    places: DataPlaces,
    machine: Machine | None = None,
    until: int | None = None,
    start_from: Path | None = None,
) -> SegmentationModule:
    """Trains, from wherever the run in ``folder`` stands, up to step ``until`` or the configured end.

    Args:
        config: the run's.
        folder: of the run.
        places: where its data are.
        machine: where to compute.
        until: stop after this step; the schedule stays the configured one.
        start_from: folder of a run with the same network, whose averaged weights a new run begins with; or of a model.

    Returns:
        the module as it stands; ``stopped_at`` is its step, ``leads`` whether this process leads the others.

    Raises:
        InputError: data or run folder do not fit the configuration.
        ResourceError: a GPU was asked for and there is none.
        KeyboardInterrupt: the user pressed Ctrl+C; the last checkpoint stays.
    """
    machine = machine or Machine()
    accelerator = machine.chosen()
    run = RunFolder(folder)
    _hush()
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    sources = Sources(config, places, run.path, "cuda" if accelerator == "gpu" else "cpu")
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0
    if first:
        run.begin(config, places, sources, start_from)
    module = SegmentationModule(config, sources)
    resumed = run.last if run.last.is_file() else None
    if resumed is None and start_from is not None:
        load_average(module, start_from)
    module.arrange()
    step, ended = _state_of(resumed) if resumed else (0, False)
    end = config.training.steps if until is None else min(until, config.training.steps)
    module.stopped_at, module.leads = step, first
    if ended or step >= end:
        if resumed:
            load_checkpoint(module, resumed)
        return module
    trainer = _trainer(config, run.path, machine, accelerator, end, step, bool(sources.validation))
    try:
        trainer.fit(module, datamodule=RunData(config, sources, machine), ckpt_path=resumed, weights_only=False)
    except SystemExit as end:
        # Lightning's answer to Ctrl+C; the command line has its own.
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    module.stopped_at = trainer.global_step
    return module


def _state_of(checkpoint: Path) -> tuple[int, bool]:
    """Step of a checkpoint, and whether the run was stopped early there."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    ended = any(values.get("stopped_epoch") for values in state["callbacks"].values() if isinstance(values, dict))
    return int(state["global_step"]), ended


def _trainer(
    config: RunConfig, folder: Path, machine: Machine, accelerator: str, end: int, step: int, validated: bool
) -> lightning.Trainer:
    section = config.training
    many = machine.devices * machine.nodes > 1
    callbacks: list[Any] = [Figures(folder, config, machine.quiet)]
    if machine.progress:
        callbacks.append(Bar())
    if validated:
        callbacks.append(keep_best(folder, config))
        if config.validation.patience:
            callbacks.append(stop_early(config))
    # Last, so that its file holds what the others know after the validation.
    callbacks += [StopOnWish(folder), KeepLast(folder, section.checkpoint_every, end)]
    return lightning.Trainer(
        accelerator=accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy=machine.strategy or ("ddp" if many else "auto"),
        precision=PRECISIONS[section.precision],
        max_steps=end,
        # The steps alone say where the end is: Lightning counts an epoch anew that it resumes at its end.
        max_epochs=-1,
        accumulate_grad_batches=section.accumulate,
        deterministic=section.deterministic,
        benchmark=not section.deterministic,
        logger=TensorBoardLogger(folder, name="", version=TENSORBOARD, purge_step=step + 1 if step else None),
        callbacks=callbacks,
        plugins=[WholeFileCheckpoints()],
        enable_checkpointing=validated,
        enable_progress_bar=machine.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validated else 0,
        log_every_n_steps=section.log_every,
        use_distributed_sampler=False,
    )


def _hush() -> None:
    """Lightning's hints are about things that are decided here on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in _HINTS:
        warnings.filterwarnings("ignore", text)


def load_checkpoint(module: SegmentationModule, path: Path) -> int:
    """Loads weights and averaged weights; returns the step of the checkpoint.

    Raises:
        InputError: it cannot be read, or belongs to another network.
    """
    try:
        # Checkpoints of one's own runs only: they hold pickled states of callbacks.
        state = torch.load(path, map_location="cpu", weights_only=False)
        module.load_state_dict(state["state_dict"])
    except FileNotFoundError:
        raise InputError(f"There is no checkpoint {path}: train that run first.") from None
    except (RuntimeError, KeyError, OSError, EOFError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"The checkpoint {path} cannot be used: {first}") from None
    return int(state["global_step"])


def load_average(module: SegmentationModule, start_from: Path) -> None:
    """Begins with the averaged weights of another run, or with the weights of an exported model.

    Raises:
        InputError: it has neither, or another network.
    """
    run = RunFolder(start_from)
    if run.last.is_file() or not (Path(start_from) / MANIFEST_NAME).is_file():
        load_checkpoint(module, run.last)
        module.network.load_state_dict(module.average.state_dict())
        return
    manifest = load_manifest(start_from)
    architecture, arguments = module.config.architecture()
    wanted = module.config.inputs
    # A model that knows fewer channels, in the same order, learns the others.
    fewer = wanted[: len(manifest.inputs)] == manifest.inputs
    like = {**arguments, "in_channels": len(manifest.inputs)} if fewer and "in_channels" in arguments else arguments
    if (manifest.architecture, manifest.arguments) != (architecture, like):
        raise InputError(
            f"{start_from} holds {manifest.architecture} with other arguments than the configuration's "
            f"{architecture}. Start from a model of the same network."
        )
    weights = widened(load_network(manifest).state_dict(), module.network.state_dict())
    module.network.load_state_dict(weights)
    module.average.load_state_dict(weights)


def widened(weights: Mapping[str, torch.Tensor], fresh: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights for a network with more input channels.

    Begun with nothing, a channel is hardly heeded a thousand steps later; begun in full, it drowns what was learned.

    Args:
        weights: of a network that is the same but for its input channels.
        fresh: of the network that is to get them, as it begins; half of that is what new channels begin with.
    """
    result = {}
    for name, value in weights.items():
        result[name] = value
        if value.shape != fresh[name].shape:
            result[name] = fresh[name] / 2
            result[name][:, : value.shape[1]] = value
    return result


__all__ = ["DataPlaces", "Machine", "PairedDataset", "RunData", "fit", "load_average", "load_checkpoint"]
