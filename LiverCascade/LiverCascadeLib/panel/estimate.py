"""How far a run is altogether, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds that the stages took on one CPU core; only their proportions count, and they are replaced by measured ones.
TYPICAL_SECONDS = {"load": 2.0, "check": 0.3, "locate": 6.0, "refine": 60.0, "fuse": 2.0, "clean": 2.0}


class RunEstimate:
    """Turns (stage, fraction of that stage) into one fraction and the seconds that are left.

    Args:
        clock: seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._typical = dict(TYPICAL_SECONDS)
        self.begin(None)

    def begin(self, expected_seconds: float | None, frames: int = 1) -> None:
        """A run of ``frames`` volumes starts now; ``expected_seconds`` is a first guess for one, from its size."""
        self._started, self._expected = self._clock(), expected_seconds
        self._frames, self._frame = frames, 0
        self._fraction = 0.0

    def next_frame(self) -> None:
        """One volume of a sequence is done."""
        self._frame += 1

    def learn(self, timings: dict[str, float]) -> None:
        """Remembers how long the stages of a finished run took, for the next one."""
        self._typical.update({stage: max(seconds, 1e-3) for stage, seconds in timings.items()})

    def update(self, stage: str, fraction: float) -> float:
        """Notes progress; returns the fraction of the whole run, which never falls."""
        total = sum(self._typical.values())
        before = 0.0
        for name, seconds in self._typical.items():
            if name == stage:
                own = (before + fraction * seconds) / total
                self._fraction = max(self._fraction, (self._frame + own) / self._frames)
                break
            before += seconds
        return self._fraction

    @property
    def fraction(self) -> float:
        """The fraction of the whole run that is done."""
        return self._fraction

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._started

    @property
    def remaining(self) -> float | None:
        """Seconds that are left, or None where nobody can tell yet."""
        if self._fraction < 0.05:
            if self._expected is None:
                return None
            return max(0.0, self._expected * self._frames - self.elapsed)
        return self.elapsed * (1 - self._fraction) / self._fraction


def in_words(seconds: float) -> str:
    """``75.2`` → ``1:15``."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
