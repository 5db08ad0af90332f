"""A worker process as a blocking call, for scripts and batches. The panel speaks to its worker by Qt's own means."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from .cascade import Options
from .errors import Cancelled, LiverCascadeError, MissingPackageError, WorkerCrashed
from .jobs import JobFolder, LineDecoder, crash_message, encode, error_of, kill_tree, worker_command
from .progress import Progress
from .result import Result
from .volume import Volume

# A window on a slow CPU takes seconds, and a run is only cancelled between two of them.
CANCEL_PATIENCE_S = 5.0
QUIT_PATIENCE_S = 2.0
_TICK_S = 0.02
_LAST_WORDS = 4096


class WorkerClient:
    """Starts a worker when it is needed, keeps it warm between runs, and ends it with :meth:`close`.

    Use as a context manager. Not for several threads at once: each takes a client of its own.

    Args:
        python: the interpreter; None takes Slicer's own inside Slicer and this process's elsewhere.
        threads: CPU threads that a run may use; None leaves that to the libraries.
        wait: called about every 20 ms while a run is waited for, so that an application can process its events.
    """

    def __init__(self, python: str | None = None, threads: int | None = None, wait: Callable[[], None] = lambda: None):
        self._python, self._threads, self._wait = python, threads, wait
        self._process: subprocess.Popen[bytes] | None = None
        self._ids = (f"{os.getpid()}-{number}" for number in itertools.count(1))

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process that was started, which may be a launcher of the worker; None where none runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Starts the process, if it does not run; returns at once, and the process imports its libraries.

        Raises:
            WorkerCrashed: it cannot be started.
        """
        if self.pid is not None:
            return
        self.close()
        program, arguments, more = worker_command(self._python)
        if self._threads:
            more["OMP_NUM_THREADS"] = more["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(self._threads)
        # Without a name: nothing is left of it, however this process ends.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, **more},
                # No console window on Windows.
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0) if sys.platform == "win32" else 0,
            )
        except OSError as error:
            self._log.close()
            raise WorkerCrashed(
                f"The process that computes cannot be started: {program}: {error.strerror}."
            ) from error
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout, self._events), daemon=True)
        self._reader.start()

    def run(
        self,
        volume: Volume,
        options: Options | None = None,
        models: Path | str | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """Segments ``volume`` in the worker; the same result and errors as :func:`.cascade.segment` in this process.

        Args:
            volume: the CT.
            options: choices; None takes the defaults.
            models: folder with the models; None takes the embedded default.
            progress: listener and cancellation; its timings go into the result, and the run's into them.

        Raises:
            Cancelled: the user cancelled.
            WorkerCrashed: the process died; the next run starts a new one.
            MissingPackageError: the worker's Python lacks a package.
            LiverCascadeError: what the run itself raised.
        """
        options, progress = options or Options(), progress or Progress()
        progress.finish()
        if progress.is_cancelled():
            raise Cancelled()
        folder = JobFolder.create(volume)
        try:
            self.start()
            job_id = next(self._ids)
            self._send(folder.run_message(job_id, models, options))
            result = folder.read_result(self._answer(job_id, progress), volume)
        except LiverCascadeError as error:
            if isinstance(error, WorkerCrashed | MissingPackageError):
                self.close()
            raise
        except BaseException:  # of a listener, or Ctrl-C: nobody waits for the run any more
            self.close(patience=0)
            raise
        finally:
            folder.remove()
        progress.timings.update(result.timings)
        return replace(result, timings=progress.timings)

    def close(self, patience: float = QUIT_PATIENCE_S) -> None:
        """Ends the worker and everything that it started; may be called twice.

        Args:
            patience: seconds that it gets to end by itself.
        """
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):  # a pipe that still held a message
            process.stdin.close()  # to the worker, its parent is gone
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        if process.poll() is None:
            kill_tree(process.pid)
            process.wait()
        self._reader.join(QUIT_PATIENCE_S)
        if not self._reader.is_alive():
            process.stdout.close()
        self._log.close()

    @staticmethod
    def _read(stream: BinaryIO, events: queue.Queue) -> None:
        decoder = LineDecoder()
        while data := stream.read1(1 << 16):
            for event in decoder.feed(data):
                events.put(event)
        events.put(None)

    def _send(self, message: dict[str, Any]) -> None:
        # Where the process is gone, the end of its events tells it.
        with contextlib.suppress(OSError):
            self._process.stdin.write(encode(message))
            self._process.stdin.flush()

    def _answer(self, job_id: str, progress: Progress) -> dict[str, Any]:
        """The ``done`` event of a run."""
        deadline = None
        while True:
            if deadline is None and progress.is_cancelled():
                self._send({"command": "cancel", "id": job_id})
                deadline = time.monotonic() + CANCEL_PATIENCE_S
            if deadline is not None and time.monotonic() > deadline:
                self.close(patience=0)
                raise Cancelled()
            self._wait()
            try:
                event = self._events.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if event is None and deadline is None:
                raise WorkerCrashed(self._last_words())
            if event is not None and event.get("id") != job_id:
                continue  # a log entry, or the rest of a run that was given up
            if event is None or (deadline is not None and event["event"] in ("done", "error", "cancelled")):
                raise Cancelled()
            if event["event"] == "progress" and deadline is None:
                progress.listener(event["stage"], event["fraction"])
            elif event["event"] == "done":
                return event
            elif event["event"] == "cancelled":
                raise Cancelled()
            elif event["event"] == "error":
                raise error_of(event)

    def _last_words(self) -> str:
        """Why the process may have ended, in a sentence."""
        code = self._process.wait()
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LAST_WORDS))
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return crash_message(code, lines[-1] if lines else "")
