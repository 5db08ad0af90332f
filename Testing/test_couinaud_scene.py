"""Couinaud's segments in a scene: written, read back, saved, edited, and following landmarks."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")

import slicer
from analytic_bodies import TEST_GRIDS, analytic_result
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.lesions.couinaud import SEGMENTS
from LiverCascadeLib.lesions.couinaud_landmarks import IVC, KINDS, MHV, PORTAL, RHV, read_landmarks
from LiverCascadeLib.lesions.couinaud_planes import LiverDivider, couinaud_for
from LiverCascadeLib.resources import RESOURCES
from LiverCascadeLib.scene import (
    CouinaudFollower,
    LesionTable,
    areCouinaudSegmentsShown,
    couinaudFromSegmentation,
    couinaudSegments,
    createClosedSurface,
    createLandmarks,
    createScene,
    landmarksFromNode,
    landmarksNode,
    liverOfSegmentation,
    nodeFromVolume,
    resultLabelsFromSegmentation,
    segmentationFromResult,
    segmentVolumes,
    setCouinaudSegments,
    showCouinaudSegments,
    worldGrid,
)
from LiverCascadeLib.scene.landmarks import addLandmark
from LiverCascadeLib.scene.terminology import COUINAUD_COLORS, TERMINOLOGY_CONTEXT, typeCode
from LiverCascadeLib.scene.volumes import matrixFromArray
from panel_user import paint_ball


class Patient:
    """A scene with a CT, its segmentation, and what was heard about segments."""

    def __init__(self, name: str = "LPS"):
        self.result = analytic_result(TEST_GRIDS[name])
        self.scene = createScene()
        self.volumeNode = nodeFromVolume(self.result.volume, self.scene)
        self.node = segmentationFromResult(self.result, self.scene, self.volumeNode)
        self.heard: list[str] = []

    @property
    def grid(self):
        return worldGrid(self.volumeNode)

    def divide(self, landmarks: dict | None = None):
        couinaud = couinaud_for(self.grid, self.result.labels, landmarks)
        setCouinaudSegments(self.node, couinaud, self.grid)
        return couinaud

    def landmarks(self):
        labels, grid = liverOfSegmentation(self.node)
        return createLandmarks(self.node, LiverDivider(grid, labels).estimates(), self.scene)

    def follow(self) -> CouinaudFollower:
        heard = self.heard
        return CouinaudFollower(self.node, landmarksNode(self.node), lambda: heard.append("changed"), heard.append)

    def read(self):
        return couinaudFromSegmentation(self.node, self.grid)


@pytest.fixture
def patient() -> Patient:
    return Patient()


def point_of(markups, name: str) -> int:
    labels = [markups.GetNthControlPointLabel(n) for n in range(markups.GetNumberOfControlPoints())]
    return labels.index(name)


def move(markups, name: str, by: tuple[float, float, float]) -> None:
    index = point_of(markups, name)
    markups.SetNthControlPointPositionWorld(index, *(np.array(markups.GetNthControlPointPositionWorld(index)) + by))


@pytest.mark.parametrize("name", ["LPS", "LAS left-handed", "oblique", "thick slices"])
def test_segments_come_back_as_they_were_written(name: str):
    patient = Patient(name)
    couinaud = patient.divide()
    found = patient.read()
    assert np.array_equal(found.labels, couinaud.labels)
    assert (found.provider, found.method, found.limitations) == ("estimate", couinaud.method, couinaud.limitations)


def test_segments_lie_in_a_layer_of_their_own_and_leave_liver_and_lesions_alone(patient):
    before = resultLabelsFromSegmentation(patient.node, patient.grid)
    patient.divide()
    segmentation = patient.node.GetSegmentation()
    images = {n: segmentation.GetSegment(n).GetRepresentation("Binary labelmap") for n in segmentation.GetSegmentIDs()}
    couinaud = {id(image) for n, image in images.items() if n.startswith("Couinaud_")}
    others = {id(image) for n, image in images.items() if not n.startswith("Couinaud_")}
    assert len(couinaud) == 1 and not couinaud & others
    assert np.array_equal(resultLabelsFromSegmentation(patient.node, patient.grid), before)


def test_segments_have_names_terminology_and_colors_of_the_terminology_file(patient):
    place = LiverDivider(patient.grid, patient.result.labels).estimates()[PORTAL]
    patient.divide({PORTAL: [place]})
    terms = json.loads((RESOURCES / "LiverCascade.term.json").read_text(encoding="utf-8"))
    types = terms["SegmentationCodes"]["Category"][0]["Type"]
    known = {t["CodeValue"]: t for t in types}
    segmentation = patient.node.GetSegmentation()
    found = couinaudSegments(patient.node)
    assert {9, 10} <= found.keys() and 4 not in found
    for value, segmentId in found.items():
        segment = segmentation.GetSegment(segmentId)
        declared = next(s for s in SEGMENTS if s.value == value)
        assert segmentId == f"Couinaud_{declared.name}" and segment.GetName() == f"Segment {declared.name}"
        assert typeCode(segment) == f"SCT^{declared.code}"
        assert segment.GetTerminology().startswith(TERMINOLOGY_CONTEXT)
        assert known[declared.code]["CodeMeaning"] in segment.GetTerminology()
        if value < 9:
            assert tuple(known[declared.code]["recommendedDisplayRGBValue"]) == COUINAUD_COLORS[value]
            assert np.allclose(np.array(segment.GetColor()) * 255, COUINAUD_COLORS[value])


def test_new_segments_are_outlines_in_slices_and_can_be_hidden(patient):
    patient.divide()
    display = patient.node.GetDisplayNode()
    for segmentId in couinaudSegments(patient.node).values():
        assert display.GetSegmentVisibility2DOutline(segmentId) and not display.GetSegmentVisibility2DFill(segmentId)
        assert not display.GetSegmentVisibility3D(segmentId)
    showCouinaudSegments(patient.node, False)
    assert not areCouinaudSegmentsShown(patient.node) and display.GetSegmentVisibility("Liver")
    patient.divide()
    assert not areCouinaudSegmentsShown(patient.node), "what was hidden stays hidden"


def test_segments_that_are_no_longer_there_go(patient):
    place = LiverDivider(patient.grid, patient.result.labels).estimates()[PORTAL]
    patient.divide({PORTAL: [place]})
    patient.divide()
    assert set(couinaudSegments(patient.node)) == {1, 2, 3, 4, 5, 6, 7, 8}
    empty = couinaud_for(patient.grid, patient.result.labels)
    setCouinaudSegments(patient.node, type(empty)(np.zeros_like(empty.labels), "estimate", ""), patient.grid)
    assert couinaudSegments(patient.node) == {} and patient.read() is None


def test_surfaces_of_the_liver_stay_and_none_is_made_of_segments(patient):
    createClosedSurface(patient.node)
    patient.divide()
    segmentation = patient.node.GetSegmentation()
    assert segmentation.ContainsRepresentation("Closed surface")
    surface = segmentation.GetSegment("Liver").GetRepresentation("Closed surface")
    assert surface.GetNumberOfPoints() > 0
    assert segmentation.GetSegment("Couinaud_VIII").GetRepresentation("Closed surface").GetNumberOfPoints() == 0


def test_an_edited_segment_is_the_readers(patient):
    couinaud = patient.divide()
    paint_ball(patient.node, "Couinaud_VIII", (32.0, -6.0, 11.0), 6)
    found = patient.read()
    assert found.provider == "reader" and couinaud.method in found.method
    assert not np.array_equal(found.labels, couinaud.labels)


def test_segments_that_somebody_else_drew_are_read(patient):
    patient.divide()
    patient.node.RemoveAttribute("LiverCascade.Couinaud")
    assert patient.read().provider == "reader"
    patient.node.SetAttribute("LiverCascade.Couinaud", "{broken")
    assert patient.read().provider == "reader"


def test_segments_do_not_count_as_an_edit_or_as_somebodys_own(patient):
    table = LesionTable.create(patient.node, patient.volumeNode, patient.scene)
    patient.divide()
    table.update()
    assert not table.isEdited() and table.foreignSegments() == []
    assert all(row.couinaud for row in table.rows())


def test_segments_and_landmarks_are_saved_with_the_scene(patient, tmp_path):
    couinaud = patient.divide()
    markups = patient.landmarks()
    move(markups, "Middle hepatic vein", (3, 0, 0))
    placed = landmarksFromNode(markups)
    assert patient.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    (tmp_path / "unpacked").mkdir()
    scene = createScene()
    scene.SetURL(scene.UnpackSlicerDataBundle(str(tmp_path / "scene.mrb"), str(tmp_path / "unpacked")))
    scene.Import()
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    found = couinaudFromSegmentation(node, patient.grid)
    assert np.array_equal(found.labels, couinaud.labels) and found.provider == "estimate"
    again = landmarksFromNode(landmarksNode(node))
    assert again.keys() == placed.keys() == {MHV} and np.allclose(again[MHV], placed[MHV], atol=1e-3)


def test_segments_are_saved_with_the_segmentation_alone(patient, tmp_path):
    couinaud = patient.divide()
    path = str(tmp_path / "liver.seg.nrrd")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(path)
    assert storage.WriteData(patient.node)
    node = createScene().AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(node)
    found = couinaudFromSegmentation(node, patient.grid)
    assert np.array_equal(found.labels, couinaud.labels)
    # The file has no room for the sentence.
    assert found.provider == "reader"


def test_the_liver_is_read_on_the_voxels_of_its_ct(patient):
    table = LesionTable.create(patient.node, patient.volumeNode, patient.scene)
    labels, grid = liverOfSegmentation(patient.node)
    assert grid.is_close(patient.grid)
    assert np.array_equal(labels > 0, patient.result.labels > 0)
    for segmentId in [*patient.node.GetSegmentation().GetSegmentIDs()]:
        patient.node.GetSegmentation().RemoveSegment(segmentId)
    with pytest.raises(InputError, match="no liver"):
        liverOfSegmentation(patient.node)
    assert table.segmentationNode is patient.node


def test_landmarks_count_once_they_were_moved(patient, tmp_path):
    markups = patient.landmarks()
    assert markups.GetNumberOfControlPoints() == len(KINDS) and landmarksFromNode(markups) == {}
    move(markups, "Portal bifurcation", (0, 0, 4))
    assert list(landmarksFromNode(markups)) == [PORTAL]
    assert patient.landmarks() is markups and list(landmarksFromNode(markups)) == [PORTAL]
    path = tmp_path / "points.mrk.json"
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(markups)
    assert np.allclose(read_landmarks(path)[PORTAL], landmarksFromNode(markups)[PORTAL], atol=1e-3)
    assert list(read_landmarks(path)) == [PORTAL]


def test_more_points_of_a_vein_are_numbered_and_replace_its_estimate(patient):
    markups = patient.landmarks()
    for height in (10.0, 20.0, 30.0):
        addLandmark(markups, RHV, (60.0, -8.0, height))
    assert len(landmarksFromNode(markups)[RHV]) == 3
    names = [markups.GetNthControlPointLabel(n) for n in range(markups.GetNumberOfControlPoints())]
    assert [n for n in names if n.startswith("Right")] == [
        "Right hepatic vein",
        "Right hepatic vein 2",
        "Right hepatic vein 3",
    ]


def test_points_that_are_not_placed_are_left_out_and_unknown_ones_refused(patient):
    markups = patient.landmarks()
    move(markups, "Inferior vena cava", (1, 0, 0))
    markups.UnsetNthControlPointPosition(point_of(markups, "Inferior vena cava"))
    assert landmarksFromNode(markups) == {}
    markups.AddControlPoint(1.0, 2.0, 3.0, "F-7")
    with pytest.raises(InputError, match="'F-7'"):
        landmarksFromNode(markups)


def test_landmarks_follow_a_transform(patient):
    markups = patient.landmarks()
    move(markups, "Inferior vena cava", (1, 0, 0))
    place = np.array(landmarksFromNode(markups)[IVC][0])
    matrix = np.eye(4)
    matrix[:3, 3] = (5, -7, 11)
    transform = patient.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrixFromArray(matrix))
    for node in (patient.volumeNode, patient.node, markups):
        node.SetAndObserveTransformNodeID(transform.GetID())
    assert np.allclose(landmarksFromNode(markups)[IVC][0], place + matrix[:3, 3])
    assert list(landmarksFromNode(markups)) == [IVC]
    couinaud = couinaud_for(patient.grid, patient.result.labels, landmarksFromNode(markups))
    setCouinaudSegments(patient.node, couinaud, patient.grid)
    assert np.array_equal(patient.read().labels, couinaud.labels)


def test_segments_follow_a_point_that_a_script_moves(patient):
    patient.divide()
    markups = patient.landmarks()
    follower = patient.follow()
    move(markups, "Gallbladder fossa", (-25, 0, 0))
    assert patient.heard == ["changed"]
    found = patient.read()
    assert found.provider == "landmarks" and "gallbladder fossa" in found.method
    assert np.array_equal(
        found.labels, couinaud_for(patient.grid, patient.result.labels, landmarksFromNode(markups)).labels
    )
    follower.close()
    move(markups, "Gallbladder fossa", (25, 0, 0))
    assert patient.heard == ["changed"]


def test_dragging_shows_a_preview_and_letting_go_divides(patient):
    patient.divide()
    markups = patient.landmarks()
    follower = patient.follow()
    events = slicer.vtkMRMLMarkupsNode
    before = patient.read().labels
    markups.InvokeEvent(events.PointStartInteractionEvent)
    for _ in range(3):
        move(markups, "Gallbladder fossa", (-6, 0, 0))
    previews = [
        node for node in slicer.util.getNodes("*preview*", scene=patient.scene).values() if node.GetHideFromEditors()
    ]
    assert len(previews) == 1 and not previews[0].GetSaveWithScene()
    assert areCouinaudSegmentsShown(previews[0]) and not areCouinaudSegmentsShown(patient.node)
    assert np.array_equal(patient.read().labels, before) and patient.heard == []
    markups.InvokeEvent(events.PointEndInteractionEvent)
    assert patient.heard == ["changed"] and previews[0].GetScene() is None
    assert areCouinaudSegmentsShown(patient.node)
    assert not np.array_equal(patient.read().labels, before)
    follower.close()


def test_impossible_landmarks_leave_the_segments_as_they_were(patient):
    patient.divide()
    markups = patient.landmarks()
    follower = patient.follow()
    before = patient.read().labels
    move(markups, "Gallbladder fossa", (900, 0, 0))
    assert len(patient.heard) == 1 and "outside the liver" in patient.heard[0]
    assert np.array_equal(patient.read().labels, before)
    move(markups, "Gallbladder fossa", (-890, 0, 0))
    assert patient.heard[1:] == ["changed"]
    follower.close()


def test_an_edited_liver_is_divided_as_it_is_now(patient):
    patient.divide()
    markups = patient.landmarks()
    follower = patient.follow()
    paint_ball(patient.node, "Liver", (32.0, -6.0, 52.0), 9)
    move(markups, "Gallbladder fossa", (-5, 0, 0))
    labels, _ = liverOfSegmentation(patient.node)
    assert np.array_equal(patient.read().labels > 0, labels > 0)
    follower.close()


def test_volumes_are_those_of_the_voxels(patient):
    table = LesionTable.create(patient.node, patient.volumeNode, patient.scene)
    couinaud = patient.divide()
    volumes = segmentVolumes(table)
    ml = patient.grid.voxel_volume_mm3 / 1000
    labels = patient.result.labels
    assert np.isclose(sum(volumes.couinaud_ml.values()), (labels > 0).sum() * ml)
    for value in volumes.couinaud_ml:
        assert np.isclose(volumes.couinaud_ml[value], (couinaud.labels == value).sum() * ml)
        assert np.isclose(
            volumes.couinaud_lesion_ml.get(value, 0), ((couinaud.labels == value) & (labels > 1)).sum() * ml
        )
    assert np.isclose(volumes.liver["parenchyma_ml"], (labels == 1).sum() * ml)
    table.setReview("Lesion_1", "rejected")
    rejected = segmentVolumes(table)
    assert sum(rejected.couinaud_lesion_ml.values()) < sum(volumes.couinaud_lesion_ml.values())
