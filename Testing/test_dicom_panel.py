"""DICOM in the panel: two buttons, and what they say in good times and bad."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
pytest.importorskip("highdicom", reason="highdicom is not installed")

import slicer_standin
from dicom_writer import FolderDatabase
from LiverCascadeLib.dicom.export import REPORT_FILE, SEGMENTATION_FILE
from LiverCascadeLib.errors import MissingPackageError
from LiverCascadeLib.postprocess import measure_lesions
from LiverCascadeLib.result import Result
from panel_user import ViewUser
from test_dicom_objects import small_assessment, small_series


@pytest.fixture
def standin():
    standin = slicer_standin.install()
    yield standin
    standin.uninstall()


class Reader(ViewUser):
    """A radiologist with a CT from the DICOM database, a result and the view."""

    def __init__(self, standin, folder, **elements):
        import slicer
        from LiverCascadeLib.panel.dicom_view import DicomView
        from LiverCascadeLib.scene import LesionTable, nodeFromVolume, segmentationFromResult

        super().__init__(standin, DicomView)
        self.folder = folder
        volume = small_series(folder / "series", **elements)
        assessment = small_assessment(volume)
        self.labels = assessment.labels
        self.ct = nodeFromVolume(volume, slicer.mrmlScene)
        self.database = FolderDatabase(folder / "series")
        slicer.dicomDatabase = self.database
        self.ct.SetAttribute("DICOM.instanceUIDs", " ".join(self.database.files))
        result = Result(volume, self.labels, measure_lesions(self.labels, volume.grid), assessment.liver["volume_ml"])
        segmentation = segmentationFromResult(result, slicer.mrmlScene, self.ct)
        self.table = LesionTable.create(segmentation, self.ct, slicer.mrmlScene)

    def export(self, *answers: object) -> None:
        self.standin.answers.extend([str(self.folder / "out"), *answers])
        self.standin.click(self.ui.exportDicomButton)
        self.standin.process(seconds=60, until=lambda: not self.view.isBusy)
        assert not self.view.isBusy


@pytest.fixture
def reader(standin, tmp_path):
    return Reader(standin, tmp_path)


def test_buttons_wait_for_a_result_and_a_ct(reader):
    assert not reader.ui.exportDicomButton.enabled and not reader.ui.importDicomButton.enabled
    reader.view.setVolumeNode(reader.ct)
    assert not reader.ui.exportDicomButton.enabled and reader.ui.importDicomButton.enabled
    reader.view.setTable(reader.table)
    assert reader.ui.exportDicomButton.enabled
    reader.view.sceneClosing()
    assert not reader.ui.exportDicomButton.enabled and not reader.ui.importDicomButton.enabled


def test_objects_are_written_and_offered_to_the_database(reader):
    reader.view.setTable(reader.table)
    reader.export("Yes")
    files = [str(reader.folder / "out" / name) for name in (SEGMENTATION_FILE, REPORT_FILE)]
    assert reader.database.inserted == files
    assert reader.said[-1][1] == "info" and "were written" in reader.said[-1][0]
    reader.export("No")
    assert reader.database.inserted == files


def test_objects_are_read_back_as_a_new_result(reader):
    from LiverCascadeLib.scene import resultLabelsFromSegmentation, worldGrid

    reader.view.setTable(reader.table)
    reader.export("No")
    tables = []
    reader.view.imported = tables.append
    reader.standin.answers.append(str(reader.folder / "out" / SEGMENTATION_FILE))
    reader.standin.click(reader.ui.importDicomButton)
    (table,) = tables
    assert table.tableNode is not reader.table.tableNode
    read = resultLabelsFromSegmentation(table.segmentationNode, worldGrid(reader.ct))
    assert np.array_equal(read, reader.labels)
    assert reader.said[-1][1] == "info"


def test_what_is_no_segmentation_is_refused_in_words(reader):
    reader.view.setTable(reader.table)
    reader.standin.answers.append(next(iter(reader.database.files.values())))
    reader.standin.click(reader.ui.importDicomButton)
    assert reader.said[-1] == (reader.said[-1][0], "error") and "of the kind CT" in reader.said[-1][0]


def test_ct_from_elsewhere_is_refused_in_words(reader):
    reader.view.setTable(reader.table)
    reader.ct.RemoveAttribute("DICOM.instanceUIDs")
    reader.export()
    assert "does not come from Slicer's DICOM database" in reader.said[-1][0] and reader.said[-1][1] == "error"
    assert not (reader.folder / "out").exists()


def test_missing_identifiers_are_generated_only_where_the_user_says_so(standin, tmp_path):
    reader = Reader(standin, tmp_path, StudyInstanceUID="")
    reader.view.setTable(reader.table)
    reader.export("No")
    assert reader.said[-1][1] == "error" and not (tmp_path / "out").exists()
    reader.export("Yes", "No")
    assert "generated" in reader.said[-1][0] and reader.said[-1][1] == "warning"
    assert (tmp_path / "out" / SEGMENTATION_FILE).is_file()


def test_missing_package_is_said_before_anything_is_asked(reader):
    def refuse() -> None:
        raise MissingPackageError("highdicom is not installed.")

    reader.view.setTable(reader.table)
    reader.view.ensurePackages = refuse
    reader.standin.click(reader.ui.exportDicomButton)
    assert reader.said == [("highdicom is not installed.", "error")]


def test_writing_for_a_result_that_is_left_is_given_up(reader):
    reader.view.setTable(reader.table)
    reader.standin.answers.append(str(reader.folder / "out"))
    reader.standin.click(reader.ui.exportDicomButton)
    assert reader.view.isBusy
    reader.view.setTable(None)
    assert not reader.view.isBusy
    reader.view.close()
    assert not (reader.folder / "out").exists()
