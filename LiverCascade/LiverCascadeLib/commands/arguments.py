"""What the commands share: texts, arguments, progress, findings."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_DONE, EXIT_OUT_OF_RESOURCES
from ..findings import Finding

if TYPE_CHECKING:
    from ..cascade import Options

DESCRIPTION = """\
Finds the liver and its lesions on a CT of the abdomen. Research use only, not a medical device.
Nothing leaves this computer. Only 'livercascade models install' uses the network, to fetch models."""

EPILOG = f"""\
exit codes:
  {EXIT_DONE}  done (also when no liver or no lesion was found; the result says so)
  {EXIT_BAD_INPUT}  bad input: the scan, a model or the output folder cannot be used; the message says why
  {EXIT_CANCELLED}  cancelled (Ctrl+C or SIGTERM)
  {EXIT_OUT_OF_RESOURCES}  out of memory or disk space, or the device asked for is not there"""


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


def add_input(parser: argparse.ArgumentParser) -> None:
    """The CT, --quiet and --json."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="the CT: a NIfTI, NRRD or MetaImage file, a folder with a DICOM series, or one DICOM file of it",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on standard output")


def add_choices(parser: argparse.ArgumentParser) -> None:
    """What a user may choose about a run."""
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER|ID",
        help="folder with the models 'locate' and 'refine', a cascade.json, or the id of an installed cascade "
        "(default: the embedded models; see 'livercascade models')",
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="auto (default), cpu, gpu, or cuda:N for one of several GPUs",
    )
    parser.add_argument(
        "--overlap",
        type=at_most(0.9),
        metavar="X",
        help="overlap of neighboring windows, 0 to 0.9 (default: the model's)",
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="more overlap of windows, and the mean over mirrored copies where a model was trained for them; slower",
    )
    parser.add_argument(
        "--faithful",
        action="store_true",
        help="models of others compute exactly what their owners' software computes; slower, the labels hardly differ",
    )
    parser.add_argument(
        "--margin", type=not_negative, metavar="MM", help="tissue around the located liver that is worked on, in mm"
    )
    parser.add_argument(
        "--binary-prior",
        action="store_true",
        help="hand the located liver to the fine stage as a mask instead of a probability (for comparison)",
    )
    parser.add_argument(
        "--min-lesion-voxels", type=not_negative, default=30, metavar="N", help="see --min-lesion-mm3 (default 30)"
    )
    parser.add_argument(
        "--min-lesion-mm3",
        type=not_negative,
        default=65.0,
        metavar="V",
        help="a lesion is dropped when it is below both limits (default 65 mm³, a sphere of 5 mm)",
    )
    parser.add_argument(
        "--min-confidence",
        type=at_most(0.99),
        metavar="C",
        help="a lesion is dropped when the model is less sure of it (0 to 0.99; default: the model's own limit; "
        "with 0 every doubt is shown)",
    )
    parser.add_argument(
        "--gate",
        choices=("off", "mark", "drop"),
        default="mark",
        help="what happens to lesions where a model 'classify' takes the liver for healthy (default: mark)",
    )
    parser.add_argument(
        "--uncertainty", action="store_true", help="write how undecided the networks were in each voxel"
    )
    parser.add_argument(
        "--force", action="store_true", help="segment even if the values do not look like those of a CT"
    )


def choices(options: argparse.Namespace) -> Options:
    """The run's options from the arguments of :func:`add_choices`."""
    from ..cascade import Options
    from ..postprocess import CleanUp

    return Options(
        device=options.device,
        overlap=options.overlap,
        margin_mm=options.margin,
        binary_prior=options.binary_prior,
        force=options.force,
        thorough=options.thorough,
        faithful=options.faithful,
        uncertainty=options.uncertainty,
        gate=options.gate,
        clean_up=CleanUp(
            int(options.min_lesion_voxels), options.min_lesion_mm3, min_lesion_confidence=options.min_confidence
        ),
    )


def models(options: argparse.Namespace) -> Path | None:
    """Where the models are that ``--model`` names.

    Raises:
        ModelError: it is the id of a cascade that is not complete.
    """
    from ..models.library import models_argument

    return models_argument(options.model)


def count(text: str) -> int:
    """A number of 1 or above, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or above")
    return value


def not_negative(text: str) -> float:
    """A finite number of 0 or above, for argparse."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or above")
    return value


def at_most(highest: float) -> Callable[[str], float]:
    """A number from 0 to ``highest``, for argparse."""

    def fraction(text: str) -> float:
        value = not_negative(text)
        if value > highest:
            raise argparse.ArgumentTypeError(f"{text} is not between 0 and {highest:g}")
        return value

    return fraction


def print_findings(findings: tuple[Finding, ...]) -> None:
    """One line per finding, on standard output."""
    for finding in findings:
        print(f"{finding.severity.value}: {finding.message}")
