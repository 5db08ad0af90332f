"""The panel: what can be done next, what is being done, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import qt
import slicer
from LiverCascadeLib.errors import LiverCascadeError
from LiverCascadeLib.panel.dialogs import Dialogs
from LiverCascadeLib.panel.installer import Installer
from slicer.i18n import tr as _

from .command_process import SOME_UNUSABLE, CommandProcess
from .curves_view import CurvesView
from .metrics import MetricsFile
from .models import useInLiverCascade
from .workplace import ROLES, Choices, Command, Configuration, Workplace, configurations

FIGURES_MS = 2000
DATA_KEY, WORK_KEY, OWN_KEY = (f"LiverCascadeTraining/{name}" for name in ("Data", "Work", "Configurations"))
LAYOUTS = ("auto", "lits", "msd", "ircadb", "chaos", "csv")
ACCELERATORS = ("auto", "cpu", "gpu")
COLORS = {"info": "", "warning": "color: #b36b00;", "error": "color: #c0392b;"}
_PROGRESS = re.compile(r"(?:step )?(\d+)/(\d+)\b")


class Panel:
    """Wires the widgets to the command line in the background.

    Args:
        ui: the widgets.
        installer: knows which packages are missing.
        dialogs: asks the user.
        process: runs the commands; None takes a process of its own.
    """

    def __init__(
        self, ui: object, installer: Installer, dialogs: Dialogs, process: CommandProcess | None = None
    ) -> None:
        self._ui, self._installer, self._dialogs = ui, installer, dialogs
        self._process = process or CommandProcess()
        self._process.onLine, self._process.onEnded = self._onLine, self._onEnded
        self._process.onStarted = self._onStarted
        self._configurations: list[Configuration] = []
        self._action = ""
        self._commandCount = 0
        self._commandIndex = 0
        self._workplace: Workplace | None = None  # of what runs
        self._role = ""
        self._isStopping = False
        self._metrics: MetricsFile | None = None
        self._curves = CurvesView()
        self._timer = qt.QTimer()
        self._timer.setInterval(FIGURES_MS)
        self._timer.connect("timeout()", self.refreshFigures)
        self._setUp()
        self.refresh()

    @property
    def isBusy(self) -> bool:
        """True while a command runs."""
        return self._process.isRunning

    def enter(self) -> None:
        """The module is opened: files may have come or gone."""
        self.refresh()
        self._showPackages()
        self.refreshFigures()

    def sceneClosing(self) -> None:
        """Lets go of all nodes; a run goes on."""
        self._curves.forget()
        self._ui.curvesCheckBox.checked = False

    def close(self) -> None:
        """The panel goes, and what runs with it; a training goes on from its last checkpoint when it is resumed."""
        self._timer.stop()
        self._process.stop()
        self._curves.forget()

    def refresh(self) -> None:
        """Offers what can be done with the files that are there."""
        ui, place = self._ui, self.workplace()
        idle = not self.isBusy
        configured = self._configuration() is not None
        reasons = {
            ui.checkButton: place is not None,
            ui.splitButton: place is not None,
            ui.prepareButton: place is not None and place.is_split and configured,
            ui.locateButton: place is not None and place.is_prepared and configured,
            ui.refineButton: place is not None and place.is_prepared and configured,
            ui.evaluateButton: place is not None and place.is_split and place.has_models,
            ui.useButton: place is not None and place.has_models,
        }
        for button, possible in reasons.items():
            button.enabled = possible and idle
        for role, button in ((ROLES[0], ui.locateButton), (ROLES[1], ui.refineButton)):
            begun = place is not None and place.is_begun(role)
            button.text = (_("Resume {role}") if begun else _("Start {role}")).format(role=role)
        choosing = (ui.dataEdit, ui.dataButton, ui.workEdit, ui.workButton, ui.configurationSelector)
        for widget in choosing:
            widget.enabled = idle
        ui.runWidget.setVisible(not idle)
        if place is None and idle:
            self.say(self._whatIsMissing(), "info")

    def workplace(self) -> Workplace | None:
        """The chosen folders; None until both are chosen and the data are there."""
        data, folder = self._ui.dataEdit.text.strip(), self._ui.workEdit.text.strip()
        if not data or not folder or not Path(data).exists():
            return None
        place = Workplace(Path(data).absolute(), Path(folder).absolute())
        # Files that are written into the data set would be taken for cases.
        return None if place.folder.is_relative_to(place.data) else place

    def say(self, text: str, kind: str = "info") -> None:
        """Shows one sentence; ``kind`` is 'info', 'warning' or 'error'."""
        label = self._ui.statusLabel
        label.text = text
        label.styleSheet = COLORS[kind]
        label.setVisible(bool(text))

    def refreshFigures(self) -> None:
        """Reads what the run has written since."""
        place = self._workplace or self.workplace()
        role = self._role or self._latestRole(place)
        if place is None or not role:
            self._ui.figuresLabel.setVisible(False)
            return
        path = place.metrics(role)
        if self._metrics is None or self._metrics.path != path:
            self._metrics = MetricsFile(path)
        changed = self._metrics.update()
        text = _figures(self._metrics, role)
        self._ui.figuresLabel.text = text
        self._ui.figuresLabel.setVisible(bool(text))
        wanted = bool(self._ui.curvesCheckBox.checked)
        if wanted and (changed or not self._curves.isShown):
            self._curves.show(self._metrics, _("Training: {role}").format(role=role))

    # What the user does

    def _setUp(self) -> None:
        ui = self._ui
        for edit, key in ((ui.dataEdit, DATA_KEY), (ui.workEdit, WORK_KEY), (ui.ownEdit, OWN_KEY)):
            edit.text = str(slicer.util.settingsValue(key, ""))
        for selector, entries in ((ui.layoutSelector, LAYOUTS), (ui.acceleratorSelector, ACCELERATORS)):
            for entry in entries:
                selector.addItem(entry)
        self._fillConfigurations()
        ui.logEdit.setMinimumHeight(160)
        ui.dataEdit.connect("editingFinished()", self._onFolders)
        ui.workEdit.connect("editingFinished()", self._onFolders)
        ui.ownEdit.connect("editingFinished()", self._onOwn)
        ui.dataButton.connect("clicked(bool)", self._onBrowseData)
        ui.workButton.connect("clicked(bool)", self._onBrowseWork)
        ui.ownButton.connect("clicked(bool)", self._onBrowseOwn)
        ui.checkButton.connect("clicked(bool)", self._onCheck)
        ui.splitButton.connect("clicked(bool)", self._onSplit)
        ui.prepareButton.connect("clicked(bool)", self._onPrepare)
        ui.locateButton.connect("clicked(bool)", self._onLocate)
        ui.refineButton.connect("clicked(bool)", self._onRefine)
        ui.evaluateButton.connect("clicked(bool)", self._onEvaluate)
        ui.useButton.connect("clicked(bool)", self._onUse)
        ui.stopButton.connect("clicked(bool)", self._onStop)
        ui.curvesCheckBox.connect("clicked(bool)", self._onCurves)

    def _onBrowseData(self, clicked: bool = False) -> None:
        self._browse(self._ui.dataEdit, _("Folder of the data set"), DATA_KEY, self._onFolders)

    def _onBrowseWork(self, clicked: bool = False) -> None:
        self._browse(self._ui.workEdit, _("Folder for what is written"), WORK_KEY, self._onFolders)

    def _onBrowseOwn(self, clicked: bool = False) -> None:
        self._browse(self._ui.ownEdit, _("Folder with configurations"), OWN_KEY, self._onOwn)

    def _browse(self, edit: object, title: str, key: str, chosen: Callable[[], None]) -> None:
        folder = self._dialogs.chooseFolder(title, key)
        if folder is not None:
            edit.text = str(folder)
            chosen()

    def _onFolders(self) -> None:
        settings = qt.QSettings()
        settings.setValue(DATA_KEY, self._ui.dataEdit.text.strip())
        settings.setValue(WORK_KEY, self._ui.workEdit.text.strip())
        if not self.isBusy:
            self.say("")
            self.refresh()
            self.refreshFigures()

    def _onOwn(self) -> None:
        qt.QSettings().setValue(OWN_KEY, self._ui.ownEdit.text.strip())
        self._fillConfigurations()
        self.refresh()

    def _onCheck(self, clicked: bool = False) -> None:
        self._run(_("Checking the data"), lambda place, choices: [place.check(choices)])

    def _onSplit(self, clicked: bool = False) -> None:
        place = self.workplace()
        question = _("There is a split already. A new one is a new experiment: runs of the old one cannot be resumed.")
        if place.is_split and not self._dialogs.confirm(question):
            return
        self._run(_("Making the split"), lambda place, choices: [place.make_split(choices)])

    def _onPrepare(self, clicked: bool = False) -> None:
        configuration = self._configuration()
        self._run(_("Preparing the cases"), lambda place, choices: [place.prepare(configuration, choices)])

    def _onLocate(self, clicked: bool = False) -> None:
        self._train("locate")

    def _onRefine(self, clicked: bool = False) -> None:
        self._train("refine")

    def _train(self, role: str) -> None:
        configuration = self._configuration()
        self._run(
            _("Training {role}").format(role=role),
            lambda place, choices: place.train(role, configuration, choices),
            role,
        )

    def _onEvaluate(self, clicked: bool = False) -> None:
        self._run(_("Evaluating"), lambda place, choices: place.evaluate(choices))

    def _onUse(self, clicked: bool = False) -> None:
        try:
            title = useInLiverCascade(self.workplace().runs)
        except LiverCascadeError as error:
            self.say(str(error), "error")
            return
        self.say(_("Liver Cascade now uses these models: {title}. Research use only.").format(title=title), "info")

    def _onStop(self, clicked: bool = False) -> None:
        isTraining = self._role and self._commandIndex == self._commandCount - 1
        if isTraining and not self._isStopping:
            self._isStopping = True
            path = self._workplace.stop_file(self._role)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError:
                pass  # the disk is full or gone: it can still be ended at once
            self._ui.stopButton.text = _("Stop now")
            self.say(_("The run stops after its step, and the model is written as it stands."), "info")
            return
        action = self._action
        self._process.stop()
        self._rest()
        self.say(_("{action} was ended. Started again, it goes on where it was.").format(action=action), "warning")

    def _onCurves(self, checked: bool = False) -> None:
        if self._ui.curvesCheckBox.checked:
            self.refreshFigures()
        else:
            self._curves.hide()

    # What runs

    def _run(self, action: str, commands: Callable[[Workplace, Choices], Sequence[Command]], role: str = "") -> None:
        """Starts commands; whatever prevents it is said."""
        place = self.workplace()
        if self.isBusy or place is None:
            return
        try:
            self._installer.ensure()
            place.folder.mkdir(parents=True, exist_ok=True)
            made = list(commands(place, self._choices()))
        except (LiverCascadeError, OSError, ValueError) as error:
            self.say(str(error), "error")
            return
        finally:
            self._showPackages()
        if role:
            with suppress(OSError):
                place.stop_file(role).unlink()  # the wish of another day
        self._action, self._workplace, self._role, self._isStopping = action, place, role, False
        self._commandCount = len(made)
        self._ui.logEdit.clear()
        self._ui.logEdit.setVisible(True)
        self._ui.stopButton.text = _("Stop")
        self.say(_("{action}…").format(action=action), "info")
        self._process.start(made)
        if role:
            self._timer.start()
        if self.isBusy:
            self.refresh()

    def _onStarted(self, index: int) -> None:
        self._commandIndex = index
        self._ui.progressBar.setRange(0, 0)  # a moving bar until there is a figure

    def _onLine(self, text: str) -> None:
        self._ui.logEdit.appendPlainText(text)
        found = _PROGRESS.match(text)
        if found and int(found[2]) > 0:
            self._ui.progressBar.setRange(0, int(found[2]))
            self._ui.progressBar.setValue(int(found[1]))

    def _onEnded(self, code: int, reason: str) -> None:
        action, place, stopped = self._action, self._workplace, self._isStopping
        wasEvaluation, wasTraining = action == _("Evaluating"), bool(self._role)
        self._rest()
        if code == 0 and stopped:
            self.say(_("The run was stopped and can be resumed."), "info")
        elif code == 0 and wasEvaluation:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(place.evaluation)))
            self.say(_("The page is {page}.").format(page=place.evaluation), "info")
        elif code == 0:
            self.say(_("{action}: done.").format(action=action), "info")
        elif code == SOME_UNUSABLE and not (self._process.saidWhy or wasTraining or wasEvaluation):
            self.say(_("Some cases cannot be used; they are left out. The report below says which."), "warning")
        else:
            text = reason or _("the last lines are below")
            self.say(
                _("{action} failed (exit code {code}): {text}").format(action=action, code=code, text=text), "error"
            )

    def _rest(self) -> None:
        """Nothing runs any more."""
        self._timer.stop()
        self.refreshFigures()
        self._action, self._role, self._workplace, self._isStopping = "", "", None, False
        self.refresh()

    # What is shown

    def _choices(self) -> Choices:
        ui = self._ui
        return Choices(
            ui.layoutSelector.currentText,
            ui.schemeEdit.text.strip() or Choices.scheme,
            ui.acceleratorSelector.currentText,
            int(ui.workersSpinBox.value),
            ui.changesEdit.text,
        )

    def _configuration(self) -> Configuration | None:
        index = self._ui.configurationSelector.currentIndex
        return self._configurations[index] if 0 <= index < len(self._configurations) else None

    def _fillConfigurations(self) -> None:
        own = self._ui.ownEdit.text.strip()
        self._configurations = configurations(Path(own) if own else None)
        self._ui.configurationSelector.clear()
        for configuration in self._configurations:
            self._ui.configurationSelector.addItem(configuration.name)

    def _latestRole(self, place: Workplace | None) -> str:
        """The run that has figures and was written last."""
        if place is None:
            return ""
        times = {}
        for role in ROLES:
            with suppress(OSError):
                times[role] = place.metrics(role).stat().st_mtime
        return max(times, key=times.get) if times else ""

    def _showPackages(self) -> None:
        notice = self._installer.notice()
        self._ui.packagesLabel.text = notice
        self._ui.packagesLabel.setVisible(bool(notice))

    def _whatIsMissing(self) -> str:
        data, folder = self._ui.dataEdit.text.strip(), self._ui.workEdit.text.strip()
        if not data:
            return _("Choose the folder of a data set first.")
        if not Path(data).exists():
            return _("{path} is not there.").format(path=data)
        if not folder:
            return _("Choose a working folder for everything that is written.")
        return _("The working folder lies inside the data set. Choose one beside it.")


def _figures(metrics: MetricsFile, role: str) -> str:
    """The latest figures in a line; empty where there are none."""
    if not metrics.step:
        return ""
    parts = [_("{role}, step {step}").format(role=role, step=metrics.step)]
    loss = metrics.training.last().get("loss")
    if loss is not None:
        parts.append(_("loss {value:.3f}").format(value=loss))
    texts = {"dice_liver": _("Dice of the liver {value:.3f}"), "dice_lesion": _("Dice of the lesions {value:.3f}")}
    for name, value in metrics.validation.last().items():
        parts.append(texts[name].format(value=value))
    return ", ".join(parts)
