"""Progress and cancellation of a run, told to whoever listens: a terminal, a worker's event stream, a test."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import Cancelled


@dataclass
class Progress:
    """Passed down through a run; every long loop calls :meth:`update`, which is also where cancellation takes hold.

    Attributes:
        listener: called with (stage, fraction of that stage in 0…1).
        is_cancelled: asked at every update; true ends the run with :class:`~.errors.Cancelled`.
        timings: seconds that each finished stage took, in order.
    """

    listener: Callable[[str, float], None] = lambda stage, fraction: None
    is_cancelled: Callable[[], bool] = lambda: False
    timings: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _started: float = 0.0
    _part: tuple[int, int] = (0, 1)

    def stage(self, name: str, part: int = 0, parts: int = 1) -> None:
        """Ends the current stage and begins stage ``name``, or part ``part`` (from 0) of ``parts`` of it."""
        self.finish()
        self._stage, self._started, self._part = name, time.perf_counter(), (part, parts)
        self.update(0.0)

    def update(self, fraction: float) -> None:
        """Tells how far the current stage, or part of it, is.

        Raises:
            Cancelled: the user asked for it.
        """
        if self.is_cancelled():
            raise Cancelled()
        done, parts = self._part
        self.listener(self._stage, min(1.0, max(0.0, (done + fraction) / parts)))

    def finish(self) -> None:
        """Ends the current stage."""
        if self._stage:
            elapsed = time.perf_counter() - self._started
            self.timings[self._stage] = self.timings.get(self._stage, 0.0) + elapsed
            done, parts = self._part
            self.listener(self._stage, (done + 1) / parts)
            self._stage = ""


def cancel_on_signals() -> list[int]:
    """A list that stays empty until the user (Ctrl-C) or the system asks for an end; the second time interrupts."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if received:  # asked twice: do not wait for the next window
            raise KeyboardInterrupt
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return received
