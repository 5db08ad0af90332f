"""One command line after another in the background: QProcess, lines of text, no orphan left behind."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

import qt
from LiverCascadeLib.jobs import kill_tree
from LiverCascadeLib.panel.worker_process import Connections, endProcess, newProcess

from .workplace import Command

PREFIX = "livercascade-train: "
# The exit code where some cases cannot be used, and of input that cannot be used at all.
SOME_UNUSABLE = 2


class CommandProcess:
    """Runs commands in turn; the first that fails ends the row.

    ``livercascade-train`` ends with 2 and without a sentence of its own where only some cases cannot be used: the row
    goes on then.

    Callbacks are plain attributes, to be set by the owner:

    * ``onLine(text)``: a line of output.
    * ``onStarted(index)``: the command with this number begins.
    * ``onEnded(code, reason)``: all are done, or one has failed; ``reason`` is what it said last on standard error.
      Not called after :meth:`stop`.
    """

    def __init__(self) -> None:
        self.onLine: Callable[[str], None] = lambda text: None
        self.onStarted: Callable[[int], None] = lambda index: None
        self.onEnded: Callable[[int, str], None] = lambda code, reason: None
        self._commands: list[Command] = []
        self._index = 0
        self._process = None
        self._pid = 0
        self._reason = ""
        self._decoders = ()
        self._rests = ["", ""]

    @property
    def isRunning(self) -> bool:
        """True from :meth:`start` until everything ended."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Process id, 0 while there is none."""
        return self._pid

    @property
    def saidWhy(self) -> bool:
        """True where the command that ran last gave a reason in its own words."""
        return self._reason.startswith(PREFIX)

    def start(self, commands: Sequence[Command]) -> None:
        """Starts the first command; returns at once."""
        self.stop()
        self._commands, self._index = list(commands), 0
        self._begin()

    def stop(self) -> None:
        """Ends the process and all its children, whatever they are doing; ``onEnded`` is not called."""
        process, self._process = self._process, None
        if process is None:
            return
        endProcess(process, self._connections(), self._pid)
        self._pid = 0

    def _begin(self) -> None:
        program, arguments, additions = self._commands[self._index]
        self._reason, self._rests = "", ["", ""]
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = (make("replace"), make("replace"))
        process = newProcess(self._connections(), additions)
        self._process = process
        self.onStarted(self._index)
        process.start(program, list(arguments))

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
        if self._process is not None:
            self._take(0, self._process.readAllStandardOutput().data())

    def _onErrorText(self) -> None:
        if self._process is not None:
            self._take(1, self._process.readAllStandardError().data())

    def _take(self, stream: int, data: bytes, end: bool = False) -> None:
        text = self._rests[stream] + self._decoders[stream].decode(data, end)
        *lines, self._rests[stream] = (text + "\n" if end and text else text).split("\n")
        for line in lines:
            line = line.rstrip("\r")
            # Warnings of libraries do not take the place of the command's own sentence.
            if stream and line.strip() and (line.startswith(PREFIX) or not self.saidWhy):
                self._reason = line.strip()
            self.onLine(line)
            if self._process is None:  # the owner ended it while it was told
                return

    def _onError(self, error: object = None) -> None:
        # Every other error is followed by finished(); this one is not.
        if self._process is not None and error == qt.QProcess.FailedToStart:
            self._end(-1, self._process.errorString())

    def _onFinished(self, exitCode: int = 0, exitStatus: object = None) -> None:
        for stream, read in enumerate((self._onOutput, self._onErrorText)):
            read()
            if self._process is not None:
                self._take(stream, b"", end=True)
        if self._process is None:
            return
        crashed = self._process.exitStatus() == qt.QProcess.CrashExit
        code = -1 if crashed else int(exitCode)
        passed = code == 0 or (code == SOME_UNUSABLE and not self.saidWhy)
        if passed and self._index + 1 < len(self._commands):
            self._release()
            self._index += 1
            self._begin()
        else:
            self._end(code, self._reason.removeprefix(PREFIX)[:500])

    def _end(self, code: int, reason: str) -> None:
        self._release()
        self.onEnded(code, reason)

    def _release(self) -> None:
        process, self._process = self._process, None
        pid, self._pid = self._pid, 0
        if pid:
            kill_tree(pid)  # the launcher is gone, its child perhaps not
        process.deleteLater()
