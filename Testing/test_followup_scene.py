"""A comparison in real MRML: transform, table, colors, and two views that move together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")

from followup_studies import result_of, small_pair  # noqa: E402
from LiverCascadeLib.followup import Change, follow_up  # noqa: E402
from LiverCascadeLib.followup.deformation import Deformation  # noqa: E402
from LiverCascadeLib.followup.tables import CSV_COLUMNS  # noqa: E402
from LiverCascadeLib.geometry import Grid  # noqa: E402
from LiverCascadeLib.scene import (  # noqa: E402
    CompareViews,
    LesionTable,
    colorByChange,
    createScene,
    followUpTableNode,
    lesionTables,
    nodeFromVolume,
    ownColors,
    placesOf,
    segmentationFromResult,
    studySteps,
    transformNodeFromDeformation,
)
from LiverCascadeLib.scene.followup import CHANGE_COLORS, STUDY_ROLE, segmentOfLesion  # noqa: E402
from LiverCascadeLib.steps import exhausted  # noqa: E402


def add_view(scene, name: str, orientation: str):
    # Made by the scene, a view knows the scene's presets of orientations.
    node = scene.CreateNodeByClass("vtkMRMLSliceNode")
    node.UnRegister(None)
    node.SetLayoutName(name)
    node.SetSingletonTag(name)
    node = scene.AddNode(node)
    node.SetOrientation(orientation)
    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName(name)
    composite.SetSingletonTag(name)
    scene.AddNode(composite)
    return node


def center(node) -> np.ndarray:
    return np.array([node.GetSliceToRAS().GetElement(row, 3) for row in range(3)])


@pytest.fixture(scope="module")
def compared():
    pair = small_pair()
    scene = createScene()
    tables = []
    for case in (pair.earlier, pair.later):
        result = result_of(case)
        volumeNode = nodeFromVolume(result.volume, scene)
        node = segmentationFromResult(result, scene, volumeNode)
        tables.append(LesionTable.create(node, volumeNode, scene))
    studies = [exhausted(studySteps(table)) for table in tables]
    return pair, scene, tables, follow_up(studies)


def test_tables_of_the_scene_are_found_and_compared(compared):
    pair, scene, tables, found = compared
    assert [table.tableNode for table in lesionTables(scene)] == [table.tableNode for table in tables]
    sites = {tuple(tuple(x.label for x in lesions) for lesions in track.lesions) for track in found.tracks}
    assert sites == {(link.before, link.after) for link in pair.links}


def test_label_of_a_lesion_leads_to_its_segment(compared):
    _, _, tables, found = compared
    for lesion in found.studies[0].assessment.lesions:
        segmentId = segmentOfLesion(tables[0], lesion.label)
        assert tables[0].segmentationNode.GetSegmentation().GetSegment(segmentId).GetName() == lesion.name
    assert segmentOfLesion(tables[0], 99) == ""


def test_transform_node_takes_points_where_the_deformation_takes_them(compared):
    _, scene, _, found = compared
    deformation = found.steps[0].registration.deformation
    node = transformNodeFromDeformation(deformation, scene, "first to second")
    points = deformation.grid.to_ras(np.random.default_rng(0).uniform(2, 8, (20, 3)))
    moved = [node.GetTransformToParent().TransformPoint(*point.tolist()) for point in points]
    assert np.abs(np.array(moved) - deformation.apply(points)).max() < 1e-3
    back = [node.GetTransformFromParent().TransformPoint(*point) for point in moved]
    assert np.abs(np.array(back) - points).max() < 0.1


def test_oblique_left_handed_deformation_becomes_the_same_transform():
    angle = np.deg2rad(25)
    matrix = np.eye(4)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    matrix[:3, :3] = turn @ np.diag([-4.0, 5.0, 6.0])
    matrix[:3, 3] = (30, -20, 10)
    rng = np.random.default_rng(1)
    grid = Grid((9, 8, 7), matrix)
    deformation = Deformation(grid, rng.normal(0, 1, (*grid.shape, 3)).astype(np.float32))
    node = transformNodeFromDeformation(deformation, createScene(), "warp")
    points = grid.to_ras(rng.uniform(1, 6, (20, 3)))
    moved = [node.GetTransformToParent().TransformPoint(*point.tolist()) for point in points]
    assert np.abs(np.array(moved) - deformation.apply(points)).max() < 1e-3


def test_transform_survives_a_file(compared, tmp_path):
    _, scene, _, found = compared
    deformation = found.steps[0].registration.deformation
    node = transformNodeFromDeformation(deformation, scene, "saved")
    storage = scene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    storage.SetFileName(str(tmp_path / "t.h5"))
    assert storage.WriteData(node)
    again = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    assert storage.ReadData(again)
    points = deformation.grid.to_ras(np.random.default_rng(0).uniform(2, 8, (10, 3)))
    moved = [again.GetTransformToParent().TransformPoint(*point.tolist()) for point in points]
    # A transform that was loaded interpolates by cubic splines.
    assert np.abs(np.array(moved) - deformation.apply(points)).max() < 0.2


def test_table_node_has_a_row_per_site_and_study_and_is_filled_anew(compared):
    _, scene, tables, found = compared
    node = followUpTableNode(found, tables, scene)
    assert node.GetNumberOfRows() == 2 * len(found.tracks) and node.GetNumberOfColumns() == len(CSV_COLUMNS)
    changes = {node.GetCellText(row, CSV_COLUMNS.index("change")) for row in range(node.GetNumberOfRows())}
    assert {"new", "resolved", "grown", "shrunk", "stable"} <= changes
    studies = [node.GetNthNodeReference(STUDY_ROLE, n) for n in range(node.GetNumberOfNodeReferences(STUDY_ROLE))]
    assert studies == [table.segmentationNode for table in tables]
    assert LesionTable.of(node) is None, "it is not taken for a table of lesions"
    other = next(lesion.label for lesion in found.studies[0].assessment.lesions if lesion.label not in found.targets)
    followUpTableNode(found.with_targets([other]), tables, scene, node)
    targets = [node.GetCellText(row, CSV_COLUMNS.index("is_target")) for row in range(node.GetNumberOfRows())]
    assert targets.count("yes") == 2 and node.GetNumberOfNodeReferences(STUDY_ROLE) == 2


def test_colors_tell_the_change_and_go_without_a_trace(compared):
    _, _, tables, found = compared
    colorByChange(found, tables)
    for track in found.tracks:
        for study in (0, 1):
            for lesion in track.lesions[study]:
                display = tables[study].segmentationNode.GetDisplayNode()
                color = display.GetSegmentOverrideColor(segmentOfLesion(tables[study], lesion.label))
                assert tuple(color) == pytest.approx(CHANGE_COLORS[track.changes[1]])
    assert not any(table.isEdited() for table in tables)
    ownColors(tables)
    display = tables[0].segmentationNode.GetDisplayNode()
    assert all(value < 0 for value in display.GetSegmentOverrideColor(tables[0].countedIds()[0]))


def test_place_of_a_lesion_that_is_gone_or_new_is_where_its_tissue_is(compared):
    pair, _, _, found = compared
    nearest = {}
    for track in found.tracks:
        before, after = placesOf(found, track)
        nearest[track.changes[1]] = min(
            np.linalg.norm(pair.points - before, axis=1).min(), np.linalg.norm(pair.images - after, axis=1).min()
        )
        index = np.linalg.norm(pair.points - before, axis=1).argmin()
        assert np.linalg.norm(pair.images[index] - after) < 20
    assert {Change.NEW, Change.RESOLVED} <= nearest.keys()


def test_two_views_follow_each_other_and_are_put_back(compared):
    _, _, _, found = compared
    scene = createScene()
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
    red, yellow = add_view(scene, "Red", "Coronal"), add_view(scene, "Yellow", "Sagittal")
    volumes = [scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in ("a", "b")]
    composite = scene.GetSingletonNode("Yellow", "vtkMRMLSliceCompositeNode")
    composite.SetBackgroundVolumeID(volumes[0].GetID())
    deformation = found.steps[0].registration.deformation
    views = CompareViews(scene, volumes, deformation)
    assert views.isUsable and red.GetOrientation() == yellow.GetOrientation() == "Axial"
    assert composite.GetBackgroundVolumeID() == volumes[1].GetID()
    for track in found.tracks:
        before, after = placesOf(found, track)
        views.show(before, after)
        assert center(red) == pytest.approx(before) and center(yellow) == pytest.approx(after)
    place = np.array([40.0, 0.0, 15.0])
    red.JumpSliceByCentering(*place)
    assert center(yellow) == pytest.approx(deformation.apply(place), abs=0.1)
    yellow.JumpSliceByCentering(*(center(yellow) + np.array([3, 0, 4])))
    assert center(red) == pytest.approx(deformation.invert(center(yellow)), abs=0.1)
    views.close()
    assert (red.GetOrientation(), yellow.GetOrientation()) == ("Coronal", "Sagittal")
    assert composite.GetBackgroundVolumeID() == volumes[0].GetID()
    kept = center(yellow)
    red.JumpSliceByCentering(0, 0, 0)
    assert center(yellow) == pytest.approx(kept)


def test_scene_without_views_is_no_error(compared):
    _, _, _, found = compared
    views = CompareViews(createScene(), [None, None], found.steps[0].registration.deformation)
    assert not views.isUsable
    views.show(np.zeros(3), np.zeros(3))
    views.close()


def test_every_change_has_a_color_and_words_of_its_own_kind():
    from LiverCascadeLib.followup import CHANGE_WORDS

    assert set(CHANGE_COLORS) == set(Change) == set(CHANGE_WORDS)
    assert all(one != other for one, other in pairwise(sorted(CHANGE_WORDS.values())))
