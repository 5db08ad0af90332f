"""Models, device and advanced options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from ..cascade import Options
from ..errors import LiverCascadeError, ModelError
from ..postprocess import CleanUp
from ..resources import EMBEDDED_MODELS
from .device import Device
from .dialogs import Dialogs
from .model_choices import ModelChoice, libraryChoices, openLibrary
from .models_view import ModelsView

FOLDERS_KEY = "LiverCascade/ModelFolders"
LAST_FOLDER_KEY = "LiverCascade/LastModelFolder"


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
        self._folders: list[ModelChoice] = []
        self._choices: list[ModelChoice] = []
        self._library = None
        self._models = ModelsView(dialogs, say)
        self._models.installed = self._onInstalled
        ui.optionsCollapsibleButton.layout().insertRow(1, self._models.widget)
        self._loadFolders()
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
        if folder and not any(str(choice.folder) == folder and choice.isReady for choice in self._choices):
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
            clean_up=CleanUp(
                chosen.minLesionVoxels,
                chosen.minLesionVolume,
                min_lesion_confidence=chosen.minLesionConfidence or None,
            ),
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
        return (choice.inputSpacing or None) if choice else None

    def deviceKind(self) -> str:
        """'cuda' or 'cpu', as far as it can be told without loading PyTorch, for the estimate of time."""
        return "cuda" if self._parameters and self._parameters.device is Device.GPU else "cpu"

    def close(self) -> None:
        """The panel goes."""
        self._models.close()

    def _loadFolders(self) -> None:
        stored = slicer.util.settingsValue(FOLDERS_KEY, "")
        for folder in (EMBEDDED_MODELS, *(Path(line) for line in str(stored).split("\n") if line)):
            try:
                self._folders.append(ModelChoice.load(folder))
            except ModelError:
                continue  # a folder on a drive that is not there today

    def _fill(self) -> None:
        """Lists folders first, then what the library has or could have."""
        self._library = openLibrary()
        selector = self._ui.modelSelector
        selector.blockSignals(True)
        selector.clear()
        self._choices = [*self._folders, *(libraryChoices(self._library) if self._library is not None else [])]
        for index, choice in enumerate(self._choices):
            selector.addItem(choice.title)
            selector.setItemData(index, choice.toolTip, qt.Qt.ToolTipRole)
        selector.blockSignals(False)
        self._showChosen()

    def _add(self, folder: Path) -> None:
        self._folders.append(ModelChoice.load(folder))
        self._fill()

    def _chosen(self) -> ModelChoice | None:
        index = self._ui.modelSelector.currentIndex
        return self._choices[index] if 0 <= index < len(self._choices) else None

    def _showChosen(self) -> None:
        folder = (self._parameters.modelFolder if self._parameters else "") or str(EMBEDDED_MODELS)
        for index, choice in enumerate(self._choices):
            if str(choice.folder) == folder and choice.isReady:
                self._ui.modelSelector.blockSignals(True)
                self._ui.modelSelector.setCurrentIndex(index)
                self._ui.modelSelector.blockSignals(False)
                self._ui.modelSelector.toolTip = choice.toolTip
                self._models.setChosen(choice.cascade)

    def _onModelChosen(self, index: int = -1) -> None:
        choice = self._chosen()
        if choice is None or self._parameters is None:
            return
        if not choice.isReady:
            self._showChosen()  # until it is installed, the one before stays
            self._models.install(choice.cascade, self._library)
            return
        self._choose(choice)

    def _choose(self, choice: ModelChoice) -> None:
        try:
            if choice.cascade is not None:
                self._library.cascade_path(choice.cascade.id)  # written when it is needed
        except LiverCascadeError as error:
            self._say(str(error), "error")
            self._showChosen()
            return
        self._parameters.modelFolder = "" if choice.folder == EMBEDDED_MODELS else str(choice.folder)
        self._showChosen()
        self._changed()

    def _onInstalled(self, cascadeId: str) -> None:
        """The library has changed; ``cascadeId`` is complete now, or empty."""
        self._fill()
        if self._parameters is None:
            return
        ready = [choice for choice in self._choices if choice.isReady]
        installed = [choice for choice in ready if choice.cascade is not None and choice.cascade.id == cascadeId]
        folder = self._parameters.modelFolder
        if installed:
            self._choose(installed[0])
        elif folder and not any(str(choice.folder) == folder for choice in ready):
            self._choose(ready[0])  # what was chosen is gone

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
            others = [str(choice.folder) for choice in self._folders if choice.folder != EMBEDDED_MODELS]
            qt.QSettings().setValue(FOLDERS_KEY, "\n".join(others))
        self._parameters.modelFolder = "" if folder == EMBEDDED_MODELS else str(folder)
        self._showChosen()
        self._changed()
