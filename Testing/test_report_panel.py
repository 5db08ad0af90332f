"""The report in the panel: what the reader types is kept, the preview opens, the files are written."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer_standin
from assessments import make_pictures_small
from LiverCascadeLib.errors import MissingPackageError
from LiverCascadeLib.report.document import ReaderText
from LiverCascadeLib.report.identity import StudyIdentity
from LiverCascadeLib.report.record import read_record
from LiverCascadeLib.report.writing import REPORT_FILES
from panel_user import ViewUser, leftovers


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    make_pictures_small(monkeypatch)


@pytest.fixture
def standin():
    standin = slicer_standin.install()
    yield standin
    standin.uninstall()


class Reader(ViewUser):
    """A radiologist with a result and the report's view."""

    def __init__(self, standin):
        from LiverCascadeLib.panel.report_view import ReportView

        super().__init__(standin, ReportView)

    def wait(self) -> None:
        self.standin.process(seconds=60, until=lambda: not self.view.isBusy)
        assert not self.view.isBusy

    def save(self, folder: Path) -> None:
        self.standin.answers.append(str(folder))
        self.standin.click(self.ui.saveButton)
        self.wait()


@pytest.fixture
def reader(standin):
    reader = Reader(standin)
    yield reader
    reader.view.close()


def test_without_a_result_nothing_can_be_done(reader):
    assert not reader.ui.previewButton.enabled and not reader.ui.saveButton.enabled
    assert not reader.ui.impressionEdit.enabled
    reader.add_result()
    assert reader.ui.previewButton.enabled and reader.ui.saveButton.enabled and reader.ui.impressionEdit.enabled


def test_a_saved_report_has_what_was_typed_and_measured(reader, tmp_path):
    table = reader.add_result()
    table.setReview("Lesion_2", "unsure")
    reader.ui.impressionEdit.setPlainText("Two metastases.")
    reader.ui.patientNameEdit.setText("Doe, Jane")
    reader.ui.patientNameEdit.textEdited("Doe, Jane")
    reader.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(REPORT_FILES)
    record = read_record(tmp_path / "report.json")
    assert record["reader_text"]["impression"] == "Two metastases."
    assert record["identity"]["patient_name"] == "Doe, Jane"
    assert [lesion["review"] for lesion in record["lesions"]] == ["unreviewed", "unsure"]
    assert reader.said[-1] == (f"The report was written to {tmp_path}.", "info")


def test_texts_stay_with_the_scene(reader):
    table = reader.add_result()
    reader.ui.clinicalEdit.setPlainText("Fever since Monday.\nCRP 120.")
    from LiverCascadeLib.scene import readReportNotes

    assert readReportNotes(table.tableNode).text == ReaderText("Fever since Monday.\nCRP 120.")
    reader.view.setTable(None)
    assert reader.ui.clinicalEdit.toPlainText() == ""
    reader.view.setTable(table)
    assert reader.ui.clinicalEdit.toPlainText() == "Fever since Monday.\nCRP 120."


def test_each_result_has_its_own_texts(reader):
    first = reader.add_result()
    reader.ui.impressionEdit.setPlainText("First.")
    reader.add_result("RAS")
    assert reader.ui.impressionEdit.toPlainText() == ""
    reader.ui.impressionEdit.setPlainText("Second.")
    reader.view.setTable(first)
    assert reader.ui.impressionEdit.toPlainText() == "First."


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 9}', '{"text": {"impression": 3}}', '{"identity": []}']
)
def test_notes_that_cannot_be_read_are_none(reader, content):
    from LiverCascadeLib.scene import ReportNotes, readReportNotes

    table = reader.add_result()
    table.tableNode.SetAttribute("LiverCascade.Report", content)
    assert readReportNotes(table.tableNode) == ReportNotes()


def test_a_preview_opens_and_is_gone_when_the_panel_closes(reader):
    reader.add_result()
    before = set(leftovers())
    reader.standin.click(reader.ui.previewButton)
    assert not reader.ui.previewButton.enabled
    reader.wait()
    opened = [message.text for message in reader.standin.messages if message.kind == "url"]
    assert len(opened) == 1 and opened[0].startswith("file://") and opened[0].endswith("report.html")
    folder = Path(opened[0].removeprefix("file://")).parent
    assert {folder} == set(leftovers()) - before and (folder.stat().st_mode & 0o077) == 0
    reader.standin.click(reader.ui.previewButton)
    reader.wait()
    assert len(set(leftovers()) - before) == 1
    reader.view.close()
    assert set(leftovers()) == before


def test_identity_comes_from_dicom_until_something_is_typed(reader, monkeypatch, tmp_path):
    from LiverCascadeLib.panel import report_view

    known = StudyIdentity(patient_name="Müller, Jörg", patient_id="7", series_instance_uid="1.2.3")
    monkeypatch.setattr(report_view, "identityOfVolumeNode", lambda node: known)
    reader.add_result()
    assert reader.ui.patientNameEdit.text == "Müller, Jörg" and reader.ui.patientIdEdit.text == "7"
    reader.ui.patientNameEdit.setText("")
    reader.ui.patientNameEdit.textEdited("")
    reader.save(tmp_path)
    identity = read_record(tmp_path / "report.json")["identity"]
    assert identity["patient_name"] == "" and identity["patient_id"] == "7"
    assert identity["series_instance_uid"] == "1.2.3"


def test_what_an_earlier_report_says_is_shown_after_saving(reader, tmp_path):
    table = reader.add_result()
    reader.ui.impressionEdit.setPlainText("From the first scene.")
    reader.save(tmp_path)
    table.tableNode.SetAttribute("LiverCascade.Report", "")
    reader.view.setTable(None)
    reader.view.setTable(table)
    assert reader.ui.impressionEdit.toPlainText() == ""
    reader.save(tmp_path)
    assert reader.ui.impressionEdit.toPlainText() == "From the first scene."


def test_the_report_of_another_scan_is_kept_and_the_user_told(reader, tmp_path):
    reader.add_result()
    reader.save(tmp_path)
    before = (tmp_path / "report.json").read_bytes()
    reader.add_result("RAS")
    reader.save(tmp_path)
    assert reader.said[-1][1] == "error" and "another scan" in reader.said[-1][0]
    assert (tmp_path / "report.json").read_bytes() == before
    assert reader.ui.saveButton.enabled


def test_a_missing_package_is_a_sentence(reader, tmp_path):
    def refuses():
        raise MissingPackageError("reportlab is missing.")

    reader.add_result()
    reader.view.ensurePackages = refuses
    reader.save(tmp_path)
    assert reader.said[-1] == ("reportlab is missing.", "error") and not list(tmp_path.iterdir())


def test_a_package_that_cannot_be_imported_is_a_sentence(reader, tmp_path, monkeypatch):
    from LiverCascadeLib.panel import report_view

    def steps(*_):
        yield
        raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")

    monkeypatch.setattr(report_view, "report_steps", steps)
    reader.add_result()
    reader.save(tmp_path)
    assert "'jinja2'" in reader.said[-1][0] and reader.said[-1][1] == "error"


def test_a_scene_that_closes_ends_the_report(reader, tmp_path):
    reader.add_result()
    reader.standin.answers.append(str(tmp_path / "out"))
    reader.standin.click(reader.ui.saveButton)
    reader.standin.process(seconds=5, until=lambda: reader.view.isBusy)
    reader.view.sceneClosing()
    assert not reader.view.isBusy and not (tmp_path / "out").exists() and not list(tmp_path.iterdir())


def test_a_segmentation_without_its_ct_is_a_sentence(reader, tmp_path):
    table = reader.add_result()
    reader.scene.RemoveNode(table.volumeNode)
    reader.save(tmp_path)
    assert reader.said[-1][1] == "error" and "CT" in reader.said[-1][0]


@pytest.mark.alone
def test_no_piece_of_the_work_stops_the_panel_for_long(reader, tmp_path):
    """On a small scan: whatever grows with the scan is cut into pieces, and libraries are loaded one by one."""
    reader.add_result()
    reader.save(tmp_path)
    shutil.rmtree(tmp_path)
    from LiverCascadeLib.panel.report_view import ReportView

    steps = ReportView._steps(reader.view, tmp_path, reader.view._request())
    longest, done = 0.0, False
    while not done:
        started = time.process_time()
        try:
            next(steps)
        except StopIteration:
            done = True
        longest = max(longest, time.process_time() - started)
    assert longest < 0.25
