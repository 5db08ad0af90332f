"""Couinaud's segments and vessels that models draw, on their way to files, scenes and the panel."""

from dataclasses import replace

import numpy as np
import pytest
from analytic_bodies import TEST_GRIDS, analytic_result
from LiverCascadeLib.geometry import Box
from LiverCascadeLib.jobs import JobFolder
from LiverCascadeLib.lesions.couinaud_network import couinaud_of
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.report.files import OutputFolder, write_results
from LiverCascadeLib.structures import Structures
from LiverCascadeLib.study import Wish
from LiverCascadeLib.volume import read_labels


def drawn_result(name: str = "LPS"):
    """A result whose model halved the liver into II and VII, and drew a vessel through it."""
    result = analytic_result(TEST_GRIDS[name])
    box = Box.around(result.labels != 0).grown(2, result.volume.grid.size)
    inside = result.labels[box.slices] != 0
    couinaud = np.where(np.arange(inside.shape[2]) < inside.shape[2] // 2, 2, 7).astype(np.uint8) * inside
    vessels = np.zeros(inside.shape, np.uint8)
    vessels[:, inside.shape[1] // 2, :] = inside[:, inside.shape[1] // 2, :]
    return replace(result, structures=Structures(box, couinaud.astype(np.uint8), "Some segments", vessels))


def test_what_a_worker_found_reaches_its_client(tmp_path):
    result = drawn_result()
    folder = JobFolder.create(result.volume)
    try:
        found = folder.read_result(folder.write_result(result), result.volume).structures
    finally:
        folder.remove()
    assert not folder.path.exists()
    assert found.box == result.structures.box and found.couinaud_model == "Some segments"
    assert np.array_equal(found.couinaud, result.structures.couinaud)
    assert np.array_equal(found.vessels, result.structures.vessels)


def test_segments_of_a_network_are_measured_and_written(tmp_path):
    result = drawn_result()
    with OutputFolder(tmp_path / "out") as output:
        write_results(result, output, Progress(), assess=Wish(None, None, None).assess)
    vessels, grid = read_labels(tmp_path / "out" / "vessels.nii.gz")
    assert grid.is_close(result.volume.grid, tolerance_mm=0.01)
    assert vessels.sum() == result.structures.vessels.sum()
    couinaud, _ = read_labels(tmp_path / "out" / "couinaud.nii.gz")
    assert set(np.unique(couinaud)) == {0, 2, 7}
    assert np.array_equal(couinaud != 0, result.labels != 0)
    assert "Some segments" in (tmp_path / "out" / "result.json").read_text()


def test_a_model_that_drew_no_segment_in_the_liver_leaves_none():
    result = drawn_result()
    empty = replace(result.structures, couinaud=np.zeros_like(result.structures.couinaud))
    assert couinaud_of(replace(result, structures=empty)) is None
    assert couinaud_of(replace(result, structures=None)) is None


@pytest.mark.parametrize("name", list(TEST_GRIDS)[::6])
def test_segments_and_vessels_stand_in_the_segmentation(name):
    pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
    from LiverCascadeLib import scene as mrml

    result = drawn_result(name)
    scene = mrml.createScene()
    node = mrml.segmentationFromResult(result, scene, mrml.nodeFromVolume(result.volume, scene))
    segmentation = node.GetSegmentation()
    names = {segmentation.GetSegment(n).GetName(): n for n in segmentation.GetSegmentIDs()}
    assert {"Liver", "Segment II", "Segment VII", "Liver vessels"} <= set(names)
    assert "Blood Vessel" in segmentation.GetSegment(names["Liver vessels"]).GetTerminology()
    reader = mrml.couinaudFromSegmentation(node, result.volume.grid)
    assert np.array_equal(reader.labels, couinaud_of(result).labels)
