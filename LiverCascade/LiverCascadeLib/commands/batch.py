"""``livercascade batch``: every CT under a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_DONE, EXIT_OUT_OF_RESOURCES
from ..progress import cancel_on_signals
from .arguments import DESCRIPTION, add_choices, choices, count, models
from .report import add_wishes, wishes_from

BATCH_DESCRIPTION = f"""\
{DESCRIPTION}

Segments every CT under a folder: NIfTI, NRRD and MetaImage files, and folders with DICOM slices. Label maps and
earlier results are passed over. Each study gets a folder of its own under the output, named after its place under the
input. What is done already is not done again."""
BATCH_EPILOG = f"""\
OUTPUT/status.csv has a line for each study and is right at every moment:
  status                 done, failed (the message says why), or missing (not done yet)
  seconds, liver_ml, lesions, findings, message

exit codes:
  {EXIT_DONE}  every study is done
  {EXIT_BAD_INPUT}  at least one study failed, or there is no CT; a study that fails does not stop the others
  {EXIT_CANCELLED}  cancelled (Ctrl+C or SIGTERM); start again to go on
  {EXIT_OUT_OF_RESOURCES}  at least one study failed because memory, disk space, the GPU or a package was lacking

examples:
  livercascade batch --input studies/ --output results/
  livercascade batch --input studies/ --output results/ --jobs 2 --device gpu"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "batch",
        help="segment every CT under a folder",
        description=BATCH_DESCRIPTION,
        epilog=BATCH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-i", "--input", type=Path, required=True, metavar="IN", help="folder with the studies")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    parser.add_argument(
        "--jobs", type=count, default=1, metavar="N", help="studies at the same time, which share the CPU (default 1)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="do everything again, not only what is missing or failed"
    )
    add_choices(parser)
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads of all jobs (default: all cores)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    add_wishes(parser, one_patient=False)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from ..batch import BatchSettings, run_batch

    settings = BatchSettings(
        options=choices(options),
        models=models(options),
        jobs=options.jobs,
        threads=options.threads,
        overwrite=options.overwrite,
        quiet=options.quiet,
        wishes=wishes_from(options),
    )
    cancelled = cancel_on_signals()
    return run_batch(options.input, options.output, settings, lambda: bool(cancelled))
