"""``livercascade-train card``: writes a model's card again from its manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("card", help="write the model card of a model, or of all models of a cascade")
    parser.add_argument("model", type=Path, help="folder with manifest.json, or of a cascade")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from LiverCascadeLib.errors import ModelError
    from LiverCascadeLib.models.cascade_file import read_cascade

    from ..cards import CARD, write_card

    folders = [options.model, *read_cascade(options.model).folders]
    found = [folder for folder in folders if (folder / "manifest.json").is_file()]
    if not found:
        raise ModelError(f"There is no model in {options.model}: manifest.json is missing.")
    for folder in found:
        write_card(folder)
        print(folder / CARD)
    return EXIT_DONE
