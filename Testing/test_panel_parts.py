"""Parts of the panel that need no window: the installer, the estimate of time, steps, the worker's process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer_standin
from LiverCascadeLib.errors import MissingPackageError


@pytest.fixture
def standin():
    standin = slicer_standin.install()
    yield standin
    standin.uninstall()


class Answers:
    """Answers as it was told to, and remembers the questions."""

    def __init__(self, answer: bool = True):
        self.answer, self.questions = answer, []

    def confirm(self, text: str) -> bool:
        self.questions.append(text)
        return self.answer


@pytest.fixture
def lacking(monkeypatch):
    """Makes packages missing, by name, until they are 'installed'."""
    import importlib.metadata

    names: set[str] = set()
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    return names


def make_installer(answers: Answers):
    from LiverCascadeLib.panel.installer import Installer

    return Installer(">=2.8", answers)


def test_nothing_is_asked_where_nothing_is_missing(standin):
    answers = Answers()
    installer = make_installer(answers)
    assert installer.missing() == [] and installer.notice() == ""
    installer.ensure()
    assert not answers.questions


def test_missing_packages_are_named_with_their_size_and_installed_on_consent(standin, lacking):
    lacking |= {"torch", "monai"}
    standin.packages.onInstall = lambda requirements: lacking.clear()
    answers = Answers()
    installer = make_installer(answers)
    assert "PyTorch (about 200 MB" in installer.notice() and "monai (about 2 MB)" in installer.notice()
    installer.ensure()
    assert "monai (about 2 MB)" in answers.questions[0]
    assert installer.missing() == []


def test_declined_installation_says_what_to_do(standin, lacking):
    lacking |= {"monai"}
    with pytest.raises(MissingPackageError, match="Nothing was installed"):
        make_installer(Answers(False)).ensure()
    assert not standin.packages.requested


def test_failed_installation_names_the_reason_proxy_and_offline_way(standin, lacking):
    lacking |= {"monai"}
    standin.packages.failure = RuntimeError("no network")
    with pytest.raises(MissingPackageError, match=r"no network.*HTTPS_PROXY.*offline"):
        make_installer(Answers()).ensure()


def test_without_the_torch_extension_the_panel_says_which_one_to_install(standin, lacking):
    lacking |= {"torch"}
    standin.withoutTorchExtension()
    with pytest.raises(MissingPackageError, match="Install the extension 'PyTorch'"):
        make_installer(Answers()).ensure()


def test_declined_torch_is_a_sentence(standin, lacking):
    lacking |= {"torch"}
    standin.packages.torch = None
    with pytest.raises(MissingPackageError, match="PyTorch was not installed"):
        make_installer(Answers()).ensure()


def test_slicer_5_10_installs_with_pip(lacking):
    standin = slicer_standin.install(version="5.10.0")
    try:
        lacking |= {"monai"}
        standin.packages.onInstall = lambda requirements: lacking.clear()
        make_installer(Answers()).ensure()
        assert [name for name, _ in standin.packages.requested] == ["pip_install"]
    finally:
        standin.uninstall()


def test_testing_mode_never_installs(lacking):
    standin = slicer_standin.install(testing=True)
    try:
        lacking |= {"monai"}
        answers = Answers()
        with pytest.raises(MissingPackageError, match="monai"):
            make_installer(answers).ensure()
        assert not answers.questions
    finally:
        standin.uninstall()


def test_estimate_never_goes_back_and_learns(standin):
    from LiverCascadeLib.panel.estimate import RunEstimate, in_words

    now = [0.0]
    estimate = RunEstimate(lambda: now[0])
    estimate.begin(100.0)
    assert estimate.remaining == pytest.approx(100)
    now[0] = 10.0
    half = estimate.update("refine", 0.5)
    assert 0.3 < half < 0.7
    assert estimate.remaining == pytest.approx(10 * (1 - half) / half)
    assert estimate.update("locate", 0.5) == half, "what was done stays done"
    assert estimate.update("unknown stage", 0.5) == half
    estimate.learn({"locate": 30.0, "refine": 30.0})
    estimate.begin(None, frames=2)
    assert estimate.remaining is None
    assert estimate.update("refine", 1.0) < 0.5
    estimate.next_frame()
    assert estimate.update("locate", 0.5) > 0.5
    assert in_words(75.2) == "1:15" and in_words(3725) == "1:02:05"


def test_steps_are_taken_between_events_and_can_be_dropped(standin):
    from LiverCascadeLib.panel.stepper import Stepper

    done, failed, closed = [], [], []

    def steps(error: bool = False):
        try:
            for _ in range(1000):
                yield
            if error:
                raise RuntimeError("broken")
            return "end"
        finally:
            closed.append(True)

    stepper = Stepper()
    stepper.start(steps(), done.append, failed.append)
    assert stepper.isActive and standin.process(seconds=5, until=lambda: done == ["end"])
    stepper.start(steps(error=True), done.append, failed.append)
    assert standin.process(seconds=5, until=lambda: bool(failed)) and str(failed[0]) == "broken"

    def endless():
        try:
            while True:
                yield
        finally:
            closed.append("dropped")

    stepper.start(endless(), done.append, failed.append)
    standin.process(seconds=0.1)
    stepper.stop()
    assert closed[-1] == "dropped" and done == ["end"] and len(failed) == 1 and not stepper.isActive


WITHOUT_PACKAGES = """
import sys
heavy = "torch", "monai", "nibabel", "safetensors", "psutil", "PIL", "highdicom", "jinja2", "jsonschema", "reportlab"
for name in heavy:
    sys.modules[name] = None  # importing it fails
import slicer_standin
standin = slicer_standin.install()
from pathlib import Path
root = Path(sys.argv[1])
widget = standin.openModule(root / "LiverCascade" / "LiverCascade.py")
import slicer
node = slicer.util.loadVolume(str(root / "LiverCascade/Resources/SampleData/synthetic_abdomen.nii.gz"))
widget.ui.inputSelector.setCurrentNode(node)
standin.process(seconds=20, until=lambda: widget.ui.findingsLabel.isVisible())
assert widget.ui.findingsLabel.isVisible() and widget.ui.segmentButton.enabled
standin.uninstall()
print("usable")
"""


def test_the_panel_opens_and_judges_a_scan_before_any_package_is_installed():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGES, str(Path(__file__).resolve().parents[1])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.rstrip().endswith("usable"), done.stdout + done.stderr
