"""``livercascade report``: a report on the results of ``livercascade segment``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EXIT_DONE, InputError
from .arguments import EPILOG

if TYPE_CHECKING:
    from ..lesions.remnant import Remnant
    from ..report.document import ReaderText
    from ..report.identity import StudyIdentity
    from ..report.writing import ReportRequest
    from ..study import Wishes
    from ..volume import Volume

REPORT_DESCRIPTION = """\
Makes a report on the results of 'livercascade segment': an HTML page, a PDF, and the same as JSON and CSV.
Research use only, not a medical device. Nothing leaves this computer: no network access is made."""

REPORT_EPILOG = f"""\
the output folder then holds:
  report.html         one page with everything in it, to be read and printed
  report.pdf          the same for the archive
  report.json         the same for programs; 'reader_text' in it may be edited
  report_lesions.csv  one line per lesion

Labels that were edited since the run are measured as they are now. When a report is made again, what the reader wrote
is kept, unless it is given anew. Patient and study are taken from the scan where it is DICOM.

examples:
  livercascade report results/
  livercascade report results/ --impression "Two metastases, unchanged." --patient-name "Doe, Jane"
  livercascade report results/ -o reports/jane/ --ct /path/to/dicom/folder --text text.json

{EPILOG}"""

_IDENTITY_HELP = {
    "patient_name": "patient's name",
    "patient_id": "patient's number",
    "birth_date": "date of birth",
    "patient_sex": "sex",
    "study_date": "date of the examination",
    "accession_number": "accession number",
    "study_description": "examination",
    "institution": "institution",
}
_TEXT_HELP = {
    "clinical_information": "clinical information",
    "findings": "findings in the reader's words",
    "impression": "impression",
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "report",
        help="make a report on results: HTML, PDF, JSON, CSV",
        description=REPORT_DESCRIPTION,
        epilog=REPORT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder with the results of 'segment'")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder for the report (default: RESULTS)")
    parser.add_argument("--ct", type=Path, metavar="INPUT", help="the CT, where it is no longer where it was")
    add_report_choices(parser)
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object on standard output")
    parser.set_defaults(run=_run)


def add_report_choices(parser: argparse.ArgumentParser) -> None:
    """Adds what a report says beside what was measured; for every command that makes one."""
    group = parser.add_argument_group("report")
    group.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="JSON file with reader's texts: clinical_information, findings, impression",
    )
    for name, text in _TEXT_HELP.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar="TEXT", help=f"{text}; '' empties it")
    for name, text in _IDENTITY_HELP.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar="TEXT", help=f"{text} (default: as DICOM says)")
    group.add_argument("--language", default="en", metavar="CODE", help="of the report (default: en)")
    group.add_argument("--no-pdf", action="store_true", help="without the PDF")


def add_wishes(parser: argparse.ArgumentParser, one_patient: bool = True) -> None:
    """Adds what may be wanted beside the usual files of a run; for every command that segments.

    Args:
        parser: of the command.
        one_patient: whether landmarks, names and texts can be given, which belong to one patient.
    """
    parser.add_argument("--couinaud", action="store_true", help="divide the liver into Couinaud's segments")
    parser.add_argument("--report", action="store_true", help="make a report: HTML, PDF, JSON, CSV")
    if not one_patient:
        nothing = dict.fromkeys(("landmarks", "text", *_TEXT_HELP, *_IDENTITY_HELP))
        parser.set_defaults(**nothing, language="en", no_pdf=False)
        return
    parser.add_argument(
        "--landmarks",
        type=Path,
        metavar="FILE",
        help="points for --couinaud, as Slicer saves them (.mrk.json, .fcsv); without them the planes are estimated",
    )
    add_report_choices(parser)


def wishes_from(options: argparse.Namespace) -> Wishes:
    """What the options of :func:`add_wishes` ask for.

    Raises:
        InputError: a file with the reader's texts cannot be read.
    """
    from ..study import Wishes

    def request(volume: Volume) -> ReportRequest:
        return request_from(options, Path(str(volume.source["path"])))

    if options.report:
        text_from(options)  # said now, not when the study was computed
    return Wishes(options.couinaud, options.landmarks, request if options.report else None)


def identity_from(options: argparse.Namespace, scan: Path | None) -> StudyIdentity:
    """Patient and study as the scan says, and as was typed, which counts more."""
    from ..dicom.identity import identity_of
    from ..report.identity import StudyIdentity

    found = StudyIdentity()
    if scan is not None and scan.exists():
        found = identity_of(scan)
    typed = {name: getattr(options, name) for name in _IDENTITY_HELP if getattr(options, name) is not None}
    return replace(found, **typed)


def text_from(options: argparse.Namespace) -> ReaderText:
    """The reader's text from the file and from single options, which count more.

    Raises:
        InputError: the file cannot be read.
    """
    from ..report.document import ReaderText
    from ..report.record import reader_text_of

    typed = ReaderText(*(getattr(options, f.name) for f in fields(ReaderText)))
    if options.text is None:
        return typed
    try:
        content = json.loads(options.text.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"The text file {options.text} cannot be read as JSON: {error}.") from None
    if not isinstance(content, Mapping):
        raise InputError(f"The text file {options.text} is not a JSON object with {', '.join(_TEXT_HELP)}.")
    return typed.over(reader_text_of(content))


def request_from(
    options: argparse.Namespace,
    scan: Path | None = None,
    *,
    followup: Mapping[str, Any] | None = None,
    remnant: Remnant | None = None,
) -> ReportRequest:
    """What a report is to say, from the options of :func:`add_report_choices`.

    Args:
        scan: where the CT lies, which says who was examined where it is DICOM.
        followup: a comparison with earlier studies; see :func:`~..report.wording.build_document`.
        remnant: the future liver remnant.

    Raises:
        InputError: a file with texts cannot be read, or there is no such language.
    """
    from ..report.texts import Texts
    from ..report.writing import ReportRequest

    return ReportRequest(
        date=datetime.now(),
        identity=identity_from(options, scan),
        text=text_from(options),
        remnant=remnant,
        followup=followup,
        language=Texts(options.language),  # an unknown one is refused before anything is computed
        with_pdf=not options.no_pdf,
    )


def _run(options: argparse.Namespace) -> int:
    from ..report.reopen import reopen
    from ..report.writing import JSON_FILE, write_report

    assessment = reopen(options.results, options.ct)
    source = assessment.volume.source.get("path")
    scan = options.ct or (Path(str(source)) if source else None)
    written = write_report(assessment, options.output or options.results, request_from(options, scan))
    if options.json:
        record = json.loads((written.folder / JSON_FILE).read_text(encoding="utf-8"))
        print(json.dumps({"output": str(written.folder), **record}))
    elif not options.quiet:
        print("\n".join(written.document.summary))
        print(f"Report: {written.folder / 'report.html'}")
    return EXIT_DONE
