"""``livercascade dicom`` and ``livercascade import-seg``: results as DICOM objects, and the way back."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EXIT_DONE, InputError
from .arguments import DESCRIPTION, EPILOG, print_findings

if TYPE_CHECKING:
    from ..dicom.export import Exported
    from ..lesions.assessment import Assessment

DICOM_EPILOG = f"""\
the output folder then holds:
  segmentation.dcm  DICOM segmentation (SEG): liver, lesions, and liver segments where they are known
  report.dcm        DICOM measurement report (SR, TID 1500) about them; tracking identifiers tie both together

Both refer to the original slices, which must be there: the folder that the CT was read from, or --ct.

examples:
  livercascade dicom results/
  livercascade dicom results/ --ct /path/to/dicom/folder -o objects/

{EPILOG}"""
IMPORT_EPILOG = f"""\
the output folder then holds labels.nii.gz, lesions.csv and result.json, as 'livercascade segment' writes them.
Segments are recognized by their codes: Liver; Lesion, Mass or Neoplasm; Couinaud's segments. Others are named and
left out. The segmentation must lie on the voxels of the CT.

example:
  livercascade import-seg segmentation.dcm --ct /path/to/dicom/folder -o results/

{EPILOG}"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds both commands."""
    export = _parser(commands, "dicom", "write results as DICOM segmentation and report", DICOM_EPILOG)
    export.add_argument(
        "results", type=Path, metavar="RESULTS", help="folder that 'livercascade segment' wrote, or the panel exported"
    )
    export.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder for the objects (default: RESULTS)")
    export.add_argument(
        "--ct", type=Path, metavar="FOLDER", help="the DICOM series (default: where it was at the run)"
    )
    export.add_argument(
        "--generate-uids",
        action="store_true",
        help="make up identifiers that anonymization removed; the objects say so, and refer to nothing in an archive",
    )
    export.set_defaults(run=_export)
    load = _parser(commands, "import-seg", "turn a DICOM segmentation into results", IMPORT_EPILOG)
    load.add_argument("segmentation", type=Path, metavar="SEG", help="the DICOM segmentation, one file")
    load.add_argument("--ct", type=Path, required=True, metavar="INPUT", help="the CT that it was drawn on")
    load.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    load.set_defaults(run=_import)


def _parser(commands: argparse._SubParsersAction, name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=DESCRIPTION,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on standard output")
    return parser


def dicom_source(assessment: Assessment, ct: Path | None) -> Path:
    """Where the slices are that DICOM objects about ``assessment`` refer to.

    Raises:
        InputError: the CT was not read from DICOM, and nobody says where the series is.
    """
    if ct is not None:
        return ct
    source = assessment.volume.source
    if source.get("format") != "dicom":
        raise InputError(
            f"The CT was read from {source.get('path') or 'a scene'}, which is not DICOM and names no slices that "
            "DICOM objects could refer to. Say where the DICOM series is (--ct)."
        )
    return Path(str(source["path"]))


def _export(options: argparse.Namespace) -> int:
    from ..dicom.export import export_dicom
    from ..dicom.instances import MissingIdentifiers
    from ..report.reopen import reopen

    try:
        assessment = reopen(options.results)
    except InputError:
        if options.ct is None:
            raise
        assessment = reopen(options.results, options.ct)
    source = dicom_source(assessment, options.ct)
    try:
        exported = export_dicom(assessment, source, options.output or options.results, options.generate_uids)
    except MissingIdentifiers as error:
        raise InputError(f"{error} The option --generate-uids does so.") from error
    _tell(exported, options)
    return EXIT_DONE


def _tell(exported: Exported, options: argparse.Namespace) -> None:
    if options.json:
        findings = [finding.as_dict() for finding in exported.findings]
        files = [str(file) for file in exported.files]
        print(json.dumps({"files": files, "segments": exported.segments, "findings": findings}))
    elif not options.quiet:
        print_findings(exported.findings)
        print(f"{exported.segments} segments: {exported.files[0]}", f"Measurements: {exported.files[1]}", sep="\n")


def _import(options: argparse.Namespace) -> int:
    from ..dicom.results import assessment_from_segmentation, write_assessment
    from ..volume import read_volume

    assessment = assessment_from_segmentation(options.segmentation, read_volume(options.ct))
    write_assessment(assessment, options.output)
    if options.json:
        from ..report.files import record_of

        print(json.dumps({"output": str(options.output), **record_of(assessment)}, default=str))
    elif not options.quiet:
        print_findings(assessment.findings)
        print(assessment.summary)
        print(f"Results: {options.output}", file=sys.stdout)
    return EXIT_DONE
