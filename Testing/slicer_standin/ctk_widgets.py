"""The widgets of ``ctk``, with the properties, slots and invokable methods of their headers in commontk/CTK.

What a header declares without Q_INVOKABLE, slot or property is not there for Slicer's Python, and not here.
"""

from __future__ import annotations

import types
from typing import Any, ClassVar

import shiboken6
from PySide6 import QtCore, QtWidgets

from . import dialogs, qt_module
from .pythonqt import invokable, register

Property, Signal = QtCore.Property, QtCore.Signal


def stored(type_: type, name: str, default: Any, apply: str | None = None) -> Property:
    """A property that is kept, and handed to the method ``apply``."""

    def read(self: Any) -> Any:
        return self.__dict__.get(f"_{name}", default)

    def write(self: Any, value: Any) -> None:
        self.__dict__[f"_{name}"] = value
        if apply:
            getattr(self, apply)(value)

    return Property(type_, read, write)


class _Collapsing:
    """The rule for children: hidden while collapsed; opened again, those are shown that nobody hid by name."""

    _forcing = False

    def _isOpen(self) -> bool:
        return self.isChecked()

    def _apply(self, child: QtWidgets.QWidget) -> None:
        wanted = child.property("visibilityToParent")
        visible = self._isOpen() and wanted is not False
        explicit = QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide
        self._forcing = True
        if visible == child.isHidden():
            child.setVisible(visible)
            if wanted is not False:
                child.setAttribute(explicit, False)
        self._forcing = False

    def _applyToAll(self) -> None:
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly):
            self._apply(child)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        """Children that come while it is collapsed are hidden, too."""
        child = event.child()
        if event.added() and child.isWidgetType():
            if child.testAttribute(QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide) and child.isHidden():
                child.setProperty("visibilityToParent", False)
            child.installEventFilter(self)
            if not self._isOpen():
                self._apply(child)
        super().childEvent(event)

    def eventFilter(self, child: QtCore.QObject, event: QtCore.QEvent) -> bool:
        """Remembers who was shown or hidden by name."""
        if not self._forcing and isinstance(child, QtWidgets.QWidget) and shiboken6.isValid(self):
            if event.type() == QtCore.QEvent.Type.ShowToParent:
                child.setProperty("visibilityToParent", True)
                if not self._isOpen():
                    self._apply(child)
            elif event.type() == QtCore.QEvent.Type.HideToParent:
                child.setProperty("visibilityToParent", False)
        return False

    def showEvent(self, event: Any) -> None:
        """What Qt has just shown along with a collapsed parent goes again."""
        super().showEvent(event)
        if not self._isOpen():
            self._applyToAll()

    def setVisible(self, visible: bool) -> None:
        """Children follow their parent; that is not by name."""
        self._forcing = True
        super().setVisible(visible)
        self._forcing = False


class ctkCollapsibleButton(_Collapsing, QtWidgets.QAbstractButton):
    """Libs/Widgets/ctkCollapsibleButton.h: a checkable button over its content; checked means open."""

    contentsCollapsed = Signal(bool)
    flat = stored(bool, "flat", False)
    contentsLineWidth = stored(int, "contentsLineWidth", 1)
    collapsedHeight = stored(int, "collapsedHeight", 14)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._onToggled)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Minimum, QtWidgets.QSizePolicy.Policy.Preferred)
        self.setContentsMargins(0, self._headerHeight(), 0, 0)

    def _headerHeight(self) -> int:
        return self.fontMetrics().height() + 10

    def _onToggled(self, checked: bool) -> None:
        self._applyToAll()
        self.updateGeometry()
        self.contentsCollapsed.emit(not checked)

    collapsed = Property(
        bool,
        lambda self: not self.isChecked(),
        lambda self, collapsed: self.setChecked(not collapsed),
        notify=contentsCollapsed,
    )

    def hitButton(self, position: QtCore.QPoint) -> bool:
        """Only the header reacts to the mouse."""
        return position.y() <= self._headerHeight()

    def minimumSizeHint(self) -> QtCore.QSize:
        """The header, and the content if open."""
        hint = QtCore.QSize(self.fontMetrics().horizontalAdvance(self.text()) + 40, self._headerHeight())
        if self.layout() is not None and self.isChecked():
            hint = hint.expandedTo(self.layout().totalMinimumSize())
        return hint

    def sizeHint(self) -> QtCore.QSize:
        """The header, and the content if open."""
        hint = self.minimumSizeHint()
        if self.layout() is not None and self.isChecked():
            hint = hint.expandedTo(self.layout().totalSizeHint())
        return hint

    def paintEvent(self, event: Any) -> None:
        """A button with an arrow."""
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self._headerHeight())
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = (
            "\N{BLACK DOWN-POINTING SMALL TRIANGLE}" if self.isChecked() else "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}"
        )
        area = option.rect.adjusted(8, 0, -8, 0)
        flags = QtCore.Qt.AlignmentFlag.AlignVCenter | QtCore.Qt.AlignmentFlag.AlignLeft
        painter.drawText(area, int(flags.value) | 0x0800, f"{arrow}  {self.text()}")  # 0x0800: TextShowMnemonic


class ctkCollapsibleGroupBox(_Collapsing, QtWidgets.QGroupBox):
    """Libs/Widgets/ctkCollapsibleGroupBox.h: a group box that is open while checked."""

    collapsedHeight = stored(int, "collapsedHeight", 14)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda checked: self._applyToAll())

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))


class _Number(QtWidgets.QWidget):
    """What the two number widgets share: a spin box that holds the value."""

    valueChanged = Signal(float)
    decimalsChanged = Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._spin = QtWidgets.QDoubleSpinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._spin)
        self._spin.valueChanged.connect(self.valueChanged)

    def _write(name: str) -> Any:
        return lambda self, value: getattr(self._spin, name)(value)

    def _writeDecimals(self, decimals: int) -> None:
        if decimals != self._spin.decimals():
            self._spin.setDecimals(decimals)
            self.decimalsChanged.emit(decimals)

    def _writeMinimum(self, value: float) -> None:
        self._spin.setMinimum(max(value, -1e12))

    def _writeMaximum(self, value: float) -> None:
        self._spin.setMaximum(min(value, 1e12))

    value = Property(float, lambda self: self._spin.value(), _write("setValue"))
    minimum = Property(float, lambda self: self._spin.minimum(), _writeMinimum)
    maximum = Property(float, lambda self: self._spin.maximum(), _writeMaximum)
    singleStep = Property(float, lambda self: self._spin.singleStep(), _write("setSingleStep"))
    decimals = Property(int, lambda self: self._spin.decimals(), _writeDecimals)
    prefix = Property(str, lambda self: self._spin.prefix(), _write("setPrefix"))
    suffix = Property(str, lambda self: self._spin.suffix(), _write("setSuffix"))
    invertedControls = stored(bool, "invertedControls", False)

    @invokable
    def setValue(self, value: float) -> None:
        """A slot in both."""
        self._spin.setValue(value)

    @invokable
    def setDecimals(self, decimals: int) -> None:
        """A slot in both."""
        self._writeDecimals(decimals)


class ctkDoubleSpinBox(_Number):
    """Libs/Widgets/ctkDoubleSpinBox.h; its second ``valueChanged(QString)`` makes the bare attribute ambiguous."""

    editingFinished = Signal()
    slicerSignals: ClassVar = {"valueChanged(double)": "valueChanged", "valueChanged(QString)": "_textChanged"}
    _textChanged = Signal(str)
    frame = stored(bool, "frame", True)
    cleanText = Property(str, lambda self: self._spin.cleanText())

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._spin.editingFinished.connect(self.editingFinished)
        self._spin.textChanged.connect(self._textChanged)

    readOnly = Property(
        bool, lambda self: self._spin.isReadOnly(), lambda self, readOnly: self._spin.setReadOnly(readOnly)
    )

    @invokable
    def setReadOnly(self, readOnly: bool) -> None:
        """A slot."""
        self._spin.setReadOnly(readOnly)

    @invokable
    def stepUp(self) -> None:
        """A slot."""
        self._spin.stepUp()

    @invokable
    def stepDown(self) -> None:
        """A slot."""
        self._spin.stepDown()


class ctkSliderWidget(_Number):
    """Libs/Widgets/ctkSliderWidget.h: a slider with a spin box."""

    valueIsChanging = Signal(float)
    tracking = stored(bool, "tracking", True)
    pageStep = stored(float, "pageStep", 10.0)
    tickInterval = stored(float, "tickInterval", 0.0)
    popupSlider = stored(bool, "popupSlider", False)
    invertedAppearance = stored(bool, "invertedAppearance", False)

    _STEPS = 1000

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._slider.setRange(0, self._STEPS)
        self.layout().insertWidget(0, self._slider, 1)
        self._slider.sliderMoved.connect(self._moved)
        self._spin.valueChanged.connect(self._follow)

    def _moved(self, position: int) -> None:
        span = self._spin.maximum() - self._spin.minimum()
        self._spin.setValue(self._spin.minimum() + span * position / self._STEPS)

    def _follow(self, value: float) -> None:
        span = self._spin.maximum() - self._spin.minimum()
        self._slider.setValue(round(self._STEPS * (value - self._spin.minimum()) / span) if span else 0)

    spinBoxVisible = Property(
        bool, lambda self: not self._spin.isHidden(), lambda self, visible: self._spin.setVisible(visible)
    )

    @invokable
    def setSpinBoxVisible(self, visible: bool) -> None:
        """A slot."""
        self._spin.setVisible(visible)

    @invokable
    def reset(self) -> None:
        """A slot."""
        self._spin.setValue(self._spin.minimum())


class ctkPathLineEdit(QtWidgets.QWidget):
    """Libs/Widgets/ctkPathLineEdit.h: a path with a browse button, which asks the test."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    label = stored(str, "label", "")
    settingKey = stored(str, "settingKey", "")
    nameFilters = stored("QStringList", "nameFilters", [])
    minimumContentsLength = stored(int, "minimumContentsLength", 0)
    showHistoryButton = stored(bool, "showHistoryButton", True)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._box = QtWidgets.QComboBox(self)
        self._box.setEditable(True)
        self._browse = QtWidgets.QToolButton(self)
        self._browse.setText("…")
        self._browse.clicked.connect(self.browse)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._box, 1)
        row.addWidget(self._browse)
        self._box.editTextChanged.connect(self.currentPathChanged)

    def _writePath(self, path: str) -> None:
        self._box.setEditText(path)

    currentPath = Property(str, lambda self: self._box.currentText(), _writePath)
    showBrowseButton = Property(
        bool, lambda self: not self._browse.isHidden(), lambda self, show: self._browse.setVisible(show)
    )

    @invokable
    def setCurrentPath(self, path: str) -> None:
        """A slot."""
        self._writePath(path)

    @invokable
    def addCurrentPathToHistory(self) -> None:
        """A slot."""
        if self._box.findText(self._box.currentText()) < 0:
            self._box.addItem(self._box.currentText())

    @invokable
    def comboBox(self) -> QtWidgets.QComboBox:
        """Q_INVOKABLE."""
        return self._box

    @invokable
    def browse(self) -> None:
        """A slot."""
        path = dialogs.conversation.ask(dialogs.Message("file", self.label, self.currentPath), "")
        if path:
            self._writePath(path)


class ctkMessageBox(QtWidgets.QMessageBox):
    """Libs/Widgets/ctkMessageBox.h."""

    dontShowAgain = stored(bool, "dontShowAgain", False)
    dontShowAgainVisible = stored(bool, "dontShowAgainVisible", False)
    dontShowAgainSettingsKey = stored(str, "dontShowAgainSettingsKey", "")


_PLAIN = (ctkCollapsibleButton, ctkCollapsibleGroupBox, ctkDoubleSpinBox, ctkSliderWidget, ctkPathLineEdit)


def make() -> types.ModuleType:
    """The module ``ctk``, the same for the whole process."""
    made = types.ModuleType("ctk", "CTK's widgets, as far as the stand-in has them.")
    for native in _PLAIN:
        setattr(made, native.__name__, register(native))
        qt_module.customWidgets[native.__name__] = native
    made.ctkMessageBox = register(ctkMessageBox, dialogs.both(dialogs.execMessageBox))

    def missing(name: str) -> Any:
        raise AttributeError(f"module 'ctk' of the stand-in has no attribute '{name}': write it if Slicer has it")

    made.__getattr__ = missing
    return made
