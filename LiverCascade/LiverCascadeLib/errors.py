"""Errors that a user is meant to read: what was found, what was expected, what to do."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_CANCELLED = 3
EXIT_OUT_OF_RESOURCES = 4


class LiverCascadeError(Exception):
    """Base of all errors whose text is a complete sentence for the user.

    ``exit_code`` is what a command line ends with when the error reaches it.
    """

    exit_code = EXIT_BAD_INPUT


class InputError(LiverCascadeError):
    """The input cannot be used: unreadable, not a CT volume, or a broken geometry."""


class ModelError(LiverCascadeError):
    """A model cannot be used: missing or altered weights, or an invalid manifest."""


class OutputError(LiverCascadeError):
    """The results cannot be written where the user wants them."""


class Cancelled(LiverCascadeError):
    """The user cancelled the run."""

    exit_code = EXIT_CANCELLED

    def __init__(self, message: str = "The run was cancelled. Nothing was written."):
        super().__init__(message)


class ResourceError(LiverCascadeError):
    """Memory or disk ran out."""

    exit_code = EXIT_OUT_OF_RESOURCES


class MissingPackageError(LiverCascadeError):
    """A Python package that the computation needs is not installed."""

    exit_code = EXIT_OUT_OF_RESOURCES


class WorkerCrashed(LiverCascadeError):
    """The process that computes died, or failed in a way that nobody foresaw."""

    exit_code = EXIT_OUT_OF_RESOURCES


class DownloadError(LiverCascadeError):
    """A model could not be fetched: not there, cut off, or not the right file."""
