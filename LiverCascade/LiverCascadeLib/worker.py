"""The process that computes: jobs in, events out. :mod:`.jobs` says how it is spoken to.

It stays alive between runs, so that a second run pays neither for imports nor for loading models. Reading happens on
a thread of its own, so that a run can be cancelled in the middle of a stage, and so that the process ends at once
when its parent is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from . import __version__
from .allocator import give_back_freed_memory, keep_freed_memory
from .cascade import Cascade, Options, load_cascade, segment
from .errors import Cancelled, InputError, LiverCascadeError, MissingPackageError, ResourceError, WorkerCrashed
from .jobs import ERROR_KINDS, NORMAL_PRIORITY, JobFolder, LineDecoder, encode, options_from_dict
from .models.cascade_file import read_cascade
from .progress import Progress
from .resources import EMBEDDED_MODELS

if TYPE_CHECKING:
    from .volume import Volume

# What takes seconds to import; everything else comes along with it.
HEAVY = ("torch", "monai.networks.nets", "safetensors.torch")
# A listener needs no more than this many progress events per second.
_EVENTS_PER_SECOND = 20
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "bad allocation", "bad_alloc")


class Channel:
    """The two pipes to the parent.

    Standard input and output are taken away from everybody else: what a library prints goes to standard error, and
    nothing in this process can swallow a message. (On Windows, importing NumPy while a thread reads from the standard
    input handle would also wait for the next message.)
    """

    def __init__(self) -> None:
        self._input = os.dup(0)
        self._output: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        self._lock = threading.Lock()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def tell(self, event: str, **content: object) -> None:
        """Sends one event."""
        data = memoryview(encode({"event": event, **content}))
        # Where nobody listens any more, the end of the input is about to end this process.
        with self._lock, contextlib.suppress(OSError):
            while data:
                data = data[self._output.write(data) or 0 :]

    def read(self) -> bytes:
        """The next bytes; none where the parent is gone."""
        try:
            return os.read(self._input, 1 << 16)
        except OSError:
            return b""


class Worker:
    """Serves runs one after the other.

    Args:
        channel: to the parent.
    """

    def __init__(self, channel: Channel):
        self._channel = channel
        self._runs: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled: set[str] = set()
        # Only the reading thread touches these: every folder that may still be there.
        self._folders: list[JobFolder] = []
        self._key: object = None
        self._cascade: Cascade | None = None

    def serve(self) -> None:
        """Works until the process is ended."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._channel.tell("ready", version=__version__, pid=os.getpid())
        self._set_priority()
        self._warm_up()
        while True:
            self._answer(self._runs.get())

    def _listen(self) -> None:
        decoder = LineDecoder()
        while data := self._channel.read():
            for message in decoder.feed(data):
                try:
                    self._take(message)
                except (KeyError, TypeError, AttributeError):
                    self._refuse(message)
            for line in decoder.skipped:
                self._channel.tell("log", message=f"A line that is no message was skipped: {line[:200]}")
        self._end()

    def _take(self, message: dict[str, Any]) -> None:
        command = message["command"]
        if command == "run":
            job_id, folder, _ = str(message["id"]), JobFolder(message["folder"]), message["options"].keys()
            self._folders = [folder, *(other for other in self._folders if other.path.exists())]
            self._runs.put({**message, "id": job_id, "folder": folder})
        elif command == "cancel":
            self._cancelled.add(str(message["id"]))
        elif command == "quit":
            self._end()
        else:
            raise KeyError(command)

    def _refuse(self, message: dict[str, Any]) -> None:
        """Says that ``message`` is not understood; whoever waits for a run gets its answer."""
        text = f"This message is not understood: {str(message)[:200]}"
        if message.get("command") == "run" and "id" in message:
            self._tell_error(str(message["id"]), InputError(text))
        else:
            self._channel.tell("log", message=text)

    def _tell_error(self, job_id: str, error: LiverCascadeError) -> None:
        self._channel.tell("error", id=job_id, kind=kind_of(error), message=str(error), exit_code=error.exit_code)

    def _end(self) -> None:
        """Ends this process at once, whatever it is doing; the run that it may be in the middle of has no reader."""
        for folder in self._folders:
            folder.remove()
        os._exit(0)

    def _set_priority(self) -> None:
        if not os.environ.get(NORMAL_PRIORITY) or not hasattr(os, "setpriority"):
            return
        level = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            if level > 0:
                os.setpriority(os.PRIO_PROCESS, 0, 0)
        except OSError:
            text = f"This process keeps the low priority that Slicer gives to what it starts (nice {level})."
            self._channel.tell("log", message=f"{text} On a busy computer the run may take longer.")

    def _warm_up(self) -> None:
        started = time.perf_counter()
        keep_freed_memory()
        try:
            _import_heavy()
        except MissingPackageError as error:  # a run will say it, unless the package is installed until then
            self._channel.tell("log", message=str(error))
        else:
            seconds = time.perf_counter() - started
            self._channel.tell("log", message=f"Libraries were imported in {seconds:.1f} s.")

    def _answer(self, message: dict[str, Any]) -> None:
        job_id = message["id"]
        try:
            content = self._run(message)
            self._channel.tell("done", id=job_id, **content)
        except Cancelled:
            self._channel.tell("cancelled", id=job_id)
        except Exception as error:
            self._cascade = self._key = None  # nobody knows in which state it is
            self._tell_error(job_id, _explained(error))
        self._cancelled.discard(job_id)
        self._free_memory()

    def _run(self, message: dict[str, Any]) -> dict[str, Any]:
        job_id, folder = message["id"], message["folder"]
        progress = Progress(_Reporter(self._channel, job_id), lambda: job_id in self._cancelled)
        progress.stage("load")
        _import_heavy()
        options = options_from_dict(message["options"])
        volume: Volume = folder.read_volume()
        cascade = self._loaded(message.get("models"), options)
        result = segment(volume, cascade, options, progress)
        if any(finding.code == "out-of-memory" for finding in result.findings):
            self._cascade = self._key = None  # it stepped down; the next run may find more memory
        return folder.write_result(result)

    def _loaded(self, models: str | None, options: Options) -> Cascade:
        """The cascade for ``models`` and ``options``, kept from the last run where that had the same."""
        folder = EMBEDDED_MODELS if models is None else Path(models)
        files = sorted(file for part in read_cascade(folder).folders for file in part.rglob("*") if file.is_file())
        stamps = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
        key = (stamps, str(folder), options.device, options.overlap, options.thorough, options.faithful)
        if self._cascade is None or self._key != key:
            self._cascade = self._key = None  # the old models make room before the new ones come
            self._cascade = load_cascade(models, options)
            self._key = key
        return self._cascade

    @staticmethod
    def _free_memory() -> None:
        """An idle worker keeps its models, not what their last run left in memory."""
        give_back_freed_memory()
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
            torch.cuda.empty_cache()


class _Reporter:
    """Tells the parent how far a run is, not too often."""

    def __init__(self, channel: Channel, job_id: str):
        self._channel, self._job_id = channel, job_id
        self._stage, self._told = "", 0.0

    def __call__(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        if stage == self._stage and fraction < 1 and now - self._told < 1 / _EVENTS_PER_SECOND:
            return
        self._stage, self._told = stage, now
        self._channel.tell("progress", id=self._job_id, stage=stage, fraction=round(float(fraction), 4))


def _import_heavy() -> None:
    """Imports what a run needs.

    Raises:
        MissingPackageError: a package is not installed, or does not work.
    """
    importlib.invalidate_caches()  # it may have been installed a moment ago
    for name in HEAVY:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a library that the package needs cannot be loaded
            raise _missing(error) from error


def _missing(error: ImportError | OSError) -> MissingPackageError:
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "?").split(".")[0]
        text = f"The Python package '{package}' is missing."
    else:
        text = f"A Python package cannot be loaded ({str(error).strip().splitlines()[0]})."
    return MissingPackageError(
        f"{text} In Slicer, the button of the module installs what is needed; elsewhere: pip install livercascade."
    )


def kind_of(error: LiverCascadeError) -> str:
    """The name in :data:`.jobs.ERROR_KINDS` for ``error``."""
    return next((kind for kind, known in ERROR_KINDS.items() if isinstance(error, known)), "crash")


def _explained(error: Exception) -> LiverCascadeError:
    """``error`` as one that a user is meant to read; what nobody foresaw is also printed in full."""
    if isinstance(error, LiverCascadeError):
        return error
    text = str(error).strip()
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _OUT_OF_MEMORY):
        return ResourceError(
            "The computer's memory is not enough for this volume. Crop it to the abdomen, or close other programs."
        )
    if isinstance(error, ImportError):
        return _missing(error)
    traceback.print_exception(error)
    first = text.splitlines()[0] if text else "no message"
    return WorkerCrashed(f"The computation failed unexpectedly ({type(error).__name__}: {first}). Please report this.")


def main() -> None:
    """Serves until the parent is gone."""
    # Ctrl-C reaches the whole terminal group; the parent decides what it means, and tells.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Worker(Channel()).serve()


if __name__ == "__main__":
    main()
