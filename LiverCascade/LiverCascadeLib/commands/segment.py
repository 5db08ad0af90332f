"""``livercascade segment``: one CT, one folder of results."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..allocator import keep_freed_memory
from ..errors import EXIT_DONE
from ..progress import Progress, cancel_on_signals
from .arguments import DESCRIPTION, EPILOG, ProgressPrinter, add_choices, add_input, choices, models, print_findings
from .report import add_wishes, wishes_from

if TYPE_CHECKING:
    from ..cascade import Cascade
    from ..result import Result
    from ..volume import Volume

SEGMENT_EPILOG = f"""\
the output folder then holds:
  labels.nii.gz          label map on exactly the grid of the input: 1 liver, 2, 3, … lesions
  segmentation.seg.nrrd  Slicer segmentation: Liver, Lesion 1, Lesion 2, …
  scene.mrb              Slicer scene with the CT and the segmentation
  lesions.csv            one line per lesion: volume, centroid (RAS, mm), bounding box
  overview.png           slices with contours, and a 3D view
  result.json            summary, findings, models and parameters, seconds per stage
and, where they are asked for:
  couinaud.nii.gz        Couinaud's segments: 1 to 8, and 9 and 10 for IVa and IVb (--couinaud, --landmarks)
  uncertainty.nii.gz     how undecided the networks were, 0 to 255 (--uncertainty)
  vessels.nii.gz         the liver's vessels, where a model draws them
  report.html, .pdf, .json, report_lesions.csv (--report)
  segmentation.dcm, report.dcm (--dicom)

examples:
  livercascade segment study/ct.nii.gz -o results/
  livercascade segment /path/to/dicom/folder -o results/ --report --dicom
  livercascade segment /path/to/dicom/folder -o results/ --device cpu --json

{EPILOG}"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "segment",
        help="segment liver and lesions of one CT",
        description=DESCRIPTION,
        epilog=SEGMENT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_input(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    add_choices(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    add_wishes(parser)
    parser.add_argument("--dicom", action="store_true", help="write a DICOM segmentation and report")
    parser.add_argument(
        "--generate-uids",
        action="store_true",
        help="for --dicom: make up identifiers that anonymization removed; the objects say so",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Heavy imports wait until the arguments are known to be right: --help answers at once.
    from ..cascade import load_cascade, segment
    from ..studies import record_in
    from ..study import segment_study

    printer = ProgressPrinter(sys.stderr, options.quiet)
    cancelled = cancel_on_signals()
    chosen = choices(options)

    folder = models(options)
    cascades: list[Cascade] = []

    def compute(volume: Volume, progress: Progress) -> Result:
        return segment(volume, cascades[0], chosen, progress)

    try:
        progress = Progress(printer, lambda: bool(cancelled))
        meanwhile = (
            lambda: _import_torch(options.threads),
            lambda: cascades.append(load_cascade(folder, chosen)),
        )
        wishes = replace(wishes_from(options), dicom=options.dicom, generate_uids=options.generate_uids)
        result = segment_study(options.input, options.output, compute, progress, meanwhile, wishes)
    finally:
        printer.close()
    if options.json:
        print(json.dumps({"output": str(options.output), **record_in(options.output)}))
    elif not options.quiet:
        print_findings(result.findings)
        print(result.summary)
        print(f"Results: {options.output}")
    return EXIT_DONE


def _import_torch(threads: int | None) -> None:
    keep_freed_memory()
    import torch

    if threads:
        torch.set_num_threads(max(1, threads))
