"""The folded sections below the findings, in the panel that holds them."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer
from panel_user import User

SECTIONS = ("couinaud", "report", "dicom", "followUp")


@pytest.fixture
def user():
    import slicer_standin

    standin = slicer_standin.install()
    yield User(standin)
    standin.uninstall()


def button(user: User, name: str):
    return getattr(user.ui, f"{name}CollapsibleButton")


def seen(user: User) -> set[str]:
    return {name for name in SECTIONS if user.sees(button(user, name))}


def unfold(user: User, name: str, child: str):
    """A widget of a section, which is opened for it."""
    button(user, name).collapsed = False
    user.standin.process(seconds=0.05)
    return slicer.util.findChild(button(user, name), child)


def test_without_a_result_a_dicom_segmentation_can_be_read_and_nothing_else(user):
    assert seen(user) == {"dicom"}
    user.load()
    assert unfold(user, "dicom", "importDicomButton").enabled
    assert not unfold(user, "dicom", "exportDicomButton").enabled


def test_with_a_result_all_sections_are_there_and_folded(user):
    user.load()
    user.run()
    assert seen(user) == set(SECTIONS)
    assert all(button(user, name).collapsed for name in SECTIONS)
    user.parameters.resultSegmentation = None
    user.wait(lambda: seen(user) == {"dicom"})


def test_segments_of_lesions_appear_in_the_table_and_in_the_report(user, tmp_path, monkeypatch):
    user.load()
    user.run()
    assert {cells[1] for cells in user.cells()} == {""} and user.ui.lesionTable.isColumnHidden(1)
    user.click(unfold(user, "couinaud", "makeSegmentsButton"))
    user.wait(lambda: all(cells[1] for cells in user.cells()))
    assert not user.ui.lesionTable.isColumnHidden(1)
    import qt
    from LiverCascadeLib.panel.dialogs import Dialogs

    monkeypatch.setattr(Dialogs, "chooseFolder", lambda self, title, key: tmp_path / "report")
    table = unfold(user, "couinaud", "segmentTable")
    for row in range(table.rowCount):
        table.item(row, 0).setCheckState(qt.Qt.Checked if row % 2 else qt.Qt.Unchecked)
    user.click(unfold(user, "report", "saveButton"))
    user.wait(lambda: "was written to" in user.status())
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "remnant" in page and user.cells()[0][1].split(",")[0] in page


def test_uncertainty_comes_as_a_volume_where_it_is_wanted(user):
    user.load()
    user.run()
    assert slicer.mrmlScene.GetFirstNodeByName("body uncertainty") is None
    user.parameters.uncertainty = True
    user.run()
    node = slicer.mrmlScene.GetFirstNodeByName("body uncertainty")
    assert node is not None and set(slicer.util.arrayFromVolume(node).ravel()) == {99}


def test_a_result_that_is_given_up_half_way_leaves_neither_segmentation_nor_table(user):
    from analytic_bodies import TEST_GRIDS, analytic_result
    from LiverCascadeLib.scene import nodeFromVolume

    scene, result = slicer.mrmlScene, analytic_result(TEST_GRIDS["LPS"])
    user.panel._volumeNode = nodeFromVolume(result.volume, scene)
    nodes = ("vtkMRMLSegmentationNode", "vtkMRMLTableNode")
    steps = user.panel._addResult(result)
    while not scene.GetNumberOfNodesByClass("vtkMRMLTableNode"):
        next(steps)
    assert [scene.GetNumberOfNodesByClass(name) for name in nodes] == [1, 1]
    steps.close()
    assert [scene.GetNumberOfNodesByClass(name) for name in nodes] == [0, 0]
