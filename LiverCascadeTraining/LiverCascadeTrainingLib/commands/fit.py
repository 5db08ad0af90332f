"""``livercascade-train locate`` and ``refine``: train, or go on training, and export."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE, InputError

from .arguments import add_machine, add_places, count, machine_of, places_of


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the commands."""
    for role, what in (("locate", "that finds the liver"), ("refine", "that finds liver and lesions in its box")):
        parser = commands.add_parser(role, help=f"train a network {what}; goes on where it was stopped")
        parser.add_argument("config", type=Path, help="YAML configuration")
        parser.add_argument(
            "--run", type=Path, required=True, dest="folder", help=f"folder of runs; this one becomes RUN/{role}"
        )
        add_places(parser)
        add_machine(parser)
        parser.add_argument("--start-from", type=Path, help="run, or model, whose weights a new run begins with")
        parser.add_argument(
            "--set", action="append", default=[], metavar="SETTING=VALUE", help="such as training.steps=500"
        )
        parser.add_argument("--until", type=count, help="stop after this step; the schedule stays the configured one")
        parser.add_argument("--no-export", action="store_true", help="write no model at the end")
        parser.set_defaults(run=_run, role=role)


def _run(options: argparse.Namespace) -> int:
    from ..training.config import changed_config
    from ..training.delivery import export_run
    from ..training.fit import fit

    config = changed_config(options.config, options.set)
    if config.role != options.role:
        raise InputError(f"{options.config} is a configuration for {config.role!r}, not for {options.role!r}.")
    folder = options.folder / config.role
    module = fit(config, folder, places_of(options), machine_of(options), options.until, options.start_from)
    if not module.leads:
        return EXIT_DONE
    print(f"Step {module.stopped_at} of {config.training.steps}; the run is in {folder}.")
    if not options.no_export:
        manifest = export_run(folder)
        print(
            f"{manifest.id}, step {manifest.measured['training_steps']}, is exported: "
            f"livercascade segment CT --model {options.folder} -o OUT, once both models are there."
        )
    return EXIT_DONE
