"""``livercascade-train check``: everything that is wrong with a data set, before anything is trained."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import add_data, teller


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser("check", help="look at all cases of a data set and report every problem")
    add_data(parser)
    parser.add_argument("-o", "--output", type=Path, help="folder for data-check.txt and data-check.json")
    parser.add_argument("--exclude", nargs="*", default=[], metavar="CASE", help="cases that are left out")
    parser.add_argument(
        "--unknown-size", action="store_true", help="take voxels without a size in their header as they are"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..data.checks import check_data

    report = check_data(
        options.data, options.layout, options.processes, options.exclude, options.unknown_size, teller(options)
    )
    print(report.as_text(), end="")
    if options.output is not None:
        report.save(options.output)
    return report.exit_code
