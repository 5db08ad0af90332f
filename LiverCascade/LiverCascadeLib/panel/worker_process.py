"""The worker process behind the panel: QProcess, JSON lines, no orphan left behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import qt

from ..jobs import LineDecoder, encode, kill_tree, worker_command

IDLE_SECONDS = 600
LAST_WORDS = 4000


# Signals of a QProcess, and who is told.
Connections = tuple[tuple[str, Callable[..., None]], ...]


def newProcess(connections: Connections, additions: Mapping[str, str]) -> object:
    """A QProcess that is connected and about to be started, with ``additions`` to this process' environment."""
    process = qt.QProcess()
    for signal, slot in connections:
        process.connect(signal, slot)
    environment = qt.QProcessEnvironment.systemEnvironment()
    for name, value in additions.items():
        environment.insert(name, value)
    process.setProcessEnvironment(environment)
    return process


def endProcess(process: object, connections: Connections, pid: int) -> None:
    """Ends a QProcess and all its children; nobody is told.

    Args:
        pid: as it was when the process started, 0 where that is not known.
    """
    for signal, slot in connections:
        process.disconnect(signal, slot)
    # PythonSlicer is a launcher: killing it alone would leave the interpreter behind it alive.
    pid = pid or int(process.processId())
    if pid:
        kill_tree(pid)
    process.kill()
    process.waitForFinished(2000)
    process.deleteLater()


class WorkerProcess:
    """One worker, started when it is needed, kept warm between runs, ended when it was idle for long.

    Callbacks are plain attributes, to be set by the owner:

    * ``onEvent(event)``: one message of the worker.
    * ``onEnded(text)``: the process ended and nobody here asked for it; ``text`` is the last that it said.

    Args:
        command: gives (program, arguments, additions to the environment).
        idleSeconds: an unused worker is ended after this time.
    """

    def __init__(
        self,
        command: Callable[[], tuple[str, list[str], dict[str, str]]] = worker_command,
        idleSeconds: float = IDLE_SECONDS,
    ) -> None:
        self.onEvent: Callable[[dict], None] = lambda event: None
        self.onEnded: Callable[[str], None] = lambda text: None
        self._command = command
        self._process = None
        self._pid = 0
        self._ready = False
        self._decoder = LineDecoder()
        self._lastWords = ""
        self._idleTimer = qt.QTimer()
        self._idleTimer.setSingleShot(True)
        self._idleTimer.setInterval(int(1000 * idleSeconds))
        self._idleTimer.connect("timeout()", self.stop)

    @property
    def isRunning(self) -> bool:
        """True from :meth:`start` until the process ended."""
        return self._process is not None

    @property
    def isReady(self) -> bool:
        """True once the worker said that it takes jobs."""
        return self._ready

    @property
    def pid(self) -> int:
        """Process id, 0 while there is none."""
        return self._pid

    def start(self) -> None:
        """Starts the process unless it runs; returns at once."""
        self._idleTimer.stop()
        if self._process is not None:
            return
        program, arguments, additions = self._command()
        self._ready, self._decoder, self._lastWords = False, LineDecoder(), ""
        process = newProcess(self._connections(), additions)
        self._process = process
        process.start(program, list(arguments))

    def send(self, message: dict) -> None:
        """Sends a command; it is lost where there is no process, whose end is told through ``onEnded``."""
        if self._process is not None:
            self._process.write(encode(message))

    def rest(self) -> None:
        """The worker has nothing to do: it stays warm for a while."""
        if self._process is not None:
            self._idleTimer.start()

    def stop(self) -> None:
        """Ends the process and all its children, whatever it is doing; ``onEnded`` is not called."""
        self._idleTimer.stop()
        process, self._process = self._process, None
        if process is None:
            return
        endProcess(process, self._connections(), self._pid)
        self._pid, self._ready = 0, False

    def _connections(self) -> Connections:
        return (
            ("started()", self._onStarted),
            ("readyReadStandardOutput()", self._onOutput),
            ("readyReadStandardError()", self._onErrorText),
            ("finished(int,QProcess::ExitStatus)", self._onFinished),
            ("errorOccurred(QProcess::ProcessError)", self._onError),
        )

    def _onStarted(self) -> None:
        self._pid = int(self._process.processId())

    def _onOutput(self) -> None:
        if self._process is None:
            return
        for event in self._decoder.feed(_bytes(self._process.readAllStandardOutput())):
            if event.get("event") == "ready":
                self._ready = True
            self.onEvent(event)
            if self._process is None:  # the owner ended it while it was told
                return

    def _onErrorText(self) -> None:
        if self._process is None:
            return
        text = _bytes(self._process.readAllStandardError()).decode("utf-8", "replace")
        self._lastWords = (self._lastWords + text)[-LAST_WORDS:]
        for line in text.splitlines():
            logging.debug("LiverCascade worker: %s", line)

    def _onError(self, error: object = None) -> None:
        # Every other error is followed by finished(); this one is not.
        if self._process is not None and error == qt.QProcess.FailedToStart:
            self._ended(self._process.program())

    def _onFinished(self, exitCode: int = 0, exitStatus: object = None) -> None:
        if self._process is None:
            return
        self._onOutput()
        self._onErrorText()
        if self._process is not None:
            self._ended(self._lastWords)

    def _ended(self, text: str) -> None:
        process, self._process = self._process, None
        pid, self._pid, self._ready = self._pid, 0, False
        self._idleTimer.stop()
        if pid:
            kill_tree(pid)  # the launcher is gone, its child perhaps not
        process.deleteLater()
        self.onEnded(_lastSentence(text))


def _bytes(array: object) -> bytes:
    """The content of a QByteArray; ``bytes(array)`` fails in PythonQt."""
    return array.data()


def _lastSentence(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
