"""Results ↔ segmentation nodes: one segment for the liver (lesions included) and one per lesion."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import slicer
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..geometry import Box, Grid
from ..result import FIRST_LESION_LABEL, LIVER_LABEL, Result
from ..steps import exhausted
from .terminology import LESION_COLOR, LESION_TERMINOLOGY, LIVER_COLOR, LIVER_TERMINOLOGY, isCouinaud, isLiver
from .volumes import arrayFromMatrix, matrixFromArray, placeBeside, worldFromLocal, worldGrid

LIVER_SEGMENT_ID = "Liver"
LIVER_OPACITY_3D = 0.45

_LABELMAP, _SURFACE = "Binary labelmap", "Closed surface"


def segmentationFromResult(
    result: Result,
    scene: slicer.vtkMRMLScene,
    referenceVolumeNode: slicer.vtkMRMLScalarVolumeNode | None = None,
) -> slicer.vtkMRMLSegmentationNode:
    """Adds a segmentation node named 'NAME liver' with the segments 'Liver' and 'Lesion 1', 'Lesion 2', ….

    Where models drew them, Couinaud's segments and 'Liver vessels' come behind them, in layers of their own.

    The Liver segment includes the lesions, as the liver's volume does; the lesions share a second layer. Voxels are
    stored for the liver's box only, on the voxels of the input. Without a liver there are no segments.

    Args:
        referenceVolumeNode: the volume that the result belongs to. The segmentation takes its geometry, stands under
            the same transform and beside it in the subject hierarchy. None takes the grid of the result.

    Raises:
        ValueError: the volume node lies on another grid than the result.
        InputError: the volume node stands under a non-linear transform.
    """
    return exhausted(segmentationSteps(result, scene, referenceVolumeNode))


def segmentationSteps(
    result: Result,
    scene: slicer.vtkMRMLScene,
    referenceVolumeNode: slicer.vtkMRMLScalarVolumeNode | None = None,
) -> Generator[None, None, slicer.vtkMRMLSegmentationNode]:
    """:func:`segmentationFromResult` in short steps; closing the generator before its end leaves no node behind."""
    grid = result.volume.grid
    if referenceVolumeNode is not None and not worldGrid(referenceVolumeNode).is_close(grid, tolerance_mm=0.01):
        raise ValueError(f"The volume '{referenceVolumeNode.GetName()}' lies on another grid than the result.")
    # It stands on this file's layers.
    from .structures import addStructures

    box = yield from _boxSteps(result.labels)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{result.volume.name} liver")
    node.CreateDefaultDisplayNodes()
    node.SetSourceRepresentationToBinaryLabelmap()
    if referenceVolumeNode is not None:
        node.SetAndObserveTransformNodeID(referenceVolumeNode.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(referenceVolumeNode)
        placeBeside(referenceVolumeNode, node, scene)
        local = vtkMatrix4x4()
        referenceVolumeNode.GetIJKToRASMatrix(local)
        grid = Grid(grid.size, arrayFromMatrix(local))
    else:
        _setReferenceGrid(node.GetSegmentation(), grid)
    try:
        if box is not None:
            yield from _segmentSteps(node, result.labels[box.slices], box, grid, [n.id for n in result.lesions])
            addStructures(node, result)
    except BaseException:
        scene.RemoveNode(node)
        raise
    return node


def _boxSteps(labels: np.ndarray, slab: int = 32) -> Generator[None, None, Box | None]:
    """``Box.around(labels)``, slab by slab."""
    corners = []
    for first in range(0, len(labels), slab):
        part = Box.around(labels[first : first + slab])
        if part is not None:
            corners += [(*part.start[:2], part.start[2] + first), (*part.stop[:2], part.stop[2] + first)]
        yield
    if not corners:
        return None
    return Box(tuple(map(min, zip(*corners[::2], strict=True))), tuple(map(max, zip(*corners[1::2], strict=True))))


def _segmentSteps(node, labels: np.ndarray, box: Box, grid: Grid, lesionIds: list[int]) -> Generator[None, None, None]:
    yield
    liver = orientedImage((labels >= LIVER_LABEL).astype(np.uint8), box, grid)
    _addSegment(node, LIVER_SEGMENT_ID, "Liver", LIVER_COLOR, LIVER_TERMINOLOGY, liver, 1)
    node.GetDisplayNode().SetSegmentOpacity3D(LIVER_SEGMENT_ID, LIVER_OPACITY_3D)
    yield
    inner = Box.around(labels >= FIRST_LESION_LABEL)
    yield
    if inner is None or not lesionIds:
        return
    # One shared layer: label values are the lesions' ids, 0 outside.
    values = np.maximum(labels[inner.slices], LIVER_LABEL) - LIVER_LABEL
    values = values.astype(np.uint8 if max(lesionIds) <= 255 else np.uint16)
    start = tuple(a + b for a, b in zip(box.start, inner.start, strict=True))
    stop = tuple(a + b for a, b in zip(start, inner.size, strict=True))
    layer = orientedImage(values, Box(start, stop), grid)
    for lesionId in lesionIds:
        yield
        _addSegment(
            node, f"Lesion_{lesionId}", f"Lesion {lesionId}", LESION_COLOR, LESION_TERMINOLOGY, layer, lesionId
        )


def _addSegment(node, segmentId, name, color, terminology, image, labelValue) -> None:
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor(*[channel / 255 for channel in color])
    segment.SetColorAutoGenerated(False)
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
    segment.SetLabelValue(labelValue)
    segment.AddRepresentation(_LABELMAP, image)
    node.GetSegmentation().AddSegment(segment, segmentId)


def orientedImage(array: np.ndarray, box: Box, grid: Grid) -> slicer.vtkOrientedImageData:
    """``array`` [k, j, i], which fills ``box`` of ``grid``, as an image whose extent counts voxels of ``grid``."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*[n for a, b in zip(box.start, box.stop, strict=True) for n in (a, b - 1)])
    image.SetImageToWorldMatrix(matrixFromArray(grid.ijk_to_ras))
    # Copied: an editor may write into a segment, and the caller's array is not its to change.
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    return image


def _setReferenceGrid(segmentation, grid: Grid) -> None:
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*[n for size in grid.size for n in (0, size - 1)])
    image.SetImageToWorldMatrix(matrixFromArray(grid.ijk_to_ras))
    converter = slicer.vtkSegmentationConverter
    segmentation.SetConversionParameter(
        converter.GetReferenceImageGeometryParameterName(), converter.SerializeImageGeometry(image)
    )


def createClosedSurface(segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
    """Makes the surfaces for 3D views, and shows them; files remember to make them again when they are loaded."""
    segmentationNode.CreateClosedSurfaceRepresentation()
    segmentationNode.GetDisplayNode().SetPreferredDisplayRepresentationName3D(_SURFACE)


def resultLabelsFromSegmentation(
    segmentationNode: slicer.vtkMRMLSegmentationNode, grid: Grid, lesionIds: Sequence[str] | None = None
) -> np.ndarray:
    """Reads the segments back as labels on ``grid``: 1 liver, 2 … the other segments in their order.

    The segment whose terminology type is Liver is the liver; later segments win where segments overlap. Segments on
    other voxels than those of ``grid`` are brought there by their nearest voxel.

    Args:
        grid: a grid in the world, such as :func:`worldGrid` of the volume node.
        lesionIds: ids of the segments to take beside the liver, in the order of their labels; None takes all but
            Couinaud's segments.

    Returns:
        uint8, or uint16 from 255 lesions on, [k, j, i].

    Raises:
        InputError: the segmentation stands under a non-linear transform.
    """
    segmentation = segmentationNode.GetSegmentation()
    world = worldFromLocal(segmentationNode)
    everything = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
    livers = [segment for segment in everything if isLiver(segment)]
    if lesionIds is None:
        lesions = [segment for segment in everything if not isLiver(segment) and not isCouinaud(segment)]
    else:
        lesions = [segmentation.GetSegment(segmentId) for segmentId in lesionIds]
    labels = np.zeros(grid.shape, np.uint8 if len(lesions) < 255 else np.uint16)
    labeled = [*((LIVER_LABEL, liver) for liver in livers), *enumerate(lesions, start=FIRST_LESION_LABEL)]
    for label, segment in labeled:
        image = segment.GetRepresentation(_LABELMAP)
        if image is not None and not image.IsEmpty():
            _pasteSegment(labels, label, image, segment.GetLabelValue(), world, grid)
    return labels


def _pasteSegment(labels: np.ndarray, label: int, image, labelValue: int, world: np.ndarray, grid: Grid) -> None:
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    toGrid = np.linalg.inv(grid.ijk_to_ras) @ world @ arrayFromMatrix(matrix)
    shift = np.round(toGrid[:3, 3]).astype(int)
    # The same voxels, if the two counts differ by whole steps only, even at the far end of the grid.
    drift = np.abs(toGrid[:3] - np.column_stack([np.eye(3), shift])) @ np.array([*grid.size, 1])
    if drift.max() > 0.01:
        image, shift = _resampled(image, world, grid), np.zeros(3, dtype=int)
    extent = np.array(image.GetExtent()).reshape(3, 2)
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape((extent[:, 1] - extent[:, 0] + 1)[::-1])
    start = extent[:, 0] + shift
    low, high = np.maximum(start, 0), np.minimum(extent[:, 1] + 1 + shift, grid.size)
    if (low >= high).any():
        return
    target = Box(tuple(low.tolist()), tuple(high.tolist())).slices
    source = Box(tuple((low - start).tolist()), tuple((high - start).tolist())).slices
    labels[target][values[source] == labelValue] = label


def _resampled(image, world: np.ndarray, grid: Grid):
    """``image`` on the voxels of ``grid``, by nearest neighbors."""
    local = Grid(grid.size, np.linalg.inv(world) @ grid.ijk_to_ras)
    wanted = slicer.vtkOrientedImageData()
    wanted.SetExtent(*[n for size in local.size for n in (0, size - 1)])
    wanted.SetImageToWorldMatrix(matrixFromArray(local.ijk_to_ras))
    wanted.AllocateScalars(image.GetScalarType(), 1)
    result = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, wanted, result)
    return result
