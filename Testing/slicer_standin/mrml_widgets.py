"""Slicer's MRML widgets over the real scene, after the headers in Libs/MRML/Widgets and Base/QTGUI."""

from __future__ import annotations

from typing import Any, ClassVar

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from . import dialogs
from .ctk_widgets import Property, Signal, stored
from .pythonqt import invokable


class qMRMLWidget(QtWidgets.QWidget):
    """Libs/MRML/Widgets/qMRMLWidget.h."""

    slicerSignals: ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": "_sceneChanged"}
    _sceneChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._scene = None

    @invokable
    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """Q_INVOKABLE."""
        return self._scene

    @invokable
    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """A slot."""
        if scene is not self._scene:
            self._scene = scene
            self._sceneChanged.emit(scene)


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Libs/MRML/Widgets/qMRMLNodeComboBox.h: follows the scene; the current node is None while nothing fits."""

    slicerSignals: ClassVar = {
        "currentNodeChanged(vtkMRMLNode*)": "_nodeChanged",
        "currentNodeChanged(bool)": "_validityChanged",
        "nodeActivated(vtkMRMLNode*)": "_activated",
        "nodeAdded(vtkMRMLNode*)": "_added",
        "nodeAddedByUser(vtkMRMLNode*)": "_addedByUser",
        "nodeAboutToBeRemoved(vtkMRMLNode*)": "_aboutToBeRemoved",
        "nodeAboutToBeEdited(vtkMRMLNode*)": "_aboutToBeEdited",
    }
    _nodeChanged = Signal(object)
    _validityChanged = Signal(bool)
    _activated = Signal(object)
    _added = Signal(object)
    _addedByUser = Signal(object)
    _aboutToBeRemoved = Signal(object)
    _aboutToBeEdited = Signal(object)
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)

    _ROLE = QtCore.Qt.ItemDataRole.UserRole

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._scene = None
        self._tags: list[int] = []
        self._nodeTags: dict[Any, int] = {}
        self._attributes: dict[tuple[str, str], str | None] = {}
        self._wantedId = ""
        self._updating = False
        self._box = QtWidgets.QComboBox(self)
        self._box.setObjectName("comboBox")
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._box)
        self._box.currentIndexChanged.connect(self._onIndexChanged)
        self._box.activated.connect(lambda index: self._activated.emit(self.currentNode()))
        self._lastId = ""
        self.destroyed.connect(lambda *_, state=self.__dict__: _removeObservers(state))
        self._refill()

    def _changed(self, *_: Any) -> None:
        self._refill()

    nodeTypes = stored("QStringList", "nodeTypes", [], "_changed")
    showHidden = stored(bool, "showHidden", False, "_changed")
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True, "_changed")
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [], "_changed")
    baseName = stored(str, "baseName", "")
    noneEnabled = stored(bool, "noneEnabled", False, "_changed")
    addEnabled = stored(bool, "addEnabled", True, "_changed")
    removeEnabled = stored(bool, "removeEnabled", True, "_changed")
    editEnabled = stored(bool, "editEnabled", False, "_changed")
    renameEnabled = stored(bool, "renameEnabled", False, "_changed")
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "")
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    noneDisplay = stored(str, "noneDisplay", "None", "_changed")

    def _id(self) -> str:
        node = self.currentNode()
        return node.GetID() if node else ""

    def _setId(self, nodeId: str) -> None:
        self._select(nodeId or "")

    currentNodeID = Property(str, _id, _setId, notify=currentNodeIDChanged)

    @invokable
    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """Q_INVOKABLE."""
        return self._scene

    @invokable
    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """A slot."""
        if scene is self._scene:
            return
        _removeObservers(self.__dict__)
        self._scene = scene
        if scene is not None:
            events = {
                scene.NodeAddedEvent: self._onAdded,
                scene.NodeAboutToBeRemovedEvent: self._onAboutToBeRemoved,
                scene.NodeRemovedEvent: self._onRemoved,
                scene.EndBatchProcessEvent: self._changed,
            }
            self._tags = [scene.AddObserver(event, callback) for event, callback in events.items()]
        self._refill()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onAdded(self, caller: Any, event: Any, node: Any) -> None:
        if self._fits(node) and not self._scene.IsBatchProcessing():
            self._refill()
            self._added.emit(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onAboutToBeRemoved(self, caller: Any, event: Any, node: Any) -> None:
        if self._fits(node):
            self._aboutToBeRemoved.emit(node)
        if node in self._nodeTags:
            node.RemoveObserver(self._nodeTags.pop(node))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onRemoved(self, caller: Any, event: Any, node: Any) -> None:
        if not self._scene.IsBatchProcessing():
            self._refill()

    def _fits(self, node: Any) -> bool:
        types = [str(name) for name in self.nodeTypes]
        if node is None or (node.GetHideFromEditors() and not self.showHidden):
            return False
        for name in types:
            if not (node.IsA(name) if self.showChildNodeTypes else node.GetClassName() == name):
                continue
            if any(node.IsA(str(hidden)) for hidden in self.hideChildNodeTypes):
                continue
            wanted = {key[1]: value for key, value in self._attributes.items() if key[0] == name}
            if all(
                node.GetAttribute(key) is not None if value is None else node.GetAttribute(key) == value
                for key, value in wanted.items()
            ):
                return True
        return False

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        everything = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        return [node for node in everything if self._fits(node)]

    def _refill(self) -> None:
        if self._updating:
            return
        self._updating = True
        selected, before = self._wantedId, self._box.currentIndex()
        wasEmpty = self._box.count() == 0
        try:
            self._box.clear()
            if self.noneEnabled:
                self._box.addItem(self.noneDisplay, "")
            for node in self._nodes():
                self._box.addItem(node.GetName() or "", node.GetID())
                if node not in self._nodeTags:
                    self._nodeTags[node] = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onNodeModified)
            index = self._box.findData(selected) if selected else -1
            if index < 0:
                # As QComboBox does: the first row of an empty box is taken by itself; when the current row goes, its
                # upper neighbor follows.
                index = 0 if wasEmpty or self.noneEnabled else before - 1 if selected else -1
            self._box.setCurrentIndex(min(index, self._box.count() - 1))
            if not self._box.count():
                self._box.setPlaceholderText(f"Select a {self._label()}")
        finally:
            self._updating = False
        self._onIndexChanged(self._box.currentIndex())

    def _label(self) -> str:
        return str(self.nodeTypes[0]).removeprefix("vtkMRML").removesuffix("Node") if self.nodeTypes else "node"

    def _onNodeModified(self, node: Any, event: Any) -> None:
        index = self._box.findData(node.GetID()) if node.GetID() else -1
        if index >= 0 and self._box.itemText(index) != node.GetName():
            self._box.setItemText(index, node.GetName())
            if index == self._box.currentIndex():
                self.currentNodeRenamed.emit(node.GetName())

    def _onIndexChanged(self, index: int) -> None:
        if self._updating:
            return
        node = self.currentNode()
        self._wantedId = node.GetID() if node else ""
        if self._wantedId == self._lastId:
            return
        self._lastId = self._wantedId
        self._nodeChanged.emit(node)
        self._validityChanged.emit(node is not None)
        self.currentNodeIDChanged.emit(self._wantedId)

    def _select(self, nodeId: str) -> None:
        index = self._box.findData(nodeId) if nodeId else (0 if self.noneEnabled else -1)
        if nodeId and index < 0:
            index = 0 if self.noneEnabled else -1
        self._box.setCurrentIndex(index)

    @invokable
    def currentNode(self) -> Any:
        """Q_INVOKABLE."""
        nodeId = self._box.currentData(self._ROLE)
        return self._scene.GetNodeByID(nodeId) if self._scene is not None and nodeId else None

    @invokable
    def setCurrentNode(self, node: Any) -> None:
        """A slot, for a node or an id."""
        self._select(node if isinstance(node, str) else node.GetID() if node else "")

    @invokable
    def setCurrentNodeID(self, nodeId: str) -> None:
        """A slot."""
        self._select(nodeId or "")

    @invokable
    def setCurrentNodeIndex(self, index: int) -> None:
        """A slot; the index counts nodes, not 'none'."""
        self._box.setCurrentIndex(index + (1 if self.noneEnabled else 0) if index >= 0 else -1)

    @invokable
    def nodeCount(self) -> int:
        """Q_INVOKABLE."""
        return len(self._nodes())

    @invokable
    def nodeFromIndex(self, index: int) -> Any:
        """Q_INVOKABLE."""
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    @invokable
    def addAttribute(self, nodeType: str, name: str, value: str | None = None) -> None:
        """Q_INVOKABLE: only nodes with this attribute."""
        self._attributes[(nodeType, name)] = None if value is None else str(value)
        self._refill()

    @invokable
    def removeAttribute(self, nodeType: str, name: str) -> None:
        """Q_INVOKABLE."""
        self._attributes.pop((nodeType, name), None)
        self._refill()

    @invokable
    def addNode(self, nodeType: str | None = None) -> Any:
        """A slot."""
        node = self._scene.AddNewNodeByClass(nodeType or str(self.nodeTypes[0]), self.baseName)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        return node

    @invokable
    def removeCurrentNode(self) -> None:
        """A slot."""
        if self.currentNode():
            self._scene.RemoveNode(self.currentNode())

    @invokable
    def renameCurrentNode(self) -> None:
        """A slot; asks for the name."""
        node = self.currentNode()
        name = dialogs.conversation.ask(dialogs.Message("input", "Rename", node.GetName()), "") if node else ""
        if name:
            node.SetName(name)


def _removeObservers(state: dict[str, Any]) -> None:
    scene = state.get("_scene")
    for tag in state.get("_tags", []):
        if scene is not None:
            scene.RemoveObserver(tag)
    state["_tags"] = []
    for node, tag in state.get("_nodeTags", {}).items():
        node.RemoveObserver(tag)
    state["_nodeTags"] = {}


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """Modules/Loadable/Segmentations/Widgets/qMRMLSegmentEditorWidget.h: nodes and the current segment, no effects.

    As there, the choice is kept in the vtkMRMLSegmentEditorNode, without which nothing can be selected.
    """

    slicerSignals: ClassVar = {
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "_segmentationChanged",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "_volumeChanged",
    }
    _segmentationChanged = Signal(object)
    _volumeChanged = Signal(object)
    currentSegmentIDChanged = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._node = None
        self._effect = ""

    @invokable
    def mrmlSegmentEditorNode(self) -> Any:
        """Q_INVOKABLE."""
        return self._node

    @invokable
    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        """A slot."""
        self._node = node

    @invokable
    def segmentationNode(self) -> Any:
        """Q_INVOKABLE."""
        return self._node.GetSegmentationNode() if self._node else None

    @invokable
    def segmentationNodeID(self) -> str:
        """Q_INVOKABLE."""
        return self.segmentationNode().GetID() if self.segmentationNode() else ""

    @invokable
    def setSegmentationNode(self, node: Any) -> None:
        """A slot; takes the first segment."""
        if self._node is None or node is self.segmentationNode():
            return
        self._node.SetAndObserveSegmentationNode(node)
        ids = node.GetSegmentation().GetSegmentIDs() if node else ()
        self._node.SetSelectedSegmentID(ids[0] if ids else "")
        self._segmentationChanged.emit(node)

    @invokable
    def sourceVolumeNode(self) -> Any:
        """Q_INVOKABLE."""
        return self._node.GetSourceVolumeNode() if self._node else None

    @invokable
    def sourceVolumeNodeID(self) -> str:
        """Q_INVOKABLE."""
        return self.sourceVolumeNode().GetID() if self.sourceVolumeNode() else ""

    @invokable
    def setSourceVolumeNode(self, node: Any) -> None:
        """A slot."""
        if self._node is None or node is self.sourceVolumeNode():
            return
        self._node.SetAndObserveSourceVolumeNode(node)
        self._volumeChanged.emit(node)

    @invokable
    def setSourceVolumeNodeID(self, nodeId: str) -> None:
        """A slot."""
        self.setSourceVolumeNode(self._scene.GetNodeByID(nodeId) if nodeId else None)

    @invokable
    def currentSegmentID(self) -> str:
        """Q_INVOKABLE."""
        return (self._node.GetSelectedSegmentID() or "") if self._node else ""

    @invokable
    def setCurrentSegmentID(self, segmentId: str) -> None:
        """A slot."""
        if self._node is None or segmentId == self.currentSegmentID():
            return
        self._node.SetSelectedSegmentID(segmentId)
        self.currentSegmentIDChanged.emit(segmentId)

    @invokable
    def setActiveEffectByName(self, name: str) -> None:
        """A slot; the effects themselves are not imitated."""
        self._effect = name

    @invokable
    def updateWidgetFromMRML(self) -> None:
        """A slot."""
