"""The worker process, from the protocol's bytes to a killed process, and the client that waits for it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from LiverCascadeLib import jobs, worker
from LiverCascadeLib.cascade import Options, load_cascade, segment
from LiverCascadeLib.errors import (
    Cancelled,
    InputError,
    MissingPackageError,
    ModelError,
    OutputError,
    ResourceError,
    WorkerCrashed,
)
from LiverCascadeLib.findings import Finding, Severity
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.jobs import JobFolder, LineDecoder
from LiverCascadeLib.postprocess import CleanUp
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.result import Lesion, Result, Uncertainty
from LiverCascadeLib.volume import Volume
from LiverCascadeLib.worker_client import WorkerClient
from tiny_models import save_model, save_pair

ROOT = Path(__file__).resolve().parent.parent
# So many windows that there is always a middle.
SLOW = Options(device="cpu", overlap=0.8)
QUICK = Options(device="cpu", overlap=0.0)
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and priorities work differently there")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_pair(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A temporary folder of its own, in which no test may leave anything of a job."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield folder
    assert list(folder.glob(f"{jobs.PREFIX}*")) == []


@pytest.fixture(scope="module")
def client():
    """One warm worker for the tests that leave it alive."""
    with WorkerClient() as warm:
        yield warm


def ct(size=(24, 24, 24), spacing=4.0) -> Volume:
    """A noisy ball of soft tissue in air."""
    k, j, i = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size[::-1]], indexing="ij")
    array = np.where(k**2 + j**2 + i**2 < (0.4 * min(size)) ** 2, 60, -1000).astype(np.int16)
    array += np.random.default_rng(0).normal(0, 8, array.shape).astype(np.int16)
    note = Finding("no-orientation", Severity.WARNING, "No orientation.")
    matrix = np.diag([-spacing, spacing, spacing, 1.0])
    return Volume(array, Grid(size, matrix), "Bäuche", {"path": "ct.nii.gz", "format": "nifti"}, (note,))


def wait_until(condition, seconds=60.0):
    """Waits for ``condition()``; fails where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# --- the protocol -----------------------------------------------------------------------------------------------


def test_messages_survive_any_cut_of_the_stream_and_noise_is_skipped():
    sent = [{"event": "log", "message": "ä\n∞"}, {"event": "done", "id": "1", "n": [1, 2.5, None]}]
    noise = b'warning: something\n[1, 2]\n\xff\xfe\n\n{"broken": \n'
    data = jobs.encode(sent[0]) + noise + jobs.encode(sent[1])
    for size in (1, 7, len(data)):
        decoder, received, skipped = LineDecoder(), [], []
        for start in range(0, len(data), size):
            received += decoder.feed(data[start : start + size])
            skipped += decoder.skipped
        assert received == sent
        assert len(skipped) == 4


def test_numpy_values_and_paths_become_json():
    message = {"a": np.float32(1.5), "b": np.arange(2), "c": Path("x")}
    assert json.loads(jobs.encode(message)) == {"a": 1.5, "b": [0, 1], "c": "x"}


def test_options_survive_the_way_to_the_worker():
    options = Options("cpu", 0.3, 5.0, True, CleanUp(1, 2.0, 0.5, 0.4, 0.3), 10.0, True, True, True)
    assert jobs.options_from_dict(json.loads(json.dumps(jobs.options_as_dict(options)))) == options
    assert jobs.options_from_dict({}) == Options()
    with pytest.raises(InputError, match="speed"):
        jobs.options_from_dict({"speed": 11})
    with pytest.raises(InputError, match="clean_up"):
        jobs.options_from_dict({"clean_up": {"dust": 1}})


def test_a_volume_and_a_result_survive_the_way_through_the_folder(temporary):
    volume = ct((9, 8, 7))
    volume = replace(volume, array=volume.array[::-1, :, ::-1])  # flipped views, as NIfTI readers give them
    folder = JobFolder.create(volume)
    assert folder.path.parent == temporary
    if sys.platform != "win32":
        assert folder.path.stat().st_mode & 0o077 == 0, "others could read a patient's scan"
    read = JobFolder(folder.path).read_volume()
    assert np.array_equal(read.array, volume.array)
    assert np.array_equal(read.grid.ijk_to_ras, volume.grid.ijk_to_ras)
    assert (read.name, read.source, read.findings) == (volume.name, volume.source, volume.findings)

    labels = np.zeros(volume.grid.shape, np.uint16)
    labels[2:5, 3:6, 4:8] = 1
    labels[3, 4, 5] = 300
    lesion = Lesion(299, 1, 0.064, (1.5, -2.0, 3.25), Box((5, 4, 3), (6, 5, 4)))
    result = Result(volume, labels, (lesion,), 12.5, volume.findings, {"refine": 1.5}, {"models": [{"id": "m"}]})
    entropy = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)[::-1]
    result = replace(
        result,
        confidences={299: 0.123456789},
        evidence={299: {"entropy": 0.25, "log_diameter": -1.5}},
        uncertainty=Uncertainty(entropy, Box((1, 2, 3), (3, 5, 7))),
    )
    event = json.loads(jobs.encode(folder.write_result(result)))
    again = folder.read_result(event, volume)
    assert np.array_equal(again.labels, labels) and again.labels.dtype == np.uint16
    assert replace(again, labels=None, uncertainty=None) == replace(result, labels=None, uncertainty=None)
    assert np.array_equal(again.uncertainty.on(volume.grid), result.uncertainty.on(volume.grid))
    assert again.uncertainty.box == result.uncertainty.box
    (folder.path / "uncertainty.raw").write_bytes(b"cut")
    with pytest.raises(WorkerCrashed, match="lost"):
        folder.read_result(event, volume)
    folder.remove()
    with pytest.raises(WorkerCrashed, match="lost"):
        folder.read_result(event, volume)
    with pytest.raises(InputError, match="job folder"):
        folder.read_volume()


def test_an_empty_result_passes_no_labels():
    volume = ct((5, 5, 5))
    folder = JobFolder.create(volume)
    event = folder.write_result(Result(volume, np.zeros(volume.grid.shape, np.uint8), (), 0.0))
    assert sorted(path.name for path in folder.path.iterdir()) == ["job.json", "volume.raw"]
    assert not folder.read_result(event, volume).labels.any()
    folder.remove()


def test_removing_a_folder_never_takes_what_is_not_of_a_job(temporary):
    folder = JobFolder.create(ct((4, 4, 4)))
    folder.remove()
    folder.remove()
    mine = temporary / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    JobFolder(mine).remove()
    assert (mine / "thesis.txt").exists()


@pytest.mark.parametrize(("number", "word"), [(errno.ENOSPC, "full"), (errno.EACCES, "TMPDIR")])
def test_a_temporary_folder_that_cannot_be_written_is_told_in_words(number, word, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    folder = JobFolder.create(ct((4, 4, 4)))
    monkeypatch.setattr(jobs, "write_raw", fail)
    with pytest.raises(ResourceError, match=word):
        folder.write_result(Result(ct((4, 4, 4)), np.ones((4, 4, 4), np.uint8), (), 1.0))
    folder.remove()
    monkeypatch.setattr(jobs, "_owner", fail)
    with pytest.raises(ResourceError, match=word):
        JobFolder.create(ct((4, 4, 4)))


def test_folders_of_dead_processes_are_removed_and_only_those(temporary):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    def folder(name, **owner):
        path = temporary / name
        path.mkdir()
        content = {"owner": {"pid": os.getpid(), "started": None, "host": os.uname().nodename, **owner}}
        (path / "job.json").write_text(json.dumps(content))
        (path / "volume.raw").write_bytes(b"12")
        return path

    now = psutil.Process().create_time()
    stale = {folder("livercascade-dead", pid=gone.pid), folder("livercascade-reused", started=now - 1000)}
    kept = {
        folder("livercascade-alive", started=now),
        folder("livercascade-elsewhere", pid=gone.pid, host="another-computer"),
    }
    (notes := temporary / "livercascade-notes").mkdir()
    (notes / "notes.txt").write_text("of the user")
    (fresh := temporary / "livercascade-fresh").mkdir()
    (old := temporary / "livercascade-old").mkdir()
    os.utime(old, (1e9, 1e9))
    assert set(jobs.remove_stale_folders()) == {*stale, old}
    assert all(path.is_dir() for path in (*kept, notes, fresh))
    for path in kept:
        JobFolder(path).remove()
    (notes / "notes.txt").unlink()
    notes.rmdir()
    fresh.rmdir()


def test_the_worker_is_this_interpreter_outside_slicer():
    program, arguments, environment = jobs.worker_command()
    assert (program, arguments) == (sys.executable, ["-m", "LiverCascadeLib.worker"])
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT / "LiverCascade")
    assert environment["PYTHONUTF8"] == "1" and jobs.NORMAL_PRIORITY not in environment
    assert jobs.worker_command("other-python")[0] == "other-python"


@pytest.mark.parametrize(
    ("executable", "prefix", "in_application"),
    [
        ("bin/PythonSlicer", "lib/Python", True),  # what Slicer's application says of itself
        ("bin/SlicerApp-real", "lib/Python", True),
        ("Slicer", "lib/Python", True),
        ("bin/python-real", "lib/Python", False),  # a script that runs under PythonSlicer
    ],
)
def test_the_worker_is_pythonslicer_inside_slicer(executable, prefix, in_application, tmp_path, monkeypatch):
    for name in {"bin/PythonSlicer", executable}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / executable))
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path / prefix))
    program, _, environment = jobs.worker_command()
    assert Path(program) == tmp_path / "bin" / "PythonSlicer"
    assert (environment.get(jobs.NORMAL_PRIORITY) == "1") == in_application


def test_killing_a_tree_ends_the_children_too():
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).wait()"
    process = subprocess.Popen([sys.executable, "-c", child])
    wait_until(lambda: psutil.Process(process.pid).children())
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    jobs.kill_tree(process.pid)
    process.wait()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    jobs.kill_tree(process.pid)


# --- the worker's own logic, in this process --------------------------------------------------------------------


class Recorder:
    """Stands for the channel: keeps what is told."""

    def __init__(self):
        self.events = []

    def tell(self, event, **content):
        self.events.append(json.loads(jobs.encode({"event": event, **content})))


class Bench:
    """A worker without a process: answers one run at a time."""

    def __init__(self):
        self.channel = Recorder()
        self.worker = worker.Worker(self.channel)

    def run(self, volume, models, options=QUICK):
        folder = JobFolder.create(volume)
        self.channel.events.clear()
        try:
            self.worker._take(folder.run_message("1", models, options))
            self.worker._answer(self.worker._runs.get())
            return self.channel.events[-1]
        finally:
            folder.remove()


@pytest.fixture
def loads(monkeypatch):
    """The arguments of each load of a cascade."""
    calls = []

    def load(*arguments):
        calls.append(arguments)
        return load_cascade(*arguments)

    monkeypatch.setattr(worker, "load_cascade", load)
    return calls


def test_a_cascade_is_loaded_once_and_again_only_for_other_models_or_options(models, loads, tmp_path):
    bench = Bench()
    assert [bench.run(ct(), models)["event"] for _ in range(2)] == ["done", "done"]
    assert len(loads) == 1
    bench.run(ct(), models, replace(QUICK, min_liver_ml=20))
    assert len(loads) == 1
    bench.run(ct(), models, replace(QUICK, overlap=0.1))
    bench.run(ct(), models, replace(QUICK, overlap=0.1, thorough=True))
    assert len(loads) == 3
    for role in ("locate", "refine"):
        save_model(tmp_path / "own" / role, role)
    bench.run(ct(), tmp_path / "own", QUICK)
    save_model(tmp_path / "own" / "refine", "refine", seed=1)  # exchanged under the same path
    bench.run(ct(), tmp_path / "own", QUICK)
    assert len(loads) == 5


def test_a_run_that_stepped_down_for_memory_does_not_hold_the_next_one_down(models, loads, monkeypatch):
    bench = Bench()
    note = Finding("out-of-memory", Severity.INFO, "It went on with less.")
    original = segment
    monkeypatch.setattr(worker, "segment", lambda *a: replace(original(*a), findings=(note,)))
    assert bench.run(ct(), models)["event"] == "done"
    bench.run(ct(), models)
    assert len(loads) == 2


def test_a_cascade_that_is_used_again_tells_nothing_of_the_run_before(models):
    cascade = load_cascade(models, QUICK)
    first = segment(ct(), cascade, QUICK)
    assert first.provenance["models"][0]["forward_seconds"] > 0
    cascade.refine.findings.append(Finding("out-of-memory", Severity.INFO, "of the run before"))
    refused = replace(ct(), array=np.full((24, 24, 24), 7, np.int16))
    again = segment(refused, cascade, QUICK)
    assert "not-segmented" in [finding.code for finding in again.findings]
    assert "out-of-memory" not in [finding.code for finding in again.findings]
    assert [model["forward_seconds"] for model in again.provenance["models"]] == [0, 0]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (MemoryError(), "resources", "memory is not enough"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "resources", "memory is not enough"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "resources", "not enough"),
        (ResourceError("No GPU."), "resources", "No GPU."),
        (InputError("No CT."), "input", "No CT."),
        (ModelError("No model."), "model", "No model."),
        (OutputError("No room."), "output", "No room."),
        (ModuleNotFoundError("No module named 'monai'", name="monai.networks"), "missing-package", "'monai'"),
        (ImportError("DLL load failed"), "missing-package", "DLL load failed"),
        (ZeroDivisionError("division by zero"), "crash", "ZeroDivisionError: division by zero"),
        (AssertionError(), "crash", "no message"),
    ],
)
def test_every_error_has_a_kind_a_sentence_and_the_class_that_it_had(error, kind, words, models, monkeypatch, capfd):
    def fail(*_):
        raise error

    monkeypatch.setattr(worker, "segment", fail)
    event = Bench().run(ct(), models)
    assert (event["event"], event["kind"]) == ("error", kind)
    assert words in event["message"]
    raised = jobs.error_of(event)
    assert type(raised) is jobs.ERROR_KINDS[kind] and raised.exit_code == event["exit_code"]
    assert ("Traceback" in capfd.readouterr().err) == (kind == "crash")


def test_progress_is_told_at_most_twenty_times_a_second_but_every_stage_and_end_is():
    channel = Recorder()
    report = worker._Reporter(channel, "7")
    for stage in ("locate", "refine"):
        for n in range(1001):
            report(stage, n / 1000)
    told = [(event["stage"], event["fraction"]) for event in channel.events]
    assert told[0] == ("locate", 0.0) and {("locate", 1.0), ("refine", 0.0), ("refine", 1.0)} <= set(told)
    assert len(told) < 50


# --- the process, spoken to by hand -----------------------------------------------------------------------------


class Process:
    """A worker process whose lines a test writes and reads itself."""

    def __init__(self, **more):
        program, arguments, environment = jobs.worker_command()
        environment = {**os.environ, **environment, **more.pop("env", {})}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([program, *arguments], env=environment, **pipes, **more)
        self.pid = self.process.pid

    def write(self, *lines):
        data = b"".join(line if isinstance(line, bytes) else jobs.encode(line) for line in lines)
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read_until(self, **wanted):
        """The first event with these fields, and all before it."""
        seen = []
        for line in self.process.stdout:
            seen.append(json.loads(line))
            if all(seen[-1].get(key) == value for key, value in wanted.items()):
                return seen[-1], seen
        raise AssertionError(f"the worker ended: {seen} {self.process.stderr.read().decode()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        jobs.kill_tree(self.pid)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):  # a pipe that still held a message
                stream.close()


def test_lines_that_make_no_sense_are_told_and_do_no_harm(models):
    with Process() as talk:
        ready, _ = talk.read_until(event="ready")
        assert ready["pid"] == talk.pid and ready["version"]
        talk.write(b"hello\n", b"[]\n", {"command": "dance"}, {"no": "command"}, {"command": "run", "id": "a"})
        talk.write({"command": "run", "id": "b", "folder": 5, "options": {}}, {"command": "cancel"})
        refused, _ = talk.read_until(event="error", id="a")
        assert refused["kind"] == "input"
        talk.read_until(event="error", id="b")
        talk.write({"command": "run", "id": "c", "folder": "nowhere", "models": None, "options": {}})
        nowhere, _ = talk.read_until(event="error", id="c")
        assert "job folder" in nowhere["message"]
        talk.write({"command": "cancel", "id": "d"}, {"command": "run", "id": "d", "folder": "nowhere", "options": {}})
        talk.read_until(event="cancelled", id="d")
        folder = JobFolder.create(ct())
        talk.write(folder.run_message("e", models, QUICK))
        done, events = talk.read_until(event="done", id="e")
        assert {event["event"] for event in events} <= {"progress", "log", "done"}
        assert done["liver_volume_ml"] >= 0
        folder.remove()
        talk.write({"command": "quit"})
        assert talk.process.wait(60) == 0


@pytest.mark.parametrize("end", ["closed", "quit"])
def test_in_the_middle_of_a_run_the_worker_ends_with_its_parent_and_leaves_nothing(end, models):
    with Process() as talk:
        folder = JobFolder.create(ct((48, 48, 48)))
        queued = JobFolder.create(ct())
        talk.write(folder.run_message("1", models, SLOW), queued.run_message("2", models, SLOW))
        talk.read_until(event="progress", stage="refine")
        if end == "quit":
            talk.write({"command": "quit"})
        else:
            talk.process.stdin.close()
        assert talk.process.wait(60) == 0
        assert not folder.path.exists() and not queued.path.exists()


def test_an_idle_worker_ends_with_its_parent():
    with Process() as talk:
        talk.read_until(event="ready")
        talk.process.stdin.close()
        assert talk.process.wait(60) == 0


@posix
def test_a_worker_of_slicer_returns_to_normal_priority_or_says_that_it_may_not():
    def lower():
        os.setpriority(os.PRIO_PROCESS, 0, 19)

    with Process(env={jobs.NORMAL_PRIORITY: "1"}, preexec_fn=lower) as talk:
        event, _ = talk.read_until(event="log")
        if psutil.Process(talk.pid).nice() != 0:
            assert "nice 19" in event["message"]
    with Process(preexec_fn=lower) as talk:  # somebody else's wish is respected
        talk.read_until(event="log")
        assert psutil.Process(talk.pid).nice() == 19


# --- the client -------------------------------------------------------------------------------------------------


def test_the_worker_gives_what_the_engine_gives_in_this_process(client, models):
    volume = ct()
    here = segment(volume, load_cascade(models, QUICK), QUICK)
    stages = []
    progress = Progress(lambda stage, fraction: stages.append(stage))
    there = client.run(volume, QUICK, models, progress)
    assert np.array_equal(there.labels, here.labels) and there.labels.dtype == here.labels.dtype
    assert there.volume is volume
    assert (there.lesions, there.liver_volume_ml, there.findings) == (
        here.lesions,
        here.liver_volume_ml,
        here.findings,
    )
    plain = json.loads(json.dumps(here.provenance))
    for record in (plain, there.provenance):
        for model in record["models"]:
            del model["forward_seconds"]
    assert there.provenance == plain
    assert list(dict.fromkeys(stages)) == list(there.timings) == ["load", *here.timings]
    assert progress.timings is there.timings


def test_a_second_run_pays_neither_for_imports_nor_for_loading(client, models):
    client.run(ct(), QUICK, models)
    pid = client.pid
    before = psutil.Process(pid).cpu_times()
    result = client.run(ct(), QUICK, models)
    after = psutil.Process(pid).cpu_times()
    assert client.pid == pid
    # Imports take seconds of CPU time; clock time says little on a busy machine.
    assert after.user + after.system - before.user - before.system < 1.0
    assert result.timings["load"] < 0.5 * sum(result.timings.values())


def test_a_run_is_cancelled_in_the_middle_of_a_stage_and_the_worker_stays_warm(client, models, temporary):
    client.run(ct(), QUICK, models)
    pid, seen = client.pid, []
    progress = Progress(lambda stage, fraction: seen.append((stage, fraction)), lambda: "refine" in dict(seen))
    with pytest.raises(Cancelled):
        client.run(ct((48, 48, 48)), SLOW, models, progress)
    assert seen[-1][0] == "refine" and seen[-1][1] < 1
    assert list(temporary.iterdir()) == []
    assert client.run(ct(), QUICK, models).provenance["models"][0]["id"] == "tiny-locate"
    assert client.pid == pid


def test_a_run_that_is_cancelled_before_it_begins_never_reaches_the_worker(models):
    with WorkerClient() as cold:
        with pytest.raises(Cancelled):
            cold.run(ct(), QUICK, models, Progress(is_cancelled=lambda: True))
        assert cold.pid is None


@posix
def test_a_worker_that_does_not_hear_is_ended_on_cancel(client, models, monkeypatch):
    monkeypatch.setattr("LiverCascadeLib.worker_client.CANCEL_PATIENCE_S", 0.3)
    client.run(ct(), QUICK, models)
    pid, stopped = client.pid, []

    def stop(stage, _):
        if stage == "refine" and not stopped:
            stopped.append(stage)
            os.kill(pid, signal.SIGSTOP)

    with pytest.raises(Cancelled):
        client.run(ct((48, 48, 48)), SLOW, models, Progress(stop, lambda: bool(stopped)))
    assert not psutil.pid_exists(pid)


@posix
def test_a_worker_that_is_killed_in_the_middle_is_told_and_the_next_run_starts_another(client, models):
    client.start()
    pid = client.pid

    def kill(stage, _):
        if stage == "refine":
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerCrashed, match="memory ran out") as crashed:
        client.run(ct((48, 48, 48)), SLOW, models, Progress(kill))
    assert crashed.value.exit_code == 4
    assert client.pid is None
    assert client.run(ct(), QUICK, models).volume.name == "Bäuche"
    assert client.pid not in (None, pid)


@posix
def test_a_worker_that_died_while_nobody_looked_is_replaced_without_a_word(client, models):
    client.start()
    psutil.Process(client.pid).kill()
    wait_until(lambda: client.pid is None)
    assert client.run(ct(), QUICK, models).liver_volume_ml >= 0


def test_errors_of_the_run_are_those_of_the_engine(client, models, tmp_path):
    wrong = tmp_path / "wrong"
    save_model(wrong / "locate", "locate")
    save_model(wrong / "refine", "locate")
    for folder in (wrong, tmp_path / "nothing"):
        with pytest.raises(ModelError) as here:
            load_cascade(folder, QUICK)
        with pytest.raises(ModelError) as there:
            client.run(ct(), QUICK, folder)
        assert str(there.value) == str(here.value)
    pid = client.pid
    assert client.run(ct(), QUICK, models) and client.pid == pid


def with_site(monkeypatch, folder, files):
    """Lets new processes import ``files`` before anything of the same name."""
    for name, text in files.items():
        path = folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    path = os.pathsep.join(filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)


def test_a_missing_package_is_named_and_the_worker_that_lacks_it_is_not_kept(models, tmp_path, monkeypatch):
    absent = 'raise ModuleNotFoundError("No module named \'monai\'", name="monai")'
    with WorkerClient() as client:
        with monkeypatch.context() as patched:
            with_site(patched, tmp_path, {"monai/__init__.py": absent})
            with pytest.raises(MissingPackageError, match="'monai' is missing"):
                client.run(ct(), QUICK, models)
        assert client.pid is None
        assert client.run(ct(), QUICK, models)  # installed meanwhile


def test_memory_that_runs_out_in_the_worker_is_a_lack_of_resources(models, tmp_path, monkeypatch):
    patch = """
        import LiverCascadeLib.cascade as cascade
        def segment(*_):
            print("a library that prints")
            raise MemoryError
        cascade.segment = segment
        """
    with_site(monkeypatch, tmp_path, {"sitecustomize.py": patch})
    with WorkerClient() as client, pytest.raises(ResourceError, match="memory is not enough"):
        client.run(ct(), QUICK, models)


def test_a_worker_that_cannot_start_says_why(models, tmp_path, monkeypatch):
    with WorkerClient(python=str(tmp_path / "no-python")) as client, pytest.raises(WorkerCrashed, match="no-python"):
        client.run(ct(), QUICK, models)
    with_site(monkeypatch, tmp_path, {"numpy/__init__.py": "raise SystemExit('this Python is broken')"})
    with WorkerClient() as client, pytest.raises(WorkerCrashed, match="this Python is broken"):
        client.run(ct(), QUICK, models)


def test_a_listener_that_fails_ends_the_run_and_leaves_nothing(models):
    def fail(stage, _):
        if stage == "refine":
            raise KeyError("a mistake of the caller")

    with WorkerClient() as client:
        with pytest.raises(KeyError):
            client.run(ct((48, 48, 48)), SLOW, models, Progress(fail))
        assert client.pid is None


def test_an_application_is_served_while_a_run_is_waited_for(models):
    ticks = []
    with WorkerClient(wait=lambda: ticks.append(time.perf_counter())) as client:
        client.run(ct(), QUICK, models)
    assert len(ticks) > 20


@posix
def test_the_worker_of_a_killed_script_ends_and_takes_the_folder_along(models, tmp_path, temporary):
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from LiverCascadeLib.progress import Progress
        from LiverCascadeLib.worker_client import WorkerClient
        from test_worker import SLOW, ct
        with WorkerClient() as client:
            client.start()
            print(client.pid, flush=True)
            say = Progress(lambda stage, fraction: print(stage, flush=True))
            client.run(ct((48, 48, 48)), SLOW, {str(models)!r}, say)
        """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    pid = int(parent.stdout.readline())
    for line in parent.stdout:
        if line.strip() == "refine":
            break
    assert len(list(temporary.glob("livercascade-*"))) == 1
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not psutil.pid_exists(pid))
    wait_until(lambda: not list(temporary.glob("livercascade-*")))


def test_two_clients_do_not_disturb_each_other(models):
    results = []

    def work():
        with WorkerClient(threads=1) as client:
            results.append(client.run(ct(), QUICK, models))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(results[0].labels, results[1].labels)


@pytest.mark.alone
def test_passing_a_large_volume_and_its_labels_costs_well_under_a_second():
    array = np.random.default_rng(0).integers(-1000, 1000, (119, 512, 512), dtype=np.int16)
    volume = Volume(array, Grid((512, 512, 119), np.diag([0.7, 0.7, 2.0, 1.0])))
    labels = np.zeros(array.shape, np.uint8)
    labels[20:110, 60:400, 80:420] = 1
    best = np.inf
    for _ in range(2):
        started = time.process_time()
        folder = JobFolder.create(volume)
        read = folder.read_volume()
        event = folder.write_result(Result(read, labels, (), 1.0))
        again = folder.read_result(event, volume)
        folder.remove()
        best = min(best, time.process_time() - started)
    assert np.array_equal(read.array, array) and np.array_equal(again.labels, labels)
    assert best < 0.8
