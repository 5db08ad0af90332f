"""One run, from the voxels of a node to a result: a state machine without widgets."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import qt

from ..cascade import Options
from ..errors import Cancelled, LiverCascadeError, WorkerCrashed
from ..jobs import ERROR_KINDS, JobFolder
from ..result import Result
from ..volume import Volume
from .stepper import Stepper

# A worker in the middle of a network's window notices a cancellation when that window is done.
CANCEL_SECONDS = 5.0


class RunState(Enum):
    """Where a run is."""

    IDLE = "idle"
    STARTING = "starting"  # the voxels are handed over, the worker gets ready
    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHING = "finishing"  # the labels come back


class Worker(Protocol):
    """What a run needs of :class:`~.worker_process.WorkerProcess`."""

    onEvent: Callable[[dict], None]
    onEnded: Callable[[str], None]

    @property
    def isReady(self) -> bool: ...  # noqa: D102

    def start(self) -> None: ...  # noqa: D102

    def send(self, message: dict) -> None: ...  # noqa: D102

    def rest(self) -> None: ...  # noqa: D102

    def stop(self) -> None: ...  # noqa: D102


@dataclass
class RunListener:
    """Who is told; every run ends in exactly one call of ``finished`` or ``failed``, made in the state IDLE."""

    stateChanged: Callable[[RunState], None] = lambda state: None
    progressed: Callable[[str, float], None] = lambda stage, fraction: None
    logged: Callable[[str], None] = lambda text: None
    finished: Callable[[Result], None] = lambda result: None
    failed: Callable[[Exception], None] = lambda error: None


class Run:
    """Runs one volume after the other on one worker.

    Args:
        worker: computes.
        listener: is told.
    """

    def __init__(self, worker: Worker, listener: RunListener) -> None:
        self._worker, self._listener = worker, listener
        worker.onEvent, worker.onEnded = self._onEvent, self._onEnded
        self._stepper = Stepper()
        self._state = RunState.IDLE
        self._id = ""
        self._folder: JobFolder | None = None
        self._volume: Volume | None = None
        self._models: Path | None = None
        self._options = Options()
        self._cancelTimer = qt.QTimer()
        self._cancelTimer.setSingleShot(True)
        self._cancelTimer.setInterval(int(1000 * CANCEL_SECONDS))
        self._cancelTimer.connect("timeout()", self._onCancelOverdue)

    @property
    def state(self) -> RunState:
        """Where the run is."""
        return self._state

    @property
    def isBusy(self) -> bool:
        """True from :meth:`start` until the listener was told the end."""
        return self._state is not RunState.IDLE

    def start(self, volume: Generator[None, None, Volume], options: Options, models: Path | None) -> None:
        """Begins a run.

        Args:
            volume: steps that return the input.
            options: what the user chose.
            models: folder of the models; None takes the embedded ones.
        """
        if self.isBusy:
            raise RuntimeError("A run is going on.")
        self._id, self._options, self._models = uuid.uuid4().hex, options, models
        self._setState(RunState.STARTING)
        # The process starts while the voxels are written.
        self._worker.start()
        if self._state is RunState.STARTING:
            self._stepper.start(self._handOver(volume), self._onHandedOver, self._fail)

    def cancel(self) -> None:
        """The user wants it to end. The worker stays warm if it answers in time."""
        if self._state is RunState.RUNNING:
            self._setState(RunState.CANCELLING)
            self._worker.send({"command": "cancel", "id": self._id})
            self._cancelTimer.start()
        elif self._state in (RunState.STARTING, RunState.FINISHING):
            self._fail(Cancelled("The run was cancelled. Nothing in the scene was changed."))

    def abort(self, error: Exception) -> None:
        """Ends the run at once, the worker with it; the listener is told ``error``."""
        if self.isBusy:
            self._worker.stop()
            self._fail(error)

    def close(self) -> None:
        """Ends everything without telling anybody: the application quits, or the panel is destroyed."""
        self._worker.stop()
        self._clear()
        self._state = RunState.IDLE

    def _handOver(self, volume: Generator[None, None, Volume]) -> Generator[None, None, None]:
        self._volume = yield from volume
        self._folder = yield from JobFolder.creation_steps(self._volume)

    def _onHandedOver(self, _: None) -> None:
        self._sendIfReady()

    def _sendIfReady(self) -> None:
        if self._state is RunState.STARTING and self._folder is not None and self._worker.isReady:
            self._setState(RunState.RUNNING)
            self._worker.send(self._folder.run_message(self._id, self._models, self._options))

    def _onEvent(self, event: dict) -> None:
        kind = event.get("event")
        if kind == "ready":
            self._sendIfReady()
        elif kind == "log":
            self._listener.logged(str(event.get("message", "")))
        elif event.get("id") != self._id or self._state not in (RunState.RUNNING, RunState.CANCELLING):
            return  # the last words of a run that was given up
        elif kind == "progress":
            if self._state is RunState.RUNNING:
                self._listener.progressed(event["stage"], event["fraction"])
        elif kind == "done" and self._state is RunState.RUNNING:
            self._setState(RunState.FINISHING)
            self._stepper.start(self._takeBack(event), self._succeed, self._fail)
        elif kind in ("done", "cancelled"):
            self._fail(Cancelled("The run was cancelled. Nothing in the scene was changed."))
        elif kind == "error":
            error = ERROR_KINDS.get(event.get("kind", ""), LiverCascadeError)
            self._fail(error(event["message"]))

    def _takeBack(self, event: dict) -> Generator[None, None, Result]:
        yield
        result = self._folder.read_result(event, self._volume)
        yield
        return result

    def _onEnded(self, text: str) -> None:
        if not self.isBusy:
            return
        if self._state is RunState.FINISHING:
            return  # the labels are on the disk already
        if self._state is RunState.CANCELLING:
            self._fail(Cancelled("The run was cancelled. Nothing in the scene was changed."))
            return
        reason = f" Its last words: {text}" if text else ""
        self._fail(
            WorkerCrashed(
                "The process that computes ended unexpectedly. Nothing in the scene was changed; press the button to"
                " try again. If it happens again, close other programs to free memory, or choose the CPU in the"
                f" options.{reason}"
            )
        )

    def _onCancelOverdue(self) -> None:
        if self._state is RunState.CANCELLING:
            self._worker.stop()
            self._fail(Cancelled("The run was cancelled. Nothing in the scene was changed."))

    def _succeed(self, result: Result) -> None:
        self._end()
        self._listener.finished(result)

    def _fail(self, error: Exception) -> None:
        self._end()
        self._listener.failed(error)

    def _end(self) -> None:
        self._clear()
        self._worker.rest()
        self._setState(RunState.IDLE)

    def _clear(self) -> None:
        self._cancelTimer.stop()
        self._stepper.stop()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()
        self._volume, self._id = None, ""

    def _setState(self, state: RunState) -> None:
        if state is not self._state:
            self._state = state
            self._listener.stateChanged(state)
