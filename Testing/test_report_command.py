"""``livercascade report``, run as the user runs it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analytic_bodies import TEST_GRIDS, analytic_result
from assessments import make_pictures_small
from LiverCascadeLib.cli import main
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.report.files import OutputFolder, write_results
from LiverCascadeLib.report.writing import REPORT_FILES
from LiverCascadeLib.volume import Volume


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    make_pictures_small(monkeypatch)


@pytest.fixture
def results(tmp_path) -> Path:
    """The results of a run, and its CT beside them."""
    import nibabel

    result = analytic_result(TEST_GRIDS["LPS"])
    path = tmp_path / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(result.volume.array.T, result.volume.grid.ijk_to_ras), path)
    volume = Volume(result.volume.array, result.volume.grid, "ct", {"path": str(path), "format": "nifti"})
    folder = tmp_path / "results"
    with OutputFolder(folder) as output:
        write_results(replace(result, volume=volume), output, Progress())
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in ("report", *arguments)])


def test_a_results_folder_gets_its_report(results, capsys):
    assert run(results, "--patient-name", "Doe, Jane", "--impression", "Two metastases.") == 0
    assert set(REPORT_FILES) <= {path.name for path in results.iterdir()}
    assert (results / "result.json").exists()
    content = (results / "report.html").read_text(encoding="utf-8")
    assert "Doe, Jane" in content and "Two metastases." in content
    assert "report.html" in capsys.readouterr().out


def test_edited_labels_are_measured_as_they_are(results, tmp_path, capsys):
    import nibabel

    image = nibabel.load(results / "labels.nii.gz")
    labels = np.asarray(image.dataobj).copy()
    labels[labels == 3] = 1
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), results / "labels.nii.gz")
    assert run(results, "-o", tmp_path / "out", "--no-pdf", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["lesions"]) == 1 and not (tmp_path / "out" / "report.pdf").exists()


def test_texts_come_from_a_file_and_options_count_more(results, tmp_path):
    text = tmp_path / "text.json"
    text.write_text(json.dumps({"findings": "From the file.", "impression": "Old."}), encoding="utf-8-sig")
    assert run(results, "--no-pdf", "--quiet", "--text", text, "--impression", "New.") == 0
    record = json.loads((results / "report.json").read_text(encoding="utf-8"))
    assert record["reader_text"] == {"clinical_information": "", "findings": "From the file.", "impression": "New."}
    assert run(results, "--no-pdf", "--quiet", "--findings", "") == 0
    record = json.loads((results / "report.json").read_text(encoding="utf-8"))
    assert record["reader_text"] == {"clinical_information": "", "findings": "", "impression": "New."}


@pytest.mark.parametrize("content", ["", "[]", '{"findings": 3}', '"text"'])
def test_a_text_file_that_is_none_is_refused(results, tmp_path, capsys, content):
    text = tmp_path / "text.json"
    text.write_text(content, encoding="utf-8")
    assert run(results, "--text", text) == 2
    assert "ext" in capsys.readouterr().err and not (results / "report.html").exists()


def test_a_folder_that_is_no_result_is_refused(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "result.json" in capsys.readouterr().err


def test_an_unknown_language_is_refused(results, capsys):
    assert run(results, "--language", "tlh") == 2
    assert "Choose one of: en" in capsys.readouterr().err


def test_patient_and_study_come_from_dicom(unzipped, tmp_path, capsys):
    """The identity of a real series; its masks are empty, so nothing is measured."""
    from LiverCascadeLib.result import Result
    from LiverCascadeLib.volume import read_volume

    folder = unzipped("lits_000/series.zip")
    volume = read_volume(folder)
    result = Result(volume, np.zeros(volume.grid.shape, np.uint8), (), 0.0)
    with OutputFolder(tmp_path / "results") as output:
        write_results(result, output, Progress())
    assert run(tmp_path / "results", "--no-pdf", "--json", "--study-date", "2020-01-01") == 0
    identity = json.loads(capsys.readouterr().out)["identity"]
    assert identity["patient_id"] == volume.source["patient_id"]
    assert identity["study_instance_uid"] == volume.source["study_instance_uid"]
    assert identity["study_date"] == "2020-01-01"
