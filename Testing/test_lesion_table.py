"""The table of lesions in real MRML, and how it follows the edits of Slicer's Segment Editor."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")

from analytic_bodies import (  # noqa: E402
    LESIONS,
    LIVER,
    TEST_GRIDS,
    Ellipsoid,
    analytic_result,
    rasterize,
    result_from_masks,
    rotation,
)
from LiverCascadeLib.errors import InputError, OutputError  # noqa: E402
from LiverCascadeLib.geometry import Box, Grid  # noqa: E402
from LiverCascadeLib.lesions.assess import assess_result  # noqa: E402
from LiverCascadeLib.report.files import LESION_COLUMNS, write_lesions  # noqa: E402
from LiverCascadeLib.report.reopen import reopen  # noqa: E402
from LiverCascadeLib.result import Lesion, Result, summarize  # noqa: E402
from LiverCascadeLib.scene import (  # noqa: E402
    REVIEWS,
    LesionTable,
    assessmentFromTable,
    createClosedSurface,
    createScene,
    export,
    exportResult,
    nodeFromVolume,
    resultLabelsFromSegmentation,
    segmentationFromResult,
    segmentations,
    terminology,
    volumes,
)
from LiverCascadeLib.scene.table_store import RECORDS_ATTRIBUTE  # noqa: E402
from LiverCascadeLib.volume import Volume, read_labels, write_labels  # noqa: E402
from segment_editor import SegmentEditor  # noqa: E402

FIRST, SECOND = "Lesion_1", "Lesion_2"
NEAR_FIRST = np.add(LESIONS[0].center_ras, (10, 0, 0))
NEAR_SECOND = np.add(LESIONS[1].center_ras, (8, 0, 0))
FREE = (10.0, -30.0, 30.0)  # liver without lesion


class Case:
    """A run's result in a scene, with its table and an editor."""

    def __init__(self, grid: Grid = TEST_GRIDS["LPS"], overwrite: str = "OverwriteAllSegments"):
        self.scene = createScene()
        self.result = analytic_result(grid)
        self.volumeNode = nodeFromVolume(self.result.volume, self.scene)
        self.node = segmentationFromResult(self.result, self.scene, self.volumeNode)
        self.table = LesionTable.create(self.node, self.volumeNode, self.scene)
        self.editor = SegmentEditor(self.scene, self.node, self.volumeNode, overwrite)

    @property
    def segmentation(self):
        return self.node.GetSegmentation()

    def row(self, segmentId: str):
        return next(row for row in self.table.rows() if row.segmentId == segmentId)

    def ids(self) -> list[str]:
        return [row.segmentId for row in self.table.rows()]

    def voxels(self, segmentId: str) -> int:
        labels = resultLabelsFromSegmentation(self.node, self.result.volume.grid, [segmentId])
        return int((labels == 2).sum())

    def assert_rows_are_true(self) -> None:
        """Every row says what the segment covers, counted without the table's own means."""
        for row in self.table.rows():
            expected = self.voxels(row.segmentId) * self.result.volume.grid.voxel_volume_mm3 / 1000
            assert row.volumeMl == pytest.approx(expected), row.name


@pytest.fixture
def case() -> Case:
    return Case()


@pytest.mark.parametrize("grid", TEST_GRIDS.values(), ids=TEST_GRIDS)
def test_a_new_table_says_what_the_run_found(grid):
    case = Case(grid)
    assert case.table.tableNode.GetName() == "body liver lesions"
    assert [row.name for row in case.table.rows()] == ["Lesion 1", "Lesion 2"]
    assert [row.number for row in case.table.rows()] == [1, 2]
    for row, lesion in zip(case.table.rows(), case.result.lesions, strict=True):
        assert row.volumeMl == pytest.approx(lesion.volume_ml, rel=1e-5)
        assert row.centroidRas == pytest.approx(lesion.centroid_ras, abs=1e-3)
        assert row.values["equivalent_diameter_mm"] == pytest.approx(
            (6000 * lesion.volume_ml / np.pi) ** (1 / 3), rel=1e-5
        )
        assert (row.review, row.comment) == ("unreviewed", "")
    assert case.table.liverVolumeMl() == pytest.approx(case.result.liver_volume_ml, rel=1e-5)
    assert case.table.summary() == case.result.summary
    assert case.table.foreignSegments() == []
    assert not case.table.isEdited()


def test_segmentation_volume_and_table_know_each_other(case):
    assert case.table.segmentationNode is case.node
    assert case.table.volumeNode is case.volumeNode
    assert LesionTable.find(case.node).tableNode is case.table.tableNode
    assert LesionTable.of(case.table.tableNode).segmentationNode is case.node
    assert LesionTable.create(case.node, case.volumeNode, case.scene).tableNode is case.table.tableNode


def test_other_nodes_have_no_table(case):
    assert LesionTable.find(case.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")) is None
    assert LesionTable.of(case.scene.AddNewNodeByClass("vtkMRMLTableNode")) is None
    clone = case.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    clone.Copy(case.node)
    assert LesionTable.find(clone) is None


def test_nothing_is_measured_again_where_nothing_changed(case):
    stamp = case.table.tableNode.GetMTime()
    assert case.table.update() == []
    createClosedSurface(case.node)
    case.node.GetDisplayNode().SetSegmentVisibility(FIRST, False)
    assert case.table.update() == []
    assert case.table.tableNode.GetMTime() == stamp


@pytest.mark.parametrize("overwrite", ["OverwriteAllSegments", "OverwriteVisibleSegments", "OverwriteNone"])
def test_painting_and_erasing_measure_the_edited_lesion_only(overwrite):
    case = Case(overwrite=overwrite)
    before = case.row(SECOND)
    other = case.row(FIRST)
    case.editor.paint(SECOND, NEAR_SECOND, 9)
    assert case.row(SECOND) == before
    assert case.table.update() == [SECOND]
    assert case.row(SECOND).volumeMl > before.volumeMl
    assert case.row(SECOND).centroidRas[0] > before.centroidRas[0]
    case.assert_rows_are_true()
    case.editor.erase(SECOND, NEAR_SECOND, 12)
    assert case.table.update() == [SECOND]
    assert case.row(SECOND).volumeMl < before.volumeMl
    assert case.row(FIRST) == other
    case.assert_rows_are_true()
    assert case.table.isEdited()


def test_edits_with_a_surface_shown_are_followed(case):
    createClosedSurface(case.node)
    case.editor.paint(FIRST, NEAR_FIRST, 10)
    assert case.table.update() == [FIRST]
    case.assert_rows_are_true()


def test_painting_one_lesion_over_another_measures_both(case):
    case.editor.paint(SECOND, LESIONS[0].center_ras, 8)
    assert sorted(case.table.update()) == [FIRST, SECOND]
    case.assert_rows_are_true()


def test_overlapping_lesions_move_to_layers_of_their_own_and_stay_true():
    case = Case(overwrite="OverwriteNone")
    before = case.row(FIRST)
    assert case.segmentation.GetNumberOfLayers("Binary labelmap") == 2
    case.editor.paint(SECOND, LESIONS[0].center_ras, 8)
    assert case.segmentation.GetNumberOfLayers("Binary labelmap") == 3
    assert case.table.update() == [SECOND]
    assert case.row(FIRST) == before
    case.segmentation.CollapseBinaryLabelmaps(False)
    assert case.table.update() == []


def test_an_edit_of_the_liver_measures_no_lesion_but_changes_the_sentence(case):
    before = case.table.liverVolumeMl()
    case.editor.erase("Liver", FREE, 12)
    assert case.table.update() == []
    assert case.table.liverVolumeMl() < before - 4
    assert case.table.isEdited()


def test_the_liver_keeps_what_the_editor_took_from_it_for_a_lesion(case):
    before = case.table.liverVolumeMl()
    case.editor.paint(FIRST, LESIONS[0].center_ras, 20)
    assert resultLabelsFromSegmentation(case.node, case.result.volume.grid, []).sum() < (case.result.labels > 0).sum()
    case.table.update()
    assert case.table.liverVolumeMl() == pytest.approx(before, rel=1e-5)


def test_a_lesion_painted_beyond_the_liver_belongs_to_it():
    case = Case(overwrite="OverwriteNone")
    before = case.table.liverVolumeMl()
    outside = np.add(LIVER.center_ras, (0, 0, 44))
    case.editor.paint(FIRST, outside, 6)
    case.table.update()
    labels = resultLabelsFromSegmentation(case.node, case.result.volume.grid, [FIRST])
    expected = (labels > 0).sum() * case.result.volume.grid.voxel_volume_mm3 / 1000
    assert case.table.liverVolumeMl() == pytest.approx(expected, rel=1e-5)
    assert expected > before
    case.table.setReview(FIRST, "rejected")
    assert case.table.liverVolumeMl() == pytest.approx(before, rel=1e-5)


def test_undo_and_redo_are_followed(case):
    start = case.row(SECOND)
    case.editor.paint(SECOND, NEAR_SECOND, 9)
    case.table.update()
    painted = case.row(SECOND)
    case.editor.undo()
    assert case.table.update() == [SECOND]
    assert case.row(SECOND) == start
    assert not case.table.isEdited()
    case.editor.redo()
    assert case.table.update() == [SECOND]
    assert case.row(SECOND) == painted
    case.assert_rows_are_true()


def test_a_removed_segment_loses_its_row_and_undo_brings_it_back_with_its_review(case):
    case.table.setReview(SECOND, "rejected")
    case.table.setComment(SECOND, "a vessel")
    before = case.row(SECOND)
    case.editor.remove(SECOND)
    assert case.table.update() == []
    assert case.ids() == [FIRST]
    assert "1 lesion," in case.table.summary()
    case.editor.undo()
    assert case.table.update() == [SECOND]
    assert case.row(SECOND) == before
    assert not case.node.GetDisplayNode().GetSegmentVisibility(SECOND)


def test_a_segment_that_is_only_a_surface_has_no_volume(case):
    segmentId = case.editor.add()
    segment = case.segmentation.GetSegment(segmentId)
    segment.RemoveAllRepresentations()
    case.table.makeLesion(segmentId)
    assert case.row(segmentId).volumeMl == 0


def test_islands_that_are_split_off_a_lesion_are_lesions(case):
    case.editor.paint(FIRST, FREE, 6)
    case.editor.paint(FIRST, (FREE[0], FREE[1] + 20, FREE[2]), 4)
    case.table.update()
    whole = case.row(FIRST).volumeMl
    untouched = case.row(SECOND)
    new = case.editor.splitIslands(FIRST)
    assert len(new) == 2
    assert sorted(case.table.update()) == sorted([FIRST, *new])
    assert [case.row(segmentId).name for segmentId in new] == ["Lesion 1_2", "Lesion 1_3"]
    assert sum(case.row(segmentId).volumeMl for segmentId in [FIRST, *new]) == pytest.approx(whole)
    assert case.row(SECOND) == untouched
    for segmentId in new:
        segment = case.segmentation.GetSegment(segmentId)
        assert segment.GetTerminology() == terminology.LESION_TERMINOLOGY
        assert np.allclose(segment.GetColor(), np.array(terminology.LESION_COLOR) / 255)
    case.assert_rows_are_true()
    case.editor.undo()
    assert case.table.update() == [FIRST]
    assert case.ids() == [FIRST, SECOND]
    case.editor.redo()
    assert sorted(case.table.update()) == sorted([FIRST, *new])


def test_islands_of_the_liver_are_no_lesions():
    case = Case(overwrite="OverwriteNone")
    case.editor.paint("Liver", (-80.0, -6.0, 11.0), 5)
    new = case.editor.splitIslands("Liver")
    assert case.table.update() == []
    assert case.table.foreignSegments() == new


def test_an_own_new_segment_becomes_a_lesion_by_one_call(case):
    segmentId = case.editor.add()
    # The editor repeats the terminology of the last segment, which nobody asked for.
    assert terminology.isLesionType(case.segmentation.GetSegment(segmentId))
    assert case.table.update() == []
    assert case.table.foreignSegments() == [segmentId]
    case.editor.paint(segmentId, FREE, 7)
    assert case.table.update() == []
    assert case.ids() == [FIRST, SECOND]
    case.table.makeLesion(segmentId)
    assert case.ids() == [FIRST, SECOND, segmentId]
    assert case.table.foreignSegments() == []
    assert case.row(segmentId).name == "Lesion 3"
    assert case.row(segmentId).centroidRas == pytest.approx(FREE, abs=1)
    case.assert_rows_are_true()


def test_a_new_segment_with_a_name_keeps_it(case):
    segmentId = case.editor.add()
    case.segmentation.GetSegment(segmentId).SetTerminology("")
    case.segmentation.GetSegment(segmentId).SetName("metastasis")
    case.table.update()
    assert case.table.foreignSegments() == [segmentId]
    case.table.makeLesion(segmentId)
    assert case.row(segmentId).name == "metastasis"
    assert case.row(segmentId).number is None


def test_a_new_segment_stays_foreign_when_it_is_renamed_unless_to_a_lesion(case):
    segmentId = case.editor.add()
    case.table.update()
    case.segmentation.GetSegment(segmentId).SetName("portal vein")
    case.table.update()
    assert case.table.foreignSegments() == [segmentId]
    case.segmentation.GetSegment(segmentId).SetName("Lesion 7")
    case.table.update()
    assert case.ids() == [FIRST, SECOND, segmentId]
    assert case.table.foreignSegments() == []


def test_numbers_are_not_given_twice(case):
    case.editor.remove(SECOND)
    case.table.update()
    segmentId = case.editor.add()
    case.table.makeLesion(segmentId)
    assert case.row(segmentId).name == "Lesion 3"


def test_a_segment_whose_terminology_is_changed_comes_and_goes(case):
    segment = case.segmentation.GetSegment(SECOND)
    segment.SetTerminology(terminology.LIVER_TERMINOLOGY.replace("10200004^Liver", "32764006^Portal vein"))
    case.table.update()
    assert case.ids() == [FIRST]
    assert case.table.foreignSegments() == [SECOND]
    segment.SetTerminology(terminology.LESION_TERMINOLOGY)
    case.table.update()
    assert case.ids() == [FIRST, SECOND]


def test_couinaud_segments_are_neither_lesions_nor_foreign(case):
    segmentId = case.editor.add()
    segment = case.segmentation.GetSegment(segmentId)
    segment.SetTerminology(
        terminology.LIVER_TERMINOLOGY.replace("10200004^Liver", "71133005^Couinaud hepatic segment I")
    )
    case.table.update()
    assert case.table.foreignSegments() == []
    assert case.ids() == [FIRST, SECOND]


def test_couinaud_codes_are_those_of_the_terminology_file():
    path = Path(terminology.__file__).parents[2] / "Resources" / "LiverCascade.term.json"
    groups = json.loads(path.read_text(encoding="utf-8"))["SegmentationCodes"]["Category"]
    codes = {
        f"SCT^{kind['CodeValue']}" for group in groups for kind in group["Type"] if "Couin" in kind["CodeMeaning"]
    }
    assert codes == terminology.COUINAUD_CODES


def test_rows_follow_the_order_and_the_names_of_the_segments(case):
    case.segmentation.SetSegmentIndex(SECOND, 1)
    case.segmentation.GetSegment(SECOND).SetName("the other one")
    assert case.table.update() == []
    assert [row.name for row in case.table.rows()] == ["the other one", "Lesion 1"]
    assert case.table.tableNode.GetTable().GetValueByName(0, "name").ToString() == "the other one"
    assert case.table.isEdited()


def test_a_rejected_lesion_is_hidden_and_leaves_the_sums(case):
    display = case.node.GetDisplayNode()
    case.table.setReview(FIRST, "rejected")
    assert not display.GetSegmentVisibility(FIRST)
    assert display.GetSegmentVisibility(SECOND)
    assert case.table.lesionVolumeMl() == pytest.approx(case.row(SECOND).volumeMl)
    assert case.table.summary().endswith("% of the liver); 1 more was rejected.")
    assert case.table.liverVolumeMl() == pytest.approx(case.result.liver_volume_ml, rel=1e-5)
    case.table.setReview(SECOND, "rejected")
    assert case.table.summary().endswith("; no lesion found; 2 more were rejected.")
    case.table.setReview(FIRST, "unsure")
    assert display.GetSegmentVisibility(FIRST)
    assert case.table.lesionVolumeMl() == pytest.approx(case.row(FIRST).volumeMl)
    assert not case.table.isEdited()
    assert case.table.isReviewed()


def test_accepting_does_not_show_what_the_user_hid(case):
    display = case.node.GetDisplayNode()
    display.SetSegmentVisibility(FIRST, False)
    case.table.setReview(FIRST, "accepted")
    assert not display.GetSegmentVisibility(FIRST)


def test_a_review_survives_edits_of_its_lesion(case):
    case.table.setReview(FIRST, "accepted")
    case.table.setComment(FIRST, "larger than before")
    case.editor.paint(FIRST, NEAR_FIRST, 10)
    case.table.update()
    assert (case.row(FIRST).review, case.row(FIRST).comment) == ("accepted", "larger than before")


def test_unknown_reviews_and_lesions_are_refused(case):
    with pytest.raises(ValueError, match="'maybe' is no review"):
        case.table.setReview(FIRST, "maybe")
    for call in (case.table.makeLesion, lambda name: case.table.setComment(name, "")):
        with pytest.raises(KeyError):
            call("nobody")
    with pytest.raises(KeyError):
        case.table.setReview("Liver", REVIEWS[1])


def test_an_erased_lesion_keeps_its_row_but_does_not_count(case):
    case.editor.erase(SECOND, LESIONS[1].center_ras, 20)
    assert case.table.update() == [SECOND]
    assert case.row(SECOND).volumeMl == 0
    assert np.isnan(case.row(SECOND).centroidRas).all()
    assert "1 lesion," in case.table.summary()
    assert LesionTable.find(case.node).rows()[1].volumeMl == 0


def test_without_lesions_and_without_a_liver_the_sentence_says_so():
    scene = createScene()
    grid = TEST_GRIDS["RAS"]
    for result in (
        result_from_masks(grid, rasterize(LIVER, grid), []),
        Result(Volume(np.zeros(grid.shape, np.int16), grid, "head"), np.zeros(grid.shape, np.uint8), (), 0.0),
    ):
        node = segmentationFromResult(result, scene, nodeFromVolume(result.volume, scene))
        table = LesionTable.create(node, None, scene)
        assert table.rows() == []
        assert table.summary() == result.summary
        assert table.volumeNode is None


def test_under_a_linear_transform_figures_are_those_of_the_patient():
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((0, 1, 1), 17), (9.0, -4.0, 6.0)
    grid = TEST_GRIDS["LPS"]
    scene = createScene()
    node = nodeFromVolume(Volume(np.zeros(grid.shape, np.int16), grid.transformed(np.linalg.inv(matrix))), scene)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(volumes.matrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    result = analytic_result(grid)
    segmentation = segmentationFromResult(result, scene, node)
    table = LesionTable.create(segmentation, node, scene)
    assert table.rows()[0].centroidRas == pytest.approx(result.lesions[0].centroid_ras, abs=1e-3)
    # Scaled by two along one axis: figures of the new world.
    transform.SetMatrixTransformToParent(volumes.matrixFromArray(np.diag([2.0, 1, 1, 1]) @ matrix))
    assert table.update() == [FIRST, SECOND]
    row = table.rows()[0]
    assert row.volumeMl == pytest.approx(2 * result.lesions[0].volume_ml, rel=1e-5)
    expected = np.array(result.lesions[0].centroid_ras) * (2, 1, 1)
    assert row.centroidRas == pytest.approx(expected, abs=1e-3)
    assert table.liverVolumeMl() == pytest.approx(2 * result.liver_volume_ml, rel=1e-5)
    segmentation.HardenTransform()
    table.update()
    assert table.rows()[0].volumeMl == pytest.approx(row.volumeMl, rel=1e-5)
    assert not table.isEdited()


def test_under_a_non_linear_transform_the_table_still_answers(case):
    transform = case.scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    before = case.row(FIRST)
    case.node.SetAndObserveTransformNodeID(transform.GetID())
    case.table.update()
    assert case.row(FIRST).volumeMl == pytest.approx(before.volumeMl, rel=1e-3)
    with pytest.raises(InputError, match="non-linear"):
        exportResult(case.table, "nowhere")


def test_a_segmentation_that_is_gone_leaves_a_quiet_table(case):
    case.scene.RemoveNode(case.volumeNode)
    assert case.table.volumeNode is None
    assert case.table.caseName() == "body liver"
    case.scene.RemoveNode(case.node)
    assert case.table.segmentationNode is None
    assert case.table.rows() == case.table.foreignSegments() == case.table.update() == []
    assert case.table.summary() == "No liver was found."
    assert not case.table.isEdited()
    with pytest.raises(InputError, match="no longer in the scene"):
        exportResult(case.table, "nowhere")


AWKWARD = 'tab\there, "quotes", line\nbreak; ünïcode – ×, =1+1, <b> & 100 % \\ '


def save_and_load(scene, other, folder: Path) -> None:
    """Adds to the scene ``other`` what was saved of ``scene`` in a .mrb, by MRML's own writer and reader."""
    assert scene.WriteToMRB(str(folder / "saved.mrb"))
    (folder / "unpacked").mkdir()
    other.SetURL(other.UnpackSlicerDataBundle(str(folder / "saved.mrb"), str(folder / "unpacked")))
    assert other.Import()


def test_everything_survives_saving_and_loading(case, tmp_path):
    case.editor.paint(SECOND, NEAR_SECOND, 9)
    segmentId = case.editor.add()
    case.editor.paint(segmentId, FREE, 7)
    case.table.makeLesion(segmentId)
    own = case.editor.add()
    case.editor.paint(own, (-20.0, 0.0, 11.0), 4)
    case.table.update()
    case.table.setReview(FIRST, "rejected")
    case.table.setReview(SECOND, "accepted")
    case.table.setComment(SECOND, AWKWARD)
    case.table.setComment(segmentId, "12")
    before, sentence = case.table.rows(), case.table.summary()
    scene = createScene()
    save_and_load(case.scene, scene, tmp_path)
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    table = LesionTable.find(node)
    assert table.segmentationNode is node
    assert table.volumeNode is scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert table.rows() == before
    assert table.update() == []
    assert table.rows() == before
    assert table.foreignSegments() == [own]
    assert table.summary() == sentence
    assert table.isEdited()
    assert not node.GetDisplayNode().GetSegmentVisibility(FIRST)
    view = table.tableNode.GetTable()
    assert view.GetNumberOfRows() == 3
    assert [view.GetValueByName(n, "review").ToString() for n in range(3)] == ["rejected", "accepted", "unreviewed"]
    SegmentEditor(scene, node, table.volumeNode).paint(FIRST, NEAR_FIRST, 10)
    assert table.update() == [FIRST]


def test_an_untouched_result_is_not_edited_after_loading(case, tmp_path):
    scene = createScene()
    # Into a scene that has nodes already, so that ids change.
    segmentationFromResult(case.result, scene, nodeFromVolume(case.result.volume, scene))
    save_and_load(case.scene, scene, tmp_path)
    nodes = scene.GetNodesByClass("vtkMRMLSegmentationNode")
    nodes.UnRegister(None)
    tables = [LesionTable.find(nodes.GetItemAsObject(n)) for n in range(nodes.GetNumberOfItems())]
    (table,) = [table for table in tables if table is not None]
    assert not table.isEdited()
    assert table.update() == []


def test_a_table_of_an_older_version_is_measured_again(case):
    content = json.loads(case.table.tableNode.GetAttribute(RECORDS_ATTRIBUTE))
    del content["lesions"][FIRST]["values"]["equivalent_diameter_mm"]
    content["lesions"][FIRST]["comment"] = "kept"
    case.table.tableNode.SetAttribute(RECORDS_ATTRIBUTE, json.dumps(content))
    table = LesionTable.find(case.node)
    assert np.isnan(table.rows()[0].values["equivalent_diameter_mm"])
    assert table.update() == [FIRST]
    assert table.rows()[0].values["equivalent_diameter_mm"] > 0
    assert table.rows()[0].comment == "kept"
    case.table.tableNode.SetAttribute(RECORDS_ATTRIBUTE, json.dumps({**content, "version": 99}))
    assert LesionTable.find(case.node) is None


def test_a_table_of_the_first_version_keeps_what_the_reader_said(case):
    content = json.loads(case.table.tableNode.GetAttribute(RECORDS_ATTRIBUTE))
    lesions = {
        segmentId: {
            "fingerprint": kept["fingerprint"],
            "values": {"volume_ml": 1.0, "diameter_mm": 12.0, "centroid_r_mm": 0.0},
            "review": "accepted",
            "comment": f"of {segmentId}",
        }
        for segmentId, kept in content["lesions"].items()
    }
    old = {key: content[key] for key in ("inherited", "world", "highest_number")}
    case.table.tableNode.SetAttribute(RECORDS_ATTRIBUTE, json.dumps({"version": 1, "lesions": lesions, **old}))
    table = LesionTable.find(case.node)
    assert [(row.review, row.comment) for row in table.rows()] == [("accepted", f"of {n}") for n in (FIRST, SECOND)]
    assert table.update() == [FIRST, SECOND]
    before = case.table.rows()
    assert [row.values for row in table.rows()] == [row.values for row in before]
    assert [row.trackingUid for row in table.rows()] == [row.trackingUid for row in before]


@pytest.mark.parametrize("grid", TEST_GRIDS.values(), ids=TEST_GRIDS)
def test_figures_in_the_scene_are_those_of_the_same_labels_in_files(grid):
    case = Case(grid)
    for row, lesion in zip(case.table.rows(), assess_result(case.result).lesions, strict=True):
        for key, value in lesion.values.items():
            same = pytest.approx(value, rel=1e-4, abs=1e-3, nan_ok=True) if isinstance(value, float) else value
            assert row.values[key] == same, key
        assert row.trackingUid == lesion.tracking_uid
        assert row.longAxis.length_mm == pytest.approx(row.longAxisMm) and row.shortAxisMm > 0


def test_segments_of_other_voxels_than_those_of_the_ct_are_measured_too():
    case, other = Case(TEST_GRIDS["RAS"]), Case(TEST_GRIDS["oblique"])
    node = nodeFromVolume(other.result.volume, case.scene)
    table = LesionTable.create(case.node, node, case.scene)
    for row, lesion in zip(table.rows(), assess_result(case.result).lesions, strict=True):
        # One voxel more or less of either, where the boundaries of both differ.
        assert row.values["mean_hu"] == pytest.approx(50, abs=8)
        assert row.values["contrast_hu"] == pytest.approx(-60, abs=8)
        assert row.values["capsule_distance_mm"] == lesion.values["capsule_distance_mm"]
        assert 0 < row.values["slice_first"] < row.values["slice_last"] <= other.result.volume.grid.size[2]


def test_what_lies_around_a_lesion_is_followed_without_measuring_it_again(case):
    before = {n: case.row(n).values for n in (FIRST, SECOND)}
    # The liver ends nearer to the second lesion now, and far from the first one's shell.
    case.editor.erase("Liver", np.add(LESIONS[1].center_ras, (-20, 0, 0)), 6)
    assert case.table.update() == []
    after = {n: case.row(n).values for n in (FIRST, SECOND)}
    assert after[SECOND]["capsule_distance_mm"] < before[SECOND]["capsule_distance_mm"]
    assert after[FIRST] == before[FIRST]
    same = set(after[SECOND]) - {"capsule_distance_mm", "contrast_hu"}
    assert all(after[SECOND][key] == before[SECOND][key] or key == "confidence" for key in same)
    case.editor.undo()
    assert case.table.update() == []
    assert case.row(SECOND).values == before[SECOND]


def test_a_new_object_measures_surroundings_that_changed_while_nobody_watched(case):
    case.editor.erase("Liver", np.add(LESIONS[1].center_ras, (-20, 0, 0)), 6)
    fresh = LesionTable.find(case.node)
    assert fresh.update() == []
    case.table.update()
    assert [row.values for row in fresh.rows()] == [row.values for row in case.table.rows()]


def test_a_neighbor_is_no_liver_until_it_is_rejected():
    grid = TEST_GRIDS["RAS"]
    close = Ellipsoid(tuple(np.add(LESIONS[0].center_ras, (-24, 0, 0))), (6.0, 6.0, 6.0))
    result = result_from_masks(grid, rasterize(LIVER, grid), [rasterize(body, grid) for body in (LESIONS[0], close)])
    array = result.volume.array
    array[result.labels == 3] = 500
    scene = createScene()
    volumeNode = nodeFromVolume(result.volume, scene)
    table = LesionTable.create(segmentationFromResult(result, scene, volumeNode), volumeNode, scene)
    assert table.rows()[0].values["contrast_hu"] == -60
    table.setReview(SECOND, "rejected")
    assert table.rows()[0].values["contrast_hu"] < -65
    table.setReview(SECOND, "unreviewed")
    assert table.rows()[0].values["contrast_hu"] == -60


def test_taking_the_ct_away_keeps_its_figures_until_a_lesion_is_edited(case):
    before = case.row(FIRST).values
    case.scene.RemoveNode(case.volumeNode)
    assert case.table.update() == []
    assert case.row(FIRST).values == before
    case.editor.paint(SECOND, NEAR_SECOND, 9)
    assert case.table.update() == [SECOND]
    assert np.isnan(case.row(SECOND).values["mean_hu"]) and case.row(SECOND).longAxisMm > 0


def test_another_ct_has_everything_measured_again(case):
    volume = case.result.volume
    darker = nodeFromVolume(Volume(volume.array - np.int16(10), volume.grid, "darker"), case.scene)
    table = LesionTable.create(case.node, darker, case.scene)
    assert [row.values["mean_hu"] for row in table.rows()] == [40, 40]


def test_confidence_belongs_to_the_voxels_that_the_run_found(case):
    result = replace(case.result, confidences={1: 0.9, 2: 0.4}, provenance={"models": ["m"]})
    table = LesionTable.create(case.node, case.volumeNode, case.scene, result)
    assert [row.confidence for row in table.rows()] == [0.9, 0.4]
    case.editor.paint(SECOND, NEAR_SECOND, 9)
    table.update()
    assert table.rows()[0].confidence == 0.9 and np.isnan(table.rows()[1].confidence)
    case.editor.undo()
    assert table.update() == [SECOND]
    assert LesionTable.find(case.node).rows()[1].confidence == 0.4
    assert LesionTable.find(case.node).provenance == {"models": ["m"]}


def couinaud(case: Case, name: str, code: int, mask: np.ndarray) -> None:
    """Adds one of Couinaud's segments."""
    segment = slicer.vtkSegment()
    segment.SetName(f"Segment {name}")
    segment.SetTerminology(terminology.LIVER_TERMINOLOGY.replace("10200004^Liver", f"{code}^Couinaud hepatic segment"))
    grid = case.result.volume.grid
    image = segmentations.orientedImage(mask.astype(np.uint8), Box((0, 0, 0), grid.size), grid)
    segment.AddRepresentation("Binary labelmap", image)
    case.segmentation.AddSegment(segment, f"Couinaud_{name}")


def test_lesions_know_the_segments_that_they_touch_and_follow_them(case):
    grid, labels = case.result.volume.grid, case.result.labels
    upper = np.indices(grid.shape)[0] > int(grid.to_ijk(LESIONS[0].center_ras)[2]) - 2
    couinaud(case, "IVa", 277958008, (labels > 0) & upper)
    assert case.table.update() == []
    assert [row.couinaud for row in case.table.rows()] == ["IVa", "IVa"]
    couinaud(case, "V", 277959000, (labels > 0) & ~upper)
    assert case.table.update() == []
    assert [row.couinaud for row in case.table.rows()] == ["IVa, V", "V, IVa"]
    assert case.table.tableNode.GetTable().GetValueByName(1, "couinaud").ToString() == "V, IVa"
    assert case.table.foreignSegments() == [] and not case.table.isEdited()
    found = assessmentFromTable(case.table)
    assert [lesion.couinaud_text for lesion in found.lesions] == ["IVa, V", "V, IVa"]
    assert found.couinaud_ml.keys() == {5, 9}
    case.editor.remove("Couinaud_V")
    case.table.update()
    assert [row.couinaud for row in case.table.rows()] == ["IVa", "IVa"]


def test_the_table_node_shows_figures_flags_and_categories(case):
    view = case.table.tableNode.GetTable()
    assert view.GetValueByName(0, "measurable").ToString() == "yes"
    assert view.GetValueByName(0, "size_bin").ToString() == "> 20 mm"
    assert view.GetValueByName(0, "long_axis_mm").ToDouble() == pytest.approx(case.row(FIRST).longAxisMm, abs=0.05)
    assert np.isnan(view.GetValueByName(0, "confidence").ToDouble())


def test_a_table_is_an_assessment(case):
    case.editor.paint(SECOND, NEAR_SECOND, 9)
    case.table.setReview(FIRST, "rejected")
    case.table.setReview(SECOND, "unsure")
    case.table.setComment(SECOND, "look again")
    found = assessmentFromTable(case.table)
    assert found.rejected == 1 and found.summary == case.table.summary()
    (lesion,) = found.lesions
    row = case.row(SECOND)
    assert (lesion.label, lesion.name, lesion.review, lesion.comment) == (2, "Lesion 2", "unsure", "look again")
    assert lesion.tracking_uid == row.trackingUid
    for key in ("volume_ml", "long_axis_mm", "short_axis_mm", "capsule_distance_mm", "mean_hu"):
        assert lesion.values[key] == pytest.approx(row.values[key], rel=1e-5), key
    assert found.liver["volume_ml"] == pytest.approx(case.table.liverVolumeMl(), rel=1e-5)


def test_without_a_ct_or_a_segmentation_there_is_no_assessment(case):
    case.scene.RemoveNode(case.volumeNode)
    with pytest.raises(InputError, match="Load it"):
        assessmentFromTable(case.table)
    case.scene.RemoveNode(case.node)
    with pytest.raises(InputError, match="no longer in the scene"):
        assessmentFromTable(case.table)


def test_an_exported_result_is_opened_again_with_everything_that_was_said(case, tmp_path):
    write_labels(tmp_path / "ct.nii.gz", case.result.volume.array, case.result.volume.grid)
    case.editor.paint(SECOND, NEAR_SECOND, 9)
    case.table.setReview(FIRST, "rejected")
    case.table.setComment(SECOND, "look again")
    exportResult(case.table, tmp_path / "out")
    found = reopen(tmp_path / "out", tmp_path / "ct.nii.gz")
    (lesion,) = found.lesions
    assert (lesion.name, lesion.comment, found.rejected) == ("Lesion 2", "look again", 1)
    assert lesion.tracking_uid == case.row(SECOND).trackingUid
    assert found.summary == case.table.summary()


def test_the_csv_has_one_line_per_lesion_and_the_columns_of_a_run(case, tmp_path):
    case.table.setReview(FIRST, "rejected")
    case.table.setComment(SECOND, "=1+1\nx")
    case.table.writeCsv(tmp_path / "lesions.csv")
    with (tmp_path / "lesions.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == (*LESION_COLUMNS, "name", "review", "comment")
    assert [(line["case"], line["id"], line["name"], line["review"]) for line in lines] == [
        ("body", "", "Lesion 1", "rejected"),
        ("body", "1", "Lesion 2", "unreviewed"),
    ]
    assert float(lines[1]["volume_ml"]) == pytest.approx(case.row(SECOND).volumeMl, abs=1e-4)
    assert lines[1]["comment"] == "'=1+1 x"
    write_lesions(tmp_path / "run.csv", assess_result(case.result))
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as stream:
        of_run = list(csv.DictReader(stream))
    assert all(lines[1][key] == of_run[1][key] for key in LESION_COLUMNS if key != "id")


def test_an_edited_result_is_exported_on_the_grid_of_its_ct(case, tmp_path):
    case.editor.paint(SECOND, NEAR_SECOND, 9)
    own = case.editor.add()
    case.editor.paint(own, FREE, 7)
    case.table.setReview(FIRST, "rejected")
    storage = case.node.GetStorageNode()
    exportResult(case.table, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["labels.nii.gz", "lesions.csv", "result.json", "segmentation.seg.nrrd"]
    labels, grid = read_labels(tmp_path / "out" / "labels.nii.gz")
    assert grid.is_close(case.result.volume.grid, tolerance_mm=2e-3)
    assert (labels == resultLabelsFromSegmentation(case.node, case.result.volume.grid, [SECOND])).all()
    assert (labels == 2).sum() == case.voxels(SECOND)
    scene = createScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    reader = slicer.vtkMRMLSegmentationStorageNode()
    reader.SetFileName(str(tmp_path / "out" / "segmentation.seg.nrrd"))
    assert reader.ReadData(node)
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["Liver", SECOND, own]
    assert case.ids() == [FIRST, SECOND]
    assert case.node.GetStorageNode() is storage


def test_without_the_ct_labels_lie_on_the_grid_that_the_segmentation_remembers(case, tmp_path):
    case.scene.RemoveNode(case.volumeNode)
    exportResult(case.table, tmp_path / "out")
    labels, grid = read_labels(tmp_path / "out" / "labels.nii.gz")
    assert grid.is_close(case.result.volume.grid, tolerance_mm=2e-3)
    assert (labels == case.result.labels).all()


def test_an_export_that_fails_leaves_nothing_behind(case, tmp_path, monkeypatch):
    def fail(*_):
        raise OutputError("no")

    monkeypatch.setattr(export, "writeNode", fail)
    with pytest.raises(OutputError):
        exportResult(case.table, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


EDITS = {
    "paint": lambda case: case.editor.paint(FIRST, NEAR_FIRST, 10),
    "erase": lambda case: case.editor.erase(FIRST, NEAR_FIRST, 10),
    "undo": lambda case: case.editor.undo(),
    "add": lambda case: case.editor.add(),
    "remove": lambda case: case.editor.remove(SECOND),
    "rename": lambda case: case.segmentation.GetSegment(FIRST).SetName("renamed"),
    "order": lambda case: case.segmentation.SetSegmentIndex(FIRST, 0),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_can_be_heard_at_the_node(edit, case):
    kinds = slicer.vtkSegmentation
    names = (
        "SourceRepresentationModified",
        "SegmentAdded",
        "SegmentRemoved",
        "SegmentModified",
        "SegmentsOrderModified",
    )
    if edit == "undo":
        case.editor.paint(FIRST, NEAR_FIRST, 10)
    heard = Counter()
    for name in names:
        case.node.AddObserver(getattr(kinds, name), lambda caller, event, name=name: heard.update([name]))
    EDITS[edit](case)
    assert heard


def ten_lesions() -> Result:
    """A CT of 512 × 512 × 119 voxels with ten lesions in a liver of usual size."""
    grid = Grid((512, 512, 119), np.array([[-0.75, 0, 0, 192], [0, -0.75, 0, 192], [0, 0, 2.0, -119], [0, 0, 0, 1]]))
    labels, lesions = np.zeros(grid.shape, np.uint8), []
    box = Box((60, 100, 20), (380, 400, 105))
    labels[box.slices] = rasterize(Ellipsoid((30.0, 10.0, 0.0), (105.0, 85.0, 75.0)), grid.crop(box))
    random = np.random.default_rng(1)
    for number in range(1, 11):
        center, radius = np.add((30, 10, 0), random.uniform(-45, 45, 3)), 22 - 1.8 * number
        first = np.rint(grid.to_ijk(center) - radius / grid.spacing).astype(int)
        size = np.ceil(2 * radius / grid.spacing).astype(int) + 1
        around = Box(tuple(first.tolist()), tuple((first + size).tolist()))
        crop = labels[around.slices]
        mask = rasterize(Ellipsoid(tuple(center), (radius,) * 3), grid.crop(around)) & (crop == 1)
        crop[mask] = number + 1
        count = int(mask.sum())
        lesions.append(Lesion(number, count, count * grid.voxel_volume_mm3 / 1000, tuple(center), around))
    liver_ml = float(np.count_nonzero(labels) * grid.voxel_volume_mm3 / 1000)
    volume = Volume(np.zeros(grid.shape, np.int16), grid, "large")
    return Result(volume, labels, tuple(lesions), liver_ml)


@pytest.mark.alone
def test_one_edited_lesion_of_ten_in_a_large_ct_is_measured_at_once():
    scene = createScene()
    result = ten_lesions()
    volumeNode = nodeFromVolume(result.volume, scene)
    node = segmentationFromResult(result, scene, volumeNode)
    table = LesionTable.create(node, volumeNode, scene)
    assert table.summary() == result.summary
    editor = SegmentEditor(scene, node, volumeNode)
    seconds = []
    for n, lesion in enumerate(result.lesions[:5], start=1):
        # In turns an edit of the lesion alone, and one that also takes voxels from the liver.
        edit, place = (editor.erase, 0) if n % 2 else (editor.paint, lesion.box.size[2])
        edit(f"Lesion_{n}", np.add(lesion.centroid_ras, (0, 0, place)), 6)
        started = time.process_time()
        assert f"Lesion_{n}" in table.update()
        table.summary()
        seconds.append(time.process_time() - started)
    print(f"update and summary: {[round(1000 * s) for s in seconds]} ms")
    # 0.3 s is promised; a machine under load gets some more.
    assert sorted(seconds)[len(seconds) // 2] < 0.6


def test_the_sentence_is_the_same_everywhere():
    assert summarize(1500.4, [10.0, 5.0]) == "Liver 1500 mL; 2 lesions, 15.0 mL together (1.0 % of the liver)."
    assert summarize(1500.4, []) == "Liver 1500 mL; no lesion found."
    assert summarize(0.0, []) == "No liver was found."
