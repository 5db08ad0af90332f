"""DICOM objects: written, read back, read by others, and refused where they could not be honest."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from analytic_bodies import rotation
from dicom_writer import write_stack
from LiverCascadeLib.dicom.export import REPORT_FILE, SEGMENTATION_FILE, export_dicom
from LiverCascadeLib.dicom.instances import find_instances
from LiverCascadeLib.dicom.report_reader import read_report
from LiverCascadeLib.dicom.segmentation_reader import import_segmentation, labels_from_segmentation, read_segmentation
from LiverCascadeLib.dicom.segmentation_writer import segmentation, segments_of
from LiverCascadeLib.dicom.structured_report import PRIVATE_SCHEME, coded, concept_of
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.lesions.assess import LesionNote, assess
from LiverCascadeLib.lesions.assessment import AssessedLesion, Assessment
from LiverCascadeLib.lesions.couinaud import CouinaudMap
from LiverCascadeLib.lesions.measurements import LIVER_MEASUREMENTS, MEASUREMENTS, is_known
from LiverCascadeLib.volume import Volume, read_volume

pytest.importorskip("highdicom", reason="highdicom is not installed")

PROVENANCE = {
    "models": [
        {"role": "locate", "id": "locate-1", "version": "1.0.0", "sha256": "ab" * 32},
        {"role": "refine", "id": "refine-1", "version": "1.2.0", "sha256": "cd" * 32},
    ]
}


def right_handed(grid: Grid) -> bool:
    return bool(np.linalg.det(grid.ijk_to_ras[:3, :3]) > 0)


def oblique_grid(size=(43, 37, 24)) -> Grid:
    """Rows and columns of an odd number of pixels, tilted against the patient's axes."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((1, -2, 0.5), 22)[:3, :3] @ np.diag([-2.1, -1.9, 3.0])
    matrix[:3, 3] = (40, 60, -20)
    return Grid(size, matrix)


def body(grid: Grid, lesions: int, seed: int = 0) -> tuple[Volume, np.ndarray]:
    """A noisy CT and labels: a block of liver with ``lesions`` boxes of different size in it, some of one voxel."""
    rng = np.random.default_rng(seed)
    array = rng.integers(20, 120, grid.shape).astype(np.int16)
    labels = np.zeros(grid.shape, np.uint8 if lesions < 250 else np.uint16)
    labels[3:-4, 5:-5, 4:-6] = 1
    places = [
        (k, j, i)
        for k in range(4, grid.size[2] - 7, 3)
        for j in range(6, grid.size[1] - 9, 4)
        for i in range(5, grid.size[0] - 10, 5)
    ]
    for label, place in enumerate(rng.permutation(places)[:lesions], start=2):
        size = rng.integers(1, (3, 4, 5))
        labels[tuple(slice(a, a + n) for a, n in zip(place, size, strict=True))] = label
    return Volume(array, grid, "body"), labels


def halves(labels: np.ndarray) -> CouinaudMap:
    """Two 'segments' of a liver: V on one side, IVa on the other."""
    values = np.where(np.arange(labels.shape[2]) < labels.shape[2] // 2, 5, 9).astype(np.uint8)
    return CouinaudMap(np.where(labels > 0, values, 0).astype(np.uint8), "estimate", "From an average liver.")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """20 lesions on an oblique series with frames of an odd size, written once: (assessment, series, objects)."""
    folder = tmp_path_factory.mktemp("oblique")
    volume, labels = body(oblique_grid(), 20)
    write_stack(folder / "series", volume)
    volume = read_volume(folder / "series")
    notes = [
        LesionNote(2, "Lesion 1", "accepted", "Randständig, 2. Kontrolle\nin 3 Monaten"),
        LesionNote(3, "肝嚢胞?", "unsure"),
        LesionNote(4, "x" * 200),
    ]
    assessment = assess(volume, labels, lesions=notes, couinaud=halves(labels), provenance=PROVENANCE)
    export_dicom(assessment, folder / "series", folder / "objects")
    return assessment, folder / "series", folder / "objects"


def test_segmentation_read_back_has_the_same_voxels_on_an_oblique_series(exported):
    assessment, _, objects = exported
    read = read_segmentation(objects / SEGMENTATION_FILE, assessment.volume.grid)
    assert [segment.kind for segment in read.segments] == ["liver", *["lesion"] * 20, "couinaud", "couinaud"]
    assert np.array_equal(read.segments[0].on(read.grid), assessment.labels >= 1)
    for segment, lesion in zip(read.of_kind("lesion"), assessment.lesions, strict=True):
        assert np.array_equal(segment.on(read.grid), assessment.labels == lesion.label)
        assert segment.box == lesion.box
    imported = labels_from_segmentation(read)
    assert np.array_equal(imported.labels, assessment.labels)
    assert np.array_equal(imported.couinaud.labels, assessment.couinaud.labels)
    assert not imported.findings


def test_names_comments_and_tracking_uids_come_back(exported):
    assessment, _, objects = exported
    notes = import_segmentation(objects / SEGMENTATION_FILE, assessment.volume).notes
    assert [note.tracking_uid for note in notes] == [lesion.tracking_uid for lesion in assessment.lesions]
    assert notes[0].comment == assessment.lesions[0].comment
    assert notes[1].name == "肝嚢胞?"
    assert notes[2].name == "x" * 61 + "..."


def test_empty_frames_are_left_out_and_the_others_refer_to_their_slices(exported):
    assessment, series, objects = exported
    data = pydicom.dcmread(objects / SEGMENTATION_FILE)
    masks = [assessment.labels >= 1, *(assessment.labels == lesion.label for lesion in assessment.lesions)]
    masks += [assessment.couinaud.labels == value for value in (5, 9)]
    assert data.NumberOfFrames == sum(int(mask.any(axis=(1, 2)).sum()) for mask in masks)
    positions = {
        header.SOPInstanceUID: [float(v) for v in header.ImagePositionPatient]
        for header in (pydicom.dcmread(file, stop_before_pixels=True) for file in series.iterdir())
    }
    for item in data.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = [float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient]
        assert np.allclose(positions[source], place, atol=1e-6)


def test_report_read_back_has_the_same_figures(exported):
    assessment, _, objects = exported
    report = read_report(objects / REPORT_FILE)
    groups = report.by_tracking_uid()
    assert len(report.groups) == 23
    for lesion in assessment.lesions:
        known = {m.key: lesion.values[m.key] for m in coded(MEASUREMENTS) if is_known(lesion.values[m.key])}
        assert len(known) >= 8
        assert groups[lesion.tracking_uid].values() == known
        assert groups[lesion.tracking_uid].review == (lesion.review if lesion.review != "rejected" else "")
    liver = {m.key: assessment.liver[m.key] for m in coded(LIVER_MEASUREMENTS) if is_known(assessment.liver[m.key])}
    assert report.groups[0].values() == liver
    assert report.groups[-1].values()["volume_ml"] == assessment.couinaud_ml[9]


def test_report_names_the_segment_and_where_in_the_liver_a_lesion_is(exported):
    assessment, _, objects = exported
    segmentation = pydicom.dcmread(objects / SEGMENTATION_FILE, stop_before_pixels=True)
    by_number = {int(item.SegmentNumber): item for item in segmentation.SegmentSequence}
    groups = read_report(objects / REPORT_FILE).by_tracking_uid()
    for lesion in assessment.lesions:
        group = groups[lesion.tracking_uid]
        assert group.segmentation_uid == segmentation.SOPInstanceUID
        assert by_number[group.segment].TrackingUID == lesion.tracking_uid
        wanted = ["10200004", *({5: "277959000", 9: "277958008"}[share.value] for share in lesion.couinaud)]
        assert [site[0] for site in group.sites] == wanted


def test_objects_belong_to_the_patient_and_the_study_and_say_what_made_them(exported):
    _, series, objects = exported
    original = pydicom.dcmread(next(series.iterdir()), stop_before_pixels=True)
    for name, modality, number in ((SEGMENTATION_FILE, "SEG", 301), (REPORT_FILE, "SR", 302)):
        data = pydicom.dcmread(objects / name, stop_before_pixels=True)
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate"):
            assert data.get(keyword) == original.get(keyword)
        assert (data.Modality, data.SeriesNumber) == (modality, number)
        assert data.SeriesInstanceUID != original.SeriesInstanceUID
        assert data.Manufacturer == "LiverCascade" and data.DeviceSerialNumber and data.SoftwareVersions
        assert "research" in data.SeriesDescription
    data = pydicom.dcmread(objects / SEGMENTATION_FILE, stop_before_pixels=True)
    assert data.ContentQualification == "RESEARCH"
    algorithm = data.SegmentSequence[1].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("LiverCascade refine-1", "1.2.0")


def test_what_was_drawn_by_hand_is_said_to_be(tmp_path, exported):
    assessment, series, _ = exported
    export_dicom(replace(assessment, provenance={}, couinaud=None), series, tmp_path)
    data = pydicom.dcmread(tmp_path / SEGMENTATION_FILE, stop_before_pixels=True)
    assert {item.SegmentAlgorithmType for item in data.SegmentSequence} == {"MANUAL"}


def errors_of(program: str, path: Path) -> list[str]:
    answer = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=120)
    return [line for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("Error")]


def test_dciodvfy_finds_no_error(exported):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    for name in (SEGMENTATION_FILE, REPORT_FILE):
        assert not errors_of("dciodvfy", exported[2] / name)


def test_pydicom_finds_every_value_valid(exported, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    for name in (SEGMENTATION_FILE, REPORT_FILE):
        count = 0
        for _ in pydicom.dcmread(exported[2] / name).iterall():
            count += 1
        assert count > 500


def test_highdicom_reads_both(exported):
    import highdicom

    assessment, _, objects = exported
    segmentation = highdicom.seg.segread(objects / SEGMENTATION_FILE)
    assert segmentation.number_of_segments == 23
    array = segmentation.get_volume(segment_numbers=[1], combine_segments=True, skip_overlap_checks=True).array
    assert int((array > 0).sum()) == int((assessment.labels >= 1).sum())
    report = highdicom.sr.srread(objects / REPORT_FILE)
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 23


def tool(name: str) -> str:
    """A program of the package dcmqi."""
    pytest.importorskip("dcmqi", reason="dcmqi is not installed")
    found = shutil.which(name) or shutil.which(str(Path(sys.executable).with_name(name)))
    if found is None:
        pytest.skip(f"dcmqi's {name} is not installed")
    return found


def test_dcmqi_reads_the_same_voxels(exported, tmp_path):
    import SimpleITK as sitk

    assessment, _, objects = exported
    command = [tool("segimage2itkimage"), "--inputDICOM", objects / SEGMENTATION_FILE, "--outputDirectory", tmp_path]
    subprocess.run([*command, "-t", "nii", "-p", "s"], check=True, capture_output=True, timeout=120)
    for number in (1, 2, 12, 21):
        image = sitk.ReadImage(str(tmp_path / f"s-{number}.nii.gz"))
        grid = Grid.from_lps(image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection())
        mask = sitk.GetArrayFromImage(image) > 0
        wanted = assessment.labels >= 1 if number == 1 else assessment.labels == number
        voxels = assessment.volume.grid.to_ijk(grid.to_ras(np.argwhere(mask)[:, ::-1]))
        assert np.abs(voxels - np.rint(voxels)).max() < 0.01
        found = {tuple(voxel) for voxel in np.rint(voxels).astype(int).tolist()}
        assert found == {tuple(voxel) for voxel in np.argwhere(wanted)[:, ::-1].tolist()}


def test_dcmqi_reads_the_same_figures(exported, tmp_path):
    import json

    assessment, _, objects = exported
    command = [tool("tid1500reader"), "--inputDICOM", objects / REPORT_FILE, "--outputMetadata", tmp_path / "sr.json"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    groups = json.loads((tmp_path / "sr.json").read_text(encoding="utf-8", errors="replace"))["Measurements"]
    by_uid = {group["TrackingUniqueIdentifier"]: group for group in groups}
    for lesion in assessment.lesions:
        items = by_uid[lesion.tracking_uid]["measurementItems"]
        values = {item["quantity"]["CodeValue"]: float(item["value"]) for item in items}
        assert values["118565006"] == pytest.approx(lesion.values["volume_ml"], rel=1e-9)
        if is_known(lesion.values["long_axis_mm"]):
            assert values["103339001"] == pytest.approx(lesion.values["long_axis_mm"], rel=1e-9)


def test_private_concepts_have_short_values_of_their_own():
    for measurements in (MEASUREMENTS, LIVER_MEASUREMENTS):
        concepts = [(concept_of(m), m.derivation) for m in coded(measurements)]
        assert len({(c.value, c.scheme, d) for c, d in concepts}) == len(concepts)
        assert all(len(concept.value) <= 16 and len(concept.meaning) <= 64 for concept, _ in concepts)
        assert any(concept.scheme == PRIVATE_SCHEME for concept, _ in concepts)


@pytest.mark.parametrize("flip", [(), (0,), (1, 2)], ids=str)
def test_volume_with_flipped_or_swapped_axes_gets_the_same_object(tmp_path, flip):
    volume, labels = body(oblique_grid((12, 20, 14)), 3)
    write_stack(tmp_path / "series", volume)
    # The same voxels as another program may have saved them: axes swapped, some of them reversed.
    order = (1, 2, 0)
    array, flipped = volume.array.transpose(order), labels.transpose(order)
    for axis in flip:
        array, flipped = np.flip(array, axis), np.flip(flipped, axis)
    columns, size = np.zeros((3, 3)), array.shape[::-1]
    corner = np.zeros(3)
    for axis in range(3):
        source = 2 - order[2 - axis]
        sign = -1 if 2 - axis in flip else 1
        columns[:, axis] = sign * volume.grid.ijk_to_ras[:3, source]
        corner[source] = volume.grid.size[source] - 1 if sign < 0 else 0
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = columns, volume.grid.to_ras(corner)
    saved = Volume(np.ascontiguousarray(array), Grid(size, matrix), "saved", {"path": "ct.nii.gz", "format": "nifti"})
    export_dicom(assess(saved, np.ascontiguousarray(flipped)), tmp_path / "series", tmp_path / "objects")
    straight = read_segmentation(tmp_path / "objects" / SEGMENTATION_FILE, volume.grid)
    assert np.array_equal(labels_from_segmentation(straight).labels, labels)
    back = read_segmentation(tmp_path / "objects" / SEGMENTATION_FILE, saved.grid)
    assert np.array_equal(labels_from_segmentation(back).labels, flipped)


def small_series(folder: Path, **elements: object) -> Volume:
    volume, _ = body(oblique_grid((14, 20, 14)), 0)
    write_stack(folder, volume, **elements)
    return read_volume(folder)


def small_assessment(volume: Volume):
    labels = np.zeros(volume.grid.shape, np.uint8)
    labels[3:9, 4:15, 3:11] = 1
    labels[5, 6, 7] = 2
    return assess(volume, labels)


def test_lesion_of_one_voxel_comes_back(tmp_path):
    volume = small_series(tmp_path / "series")
    export_dicom(small_assessment(volume), tmp_path / "series", tmp_path / "objects")
    imported = import_segmentation(tmp_path / "objects" / SEGMENTATION_FILE, volume)
    assert np.argwhere(imported.labels == 2).tolist() == [[5, 6, 7]]


def test_empty_segmentation_is_refused_and_a_liver_alone_says_no_lesion(tmp_path):
    volume = small_series(tmp_path / "series")
    labels = np.zeros(volume.grid.shape, np.uint8)
    with pytest.raises(InputError, match="Nothing is segmented"):
        export_dicom(assess(volume, labels), tmp_path / "series", tmp_path / "objects")
    assert not (tmp_path / "objects").exists()
    labels[2:5, 3:9, 2:8] = 1
    export_dicom(assess(volume, labels), tmp_path / "series", tmp_path / "objects")
    report = read_report(tmp_path / "objects" / REPORT_FILE)
    assert len(report.groups) == 1 and report.groups[0].values()["lesion_count"] == 0


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"])
def test_missing_identifier_is_refused_in_words_and_generated_only_on_request(tmp_path, keyword):
    volume = small_series(tmp_path / "series", **{keyword: ""})
    assessment = small_assessment(volume)
    with pytest.raises(InputError, match=rf"{keyword} \(14 of 14 slices\).*have identifiers generated"):
        export_dicom(assessment, tmp_path / "series", tmp_path / "objects")
    first = export_dicom(assessment, tmp_path / "series", tmp_path / "objects", generate_uids=True)
    assert [finding.code for finding in first.findings] == ["generated-uids"]
    for file in first.files:
        data = pydicom.dcmread(file)
        assert "generated UIDs" in data.SeriesDescription
        assert keyword in data.CommentsOnThePerformedProcedureStep
    instances = [find_instances(tmp_path / "series", volume, generate_uids=True) for _ in range(2)]
    assert [h.get(keyword) for h in instances[0].headers] == [h.get(keyword) for h in instances[1].headers]
    assert len({header.SOPInstanceUID for header in instances[0].headers}) == 14


def test_one_identifier_for_several_slices_is_refused(tmp_path):
    volume = small_series(tmp_path / "series", SOPInstanceUID=lambda k: f"1.2.3.{k // 2}")
    with pytest.raises(InputError, match="used twice"):
        find_instances(tmp_path / "series", volume)


def test_volume_that_was_changed_since_is_refused(tmp_path):
    volume = small_series(tmp_path / "series")
    moved = volume.grid.ijk_to_ras.copy()
    moved[0, 3] += 1
    for other, reason in (
        (Volume(volume.array[1:], Grid((14, 20, 13), volume.grid.ijk_to_ras), "cut"), "14×20×13 voxels"),
        (Volume(volume.array, Grid(volume.grid.size, moved), "moved"), "1.00 mm apart"),
        (Volume(np.ascontiguousarray(volume.array[:, ::-1]), volume.grid, "mirrored"), "other values"),
    ):
        with pytest.raises(InputError, match=reason):
            find_instances(tmp_path / "series", other)


def test_another_phase_at_the_same_place_is_not_taken(tmp_path):
    volume = small_series(tmp_path / "a", SeriesInstanceUID="1.2.3.1.1")
    write_stack(tmp_path / "b", Volume(volume.array + np.int16(40), volume.grid), SeriesInstanceUID="1.2.3.1.9")
    nameless = replace(volume, source={"path": "ct.nii.gz", "format": "nifti"})
    assert find_instances(tmp_path, nameless).headers[0].SeriesInstanceUID == "1.2.3.1.1"
    with pytest.raises(InputError, match="does not hold the series"):
        find_instances(tmp_path / "b", volume)


def test_what_is_no_dicom_is_refused(tmp_path):
    volume = small_series(tmp_path / "series")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no DICOM image"):
        find_instances(tmp_path / "other", volume)
    with pytest.raises(InputError, match="There is no file or folder"):
        find_instances(tmp_path / "nowhere", volume)
    for reader in (lambda path: read_segmentation(path, volume.grid), read_report):
        with pytest.raises(InputError, match="is no DICOM file"):
            reader(tmp_path / "other" / "a.txt")
        with pytest.raises(InputError, match="of the kind CT"):
            reader(next((tmp_path / "series").iterdir()))


def test_hostile_headers_give_valid_objects_that_keep_the_patient(tmp_path):
    private = {
        "PatientName": "Ωμέγα^Ζήτα\x07=山田^太郎",
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientID": "P" * 70,
        "PatientSex": "unknown",
        "PatientBirthDate": "sometime",
        "StudyDescription": "a\\b\x1bc",
        "AccessionNumber": "ACC-0123456789-TOO-LONG",
        "StudyTime": "99:99",
        "SeriesNumber": "",
        "SliceThickness": "",
        "LossyImageCompression": "01",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = small_series(tmp_path / "series", **private)
    exported = export_dicom(small_assessment(volume), tmp_path / "series", tmp_path / "objects")
    assert [finding.code for finding in exported.findings] == ["cleaned-values"]
    assert "PatientID" in exported.findings[0].message
    for file in exported.files:
        data = pydicom.dcmread(file)
        assert str(data.PatientName) == "Ωμέγα^Ζήτα=山田^太郎"
        assert data.PatientID == "P" * 61 + "..." and data.PatientSex == ""
        if shutil.which("dciodvfy"):
            allowed = "Lossy Image Compression"  # the ratio and the method, which the series does not tell
            assert not [line for line in errors_of("dciodvfy", file) if allowed not in line]


def test_five_hundred_lesions_come_back(tmp_path):
    volume, labels = body(oblique_grid((120, 60, 40)), 500)
    write_stack(tmp_path / "series", volume)
    volume = read_volume(tmp_path / "series")
    anywhere = Box((0, 0, 0), volume.grid.size)
    lesions = tuple(
        AssessedLesion(label, f"Lesion {label - 1}", anywhere, {}, None, None, (), "unreviewed", "", f"2.25.{label}")
        for label in range(2, 502)
    )
    assessment = Assessment(volume, labels, lesions, {})
    instances = find_instances(tmp_path / "series", volume)
    data = segmentation(assessment, instances, segments_of(assessment, instances))
    pydicom.dcmwrite(tmp_path / "seg.dcm", data, enforce_file_format=True)
    imported = import_segmentation(tmp_path / "seg.dcm", volume)
    assert np.array_equal(imported.labels, labels) and len(imported.notes) == 500
