"""Edits of segments as Slicer's Segment Editor makes them: with its own logic classes, without its widgets."""

from __future__ import annotations

import numpy as np
import slicer
from LiverCascadeLib.scene.volumes import arrayFromMatrix
from scipy import ndimage
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

ADD, REMOVE = "ModificationModeAdd", "ModificationModeRemove"
LABELMAP = "Binary labelmap"


class SegmentEditor:
    """The editor on one segmentation and its volume; ``overwrite`` is one of the modes in its masking section."""

    def __init__(self, scene, segmentationNode, volumeNode, overwrite: str = "OverwriteAllSegments"):
        self.segmentationNode = segmentationNode
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.applicationLogic = slicer.vtkMRMLApplicationLogic()
        self.applicationLogic.SetMRMLScene(scene)
        self.logic.SetMRMLScene(scene)
        self.logic.SetMRMLApplicationLogic(self.applicationLogic)
        self.node = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.node.SetOverwriteMode(getattr(slicer.vtkMRMLSegmentEditorNode, overwrite))
        self.node.SetAndObserveSegmentationNode(segmentationNode)
        self.logic.SetSegmentEditorNode(self.node)
        self.logic.SetSourceVolumeNode(volumeNode)

    def paint(self, segmentId: str, ras, radius: float, mode: str = ADD) -> None:
        """A stroke of the sphere brush, in the coordinates of the segmentation."""
        self.logic.SetCurrentSegmentID(segmentId)
        self.logic.SaveStateForUndo()
        self.logic.ResetModifierLabelmapToDefault()
        image = self.logic.GetModifierLabelmap()
        extent = np.array(image.GetExtent()).reshape(3, 2)
        matrix = vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        toRas = arrayFromMatrix(matrix)
        center = np.linalg.inv(toRas) @ [*ras, 1]
        spacing = np.linalg.norm(toRas[:3, :3], axis=0)
        low = np.maximum(np.floor(center[:3] - radius / spacing).astype(int), extent[:, 0])
        high = np.minimum(np.ceil(center[:3] + radius / spacing).astype(int), extent[:, 1])
        axes = np.meshgrid(*[np.arange(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True)], indexing="ij")
        ijk = np.stack(axes[::-1], axis=-1)
        inside = (((ijk - center[:3]) * spacing) ** 2).sum(axis=-1) <= radius**2
        shape = (extent[:, 1] - extent[:, 0] + 1)[::-1]
        values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
        start = low - extent[:, 0]
        block = tuple(slice(a, a + n) for a, n in zip(start[::-1], inside.shape, strict=True))
        values[block][inside] = 1
        image.Modified()
        # Effects hand over the extent that they touched.
        touched = [int(n) for a, b in zip(low, high, strict=True) for n in (a, b)]
        mode = getattr(slicer.vtkSlicerSegmentEditorLogic, mode)
        self.logic.ModifySegmentByLabelmap(self.segmentationNode, segmentId, image, mode, touched, False, False)

    def erase(self, segmentId: str, ras, radius: float) -> None:
        """A stroke of the eraser."""
        self.paint(segmentId, ras, radius, REMOVE)

    def add(self) -> str:
        """The button 'Add'."""
        return self.logic.AddEmptySegment()

    def remove(self, segmentId: str) -> None:
        """The button 'Remove'."""
        self.logic.SetCurrentSegmentID(segmentId)
        self.logic.RemoveSelectedSegment()

    def undo(self) -> None:
        """The button 'Undo'."""
        self.logic.Undo()

    def redo(self) -> None:
        """The button 'Redo'."""
        self.logic.Redo()

    def splitIslands(self, segmentId: str) -> list[str]:
        """The effect 'Islands', 'Split islands to segments': the steps of its ``splitSegments``.

        Returns:
            the ids of the new segments.
        """
        self.logic.SetCurrentSegmentID(segmentId)
        self.logic.SaveStateForUndo()
        segmentation = self.segmentationNode.GetSegmentation()
        selected = segmentation.GetSegment(segmentId)
        self.logic.UpdateSelectedSegmentLabelmap()
        labelmap = self.logic.GetSelectedSegmentLabelmap()
        shape = tuple(reversed(labelmap.GetDimensions()))
        values = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(shape)
        islands, count = ndimage.label(values)
        order = 1 + np.argsort(-np.bincount(islands.ravel(), minlength=count + 1)[1:])
        added = []
        wasModifying = self.segmentationNode.StartModify()
        for number, island in enumerate(order[1:], start=2):
            segment = slicer.vtkSegment()
            segment.SetName(f"{selected.GetName()}_{number}")
            segment.AddRepresentation(LABELMAP, selected.GetRepresentation(LABELMAP))
            segmentation.AddSegment(segment)
            newId = segmentation.GetSegmentIdBySegment(segment)
            segment.SetLabelValue(segmentation.GetUniqueLabelValueForSharedLabelmap(segmentId))
            self._apply(newId, labelmap, islands == island, slicer.vtkSlicerSegmentEditorLogic.ModificationModeAdd)
            added.append(newId)
        self._apply(segmentId, labelmap, islands == order[0], slicer.vtkSlicerSegmentEditorLogic.ModificationModeSet)
        self.segmentationNode.EndModify(wasModifying)
        return added

    def _apply(self, segmentId: str, geometry, mask: np.ndarray, mode) -> None:
        image = slicer.vtkOrientedImageData()
        image.DeepCopy(geometry)
        vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.ravel()
        self.logic.ModifySegmentByLabelmap(self.segmentationNode, segmentId, image, mode, False, False)
