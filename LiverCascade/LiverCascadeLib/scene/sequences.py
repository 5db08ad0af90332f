"""Volumes in time: the frames of a sequence, and a segmentation for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import slicer

from ..errors import InputError
from ..result import Result
from ..volume import Volume
from .segmentations import LIVER_OPACITY_3D, LIVER_SEGMENT_ID, segmentationFromResult
from .volumes import createScene, placeBeside, volumeFromNode, worldFromLocal, worldGrid


@dataclass(frozen=True)
class Frame:
    """One item of a volume sequence.

    Attributes:
        index: its number, from 0.
        indexValue: what the sequence calls it, such as '12.5'.
        volume: its voxels, on their grid in the world.
    """

    index: int
    indexValue: str
    volume: Volume


def sequenceOf(
    volumeNode: slicer.vtkMRMLScalarVolumeNode, scene: slicer.vtkMRMLScene
) -> tuple[slicer.vtkMRMLSequenceBrowserNode, slicer.vtkMRMLSequenceNode] | None:
    """The browser and the sequence whose current frame ``volumeNode`` shows; None where it is a volume of its own."""
    browsers = scene.GetNodesByClass("vtkMRMLSequenceBrowserNode")
    browsers.UnRegister(None)
    for index in range(browsers.GetNumberOfItems()):
        browser = browsers.GetItemAsObject(index)
        sequence = browser.GetSequenceNode(volumeNode)
        if sequence is not None and sequence.GetNumberOfDataNodes() > 0:
            return browser, sequence
    return None


def frames(
    browserNode: slicer.vtkMRMLSequenceBrowserNode, sequenceNode: slicer.vtkMRMLSequenceNode
) -> Iterator[Frame]:
    """The frames in their order. They are read from the sequence itself: the frame that the user looks at stays.

    Raises:
        InputError: an item is no CT volume, or the volume stands under a transform that is not linear or that is
            itself different from frame to frame.
    """
    proxy = browserNode.GetProxyNode(sequenceNode)
    world = _worldOfAllFrames(browserNode, proxy)
    name = proxy.GetName() if proxy is not None else sequenceNode.GetName()
    for index in range(sequenceNode.GetNumberOfDataNodes()):
        node = sequenceNode.GetNthDataNode(index)
        if not node.IsA("vtkMRMLScalarVolumeNode"):
            raise InputError(f"Frame {index + 1} of '{sequenceNode.GetName()}' is not a volume.")
        volume = volumeFromNode(node)
        value = sequenceNode.GetNthIndexValue(index)
        source = {**volume.source, "sequence": sequenceNode.GetName(), "frame": value}
        grid = volume.grid.transformed(world)
        yield Frame(index, value, replace(volume, grid=grid, name=f"{name} {index + 1}", source=source))


def _worldOfAllFrames(browserNode, proxy) -> np.ndarray:
    if proxy is None:
        return np.eye(4)
    transform = proxy.GetParentTransformNode()
    while transform is not None:
        if browserNode.IsProxyNode(transform.GetID()):
            raise InputError(
                f"'{proxy.GetName()}' stands under the transform '{transform.GetName()}', which differs from frame to "
                "frame. Take the volume out of it, or segment the current frame only."
            )
        transform = transform.GetParentTransformNode()
    return worldFromLocal(proxy)


class SegmentationSequence:
    """A sequence of segmentations in the making, browsed together with the volume that they belong to.

    A frame that was not segmented shows an empty segmentation, never that of its neighbor.

    Args:
        browserNode, sequenceNode: of the volume, as :func:`sequenceOf` returns them.
    """

    def __init__(
        self,
        browserNode: slicer.vtkMRMLSequenceBrowserNode,
        sequenceNode: slicer.vtkMRMLSequenceNode,
        scene: slicer.vtkMRMLScene,
    ):
        self._browser, self._volumes, self._scene = browserNode, sequenceNode, scene
        self._segmentations: slicer.vtkMRMLSequenceNode | None = None

    def add(self, frame: Frame, result: Result) -> None:
        """Adds the segmentation of one frame; an earlier one of the same frame is replaced.

        Raises:
            ValueError: the result lies on another grid than the frame.
        """
        if not result.volume.grid.is_close(frame.volume.grid, tolerance_mm=0.01):
            raise ValueError(f"The result lies on another grid than frame {frame.index + 1}.")
        # A sequence copies what it is given: the original is made in a scene of its own, where nobody watches.
        local = replace(result.volume, grid=worldGrid(self._volumes.GetNthDataNode(frame.index)))
        workshop = createScene()
        node = segmentationFromResult(replace(result, volume=local), workshop)
        node.SetName(self._name())
        if self._segmentations is None:
            self._segmentations = self._newSequence()
        self._segmentations.SetDataNodeAtValue(node, frame.indexValue)

    def finish(self) -> slicer.vtkMRMLSegmentationNode | None:
        """Shows the segmentations beside the volume, also if only some frames were segmented.

        Returns:
            the node that shows the current frame; None where nothing was added.
        """
        if self._segmentations is None:
            return None
        browser = self._browser
        browser.AddSynchronizedSequenceNode(self._segmentations)
        browser.SetSaveChanges(self._segmentations, True)
        browser.SetMissingItemMode(self._segmentations, slicer.vtkMRMLSequenceBrowserNode.MissingItemCreateFromDefault)
        slicer.vtkSlicerSequencesLogic().UpdateProxyNodesFromSequences(browser)
        node = browser.GetProxyNode(self._segmentations)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetSegmentOpacity3D(LIVER_SEGMENT_ID, LIVER_OPACITY_3D)
        volumeNode = browser.GetProxyNode(self._volumes)
        if volumeNode is not None:
            node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
            placeBeside(volumeNode, node, self._scene)
        return node

    def _newSequence(self) -> slicer.vtkMRMLSequenceNode:
        node = self._scene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{self._name()} sequence")
        node.SetIndexName(self._volumes.GetIndexName())
        node.SetIndexUnit(self._volumes.GetIndexUnit())
        node.SetIndexType(self._volumes.GetIndexType())
        node.SetNumericIndexValueTolerance(self._volumes.GetNumericIndexValueTolerance())
        return node

    def _name(self) -> str:
        volumeNode = self._browser.GetProxyNode(self._volumes)
        return f"{(volumeNode or self._volumes).GetName()} liver"
