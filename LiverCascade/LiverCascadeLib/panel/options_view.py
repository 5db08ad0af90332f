"""Models, device and advanced options."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from ..cascade import Options
from ..errors import ModelError
from ..models import Manifest, load_manifest
from ..postprocess import CleanUp
from ..resources import EMBEDDED_MODELS
from .device import Device
from .dialogs import Dialogs

FOLDERS_KEY = "LiverCascade/ModelFolders"
LAST_FOLDER_KEY = "LiverCascade/LastModelFolder"
ROLES = ("locate", "refine")


@dataclass(frozen=True)
class ModelChoice:
    """One pair of models that can be chosen.

    Attributes:
        folder: holds ``locate`` and ``refine``.
        manifests: of both.
    """

    folder: Path
    manifests: tuple[Manifest, ...]

    @classmethod
    def load(cls, folder: Path) -> ModelChoice:
        """Reads the manifests of ``folder``.

        Raises:
            ModelError: there is no pair of valid models.
        """
        return cls(folder, tuple(load_manifest(folder / role) for role in ROLES))

    @cached_property
    def title(self) -> str:
        """One line."""
        if self.folder == EMBEDDED_MODELS:
            return _("Embedded ({id})").format(id=self.manifests[-1].id)
        return self.manifests[-1].title

    @cached_property
    def toolTip(self) -> str:
        """License, intended use and measured figures, as rich text."""
        parts = []
        for manifest in self.manifests:
            lines = [f"<b>{html.escape(manifest.title)}</b>"]
            lines.append(_("License: {license}").format(license=html.escape(manifest.license)))
            lines += _figures(manifest)
            lines.append(html.escape(manifest.intended_use))
            parts.append("<br>".join(lines))
        return "<p>".join(parts)


def _figures(manifest: Manifest) -> list[str]:
    """Measured figures, one line per case; their keys are the training companion's."""
    lines = []
    for name, case in manifest.measured.get("cascade", {}).items():
        if not isinstance(case, dict) or "liver_dice" not in case:
            continue
        line = f"{name}: liver Dice {case['liver_dice']:.2f}"
        if case.get("lesions"):
            line += f", {case.get('hit', 0)} of {case['lesions']} lesions, {case.get('false', 0)} false"
        if case.get("note"):
            line += f" ({case['note']})"
        lines.append(html.escape(line))
    return lines


class OptionsView:
    """The options; most are bound to the parameter node by their widgets' ``SlicerParameterName``.

    Args:
        ui: the widgets of the panel.
        dialogs: asks for a folder.
        say: shows one sentence, with a kind.
        changed: called when something was chosen that findings depend on.
    """

    def __init__(
        self, ui: object, dialogs: Dialogs, say: Callable[[str, str], None], changed: Callable[[], None]
    ) -> None:
        self._ui, self._dialogs, self._say, self._changed = ui, dialogs, say, changed
        self._parameters = None
        self._choices: list[ModelChoice] = []
        self._fill()
        ui.modelSelector.connect("currentIndexChanged(int)", self._onModelChosen)
        ui.addModelButton.connect("clicked(bool)", self._onAddModel)
        ui.deviceSelector.connect("currentIndexChanged(int)", self._onDeviceChosen)

    def setParameters(self, parameters: object) -> None:
        """Shows the model that ``parameters`` (the parameter node, or None) name."""
        self._parameters = parameters
        if parameters is None:
            return
        folder = parameters.modelFolder
        if folder and not any(str(choice.folder) == folder for choice in self._choices):
            try:
                self._add(Path(folder))
            except ModelError as error:
                parameters.modelFolder = ""
                self._say(
                    _("The model of this scene is not on this computer, so the embedded one is used. {reason}").format(
                        reason=error
                    ),
                    "warning",
                )
        self._showChosen()

    def options(self) -> Options:
        """What the user chose, for a run."""
        chosen = self._parameters
        return Options(
            device=chosen.device.value,
            overlap=chosen.overlap or None,
            margin_mm=chosen.margin or None,
            thorough=chosen.thorough,
            clean_up=CleanUp(chosen.minLesionVoxels, chosen.minLesionVolume),
            force=chosen.force,
            uncertainty=chosen.uncertainty,
        )

    def modelFolder(self) -> Path | None:
        """The chosen models; None stands for the embedded ones."""
        folder = self._parameters.modelFolder if self._parameters else ""
        return Path(folder) if folder else None

    def spacingRange(self) -> tuple[tuple[float, float], ...] | None:
        """The voxel spacings that the chosen models know."""
        choice = self._chosen()
        return (choice.manifests[-1].input_spacing_mm or None) if choice else None

    def deviceKind(self) -> str:
        """'cuda' or 'cpu', as far as it can be told without loading PyTorch, for the estimate of time."""
        return "cuda" if self._parameters and self._parameters.device is Device.GPU else "cpu"

    def _fill(self) -> None:
        self._ui.modelSelector.blockSignals(True)
        self._ui.modelSelector.clear()
        stored = slicer.util.settingsValue(FOLDERS_KEY, "")
        for folder in (EMBEDDED_MODELS, *(Path(line) for line in str(stored).split("\n") if line)):
            try:
                self._append(ModelChoice.load(folder))
            except ModelError:
                continue  # a folder on a drive that is not there today
        self._ui.modelSelector.blockSignals(False)
        self._showChosen()

    def _append(self, choice: ModelChoice) -> None:
        self._choices.append(choice)
        self._ui.modelSelector.addItem(choice.title)
        self._ui.modelSelector.setItemData(len(self._choices) - 1, choice.toolTip, qt.Qt.ToolTipRole)

    def _add(self, folder: Path) -> None:
        choice = ModelChoice.load(folder)
        self._ui.modelSelector.blockSignals(True)
        self._append(choice)
        self._ui.modelSelector.blockSignals(False)

    def _chosen(self) -> ModelChoice | None:
        index = self._ui.modelSelector.currentIndex
        return self._choices[index] if 0 <= index < len(self._choices) else None

    def _showChosen(self) -> None:
        folder = self._parameters.modelFolder if self._parameters else ""
        for index, choice in enumerate(self._choices):
            if str(choice.folder) == folder or (not folder and choice.folder == EMBEDDED_MODELS):
                self._ui.modelSelector.blockSignals(True)
                self._ui.modelSelector.setCurrentIndex(index)
                self._ui.modelSelector.blockSignals(False)
                self._ui.modelSelector.toolTip = choice.toolTip

    def _onModelChosen(self, index: int = -1) -> None:
        choice = self._chosen()
        if choice is None or self._parameters is None:
            return
        self._parameters.modelFolder = "" if choice.folder == EMBEDDED_MODELS else str(choice.folder)
        self._ui.modelSelector.toolTip = choice.toolTip
        self._changed()

    def _onDeviceChosen(self, index: int = -1) -> None:
        if self._parameters is not None:
            self._changed()

    def _onAddModel(self) -> None:
        folder = self._dialogs.chooseFolder(_("Folder with the models 'locate' and 'refine'"), LAST_FOLDER_KEY)
        if folder is None or self._parameters is None:
            return
        if not any(choice.folder == folder for choice in self._choices):
            try:
                self._add(folder)
            except ModelError as error:
                self._say(str(error), "error")
                return
            others = [str(choice.folder) for choice in self._choices if choice.folder != EMBEDDED_MODELS]
            qt.QSettings().setValue(FOLDERS_KEY, "\n".join(others))
        self._parameters.modelFolder = "" if folder == EMBEDDED_MODELS else str(folder)
        self._showChosen()
        self._changed()
