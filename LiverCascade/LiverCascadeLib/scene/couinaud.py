"""Couinaud's segments as segments of a segmentation node, and how they follow landmarks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import slicer
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..errors import InputError, LiverCascadeError
from ..geometry import Box, Grid
from ..lesions.couinaud import BY_VALUE, CouinaudMap, SegmentVolumes
from ..lesions.couinaud_landmarks import Point
from ..lesions.couinaud_planes import LiverDivider
from .landmarks import landmarksFromNode
from .lesion_table import LesionTable
from .segment_content import LABELMAP, SegmentContent, SegmentReader
from .segment_surroundings import valuesOver
from .segmentations import orientedImage, resultLabelsFromSegmentation
from .surfaces import SURFACE
from .terminology import couinaudValue, isLesionType, isLiver, setCouinaud
from .volumes import arrayFromMatrix, worldFromLocal

COUINAUD_ATTRIBUTE = "LiverCascade.Couinaud"
SEGMENT_ID = "Couinaud_{}"
_FIRST_LABEL = 2  # of segments, in what resultLabelsFromSegmentation returns


def couinaudSegments(segmentationNode: slicer.vtkMRMLSegmentationNode) -> dict[int, str]:
    """Ids of Couinaud's segments in a segmentation, by their values; where there are several of one, the first."""
    segmentation = segmentationNode.GetSegmentation()
    found: dict[int, str] = {}
    for segmentId in segmentation.GetSegmentIDs():
        value = couinaudValue(segmentation.GetSegment(segmentId))
        if value:
            found.setdefault(value, segmentId)
    return found


def setCouinaudSegments(
    segmentationNode: slicer.vtkMRMLSegmentationNode, couinaud: CouinaudMap, grid: Grid
) -> list[str]:
    """Writes the segments 'Couinaud_I' … into a layer of their own; earlier ones are replaced.

    New ones show as outlines in slice views and not in 3D, where they would hide lesions; where there were some, new
    and old ones are shown as those were.

    Args:
        grid: of the labels, in the world.

    Returns:
        ids of the segments.

    Raises:
        ValueError: the labels do not lie on the grid.
        InputError: the segmentation stands under a non-linear transform.
    """
    if couinaud.labels.shape != grid.shape:
        raise ValueError(f"The labels have shape {couinaud.labels.shape}, but their grid says {grid.shape}.")
    local = Grid(grid.size, np.linalg.inv(worldFromLocal(segmentationNode)) @ grid.ijk_to_ras)
    box = Box.around(couinaud.labels != 0)
    part = couinaud.labels[box.slices] if box is not None else np.zeros((1, 1, 1), np.uint8)
    values = [int(n) for n in np.flatnonzero(np.bincount(part[part != 0])) if n in BY_VALUE]
    layer = orientedImage(part, box, local) if values else None
    segmentationNode.CreateDefaultDisplayNodes()
    there = couinaudSegments(segmentationNode)
    isShown = not there or areCouinaudSegmentsShown(segmentationNode)
    segmentation = segmentationNode.GetSegmentation()
    wasModifying = segmentationNode.StartModify()
    try:
        # Surfaces of the old segments say nothing about the new ones; without any, Slicer would make them at once.
        hasSurfaces = segmentation.ContainsRepresentation(SURFACE)
        for value in there.keys() - set(values):
            segmentation.RemoveSegment(there.pop(value))
        for value in values:
            isNew = value not in there
            segment = slicer.vtkSegment() if isNew else segmentation.GetSegment(there[value])
            setCouinaud(segment, value)
            segment.SetLabelValue(value)
            segment.AddRepresentation(LABELMAP, layer)
            if hasSurfaces:
                segment.AddRepresentation(SURFACE, vtkPolyData())
            if isNew:
                there[value] = SEGMENT_ID.format(BY_VALUE[value].name)
                segmentation.AddSegment(segment, there[value])
        _display(segmentationNode, isShown)
        _describe(segmentationNode, couinaud)
    finally:
        segmentationNode.EndModify(wasModifying)
    for value in values:
        segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified, there[value])
    return [there[value] for value in values]


def couinaudFromSegmentation(segmentationNode: slicer.vtkMRMLSegmentationNode, grid: Grid) -> CouinaudMap | None:
    """Reads Couinaud's segments back; None where there are none.

    Segments that were edited since they were made, or that nobody made here, are the reader's.

    Args:
        grid: in the world, such as that of the CT.

    Raises:
        InputError: the segmentation stands under a non-linear transform.
    """
    found = couinaudSegments(segmentationNode)
    if not found:
        return None
    numbers = resultLabelsFromSegmentation(segmentationNode, grid, list(found.values()))
    # Whatever is liver in that labeling is no segment here.
    table = np.zeros(_FIRST_LABEL + len(found), np.uint8)
    table[_FIRST_LABEL:] = list(found)
    known = _description(segmentationNode)
    provider, method = known.get("provider", "reader"), known.get("method", "")
    limitations = tuple(known.get("limitations", ()))
    if known.get("fingerprint") not in (None, _fingerprint(segmentationNode)) or not known:
        method = f"Edited by the reader; before: {method}" if method else "Segments drawn by the reader."
        provider = "reader"
    return CouinaudMap(table[numbers], provider, method, limitations)


def couinaudMethod(segmentationNode: slicer.vtkMRMLSegmentationNode) -> tuple[str, tuple[str, ...]]:
    """The sentence that says where the segments come from, and their limitations; as they were made."""
    known = _description(segmentationNode)
    return known.get("method", ""), tuple(known.get("limitations", ()))


def areCouinaudSegmentsShown(segmentationNode: slicer.vtkMRMLSegmentationNode) -> bool:
    """Whether any of them is visible in slice views."""
    display = segmentationNode.GetDisplayNode()
    if display is None:
        return False
    return any(
        display.GetSegmentVisibility(n) and display.GetSegmentVisibility2DOutline(n)
        for n in couinaudSegments(segmentationNode).values()
    )


def showCouinaudSegments(segmentationNode: slicer.vtkMRMLSegmentationNode, isShown: bool) -> None:
    """Shows their outlines in slice views, or hides them everywhere."""
    wasModifying = segmentationNode.StartModify()
    try:
        _display(segmentationNode, isShown)
    finally:
        segmentationNode.EndModify(wasModifying)


def _display(segmentationNode: slicer.vtkMRMLSegmentationNode, isShown: bool) -> None:
    display = segmentationNode.GetDisplayNode()
    wasModifying = display.StartModify()
    for segmentId in couinaudSegments(segmentationNode).values():
        display.SetSegmentVisibility(segmentId, isShown)
        display.SetSegmentVisibility2DOutline(segmentId, isShown)
        # Filled, they would cover the CT and the lesions.
        display.SetSegmentVisibility2DFill(segmentId, False)
        display.SetSegmentVisibility3D(segmentId, False)
    display.EndModify(wasModifying)


def _describe(segmentationNode: slicer.vtkMRMLSegmentationNode, couinaud: CouinaudMap) -> None:
    if not couinaudSegments(segmentationNode):
        segmentationNode.RemoveAttribute(COUINAUD_ATTRIBUTE)
        return
    content = {
        "provider": couinaud.provider,
        "method": couinaud.method,
        "limitations": list(couinaud.limitations),
        "fingerprint": _fingerprint(segmentationNode),
    }
    segmentationNode.SetAttribute(COUINAUD_ATTRIBUTE, json.dumps(content))


def _description(segmentationNode: slicer.vtkMRMLSegmentationNode) -> dict:
    """What :func:`_describe` wrote; empty where it is missing or damaged."""
    try:
        known = json.loads(segmentationNode.GetAttribute(COUINAUD_ATTRIBUTE) or "{}")
    except ValueError:
        return {}
    isWhole = isinstance(known, dict) and all(isinstance(known.get(n, ""), str) for n in ("provider", "method"))
    return known if isWhole and isinstance(known.get("limitations", []), list) else {}


def _fingerprint(segmentationNode: slicer.vtkMRMLSegmentationNode) -> str:
    """Of what the segments cover."""
    found = couinaudSegments(segmentationNode)
    contents = SegmentReader().read(segmentationNode.GetSegmentation(), found.values())
    known = [f"{value} {contents[segmentId].fingerprint}" for value, segmentId in sorted(found.items())]
    return hashlib.blake2b("\n".join(known).encode(), digest_size=12).hexdigest()


def liverOfSegmentation(segmentationNode: slicer.vtkMRMLSegmentationNode) -> tuple[np.ndarray, Grid]:
    """The liver with its lesions, on the voxels that the segmentation refers to.

    Returns:
        (labels [k, j, i], not zero where there is liver; their grid in the world).

    Raises:
        InputError: there is no liver, the segmentation knows no voxels, or it stands under a non-linear transform.
    """
    segmentation = segmentationNode.GetSegmentation()
    segments = {n: segmentation.GetSegment(n) for n in segmentation.GetSegmentIDs()}
    if not any(isLiver(segment) for segment in segments.values()):
        raise InputError(f"'{segmentationNode.GetName()}' has no liver. Segment the liver first.")
    image = slicer.vtkOrientedImageData()
    name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = segmentation.GetConversionParameter(name)
    if not geometry or not slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, image, False):
        raise InputError(f"'{segmentationNode.GetName()}' does not say which voxels it was drawn on. Choose its CT.")
    extent = np.array(image.GetExtent()).reshape(3, 2)
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    whole = Grid((1, 1, 1), worldFromLocal(segmentationNode) @ arrayFromMatrix(matrix))
    size = extent[:, 1] - extent[:, 0] + 1
    shifted = whole.ijk_to_ras.copy()
    shifted[:3, 3] = whole.to_ras(extent[:, 0])
    grid = Grid(size, shifted)
    lesions = [n for n, segment in segments.items() if isLesionType(segment)]
    return resultLabelsFromSegmentation(segmentationNode, grid, lesions), grid


def segmentVolumes(table: LesionTable) -> SegmentVolumes:
    """Volumes of Couinaud's segments and of the lesions in them, and of the liver, as the segments are now.

    Rejected lesions are liver.
    """
    segmentationNode = table.segmentationNode
    if segmentationNode is None:
        return SegmentVolumes({}, {}, {})
    reader, segmentation = SegmentReader(), segmentationNode.GetSegmentation()
    parts = reader.read(segmentation, couinaudSegments(segmentationNode).values())
    by_value = {value: parts[segmentId] for value, segmentId in couinaudSegments(segmentationNode).items()}
    world = worldFromLocal(segmentationNode)

    def ml(content: SegmentContent, count: int) -> float:
        return count * Grid((1, 1, 1), world @ content.ijk_to_ras).voxel_volume_mm3 / 1000

    volumes = {value: ml(part, np.count_nonzero(part.mask)) for value, part in by_value.items() if part.mask.size}
    lesions: dict[int, float] = {}
    for content in reader.read(segmentation, table.countedIds()).values():
        counts = np.bincount(valuesOver(content, by_value)[content.mask], minlength=1)
        for value in np.flatnonzero(counts[1:]) + 1:
            lesions[int(value)] = lesions.get(int(value), 0.0) + ml(content, int(counts[value]))
    whole = table.liverVolumeMl()
    return SegmentVolumes(volumes, lesions, {"volume_ml": whole, "parenchyma_ml": whole - table.lesionVolumeMl()})


class CouinaudFollower:
    """Keeps Couinaud's segments of a segmentation in step with its landmarks.

    While a point is dragged, a coarse preview is shown in a node of its own that is never saved; the segments
    themselves are divided anew when it is let go, and whenever a script moves, adds or removes a point.

    Args:
        segmentationNode: has the liver.
        markupsNode: has the landmarks.
        changed: called when the segments are new.
        failed: called with words when landmarks cannot be used; the segments stay as they are.

    Raises:
        InputError: there is no liver.
    """

    def __init__(
        self,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        markupsNode: slicer.vtkMRMLMarkupsNode,
        changed: Callable[[], None] = lambda: None,
        failed: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._segmentation, self._markups = segmentationNode, markupsNode
        self._changed, self._failed = changed, failed
        self._preview: slicer.vtkMRMLSegmentationNode | None = None
        self._isDragging = self._wasShown = False
        self._divided: Mapping[str, Sequence[Point]] | None = None
        self._readLiver()
        node = slicer.vtkMRMLMarkupsNode
        events = (
            (node.PointStartInteractionEvent, self._onStart),
            (node.PointEndInteractionEvent, self._onEnd),
            (node.PointModifiedEvent, self._onMoved),
            (node.PointAddedEvent, self._onMoved),
            (node.PointRemovedEvent, self._onMoved),
            (node.PointPositionDefinedEvent, self._onMoved),
            (node.PointPositionUndefinedEvent, self._onMoved),
            (slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._onMoved),
        )
        self._tags = [markupsNode.AddObserver(event, function) for event, function in events]

    @property
    def markupsNode(self) -> slicer.vtkMRMLMarkupsNode:
        """The landmarks."""
        return self._markups

    def update(self) -> bool:
        """Divides the liver now; the liver is read again where it was edited.

        Returns:
            whether that was possible; otherwise ``failed`` was told why.
        """
        try:
            landmarks = landmarksFromNode(self._markups)
            if self._liverTimes() != self._readTimes:
                self._readLiver()
            couinaud = self._divider.divide(landmarks)
        except LiverCascadeError as error:
            self._failed(str(error))
            return False
        setCouinaudSegments(self._segmentation, couinaud, self._divider.grid)
        self._divided = landmarks
        self._changed()
        return True

    def close(self) -> None:
        """Stops following."""
        for tag in self._tags:
            self._markups.RemoveObserver(tag)
        self._tags = []
        self._endPreview()

    def _readLiver(self) -> None:
        labels, grid = liverOfSegmentation(self._segmentation)
        self._divider = LiverDivider(grid, labels)
        self._readTimes = self._liverTimes()

    def _liverTimes(self) -> list[tuple[str, int]]:
        segmentation = self._segmentation.GetSegmentation()
        segments = {n: segmentation.GetSegment(n) for n in segmentation.GetSegmentIDs()}
        parts = {n: segment for n, segment in segments.items() if isLiver(segment) or isLesionType(segment)}
        images = {n: segment.GetRepresentation(LABELMAP) for n, segment in parts.items()}
        return [(n, 0 if image is None else image.GetMTime()) for n, image in images.items()]

    def _onStart(self, caller: object, event: object) -> None:
        self._isDragging = True

    def _onEnd(self, caller: object, event: object) -> None:
        self._isDragging = False
        self._endPreview()
        self._follow()

    def _onMoved(self, caller: object, event: object) -> None:
        if self._isDragging:
            self._showPreview()
        else:
            self._follow()

    def _follow(self) -> None:
        if self._segmentation.GetScene() is None:
            return
        try:
            isNew = landmarksFromNode(self._markups) != self._divided
        except LiverCascadeError as error:
            self._failed(str(error))
            return
        if isNew:
            self.update()

    def _showPreview(self) -> None:
        scene = self._segmentation.GetScene()
        if scene is None:
            return
        try:
            couinaud, grid = self._divider.preview(landmarksFromNode(self._markups))
        except LiverCascadeError as error:
            self._failed(str(error))
            return
        if self._preview is None:
            node = slicer.vtkMRMLSegmentationNode()
            node.SetName(f"{self._segmentation.GetName()} preview")
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            self._preview = scene.AddNode(node)
            self._wasShown = areCouinaudSegmentsShown(self._segmentation)
            showCouinaudSegments(self._segmentation, False)
        setCouinaudSegments(self._preview, couinaud, grid)

    def _endPreview(self) -> None:
        preview, self._preview = self._preview, None
        if preview is None:
            return
        if preview.GetScene() is not None:
            preview.GetScene().RemoveNode(preview)
        if self._segmentation.GetScene() is not None:
            showCouinaudSegments(self._segmentation, self._wasShown or not couinaudSegments(self._segmentation))
