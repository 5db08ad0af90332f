"""DICOM segmentations as other makers write them: other kinds, parts of slices, overlaps, and damage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from LiverCascadeLib.dicom.export import REPORT_FILE, SEGMENTATION_FILE, export_dicom
from LiverCascadeLib.dicom.report_reader import read_report
from LiverCascadeLib.dicom.segmentation_reader import import_segmentation, labels_from_segmentation, read_segmentation
from LiverCascadeLib.dicom.vocabulary import kind_of
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.lesions.assess import assess
from LiverCascadeLib.volume import Volume
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from test_dicom_objects import small_series

pytest.importorskip("highdicom", reason="highdicom is not installed")

LIVER, LESION, OTHER = Code("10200004", "SCT", "Liver"), Code("52988006", "SCT", "Lesion"), Code("1", "99X", "Foam")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(volume, labels, folder with both objects)."""
    folder = tmp_path_factory.mktemp("written")
    volume = small_series(folder / "series")
    labels = np.zeros(volume.grid.shape, np.uint8)
    labels[3:9, 4:15, 3:11] = 1
    labels[5:7, 6:9, 7:10] = 2
    labels[4, 10:12, 4:6] = 3
    export_dicom(assess(volume, labels), folder / "series", folder / "objects")
    return volume, labels, folder / "objects"


@pytest.fixture
def changed(written, tmp_path) -> Callable[[Callable[[Dataset], None]], str]:
    """Gives the path of the segmentation after a change."""

    def change(how: Callable[[Dataset], None]) -> str:
        data = pydicom.dcmread(written[2] / SEGMENTATION_FILE)
        how(data)
        data.save_as(tmp_path / "changed.dcm")
        return str(tmp_path / "changed.dcm")

    return change


def test_fractions_of_one_half_and_above_count(written, changed):
    volume, labels, _ = written

    def to_fractions(data: Dataset) -> None:
        frames = data.pixel_array.astype(np.uint8)
        noise = np.random.default_rng(0).integers(0, 100, frames.shape)
        data.PixelData = np.where(frames > 0, 100 + noise, 99 - noise).astype(np.uint8).tobytes()
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.SegmentationType, data.SegmentationFractionalType, data.MaximumFractionalValue = (
            "FRACTIONAL",
            "PROBABILITY",
            200,
        )

    imported = import_segmentation(changed(to_fractions), volume)
    assert np.array_equal(imported.labels, labels)
    assert [finding.code for finding in imported.findings] == ["fractional-segmentation"]


def test_label_map_reads(written, changed):
    volume, labels, _ = written

    def to_label_map(data: Dataset) -> None:
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
        data.SegmentationType = "LABELMAP"
        items = {}
        for item in data.PerFrameFunctionalGroupsSequence:
            place = tuple(item.PlanePositionSequence[0].ImagePositionPatient)
            del item.SegmentIdentificationSequence
            items.setdefault(place, item)
        data.PerFrameFunctionalGroupsSequence = list(items.values())
        data.NumberOfFrames = len(items)
        rows = [k for k in range(len(labels)) if labels[k].any()]
        data.PixelData = labels[rows].tobytes()
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7

    assert np.array_equal(import_segmentation(changed(to_label_map), volume).labels, labels)


def test_compressed_frames_read(written, changed):
    volume, labels, _ = written

    def compress(data: Dataset) -> None:
        frames = data.pixel_array.astype(np.uint8)
        data.PixelData = frames.tobytes()
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.SegmentationType, data.MaximumFractionalValue = "FRACTIONAL", 1
        data.compress(pydicom.uid.RLELossless)

    assert np.array_equal(import_segmentation(changed(compress), volume).labels, labels)


def test_frames_may_be_smaller_than_the_slices(written, changed):
    volume, labels, _ = written

    def crop(data: Dataset) -> None:
        frames = data.pixel_array.astype(bool)[:, 3:16, 2:12]
        data.Rows, data.Columns = 13, 10
        data.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes() + b"\0"
        corner = volume.grid.crop(Box((2, 3, 0), (14, 20, 14))).ijk_to_ras[:3, 3] - volume.grid.ijk_to_ras[:3, 3]
        for item in data.PerFrameFunctionalGroupsSequence:
            place = item.PlanePositionSequence[0]
            old = np.array(place.ImagePositionPatient, float)
            place.ImagePositionPatient = [f"{v:.9f}"[:16] for v in old + corner * (-1, -1, 1)]

    assert np.array_equal(import_segmentation(changed(crop), volume).labels, labels)


def test_segments_of_others_are_named_and_left_out(written, changed):
    volume, labels, _ = written

    def rename(data: Dataset) -> None:
        item = data.SegmentSequence[2]
        code = item.SegmentedPropertyTypeCodeSequence[0]
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = OTHER.value, OTHER.scheme_designator, "Foam"
        item.SegmentLabel = "Schaum"

    imported = import_segmentation(changed(rename), volume)
    assert np.array_equal(imported.labels, np.where(labels == 3, 1, labels))
    assert "'Schaum' (Foam)" in imported.findings[0].message


def test_overlapping_lesions_are_told(written, changed):
    volume, labels, _ = written

    def overlap(data: Dataset) -> None:
        # The second lesion becomes a copy of the first.
        frames = data.pixel_array.astype(bool)
        numbers = [
            i.SegmentIdentificationSequence[0].ReferencedSegmentNumber for i in data.PerFrameFunctionalGroupsSequence
        ]
        own, other = numbers.index(3), numbers.index(2)
        frames[own] = frames[other]
        items = data.PerFrameFunctionalGroupsSequence
        items[own].PlanePositionSequence = items[other].PlanePositionSequence
        packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
        data.PixelData = packed + b"\0" * (len(packed) % 2)

    path = changed(overlap)
    read = read_segmentation(path, volume.grid)
    assert np.array_equal(read.segments[1].on(volume.grid), labels == 2)
    imported = labels_from_segmentation(read)
    assert int((imported.labels == 3).sum()) == 9 and int((imported.labels == 2).sum()) == 9
    assert any("overlapped in 9 voxels" in finding.message for finding in imported.findings)


def test_lesions_without_a_liver_come_with_a_warning(written, changed):
    volume, labels, _ = written

    def remove(data: Dataset) -> None:
        frames = data.pixel_array.astype(bool)
        keep = [
            n
            for n, item in enumerate(data.PerFrameFunctionalGroupsSequence)
            if item.SegmentIdentificationSequence[0].ReferencedSegmentNumber != 1
        ]
        data.PerFrameFunctionalGroupsSequence = [data.PerFrameFunctionalGroupsSequence[n] for n in keep]
        data.NumberOfFrames = len(keep)
        packed = np.packbits(frames[keep].ravel(), bitorder="little").tobytes()
        data.PixelData = packed + b"\0" * (len(packed) % 2)

    imported = import_segmentation(changed(remove), volume)
    assert np.array_equal(imported.labels, np.where(labels == 1, 0, labels))
    assert {finding.code for finding in imported.findings} == {"empty-segments", "no-liver-segment"}


def test_segmentation_of_another_series_with_the_same_voxels_comes_with_a_warning(written):
    volume, _, folder = written
    other = Volume(volume.array, volume.grid, "late", {**volume.source, "series_instance_uid": "1.2.3.1.77"})
    imported = import_segmentation(folder / SEGMENTATION_FILE, other)
    assert [finding.code for finding in imported.findings] == ["other-series"]


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        (
            lambda m: Grid((14, 20, 14), m @ np.diag([0.5, 0.5, 1, 1])),
            "between the CT's voxels, or are turned or scaled",
        ),
        (lambda m: Grid((14, 20, 6), m), "reach beyond it"),
        (
            lambda m: Grid((14, 20, 14), m @ np.array([[1, 0, 0, 0.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
            "between",
        ),
    ],
    ids=["finer", "shorter", "shifted"],
)
def test_segmentation_of_another_grid_is_refused(written, grid, reason):
    volume, _, folder = written
    with pytest.raises(InputError, match=reason):
        read_segmentation(folder / SEGMENTATION_FILE, grid(volume.grid.ijk_to_ras))


def test_damaged_segmentations_are_refused_in_words(written, changed, tmp_path):
    volume, _, folder = written

    def without(keyword: str) -> Callable[[Dataset], None]:
        return lambda data: delattr(data, keyword)

    def no_number(data: Dataset) -> None:
        del data.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence

    def no_place(data: Dataset) -> None:
        del data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence

    def short(data: Dataset) -> None:
        data.PixelData = data.PixelData[:10]

    for change, reason in (
        (without("SegmentSequence"), "SegmentSequence is missing"),
        (without("PixelData"), "PixelData is missing"),
        (without("PerFrameFunctionalGroupsSequence"), "is missing"),
        (no_number, "does not say which segment frame 1 shows"),
        (no_place, "does not say where its frames lie"),
        (short, "fewer pixels than its"),
    ):
        with pytest.raises(InputError, match=reason):
            read_segmentation(changed(change), volume.grid)
    whole = (folder / SEGMENTATION_FILE).read_bytes()
    for length in (200, 900, 4000):
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_segmentation(tmp_path / "cut.dcm", volume.grid)
    whole = (folder / REPORT_FILE).read_bytes()
    for length in (200, 900):
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_report(tmp_path / "cut.dcm")


@pytest.mark.parametrize(
    ("code", "region", "label", "kind"),
    [
        (LIVER, None, "x", ("liver", 0)),
        (Code("T-62000", "SRT", "Liver"), None, "", ("liver", 0)),
        (Code("4147007", "SCT", "Mass"), LIVER, "", ("lesion", 0)),
        (Code("M-80003", "SRT", "Neoplasm, Primary"), None, "", ("lesion", 0)),
        (LESION, Code("277959000", "SCT", "Segment V"), "", ("lesion", 0)),
        (LESION, Code("39607008", "SCT", "Lung"), "", ("other", 0)),
        (Code("277958008", "SCT", ""), None, "Segment IV", ("couinaud", 4)),
        (Code("277958008", "SCT", ""), None, "Segment IVb", ("couinaud", 10)),
        (Code("277962002", "SCT", ""), None, "s8", ("couinaud", 8)),
        (Code("79654002", "SCT", "Edema"), None, "Liver", ("other", 0)),
    ],
)
def test_segments_are_recognized_by_their_codes(code, region, label, kind):
    assert kind_of(code, region, label) == kind
