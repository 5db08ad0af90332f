"""``livercascade check``: what speaks for or against a CT."""

from __future__ import annotations

import argparse
import json

from ..errors import EXIT_DONE
from .arguments import DESCRIPTION, add_input, print_findings


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "check", help="say what speaks for or against a CT, without segmenting it", description=DESCRIPTION
    )
    add_input(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..preflight import preflight
    from ..volume import read_volume

    volume = read_volume(options.input)
    findings = (*volume.findings, *preflight(volume))
    if options.json:
        print(json.dumps({"input": volume.source, "findings": [finding.as_dict() for finding in findings]}))
    else:
        print(f"{volume.name}: {volume.grid}")
        print_findings(findings)
    return EXIT_DONE
