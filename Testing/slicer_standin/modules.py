"""Modules of Slicer as ``slicer.modules`` has them: scripted ones, those in C++ by their logic, the Segment Editor."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .ctk_widgets import Property
from .mrml_widgets import qMRMLSegmentEditorWidget, qMRMLWidget
from .pythonqt import invokable, problems, wrap
from .scene import SceneRoom


class qSlicerCoreModule(QtCore.QObject):
    """Base/QTCore/qSlicerAbstractCoreModule.h."""

    def __init__(self, name: str, room: SceneRoom):
        super().__init__()
        self._name = name
        self._room = room

    name = Property(str, lambda self: self._name)

    @invokable
    def logic(self) -> Any:
        """Q_INVOKABLE."""
        return self._room.logics.get(self._name)

    @invokable
    def mrmlScene(self) -> Any:
        """Q_INVOKABLE."""
        return self._room.scene

    @invokable
    def widgetRepresentation(self) -> QtWidgets.QWidget | None:
        """A slot; modules in C++ have none here."""
        return None

    def _enter(self) -> None:
        pass

    def _leave(self) -> None:
        pass


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """Base/QTGUI/qSlicerScriptedLoadableModuleWidget.h: the parent of a Python widget."""

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        QtWidgets.QVBoxLayout(self)
        self._entered = False
        self._python: Any = None

    isEntered = Property(bool, lambda self: self._entered)

    @invokable
    def self(self) -> Any:
        """Q_INVOKABLE: the Python object."""
        return self._python

    @invokable
    def enter(self) -> None:
        """Q_INVOKABLE."""
        self._entered = True
        self._call("enter")

    @invokable
    def exit(self) -> None:
        """Q_INVOKABLE."""
        self._entered = False
        self._call("exit")

    def _call(self, name: str) -> None:
        """As PythonQt calls Python: an exception is printed, the caller goes on."""
        method = getattr(self._python, name, None)
        if method is None:
            return
        try:
            method()
        except Exception:
            problems.addException(f"{type(self._python).__name__}.{name}")


class qSlicerScriptedLoadableModule(qSlicerCoreModule):
    """Base/QTGUI/qSlicerScriptedLoadableModule.h."""

    def __init__(self, name: str, path: Path, room: SceneRoom):
        super().__init__(name, room)
        self._path = str(path)
        self._values: dict[str, Any] = {}
        self._python: Any = None
        self._widget: qSlicerScriptedLoadableModuleWidget | None = None
        self._makeWidget: Any = None

    def _value(type_: Any, key: str, default: Any) -> Property:
        return Property(
            type_,
            lambda self: self._values.get(key, default),
            lambda self, value: self._values.__setitem__(key, value),
        )

    title = _value(str, "title", "")
    categories = _value("QStringList", "categories", [])
    contributors = _value("QStringList", "contributors", [])
    dependencies = _value("QStringList", "dependencies", [])
    associatedNodeTypes = _value("QStringList", "associatedNodeTypes", [])
    helpText = _value(str, "helpText", "")
    acknowledgementText = _value(str, "acknowledgementText", "")
    icon = _value(QtGui.QIcon, "icon", QtGui.QIcon())
    hidden = _value(bool, "hidden", False)
    index = _value(int, "index", -1)
    path = Property(str, lambda self: self._path)
    moduleName = Property(str, lambda self: self._name)

    @invokable
    def widgetRepresentation(self) -> QtWidgets.QWidget | None:
        """A slot: the widget, made and set up when it is first asked for."""
        if self._widget is None and self._makeWidget is not None:
            widget = qSlicerScriptedLoadableModuleWidget()
            widget.setObjectName(f"{self._name}ModuleWidget")
            widget.setMRMLScene(self._room.scene)
            self._widget = widget
            widget._python = self._makeWidget(wrap(widget))
            setattr(slicer.modules, f"{self._name}Widget", widget._python)
            widget._call("setup")
        return self._widget

    def _enter(self) -> None:
        widget = self.widgetRepresentation()
        window = QtWidgets.QApplication.topLevelWidgets()
        main = next((known for known in window if known.objectName() == "qSlicerMainWindow"), None)
        if main is not None:
            area = main.centralWidget()
            if not isinstance(area, QtWidgets.QScrollArea):
                area = QtWidgets.QScrollArea(main)
                area.setWidgetResizable(True)
                main.setCentralWidget(area)
            if area.widget() is not None:
                area.takeWidget()
            area.setWidget(widget)
            main.show()
        widget.show()
        widget.enter()

    def _leave(self) -> None:
        if self._widget is not None and self._widget._entered:
            self._widget.exit()
            self._widget.hide()


class SegmentEditor:
    """What slicer.modules.segmenteditor.widgetRepresentation().self() gives, in the little that others use of it."""

    def __init__(self, parent: Any):
        self.parent = parent
        self.parameterSetNode = None
        self.editor = wrap(qMRMLSegmentEditorWidget())
        self.layout = parent.layout()
        self.layout.addWidget(self.editor)

    def setup(self) -> None:
        """Connects the editor with its node."""
        self.selectParameterNode()
        self.editor.setMRMLScene(slicer.mrmlScene)

    def selectParameterNode(self) -> None:
        """The one vtkMRMLSegmentEditorNode of the scene, made if it is not there."""
        node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("SegmentEditor")
            node = slicer.mrmlScene.AddNode(node)
        if node is not self.parameterSetNode:
            self.parameterSetNode = node
            self.editor.setMRMLSegmentEditorNode(node)

    def enter(self) -> None:
        """Takes the first segmentation, or makes one, where nothing was chosen."""
        self.selectParameterNode()
        if not self.editor.segmentationNodeID():
            node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
            self.editor.setSegmentationNode(node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"))

    def exit(self) -> None:
        """Ends the effect."""
        self.editor.setActiveEffectByName("")


def loadPythonModule(path: Path, name: str) -> Any:
    """Runs a module file as the application does at its start: folder on sys.path, module in sys.modules."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


__all__ = [
    "SegmentEditor",
    "loadPythonModule",
    "qSlicerCoreModule",
    "qSlicerScriptedLoadableModule",
    "qSlicerScriptedLoadableModuleWidget",
]
