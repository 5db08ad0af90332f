"""``livercascade segment``: one CT, one folder of results."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..allocator import keep_freed_memory
from ..errors import EXIT_DONE
from ..progress import Progress, cancel_on_signals
from .arguments import DESCRIPTION, EPILOG, ProgressPrinter, add_choices, add_input, choices, print_findings

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

examples:
  livercascade segment study/ct.nii.gz -o results/
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
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    # Heavy imports wait until the arguments are known to be right: --help answers at once.
    from ..batch import segment_study
    from ..cascade import load_cascade, segment
    from ..report.files import record

    printer = ProgressPrinter(sys.stderr, options.quiet)
    cancelled = cancel_on_signals()
    chosen = choices(options)

    cascades: list[Cascade] = []

    def compute(volume: Volume, progress: Progress) -> Result:
        return segment(volume, cascades[0], chosen, progress)

    try:
        progress = Progress(printer, lambda: bool(cancelled))
        meanwhile = (
            lambda: _import_torch(options.threads),
            lambda: cascades.append(load_cascade(options.model, chosen)),
        )
        result = segment_study(options.input, options.output, compute, progress, meanwhile)
    finally:
        printer.close()
    if options.json:
        print(json.dumps({"output": str(options.output), **record(result)}, default=str))
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
