"""Results on disk: what the files say, and that there are all of them or none."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from analytic_bodies import TEST_GRIDS, analytic_result
from LiverCascadeLib.errors import EXIT_BAD_INPUT, EXIT_OUT_OF_RESOURCES, Cancelled, OutputError, ResourceError
from LiverCascadeLib.findings import Finding, Severity
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.report import files
from LiverCascadeLib.report.files import OutputFolder, safe_cell, write_results
from LiverCascadeLib.report.overview import Rendering
from LiverCascadeLib.volume import read_labels

OWN_FILES = ["labels.nii.gz", "lesions.csv", "overview.png", "result.json"]


@pytest.fixture(scope="module")
def result():
    result = analytic_result(TEST_GRIDS["oblique"])
    return dataclasses.replace(
        result,
        volume=dataclasses.replace(result.volume, name="=HYPERLINK(1)\n", source={"path": Path("ct.nii.gz")}),
        findings=(Finding("cut-off", Severity.WARNING, "The liver is cut off."),),
        timings={"locate": np.float32(1.5)},
        provenance={"models": [{"id": "m", "sha256": "0"}], "shape": np.arange(2)},
    )


class Writer:
    """Stands for the scene: its files are text, and it fails where a test wants it to."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def start(self, result, folder):
        (folder / "segmentation.seg.nrrd").write_text("segments")
        (folder.parent / folder.name / "scene.mrb").write_text("scene")

    def finish(self, progress):
        progress.update(0.5)
        if self.error:
            raise self.error
        return Rendering(None, "not drawn in this test")


def write(result, path, writer=None, progress=None):
    with OutputFolder(path) as output:
        write_results(result, output, progress or Progress(), writer)


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_all_files_arrive_in_a_new_folder(result, tmp_path):
    progress = Progress()
    write(result, tmp_path / "a" / "b", Writer(), progress)
    assert listing(tmp_path / "a" / "b") == sorted([*OWN_FILES, "scene.mrb", "segmentation.seg.nrrd"])
    assert listing(tmp_path / "a") == ["b", *(f"b/{name}" for name in listing(tmp_path / "a" / "b"))]
    assert progress.timings["write"] > 0
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o777 & ~umask


def test_labels_come_back_on_their_grid(result, tmp_path):
    write(result, tmp_path / "out")
    labels, grid = read_labels(tmp_path / "out" / "labels.nii.gz")
    assert (labels == result.labels).all()
    assert grid.is_close(result.volume.grid, tolerance_mm=2e-3)


def test_record_tells_what_how_and_from_what(result, tmp_path):
    write(result, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert record["summary"] == result.summary
    assert record["notice"].startswith("Research use only")
    assert record["liver"]["volume_ml"] == pytest.approx(result.liver_volume_ml, abs=1e-3)
    assert record["findings"] == [{"code": "cut-off", "severity": "warning", "message": "The liver is cut off."}]
    assert record["timings_s"]["locate"] == 1.5
    assert "write" in record["timings_s"]
    assert record["provenance"] == {"models": [{"id": "m", "sha256": "0"}], "shape": [0, 1]}
    assert record["input"]["source"] == {"path": "ct.nii.gz"}
    assert np.allclose(record["input"]["ijk_to_ras"], result.volume.grid.ijk_to_ras)
    first = record["lesions"][0]
    assert first["id"] == 1 and first["label"] == 2
    assert first["box_ijk"]["first"] == list(result.lesions[0].box.start)
    assert first["box_ijk"]["last"] == [n - 1 for n in result.lesions[0].box.stop]


def test_lesions_table_gives_boxes_in_voxels_and_millimeters(result, tmp_path):
    write(result, tmp_path / "out")
    with (tmp_path / "out" / "lesions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == ["1", "2"]
    for row, lesion in zip(rows, result.lesions, strict=True):
        assert float(row["volume_ml"]) == pytest.approx(lesion.volume_ml, abs=1e-4)
        assert [int(row[f"box_{a}_first"]) for a in "ijk"] == list(lesion.box.start)
        for axis, center in zip("ras", lesion.centroid_ras, strict=True):
            assert float(row[f"centroid_{axis}_mm"]) == pytest.approx(center, abs=0.01)
            assert float(row[f"box_{axis}_min_mm"]) < center < float(row[f"box_{axis}_max_mm"])
        assert row["case"] == "'=HYPERLINK(1)"


@pytest.mark.parametrize(
    ("text", "cell"),
    [("CT 1", "CT 1"), ("=1+1", "'=1+1"), ("\t@x", "'@x"), ("-2\r\n+3", "'-2 +3"), ("", ""), ("a\x00b", "a b")],
)
def test_no_cell_can_be_a_formula(text, cell):
    assert safe_cell(text) == cell


def test_a_second_run_replaces_its_own_files_and_keeps_others(result, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "result.json").write_text("old")
    write(result, folder, Writer())
    assert (folder / "notes.txt").read_text() == "mine"
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["summary"] == result.summary
    assert listing(folder) == sorted([*OWN_FILES, "notes.txt", "scene.mrb", "segmentation.seg.nrrd"])


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (Cancelled(), Cancelled, 3),
        (OSError(errno.ENOSPC, "full"), ResourceError, EXIT_OUT_OF_RESOURCES),
        (OSError(errno.EACCES, "denied"), OutputError, EXIT_BAD_INPUT),
        (RuntimeError("first line\nlast line"), OutputError, EXIT_BAD_INPUT),
        (MemoryError(), ResourceError, EXIT_OUT_OF_RESOURCES),
        (OSError(errno.ENOMEM, "memory"), ResourceError, EXIT_OUT_OF_RESOURCES),
    ],
)
def test_a_failure_in_the_middle_leaves_nothing(result, tmp_path, existing, error, expected, code):
    folder = tmp_path / "deep" / "out"
    if existing:
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("old")
    with pytest.raises(expected) as caught:
        write(result, folder, Writer(error))
    assert caught.value.exit_code == code
    assert listing(tmp_path) == (["deep", "deep/out", "deep/out/result.json"] if existing else [])
    if existing:
        assert (folder / "result.json").read_text() == "old"


def test_cancellation_between_files_leaves_nothing(result, tmp_path):
    calls = []
    progress = Progress(is_cancelled=lambda: calls.append(1) or len(calls) > 2)
    with pytest.raises(Cancelled):
        write(result, tmp_path / "out", Writer(), progress)
    assert listing(tmp_path) == []


def test_an_unwritable_output_is_told_before_the_run(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"), OutputFolder(tmp_path / "file"):
        pass
    with pytest.raises(OutputError, match="cannot be written"), OutputFolder(tmp_path / "file" / "out"):
        pass
    assert listing(tmp_path) == ["file"]


def test_a_folder_where_a_file_belongs_is_told_and_nothing_changes(result, tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OutputError, match="in the way"):
        write(result, tmp_path)
    assert listing(tmp_path) == ["result.json"]


def test_a_run_that_never_wrote_leaves_no_folder(tmp_path):
    with OutputFolder(tmp_path / "a" / "out") as output:
        (output.scratch / "volume.raw").write_bytes(b"0" * 100)
    assert listing(tmp_path) == []


def test_a_disk_that_fills_up_silently_is_noticed(result, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_is_full", lambda path: True)
    with pytest.raises(ResourceError, match="is full"):
        write(result, tmp_path / "out")
    assert listing(tmp_path) == []


FULL_DISK = """
import sys
from pathlib import Path
from analytic_bodies import TEST_GRIDS, analytic_result
from LiverCascadeLib.errors import LiverCascadeError
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.report.files import OutputFolder, write_results
from LiverCascadeLib.scene import SceneProcess

disk = Path(sys.argv[1])
result = analytic_result(TEST_GRIDS["oblique"])
try:
    with OutputFolder(disk / "out") as output, SceneProcess(output.scratch) as scene:
        scene.prepare(result.volume)
        write_results(result, output, Progress(), scene)
except LiverCascadeError as error:
    print(type(error).__name__, error, [path.name for path in disk.iterdir()])
"""


@pytest.mark.parametrize("kibibytes", [300, 900, 1300])
def test_a_really_full_disk_is_a_resource_error(kibibytes, tmp_path):
    mount = f'mount -t tmpfs -o size={kibibytes}k none "$1" && shift && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path)]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("a small disk cannot be mounted here")
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(files.__file__).parents[2])])
    done = subprocess.run(
        [*command, sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stdout.startswith("ResourceError"), done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("[]")
