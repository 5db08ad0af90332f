"""Long work in short pieces between Qt's events, so that the user interface never waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import qt

# Well below the 50 ms that a user interface may wait: one step more may begin just before the budget is spent.
BUDGET_SECONDS = 0.012


class Stepper:
    """Takes a generator's steps from a timer, a few milliseconds at a time.

    Python threads starve while Qt idles in Slicer, and MRML may be touched from the main thread only.
    """

    def __init__(self) -> None:
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._tick)
        self._steps: Generator[None, None, Any] | None = None
        self._done: Callable[[Any], None] = _ignore
        self._failed: Callable[[Exception], None] = _ignore

    @property
    def isActive(self) -> bool:
        """True while there is work."""
        return self._steps is not None

    def start(
        self,
        steps: Generator[None, None, Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Begins; work that was going on is dropped.

        Args:
            steps: yields wherever it may be interrupted.
            done: called with what ``steps`` returns.
            failed: called with the exception that ended ``steps``.
        """
        self.stop()
        self._steps, self._done, self._failed = steps, done, failed
        self._timer.start()

    def stop(self) -> None:
        """Drops the work; neither callback is called."""
        self._timer.stop()
        steps, self._steps = self._steps, None
        # A generator that is stopped from within one of its own steps ends by itself.
        if steps is not None and not steps.gi_running:
            steps.close()

    def _tick(self) -> None:
        steps = self._steps
        if steps is None or steps.gi_running:  # an event loop inside a step must not enter it again
            return
        end = time.perf_counter() + BUDGET_SECONDS
        try:
            while self._steps is steps and time.perf_counter() < end:
                next(steps)
        except StopIteration as finished:
            if self._steps is steps:
                self.stop()
                self._done(finished.value)
        except Exception as error:
            if self._steps is steps:
                self.stop()
                self._failed(error)


def _ignore(_: object) -> None:
    pass
