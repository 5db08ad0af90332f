"""The command line, from arguments to exit codes, as a shell sees it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk
from LiverCascadeLib import cli
from LiverCascadeLib.commands.arguments import ProgressPrinter
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models.cascade_file import read_cascade
from LiverCascadeLib.resources import EMBEDDED_MODELS, RESOURCES
from LiverCascadeLib.volume import read_labels, write_labels
from tiny_models import save_pair

OUTPUTS = {"labels.nii.gz", "segmentation.seg.nrrd", "lesions.csv", "result.json", "scene.mrb", "overview.png"}
EXAMPLE = RESOURCES / "SampleData" / "synthetic_abdomen.nii.gz"
pytestmark = pytest.mark.usefixtures("own_signals")


@pytest.fixture
def models(tmp_path):
    return save_pair(tmp_path / "models")


@pytest.fixture
def water(tmp_path):
    """A water phantom in air: a valid CT without a liver."""
    k, j, i = np.meshgrid(*[np.arange(48) - 23.5] * 3, indexing="ij")
    array = np.where(k**2 / 4 + j**2 + i**2 < 19**2, 0, -1000).astype(np.int16)
    array += np.random.default_rng(0).normal(0, 8, array.shape).astype(np.int16)
    path = tmp_path / "water.nii.gz"
    write_labels(path, array, Grid((48, 48, 48), np.diag([6.0, 6.0, 6.0, 1.0])))
    return path


def livercascade(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "LiverCascadeLib", *map(str, arguments)], capture_output=True, text=True, **more
    )


def test_the_embedded_example_gives_all_files_on_its_own_grid(tmp_path):
    out = tmp_path / "results"
    done = livercascade("segment", EXAMPLE, "-o", out, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == OUTPUTS
    record = json.loads(done.stdout)
    assert record["summary"].startswith("Liver ")
    written = json.loads((out / "result.json").read_text())
    assert written["lesions"] == record["lesions"]
    assert {"read", "load", "check", "locate", "refine", "fuse", "clean", "write"} <= set(written["timings_s"])
    labels, grid = read_labels(out / "labels.nii.gz")
    truth, truth_grid = read_labels(EXAMPLE.with_name("synthetic_abdomen_truth.nii.gz"))
    assert grid.is_close(truth_grid)
    dice = 2 * ((labels > 0) & (truth > 0)).sum() / ((labels > 0).sum() + (truth > 0).sum())
    assert dice >= 0.9
    largest = (truth == 2) & (labels > 1)
    assert largest.sum() / (truth == 2).sum() > 0.3
    plain = [line for line in done.stderr.splitlines() if line.strip()]
    assert any(line.endswith("refine") for line in plain)
    assert "\r" not in done.stderr


def test_a_water_phantom_has_no_liver_and_that_is_a_result(water, tmp_path):
    out = tmp_path / "results"
    done = livercascade("segment", water, "-o", out, "--quiet", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert {path.name for path in out.iterdir()} == OUTPUTS
    record = json.loads((out / "result.json").read_text())
    assert record["summary"] == "No liver was found."
    assert "no-liver" in [finding["code"] for finding in record["findings"]]
    assert not read_labels(out / "labels.nii.gz")[0].any()


def failing(arguments, tmp_path, code):
    """Runs a command that must fail: the message is one sentence, nothing is left in ``tmp_path``."""
    before = sorted(tmp_path.rglob("*"))
    done = livercascade("segment", *arguments, "--device", "cpu")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("livercascade: ")]
    return message


def test_a_missing_input_is_named_and_nothing_is_left_behind(tmp_path):
    message = failing([tmp_path / "nothing.nii.gz", "-o", tmp_path / "a" / "b"], tmp_path, 2)
    assert "nothing.nii.gz" in message


def test_a_truncated_file_is_refused_and_nothing_is_left_behind(tmp_path):
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(EXAMPLE.read_bytes()[:200_000])
    assert "cut.nii.gz" in failing([path, "-o", tmp_path / "out"], tmp_path, 2)


def test_a_text_file_is_refused(tmp_path):
    path = tmp_path / "notes.nii.gz"
    path.write_text("this is not an image")
    failing([path, "-o", tmp_path / "out"], tmp_path, 2)


def test_nan_is_refused(tmp_path):
    array = np.zeros((20, 20, 20), np.float32)
    array[3, 3, 3] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "nan.nii.gz"))
    assert "NaN" in failing([tmp_path / "nan.nii.gz", "-o", tmp_path / "out"], tmp_path, 2)


def test_an_output_path_that_is_a_file_is_refused(water, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "file" in failing([water, "-o", tmp_path / "file"], tmp_path, 2)


def test_missing_and_altered_models_are_refused(water, models, tmp_path):
    weights = models / "refine" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "SHA-256" in failing([water, "-o", tmp_path / "out", "--model", models], tmp_path, 2)
    weights.unlink()
    assert "missing" in failing([water, "-o", tmp_path / "out", "--model", models], tmp_path, 2)
    assert "no model" in failing([water, "-o", tmp_path / "out", "--model", tmp_path / "none"], tmp_path, 2)


def test_a_gpu_that_is_not_there_is_a_lack_of_resources(water, models, tmp_path, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = livercascade("segment", water, "-o", tmp_path / "out", "--model", models, "--device", "gpu")
    assert done.returncode == 4
    assert "GPU" in done.stderr
    assert not (tmp_path / "out").exists()


def test_errors_are_json_too_when_json_was_asked_for(tmp_path, capsys):
    code = cli.main(["segment", str(tmp_path / "nothing"), "-o", str(tmp_path / "out"), "--json"])
    assert code == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_cancels_and_leaves_nothing(tmp_path, number):
    command = [sys.executable, "-m", "LiverCascadeLib", "segment", str(EXAMPLE), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stderr:
        if line.rstrip().endswith("locate"):
            break
    time.sleep(0.3)
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 3, rest
    assert "cancelled" in rest
    assert list(tmp_path.iterdir()) == []


def test_help_names_files_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["segment", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in (*OUTPUTS, "exit codes", "Research use only", "out of memory"):
        assert word in text


@pytest.mark.parametrize(
    "arguments",
    [["--overlap", "0.95"], ["--overlap", "-1"], ["--margin", "x"], ["--margin", "inf"], ["--min-confidence", "1"]],
)
def test_values_out_of_range_are_refused_with_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["segment", "ct.nii.gz", "-o", "out", *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_check_lists_findings_without_segmenting(capsys, water):
    assert cli.main(["check", str(water)]) == 0
    assert "48" in capsys.readouterr().out
    assert cli.main(["check", str(water), "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out)["findings"], list)


def test_models_lists_the_embedded_models(capsys):
    assert cli.main(["models"]) == 0
    assert "Research use only" in capsys.readouterr().out
    assert cli.main(["models", "--json"]) == 0
    manifests = json.loads(capsys.readouterr().out)
    assert [manifest["role"] for manifest in manifests] == ["locate", "refine", "refine"]


def test_a_run_in_this_process_says_what_it_found(models, water, tmp_path, capsys):
    code = cli.main(["segment", str(water), "-o", str(tmp_path / "out"), "--model", str(models), "--threads", "1"])
    assert code == 0
    shown = capsys.readouterr()
    assert f"Results: {tmp_path / 'out'}" in shown.out
    assert "refine" in shown.err or "No liver was found." in shown.out


def test_memory_that_ends_is_a_lack_of_resources(monkeypatch, water, tmp_path, models, capsys):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("LiverCascadeLib.cascade.segment", exhausted)
    code = cli.main(["segment", str(water), "-o", str(tmp_path / "out"), "--model", str(models)])
    assert code == 4
    assert not (tmp_path / "out").exists()


def test_a_terminal_gets_one_line_that_redraws_itself():
    class Terminal:
        text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    terminal = Terminal()
    printer = ProgressPrinter(terminal)
    printer("locate", 0.0)
    printer("locate", 1.0)
    printer.close()
    assert terminal.text.count("\r") == 2
    assert terminal.text.count("\n") == 1
    assert "█" in terminal.text


def test_the_embedded_models_are_small_and_say_what_they_are_for():
    for folder in read_cascade(EMBEDDED_MODELS).folders:
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 12_000_000
        card = (folder / "MODEL_CARD.md").read_text()
        for word in ("Research use only", "Training data", "Measured", "Limits"):
            assert word in card


def test_the_installed_command_is_the_same(tmp_path):
    command = shutil.which("livercascade", path=os.path.dirname(sys.executable))
    if command is None:
        pytest.skip("the package is not installed in this environment")
    assert subprocess.run([command, "--version"], capture_output=True, text=True).stdout.startswith("livercascade ")
