"""``livercascade-train example``: the embedded example."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("example", help="make the embedded example: a synthetic abdomen with known truth")
    parser.add_argument("--to", type=Path, required=True, help="folder for the CT and its truth")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..example import make_example

    make_example(options.to)
    print(f"The example is in {options.to}.")
    return EXIT_DONE
