"""Models of others: downloaded and imported by a process of its own, and removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import slicer
from slicer.i18n import tr as _

from ..errors import LiverCascadeError
from ..jobs import worker_command
from ..models.install import CONSENT
from ..models.library import EMBEDDED, KnownCascade, Library
from ..resources import RESOURCES
from .dialogs import Dialogs
from .model_choices import consentText, missingModels, openLibrary
from .worker_process import WorkerProcess

IMPORT_KEY = "LiverCascade/ModelZip"


class ModelsView:
    """Shows a download under the list of models, with Cancel, and the buttons Import and Remove.

    Args:
        dialogs: asks the user.
        say: shows one sentence, with a kind.

    Attributes:
        widget: to be put into the panel.
        installed: called with the id of a cascade that is complete now; empty where only the list has changed.
    """

    def __init__(self, dialogs: Dialogs, say: Callable[[str, str], None]) -> None:
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "Models.ui"))
        self.installed: Callable[[str], None] = lambda cascadeId: None
        self._ui = slicer.util.childWidgetVariables(self.widget)
        self._dialogs, self._say = dialogs, say
        self._arguments: list[str] = []
        self._process = WorkerProcess(self._command)
        self._process.onEvent, self._process.onEnded = self._onEvent, self._onEnded
        self._wanted = ""
        self._outcome: dict | None = None
        self._chosen: KnownCascade | None = None
        self._ui.cancelInstallButton.connect("clicked(bool)", self.cancel)
        self._ui.importModelButton.connect("clicked(bool)", self._onImport)
        self._ui.removeModelButton.connect("clicked(bool)", self._onRemove)
        self._update()

    @property
    def isBusy(self) -> bool:
        """True while something is downloaded or imported."""
        return self._process.isRunning

    @property
    def pid(self) -> int:
        """Of the process that works, 0 while there is none."""
        return self._process.pid

    def setChosen(self, cascade: KnownCascade | None) -> None:
        """The cascade that is chosen in the list, which can be removed; None where it is not one of the library."""
        self._chosen = cascade
        self._update()

    def install(self, cascade: KnownCascade, library: Library) -> None:
        """Asks, and downloads what the cascade lacks."""
        if self.isBusy:
            self._say(_("Another model is being installed. Wait for it, or cancel it."), "warning")
            return
        if not self._dialogs.confirm(consentText(cascade, missingModels(cascade, library))):
            self._say(_("Nothing was downloaded."), "info")
            return
        self._wanted = cascade.id
        self._start(["install", cascade.id, CONSENT])

    def cancel(self) -> None:
        """Ends the process; what has arrived of a download is kept for the next try."""
        if not self.isBusy:
            return
        self._process.stop()
        self._update()
        self._say(_("The installation was cancelled. The next try goes on from what has been downloaded."), "info")

    def close(self) -> None:
        """The panel goes, and the process with it."""
        self._process.stop()

    def _start(self, arguments: Sequence[str]) -> None:
        self._outcome = None
        self._arguments = ["-m", "LiverCascadeLib", "models", *arguments, "--json-progress"]
        self._showProgress(_("Starting"), 0.0)
        self._process.start()
        self._update()

    def _command(self) -> tuple[str, list[str], dict[str, str]]:
        program, _arguments, environment = worker_command()
        return program, self._arguments, environment

    def _onEvent(self, event: dict) -> None:
        if event.get("event") == "progress":
            words = f"{event.get('title', '')}: {_stageInWords(event.get('stage', ''))}"
            self._showProgress(words, float(event.get("fraction", 0.0)))
        elif event.get("event") in ("done", "error"):
            self._outcome = event

    def _onEnded(self, text: str) -> None:
        outcome, wanted, self._wanted = self._outcome, self._wanted, ""
        self._update()
        if outcome is None:
            reason = f" {text.rstrip('.')}." if text else ""
            self._say(_("The process that installs models ended unexpectedly.") + reason, "error")
        elif outcome["event"] == "error":
            self._say(str(outcome.get("message", "")), "error")
        elif wanted:
            self._say(_("The models are installed."), "info")
            self.installed(wanted)
        else:
            self._finishImport(outcome)

    def _finishImport(self, outcome: dict) -> None:
        """An imported model of the user becomes a cascade together with the embedded one that it lacks."""
        library = openLibrary()
        modelId = (outcome.get("installed") or [""])[0]
        cascadeId = ""
        sentences = [_("The model {id} was imported.").format(id=modelId), *outcome.get("notes", [])]
        try:
            model = library.find(modelId) if library is not None else None
            if model is not None and library.catalogue.model(modelId) is None:
                cascadeId = f"{modelId[:52]}-cascade"
                locate, refine = (modelId, EMBEDDED) if model.role == "locate" else (EMBEDDED, modelId)
                library.combine(cascadeId, model.title, locate, [refine])
        except LiverCascadeError as error:
            cascadeId = ""
            sentences.append(str(error))
        self._say("\n".join(sentences), "info")
        self.installed(cascadeId)

    def _onImport(self) -> None:
        path = self._dialogs.chooseFile(_("Zip of an nnU-Net model or of a MONAI bundle"), IMPORT_KEY)
        if path is not None and not self.isBusy:
            self._start(["import", str(path)])

    def _onRemove(self) -> None:
        cascade, library = self._chosen, openLibrary()
        if cascade is None or library is None or self.isBusy:
            return
        question = _("Remove {title} from this computer, with all models that no other cascade needs?")
        if not self._dialogs.ask(question.format(title=cascade.title)):
            return
        try:
            removed = library.remove(cascade.id)
            needed = {name for other in library.cascades() for name in other.members}
            for name in cascade.members:
                if name != EMBEDDED and name not in (*removed, *needed) and library.find(name) is not None:
                    removed += library.remove(name)
        except LiverCascadeError as error:
            self._say(str(error), "error")
        else:
            self._say(_("Removed: {names}").format(names=", ".join(removed)), "info")
        self.installed("")

    def _showProgress(self, text: str, fraction: float) -> None:
        self._ui.installLabel.text = text
        self._ui.installBar.setValue(int(1000 * fraction))

    def _update(self) -> None:
        busy = self.isBusy
        self._ui.installFrame.setVisible(busy)
        self._ui.importModelButton.enabled = not busy
        self._ui.removeModelButton.enabled = not busy and self._chosen is not None and not self._chosen.missing


def _stageInWords(stage: str) -> str:
    words = {
        "download": _("downloading"),
        "verify": _("checking the download"),
        "unpack": _("unpacking"),
        "copy": _("copying"),
        "record": _("checking the model"),
    }
    return words.get(stage, stage)
