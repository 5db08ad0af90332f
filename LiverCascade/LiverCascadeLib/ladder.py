"""What happens when memory runs out: the same work goes on with less."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .errors import ResourceError
from .findings import Finding, Severity

Answer = TypeVar("Answer")


class MemoryLadder:
    """Runs work; on an out-of-memory error again with one window at a time, then with results in main memory, then on
    the CPU.

    Args:
        title: of the model, for the finding.
        device: where the network is: 'cpu', 'cuda' or 'cuda:N'.
        batch: windows per forward pass.
        move: brings the network to a device.

    Attributes:
        device, batch: as they are now.
        store: device on which windows are put together.
        findings: what had to be done since :meth:`forget`.
    """

    def __init__(self, title: str, device: str, batch: int, move: Callable[[str], object]):
        self._title, self._move = title, move
        self.device, self.store, self.batch = device, device, max(1, batch)
        self.findings: list[Finding] = []

    def forget(self) -> None:
        """Begins anew what is told; how little memory there is stays known."""
        self.findings = []

    def run(self, work: Callable[[], Answer]) -> Answer:
        """The answer of ``work``, which looks at device, store and batch each time that it is called.

        Raises:
            ResourceError: memory ran out on the last rung.
        """
        while True:
            try:
                return work()
            except MemoryError as error:
                reason = str(error)
            except RuntimeError as error:
                if not _is_lack_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            self._step_down(reason)

    def _step_down(self, reason: str) -> None:
        import torch

        if self.batch > 1:
            self.batch, action = 1, "one window at a time"
        elif self.store != "cpu":
            self.store, action = "cpu", "stitching in main memory"
        elif self.device != "cpu":
            self.device, action = "cpu", "computing on the CPU"
            self._move("cpu")
        else:
            raise ResourceError(f"Memory ran out, even with the smallest settings ({reason}). Close other programs.")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        message = f"Memory ran out while {self._title} was computing; the run went on with {action}."
        self.findings.append(Finding("out-of-memory", Severity.INFO, message))


class Laddered:
    """What stages that compute on a ladder tell about themselves.

    Attributes:
        ladder: runs their work.
        forward_seconds: that the last run spent inside the network.
        windows: how many it computed.
    """

    ladder: MemoryLadder
    forward_seconds = 0.0
    windows = 0

    @property
    def device(self) -> str:
        """Where the network computes; the ladder may have changed it."""
        return self.ladder.device

    @property
    def findings(self) -> list[Finding]:
        """What the ladder had to do on the way of the last run."""
        return self.ladder.findings

    def forget(self) -> None:
        """Begins anew what is told about the last run; a run that does not come this far has none."""
        self.forward_seconds, self.windows = 0.0, 0
        self.ladder.forget()


def _is_lack_of_memory(error: RuntimeError) -> bool:
    """torch.OutOfMemoryError on a GPU; on the CPU PyTorch's allocator and oneDNN raise plain RuntimeErrors."""
    text = str(error).lower()
    signs = ("out of memory", "not enough memory", "allocate memory", "could not create a memory object")
    return any(sign in text for sign in signs)
