"""slicer.app, the layout manager and the file readers, with the names of qSlicerCoreApplication and its relatives."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .ctk_widgets import Property, Signal
from .pythonqt import invokable
from .qt_module import Settings, processEvents
from .scene import SLICE_VIEWS, SceneRoom


class qMRMLSliceWidget(QtWidgets.QWidget):
    """Libs/MRML/Widgets/qMRMLSliceWidget.h, over a real slice logic."""

    def __init__(self, logic: Any, name: str, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._logic = logic
        self._name = name
        self.setObjectName(f"qMRMLSliceWidget{name}")

    sliceViewName = Property(str, lambda self: self._name)

    @invokable
    def sliceLogic(self) -> Any:
        """Q_INVOKABLE."""
        return self._logic

    @invokable
    def mrmlSliceNode(self) -> Any:
        """Q_INVOKABLE."""
        return self._logic.GetSliceNode()

    @invokable
    def mrmlSliceCompositeNode(self) -> Any:
        """Q_INVOKABLE."""
        return self._logic.GetSliceCompositeNode()

    @invokable
    def fitSliceToBackground(self) -> None:
        """A slot."""
        self._logic.FitSliceToBackground(-1)


class qMRMLThreeDView(QtWidgets.QWidget):
    """Libs/MRML/Widgets/qMRMLThreeDView.h; nothing is rendered, the camera node is real."""

    def __init__(self, room: SceneRoom, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._room = room

    @invokable
    def mrmlViewNode(self) -> Any:
        """Q_INVOKABLE."""
        return self._room.viewNode

    @invokable
    def cameraNode(self) -> Any:
        """Q_INVOKABLE."""
        return self._room.cameraNode()

    @invokable
    def resetFocalPoint(self) -> None:
        """A slot: the focal point goes to the middle of what is visible, the camera moves along."""
        bounds = self._room.boundsOfVisible()
        if bounds is None:
            return
        camera = self._room.cameraNode().GetCamera()
        center = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
        shift = [to - now for to, now in zip(center, camera.GetFocalPoint(), strict=True)]
        camera.SetPosition(*[now + move for now, move in zip(camera.GetPosition(), shift, strict=True)])
        camera.SetFocalPoint(*center)

    @invokable
    def resetCamera(self, *reset: bool) -> None:
        """Q_INVOKABLE: here the focal point only."""
        self.resetFocalPoint()

    @invokable
    def forceRender(self) -> None:
        """A slot of ctkVTKAbstractView."""

    @invokable
    def scheduleRender(self) -> None:
        """A slot of ctkVTKAbstractView."""


class qMRMLThreeDWidget(QtWidgets.QWidget):
    """Libs/MRML/Widgets/qMRMLThreeDWidget.h."""

    def __init__(self, room: SceneRoom, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._view = qMRMLThreeDView(room, self)

    @invokable
    def threeDView(self) -> qMRMLThreeDView:
        """Q_INVOKABLE."""
        return self._view

    @invokable
    def mrmlViewNode(self) -> Any:
        """Q_INVOKABLE."""
        return self._view.mrmlViewNode()


class qSlicerLayoutManager(QtCore.QObject):
    """Libs/MRML/Widgets/qMRMLLayoutManager.h: three slice views and one 3D view, in every layout."""

    layoutChanged = Signal(int)

    def __init__(self, room: SceneRoom, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        self._room = room
        self._layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
        self._slices = {name: qMRMLSliceWidget(room.sliceLogics[name], name) for name in SLICE_VIEWS}
        self._threeD = qMRMLThreeDWidget(room)

    def _writeLayout(self, layout: int) -> None:
        if layout != self._layout:
            self._layout = layout
            self.layoutChanged.emit(layout)

    layout = Property(int, lambda self: self._layout, _writeLayout, notify=layoutChanged)
    threeDViewCount = Property(int, lambda self: 1)
    tableViewCount = Property(int, lambda self: 0)
    plotViewCount = Property(int, lambda self: 0)

    @invokable
    def setLayout(self, layout: int) -> None:
        """A slot."""
        self._writeLayout(layout)

    @invokable
    def mrmlScene(self) -> Any:
        """Q_INVOKABLE."""
        return self._room.scene

    @invokable
    def sliceViewNames(self) -> list[str]:
        """Q_INVOKABLE."""
        return list(self._slices)

    @invokable
    def sliceWidget(self, name: str) -> qMRMLSliceWidget | None:
        """Q_INVOKABLE."""
        return self._slices.get(name)

    @invokable
    def threeDWidget(self, which: int | str) -> qMRMLThreeDWidget | None:
        """Q_INVOKABLE, by index or by name."""
        return (
            self._threeD if which in (0, self._room.viewNode.GetLayoutName(), self._room.viewNode.GetName()) else None
        )

    @invokable
    def mrmlSliceLogics(self) -> Any:
        """Q_INVOKABLE."""
        return self._room.sliceLogicCollection

    @invokable
    def resetThreeDViews(self) -> None:
        """A slot."""
        self._threeD.threeDView().resetFocalPoint()

    @invokable
    def resetSliceViews(self) -> None:
        """A slot."""
        for widget in self._slices.values():
            widget.fitSliceToBackground()

    @invokable
    def pauseRender(self) -> None:
        """A slot."""

    @invokable
    def resumeRender(self) -> None:
        """A slot."""


class qSlicerCoreIOManager(QtCore.QObject):
    """Base/QTCore/qSlicerCoreIOManager.h: files and scenes, by MRML's own storage nodes."""

    _CLASSES: ClassVar = {
        "VolumeFile": ("vtkMRMLScalarVolumeNode", "vtkMRMLVolumeArchetypeStorageNode"),
        "SegmentationFile": ("vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode"),
        "TransformFile": ("vtkMRMLLinearTransformNode", "vtkMRMLTransformStorageNode"),
        "TableFile": ("vtkMRMLTableNode", "vtkMRMLTableStorageNode"),
    }

    def __init__(self, room: SceneRoom, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        self._room = room

    @invokable
    def fileType(self, path: str) -> str:
        """Q_INVOKABLE."""
        name = Path(path).name.lower()
        if name.endswith((".mrb", ".mrml")):
            return "SceneFile"
        if ".seg." in name:
            return "SegmentationFile"
        return "VolumeFile"

    @invokable
    def loadNodes(self, fileType: str, properties: dict, loaded: Any = None, messages: Any = None) -> bool:
        """Q_INVOKABLE."""
        path = str(properties["fileName"])
        if fileType == "SceneFile":
            return self.loadScene(path, bool(properties.get("clear", False)))
        if fileType not in self._CLASSES:
            raise NotImplementedError(f"the stand-in cannot load '{fileType}'")
        nodeClass, storageClass = self._CLASSES[fileType]
        if properties.get("labelmap"):
            nodeClass = "vtkMRMLLabelMapVolumeNode"
        scene = self._room.scene
        if not os.path.exists(path):
            return False
        node = scene.AddNewNodeByClass(nodeClass, str(properties.get("name") or Path(path).name.split(".")[0]))
        storage = scene.AddNewNodeByClass(storageClass)
        storage.SetFileName(path)
        node.SetAndObserveStorageNodeID(storage.GetID())
        if not storage.ReadData(node):
            scene.RemoveNode(storage)
            scene.RemoveNode(node)
            return False
        node.CreateDefaultDisplayNodes()
        if properties.get("show", True) and node.IsA("vtkMRMLScalarVolumeNode"):
            self._show(node)
        if loaded is not None:
            loaded.AddItem(node)
        return True

    def _show(self, node: Any) -> None:
        selection = self._room.applicationLogic.GetSelectionNode()
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            selection.SetActiveLabelVolumeID(node.GetID())
        else:
            selection.SetActiveVolumeID(node.GetID())
        self._room.applicationLogic.PropagateVolumeSelection()

    @invokable
    def loadScene(self, path: str, clear: bool = True, messages: Any = None) -> bool:
        """Q_INVOKABLE: .mrml or .mrb."""
        scene = self._room.scene
        if path.lower().endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear, messages))
        scene.SetURL(path)
        return bool(scene.Connect(messages) if clear else scene.Import(messages))

    @invokable
    def saveScene(self, path: str, screenShot: Any = None, messages: Any = None) -> bool:
        """Q_INVOKABLE: .mrb with all data in it."""
        return bool(self._room.scene.WriteToMRB(path, None, messages))


class qSlicerModuleFactoryManager(QtCore.QObject):
    """Base/QTGUI/qSlicerModuleFactoryManager.h."""

    @invokable
    def loadedModuleNames(self) -> list[str]:
        """Q_INVOKABLE."""
        return list(self.parent()._modules)


class qSlicerModuleManager(QtCore.QObject):
    """Base/QTCore/qSlicerModuleManager.h."""

    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        self._modules: dict[str, QtCore.QObject] = {}
        self._factory = qSlicerModuleFactoryManager(self)

    @invokable
    def module(self, name: str) -> QtCore.QObject | None:
        """Q_INVOKABLE."""
        return self._modules.get(name)

    @invokable
    def modulesNames(self) -> list[str]:
        """Q_INVOKABLE."""
        return list(self._modules)

    @invokable
    def factoryManager(self) -> qSlicerModuleFactoryManager:
        """Q_INVOKABLE."""
        return self._factory


class qSlicerModuleSelectorToolBar(QtWidgets.QToolBar):
    """Base/QTGUI/qSlicerModuleSelectorToolBar.h: which module is open."""

    moduleSelected = Signal(str)

    def __init__(self, manager: qSlicerModuleManager, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._manager = manager
        self._current: QtCore.QObject | None = None

    selectedModule = Property(str, lambda self: self._current.name if self._current is not None else "")

    @invokable
    def selectModule(self, name: str) -> None:
        """A slot: leaves one module, enters the other."""
        module = self._manager.module(name)
        if module is None or module is self._current:
            return
        if self._current is not None:
            self._current._leave()
        self._current = module
        module._enter()
        self.moduleSelected.emit(name)

    def _leave(self) -> None:
        if self._current is not None:
            self._current._leave()
            self._current = None


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """The main window: a module panel and nothing else."""

    def __init__(self, manager: qSlicerModuleManager):
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.resize(500, 900)
        self._selector = qSlicerModuleSelectorToolBar(manager, self)

    @invokable
    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        """Q_INVOKABLE."""
        return self._selector


class qSlicerApplication(QtCore.QObject):
    """Base/QTCore/qSlicerCoreApplication.h and Base/QTGUI/qSlicerApplication.h."""

    aboutToQuit = Signal()
    startupCompleted = Signal()
    slicerSignals: ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": "_sceneChanged"}
    _sceneChanged = Signal(object)

    def __init__(self, room: SceneRoom, folder: Path, version: str = "5.12.3", withMainWindow: bool = True):
        super().__init__()
        self._room = room
        self._version = version
        self._testing = False
        self._temporaryPath = str(folder)
        self._settings = Settings()
        self._giveCache(folder / "cache")
        self._layoutManager = qSlicerLayoutManager(room, self)
        self._moduleManager = qSlicerModuleManager(self)
        self._ioManager = qSlicerCoreIOManager(room, self)
        self._mainWindow = qSlicerMainWindow(self._moduleManager) if withMainWindow else None

    def _giveCache(self, folder: Path) -> None:
        """Where .mrb files are unpacked; as qSlicerCoreApplicationPrivate::initDataIO."""
        folder.mkdir(exist_ok=True)
        cache, dataIO = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        cache.SetRemoteCacheDirectory(str(folder))
        dataIO.SetCacheManager(cache)
        self._room.scene.SetCacheManager(cache)
        self._room.scene.SetDataIOManager(dataIO)
        self._cache = (cache, dataIO)

    def _setTemporaryPath(self, path: str) -> None:
        self._temporaryPath = path

    def _versionPart(index: int) -> Any:
        return lambda self: int(self._version.split(".")[index])

    applicationName = Property(str, lambda self: "Slicer")
    mainApplicationName = Property(str, lambda self: "Slicer")
    applicationVersion = Property(str, lambda self: self._version)
    majorVersion = Property(int, _versionPart(0))
    minorVersion = Property(int, _versionPart(1))
    temporaryPath = Property(str, lambda self: self._temporaryPath, _setTemporaryPath)
    cachePath = Property(str, lambda self: str(Path(self._temporaryPath) / "cache"))
    slicerHome = Property(str, lambda self: str(Path(sys.prefix)))
    os = Property(str, lambda self: {"linux": "linux", "darwin": "macosx", "win32": "win"}[sys.platform])
    platform = Property(str, lambda self: f"{self.os}-amd64")
    revision = Property(str, lambda self: "34000")
    isInstalled = Property(bool, lambda self: True)
    documentationBaseUrl = Property(str, lambda self: "https://slicer.readthedocs.io/en/latest/")
    extensionsInstallPath = Property(str, lambda self: str(Path(self._temporaryPath) / "Extensions"))

    @invokable
    def testingEnabled(self) -> bool:
        """A static function of the class's decorators."""
        return self._testing

    @invokable
    def mrmlScene(self) -> Any:
        """Q_INVOKABLE."""
        return self._room.scene

    @invokable
    def applicationLogic(self) -> Any:
        """Q_INVOKABLE."""
        return self._room.applicationLogic

    @invokable
    def moduleLogic(self, name: str) -> Any:
        """Q_INVOKABLE."""
        return self._room.logics.get(name)

    @invokable
    def layoutManager(self) -> qSlicerLayoutManager | None:
        """Q_INVOKABLE; None without a main window."""
        return self._layoutManager if self._mainWindow is not None else None

    @invokable
    def moduleManager(self) -> qSlicerModuleManager:
        """Q_INVOKABLE."""
        return self._moduleManager

    @invokable
    def coreIOManager(self) -> qSlicerCoreIOManager:
        """Q_INVOKABLE."""
        return self._ioManager

    @invokable
    def ioManager(self) -> qSlicerCoreIOManager:
        """Q_INVOKABLE."""
        return self._ioManager

    @invokable
    def settings(self) -> Settings:
        """Q_INVOKABLE."""
        return self._settings

    @invokable
    def userSettings(self) -> Settings:
        """Q_INVOKABLE."""
        return self._settings

    @invokable
    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        """Q_INVOKABLE."""
        return QtCore.QProcessEnvironment.systemEnvironment()

    @invokable
    def moduleDocumentationUrl(self, name: str) -> str:
        """Q_INVOKABLE."""
        return f"https://slicer.readthedocs.io/en/latest/user_guide/modules/{name.lower()}.html"

    @invokable
    def pauseRender(self) -> None:
        """A slot."""

    @invokable
    def resumeRender(self) -> None:
        """A slot."""

    @invokable
    def processEvents(self, *flags: Any) -> None:
        """Of QCoreApplication."""
        processEvents(*flags)

    @invokable
    def topLevelWidgets(self) -> list[QtWidgets.QWidget]:
        """Of QApplication."""
        return QtWidgets.QApplication.topLevelWidgets()

    @invokable
    def setOverrideCursor(self, cursor: Any) -> None:
        """Of QGuiApplication."""
        QtWidgets.QApplication.setOverrideCursor(cursor)

    @invokable
    def restoreOverrideCursor(self) -> None:
        """Of QGuiApplication."""
        QtWidgets.QApplication.restoreOverrideCursor()

    @invokable
    def clipboard(self) -> QtGui.QClipboard:
        """Of QGuiApplication."""
        return QtWidgets.QApplication.clipboard()

    @invokable
    def translate(self, context: str, text: str) -> str:
        """Of QCoreApplication; English only."""
        return text

    @invokable
    def exit(self, code: int = 0) -> None:
        """Of QCoreApplication; see SlicerStandin.quit for what happens then."""
        self.setProperty("standinExitCode", code)

    @invokable
    def openUrl(self, url: str) -> None:
        """A slot."""
