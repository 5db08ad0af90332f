"""``livercascade-train``: check, split and prepare data, train, judge, export."""

from __future__ import annotations

import argparse
import os
import sys

from LiverCascadeLib.errors import EXIT_CANCELLED, LiverCascadeError

from .commands import (
    ablate,
    average,
    bodies,
    calibrate,
    card,
    check,
    classify,
    example,
    export,
    fit,
    held_out,
    measure,
    prepare,
    robustness,
    split,
)
from .evaluation import command as evaluate

COMMANDS = (
    check,
    split,
    prepare,
    bodies,
    fit,
    classify,
    evaluate,
    ablate,
    export,
    average,
    card,
    measure,
    calibrate,
    held_out,
    robustness,
    example,
)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except LiverCascadeError as error:
        return _fail(str(error), error.exit_code)
    except (FileNotFoundError, ValueError) as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("Stopped.", EXIT_CANCELLED)


def _fail(message: str, code: int) -> int:
    # Processes that help the first one of a run would say the same again.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"livercascade-train: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="livercascade-train", description="Trains the networks of LiverCascade. Research use only."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
