"""What several commands have in common. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from LiverCascadeLib.commands.arguments import count


def add_data(parser: argparse.ArgumentParser, processes: bool = True) -> None:
    """The data set's folder, its layout, and how many cases are read at once."""
    parser.add_argument("data", type=Path, help="folder of a data set, or a CSV file of pairs")
    parser.add_argument("--layout", default="auto", help="auto, lits, msd, ircadb, chaos or csv")
    if processes:
        parser.add_argument("--processes", type=count, default=1, help="cases that are read at once")


def natural(text: str) -> int:
    """A number of 0 or above, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or above")
    return value


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Where a run computes."""
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--devices", type=count, default=1, help="GPUs, or processes on the CPU, per node")
    parser.add_argument("--nodes", type=count, default=1, help="nodes; each runs this command with its NODE_RANK")
    parser.add_argument("--workers", type=natural, default=1, help="processes that make samples, per device")
    parser.add_argument("--threads", type=count, help="CPU threads of the network")
    parser.add_argument("--strategy", help="of Lightning, such as ddp_find_unused_parameters_true")
    parser.add_argument("--progress", action="store_true", help="show a progress bar instead of lines")


def machine_of(options: argparse.Namespace):
    """The machine from the arguments of :func:`add_machine`."""
    import torch

    from ..training.fit import Machine

    if options.threads:
        torch.set_num_threads(options.threads)
    return Machine(
        options.accelerator,
        options.devices,
        options.nodes,
        options.workers,
        options.strategy,
        progress=options.progress,
        quiet=options.progress,
    )


def add_places(parser: argparse.ArgumentParser) -> None:
    """Where a run's data are."""
    parser.add_argument("--cache", type=Path, help="prepared data sets")
    parser.add_argument("--split", type=Path, help="who is trained on: the file that 'split' wrote")
    parser.add_argument("--fold", type=natural, default=0, help="of a cross-validation's split")
    parser.add_argument("--bodies", type=Path, help="synthetic bodies, for configurations with synthetic.share")
    parser.add_argument("--locate", type=Path, help="locate model whose probabilities become priors of bodies")


def places_of(options: argparse.Namespace):
    """The places from the arguments of :func:`add_places`."""
    from ..training.sources import DataPlaces

    return DataPlaces(options.cache, options.split, options.fold, options.bodies, options.locate)


def teller(options: argparse.Namespace) -> Callable[[int, int, str], None]:
    """One line for each case that is done."""

    def tell(done: int, total: int, name: str) -> None:
        print(f"{done}/{total} {name}", flush=True)

    return tell
