"""nnU-Net's models give here what nnU-Net's own software gives."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LiverCascadeLib.geometry import Box
from LiverCascadeLib.nnunet.folder import stage_file_for
from LiverCascadeLib.nnunet.stage import NnUnetStage
from LiverCascadeLib.volume import Volume, read_volume
from nnunet_reference import KINDS

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-nnunet" / "bin" / "python"
REAL = ROOT.parent / "shared" / "data" / "chaos_03" / "ct.nii.gz"
EXAMPLE = ROOT / "LiverCascade" / "Resources" / "SampleData" / "synthetic_abdomen.nii.gz"
TRAINED = Path(__file__).parent / "data" / "plain_locate"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="nnU-Net's own software is not installed (make setup)")


def run_reference(*arguments: object) -> None:
    """Runs nnU-Net's own software; a failure shows what it said."""
    # One thread: its waiting threads would fight with the other tests for the processors.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    command = [str(PYTHON), str(Path(__file__).parent / "nnunet_reference.py"), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def labels_in(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def cut(volume: Volume, box: Box, path: Path) -> Path:
    """A block of a scan as a file of its own."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array[box.slices]))
    origin, spacing, direction = volume.grid.crop(box).to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """A folder with a scan, models of every kind, and what nnU-Net's own software makes of the scan with each."""
    place = tmp_path_factory.mktemp("nnunet")
    if REAL.exists():
        scan = cut(read_volume(REAL), Box((130, 180, 20), (235, 276, 52)), place / "scan.nii.gz")
    else:
        scan = cut(read_volume(EXAMPLE), Box((20, 20, 10), (110, 100, 60)), place / "scan.nii.gz")
    run_reference("build", place / "models", scan)
    jobs = [f"{place / name}={place / 'models' / name}" for name in KINDS]
    jobs = [job + "=mirror" if job.endswith("mirrored") else job for job in jobs]
    run_reference("predict", scan, *jobs)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_faithful_gives_the_labels_of_nnunets_own_predictor(reference, kind):
    stage = NnUnetStage(stage_file_for(reference / "models" / kind, "refine"), faithful=True)
    found, expected = stage.labels(read_volume(reference / "scan.nii.gz")), labels_in(reference / f"{kind}.nii.gz")
    assert len(np.unique(expected)) == 3
    assert (found == expected).mean() >= 0.999
    assert min(dice(found == label, expected == label) for label in (1, 2)) >= 0.999
    assert len(stage.mirror_axes) == (3 if kind == "mirrored" else 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The project's own trained plain U-Net in nnU-Net's format, and nnU-Net's answer on a whole real scan."""
    if not REAL.exists():
        pytest.skip("../shared/data/chaos_03 is not there")
    place = tmp_path_factory.mktemp("trained")
    run_reference("convert", TRAINED, place / "model")
    run_reference("predict", REAL, f"{place / 'answer'}={place / 'model'}")
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("faithful", "agreement", "overlap"), [(True, 0.999, 0.999), (False, 0.995, 0.995)])
def test_a_trained_network_gives_the_same_liver_in_either_mode(trained, faithful, agreement, overlap):
    stage = NnUnetStage(stage_file_for(trained / "model", "refine"), faithful=faithful)
    found, expected = stage.labels(read_volume(REAL)), labels_in(trained / "answer.nii.gz")
    present = [label for label in np.unique(expected) if label]
    assert present
    assert (found == expected).mean() >= agreement
    assert min(dice(found == label, expected == label) for label in present) >= overlap


def test_the_reference_writes_what_its_models_say(reference):
    plans = json.loads((reference / "models" / "transposed" / "plans.json").read_text())
    assert plans["transpose_forward"] == [2, 0, 1]
