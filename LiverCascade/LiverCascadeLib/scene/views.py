"""What the slice and 3D views show of a result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import slicer

from .lesion_table import LesionRow
from .segmentations import LIVER_OPACITY_3D, createClosedSurface
from .terminology import isLiver


def centerOn(ras: Sequence[float], scene: slicer.vtkMRMLScene) -> None:
    """Centers all slice views on a point, and moves all 3D cameras along with their focal point.

    A camera keeps its direction and its distance, so that the picture is panned and not turned. A point that is not
    a number, such as that of an empty lesion, moves nothing.

    Args:
        ras: world, RAS mm.
    """
    point = np.asarray(ras, dtype=float)
    if not np.isfinite(point).all():
        return
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *point.tolist(), slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    cameras = scene.GetNodesByClass("vtkMRMLCameraNode")
    cameras.UnRegister(None)
    for index in range(cameras.GetNumberOfItems()):
        _pan(cameras.GetItemAsObject(index), point)


def _pan(cameraNode: slicer.vtkMRMLCameraNode, point: np.ndarray) -> None:
    way = point - np.array(cameraNode.GetFocalPoint())
    wasModifying = cameraNode.StartModify()
    try:
        cameraNode.SetPosition(*(np.array(cameraNode.GetPosition()) + way).tolist())
        cameraNode.SetFocalPoint(*point.tolist())
        cameraNode.ResetClippingRange()
    finally:
        cameraNode.EndModify(wasModifying)


def showResult(segmentationNode: slicer.vtkMRMLSegmentationNode, scene: slicer.vtkMRMLScene) -> None:
    """Shows the segments in 3D: surfaces are made where there are none, the liver is translucent, so that lesions show
    through; 3D views get depth peeling, without which they would not.

    Making surfaces takes seconds for a large liver.
    """
    segmentation = segmentationNode.GetSegmentation()
    wasModifying = segmentationNode.StartModify()
    try:
        segmentationNode.CreateDefaultDisplayNodes()
        display = segmentationNode.GetDisplayNode()
        if segmentation.GetNumberOfSegments() > 0:
            createClosedSurface(segmentationNode)
        for segmentId in segmentation.GetSegmentIDs():
            if isLiver(segmentation.GetSegment(segmentId)):
                display.SetSegmentOpacity3D(segmentId, LIVER_OPACITY_3D)
        display.SetVisibility(True)
        display.SetVisibility3D(True)
    finally:
        segmentationNode.EndModify(wasModifying)
    views = scene.GetNodesByClass("vtkMRMLViewNode")
    views.UnRegister(None)
    for index in range(views.GetNumberOfItems()):
        views.GetItemAsObject(index).SetUseDepthPeeling(True)


def largestLesion(rows: Iterable[LesionRow]) -> LesionRow | None:
    """The lesion with the largest volume of those that count; None where there is none."""
    return max((row for row in rows if row.isCounted), key=lambda row: row.volumeMl, default=None)
