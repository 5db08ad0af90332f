"""``livercascade-train export``: weights, manifest and model card of a run, for the engine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE, InputError


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("export", help="write weights, manifest and card of a run")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of one run, such as RUNS/locate")
    parser.add_argument("--to", type=Path, help="model folder; without it the run's own")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="by validation, or the last")
    parser.add_argument("--sources", type=Path, help="JSON list of training data lines for the manifest")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..training.delivery import export_run

    sources = None
    if options.sources is not None:
        try:
            sources = json.loads(options.sources.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{options.sources} cannot be read as a JSON list: {error}.") from None
    manifest = export_run(options.run_folder, options.to, options.checkpoint, sources)
    step = manifest.measured["training_steps"]
    print(f"{manifest.id}, step {step}, with weights {manifest.weights_sha256[:12]}… is in {manifest.folder}.")
    return EXIT_DONE
