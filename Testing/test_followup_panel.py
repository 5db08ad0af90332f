"""Follow-up in the panel: a study is chosen, compared beside the user's work, shown and judged."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer_standin
from followup_studies import result_of, small_pair
from LiverCascadeLib.volume import Volume
from panel_user import children

NAME, CHANGE_COLUMN = 0, -1


@pytest.fixture
def standin():
    standin = slicer_standin.install()
    yield standin
    standin.uninstall()
    assert not children(), "a process was left behind"


@pytest.fixture(scope="module")
def pair():
    return small_pair()


class Reader:
    """A radiologist with two studies and the follow-up's view."""

    def __init__(self, standin):
        import slicer
        from LiverCascadeLib.panel.dialogs import Dialogs
        from LiverCascadeLib.panel.followup_view import FollowUpView

        self.standin, self.scene = standin, slicer.mrmlScene
        self.said: list[tuple[str, str]] = []
        self.view = FollowUpView(Dialogs(), lambda text, kind: self.said.append((text, kind)))
        self.ui = slicer.util.childWidgetVariables(self.view.widget)
        self.view.widget.show()

    def add(self, case, name: str, **source):
        from LiverCascadeLib.scene import LesionTable, nodeFromVolume, segmentationFromResult

        result = result_of(case)
        volume = Volume(result.volume.array, result.volume.grid, name, dict(source))
        volumeNode = nodeFromVolume(volume, self.scene)
        node = segmentationFromResult(result_of(case), self.scene, volumeNode)
        node.SetName(f"{name} liver")
        return LesionTable.create(node, volumeNode, self.scene)

    def load(self, pair):
        tables = self.add(pair.earlier, "first"), self.add(pair.later, "second")
        self.view.setTable(tables[1])
        self.standin.process()
        return tables

    def compare(self) -> None:
        self.standin.click(self.ui.compareButton)
        assert self.view.isBusy
        self.standin.process(seconds=120, until=lambda: not self.view.isBusy)
        assert not self.view.isBusy

    def cells(self) -> list[list[str]]:
        table = self.ui.followUpTable
        return [[table.item(r, c).text() for c in range(table.columnCount)] for r in range(table.rowCount)]

    def row_of(self, change: str) -> int:
        return next(n for n, cells in enumerate(self.cells()) if cells[CHANGE_COLUMN] == change)

    def center(self, view: str) -> np.ndarray:
        node = self.scene.GetSingletonNode(view, "vtkMRMLSliceNode")
        return np.array([node.GetSliceToRAS().GetElement(row, 3) for row in range(3)])


@pytest.fixture
def reader(standin):
    reader = Reader(standin)
    yield reader
    reader.view.close()


def test_one_study_alone_cannot_be_compared_and_the_button_says_why(reader, pair):
    reader.view.setTable(reader.add(pair.earlier, "first"))
    assert not reader.ui.compareButton.enabled and "another study" in reader.ui.compareButton.toolTip
    assert not reader.ui.followUpTable.isVisible() and reader.view.section() is None


def test_study_that_comes_later_is_offered(reader, pair):
    reader.view.setTable(reader.add(pair.later, "second"))
    reader.add(pair.earlier, "first")
    reader.standin.process(seconds=5, until=lambda: reader.ui.compareButton.enabled)
    assert reader.ui.compareButton.enabled and reader.ui.followUpBaselineSelector.currentText == "first liver"


def test_comparison_is_shown_kept_in_the_scene_and_judged(reader, pair):
    reader.load(pair)
    reader.compare()
    assert reader.said[-1] == ("The studies were compared.", "info")
    changes = [cells[CHANGE_COLUMN] for cells in reader.cells()]
    assert sorted(changes) == ["grown", "new", "resolved", "shrunk", "stable"]
    text = reader.ui.followUpSummaryLabel.text
    assert "progressive disease" in text and "a new lesion" in text and "Only the liver is judged" in text
    assert "Candidate target lesions" in text
    section = reader.view.section()
    assert len(section["rows"]) == 5
    names = [reader.scene.GetNthNode(n).GetName() for n in range(reader.scene.GetNumberOfNodes())]
    assert "second liver follow-up" in names and "first to second" in names


def test_targets_are_chosen_by_a_click_and_two_are_the_most(reader, pair):
    from PySide6 import QtCore

    reader.load(pair)
    reader.compare()
    table = reader.ui.followUpTable
    checked, unchecked = QtCore.Qt.CheckState.Checked, QtCore.Qt.CheckState.Unchecked
    targets = [row for row in range(table.rowCount) if "target" in table.item(row, NAME).text()]
    assert len(targets) == 2 and not reader.ui.candidateTargetsButton.enabled
    other = next(r for r in range(4) if r not in targets)
    table.item(other, NAME).setCheckState(checked)
    assert reader.said[-1][1] == "warning" and "At most 2" in reader.said[-1][0]
    assert [row for row in range(table.rowCount) if "target" in table.item(row, NAME).text()] == targets
    table.item(targets[0], NAME).setCheckState(unchecked)
    table.item(other, NAME).setCheckState(checked)
    assert "Target lesions, chosen by the reader" in reader.ui.followUpSummaryLabel.text
    assert reader.view.followUp.chosen and len(reader.view.followUp.targets) == 2
    reader.standin.click(reader.ui.candidateTargetsButton)
    assert [row for row in range(table.rowCount) if "target" in table.item(row, NAME).text()] == targets


def test_click_goes_to_the_lesion_and_side_by_side_in_both_studies(reader, pair):
    import slicer
    from LiverCascadeLib.scene import placesOf

    reader.load(pair)
    reader.compare()
    table, found = reader.ui.followUpTable, reader.view.followUp
    row = reader.row_of("grown")
    before, after = placesOf(found, found.tracks[row])
    reader.standin.clickCell(table, row, 1)
    assert reader.center("Red") == pytest.approx(after, abs=0.5)
    manager = slicer.app.layoutManager()
    layout = manager.layout
    reader.standin.click(reader.ui.compareViewsCheckBox)
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    reader.standin.clickCell(table, row, 1)
    assert reader.center("Red") == pytest.approx(before, abs=0.5)
    assert reader.center("Yellow") == pytest.approx(after, abs=0.5)
    reader.standin.click(reader.ui.compareViewsCheckBox)
    assert manager.layout == layout


def test_colors_are_a_choice(reader, pair):
    tables = reader.load(pair)
    reader.compare()
    display = tables[0].segmentationNode.GetDisplayNode()
    first = tables[0].countedIds()[0]
    assert display.GetSegmentOverrideColor(first)[0] < 0
    reader.standin.click(reader.ui.changeColorsCheckBox)
    assert display.GetSegmentOverrideColor(first)[0] >= 0
    reader.view.setTable(None)
    assert display.GetSegmentOverrideColor(first)[0] < 0 and not reader.ui.followUpTable.isVisible()


def test_same_study_twice_is_refused_in_words_and_the_button_works_again(reader, pair):
    reader.view.setTable(reader.add(pair.earlier, "first"))
    reader.add(pair.earlier, "again")
    reader.standin.process(seconds=5, until=lambda: reader.ui.compareButton.enabled)
    reader.compare()
    assert reader.said[-1][1] == "error" and "same series" in reader.said[-1][0]
    assert reader.ui.compareButton.enabled and reader.view.followUp is None


def test_cancelled_comparison_leaves_nothing_behind(reader, pair):
    reader.load(pair)
    before = reader.scene.GetNumberOfNodes()
    reader.standin.click(reader.ui.compareButton)
    reader.standin.process(seconds=30, until=lambda: reader.ui.compareProgressBar.value > 10)
    reader.standin.click(reader.ui.cancelCompareButton)
    assert not reader.view.isBusy and reader.ui.compareButton.isVisible()
    assert "cancelled" in reader.said[-1][0] and reader.scene.GetNumberOfNodes() == before
    assert not children()


def test_process_that_dies_is_an_error_in_words(reader, pair):
    reader.load(pair)
    reader.view._worker._command = lambda: ("/nonexistent/python", [], {})
    reader.standin.click(reader.ui.compareButton)
    reader.standin.process(seconds=30, until=lambda: not reader.view.isBusy)
    assert reader.said[-1][1] == "error" and "ended unexpectedly" in reader.said[-1][0]
    assert reader.ui.compareButton.enabled


def test_scene_that_closes_ends_the_comparison(reader, pair):
    reader.load(pair)
    reader.standin.click(reader.ui.compareButton)
    reader.view.sceneClosing()
    reader.scene.Clear(0)
    reader.standin.process(seconds=0.5)
    assert not reader.view.isBusy and not reader.ui.compareButton.enabled


@pytest.mark.alone
def test_user_interface_does_not_wait_for_the_comparison(reader, pair):
    reader.load(pair)
    reader.standin.click(reader.ui.compareButton)
    longest, last = 0.0, time.perf_counter()
    while reader.view.isBusy:
        reader.standin.process()
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        assert longest < 20
    # Measuring both studies is the longest piece; registering and matching happen elsewhere.
    assert longest < 2.0
