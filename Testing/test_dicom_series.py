"""DICOM series in: which slices are taken, where they lie, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_writer import write_series, write_slice
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.findings import Severity
from LiverCascadeLib.volume import read_labels, read_volume


def codes(volume) -> list[str]:
    return [finding.code for finding in volume.findings]


def message(volume, code: str) -> str:
    return next(finding.message for finding in volume.findings if finding.code == code)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    text = str(caught.value)
    assert "\n" not in text and "itk" not in text.lower() and text.endswith(".")
    return text


def test_slices_are_ordered_by_position_and_not_by_name(tmp_path):
    pixels = write_series(tmp_path, heights=(6, 0, 8, 2, 4))
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, pixels[[1, 3, 4, 0, 2]])
    assert np.allclose(volume.grid.to_ras([0, 0, 0]), (20, 30, 0))
    assert np.allclose(volume.grid.spacing, (0.7, 0.8, 2))


def test_the_step_comes_from_positions_and_a_different_thickness_is_only_mentioned(tmp_path):
    write_series(tmp_path, heights=np.arange(6) * 1.5, SliceThickness=5)
    volume = read_volume(tmp_path)
    assert np.isclose(volume.grid.spacing[2], 1.5)
    assert "5 mm thick but 1.5 mm apart" in message(volume, "slice-step")


def test_rescale_slope_and_intercept_are_applied(tmp_path):
    for k in range(3):
        stored = np.full((4, 5), 500 + k, dtype=np.uint16)
        write_slice(
            tmp_path / f"{k}", stored, (0, 0, k), RescaleSlope=2, RescaleIntercept=-1024, BitsStored=12, HighBit=11
        )
    assert read_volume(tmp_path).array[:, 0, 0].tolist() == [-24, -22, -20]


def test_fractions_of_a_hounsfield_unit_are_rounded(tmp_path):
    for k in range(2):
        write_slice(tmp_path / f"{k}", np.full((4, 5), 3, dtype=np.int16), (0, 0, k), RescaleSlope=0.6)
    assert (read_volume(tmp_path).array == 2).all()


def test_an_oblique_series_lies_along_its_own_normal(tmp_path):
    angle = np.radians(20)
    row = (1.0, 0.0, 0.0)
    column = (0.0, float(np.cos(angle)), float(np.sin(angle)))
    normal = np.cross(row, column)
    for k in range(4):
        write_slice(
            tmp_path / f"{k}", np.full((4, 5), k, np.int16), 3 * k * normal, ImageOrientationPatient=[*row, *column]
        )
    volume = read_volume(tmp_path)
    assert volume.array[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert np.allclose(volume.grid.to_ras([0, 0, 3]), 9 * normal * (-1, -1, 1))


def test_rounded_positions_count_as_even(tmp_path):
    write_series(tmp_path, heights=(0, 1.2, 2.5, 3.8, 5.0))
    assert np.isclose(read_volume(tmp_path).grid.spacing[2], 1.25)


def test_one_file_stands_for_its_whole_series_and_for_no_other(tmp_path):
    pixels = write_series(tmp_path, heights=(0, 2, 4), prefix="a")
    write_series(tmp_path, heights=range(9), prefix="b", SeriesInstanceUID="1.2.3.1.2")
    volume = read_volume(next(tmp_path.glob("a*-1")))
    assert np.array_equal(volume.array, pixels)
    assert codes(volume) == []
    assert read_volume(next(tmp_path.glob("b*-1"))).grid.size[2] == 9


def test_of_several_series_the_longest_ct_is_taken_and_the_rest_named(tmp_path):
    write_series(tmp_path / "a", heights=(0, 2, 4), SeriesInstanceUID="1.1", SeriesDescription="Thick", SeriesNumber=2)
    pixels = write_series(tmp_path / "b" / "c", heights=range(6), SliceThickness=1)
    write_series(tmp_path / "d", heights=range(9), SeriesInstanceUID="1.3", Modality="MR")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, pixels)
    assert codes(volume) == ["series-chosen"]
    assert "series 3 'Abdomen' (6 slices)" in message(volume, "series-chosen")
    assert "series 2 'Thick' (3 slices)" in message(volume, "series-chosen")
    assert volume.findings[0].severity is Severity.INFO


def test_many_series_that_were_left_out_are_counted(tmp_path):
    write_series(tmp_path / "main", heights=range(4))
    for n in range(7):
        write_series(tmp_path / f"{n}", heights=(0, 1), SeriesInstanceUID=f"1.5.{n}", SeriesDescription=None)
    assert "and 2 more" in message(read_volume(tmp_path), "series-chosen")


def test_slices_of_another_plane_in_the_same_series_are_left_out(tmp_path):
    pixels = write_series(tmp_path, heights=range(5), SliceThickness=1)
    write_slice(tmp_path / "cor", np.zeros((12, 10), np.int16), (0, 0, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, pixels)
    assert codes(volume) == ["series-chosen"]


def test_series_are_told_apart_without_identifiers(tmp_path):
    empty = {"SeriesInstanceUID": "", "StudyInstanceUID": "", "SliceThickness": 1}
    pixels = write_series(tmp_path, heights=range(5), **empty)
    write_series(tmp_path / "other", heights=range(3), SeriesNumber=9, **empty)
    assert np.array_equal(read_volume(tmp_path).array, pixels)


def test_localizers_are_left_out_and_mentioned(tmp_path):
    write_series(tmp_path)
    write_slice(
        tmp_path / "scout", np.zeros((12, 10), np.int16), (0, 0, 90), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    volume = read_volume(tmp_path)
    assert volume.grid.size[2] == 5
    assert "1 localizer image" in message(volume, "localizer-left-out")


def test_identical_slices_are_dropped_with_a_warning(tmp_path):
    pixels = write_series(tmp_path)
    for file in list(tmp_path.iterdir()):
        shutil.copy(file, tmp_path / f"copy-{file.name}")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, pixels)
    assert codes(volume) == ["duplicate-slices"]
    assert volume.findings[0].severity is Severity.WARNING
    assert "5 slices" in message(volume, "duplicate-slices")


def test_several_phases_in_one_series_are_refused(tmp_path):
    write_series(tmp_path / "1", AcquisitionNumber=1)
    for k in range(5):
        write_slice(tmp_path / "2" / f"{k}", np.full((12, 10), 7, np.int16), (-20, -30, 2 * k), AcquisitionNumber=2)
    text = refusal(tmp_path)
    assert "several phases (acquisitions 1, 2)" in text and "at 5 of 5 positions" in text


def test_missing_slices_are_counted_and_located(tmp_path):
    write_series(tmp_path, heights=(0, 2, 4, 8, 10, 16, 18, 20))
    text = refusal(tmp_path)
    assert "lacks 3 slices" in text
    assert "between 4.0 and 8.0 mm, 10.0 and 16.0 mm" in text
    assert "6.00 mm where the step is 2.00 mm" in text


def test_one_missing_slice_is_enough_for_a_refusal(tmp_path):
    write_series(tmp_path, heights=[2 * k for k in range(40) if k != 17])
    assert "lacks 1 slice: between 32.0 and 36.0 mm" in refusal(tmp_path)


def test_unevenly_spaced_slices_are_refused_with_their_distances(tmp_path):
    write_series(tmp_path, heights=(0, 2, 4, 7, 10, 13))
    text = refusal(tmp_path)
    assert "unevenly spaced: 2.00 to 3.00 mm" in text


def test_gantry_tilt_is_refused_with_its_angle(tmp_path):
    write_series(tmp_path, heights=np.arange(8) * 5, shift_per_mm=(0, float(np.tan(np.radians(15)))))
    text = refusal(tmp_path)
    assert "tilted gantry" in text and "15.0°" in text and "9.4 mm" in text


def test_a_drift_below_half_a_pixel_is_accepted(tmp_path):
    write_series(tmp_path, heights=range(5), shift_per_mm=(0.05, 0.05))
    assert read_volume(tmp_path).grid.size[2] == 5


def test_slices_shifted_sideways_are_refused(tmp_path):
    for k in range(6):
        write_slice(tmp_path / f"{k}", np.zeros((4, 5), np.int16), (30 if k % 2 else 0, 0, k))
    assert "shifted sideways" in refusal(tmp_path)


def test_two_patients_in_a_folder_are_refused_by_their_ids_only(tmp_path):
    write_series(tmp_path / "a", PatientID="A17", PatientName="Doe^Jane")
    write_series(tmp_path / "b", PatientID="B4", PatientName="Roe^Rick", SeriesInstanceUID="1.9")
    text = refusal(tmp_path)
    assert "'A17' and 'B4'" in text and "Pass the folder of one patient" in text
    assert "Doe" not in text and "Roe" not in text


def test_patients_without_an_id_are_still_told_apart(tmp_path):
    write_series(tmp_path / "a", PatientID="", PatientName="Doe^Jane")
    write_series(tmp_path / "b", PatientID="", PatientName="Roe^Rick", SeriesInstanceUID="1.9")
    text = refusal(tmp_path)
    assert "2 patients" in text and "Doe" not in text


@pytest.mark.parametrize("modality", ["MR", "PT", "US"])
def test_other_modalities_are_refused_by_name(tmp_path, modality):
    write_series(tmp_path, Modality=modality)
    text = refusal(tmp_path)
    assert f"no CT slices but {modality} (5 images)" in text
    assert modality in refusal(next(tmp_path.iterdir()))


def test_a_folder_with_only_a_localizer_is_refused(tmp_path):
    write_slice(tmp_path / "s", np.zeros((4, 5), np.int16), (0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert "CT localizer (1 image)" in refusal(tmp_path)


def test_a_single_slice_is_refused(tmp_path):
    file = write_slice(tmp_path / "one", np.zeros((4, 5), np.int16), (0, 0, 0))
    assert "single slice" in refusal(tmp_path)
    assert "single slice" in refusal(file)


def test_color_images_are_refused(tmp_path):
    for k in range(2):
        write_slice(tmp_path / f"{k}", np.zeros((4, 6, 3), np.uint8), (0, 0, k))
    assert "color" in refusal(tmp_path)


def test_images_without_a_position_are_refused(tmp_path):
    for k in range(2):
        write_slice(tmp_path / f"{k}", np.zeros((4, 5), np.int16), (0, 0, k), ImagePositionPatient=None)
    assert "without a position" in refusal(tmp_path)


def test_images_without_a_position_beside_a_series_are_mentioned(tmp_path):
    write_series(tmp_path)
    write_slice(tmp_path / "x", np.zeros((4, 5), np.int16), (0, 0, 0), PixelSpacing=None, SeriesInstanceUID="1.7")
    assert codes(read_volume(tmp_path)) == ["images-left-out"]


def test_enhanced_multi_frame_objects_are_refused(tmp_path):
    write_slice(tmp_path / "e", np.zeros((4, 5), np.int16), (0, 0, 0), NumberOfFrames=7)
    assert "7 frames in one file" in refusal(tmp_path)


def test_a_broken_orientation_is_refused(tmp_path):
    write_series(tmp_path, ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
    assert "not at right angles" in refusal(tmp_path)


def test_a_pixel_spacing_of_zero_is_refused(tmp_path):
    write_series(tmp_path, PixelSpacing=[0, 0.7])
    assert "spacing of 0.7×0" in refusal(tmp_path)


def test_a_truncated_slice_is_named(tmp_path):
    write_series(tmp_path)
    victim = sorted(tmp_path.iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:-40])
    text = refusal(tmp_path)
    assert victim.name in text and "truncated" in text


def test_a_slice_that_ends_within_its_header_is_warned_about(tmp_path):
    write_series(tmp_path)
    last = next(p for p in tmp_path.iterdir() if p.name.endswith("-4"))
    last.write_bytes(last.read_bytes()[:600])
    volume = read_volume(tmp_path)
    assert volume.grid.size[2] == 4
    assert last.name in message(volume, "damaged-files")
    assert "damaged DICOM file" in refusal(last)


def test_a_slice_whose_header_makes_no_sense_is_warned_about(tmp_path):
    write_series(tmp_path)
    file = write_slice(tmp_path / "odd", np.zeros((4, 5), np.int16), (0, 0, 3))
    data = file.read_bytes()
    file.write_bytes(data.replace(b"0.8\\0.7", b"0.8\\x.y"))
    assert "odd" in message(read_volume(tmp_path), "damaged-files")


def test_directories_pipes_and_links_to_nowhere_are_passed_over(tmp_path):
    write_series(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    assert read_volume(tmp_path).grid.size[2] == 5


def test_a_position_that_is_no_number_counts_as_none(tmp_path):
    write_series(tmp_path, ImagePositionPatient=[0, 0])
    assert "without a position" in refusal(tmp_path)


def test_pixels_of_another_size_than_stated_are_refused(tmp_path, monkeypatch):
    from LiverCascadeLib import dicom_series

    write_series(tmp_path)
    monkeypatch.setattr(dicom_series, "array_of", lambda image: np.zeros((3, 3), np.int16))
    assert "does not hold the 10×12 pixels" in refusal(tmp_path)


def test_the_source_says_where_the_series_comes_from_and_is_json(tmp_path):
    write_series(tmp_path)
    source = read_volume(tmp_path).source
    assert json.loads(json.dumps(source)) == source
    expected = {
        "path": str(tmp_path),
        "format": "dicom",
        "patient_id": "P1",
        "study_instance_uid": "1.2.3.1",
        "series_instance_uid": "1.2.3.1.1",
        "series_description": "Abdomen",
        "modality": "CT",
        "study_date": "20200102",
        "slice_thickness_mm": "2.0",
    }
    assert expected.items() <= source.items()


@pytest.mark.parametrize(
    ("elements", "name"),
    [
        ({}, "Abdomen"),
        ({"SeriesDescription": ""}, "CT 3"),
        ({"SeriesDescription": None, "SeriesNumber": None}, "case7"),
    ],
)
def test_the_name_is_the_description_or_the_number_or_the_folder(tmp_path, elements, name):
    write_series(tmp_path / "case7", **elements)
    assert read_volume(tmp_path / "case7").name == name


def test_files_without_preamble_are_read(tmp_path):
    pixels = write_series(tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    assert np.array_equal(read_volume(tmp_path).array, pixels)


def test_a_thickness_that_is_no_number_is_ignored(tmp_path):
    write_series(tmp_path, SliceThickness=None)
    assert codes(read_volume(tmp_path)) == []


def test_real_jpeg2000_series_without_identifiers_reads_with_its_true_step(shared_data):
    volume = read_volume(shared_data("dicom_ct20"))
    _, reference = read_labels(shared_data("dicom_ct20/seg.nii.gz"))
    assert np.allclose(volume.grid.spacing, (0.9765625, 0.9765625, 2))
    # The reference stores its rows from back to front.
    assert volume.grid.canonical().is_close(reference.canonical())
    assert volume.array.min() == -1024
    assert "3 mm thick but 2 mm apart" in message(volume, "slice-step")


def test_real_jpeg2000_series_lies_under_its_labels(shared_data):
    volume = read_volume(shared_data("dicom_ct20"))
    labels, _ = read_labels(shared_data("dicom_ct20/seg.nii.gz"))
    liver = volume.array[labels[:, ::-1] == 5]
    assert 20 < np.median(liver) < 140 and liver.std() < 60


def test_one_real_file_stands_for_its_series(shared_data):
    first = sorted(shared_data("dicom_ct20/series").iterdir())[0]
    assert read_volume(first).grid.size == (512, 512, 20)


def test_real_series_reads_to_the_grid_of_its_labels(shared_data, unzipped):
    volume = read_volume(unzipped("lits_000/series.zip"))
    labels, reference = read_labels(shared_data("lits_000/liver.nii.gz"))
    assert volume.grid.is_close(reference)
    assert volume.array.min() == -3024
    assert 60 < np.median(volume.array[labels > 0]) < 180


def test_real_series_without_extension_reads(unzipped):
    volume = read_volume(unzipped("ircadb_17/PATIENT_DICOM.zip"))
    assert volume.grid.size == (512, 512, 119)
    assert np.allclose(volume.grid.spacing, (0.743, 0.743, 1.6), atol=1e-4)
    assert volume.findings == ()


def test_real_folder_with_segmentations_and_reports_reads_its_ct(shared_data):
    volume = read_volume(shared_data("dcmqi_liver"))
    assert volume.grid.size == (512, 512, 3)
    assert np.isclose(volume.grid.spacing[2], 1.0)


def test_a_real_segmentation_object_is_no_ct(shared_data):
    assert "SEG" in refusal(shared_data("dcmqi_liver/liver.dcm"))
    assert "without images (SR)" in refusal(shared_data("dcmqi_liver/sr-example/sr.dcm"))
