"""``livercascade-train average``: the mean of several models' weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("average", help="write a model with the mean of several models' weights")
    parser.add_argument(
        "models", type=Path, nargs="+", metavar="MODEL", help="exported models, each trained on from the one before"
    )
    parser.add_argument("--to", type=Path, required=True, help="folder of the new model")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..training.averaging import average_models

    manifest = average_models(options.models, options.to)
    print(
        f"The mean of {len(options.models)} models, with weights {manifest.weights_sha256[:12]}…, is in {options.to}."
    )
    return EXIT_DONE
