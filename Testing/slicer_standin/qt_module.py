"""The module ``qt``."""

from __future__ import annotations

import types
import xml.etree.ElementTree as ElementTree
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from . import dialogs
from .pythonqt import invokable, problems, register, unwrap, wrapperClass
from .pythonqt.names import CLASSES
from .pythonqt.signals import connect

customWidgets: dict[str, type] = {}

# Timers of QTimer.singleShot live as long as the application, as slicerqt.py has it.
_singleShots: set[QtCore.QTimer] = set()


class Settings(QtCore.QSettings):
    """QSettings that answers as after a restart, when an INI file was read: numbers and booleans are strings."""

    @invokable
    def value(self, key: str, defaultValue: Any = None) -> Any:
        """A list of one comes back as its only item, a longer one as a tuple."""
        if not self.contains(key):
            return defaultValue
        return self._asRead(super().value(key))

    def _asRead(self, value: Any) -> Any:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return str(value)
        if isinstance(value, (list, tuple)):
            items = [self._asRead(item) for item in value]
            return None if not items else items[0] if len(items) == 1 else tuple(items)
        return value


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files with the custom widgets of the stand-in, and makes the connections that Qt alone cannot."""

    def createWidget(
        self, className: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        """As QUiLoader; an unknown class is an error instead of a plain QWidget."""
        if className in customWidgets:
            widget = customWidgets[className](parent)
            widget.setObjectName(name)
            return widget
        if className not in self.availableWidgets():
            problems.add(f"The .ui file wants '{className}', which the stand-in does not have")
        return super().createWidget(className, parent, name)

    @invokable
    def load(self, device: QtCore.QIODevice, parentWidget: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """Loads the file behind ``device``."""
        text = bytes(device.readAll().data())
        root = ElementTree.fromstring(text)
        self._check(root)
        connections = root.find("connections")
        custom = []
        for connection in list(connections) if connections is not None else []:
            parts = [connection.findtext(key) for key in ("sender", "signal", "receiver", "slot")]
            if "vtk" in parts[1]:
                custom.append(parts)
                connections.remove(connection)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer, parentWidget)
        if widget is not None:
            for parts in custom:
                self._connect(widget, *parts)
        return widget

    @staticmethod
    def _check(root: ElementTree.Element) -> None:
        for tag in ("enum", "set"):
            for element in root.iter(tag):
                for value in (element.text or "").split("|"):
                    if value.count("::") > 1:
                        problems.add(f"The .ui file names '{value}' as Qt 6 does: Qt 5 reads one '::' only")

    @staticmethod
    def _connect(root: QtWidgets.QWidget, sender: str, signal: str, receiver: str, slot: str) -> None:
        ends = [
            root if root.objectName() == name else root.findChild(QtWidgets.QWidget, name)
            for name in (sender, receiver)
        ]
        method = getattr(ends[1], slot[: slot.index("(")], None)
        if ends[0] is None or not getattr(method, "isInvokable", False):
            problems.add(f"The connection {sender}.{signal} → {receiver}.{slot} of the .ui file cannot be made")
            return
        connect(ends[0], signal, lambda node: method(node))


def _singleShot(msec: int, receiverOrCallable: Any, member: str | None = None) -> None:
    if not callable(receiverOrCallable):
        raise NotImplementedError("The stand-in's QTimer.singleShot takes Python functions only")
    timer = QtCore.QTimer()
    timer.setSingleShot(True)
    _singleShots.add(timer)
    connect(timer, "timeout()", receiverOrCallable)
    timer.timeout.connect(lambda: _singleShots.discard(timer))
    timer.start(unwrap(msec))


def processEvents(*flags: Any) -> None:
    """One turn of the event loop."""
    QtCore.QEventLoop().processEvents(*[unwrap(flag) for flag in flags])


def stopSingleShots() -> None:
    """Forgets the timers that have not fired."""
    for timer in _singleShots:
        if shiboken6.isValid(timer):
            timer.stop()
    _singleShots.clear()


def _lookUp(name: str) -> type:
    for module in (QtCore, QtGui, QtWidgets):
        if hasattr(module, name):
            return getattr(module, name)
    raise KeyError(name)


def _register(name: str, namespace: dict[str, Any]) -> None:
    register(_lookUp(name), namespace)


def make() -> types.ModuleType:
    """The module, the same for the whole process."""
    _register("QTimer", {"singleShot": staticmethod(_singleShot)})
    _register("QMessageBox", {**dialogs.messageBoxStatics(), **dialogs.both(dialogs.execMessageBox)})
    _register("QFileDialog", {**dialogs.fileDialogStatics(), **dialogs.both(dialogs.execDialog)})
    _register("QInputDialog", {**dialogs.inputDialogStatics(), **dialogs.both(dialogs.execDialog)})
    _register("QDialog", dialogs.both(dialogs.execDialog))
    _register("QProgressDialog", dialogs.both(dialogs.execDialog))
    _register("QMenu", dialogs.both(dialogs.execMenu))
    for name in ("QCoreApplication", "QGuiApplication", "QApplication"):
        _register(name, {"processEvents": staticmethod(processEvents)})
    _register("QDesktopServices", {"openUrl": staticmethod(_openUrl)})
    made = types.ModuleType("qt", "PythonQt's Qt, as far as the stand-in has it.")
    for name in CLASSES - {"QSettings", "QUiLoader"}:
        setattr(made, name, wrapperClass(_lookUp(name)))
    made.QSettings = register(Settings, name="QSettings")
    made.QUiLoader = register(UiLoader, name="QUiLoader")

    def missing(name: str) -> Any:
        why = (
            "a plain Python signal class is safer"
            if name == "Signal"
            else "add it to pythonqt/names.py if Slicer has it"
        )
        raise AttributeError(f"module 'qt' of the stand-in has no attribute '{name}': {why}")

    made.__getattr__ = missing
    return made


def _openUrl(url: Any) -> bool:
    dialogs.conversation.messages.append(dialogs.Message("url", "", unwrap(url).toString()))
    return True
