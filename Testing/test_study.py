"""What may be wished beside the usual files of a run: refused early or written whole."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from analytic_bodies import result_from_masks
from dicom_writer import write_stack
from LiverCascadeLib import study
from LiverCascadeLib.errors import InputError, OutputError
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.report.writing import ReportRequest
from LiverCascadeLib.result import Uncertainty
from LiverCascadeLib.study import Wishes, segment_study
from LiverCascadeLib.volume import Volume, read_labels, write_labels
from no_scene import NoScene

USUAL = {"labels.nii.gz", "lesions.csv", "overview.png", "result.json"}
REPORT = {"report.html", "report.pdf", "report.json", "report_lesions.csv"}
GRID = Grid((40, 36, 24), np.array([[-5, 0, 0, 100], [0, -5, 0, 80], [0, 0, 5, -40], [0, 0, 0, 1.0]]))


@pytest.fixture(autouse=True)
def without_scenes(monkeypatch):
    monkeypatch.setattr(study, "SceneProcess", NoScene)


def masks() -> tuple[np.ndarray, np.ndarray]:
    """A liver of 20 × 16 × 12 cm on the patient's right, and a lesion in it."""
    k, j, i = np.indices(GRID.shape)
    liver = ((i - 14) / 12) ** 2 + ((j - 18) / 14) ** 2 + ((k - 12) / 9) ** 2 < 1
    return liver, (i - 12) ** 2 + (j - 18) ** 2 + (k - 12) ** 2 < 9


def scan() -> np.ndarray:
    liver, lesion = masks()
    return np.where(lesion, 60, np.where(liver, 110, -80)).astype(np.int16)


def computed(volume: Volume, progress: Progress):
    """What a perfect cascade answers."""
    liver, lesion = masks()
    return replace(result_from_masks(volume.grid, liver, [lesion], volume.name), volume=volume)


@pytest.fixture
def nifti(tmp_path) -> Path:
    path = tmp_path / "ct.nii.gz"
    write_labels(path, scan(), GRID)
    return path


def run(path: Path, output: Path, compute=computed, **wishes):
    return segment_study(path, output, compute, Progress(), wishes=Wishes(**wishes))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def a_report(volume: Volume) -> ReportRequest:
    return ReportRequest(datetime(2026, 1, 2, 3, 4))


def never(volume: Volume, progress: Progress):
    raise AssertionError("this was computed for nothing")


def test_without_wishes_there_are_the_usual_files(nifti, tmp_path):
    run(nifti, tmp_path / "out")
    assert files(tmp_path / "out") == USUAL


def test_a_report_segments_and_uncertainty_are_written_with_the_run(nifti, tmp_path):
    doubt = Uncertainty(np.full((2, 3, 4), 200, np.uint8), Box((5, 6, 7), (9, 9, 9)))

    def compute(volume, progress):
        return replace(computed(volume, progress), uncertainty=doubt)

    run(nifti, tmp_path / "out", compute, couinaud=True, report=a_report)
    assert files(tmp_path / "out") == USUAL | REPORT | {"couinaud.nii.gz", "uncertainty.nii.gz"}
    segments, grid = read_labels(tmp_path / "out" / "couinaud.nii.gz")
    assert grid.is_close(GRID) and np.array_equal(segments > 0, masks()[0])
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["couinaud"]["provider"] == "estimate"
    assert record["lesions"][0]["couinaud"]
    values, _ = read_labels(tmp_path / "out" / "uncertainty.nii.gz")
    assert values.sum() == 200 * 24 and (values[7:9, 6:9, 5:9] == 200).all()


def test_landmarks_alone_ask_for_the_segments(nifti, tmp_path):
    landmarks = tmp_path / "points.fcsv"
    position = ",".join(f"{n:.1f}" for n in GRID.to_ras(np.array([14.0, 24.0, 8.0])))
    landmarks.write_text(
        "# Markups fiducial file version = 5.0\n# CoordinateSystem = RAS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        f"1,{position},0,0,0,1,1,1,0,Portal bifurcation,,\n"
    )
    run(nifti, tmp_path / "out", landmarks=landmarks)
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["couinaud"]["provider"] == "landmarks"


def test_unusable_landmarks_are_told_before_anything_is_computed(nifti, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.fcsv"):
        run(nifti, tmp_path / "out", never, landmarks=tmp_path / "nowhere.fcsv")
    assert not (tmp_path / "out").exists()


def test_dicom_objects_are_refused_for_other_files_before_anything_is_computed(nifti, tmp_path):
    with pytest.raises(InputError, match="is not DICOM"):
        run(nifti, tmp_path / "out", never, dicom=True)
    assert not (tmp_path / "out").exists()


def test_the_report_of_another_scan_is_not_overwritten_and_nothing_is_computed(nifti, tmp_path):
    run(nifti, tmp_path / "out", report=a_report)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    other = tmp_path / "other.nii.gz"
    write_labels(other, scan() + np.int16(1), GRID)
    with pytest.raises(OutputError, match="another scan"):
        run(other, tmp_path / "out", never, report=a_report)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_dicom_series_gets_its_objects_with_the_run(tmp_path):
    pytest.importorskip("highdicom")
    write_stack(tmp_path / "series", Volume(scan(), GRID))
    run(tmp_path / "series", tmp_path / "out", dicom=True, report=a_report)
    assert files(tmp_path / "out") == USUAL | REPORT | {"segmentation.dcm", "report.dcm"}


def test_where_no_liver_was_found_the_wishes_do_no_harm(nifti, tmp_path):
    def compute(volume, progress):
        nothing = np.zeros(GRID.shape, bool)
        return replace(result_from_masks(volume.grid, nothing, [], volume.name), volume=volume)

    result = run(nifti, tmp_path / "out", compute, couinaud=True, report=a_report)
    assert result.liver_volume_ml == 0
    assert files(tmp_path / "out") == USUAL | REPORT
