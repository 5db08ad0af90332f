"""``livercascade-train bodies``: synthetic bodies around label maps, and real CTs for synthetic lesions."""

from __future__ import annotations

import argparse
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("bodies", help="prepare the bodies that the embedded models are trained on")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels_btcv and the real CTs")
    parser.add_argument("--cache", type=Path, required=True, help="where the prepared bodies go")
    parser.add_argument("--models", type=Path, help="a cascade: adds the real CTs without labels, labeled by it")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..cases import load_cases, prepare, prepare_reviewed

    prepare(options.data, options.cache)
    if options.models is not None:
        prepare_reviewed(options.data, options.cache, options.models)
    print(f"{len(load_cases(options.cache))} cases are ready in {options.cache}.")
    return EXIT_DONE
