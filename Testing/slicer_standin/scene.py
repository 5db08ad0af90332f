"""slicer.mrmlScene with what Slicer's application puts into it: views, cameras, selection, module logics."""

from __future__ import annotations

from typing import Any

import slicer
import vtk

# Module name → logic class; the logics register their nodes with the scene.
LOGICS = {
    "Colors": "vtkMRMLColorLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}

SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class SceneRoom:
    """A scene as a started Slicer has it, and its logics."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        self.applicationLogic.SetMRMLScene(self.scene)
        self.logics: dict[str, Any] = {}
        for name, className in LOGICS.items():
            logic = getattr(slicer, className)()
            if hasattr(logic, "SetMRMLApplicationLogic"):
                logic.SetMRMLApplicationLogic(self.applicationLogic)
            self.logics[name] = logic
            self.applicationLogic.SetModuleLogic(name, logic)
            logic.SetMRMLScene(self.scene)
        self.applicationLogic.SetColorLogic(self.logics["Colors"])
        self.sliceLogicCollection = vtk.vtkCollection()
        self.applicationLogic.SetSliceLogics(self.sliceLogicCollection)
        self.sliceLogics: dict[str, Any] = {}
        self._addViews()
        self._endCloseTag = self.scene.AddObserver(self.scene.EndCloseEvent, lambda *_: self._addCamera())

    def _addViews(self) -> None:
        for name, orientation in SLICE_VIEWS.items():
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLApplicationLogic(self.applicationLogic)
            logic.SetMRMLScene(self.scene)
            node = logic.AddSliceNode(name)
            node.SetOrientation(orientation)
            node.SetMappedInLayout(1)
            node.SetDimensions(200, 200, 1)
            self.sliceLogicCollection.AddItem(logic)
            self.sliceLogics[name] = logic
        view = slicer.vtkMRMLViewNode()
        view.SetName("View1")
        view.SetSingletonTag("1")
        view.SetLayoutName("1")
        view.SetMappedInLayout(1)
        self.viewNode = self.scene.AddNode(view)
        self._addCamera()

    def _addCamera(self) -> None:
        # The cameras' displayable manager makes one per view, and makes it again after the scene was closed.
        if self.cameraNode() is None:
            camera = self.scene.AddNewNodeByClass("vtkMRMLCameraNode", "Default Scene Camera")
            camera.SetLayoutName(self.viewNode.GetLayoutName())

    def cameraNode(self) -> Any:
        """The camera of the 3D view."""
        cameras = self.scene.GetNodesByClass("vtkMRMLCameraNode")
        cameras.UnRegister(None)
        for index in range(cameras.GetNumberOfItems()):
            camera = cameras.GetItemAsObject(index)
            if camera.GetLayoutName() == self.viewNode.GetLayoutName():
                return camera
        return None

    def boundsOfVisible(self) -> tuple[float, ...] | None:
        """Bounds of what the 3D view would show; None if nothing."""
        box = vtk.vtkBoundingBox()
        for index in range(self.scene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode")):
            node = self.scene.GetNthNodeByClass(index, "vtkMRMLDisplayableNode")
            display = node.GetDisplayNode()
            if display is None or not display.GetVisibility() or node.IsA("vtkMRMLVolumeNode"):
                continue
            bounds = [0.0] * 6
            node.GetRASBounds(bounds)
            if bounds[0] <= bounds[1]:
                box.AddBounds(bounds)
        if not box.IsValid():
            return None
        bounds = [0.0] * 6
        box.GetBounds(bounds)
        return tuple(bounds)

    def close(self) -> None:
        """Takes the scene apart before Python's end does it in any order."""
        self.scene.RemoveObserver(self._endCloseTag)
        self.scene.Clear(1)
        for logic in [*self.logics.values(), *self.sliceLogics.values()]:
            logic.SetMRMLScene(None)
        self.applicationLogic.SetMRMLScene(None)
