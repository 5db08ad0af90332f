"""Batches: which studies are found, what becomes of each, and a table that is right at every moment."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writer import write_series
from LiverCascadeLib import batch, cli
from LiverCascadeLib import study as study_module
from LiverCascadeLib.batch import COLUMNS, BatchSettings, Reporter, Row, StatusTable, run_batch
from LiverCascadeLib.cascade import Options, load_cascade, segment
from LiverCascadeLib.errors import InputError, MissingPackageError, ModelError, OutputError, WorkerCrashed
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.report.files import RESULT_FILE
from LiverCascadeLib.studies import find_studies, is_label_map
from LiverCascadeLib.volume import read_labels, write_labels
from LiverCascadeLib.worker_client import WorkerClient
from no_scene import NoScene
from tiny_models import save_pair

SCRIPT = Path(batch.__file__).resolve().parents[1] / "Scripts" / "segment_folder.py"
QUICK = Options(device="cpu", overlap=0.0)
pytestmark = pytest.mark.usefixtures("own_signals")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_pair(tmp_path_factory.mktemp("models"))


class Here(WorkerClient):
    """Stands for a worker: computes in this process. ``Here.hook`` is called with each volume before."""

    hook = staticmethod(lambda volume: None)
    cascade = None
    used: ClassVar[set] = set()

    def start(self):
        Here.used.add(id(self))

    def run(self, volume, options=None, models=None, progress=None):
        Here.hook(volume)
        if Here.cascade is None:
            Here.cascade = load_cascade(models, options)
        return segment(volume, Here.cascade, options, progress)


@pytest.fixture
def here(monkeypatch):
    """Runs in this process, without scenes."""
    monkeypatch.setattr(study_module, "SceneProcess", NoScene)
    monkeypatch.setattr(batch, "WorkerClient", Here)
    monkeypatch.setattr(Here, "hook", staticmethod(lambda volume: None))
    monkeypatch.setattr(Here, "cascade", None)
    monkeypatch.setattr(Here, "used", set())
    return Here


def ct(path: Path, seed: int = 0) -> Path:
    """Writes a noisy ball of soft tissue in air."""
    k, j, i = np.meshgrid(*[np.arange(20) - 9.5] * 3, indexing="ij")
    array = np.where(k**2 + j**2 + i**2 < 64, 60, -1000)
    array = (array + np.random.default_rng(seed).normal(0, 8, array.shape)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(path, array, Grid((20, 20, 20), np.diag([5.0, 5.0, 5.0, 1.0])))
    return path


def labels(path: Path, dtype=np.uint8, value=1) -> Path:
    """Writes a label map."""
    array = np.zeros((20, 20, 20), dtype)
    array[5:15, 5:15, 5:15] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(path, array, Grid((20, 20, 20), np.diag([5.0, 5.0, 5.0, 1.0])))
    return path


def series(folder: Path, **elements) -> Path:
    """Writes a small DICOM series."""
    write_series(folder, heights=[5 * n for n in range(12)], shape=(20, 20), PixelSpacing=[5, 5], **elements)
    return folder


@pytest.fixture
def tree(tmp_path):
    """Three studies, of which the second is damaged: a file, a file, a DICOM folder."""
    folder = tmp_path / "studies"
    ct(folder / "anna" / "ct.nii.gz")
    broken = ct(folder / "berta" / "ct.nii.gz")
    broken.write_bytes(broken.read_bytes()[:2000])
    series(folder / "carla" / "dicom")
    return folder


def settings(models, **more) -> BatchSettings:
    return BatchSettings(QUICK, models, **more)


def table(output: Path) -> dict[str, dict[str, str]]:
    """The lines of status.csv by name."""
    with (output / "status.csv").open(newline="", encoding="utf-8") as stream:
        return {line["name"]: line for line in csv.DictReader(stream)}


def statuses(output: Path) -> dict[str, str]:
    return {name: line["status"] for name, line in table(output).items()}


# --- which studies there are ------------------------------------------------------------------------------------


def names(folder, **more):
    return [study.name for study in find_studies(folder, **more)]


def test_volume_files_and_dicom_folders_are_studies_and_what_holds_labels_is_not(tmp_path):
    ct(tmp_path / "a.nii.gz")
    ct(tmp_path / "deep" / "er" / "B.NRRD")
    ct(tmp_path / "deep" / "c.mha")
    series(tmp_path / "dicom" / "ST0" / "SE0")
    series(tmp_path / "dicom" / "ST0" / "SE1", SeriesInstanceUID="1.2.3.1.2")
    series(tmp_path / "mr", Modality="MR")
    series(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ct(tmp_path / "a.seg.nrrd")
    ct(tmp_path / ".hidden" / "ct.nii.gz")
    ct(tmp_path / "._a.nii.gz")
    (tmp_path / "notes.txt").write_text("nothing to see")
    labels(tmp_path / "liver.nii.gz", np.int16, 7)
    labels(tmp_path / "liver.nrrd", np.float32, 2)
    left_out = []
    assert names(tmp_path, left_out=left_out) == ["a", "deep/c", "deep/er/B", "dicom/ST0/SE0", "dicom/ST0/SE1"]
    assert sorted(path.name for path in left_out) == ["liver.nii.gz", "liver.nrrd"]


def test_names_stay_unique_where_only_the_suffix_or_the_kind_differs(tmp_path):
    ct(tmp_path / "p.nii.gz")
    ct(tmp_path / "p.nrrd")
    ct(tmp_path / "q.nii.gz")
    series(tmp_path / "q")
    assert names(tmp_path) == ["p.nii.gz", "p.nrrd", "q", "q.nii.gz"]


def test_one_file_or_one_dicom_folder_is_one_study(tmp_path):
    path = ct(tmp_path / "x" / "ct.nii.gz")
    assert [(study.name, study.path) for study in find_studies(path)] == [("ct", path)]
    assert names(series(tmp_path / "single")) == ["single"]


def test_a_folder_with_slices_of_its_own_and_more_below_stays_apart_from_what_is_below(tmp_path):
    series(tmp_path / "study")
    series(tmp_path / "study" / "more", SeriesInstanceUID="1.2.3.1.9")
    studies = {study.name: study.path for study in find_studies(tmp_path)}
    assert set(studies) == {"study", "study/more"}
    assert studies["study"].is_file() and studies["study"].parent == tmp_path / "study"
    assert studies["study/more"].is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_and_circles_are_not(tmp_path):
    ct(tmp_path / "archive" / "ct.nii.gz")
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "one").symlink_to(tmp_path / "archive")
    (tmp_path / "archive" / "round").symlink_to(tmp_path / "archive")
    assert names(tmp_path / "batch") == ["one/ct"]


def test_images_are_judged_by_their_voxels(tmp_path):
    assert is_label_map(labels(tmp_path / "few.nii.gz"))
    assert is_label_map(labels(tmp_path / "empty.nii.gz", value=0))
    assert not is_label_map(ct(tmp_path / "ct.nii.gz"))
    noise = np.random.default_rng(0).integers(0, 1500, (10, 10, 10)).astype(np.int16)
    shifted = tmp_path / "not-hu.mha"  # no CT in HU, but no labels either: the run will say what it is
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(shifted))
    assert not is_label_map(shifted)
    half = tmp_path / "half.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(noise.astype(np.float32) + 0.5), str(half))
    assert not is_label_map(half)
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes((tmp_path / "few.nii.gz").read_bytes()[:50])
    assert not is_label_map(damaged)


# --- what becomes of them ---------------------------------------------------------------------------------------


def test_a_study_that_fails_does_not_stop_the_others_and_is_tried_again(tree, tmp_path, models, here):
    out, told = tmp_path / "out", io.StringIO()
    assert run_batch(tree, out, settings(models), stream=told) == 2
    assert statuses(out) == {"anna/ct": "done", "berta/ct": "failed", "carla/dicom": "done"}
    lines = table(out)
    assert list(lines["anna/ct"]) == list(COLUMNS)
    assert lines["anna/ct"]["input"] == str(tree / "anna" / "ct.nii.gz")
    assert float(lines["anna/ct"]["seconds"]) > 0 and float(lines["anna/ct"]["liver_ml"]) > 0
    assert int(lines["carla/dicom"]["lesions"]) >= 0 and "cost-estimate" in lines["anna/ct"]["findings"]
    assert "damaged" in lines["berta/ct"]["message"]
    assert "[2/3] berta/ct: failed" in told.getvalue()
    assert {path.name for path in out.iterdir()} == {"anna", "carla", "status.csv"}
    assert read_labels(out / "carla" / "dicom" / "labels.nii.gz")[0].shape == (12, 20, 20)

    first = (out / "anna" / "ct" / RESULT_FILE).stat().st_mtime_ns
    ct(tree / "berta" / "ct.nii.gz")
    computed = []
    here.hook = staticmethod(lambda volume: computed.append(volume.source["path"]))
    assert run_batch(tree, out, settings(models), stream=told) == 0
    assert computed == [str(tree / "berta" / "ct.nii.gz")]
    assert set(statuses(out).values()) == {"done"}
    assert (out / "anna" / "ct" / RESULT_FILE).stat().st_mtime_ns == first
    again = table(out)["anna/ct"]
    assert again["seconds"] == lines["anna/ct"]["seconds"] and again["findings"] == lines["anna/ct"]["findings"]

    computed.clear()
    assert run_batch(tree, out, settings(models), stream=told) == 0
    assert computed == []
    (out / "status.csv").unlink()  # the results themselves say that they are done
    assert run_batch(tree, out, settings(models), stream=told) == 0
    assert computed == [] and set(statuses(out).values()) == {"done"}
    assert run_batch(tree, out, settings(models, overwrite=True), stream=told) == 0
    assert len(computed) == 3
    assert (out / "anna" / "ct" / RESULT_FILE).stat().st_mtime_ns > first


def test_the_table_is_whole_at_every_moment(tree, tmp_path, models, here):
    out, seen, stop = tmp_path / "out", [], threading.Event()

    def watch():
        while not stop.is_set():
            if (out / "status.csv").exists():
                seen.append(table(out))
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run_batch(tree, out, settings(models), stream=io.StringIO())
    stop.set()
    watcher.join()
    progress = []
    for lines in seen:
        assert set(lines) == {"anna/ct", "berta/ct", "carla/dicom"}
        assert all(None not in line and None not in line.values() for line in lines.values())
        progress.append([line["status"] for line in lines.values()])
    assert progress[0] == ["missing"] * 3
    assert ["done", "missing", "missing"] in progress and ["done", "failed", "missing"] in progress


def test_a_cancelled_batch_goes_on_where_it_was(tree, tmp_path, models, here):
    out, asked = tmp_path / "out", threading.Event()
    ct(tree / "berta" / "ct.nii.gz")

    def cancel(volume):
        if "berta" in volume.source["path"]:
            asked.set()
            time.sleep(1.5)  # longer than it takes until somebody asks

    here.hook = staticmethod(cancel)
    assert run_batch(tree, out, settings(models), asked.is_set, io.StringIO()) == 3
    assert statuses(out) == {"anna/ct": "done", "berta/ct": "missing", "carla/dicom": "missing"}
    assert {path.name for path in out.iterdir()} == {"anna", "status.csv"}
    here.hook = staticmethod(lambda volume: None)
    assert run_batch(tree, out, settings(models), stream=io.StringIO()) == 0


def test_jobs_work_at_the_same_time_with_a_worker_each(tree, tmp_path, models, here):
    both = threading.Barrier(2, timeout=60)
    ct(tree / "berta" / "ct.nii.gz")
    here.cascade = load_cascade(models, QUICK)

    def meet(volume):
        if "carla" not in str(volume.source["path"]):
            both.wait()  # fails where one waits for the other

    here.hook = staticmethod(meet)
    told = io.StringIO()
    assert run_batch(tree, tmp_path / "out", settings(models, jobs=2), stream=told) == 0, told.getvalue()
    assert len(here.used) == 2


def test_threads_are_shared_out(tree, tmp_path, models, here, monkeypatch):
    given = []

    class Counting(Here):
        def __init__(self, python, threads):
            given.append(threads)
            super().__init__(python, threads)

    monkeypatch.setattr(batch, "WorkerClient", Counting)
    run_batch(tree, tmp_path / "out", settings(models, jobs=2, threads=9), stream=io.StringIO())
    assert given == [4, 4]


def test_earlier_results_are_not_taken_for_studies(tmp_path, models, here):
    studies = tmp_path / "studies"
    ct(studies / "anna.nii.gz")
    for out in (studies, studies / "results"):
        assert run_batch(studies, out, settings(models), stream=io.StringIO()) == 0
        assert set(statuses(out)) == {"anna"}
        assert run_batch(studies, out, settings(models), stream=io.StringIO()) == 0
        assert set(statuses(out)) == {"anna"}
    assert names(studies) == ["anna"]
    moved = studies / "moved"
    moved.mkdir()
    (studies / "anna" / "labels.nii.gz").rename(moved / "of-anna.nii.gz")
    assert names(studies) == ["anna"]


def test_rows_of_another_input_are_kept(tmp_path, models, here):
    ct(tmp_path / "one" / "anna.nii.gz")
    ct(tmp_path / "two" / "berta.nii.gz")
    for name in ("one", "two"):
        assert run_batch(tmp_path / name, tmp_path / "out", settings(models), stream=io.StringIO()) == 0
    assert statuses(tmp_path / "out") == {"anna": "done", "berta": "done"}


@pytest.mark.parametrize(
    ("error", "code", "rest"),
    [
        (WorkerCrashed("It died."), 4, "done"),
        (MemoryError(), 4, "done"),
        (ZeroDivisionError("oops"), 2, "done"),
        (InputError("No."), 2, "done"),
        (MissingPackageError("The Python package 'monai' is missing."), 4, "missing"),  # all others would fail too
    ],
)
def test_whatever_goes_wrong_has_a_row_and_an_exit_code(error, code, rest, tree, tmp_path, models, here):
    def fail(volume):
        if "anna" in volume.source["path"]:
            raise error

    here.hook = staticmethod(fail)
    ct(tree / "berta" / "ct.nii.gz")
    told = io.StringIO()
    assert run_batch(tree, tmp_path / "out", settings(models, quiet=True), stream=told) == code
    lines = table(tmp_path / "out")
    assert [line["status"] for line in lines.values()] == ["failed", rest, rest]
    assert (str(error) or "memory") in lines["anna/ct"]["message"]
    assert told.getvalue().count("\n") == 1 and "anna/ct: failed" in told.getvalue()


def test_what_cannot_work_is_refused_before_anything_begins(tree, tmp_path, models, here):
    with pytest.raises(ModelError):
        run_batch(tree, tmp_path / "out", settings(tmp_path / "no-models"))
    with pytest.raises(InputError, match="no folder"):
        run_batch(tmp_path / "nothing", tmp_path / "out", settings(models))
    labels(tmp_path / "only" / "labels-of-somebody.nii.gz")
    with pytest.raises(InputError, match="1 label map left out"):
        run_batch(tmp_path / "only", tmp_path / "out", settings(models))
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        run_batch(tree, tmp_path / "file", settings(models))


def test_a_table_that_cannot_be_replaced_for_a_while_does_not_stop_the_batch(
    tree, tmp_path, models, here, monkeypatch
):
    ct(tree / "berta" / "ct.nii.gz")
    original, calls = StatusTable.put, []

    def put(self, *rows):
        calls.append(rows)
        if len(calls) == 2:
            self.rows.update((row.name, row) for row in rows)
            raise OutputError("It is open in a spreadsheet.")
        original(self, *rows)

    monkeypatch.setattr(StatusTable, "put", put)
    told = io.StringIO()
    assert run_batch(tree, tmp_path / "out", settings(models), stream=told) == 2
    assert "spreadsheet" in told.getvalue()
    assert set(statuses(tmp_path / "out").values()) == {"done"}


def test_names_that_a_spreadsheet_would_compute_are_defused_and_found_again(tmp_path):
    status = StatusTable(tmp_path / "status.csv")
    status.put(Row("=cmd|' /C calc'!A0", "x", "failed", message="two\nlines, and a comma"))
    again = StatusTable(tmp_path / "status.csv")
    assert again.get("=cmd|' /C calc'!A0").status == "failed"
    again.put(Row("=cmd|' /C calc'!A0", "x", "done"))
    assert len(again.rows) == 1
    assert (tmp_path / "status.csv").read_text().splitlines()[1].startswith("'=cmd")
    (tmp_path / "status.csv").write_bytes(b"\xff\x00garbage")
    assert StatusTable(tmp_path / "status.csv").rows == {}


def test_a_terminal_gets_a_bar_and_a_line_for_each_study():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    reporter = Reporter(terminal)
    reporter.left_out([Path(f"{n}.nii") for n in range(7)])
    reporter.begin(2, 0)
    reporter.show(0, "anna", "refine", 0.5)
    reporter.finished(0, Row("anna", "x", "done", "1.0", message="Liver 1 mL."))
    time.sleep(0.11)
    reporter.show(0, "berta", "write", 1.0)
    reporter.end()
    text = terminal.getvalue()
    assert "█" in text and "anna (refine)" in text and "\r" in text
    assert "[1/2] anna: done, 1.0 s. Liver 1 mL.\n" in text
    assert "0.nii, 1.nii" in text and "…" in text


# --- as a user starts it ----------------------------------------------------------------------------------------


def arguments(tree, out, models, *more):
    fixed = ["--model", models, "--device", "cpu", "--overlap", "0"]
    return [str(a) for a in ("--input", tree, "--output", out, *fixed, *more)]


def test_the_command_line_runs_a_batch(tree, tmp_path, models, here, capsys):
    assert cli.main(["batch", *arguments(tree, tmp_path / "out", models, "--quiet", "--jobs", "2")]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    with pytest.raises(SystemExit) as ended:
        cli.main(["batch", *arguments(tree, tmp_path / "out", models, "--jobs", "0")])
    assert ended.value.code == 2
    assert cli.main(["batch", *arguments(tmp_path / "nothing", tmp_path / "out", models)]) == 2


def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("segment_folder", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_takes_the_dashes_that_slicer_leaves(tree, tmp_path, models, here):
    assert script().main(["--", *arguments(tree, tmp_path / "out", models)]) == 2
    assert statuses(tmp_path / "out")["anna/ct"] == "done"


def test_the_script_runs_by_its_path_alone_with_a_real_worker_and_scenes(tree, tmp_path, models):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(SCRIPT), *arguments(tree, tmp_path / "out", models, "--thorough")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert statuses(tmp_path / "out") == {"anna/ct": "done", "berta/ct": "failed", "carla/dicom": "done"}
    assert "scene.mrb" in {path.name for path in (tmp_path / "out" / "anna" / "ct").iterdir()}
    assert '"thorough": true' in (tmp_path / "out" / "anna" / "ct" / RESULT_FILE).read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")
def test_ctrl_c_ends_a_batch_with_its_workers_and_leaves_whole_results_only(tmp_path, models):
    for n in range(3):
        ct(tmp_path / "studies" / f"{n}.nii.gz", n)
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), *arguments(tmp_path / "studies", out, models)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stderr:
        if line.startswith("[1/3]"):
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the worker hears it too
    rest = process.stderr.read()
    assert process.wait(60) == 3, rest
    found = list(statuses(out).values())
    assert found[0] == "done" and found[-1] == "missing" and "failed" not in found
    done = {name for name, status in statuses(out).items() if status == "done"}
    assert {path.name for path in out.iterdir()} == {*done, "status.csv"}
