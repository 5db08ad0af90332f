"""Models of others in the panel: asked for, downloaded, imported and removed, in good times and bad."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

from fault_server import not_found, serving, slowly
from foreign_models import files_of, nnunet_files, zipped
from LiverCascadeLib.models.catalogue import load_catalogue
from LiverCascadeLib.models.library import Library
from LiverCascadeLib.resources import EMBEDDED_MODELS
from panel_user import User, children

LIGHT = "totalsegmentator-liver-light"
TRAINER = "Dataset003_Liver/nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def standin():
    import slicer_standin

    standin = slicer_standin.install()
    yield standin
    standin.uninstall()
    assert not children(), "a process was left behind"


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """A mirror with small zips in place of the light cascade's, which the panel's process uses."""
    monkeypatch.setenv("LIVERCASCADE_MODELS", str(tmp_path / "models"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    catalogue = load_catalogue()
    files = {model.file: zipped(files_of(model)) for model in catalogue.members(LIGHT)}
    with serving(files) as server:
        monkeypatch.setenv("LIVERCASCADE_MIRROR", server.base)
        yield server


class Chooser(User):
    """A user who cares about models."""

    @property
    def models(self):
        """The part under the list of models, with its widgets."""
        return self.panel._options._models

    @property
    def parts(self):
        return self.models._ui

    def open_options(self) -> None:
        self.load()
        self.click(self.ui.optionsCollapsibleButton)

    def titles(self) -> list[str]:
        return [self.ui.modelSelector.itemText(index) for index in range(self.ui.modelSelector.count)]

    def choose(self, start: str) -> None:
        """Chooses the models whose title starts so."""
        index = next(i for i, title in enumerate(self.titles()) if title.startswith(start))
        self.ui.modelSelector.setCurrentIndex(index)

    def questions(self) -> list[str]:
        return [message.text for message in self.standin.messages]


LIGHT_TITLE = "TotalSegmentator liver set, light"


@pytest.fixture
def user(standin, mirror):
    user = Chooser(standin)
    user.open_options()
    return user


def test_what_could_be_installed_is_listed_after_what_is_there(user):
    assert user.titles()[0].startswith("Embedded")
    assert "TotalSegmentator liver set (to be downloaded, 827 MB)" in user.titles()
    assert not user.sees(user.parts.installFrame) and not user.parts.removeModelButton.enabled
    assert user.sees(user.parts.importModelButton)


def test_a_user_who_does_not_agree_downloads_nothing_and_keeps_the_models(user, mirror):
    user.standin.answers.append(False)
    user.choose(LIGHT_TITLE)
    question = user.questions()[-1]
    for words in (
        "596 MB",
        "Apache-2.0",
        "Commercial use is allowed",
        "To be cited",
        "Wasserthal",
        "Research use only",
    ):
        assert words in question
    assert user.ui.modelSelector.currentText.startswith("Embedded") and "Nothing was downloaded" in user.status()
    assert not mirror.requests and not user.models.isBusy and user.panel._options.modelFolder() is None


def test_a_cascade_is_downloaded_while_the_panel_stays_alive_and_is_chosen_then(user, mirror):
    mirror.faults = [slowly(0.02)] * 3
    user.standin.answers.append(True)
    user.choose(LIGHT_TITLE)
    assert user.models.isBusy and user.sees(user.parts.installFrame) and not user.parts.importModelButton.enabled
    assert user.ui.segmentButton.enabled, "the models that are there can be used meanwhile"
    user.wait(lambda: "downloading" in user.parts.installLabel.text and user.parts.installBar.value > 0)
    assert "(1 of 3)" in user.parts.installLabel.text
    user.choose("TotalSegmentator liver set (")
    assert "Another model is being installed" in user.status()
    user.wait(lambda: not user.models.isBusy)
    assert user.ui.modelSelector.currentText == LIGHT_TITLE and "are installed" in user.status()
    path = user.panel._options.modelFolder()
    assert path == Library().cascade_path(LIGHT) and json.loads(path.read_text())["id"] == LIGHT
    assert "totalsegmentator-liver-lesions" in user.ui.modelSelector.toolTip
    assert not user.sees(user.parts.installFrame) and user.parts.removeModelButton.enabled
    assert user.panel._options.spacingRange() is None


def test_an_error_is_a_sentence_in_the_panel_and_the_next_try_works(user, mirror):
    mirror.faults = [not_found]
    user.standin.answers.extend([True, True])
    user.choose(LIGHT_TITLE)
    user.wait(lambda: not user.models.isBusy)
    assert "does not exist (HTTP 404)" in user.status() and user.ui.modelSelector.currentText.startswith("Embedded")
    user.choose(LIGHT_TITLE)
    user.wait(lambda: not user.models.isBusy)
    assert user.ui.modelSelector.currentText == LIGHT_TITLE


def test_cancel_ends_the_process_and_the_next_try_goes_on(user, mirror):
    mirror.faults = [slowly(0.1)]
    user.standin.answers.extend([True, True])
    user.choose(LIGHT_TITLE)
    user.wait(lambda: user.parts.installBar.value > 100)
    begun = time.monotonic()
    user.click(user.parts.cancelInstallButton)
    assert time.monotonic() - begun < 2 and not user.models.isBusy and not children()
    assert "cancelled" in user.status() and not Library().installed() and not user.sees(user.parts.installFrame)
    user.choose(LIGHT_TITLE)
    user.wait(lambda: not user.models.isBusy)
    assert user.ui.modelSelector.currentText == LIGHT_TITLE
    assert mirror.requests[1][1].startswith("bytes="), "what had arrived was used"


def test_a_closing_panel_takes_the_process_with_it(user, mirror):
    mirror.faults = [slowly(0.1)]
    user.standin.answers.append(True)
    user.choose(LIGHT_TITLE)
    user.wait(lambda: user.models.pid > 0)
    user.panel.close()
    assert not children()


@pytest.mark.parametrize("program", ["/nonexistent/python", None])
def test_a_process_that_does_not_start_or_dies_is_a_sentence(user, program, monkeypatch, tmp_path):
    real = user.models._command()
    dying = (real[0], ["-c", "import sys; sys.exit('no such thing')"], real[2])
    user.models._process._command = lambda: (program, [], {}) if program else dying
    user.standin.answers.append(True)
    user.choose(LIGHT_TITLE)
    user.wait(lambda: not user.models.isBusy)
    assert "ended unexpectedly" in user.status() and user.parts.importModelButton.enabled
    if program is None:
        assert "no such thing" in user.status()


def test_an_imported_model_works_with_the_embedded_one_and_can_be_removed(user, tmp_path):
    (tmp_path / "export.zip").write_bytes(zipped(nnunet_files(TRAINER)))
    user.standin.answers.append(str(tmp_path / "export.zip"))
    user.click(user.parts.importModelButton)
    user.wait(lambda: not user.models.isBusy)
    assert "dataset003-liver was imported" in user.status() and "Guessed from the names" in user.status()
    assert user.ui.modelSelector.currentText.startswith("nnUNetTrainer")
    path = user.panel._options.modelFolder()
    assert json.loads(path.read_text())["locate"] == str(EMBEDDED_MODELS / "locate")
    user.standin.answers.append("No")
    user.click(user.parts.removeModelButton)
    assert path.exists()
    user.standin.answers.append("Yes")
    user.click(user.parts.removeModelButton)
    assert "Removed: dataset003-liver-cascade, dataset003-liver" in user.status() and not Library().installed()
    assert user.ui.modelSelector.currentText.startswith("Embedded") and user.panel._options.modelFolder() is None
    assert not user.parts.removeModelButton.enabled


def test_a_file_that_is_no_model_is_a_sentence(user, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"nothing")
    user.standin.answers.extend(["", str(tmp_path / "x.zip")])
    user.click(user.parts.importModelButton)
    assert not user.models.isBusy, "the user changed their mind"
    user.click(user.parts.importModelButton)
    user.wait(lambda: not user.models.isBusy)
    assert "no zip, or a damaged one" in user.status()


def test_an_imported_part_of_the_catalogue_completes_its_cascade(user, tmp_path):
    for model in load_catalogue().members(LIGHT):
        (tmp_path / "part.zip").write_bytes(zipped(files_of(model)))
        user.standin.answers.append(str(tmp_path / "part.zip"))
        user.click(user.parts.importModelButton)
        user.wait(lambda: not user.models.isBusy)
        assert f"{model.id} was imported" in user.status()
    assert LIGHT_TITLE in user.titles() and user.ui.modelSelector.currentText.startswith("Embedded")
    user.choose(LIGHT_TITLE)
    assert user.panel._options.modelFolder() == Library().cascade_path(LIGHT) and not user.questions()[3:]


def test_a_library_that_cannot_be_read_does_not_keep_the_panel_from_opening(standin, monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cascades").write_text("a file in the way")
    (tmp_path / "models" / "stages").mkdir()
    monkeypatch.setenv("LIVERCASCADE_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(Library, "cascades", lambda self: (_ for _ in ()).throw(PermissionError("no")))
    user = Chooser(standin)
    user.open_options()
    assert len(user.titles()) == 1 and user.ui.segmentButton.enabled


def test_a_scene_with_models_that_are_gone_is_shown_with_the_embedded_ones(user):
    user.parameters.modelFolder = str(Path("nowhere") / "cascade.json")
    user.panel.setParameters(user.parameters)
    assert "embedded one is used" in user.status() and user.panel._options.modelFolder() is None
