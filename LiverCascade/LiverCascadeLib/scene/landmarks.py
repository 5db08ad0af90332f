"""Landmarks of Couinaud's planes as control points of a Markups node."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import slicer

from ..errors import InputError
from ..lesions.couinaud_landmarks import BY_KEY, KINDS, Point, estimated_text, is_estimated, kind_of, known_names
from .volumes import placeBeside, worldFromLocal

LANDMARKS_ROLE = "LiverCascade.Landmarks"


def createLandmarks(
    segmentationNode: slicer.vtkMRMLSegmentationNode, estimates: Mapping[str, Point], scene: slicer.vtkMRMLScene
) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Adds a Markups node with one control point for each landmark, where it is estimated to lie.

    A point counts as placed once it was moved. A node that the segmentation already has is used again; only the points
    that nobody moved get new estimates, and kinds without a point get one.

    Args:
        estimates: by the keys of :data:`~..lesions.couinaud_landmarks.KINDS`, RAS mm in the world.
    """
    node = landmarksNode(segmentationNode)
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", f"{segmentationNode.GetName()} landmarks")
        node.CreateDefaultDisplayNodes()
        segmentationNode.SetNodeReferenceID(LANDMARKS_ROLE, node.GetID())
        placeBeside(segmentationNode, node, scene)
    wasModifying = node.StartModify()
    try:
        for kind in KINDS:
            if kind.key in estimates:
                _placeEstimate(node, kind.key, estimates[kind.key])
    finally:
        node.EndModify(wasModifying)
    return node


def landmarksNode(segmentationNode: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLMarkupsFiducialNode | None:
    """The landmarks of a segmentation; None where it has none."""
    return segmentationNode.GetNodeReference(LANDMARKS_ROLE)


def landmarksFromNode(markupsNode: slicer.vtkMRMLMarkupsNode) -> dict[str, list[Point]]:
    """The landmarks that a reader placed: points by the keys of the landmark kinds, RAS mm in the world.

    Left out are points that are not placed yet, and estimates that nobody moved. Several points of a kind are told
    apart by a number, such as 'Right hepatic vein 2'.

    Raises:
        InputError: a point has no known name, or the node stands under a non-linear transform.
    """
    world = worldFromLocal(markupsNode)
    found: dict[str, list[Point]] = {}
    for index in range(markupsNode.GetNumberOfControlPoints()):
        if markupsNode.GetNthControlPointPositionStatus(index) != slicer.vtkMRMLMarkupsNode.PositionDefined:
            continue
        position = markupsNode.GetNthControlPointPosition(index)
        if is_estimated(markupsNode.GetNthControlPointDescription(index), position):
            continue
        key = kind_of(markupsNode.GetNthControlPointLabel(index))
        if key is None:
            raise InputError(
                f"The point '{markupsNode.GetNthControlPointLabel(index)}' in '{markupsNode.GetName()}' is no known "
                f"landmark. Name it one of {known_names()}."
            )
        place = world[:3, :3] @ np.array(position) + world[:3, 3]
        found.setdefault(key, []).append(tuple(float(n) for n in place))
    return found


def addLandmark(markupsNode: slicer.vtkMRMLMarkupsNode, key: str, ras: Point) -> int:
    """Places one more point of a kind; an estimate of that kind is taken away.

    Args:
        ras: mm in the world.

    Returns:
        the index of the control point.
    """
    name = BY_KEY[key].name
    wasModifying = markupsNode.StartModify()
    try:
        for index in reversed(range(markupsNode.GetNumberOfControlPoints())):
            if kind_of(markupsNode.GetNthControlPointLabel(index)) == key and _isEstimate(markupsNode, index):
                markupsNode.RemoveNthControlPoint(index)
        labels = [markupsNode.GetNthControlPointLabel(n) for n in range(markupsNode.GetNumberOfControlPoints())]
        numbers = [int((re.search(r"\d+$", label) or ["1"])[0]) for label in labels if kind_of(label) == key]
        label = f"{name} {max(numbers) + 1}" if numbers else name
        return markupsNode.AddControlPointWorld(*ras, label)
    finally:
        markupsNode.EndModify(wasModifying)


def _isEstimate(node: slicer.vtkMRMLMarkupsNode, index: int) -> bool:
    return is_estimated(node.GetNthControlPointDescription(index), node.GetNthControlPointPosition(index))


def _placeEstimate(node: slicer.vtkMRMLMarkupsNode, key: str, ras: Point) -> None:
    local = np.linalg.inv(worldFromLocal(node))
    place = tuple(float(n) for n in local[:3, :3] @ np.array(ras) + local[:3, 3])
    indices = [n for n in range(node.GetNumberOfControlPoints()) if kind_of(node.GetNthControlPointLabel(n)) == key]
    if any(not _isEstimate(node, n) for n in indices):
        return
    index = indices[0] if indices else node.AddControlPoint(*place, BY_KEY[key].name)
    node.SetNthControlPointPosition(index, *place)
    node.SetNthControlPointDescription(index, estimated_text(place))
