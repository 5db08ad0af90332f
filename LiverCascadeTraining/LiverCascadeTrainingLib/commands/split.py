"""``livercascade-train split``: who is trained on, who steers the training, and who is only judged."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from LiverCascadeLib.errors import EXIT_DONE, InputError

from .arguments import add_data


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("split", help="split a data set by patient, seeded, never overlapping")
    add_data(parser, processes=False)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the JSON file that is written")
    parser.add_argument("--scheme", default="70/10/20", help="70/10/20, 90/10, 5-fold, … or fixed")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--lists", type=Path, help="for 'fixed': JSON with lists 'train', 'validation', 'test'")
    parser.add_argument(
        "--report", type=Path, help="data-check.json of 'check': its unusable cases are left out, twins kept together"
    )
    parser.add_argument(
        "--only-test", nargs="*", default=[], metavar="CASE", help="cases or patients that must not be trained on"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..data.layouts import find_studies
    from ..data.splits import PARTS, make_split

    unusable, contents = _judged(options.report)
    studies = find_studies(options.data, options.layout)
    usable = [study for study in studies if not study.missing and study.name not in unusable]
    split = make_split(usable, options.scheme, options.seed, contents, options.lists, options.only_test)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    split.save(options.output)
    for number, fold in enumerate(split.folds):
        counts = ", ".join(f"{len(fold[part])} {part}" for part in PARTS if part in fold)
        print(f"fold {number}: {counts}" if len(split.folds) > 1 else counts)
    if len(usable) < len(studies):
        print(f"{len(studies) - len(usable)} cases that cannot be used are left out.")
    for names, reason in split.kept_together:
        print(f"kept together: {', '.join(names)} ({reason})")
    print(f"The split is in {options.output}.")
    return EXIT_DONE


def _judged(path: Path | None) -> tuple[set[str], dict[str, str]]:
    """Unusable cases, and keys of the CTs' voxels by name, of a report."""
    if path is None:
        return set(), {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        contents = {case["name"]: case["content"] for case in report["cases"] if case["content"]}
        return set(report["unusable"]), contents
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no report of 'livercascade-train check' ({error!r}).") from None
