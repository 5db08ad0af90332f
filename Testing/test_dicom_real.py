"""DICOM objects of other makers, and real series; and the commands that read and write them."""

from __future__ import annotations

import argparse
import json
import shutil

import numpy as np
import pytest
from LiverCascadeLib.cli import main
from LiverCascadeLib.commands import dicom as dicom_command
from LiverCascadeLib.dicom.export import REPORT_FILE, SEGMENTATION_FILE, export_dicom
from LiverCascadeLib.dicom.report_reader import read_report
from LiverCascadeLib.dicom.results import assessment_from_segmentation, write_assessment
from LiverCascadeLib.dicom.segmentation_reader import import_segmentation, labels_from_segmentation, read_segmentation
from LiverCascadeLib.errors import EXIT_BAD_INPUT, InputError, LiverCascadeError
from LiverCascadeLib.lesions.assess import assess
from LiverCascadeLib.volume import read_labels, read_volume, write_labels
from test_dicom_objects import errors_of, small_assessment, small_series


def run(*arguments: object) -> int:
    """The commands as the program ``livercascade`` runs them."""
    parser = argparse.ArgumentParser()
    dicom_command.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args([str(argument) for argument in arguments])
    return options.run(options)


def test_dcmqi_liver_lies_on_its_ct(shared_data):
    volume = read_volume(shared_data("dcmqi_liver/ct-3slice"))
    labels = import_segmentation(shared_data("dcmqi_liver/liver.dcm"), volume).labels
    reference, grid = read_labels(shared_data("dcmqi_liver/liver_seg.nrrd"))
    voxels = volume.grid.to_ijk(grid.to_ras(np.argwhere(reference)[:, ::-1]))
    assert np.abs(voxels - np.rint(voxels)).max() < 0.01
    wanted = np.zeros(labels.shape, bool)
    wanted[tuple(np.rint(voxels).astype(int)[:, ::-1].T)] = True
    assert np.array_equal(labels == 1, wanted) and wanted.sum() == 107098


def test_dcmqi_segments_that_overlap_are_told_apart_and_listed(shared_data):
    volume = read_volume(shared_data("dcmqi_liver/ct-3slice"))
    read = read_segmentation(shared_data("dcmqi_liver/partial_overlaps.dcm"), volume.grid)
    masks = [segment.on(volume.grid) for segment in read.segments]
    assert [segment.name for segment in read.segments] == ["GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"]
    assert {segment.kind for segment in read.segments} == {"other"}
    assert np.sum(masks, axis=0).max() > 1
    with pytest.raises(InputError, match=r"neither a liver nor a lesion.*'ORANGE' \(Artery\)"):
        labels_from_segmentation(read)


def test_dcmqi_report_reads_and_its_segmentation_is_of_another_grid(shared_data):
    report = read_report(shared_data("dcmqi_liver/sr-example/sr.dcm"))
    (group,) = report.groups
    assert group.tracking_uid == "2.25.318774060119084600392715520575818119084"
    assert group.values()["volume_ml"] == pytest.approx(33.5824)
    assert len(group.measurements) == 22 and group.segment == 1
    volume = read_volume(shared_data("dcmqi_liver/ct-3slice"))
    with pytest.raises(InputError, match="made on other voxels than this CT"):
        read_segmentation(shared_data("dcmqi_liver/sr-example/seg.dcm"), volume.grid)


def test_jpeg2000_series_without_identifiers_is_refused_and_marked_on_request(shared_data, tmp_path):
    source = shared_data("dicom_ct20")
    folder = source / "series"
    volume = read_volume(folder)
    labels, _ = read_labels(source / "seg.nii.gz")
    assessment = assess(volume, (labels == 5).astype(np.uint8))
    with pytest.raises(InputError, match=r"StudyInstanceUID \(20 of 20 slices\)"):
        export_dicom(assessment, folder, tmp_path / "objects")
    exported = export_dicom(assessment, folder, tmp_path / "objects", generate_uids=True)
    assert exported.findings[0].code == "generated-uids"
    assert np.array_equal(import_segmentation(exported.files[0], volume).labels, assessment.labels)
    if shutil.which("dciodvfy"):
        assert not [line for file in exported.files for line in errors_of("dciodvfy", file)]


def test_real_series_with_flipped_axes_gets_its_voxels_back(unzipped, shared_data, tmp_path):
    folder = unzipped("lits_000/series.zip")
    volume = read_volume(folder)
    labels, _ = read_labels(shared_data("lits_000/liver.nii.gz"))
    labels = (labels > 0).astype(np.uint8)
    labels[40, 250:262, 160:170] = 2
    exported = export_dicom(assess(volume, labels), folder, tmp_path)
    assert not exported.findings
    assert np.array_equal(import_segmentation(exported.files[0], volume).labels, labels)
    if shutil.which("dciodvfy"):
        assert not [line for file in exported.files for line in errors_of("dciodvfy", file)]


@pytest.fixture
def results(tmp_path):
    """A results folder about a DICOM series."""
    volume = small_series(tmp_path / "series")
    assessment = small_assessment(volume)
    write_assessment(assessment, tmp_path / "results")
    return tmp_path / "results", tmp_path / "series", assessment


def test_command_writes_objects_beside_the_results_and_reads_them_back(results, tmp_path, capsys):
    folder, series, assessment = results
    assert run("dicom", folder) == 0
    assert "2 segments" in capsys.readouterr().out
    assert run("import-seg", folder / SEGMENTATION_FILE, "--ct", series, "-o", tmp_path / "back", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["lesions"][0]["tracking_uid"] == assessment.lesions[0].tracking_uid
    labels, _ = read_labels(tmp_path / "back" / "labels.nii.gz")
    assert np.array_equal(labels, assessment.labels)
    assert run("dicom", tmp_path / "back", "-o", tmp_path / "again", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [file.rsplit("/")[-1] for file in said["files"]] == [SEGMENTATION_FILE, REPORT_FILE]


def test_results_about_a_nifti_file_need_the_series(results, tmp_path, capsys):
    _, series, assessment = results
    volume = assessment.volume
    write_labels(tmp_path / "ct.nii.gz", volume.array, volume.grid)
    from_nifti = assess(read_volume(tmp_path / "ct.nii.gz"), assessment.labels)
    write_assessment(from_nifti, tmp_path / "nifti")
    with pytest.raises(InputError, match=r"not DICOM.*\(--ct\)"):
        run("dicom", tmp_path / "nifti")
    assert run("dicom", tmp_path / "nifti", "--ct", series, "--quiet") == 0
    assert not capsys.readouterr().out


def test_program_knows_both_commands_and_says_what_is_wrong(tmp_path, capsys):
    assert main(["dicom", str(tmp_path / "nowhere")]) == EXIT_BAD_INPUT
    assert main(["import-seg", "no.dcm", "--ct", str(tmp_path), "-o", str(tmp_path / "out")]) == EXIT_BAD_INPUT
    assert "There is no folder" in capsys.readouterr().err


def test_series_that_moved_is_found_by_ct(results, tmp_path):
    folder, series, _ = results
    series.rename(tmp_path / "elsewhere")
    with pytest.raises(LiverCascadeError):
        run("dicom", folder)
    assert run("dicom", folder, "--ct", tmp_path / "elsewhere", "--quiet") == 0


def test_command_names_the_option_that_generates_identifiers(tmp_path, capsys):
    volume = small_series(tmp_path / "series", SeriesInstanceUID="")
    write_assessment(small_assessment(volume), tmp_path / "results")
    with pytest.raises(InputError, match="--generate-uids"):
        run("dicom", tmp_path / "results")
    assert run("dicom", tmp_path / "results", "--generate-uids") == 0
    assert "warning: SeriesInstanceUID is missing" in capsys.readouterr().out


def test_imported_segmentation_keeps_who_drew_it(results, tmp_path):
    import pydicom

    _, series, assessment = results
    provenance = {"models": [{"role": "refine", "id": "net", "version": "3", "sha256": "0" * 64}]}
    own = assess(assessment.volume, assessment.labels, provenance=provenance)
    export_dicom(own, series, tmp_path / "first")
    again = assessment_from_segmentation(tmp_path / "first" / SEGMENTATION_FILE, assessment.volume)
    export_dicom(again, series, tmp_path / "second")
    item = pydicom.dcmread(tmp_path / "second" / SEGMENTATION_FILE, stop_before_pixels=True).SegmentSequence[1]
    assert (item.SegmentAlgorithmType, item.SegmentAlgorithmName) == ("AUTOMATIC", "LiverCascade net")
