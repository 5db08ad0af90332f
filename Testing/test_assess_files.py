"""Results on disk that are opened again, and what lesions.csv and result.json say of lesions."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, analytic_result, rasterize, result_from_masks
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.findings import Finding, Severity
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.lesions.assess import LesionNote, assess, assess_result
from LiverCascadeLib.lesions.assessment import Assessment
from LiverCascadeLib.lesions.couinaud import CouinaudMap
from LiverCascadeLib.lesions.measurements import MEASUREMENTS, is_known
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.report.files import (
    LESION_COLUMNS,
    OutputFolder,
    record_of,
    safe_cell,
    write_lesions,
    write_results,
)
from LiverCascadeLib.report.reopen import reopen
from LiverCascadeLib.volume import read_labels, read_volume, write_labels

GRID = TEST_GRIDS["oblique"]


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """The analytic CT as a file."""
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    write_labels(path, analytic_result(GRID).volume.array, GRID)
    return path


@pytest.fixture(scope="module")
def first_run(scan, tmp_path_factory) -> tuple[Path, Assessment]:
    """A results folder that is not to be changed, and what it was written from."""
    result = analytic_result(GRID)
    result = replace(
        result,
        volume=read_volume(scan),
        confidences={1: 0.75, 2: 0.25},
        findings=(Finding("cut-off", Severity.WARNING, "The liver is cut off."),),
        provenance={"models": [{"id": "m"}], "input": {}},
    )
    segments = CouinaudMap(np.where(result.labels > 0, 8, 0).astype(np.uint8), "estimate", "By shape.", ("Rough.",))
    found = assess_result(result, segments)
    folder = tmp_path_factory.mktemp("run") / "out"
    with OutputFolder(folder) as output:
        write_results(result, output, Progress(), assess=lambda _: found)
    return folder, found


@pytest.fixture
def run(first_run, tmp_path) -> tuple[Path, Assessment]:
    """A results folder, and what it was written from."""
    shutil.copytree(first_run[0], tmp_path / "out")
    return tmp_path / "out", first_run[1]


def assert_same_figures(one: Assessment, other: Assessment) -> None:
    """Files keep positions as float32."""
    assert one.summary == other.summary and len(one.lesions) == len(other.lesions)
    for a, b in zip(one.lesions, other.lesions, strict=True):
        for name in ("label", "name", "review", "comment", "tracking_uid"):
            assert getattr(a, name) == getattr(b, name), name
        for key, value in a.values.items():
            same = pytest.approx(value, abs=2e-3, nan_ok=True) if isinstance(value, float) else value
            assert b.values[key] == same, key
        assert np.allclose(a.long_axis.start, b.long_axis.start, atol=5e-3)


def test_a_results_folder_opened_again_says_the_same(run):
    folder, written = run
    found = reopen(folder)
    assert_same_figures(written, found)
    assert found.lesions[0].values["confidence"] == 0.75
    assert found.findings == written.findings and found.provenance["models"] == [{"id": "m"}]
    assert (found.couinaud.provider, found.couinaud.limitations) == ("estimate", ("Rough.",))
    assert found.couinaud_ml == pytest.approx(written.couinaud_ml, rel=1e-5)
    assert found.lesions[0].couinaud_text == "VIII"


def test_edited_labels_keep_names_and_lose_confidence_where_they_changed(run):
    folder, written = run
    record = json.loads((folder / "result.json").read_text())
    record["lesions"][1] |= {"name": "the small one", "review": "accepted", "comment": "seen"}
    (folder / "result.json").write_text(json.dumps(record))
    labels, grid = read_labels(folder / "labels.nii.gz")
    labels[tuple(np.argwhere(labels == 2)[0])] = 1
    place = tuple(np.argwhere(labels == 1)[5])
    labels[place] = 9
    write_labels(folder / "labels.nii.gz", labels, grid)
    found = reopen(folder)
    assert [(n.label, n.name, n.review) for n in found.lesions] == [
        (2, "Lesion 1", "unreviewed"),
        (3, "the small one", "accepted"),
        (9, "Lesion 8", "unreviewed"),
    ]
    assert [is_known(n.values["confidence"]) for n in found.lesions] == [False, True, False]
    assert [n.tracking_uid for n in found.lesions[:2]] == [n.tracking_uid for n in written.lesions]


def test_an_emptied_segmentation_is_an_answer(run):
    folder, _ = run
    labels, grid = read_labels(folder / "labels.nii.gz")
    write_labels(folder / "labels.nii.gz", np.zeros_like(labels), grid)
    found = reopen(folder)
    assert found.lesions == () and found.summary == "No liver was found."


def test_a_result_of_the_first_version_is_opened(run):
    folder, written = run
    record = json.loads((folder / "result.json").read_text())
    old = [{key: n[key] for key in ("id", "label", "voxel_count", "volume_ml", "box_ijk")} for n in record["lesions"]]
    for key in ("couinaud", "rejected"):
        del record[key]
    (folder / "result.json").write_text(json.dumps({**record, "format_version": 1, "lesions": old}))
    found = reopen(folder)
    assert [n.name for n in found.lesions] == ["Lesion 1", "Lesion 2"] and found.couinaud is None
    assert found.lesions[0].values["volume_ml"] == pytest.approx(written.lesions[0].values["volume_ml"], rel=1e-5)


def test_the_ct_may_have_moved_and_another_one_is_noticed(run, scan, tmp_path):
    folder, written = run
    record = json.loads((folder / "result.json").read_text())
    record["input"]["source"]["path"] = str(tmp_path / "gone.nii.gz")
    record["provenance"]["input"]["voxels_sha256"] = "0" * 64
    (folder / "result.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"no longer there.*--ct"):
        reopen(folder)
    found = reopen(folder, scan)
    assert_same_figures(written, found)
    assert found.findings[-1].code == "other-voxels"


def _shifted(folder: Path, scan: Path) -> dict:
    path = folder.parent / "shifted.nii.gz"
    matrix = GRID.ijk_to_ras.copy()
    matrix[:3, 3] += 5
    write_labels(path, analytic_result(GRID).volume.array, Grid(GRID.size, matrix))
    return {"ct": path}


def _change(**values):
    def change(folder: Path, scan: Path) -> dict:
        record = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps({**record, **values}))
        return {}

    return change


def _labels(edit):
    def change(folder: Path, scan: Path) -> dict:
        labels, grid = read_labels(folder / "labels.nii.gz")
        write_labels(folder / "labels.nii.gz", edit(labels), grid)
        return {}

    return change


def _remove(name: str):
    return lambda folder, scan: (folder / name).unlink() or {}


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_remove("result.json"), "has no result.json"),
        (_remove("labels.nii.gz"), "is missing"),
        (_remove("couinaud.nii.gz"), "is missing"),
        (_change(format="another"), "not written by LiverCascade"),
        (_change(format_version=99), "Update LiverCascade"),
        (_change(format_version="2"), "Update LiverCascade"),
        (_change(input={}), "does not say where the CT is"),
        (_change(input={"source": None}), "does not say where the CT is"),
        (_change(input="nothing"), "does not say where the CT is"),
        (lambda folder, scan: (folder / "result.json").write_text("{") and {}, "not JSON"),
        (lambda folder, scan: (folder / "result.json").write_bytes(b"\xff\xfe{}") and {}, "not JSON"),
        (lambda folder, scan: (folder / "labels.nii.gz").write_bytes(b"\x1f\x8b") and {}, "damaged"),
        (_labels(lambda labels: labels.astype(np.float32) / 2), "not whole numbers"),
        (_labels(lambda labels: labels.astype(np.int32) - 3), "holds labels from -3"),
        (_labels(lambda labels: labels.astype(np.int32) * 100000), "holds labels from 0"),
        (_shifted, "different voxels"),
        (lambda folder, scan: {"ct": folder / "nothing.nii"}, "no file or folder"),
    ],
)
def test_a_folder_that_cannot_be_opened_is_told_in_words(harm, words, run, scan):
    folder, _ = run
    more = harm(folder, scan)
    with pytest.raises(InputError, match=words):
        reopen(folder, **more)


def test_no_folder_is_told_in_words(tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        reopen(tmp_path / "nowhere")


@pytest.mark.parametrize("lesions", ["text", [1], [{"label": "two"}], [{"name": "no label"}], {"a": 1}])
def test_records_that_make_no_sense_are_told_in_words_or_passed_over(lesions, run):
    folder, written = run
    _change(lesions=lesions, findings="none", couinaud=None)(folder, None)
    try:
        assert len(reopen(folder).lesions) == len(written.lesions)
    except InputError as error:
        assert "result.json" in str(error)


def test_the_record_has_null_for_what_is_not_known_and_both_ends_of_the_axes(run):
    folder, written = run
    text = (folder / "result.json").read_text()
    assert "NaN" not in text
    first = json.loads(text)["lesions"][0]
    lesion = written.lesions[0]
    assert first["long_axis_ras_mm"]["start"] == pytest.approx(lesion.long_axis.start, abs=1e-3)
    assert first["short_axis_ras_mm"]["end"] == pytest.approx(lesion.short_axis.end, abs=1e-3)
    assert first["tracking_uid"] == lesion.tracking_uid
    assert first["couinaud"] == [{"segment": "VIII", "share": 1.0}]
    for measurement in MEASUREMENTS:
        value = lesion.values[measurement.key]
        expected = pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
        assert first[measurement.key] == (expected if is_known(value) else None)
    alone = record_of(assess(written.volume, np.where(written.labels == 2, 2, 0).astype(np.uint8)))
    assert alone["lesions"][0]["contrast_hu"] is None and alone["liver"]["mean_hu"] is None


def test_the_table_has_one_column_per_measurement(run):
    folder, written = run
    with (folder / "lesions.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == LESION_COLUMNS
    assert {measurement.key for measurement in MEASUREMENTS} < set(LESION_COLUMNS)
    for line, lesion in zip(lines, written.lesions, strict=True):
        assert line["measurable"] == "yes" and line["size_bin"] == "> 20 mm" and line["couinaud"] == "VIII"
        assert float(line["long_axis_mm"]) == pytest.approx(lesion.values["long_axis_mm"], abs=1e-4)
        ends = [[float(line[f"long_axis_{end}_{axis}_mm"]) for axis in "ras"] for end in ("start", "end")]
        assert np.linalg.norm(np.subtract(*ends)) == pytest.approx(lesion.values["long_axis_mm"], abs=1e-3)
        assert float(line["contrast_hu"]) == -60


HOSTILE = ["=1+1", "\t=1", "\r\n=1", "＝1+1", "＋1", "－1", "＠A1", "\u200b=1", "\ufeff@x", "-2+3"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_table_can_be_a_formula(text, tmp_path):
    assert safe_cell(text).startswith("'") and safe_cell(text).isprintable()
    result = result_from_masks(GRID, rasterize(LIVER, GRID), [rasterize(LESIONS[0], GRID)], text)
    found = assess(result.volume, result.labels, lesions=[LesionNote(2, tracking_uid=text)])
    write_lesions(tmp_path / "lesions.csv", found)
    with (tmp_path / "lesions.csv").open(newline="", encoding="utf-8") as stream:
        (line,) = csv.DictReader(stream)
    assert line["case"].startswith("'") and line["tracking_uid"].startswith("'")
