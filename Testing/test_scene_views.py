"""What views show of a result: real view and camera nodes, no windows."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")

from analytic_bodies import LESIONS, TEST_GRIDS, analytic_result  # noqa: E402
from LiverCascadeLib.scene import (  # noqa: E402
    LesionTable,
    centerOn,
    createScene,
    largestLesion,
    nodeFromVolume,
    segmentationFromResult,
    showResult,
    volumes,
)
from LiverCascadeLib.volume import Volume  # noqa: E402


@pytest.fixture
def scene():
    scene = createScene()
    for name in ("Red", "Green", "Yellow"):
        node = slicer.vtkMRMLSliceNode()
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        getattr(node, f"SetOrientationTo{dict(Red='Axial', Green='Coronal', Yellow='Sagittal')[name]}")()
        node.SetFieldOfView(250, 250, 1)
        scene.AddNode(node)
    return scene


def slice_centers(scene) -> list[np.ndarray]:
    nodes = scene.GetNodesByClass("vtkMRMLSliceNode")
    nodes.UnRegister(None)
    matrices = [nodes.GetItemAsObject(n).GetSliceToRAS() for n in range(nodes.GetNumberOfItems())]
    return [volumes.arrayFromMatrix(matrix)[:3, 3] for matrix in matrices]


def add_camera(scene, position, focus):
    node = scene.AddNewNodeByClass("vtkMRMLCameraNode")
    node.SetPosition(*position)
    node.SetFocalPoint(*focus)
    node.SetViewUp(0, 0, 1)
    return node


def test_all_slices_are_centered_on_the_point(scene):
    centerOn((12.0, -34.0, 56.0), scene)
    assert len(slice_centers(scene)) == 3
    for center in slice_centers(scene):
        assert center == pytest.approx((12, -34, 56))


def test_cameras_look_at_the_point_from_where_they_looked_before(scene):
    cameras = [add_camera(scene, (0, 500, 0), (0, 0, 0)), add_camera(scene, (100, 0, 300), (100, 0, 50))]
    centerOn((10.0, 20.0, 30.0), scene)
    assert cameras[0].GetFocalPoint() == cameras[1].GetFocalPoint() == pytest.approx((10, 20, 30))
    assert cameras[0].GetPosition() == pytest.approx((10, 520, 30))
    assert cameras[1].GetPosition() == pytest.approx((10, 20, 280))
    assert cameras[0].GetViewUp() == pytest.approx((0, 0, 1))


def test_a_lesion_without_a_place_moves_nothing(scene):
    camera = add_camera(scene, (0, 500, 0), (0, 0, 0))
    before = slice_centers(scene)
    centerOn((float("nan"),) * 3, scene)
    assert camera.GetPosition() == (0, 500, 0)
    assert all((one == other).all() for one, other in zip(before, slice_centers(scene), strict=True))


def test_a_row_leads_to_its_lesion_also_under_a_transform(scene):
    grid = TEST_GRIDS["oblique"]
    moved = np.eye(4)
    moved[:3, 3] = (30, -20, 10)
    volume = Volume(np.zeros(grid.shape, np.int16), grid.transformed(np.linalg.inv(moved)), "body")
    node = nodeFromVolume(volume, scene)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(volumes.matrixFromArray(moved))
    node.SetAndObserveTransformNodeID(transform.GetID())
    table = LesionTable.create(segmentationFromResult(analytic_result(grid), scene, node), node, scene)
    centerOn(largestLesion(table.rows()).centroidRas, scene)
    for center in slice_centers(scene):
        assert center == pytest.approx(LESIONS[0].center_ras, abs=0.5)


def test_the_result_is_shown_with_a_translucent_liver(scene):
    result = analytic_result(TEST_GRIDS["RAS"])
    node = segmentationFromResult(result, scene)
    view = scene.AddNewNodeByClass("vtkMRMLViewNode")
    display = node.GetDisplayNode()
    display.SetVisibility3D(False)
    display.SetSegmentOpacity3D("Liver", 1.0)
    showResult(node, scene)
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")
    assert display.GetVisibility3D()
    assert display.GetPreferredDisplayRepresentationName3D() == "Closed surface"
    assert 0 < display.GetSegmentOpacity3D("Liver") < 1
    assert display.GetSegmentOpacity3D("Lesion_1") == 1
    assert view.GetUseDepthPeeling()


def test_showing_does_not_bring_back_a_rejected_lesion(scene):
    result = analytic_result(TEST_GRIDS["RAS"])
    node = segmentationFromResult(result, scene)
    table = LesionTable.create(node, None, scene)
    table.setReview("Lesion_1", "rejected")
    showResult(node, scene)
    assert not node.GetDisplayNode().GetSegmentVisibility("Lesion_1")
    assert largestLesion(table.rows()).segmentId == "Lesion_2"
    table.setReview("Lesion_2", "rejected")
    assert largestLesion(table.rows()) is None


def test_an_empty_segmentation_can_be_shown(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    showResult(node, scene)
    assert node.GetDisplayNode().GetVisibility3D()
