"""The button, the progress that takes its place, what happened in the end, and the log."""

from __future__ import annotations

import time
from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from .estimate import RunEstimate, in_words
from .run import RunState


class RunView:
    """Shows a run.

    Args:
        ui: the widgets of the panel.
        estimate: knows how far the run is.
        start: called when the user presses the button.
        cancel: called when the user presses Cancel.
    """

    def __init__(
        self, ui: object, estimate: RunEstimate, start: Callable[[], None], cancel: Callable[[], None]
    ) -> None:
        self._ui, self._estimate = ui, estimate
        self._stage, self._stageFraction, self._frameText = "", 0.0, ""
        self._timer = qt.QTimer()
        self._timer.setInterval(500)
        self._timer.connect("timeout()", self._refresh)
        ui.segmentButton.connect("clicked(bool)", start)
        ui.cancelButton.connect("clicked(bool)", cancel)
        self.showState(RunState.IDLE)

    def setReady(self, ready: bool, reason: str) -> None:
        """Enables the button, or says why it is not."""
        self._ui.segmentButton.enabled = ready
        self._ui.segmentButton.toolTip = reason

    def showState(self, state: RunState) -> None:
        """Swaps button and progress."""
        busy = state is not RunState.IDLE
        self._ui.segmentButton.setVisible(not busy)
        self._ui.runFrame.setVisible(busy)
        self._ui.cancelButton.enabled = state is not RunState.CANCELLING
        if state is RunState.STARTING:
            self.showStage("start", 0.0)
            self._timer.start()
        elif state is RunState.CANCELLING:
            self.showStage("cancel", 0.0)
        elif state is RunState.FINISHING:
            self.showStage("finish", 0.0)
        elif not busy:
            self._timer.stop()

    def showStage(self, stage: str, fraction: float, frameText: str | None = None) -> None:
        """Shows that ``fraction`` of ``stage`` is done."""
        self._stage, self._stageFraction = stage, fraction
        if frameText is not None:
            self._frameText = frameText
        self._refresh()

    def say(self, text: str, kind: str = "info") -> None:
        """One sentence under the button; ``kind`` is info, warning or error."""
        label = self._ui.statusLabel
        label.text = text
        label.setVisible(bool(text))
        color = {"error": "#c62828", "warning": "#b26a00"}.get(kind, "")
        label.setStyleSheet(f"color: {color};" if color else "")
        if text:
            self.log(text)

    def log(self, text: str) -> None:
        """A line of the folded log."""
        self._ui.logText.appendPlainText(f"{time.strftime('%H:%M:%S')}  {text}")

    def close(self) -> None:
        """The widgets go."""
        self._timer.stop()

    def _refresh(self) -> None:
        bar = self._ui.progressBar
        bar.setValue(int(1000 * self._estimate.fraction))
        parts = [self._frameText, stageInWords(self._stage)]
        if self._stageFraction > 0:
            parts.append(f"{100 * self._stageFraction:.0f} %")
        text = " · ".join(part for part in parts if part)
        time_text = _("{elapsed} elapsed").format(elapsed=in_words(self._estimate.elapsed))
        remaining = self._estimate.remaining
        if remaining is not None and self._stage not in ("cancel", "finish"):
            time_text = _("{elapsed}, about {remaining} left").format(elapsed=time_text, remaining=in_words(remaining))
        self._ui.progressLabel.text = f"{text} · {time_text}"


def stageInWords(stage: str) -> str:
    """What a stage of the pipeline does, for the reader."""
    words = {
        "start": _("Preparing"),
        "load": _("Loading the models"),
        "check": _("Checking the scan"),
        "locate": _("Locating the liver"),
        "refine": _("Outlining liver and lesions"),
        "fuse": _("Bringing it to the scan's voxels"),
        "clean": _("Cleaning up"),
        "finish": _("Adding the result to the scene"),
        "cancel": _("Cancelling"),
    }
    return words.get(stage, stage)
