"""Findings about the chosen volume, under its selector, as they change."""

from __future__ import annotations

import html
from collections.abc import Callable, Generator
from typing import Protocol

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from ..errors import InputError
from ..findings import Finding, Severity
from ..preflight import preflight_steps
from ..scene import voxelsOfNode
from .stepper import Stepper

DELAY_MS = 200
# A quarter of what a run looks at: the same judgments in steps of less than 50 ms.
MOST_VOXELS = 700_000
_COLORS = {Severity.ERROR: "#c62828", Severity.WARNING: "#b26a00", Severity.INFO: ""}
_SIGNS = {Severity.ERROR: "✖", Severity.WARNING: "⚠", Severity.INFO: "ℹ"}


class PreflightSettings(Protocol):
    """What the findings depend on besides the volume."""

    def spacingRange(self) -> tuple[tuple[float, float], ...] | None: ...  # noqa: D102

    def deviceKind(self) -> str: ...  # noqa: D102


class PreflightView(VTKObservationMixin):
    """Judges the chosen volume shortly after it was chosen or changed.

    Args:
        label: where the findings are shown.
        settings: what the models know, and where they run.
        changed: called when :attr:`findings` or :attr:`refusal` are new.
    """

    def __init__(self, label: object, settings: PreflightSettings, changed: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self.findings: tuple[Finding, ...] = ()
        self.refusal = ""
        self._label, self._settings, self._changed = label, settings, changed
        self._node = None
        self._stepper = Stepper()
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.connect("timeout()", self._judge)

    def setNode(self, volumeNode: object) -> None:
        """Judges ``volumeNode`` from now on; None shows nothing."""
        if volumeNode is self._node:
            return
        self.removeObservers()
        self._node = volumeNode
        self.findings, self.refusal = (), ""
        if volumeNode is not None:
            events = (
                vtk.vtkCommand.ModifiedEvent,
                slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
                slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
            )
            for event in events:
                self.addObserver(volumeNode, event, self.refresh)
        self._show()
        self.refresh()

    def refresh(self, caller: object = None, event: object = None) -> None:
        """Judges again, soon."""
        self._timer.start()

    def close(self) -> None:
        """Stops looking."""
        self.removeObservers()
        self._timer.stop()
        self._stepper.stop()
        self._node = None

    def _judge(self) -> None:
        if self._node is None or self._node.GetScene() is None:
            self._take(((), ""))
            return
        self._stepper.start(self._steps(), self._take, self._failed)

    def _steps(self) -> Generator[None, None, tuple[tuple[Finding, ...], str]]:
        try:
            array, grid = voxelsOfNode(self._node)
        except InputError as error:
            return (), str(error)
        yield
        settings = self._settings
        findings = yield from preflight_steps(
            array, grid, settings.spacingRange(), settings.deviceKind(), most=MOST_VOXELS
        )
        return findings, ""

    def _take(self, judged: tuple[tuple[Finding, ...], str]) -> None:
        self.findings, self.refusal = judged
        self._show()

    def _failed(self, error: Exception) -> None:
        self._take(((), f"This volume cannot be judged: {error}"))

    def _show(self) -> None:
        lines = [_line(Severity.ERROR, self.refusal)] if self.refusal else []
        lines += [_line(finding.severity, finding.message) for finding in self.findings]
        self._label.text = "<br>".join(lines)
        self._label.setVisible(bool(lines))
        self._changed()


def _line(severity: Severity, message: str) -> str:
    text = f"{_SIGNS[severity]} {html.escape(message)}"
    color = _COLORS[severity]
    return f'<span style="color: {color};">{text}</span>' if color else text
