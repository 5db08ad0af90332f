"""The command ``livercascade``: what a shell, a script or a batch system runs."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from . import __version__
from .allocator import keep_freed_memory
from .errors import EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_DONE, EXIT_OUT_OF_RESOURCES, Cancelled, LiverCascadeError
from .findings import Finding
from .progress import Progress, cancel_on_signals

if TYPE_CHECKING:
    from .cascade import Cascade, Options
    from .result import Result
    from .volume import Volume

DESCRIPTION = """\
Finds the liver and its lesions on a CT of the abdomen. Research use only, not a medical device.
Nothing leaves this computer: no network access is made."""

EPILOG = f"""\
exit codes:
  {EXIT_DONE}  done (also when no liver or no lesion was found; the result says so)
  {EXIT_BAD_INPUT}  bad input: the scan, a model or the output folder cannot be used; the message says why
  {EXIT_CANCELLED}  cancelled (Ctrl+C or SIGTERM)
  {EXIT_OUT_OF_RESOURCES}  out of memory or disk space, or the device asked for is not there"""

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


class ProgressPrinter:
    """Shows progress: a bar that redraws itself on a terminal, one plain line per stage elsewhere.

    Args:
        stream: where to write.
        quiet: write nothing.
    """

    def __init__(self, stream: TextIO, quiet: bool = False):
        self.stream, self.quiet = stream, quiet
        self.on_terminal = stream.isatty()
        self._started, self._drawn, self._stage = time.monotonic(), 0.0, ""

    def __call__(self, stage: str, fraction: float) -> None:
        """Shows that ``fraction`` (0…1) of ``stage`` is done."""
        if self.quiet:
            return
        elapsed = time.monotonic() - self._started
        if not self.on_terminal:
            if stage != self._stage:
                print(f"{elapsed:6.1f} s  {stage}", file=self.stream, flush=True)
        elif stage != self._stage or fraction == 1 or time.monotonic() - self._drawn > 0.1:
            width = max(10, min(40, shutil.get_terminal_size().columns - 30))
            bar = "█" * round(fraction * width) + "·" * (width - round(fraction * width))
            print(f"\r{stage:>8} {bar} {elapsed:5.1f} s ", end="", file=self.stream, flush=True)
            self._drawn = time.monotonic()
        self._stage = stage

    def close(self) -> None:
        """Ends the bar's line."""
        if self.on_terminal and self._stage and not self.quiet:
            print(file=self.stream)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except LiverCascadeError as error:
        return _fail(str(error), error.exit_code, options)
    except KeyboardInterrupt:
        return _fail(str(Cancelled()), EXIT_CANCELLED, options)
    except MemoryError:
        text = "The computer's memory is not enough for this volume. Crop it to the abdomen, or close other programs."
        return _fail(text, EXIT_OUT_OF_RESOURCES, options)


def _fail(message: str, code: int, options: argparse.Namespace) -> int:
    if getattr(options, "json", False):
        print(json.dumps({"error": message, "exit_code": code}))
    print(f"livercascade: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="livercascade", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"livercascade {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    segment = commands.add_parser(
        "segment",
        help="segment liver and lesions of one CT",
        description=DESCRIPTION,
        epilog=SEGMENT_EPILOG,
        formatter_class=formatter,
    )
    _add_input(segment)
    segment.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    _add_choices(segment)
    segment.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    segment.set_defaults(run=_segment)

    batch = commands.add_parser(
        "batch",
        help="segment every CT under a folder",
        description=BATCH_DESCRIPTION,
        epilog=BATCH_EPILOG,
        formatter_class=formatter,
    )
    batch.add_argument("-i", "--input", type=Path, required=True, metavar="IN", help="folder with the studies")
    batch.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    batch.add_argument(
        "--jobs", type=_count, default=1, metavar="N", help="studies at the same time, which share the CPU (default 1)"
    )
    batch.add_argument(
        "--overwrite", action="store_true", help="do everything again, not only what is missing or failed"
    )
    _add_choices(batch)
    batch.add_argument("--threads", type=_count, metavar="N", help="CPU threads of all jobs (default: all cores)")
    batch.add_argument("--quiet", action="store_true", help="print errors only")
    batch.set_defaults(run=_batch)

    check = commands.add_parser(
        "check", help="say what speaks for or against a CT, without segmenting it", description=DESCRIPTION
    )
    _add_input(check)
    check.set_defaults(run=_check)

    models = commands.add_parser("models", help="list the embedded models", description="Lists the embedded models.")
    models.add_argument("--json", action="store_true", help="print the manifests as JSON")
    models.set_defaults(run=_models)
    return parser


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="the CT: a NIfTI, NRRD or MetaImage file, a folder with a DICOM series, or one DICOM file of it",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on standard output")


def _add_choices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="folder with the models 'locate' and 'refine' (default: the embedded models)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="auto (default), cpu, gpu, or cuda:N for one of several GPUs",
    )
    parser.add_argument(
        "--overlap",
        type=_fraction,
        metavar="X",
        help="overlap of neighboring windows, 0 to 0.9 (default: the model's)",
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="more overlap of windows, and the mean over mirrored copies where a model was trained for them; slower",
    )
    parser.add_argument(
        "--margin", type=_not_negative, metavar="MM", help="tissue around the located liver that is worked on, in mm"
    )
    parser.add_argument(
        "--binary-prior",
        action="store_true",
        help="hand the located liver to the fine stage as a mask instead of a probability (for comparison)",
    )
    parser.add_argument(
        "--min-lesion-voxels", type=_not_negative, default=30, metavar="N", help="see --min-lesion-mm3 (default 30)"
    )
    parser.add_argument(
        "--min-lesion-mm3",
        type=_not_negative,
        default=65.0,
        metavar="V",
        help="a lesion is dropped when it is below both limits (default 65 mm³, a sphere of 5 mm)",
    )
    parser.add_argument(
        "--force", action="store_true", help="segment even if the values do not look like those of a CT"
    )


def _choices(options: argparse.Namespace) -> Options:
    from .cascade import Options
    from .postprocess import CleanUp

    return Options(
        device=options.device,
        overlap=options.overlap,
        margin_mm=options.margin,
        binary_prior=options.binary_prior,
        force=options.force,
        thorough=options.thorough,
        clean_up=CleanUp(int(options.min_lesion_voxels), options.min_lesion_mm3),
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or above")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or above")
    return value


def _fraction(text: str) -> float:
    value = _not_negative(text)
    if value > 0.9:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 0.9")
    return value


def _segment(options: argparse.Namespace) -> int:
    # Heavy imports wait until the arguments are known to be right: --help answers at once.
    from .batch import segment_study
    from .cascade import load_cascade, segment
    from .report.files import record

    printer = ProgressPrinter(sys.stderr, options.quiet)
    cancelled = cancel_on_signals()
    choices = _choices(options)

    cascades: list[Cascade] = []

    def compute(volume: Volume, progress: Progress) -> Result:
        return segment(volume, cascades[0], choices, progress)

    try:
        progress = Progress(printer, lambda: bool(cancelled))
        meanwhile = (
            lambda: _import_torch(options.threads),
            lambda: cascades.append(load_cascade(options.model, choices)),
        )
        result = segment_study(options.input, options.output, compute, progress, meanwhile)
    finally:
        printer.close()
    if options.json:
        print(json.dumps({"output": str(options.output), **record(result)}, default=str))
    elif not options.quiet:
        _print_findings(result.findings)
        print(result.summary)
        print(f"Results: {options.output}")
    return EXIT_DONE


def _import_torch(threads: int | None) -> None:
    keep_freed_memory()
    import torch

    if threads:
        torch.set_num_threads(max(1, threads))


def _batch(options: argparse.Namespace) -> int:
    from .batch import BatchSettings, run_batch

    settings = BatchSettings(
        options=_choices(options),
        models=options.model,
        jobs=options.jobs,
        threads=options.threads,
        overwrite=options.overwrite,
        quiet=options.quiet,
    )
    cancelled = cancel_on_signals()
    return run_batch(options.input, options.output, settings, lambda: bool(cancelled))


def _print_findings(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        print(f"{finding.severity.value}: {finding.message}")


def _check(options: argparse.Namespace) -> int:
    from .preflight import preflight
    from .volume import read_volume

    volume = read_volume(options.input)
    findings = (*volume.findings, *preflight(volume))
    if options.json:
        print(json.dumps({"input": volume.source, "findings": [finding.as_dict() for finding in findings]}))
    else:
        print(f"{volume.name}: {volume.grid}")
        _print_findings(findings)
    return EXIT_DONE


def _models(options: argparse.Namespace) -> int:
    from .models import load_manifest
    from .resources import EMBEDDED_MODELS

    manifests = [load_manifest(EMBEDDED_MODELS / role) for role in ("locate", "refine")]
    if options.json:
        print(json.dumps([manifest.as_dict() for manifest in manifests]))
        return EXIT_DONE
    for manifest in manifests:
        spacing = " × ".join(f"{s:g}" for s in manifest.spacing_mm)
        print(f"{manifest.role:8} {manifest.id} (version {manifest.version}, {spacing} mm, {manifest.license})")
        print(f"         {manifest.intended_use}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
