"""``livercascade-train ablate``: the same run with single settings changed, and one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE

from .arguments import add_machine, add_places, machine_of, places_of


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "ablate", help="train a configuration with each combination of changes, one after another, and compare"
    )
    parser.add_argument("config", type=Path, help="YAML configuration that is changed")
    parser.add_argument(
        "--change",
        action="append",
        required=True,
        metavar="SETTING=VALUE|VALUE|…",
        help="such as loss.name='dice-ce|tversky|blob'; several make a grid",
    )
    parser.add_argument("--run", type=Path, required=True, dest="folder", help="folder of the runs and of the table")
    add_places(parser)
    add_machine(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..training.ablation import ablate
    from ..training.config import changes_from, read_yaml

    grid = changes_from(options.change)
    table = ablate(read_yaml(options.config), grid, options.folder, places_of(options), machine_of(options))
    print(table)
    return EXIT_DONE
