"""``livercascade followup``: two or more studies of one patient, compared."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EXIT_DONE, InputError
from ..progress import Progress, cancel_on_signals
from .arguments import EPILOG, ProgressPrinter, print_findings
from .report import add_report_choices, request_from

if TYPE_CHECKING:
    from ..followup import FollowUp, Study

DESCRIPTION = """\
Compares results of 'livercascade segment' of one patient: registers the livers, matches the lesions, tells what is
new, gone, grown or shrunk, and proposes a response category by RECIST 1.1 for the liver alone.
Research use only, not a medical device. Nothing leaves this computer: no network access is made."""

FOLLOWUP_EPILOG = f"""\
the output folder then holds:
  followup.json       sites of disease through time, sums of diameters, category with its rule (also per study)
  followup.csv        one line per site and study
  report.html, report.pdf, report.json, report_lesions.csv
                      the report of the last study, with the comparison in it

Studies are sorted by date where all dates are known (from DICOM, or by --dates); otherwise the first is the baseline.
Without --targets the program takes candidates: the largest measurable lesions of the baseline, two at most.

examples:
  livercascade followup january/ march/ -o comparison/
  livercascade followup january/ march/ june/ -o comparison/ --targets 1 4
  livercascade followup first/ second/ -o comparison/ --dates 2026-01-12 2026-03-20 --force

{EPILOG}"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "followup",
        help="compare two or more studies of one patient",
        description=DESCRIPTION,
        epilog=FOLLOWUP_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results", type=Path, nargs="+", metavar="RESULTS", help="folders with the results of 'segment', two or more"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the comparison")
    parser.add_argument(
        "--ct", type=Path, nargs="+", metavar="INPUT", help="the CTs in the order of RESULTS, where they have moved"
    )
    parser.add_argument("--dates", nargs="+", metavar="DATE", help="dates (YYYY-MM-DD) in the order of RESULTS")
    parser.add_argument(
        "--targets",
        type=int,
        nargs="+",
        metavar="ID",
        help="target lesions by their ids in the baseline; two at most",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="compare although patient identities, or the sizes of the livers, differ",
    )
    parser.add_argument("--no-report", action="store_true", help="without the report of the last study")
    add_report_choices(parser)
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", action="store_true", help="print the comparison as one JSON object")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..followup import as_record, as_section, follow_up, summary
    from ..followup.files import write_files
    from ..report.files import OutputFolder, explained, safe_cell

    _check_counts(options)
    printer = ProgressPrinter(sys.stderr, options.quiet)
    cancelled = cancel_on_signals()
    with OutputFolder(options.output) as output:
        try:
            progress = Progress(printer, lambda: bool(cancelled))
            progress.stage("read")
            studies = _studies(options, progress)
            progress.finish()
            targets = None if options.targets is None else [number + 1 for number in options.targets]
            found = follow_up(studies, targets, options.force, progress)
            progress.stage("write")
            with explained(output.path):
                write_files(found, output.staging, safe_cell)
            if not options.no_report:
                _write_report(options, found, as_section(found), output.staging, output.path)
            progress.finish()
        finally:
            printer.close()
        output.commit()
    if options.json:
        print(json.dumps({"output": str(options.output), **as_record(found)}))
    elif not options.quiet:
        print_findings(found.findings)
        print(summary(found))
        print(f"Results: {options.output}")
    return EXIT_DONE


def _check_counts(options: argparse.Namespace) -> None:
    if len(options.results) < 2:
        raise InputError("A comparison needs the results of two studies at least. Give two folders or more.")
    for name, what in (("ct", "CTs"), ("dates", "dates")):
        given: Sequence[object] | None = getattr(options, name)
        if given is not None and len(given) != len(options.results):
            raise InputError(f"There are {len(options.results)} results but {len(given)} {what}. Give one for each.")


def _studies(options: argparse.Namespace, progress: Progress) -> list[Study]:
    from ..dicom.identity import identity_of
    from ..followup import study_of
    from ..followup.study import iso_date
    from ..report.reopen import reopen

    studies = []
    for index, folder in enumerate(options.results):
        scan = options.ct[index] if options.ct else None
        assessment = reopen(folder, scan)
        path = assessment.volume.source.get("path")
        place = scan or (Path(str(path)) if path else None)
        identity = identity_of(place) if place is not None and place.exists() else None
        study = study_of(assessment, identity, folder.resolve().name)
        if options.dates:
            date = iso_date(options.dates[index])
            if not date:
                raise InputError(f"'{options.dates[index]}' is no date. Write it as YYYY-MM-DD.")
            study = replace(study, date=date)
        studies.append(study)
        progress.update((index + 1) / len(options.results))
    return studies


def _write_report(options: argparse.Namespace, found: FollowUp, section: dict, folder: Path, previous: Path) -> None:
    from ..report.writing import file_steps
    from ..steps import exhausted

    assessment = found.studies[-1].assessment
    path = assessment.volume.source.get("path")
    request = request_from(options, Path(str(path)) if path else None, followup=section)
    exhausted(file_steps(assessment, folder, request, previous=previous))
