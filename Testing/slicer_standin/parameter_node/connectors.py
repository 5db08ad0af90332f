"""Which widget can stand for which type, and what its range and choices become; anything else is a RuntimeError."""

from __future__ import annotations

import enum
import pathlib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer

from .validators import Choice, Maximum, Minimum, WithinRange


@dataclass
class Decimals:
    """Annotation: digits behind the point."""

    value: int


@dataclass
class SingleStep:
    """Annotation: the step of spin boxes and sliders."""

    value: float


class Connector:
    """One widget bound to one parameter."""

    def __init__(self, signal: Any, read: Callable[[], Any], write: Callable[[Any], None]):
        self._signal = signal
        self.read, self.write = read, write
        self._callback: Callable[[], None] | None = None

    def onChanged(self, callback: Callable[[], None] | None) -> None:
        """Calls ``callback`` when the user changes the widget; None ends that."""
        self._callback = callback
        if self._signal is None:
            return
        if callback is None:
            self._signal.disconnect(self._changed)
        else:
            self._signal.connect(self._changed)

    def _changed(self) -> None:
        if self._callback:
            self._callback()


def createConnector(widget: Any, hint: Any) -> Connector:
    """The connector of a widget for a parameter declared as ``hint``."""
    import ctk
    import qt

    annotated = typing.get_origin(hint) is typing.Annotated
    plain, *notes = typing.get_args(hint) if annotated else (hint,)
    kind = type(widget)
    if plain is bool and kind is qt.QCheckBox:
        return _attribute(widget, widget.stateChanged, "checked")
    if plain is bool and kind is qt.QPushButton:
        widget.checkable = True
        return _attribute(widget, widget.toggled, "checked")
    if plain is int and kind in (qt.QSlider, qt.QSpinBox):
        low, high = _bounds(notes, -(2**31), 2**31 - 1)
        widget.setMinimum(low)
        widget.setMaximum(high)
        _steps(widget, notes, withDecimals=False)
        return _attribute(widget, widget.valueChanged, "value")
    if plain in (int, float) and kind in (qt.QDoubleSpinBox, ctk.ctkSliderWidget, ctk.ctkDoubleSpinBox):
        return _number(widget, plain, notes, needsRange=kind is ctk.ctkSliderWidget)
    if kind is qt.QComboBox and plain in (int, float, str, bool):
        choice = next((note for note in notes if isinstance(note, Choice)), None)
        if choice is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        return _choices(widget, [(str(value), value) for value in choice.choices], keep=False)
    if kind is qt.QComboBox and isinstance(plain, type) and issubclass(plain, enum.Enum):
        label = getattr(plain, "label", lambda value: value.name)
        return _choices(widget, [(label(value), value) for value in plain], keep=True)
    if plain is str and kind is qt.QLineEdit:
        return Connector(widget.textChanged, lambda: widget.text, lambda value: _writeText(widget, value))
    if plain is str and kind is qt.QLabel:
        return _attribute(widget, None, "text")
    if plain is str and kind is qt.QTextEdit:
        return Connector(widget.textChanged, widget.toPlainText, widget.setPlainText)
    if isinstance(plain, type) and issubclass(plain, pathlib.PurePath) and kind is ctk.ctkPathLineEdit:
        return Connector(
            widget.currentPathChanged,
            lambda: plain(widget.currentPath),
            lambda value: setattr(widget, "currentPath", str(value)),
        )
    if isinstance(plain, type) and issubclass(plain, slicer.vtkMRMLNode) and kind is slicer.qMRMLNodeComboBox:
        widget.nodeTypes = [plain.__name__]
        return Connector(widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{hint}' to widget type '{kind}'.")


def _attribute(widget: Any, signal: Any, name: str) -> Connector:
    return Connector(signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, value))


def _writeText(widget: Any, value: str) -> None:
    if value != widget.text:
        widget.text = value


def _bounds(notes: list, low: float, high: float) -> tuple:
    for note in notes:
        if isinstance(note, WithinRange):
            low, high = note.minimum, note.maximum
        elif isinstance(note, Minimum):
            low = note.minimum
        elif isinstance(note, Maximum):
            high = note.maximum
    return low, high


def _steps(widget: Any, notes: list, withDecimals: bool = True) -> None:
    for note in notes:
        if isinstance(note, Decimals) and withDecimals:
            widget.decimals = note.value
        elif isinstance(note, SingleStep):
            widget.singleStep = note.value


def _number(widget: Any, plain: type, notes: list, needsRange: bool) -> Connector:
    low, high = _bounds(notes, float("-inf"), float("inf"))
    if needsRange and float("inf") in (abs(low), abs(high)):
        raise RuntimeError("Cannot have a connection to ctkSliderWidget where the float types is unbounded.")
    _steps(widget, notes)
    if plain is int:
        widget.decimals = 0
    widget.minimum = low
    widget.maximum = high
    return Connector(
        widget.valueChanged, lambda: plain(widget.value), lambda value: setattr(widget, "value", plain(value))
    )


def _choices(widget: Any, entries: list[tuple[str, Any]], keep: bool) -> Connector:
    def read() -> Any:
        return entries[widget.currentIndex][1]

    def write(value: Any) -> None:
        for index, entry in enumerate(entries):
            if entry[1] == value:
                widget.currentIndex = index
                return
        raise ValueError(f"Unable to find value {value} in choices {entries}")

    # Slicer reads the enum's selection before it fills the box: items in the .ui file beyond the enum are an error.
    selected = read() if keep else None
    widget.clear()
    for text, _ in entries:
        widget.addItem(text)
    if keep:
        write(selected)
    return Connector(widget.currentIndexChanged, read, write)
