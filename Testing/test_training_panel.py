"""The training companion's panel: what it offers, runs, shows, and leaves behind, which is nothing."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer
import slicer_standin
from packaging.requirements import Requirement
from panel_user import MODULE, ROOT, FakeInstaller, children

TRAINING = ROOT / "LiverCascadeTraining" / "LiverCascadeTraining.py"


@pytest.fixture
def standin():
    standin = slicer_standin.install()
    yield standin
    standin.uninstall()


class Trainer:
    """Somebody who trains: opens the panel, chooses folders, presses buttons.

    Args:
        standin: of Slicer's Qt half.
        folder: for data and work.
        behavior: of the fake command line; None takes the real one.
    """

    def __init__(self, standin, monkeypatch, folder: Path, behavior: str | None = "works", installer=None):
        self.standin, self.folder, self.work = standin, folder, folder / "work"
        self.widget = standin.openModule(TRAINING, installer=installer or FakeInstaller())
        self.ui, self.panel = self.widget.ui, self.widget.panel
        self.behave(monkeypatch, behavior)
        (folder / "data").mkdir(exist_ok=True)

    def behave(self, monkeypatch, behavior: str | None) -> None:
        from LiverCascadeTrainingPanel import workplace

        if behavior:
            script = str(ROOT / "Testing" / "fake_training.py")

            def play(module, arguments):
                return sys.executable, [script, behavior, module, *arguments], {"PYTHONUTF8": "1"}

            monkeypatch.setattr(workplace, "python_command", play)

    def choose(self, data: Path | None = None) -> None:
        """Both folders, through the buttons."""
        for button, path in ((self.ui.dataButton, data or self.folder / "data"), (self.ui.workButton, self.work)):
            self.standin.answers.append(str(path))
            self.standin.click(button)

    def press(self, button, seconds: float = 30) -> str:
        """Presses a button and waits for the end; returns what the panel says then."""
        self.standin.click(button)
        self.wait(lambda: not self.panel.isBusy, seconds)
        return self.ui.statusLabel.text

    def wait(self, until, seconds: float = 30) -> None:
        assert self.standin.process(seconds=seconds, until=until), self.ui.logEdit.toPlainText()

    def enabled(self) -> set[str]:
        names = ("check", "split", "prepare", "locate", "refine", "evaluate", "use")
        return {name for name in names if getattr(self.ui, f"{name}Button").enabled}

    def ready(self) -> None:
        """Everything before the training is there."""
        self.choose()
        self.work.mkdir(exist_ok=True)
        (self.work / "cache").mkdir()
        (self.work / "split.json").write_text("{}")
        self.panel.refresh()

    def log(self) -> str:
        return self.ui.logEdit.toPlainText()


@pytest.fixture
def trainer(standin, monkeypatch, tmp_path):
    trainer = Trainer(standin, monkeypatch, tmp_path)
    yield trainer
    trainer.panel.close()
    assert not children()


def test_each_step_makes_the_next_one_possible(trainer):
    assert trainer.enabled() == set() and "data set" in trainer.ui.statusLabel.text
    trainer.choose()
    assert trainer.enabled() == {"check", "split"}
    assert "done" in trainer.press(trainer.ui.checkButton)
    trainer.press(trainer.ui.splitButton)
    assert "--report" in trainer.log()
    assert trainer.enabled() == {"check", "split", "prepare"}
    trainer.press(trainer.ui.prepareButton)
    assert trainer.enabled() == {"check", "split", "prepare", "locate", "refine"}
    trainer.press(trainer.ui.locateButton)
    assert trainer.ui.locateButton.text == "Resume locate" and trainer.ui.refineButton.text == "Start refine"
    assert "locate, step 6, loss 0.167, Dice of the liver 0.600" in trainer.ui.figuresLabel.text
    trainer.press(trainer.ui.refineButton)
    assert trainer.log().index("prepare") < trainer.log().index("refine ") and "--locate" in trainer.log()
    assert trainer.enabled() >= {"evaluate", "use"}
    trainer.press(trainer.ui.evaluateButton)
    assert trainer.log().startswith("test ") and "evaluate --pairs" in trainer.log()
    assert trainer.standin.messages[-1].kind == "url"


def test_folders_are_remembered_and_written_ones_are_kept_out_of_the_data(trainer, standin):
    trainer.choose()
    trainer.standin.answers.append(str(trainer.folder / "data" / "inside"))
    trainer.standin.click(trainer.ui.workButton)
    assert trainer.enabled() == set() and "inside the data set" in trainer.ui.statusLabel.text
    assert slicer.util.settingsValue("LiverCascadeTraining/Data", "") == str(trainer.folder / "data")


def test_options_reach_the_command_line(trainer):
    trainer.ready()
    trainer.ui.moreCollapsibleButton.collapsed = False
    trainer.ui.changesEdit.text = "training.steps=500 'loss.name=dice-ce'"
    trainer.standin.select(trainer.ui.acceleratorSelector, "cpu")
    trainer.standin.select(trainer.ui.configurationSelector, "small")
    trainer.press(trainer.ui.locateButton)
    log = trainer.log()
    assert "small-locate.yaml" in log and "--accelerator cpu" in log
    assert "--set training.steps=500 --set loss.name=dice-ce" in log
    trainer.press(trainer.ui.locateButton)  # which is now begun, and keeps its configuration
    log = trainer.log()
    assert str(trainer.work / "runs" / "locate" / "config.yaml") in log and "--set" not in log
    trainer.ui.changesEdit.text = "'open"
    assert "quotation" in trainer.press(trainer.ui.refineButton)


def test_own_configurations_take_the_place_of_the_committed_ones(trainer):
    names = [trainer.ui.configurationSelector.itemText(i) for i in range(trainer.ui.configurationSelector.count)]
    assert {"lits", "msd", "small"} <= set(names) and "default" not in names
    for name in ("mine-locate", "mine-refine", "half-locate"):
        (trainer.folder / f"{name}.yaml").touch()
    trainer.ui.moreCollapsibleButton.collapsed = False
    trainer.standin.answers.append(str(trainer.folder))
    trainer.standin.click(trainer.ui.ownButton)
    assert trainer.ui.configurationSelector.count == 1 and trainer.ui.configurationSelector.currentText == "mine"


def test_a_failure_is_told_in_the_commands_own_words(trainer, monkeypatch):
    trainer.choose()
    trainer.behave(monkeypatch, "fails")
    said = trainer.press(trainer.ui.checkButton)
    assert said.endswith("failed (exit code 2): The data set is empty. Grüße.")
    assert "another warning" in trainer.log() and trainer.enabled() == {"check", "split"}


def test_cases_that_cannot_be_used_are_no_failure(trainer, monkeypatch):
    trainer.choose()
    trainer.behave(monkeypatch, "unusable")
    monkeypatch.setenv("FAKE_WARNING", "1")
    assert "left out" in trainer.press(trainer.ui.checkButton)
    assert "a warning of some library" in trainer.log()
    (trainer.work / "cache").mkdir()
    (trainer.work / "split.json").write_text("{}")
    (trainer.work / "runs" / "locate").mkdir(parents=True)
    (trainer.work / "runs" / "locate" / "manifest.json").write_text("{}")
    trainer.panel.refresh()
    assert "done" in trainer.press(trainer.ui.refineButton)
    assert "prepare" in trainer.log() and "step 6/6" in trainer.log()


def test_a_program_that_is_not_there_is_told(trainer, monkeypatch):
    from LiverCascadeTrainingPanel import workplace

    trainer.choose()
    monkeypatch.setattr(workplace, "python_command", lambda *_: (str(trainer.folder / "nothing"), [], {}))
    assert "failed" in trainer.press(trainer.ui.checkButton)


def test_stop_ends_a_training_after_its_step_and_it_can_be_resumed(trainer, monkeypatch):
    trainer.ready()
    trainer.behave(monkeypatch, "endless")
    trainer.standin.click(trainer.ui.locateButton)
    trainer.wait(lambda: "step 5/" in trainer.log())
    assert trainer.enabled() == set() and trainer.ui.runWidget.visible
    assert "can be resumed" in trainer.press(trainer.ui.stopButton)
    assert not (trainer.work / "runs" / "locate" / "stop").exists()
    assert trainer.ui.locateButton.text == "Resume locate" and not trainer.ui.runWidget.visible
    assert not children()


def test_stop_pressed_twice_ends_everything_at_once(trainer, monkeypatch):
    trainer.ready()
    monkeypatch.setattr("LiverCascadeTrainingPanel.workplace.Workplace.stop_file", lambda self, role: self.data / "x")
    trainer.behave(monkeypatch, "endless")
    trainer.standin.click(trainer.ui.locateButton)
    trainer.wait(lambda: "step 2/" in trainer.log())
    trainer.standin.click(trainer.ui.stopButton)
    assert trainer.ui.stopButton.text == "Stop now" and len(children()) == 2
    trainer.standin.click(trainer.ui.stopButton)
    assert not trainer.panel.isBusy and not children() and "goes on where it was" in trainer.ui.statusLabel.text


def test_the_wish_to_stop_of_another_day_is_forgotten(trainer):
    trainer.ready()
    (trainer.work / "runs" / "locate").mkdir(parents=True)
    (trainer.work / "runs" / "locate" / "stop").touch()
    trainer.press(trainer.ui.locateButton)
    assert "step 6/6" in trainer.log()


def test_nothing_is_left_behind_when_slicer_ends(trainer, monkeypatch):
    trainer.ready()
    trainer.behave(monkeypatch, "endless")
    trainer.standin.click(trainer.ui.locateButton)
    trainer.wait(lambda: "step 2/" in trainer.log())
    assert len(children()) == 2
    trainer.standin.quit()
    assert not children()


def test_curves_become_a_chart_and_go_again(trainer, monkeypatch):
    scene = slicer.mrmlScene
    trainer.ready()
    trainer.standin.click(trainer.ui.curvesCheckBox)
    trainer.press(trainer.ui.locateButton)
    chart = scene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    series = [chart.GetNthPlotSeriesNode(i) for i in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [node.GetYColumnName() for node in series] == ["Loss", "Dice of the liver"]  # no lesions in this role
    table = series[0].GetTableNode().GetTable()
    assert [table.GetValueByName(i, "Step").ToDouble() for i in range(6)] == [1, 2, 3, 4, 5, 6]
    assert table.GetValueByName(3, "Loss").ToDouble() == 0.25
    assert not chart.GetSaveWithScene()
    trainer.standin.click(trainer.ui.curvesCheckBox)
    for name in ("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLTableNode"):
        assert scene.GetNumberOfNodesByClass(name) == 0
    trainer.standin.click(trainer.ui.curvesCheckBox)
    scene.RemoveNode(scene.GetFirstNodeByClass("vtkMRMLTableNode"))
    trainer.press(trainer.ui.locateButton)
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 2
    trainer.standin.closeScene()
    assert not trainer.ui.curvesCheckBox.checked
    trainer.panel.refreshFigures()
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 0


def test_missing_packages_are_told_and_nothing_starts_without_them(standin, monkeypatch, tmp_path):
    installer = FakeInstaller(["lightning>=2.6"], refusal="Nothing was installed.")
    trainer = Trainer(standin, monkeypatch, tmp_path, installer=installer)
    assert "lightning" in trainer.ui.packagesLabel.text and trainer.ui.packagesLabel.visible
    trainer.choose()
    assert trainer.press(trainer.ui.checkButton) == "Nothing was installed." and trainer.log() == ""
    installer.refusal = ""
    assert "done" in trainer.press(trainer.ui.checkButton) and not trainer.ui.packagesLabel.visible


def test_the_installer_asks_for_what_the_project_declares(standin):
    from LiverCascadeTrainingPanel.installer import REQUIREMENTS, TORCH_RANGE, defaultInstaller

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert set(map(Requirement, lines)) == set(map(Requirement, project["optional-dependencies"]["train"]))
    assert f"torch{TORCH_RANGE}" in project["dependencies"]
    assert {"lightning", "monai", "torch"} <= {Requirement(r).name for r in defaultInstaller().requirements()}


def test_trained_models_come_into_the_list_of_the_main_panel(trainer):
    import shutil

    from LiverCascadeLib.resources import EMBEDDED_MODELS

    main = trainer.standin.openModule(MODULE)
    slicer.util.selectModule("LiverCascadeTraining")
    trainer.ready()
    runs = trainer.work / "runs"
    for role in ("locate", "refine"):
        (runs / role).mkdir(parents=True)
        (runs / role / "manifest.json").write_text("{}")
    trainer.panel.refresh()
    trainer.standin.click(trainer.ui.useButton)
    assert main.logic.getParameterNode().modelFolder == ""
    for role in ("locate", "refine"):
        shutil.copytree(EMBEDDED_MODELS / role, runs / role, dirs_exist_ok=True)
    trainer.standin.click(trainer.ui.useButton)
    trainer.standin.click(trainer.ui.useButton)
    assert "now uses" in trainer.ui.statusLabel.text
    slicer.util.selectModule("LiverCascade")
    assert main.logic.getParameterNode().modelFolder == str(runs)
    assert main.ui.modelSelector.currentIndex == 1
    assert slicer.util.settingsValue("LiverCascade/ModelFolders", "") == str(runs)


def test_figures_are_read_while_they_are_written(tmp_path):
    from LiverCascadeTrainingPanel.metrics import MetricsFile

    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path)
    assert not metrics.update() and metrics.step == 0
    path.write_text("step,epoch,loss,dice_liver,dice_lesion\n10,0,0.5,,\n20,0,0.")
    assert metrics.update() and metrics.training.steps == [10]
    with path.open("a") as stream:
        stream.write("4,,\n20,0,,0.8,nan\n")
    assert metrics.update() and metrics.training.values["loss"] == [0.5, 0.4]
    assert metrics.validation.last() == {"dice_liver": 0.8} and math.isnan(metrics.validation.values["dice_lesion"][0])
    assert not metrics.update()
    path.with_name("new").write_text("step,epoch,loss,dice_liver,dice_lesion\n10,0,0.7,,\n")
    os.replace(path.with_name("new"), path)
    assert metrics.update() and metrics.training.values["loss"] == [0.7] and metrics.validation.steps == []


def test_the_modules_own_test_passes(standin):
    standin.loadModule(MODULE)
    standin.openModule(TRAINING, installer=FakeInstaller())
    import LiverCascadeTraining

    LiverCascadeTraining.LiverCascadeTrainingTest().runTest()


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}


def test_the_script_does_what_the_command_line_does(tmp_path):
    script = ROOT / "LiverCascadeTraining" / "Scripts" / "train.py"
    paths = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [sys.executable, script, "--", "check", tmp_path / "nothing"], env=paths, capture_output=True, text=True
    )
    assert answer.returncode == 2 and answer.stderr.startswith("livercascade-train: ")


@pytest.mark.slow
def test_the_real_commands_run_from_the_panel_and_the_test_part_is_judged(standin, monkeypatch, tmp_path):
    pytest.importorskip("lightning", reason="the packages for training are not installed")
    from dataset_layouts import invented, lay_out_lits
    from LiverCascadeTrainingPanel import test_part
    from tiny_models import save_pair

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trainer = Trainer(standin, monkeypatch, tmp_path, behavior=None)
    data = lay_out_lits(tmp_path / "data", [invented(seed, 4) for seed in range(4)])
    trainer.choose(data)
    trainer.press(trainer.ui.checkButton, 120)
    assert "4 cases" in trainer.log()
    trainer.ui.schemeEdit.text = "50/25/25"
    assert "done" in trainer.press(trainer.ui.splitButton, 60)
    save_pair(tmp_path / "work" / "runs")
    trainer.panel.refresh()
    trainer.press(trainer.ui.evaluateButton, 120)
    assert (tmp_path / "work" / "evaluation" / "evaluation.html").is_file(), trainer.log()
    assert trainer.standin.messages[-1].text.endswith("evaluation.html")
    pairs = tmp_path / "work" / "test" / "pairs.csv"
    rows = list(csv.DictReader(pairs.open(encoding="utf-8")))
    assert len(rows) == 1
    before = (pairs.parent / rows[0]["this model"]).stat().st_mtime_ns
    test_part.segment_test_part(
        data, "auto", tmp_path / "work" / "split.json", tmp_path / "work" / "runs", pairs.parent
    )
    assert (pairs.parent / rows[0]["this model"]).stat().st_mtime_ns == before
    assert "evaluation.html" in trainer.ui.statusLabel.text
    trainer.panel.close()
    assert not children()
