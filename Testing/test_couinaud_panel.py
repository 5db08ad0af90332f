"""Couinaud's segments in the panel: made with one click, moved by landmarks, with volumes and the liver remnant."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer_standin
from panel_user import ViewUser


@pytest.fixture
def standin():
    standin = slicer_standin.install()
    yield standin
    standin.uninstall()


class Reader(ViewUser):
    """A radiologist with a result and the view of segments."""

    def __init__(self, standin):
        from LiverCascadeLib.panel.couinaud_view import CouinaudView

        super().__init__(standin, CouinaudView)

    def wait(self) -> None:
        self.standin.process(seconds=60, until=lambda: not self.view.isBusy)
        self.standin.process(seconds=0.6)

    def click(self, button) -> None:
        self.standin.click(button)
        self.wait()

    def cells(self) -> list[list[str]]:
        table = self.ui.segmentTable
        return [[table.item(row, n).text() for n in range(table.columnCount)] for row in range(table.rowCount)]

    def check(self, name: str, isChecked: bool = True) -> None:
        import qt

        row = [cells[0] for cells in self.cells()].index(name)
        self.ui.segmentTable.item(row, 0).setCheckState(qt.Qt.Checked if isChecked else qt.Qt.Unchecked)


@pytest.fixture
def reader(standin):
    reader = Reader(standin)
    yield reader
    reader.view.close()


def markups_of(table):
    from LiverCascadeLib.scene import landmarksNode

    return landmarksNode(table.segmentationNode)


def move(markups, index: int, by: tuple[float, float, float]) -> None:
    place = np.add(markups.GetNthControlPointPositionWorld(index), by)
    markups.SetNthControlPointPositionWorld(index, *place.tolist())


def test_without_a_result_nothing_can_be_done(reader):
    assert not reader.ui.makeSegmentsButton.enabled and not reader.ui.placeLandmarksButton.enabled
    assert not reader.ui.segmentTable.isVisible() and not reader.ui.methodLabel.isVisible()
    reader.add_result()
    assert reader.ui.makeSegmentsButton.enabled and reader.ui.placeLandmarksButton.enabled
    assert not reader.ui.showSegmentsCheckBox.enabled and reader.view.remnant() is None


def test_one_click_makes_segments_and_says_how(reader):
    from LiverCascadeLib.scene import couinaudSegments

    table = reader.add_result()
    reader.click(reader.ui.makeSegmentsButton)
    assert len(couinaudSegments(table.segmentationNode)) == 8
    assert "no vessel was used" in reader.ui.methodLabel.text and "curved" in reader.ui.methodLabel.toolTip
    cells = reader.cells()
    assert [row[0] for row in cells] == ["I", "II", "III", "IV", "V", "VI", "VII", "VIII"]
    assert abs(sum(float(row[1]) for row in cells) - table.liverVolumeMl()) < 5
    assert reader.ui.showSegmentsCheckBox.checked
    assert [text for text, kind in reader.said if kind != "info"] == []


def test_outlines_are_shown_and_hidden(reader):
    from LiverCascadeLib.scene import areCouinaudSegmentsShown

    table = reader.add_result()
    reader.click(reader.ui.makeSegmentsButton)
    reader.click(reader.ui.showSegmentsCheckBox)
    assert not areCouinaudSegmentsShown(table.segmentationNode) and not reader.ui.showSegmentsCheckBox.checked
    reader.click(reader.ui.showSegmentsCheckBox)
    assert areCouinaudSegmentsShown(table.segmentationNode)


def test_landmarks_are_dragged_and_segments_and_volumes_follow(reader):
    table = reader.add_result()
    reader.click(reader.ui.placeLandmarksButton)
    markups = markups_of(table)
    assert markups.GetNumberOfControlPoints() == 6
    assert "no vessel was used" in reader.ui.methodLabel.text
    before = reader.cells()
    labels = [markups.GetNthControlPointLabel(n) for n in range(6)]
    index = labels.index("Gallbladder fossa")
    move(markups, index, (-20.0, 0.0, 0.0))
    reader.wait()
    assert "gallbladder fossa" in reader.ui.methodLabel.text and reader.cells() != before
    markups.SetNthControlPointPositionWorld(index, 900.0, 0.0, 0.0)
    assert reader.said[-1][1] == "warning" and "outside the liver" in reader.said[-1][0]


def test_kept_segments_give_the_remnant_and_are_remembered(reader):
    table = reader.add_result()
    reader.click(reader.ui.makeSegmentsButton)
    assert "Check the segments" in reader.ui.remnantLabel.text
    for name in ("II", "III"):
        reader.check(name)
    remnant = reader.view.remnant()
    assert remnant.kept == (2, 3) and remnant.sentence in reader.ui.remnantLabel.text
    assert remnant.denominator == "parenchyma" and "Usual minimum" in reader.ui.remnantLabel.text
    reader.view.setTable(None)
    assert reader.view.remnant() is None
    reader.view.setTable(table)
    assert reader.view.remnant() == remnant
    for name in ("II", "III"):
        reader.check(name, False)
    assert reader.view.remnant() is None


def test_landmarks_of_a_loaded_scene_are_followed_again(reader):
    table = reader.add_result()
    reader.click(reader.ui.placeLandmarksButton)
    reader.view.setTable(None)
    markups = markups_of(table)
    move(markups, 0, (4.0, 0.0, 0.0))
    reader.wait()
    reader.view.setTable(table)
    assert "no vessel was used" in reader.ui.methodLabel.text
    move(markups, 0, (4.0, 0.0, 0.0))
    reader.wait()
    assert "inferior vena cava" in reader.ui.methodLabel.text


def test_a_segmentation_without_a_liver_is_answered_with_words(reader):
    table = reader.add_result()
    segmentation = table.segmentationNode.GetSegmentation()
    segmentation.RemoveSegment("Liver")
    reader.click(reader.ui.makeSegmentsButton)
    assert reader.said[-1][1] == "error" and "no liver" in reader.said[-1][0]
    assert reader.ui.makeSegmentsButton.enabled


def test_closing_the_scene_while_landmarks_are_followed_leaves_nothing(reader):
    table = reader.add_result()
    reader.click(reader.ui.placeLandmarksButton)
    markups = markups_of(table)
    reader.view.sceneClosing()
    reader.scene.Clear(0)
    assert not reader.ui.makeSegmentsButton.enabled and markups.GetScene() is None
    said = len(reader.said)
    markups.SetNthControlPointPositionWorld(0, 1.0, 2.0, 3.0)
    reader.wait()
    assert len(reader.said) == said
