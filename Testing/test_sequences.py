"""Volumes in time in real MRML: reading frames, and a segmentation for each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")

from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, rasterize, result_from_masks, rotation  # noqa: E402
from LiverCascadeLib.errors import InputError  # noqa: E402
from LiverCascadeLib.geometry import Grid  # noqa: E402
from LiverCascadeLib.result import Result  # noqa: E402
from LiverCascadeLib.scene import (  # noqa: E402
    SegmentationSequence,
    createScene,
    frames,
    nodeFromVolume,
    resultLabelsFromSegmentation,
    sequenceOf,
    volumes,
    worldGrid,
)
from LiverCascadeLib.volume import Volume  # noqa: E402

GRID = TEST_GRIDS["LPS"]


class FourFrames:
    """A sequence of four frames whose voxels hold the frame's number, and its browser, as Slicer makes them."""

    def __init__(self, matrix: np.ndarray | None = None):
        self.scene = createScene()
        self.logic = slicer.vtkSlicerSequencesLogic()
        self.sequence = self.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "CT")
        self.sequence.SetIndexName("time")
        self.sequence.SetIndexUnit("s")
        local = GRID if matrix is None else GRID.transformed(np.linalg.inv(matrix))
        self.add_items(self.sequence, local)
        self.browser = self.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
        self.browser.SetAndObserveMasterSequenceNodeID(self.sequence.GetID())
        self.show(2)
        self.volumeNode = self.browser.GetProxyNode(self.sequence)
        if matrix is not None:
            self.transform = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
            self.transform.SetMatrixTransformToParent(volumes.matrixFromArray(matrix))
            self.volumeNode.SetAndObserveTransformNodeID(self.transform.GetID())

    def add_items(self, sequence, grid: Grid) -> None:
        workshop = createScene()
        for number in range(4):
            volume = Volume(np.full(grid.shape, number, np.int16), grid, "CT")
            sequence.SetDataNodeAtValue(nodeFromVolume(volume, workshop), str(2.5 * number))

    def show(self, index: int) -> None:
        """What the application does when the user moves the slider."""
        self.browser.SetSelectedItemNumber(index)
        self.logic.UpdateProxyNodesFromSequences(self.browser)

    def result(self, frame) -> Result:
        """A liver with as many lesions as the number of the frame says, two at most."""
        masks = [rasterize(lesion, GRID) for lesion in LESIONS[: frame.index]]
        return result_from_masks(frame.volume.grid, rasterize(LIVER, GRID), masks)

    def segment(self) -> tuple[SegmentationSequence, list[Result]]:
        """The results of all frames, and the sequence that they were added to."""
        segmentations, results = SegmentationSequence(self.browser, self.sequence, self.scene), []
        for frame in frames(self.browser, self.sequence):
            results.append(self.result(frame))
            segmentations.add(frame, results[-1])
        return segmentations, results


def labels(node) -> np.ndarray:
    return resultLabelsFromSegmentation(node, GRID)


def test_frames_are_read_in_order_and_the_selected_one_stays():
    four = FourFrames()
    assert sequenceOf(four.volumeNode, four.scene) == (four.browser, four.sequence)
    found = list(frames(four.browser, four.sequence))
    assert [(frame.index, frame.indexValue) for frame in found] == [(0, "0.0"), (1, "2.5"), (2, "5.0"), (3, "7.5")]
    assert [int(frame.volume.array.max()) for frame in found] == [0, 1, 2, 3]
    assert all(frame.volume.grid.is_close(GRID) for frame in found)
    assert len({frame.volume.name for frame in found}) == 4
    assert found[1].volume.source["frame"] == found[1].indexValue
    assert four.browser.GetSelectedItemNumber() == 2
    assert four.volumeNode.GetImageData().GetScalarRange() == (2, 2)


def test_a_volume_of_its_own_belongs_to_no_sequence():
    four = FourFrames()
    alone = nodeFromVolume(Volume(np.zeros(GRID.shape, np.int16), GRID), four.scene)
    assert sequenceOf(alone, four.scene) is None


def test_each_frame_gets_its_segmentation_and_the_browser_shows_it():
    four = FourFrames()
    segmentations, results = four.segment()
    node = segmentations.finish()
    assert four.browser.GetSelectedItemNumber() == 2
    assert (labels(node) == results[2].labels).all()
    for index, result in enumerate(results):
        four.show(index)
        assert (labels(node) == result.labels).all()
        names = [node.GetSegmentation().GetNthSegment(n).GetName() for n in range(1 + min(index, 2))]
        assert names == ["Liver", "Lesion 1", "Lesion 2"][: 1 + index]
    assert 0 < node.GetDisplayNode().GetSegmentOpacity3D("Liver") < 1


def test_a_frame_that_was_not_segmented_shows_nothing():
    four = FourFrames()
    segmentations = SegmentationSequence(four.browser, four.sequence, four.scene)
    first = next(frames(four.browser, four.sequence))
    segmentations.add(first, four.result(first))
    node = segmentations.finish()
    assert not labels(node).any()
    four.show(0)
    assert labels(node).any()
    four.show(3)
    assert not labels(node).any()


def test_without_a_segmented_frame_nothing_is_added():
    four = FourFrames()
    assert SegmentationSequence(four.browser, four.sequence, four.scene).finish() is None
    assert four.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert four.scene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 1


def test_an_edit_of_a_frame_stays_with_it():
    four = FourFrames()
    segmentations = SegmentationSequence(four.browser, four.sequence, four.scene)
    for frame in frames(four.browser, four.sequence):
        segmentations.add(frame, four.result(frame))
    node = segmentations.finish()
    node.GetSegmentation().RemoveSegment("Lesion_1")
    four.logic.UpdateSequencesFromProxyNodes(four.browser, node)
    four.show(3)
    assert node.GetSegmentation().GetSegment("Lesion_1") is not None
    four.show(2)
    assert node.GetSegmentation().GetSegment("Lesion_1") is None


def test_frames_under_a_linear_transform_lie_in_the_patient():
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((0, 1, 1), 17), (9.0, -4.0, 6.0)
    four = FourFrames(matrix)
    segmentations = SegmentationSequence(four.browser, four.sequence, four.scene)
    for frame in frames(four.browser, four.sequence):
        assert frame.volume.grid.is_close(GRID)
        segmentations.add(frame, four.result(frame))
    node = segmentations.finish()
    assert node.GetTransformNodeID() == four.transform.GetID()
    assert worldGrid(four.volumeNode).is_close(GRID)
    expected = result_from_masks(GRID, rasterize(LIVER, GRID), [rasterize(lesion, GRID) for lesion in LESIONS])
    assert (labels(node) == expected.labels).all()


def test_a_transform_that_differs_from_frame_to_frame_is_refused():
    four = FourFrames(np.eye(4))
    transforms = four.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "moves")
    for number in range(4):
        transforms.SetDataNodeAtValue(four.transform, str(2.5 * number))
    four.browser.AddProxyNode(four.transform, transforms, False)
    with pytest.raises(InputError, match="differs from frame to frame"):
        next(frames(four.browser, four.sequence))


def test_a_sequence_of_other_things_is_refused():
    scene = createScene()
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "moves")
    sequence.SetDataNodeAtValue(scene.AddNewNodeByClass("vtkMRMLLinearTransformNode"), "0")
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    with pytest.raises(InputError, match="Frame 1 of 'moves' is not a volume"):
        next(frames(browser, sequence))


def test_a_result_on_another_grid_is_refused():
    four = FourFrames()
    frame = next(frames(four.browser, four.sequence))
    other = TEST_GRIDS["RAS"]
    result = result_from_masks(other, rasterize(LIVER, other), [])
    with pytest.raises(ValueError, match="another grid than frame 1"):
        SegmentationSequence(four.browser, four.sequence, four.scene).add(frame, result)


def test_segmentations_of_all_frames_survive_saving_and_loading(tmp_path: Path):
    four = FourFrames()
    segmentations, results = four.segment()
    segmentations.finish()
    assert four.scene.WriteToMRB(str(tmp_path / "saved.mrb"))
    scene = createScene()
    # As in the application: sequence files are bundles themselves, which are unpacked in the cache.
    cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    cache.SetRemoteCacheDirectory(str(tmp_path))
    manager.SetCacheManager(cache)
    scene.SetCacheManager(cache)
    scene.SetDataIOManager(manager)
    assert scene.ReadFromMRB(str(tmp_path / "saved.mrb"))
    browser = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    for index in (3, 0, 1):
        browser.SetSelectedItemNumber(index)
        slicer.vtkSlicerSequencesLogic().UpdateProxyNodesFromSequences(browser)
        assert (labels(node) == results[index].labels).all()
