"""Surfaces for 3D views, one segment at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import slicer
from vtkmodules.vtkCommonDataModel import vtkPolyData

SURFACE = "Closed surface"


def surfaceSteps(
    segmentationNode: slicer.vtkMRMLSegmentationNode, first: Iterable[str] = ()
) -> Generator[None, None, None]:
    """Makes the surfaces that :func:`~.segmentations.createClosedSurface` would, with a step after each segment.

    Nothing changes in the segmentation before all are there. Where there are surfaces already, they stay.

    Args:
        first: ids of segments to begin with.
    """
    segmentation = segmentationNode.GetSegmentation()
    if segmentation.ContainsRepresentation(SURFACE):
        return
    surfaces = {}
    first = list(first)
    for segmentId in [*first, *(other for other in segmentation.GetSegmentIDs() if other not in first)]:
        yield
        if segmentation.GetSegment(segmentId) is None:
            continue
        surface = vtkPolyData()
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        if logic.GetSegmentClosedSurfaceRepresentation(segmentationNode, segmentId, surface, False):
            surfaces[segmentId] = surface
    yield
    for segmentId, surface in surfaces.items():
        if segmentation.GetSegment(segmentId) is not None:
            segmentation.GetSegment(segmentId).AddRepresentation(SURFACE, surface)
