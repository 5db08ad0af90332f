"""The command ``livercascade``: what a shell, a script or a batch system runs."""

from __future__ import annotations

import argparse
import json
import sys

from . import __version__
from .commands import batch, check, dicom, followup, models, report, segment
from .commands.arguments import DESCRIPTION, EPILOG
from .errors import EXIT_CANCELLED, EXIT_OUT_OF_RESOURCES, Cancelled, LiverCascadeError

COMMANDS = (segment, batch, check, report, followup, dicom, models)


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
    parser = argparse.ArgumentParser(
        prog="livercascade",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"livercascade {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
