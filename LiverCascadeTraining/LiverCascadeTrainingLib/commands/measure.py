"""``livercascade-train measure``: a cascade on the labeled cases that come with the project."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("measure", help="run a cascade on the labeled cases; writes figures and model cards")
    parser.add_argument("--models", type=Path, required=True, help="folder with the models 'locate' and 'refine'")
    parser.add_argument("--data", type=Path, required=True, help="folder with the real cases")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..measure import measure_models

    measure_models(options.models, options.data)
    return EXIT_DONE
