"""Follow-up: another study of the patient is chosen, compared in a process of its own, and shown."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..errors import LiverCascadeError, WorkerCrashed
from ..findings import Finding
from ..followup.comparison import FollowUp, Side, Step, Track, check_shapes, followed, side_steps
from ..followup.remote import compare_message, comparison_command, step_from_dict
from ..followup.response import MOST_TARGETS
from ..followup.study import Study, check_comparable, ordered
from ..followup.tables import as_section, is_target, sentences
from ..jobs import error_of
from ..resources import RESOURCES
from ..scene import (
    CompareViews,
    LesionTable,
    centerOn,
    colorByChange,
    followUpTableNode,
    lesionTables,
    ownColors,
    placesOf,
    studySteps,
    transformNodeFromDeformation,
)
from .dialogs import Dialogs
from .stepper import Stepper
from .worker_process import WorkerProcess

# Nodes come with several events at once.
REFRESH_MS = 300


class _Comparison:
    """What one comparison is made of, while it is made.

    Attributes:
        tables: in the order of time.
        sides: what the process needs of each study.
        findings: from the checks.
        force: whether the user wants it although identities or livers differ.
        steps: pairs that are done.
        waiting: the pair that is computed, as the process knows it.
    """

    def __init__(self, studies: Sequence[Study], tables: Sequence[LesionTable], sides: Sequence[Side]):
        self.studies, self.tables, self.sides = tuple(studies), tuple(tables), tuple(sides)
        self.findings: tuple[Finding, ...] = ()
        self.force = False
        self.steps: list[Step] = []
        self.waiting = ""


class FollowUpView(VTKObservationMixin):
    """Compares the shown segmentation with others in the scene.

    Args:
        dialogs: asks the user.
        say: shows one sentence, with a kind.
        worker: registers; None takes a process of its own.

    Attributes:
        widget: to be put into the panel.
    """

    def __init__(self, dialogs: Dialogs, say: Callable[[str, str], None], worker: WorkerProcess | None = None) -> None:
        VTKObservationMixin.__init__(self)
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "FollowUp.ui"))
        self._ui = slicer.util.childWidgetVariables(self.widget)
        self._dialogs, self._say = dialogs, say
        self._worker = worker or WorkerProcess(comparison_command, idleSeconds=60)
        self._worker.onEvent, self._worker.onEnded = self._onEvent, self._onEnded
        self._stepper = Stepper()
        self._table: LesionTable | None = None
        self._others: list[LesionTable] = []
        self._comparison: _Comparison | None = None
        self._found: FollowUp | None = None
        self._tables: tuple[LesionTable, ...] = ()
        self._nodes: list[object] = []
        self._views: CompareViews | None = None
        self._layout: int | None = None
        self._isBusy = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFRESH_MS)
        self._timer.connect("timeout()", self._refreshChoice)
        self._setUp()
        self._watchScene()
        self._refreshChoice()
        self._refreshResult()

    @property
    def isBusy(self) -> bool:
        """True while studies are compared."""
        return self._isBusy

    @property
    def followUp(self) -> FollowUp | None:
        """The comparison that is shown."""
        return self._found

    def section(self) -> dict[str, Any] | None:
        """The comparison as a section of a report; None where there is none."""
        return as_section(self._found) if self._found is not None else None

    def setTable(self, table: LesionTable | None) -> None:
        """The segmentation that is shown; a comparison of another one is given up."""
        same = table is not None and self._table is not None and table.tableNode is self._table.tableNode
        self._table = table
        if not same:
            self._stop()
            self._forget()
        self._refreshChoice()

    def sceneClosing(self) -> None:
        """Lets go of all nodes."""
        self._nodes = []
        self.setTable(None)

    def close(self) -> None:
        """The panel goes, and the process with it."""
        self.removeObservers()
        self._timer.stop()
        self._stop()
        self._worker.stop()
        self._closeViews()
        self._table = self._found = None
        self._tables, self._others = (), []

    def _setUp(self) -> None:
        ui = self._ui
        ui.compareButton.connect("clicked(bool)", self._onCompare)
        ui.cancelCompareButton.connect("clicked(bool)", self._onCancel)
        ui.compareViewsCheckBox.connect("clicked(bool)", self._onViews)
        ui.changeColorsCheckBox.connect("clicked(bool)", self._onColors)
        ui.candidateTargetsButton.connect("clicked(bool)", self._onCandidates)
        table = ui.followUpTable
        table.verticalHeader().setVisible(False)
        table.setMinimumHeight(140)
        table.connect("cellClicked(int,int)", self._onClicked)
        table.connect("cellChanged(int,int)", self._onChecked)

    def _watchScene(self) -> None:
        scene = slicer.mrmlScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self.addObserver(scene, event, self._onSceneChanged)

    def _onSceneChanged(self, caller: object, event: object) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _refreshChoice(self) -> None:
        """Offers the other segmentations in the scene; the choice stays where it can."""
        selector = self._ui.followUpBaselineSelector
        chosen = self._others[selector.currentIndex] if 0 <= selector.currentIndex < len(self._others) else None
        own = self._table.tableNode if self._table is not None else None
        found = [table for table in lesionTables(slicer.mrmlScene) if table.tableNode is not own] if own else []
        self._others = found
        blocked = selector.blockSignals(True)
        selector.clear()
        for table in found:
            selector.addItem(table.segmentationNode.GetName())
        if len(found) > 1:
            selector.addItem(_("All {count} other studies").format(count=len(found)))
        for index, table in enumerate(found):
            if chosen is not None and table.tableNode is chosen.tableNode:
                selector.setCurrentIndex(index)
        selector.blockSignals(blocked)
        gone = any(t.segmentationNode is None or t.volumeNode is None for t in self._tables)
        if gone and not self._isBusy:
            self._forget()
        self._updateButtons()

    def _updateButtons(self) -> None:
        ui = self._ui
        ui.followUpBaselineSelector.enabled = bool(self._others) and not self._isBusy
        ui.compareButton.enabled = bool(self._others) and not self._isBusy
        ui.compareButton.toolTip = (
            _("Registers the livers and matches the lesions.")
            if self._others
            else _("Load and segment another study of this patient first.")
        )
        ui.followUpForceCheckBox.enabled = bool(self._others) and not self._isBusy
        ui.compareButton.setVisible(not self._isBusy)
        ui.cancelCompareButton.setVisible(self._isBusy)
        ui.compareProgressBar.setVisible(self._isBusy)

    def _onCompare(self, checked: bool = False) -> None:
        if self._isBusy or self._table is None or not self._others:
            return
        index = self._ui.followUpBaselineSelector.currentIndex
        others = [self._others[index]] if index < len(self._others) else list(self._others)
        self._forget()
        self._isBusy = True
        self._ui.compareProgressBar.value = 0
        self._updateButtons()
        self._say(_("The studies are compared."), "info")
        force = bool(self._ui.followUpForceCheckBox.checked)
        self._worker.start()  # gets ready while the livers are sampled
        if not self._isBusy:  # there is no such program
            return
        self._stepper.start(self._prepared([*others, self._table], force), self._onPrepared, self._onFailed)

    def _prepared(self, tables: list[LesionTable], force: bool) -> Generator[None, None, _Comparison]:
        homes, studies = {}, []
        for table in tables:
            study = yield from studySteps(table)
            homes[id(study.assessment)] = table
            studies.append(study)
        studies, findings = ordered(studies)
        findings += check_comparable(studies, force)
        sides = []
        for study in studies:
            sides.append((yield from side_steps(study)))
        comparison = _Comparison(studies, [homes[id(study.assessment)] for study in studies], sides)
        comparison.findings, comparison.force = findings, force
        return comparison

    def _onPrepared(self, comparison: _Comparison) -> None:
        self._comparison = comparison
        self._sendNext()

    def _sendNext(self) -> None:
        comparison = self._comparison
        if comparison is None or comparison.waiting or not self._worker.isReady:
            return
        done = len(comparison.steps)
        comparison.waiting = uuid.uuid4().hex
        self._worker.send(compare_message(comparison.waiting, *comparison.sides[done : done + 2]))

    def _onEvent(self, event: dict) -> None:
        kind, comparison = event.get("event"), self._comparison
        if kind == "ready":
            self._sendNext()
        elif comparison is None or event.get("id") != comparison.waiting:
            return
        elif kind == "progress":
            share = (len(comparison.steps) + float(event["fraction"])) / (len(comparison.sides) - 1)
            self._ui.compareProgressBar.value = int(100 * share)
        elif kind == "done":
            self._onDone(step_from_dict(event["step"]))
        elif kind == "error":
            self._onFailed(error_of(event))

    def _onDone(self, step: Step) -> None:
        comparison = self._comparison
        comparison.steps.append(step)
        comparison.waiting = ""
        if len(comparison.steps) < len(comparison.sides) - 1:
            self._sendNext()
            return
        try:
            findings = check_shapes(comparison.studies, comparison.steps, comparison.force)
            found = followed(comparison.studies, comparison.steps, None, comparison.findings + findings)
        except LiverCascadeError as error:
            self._onFailed(error)
            return
        self._tables = comparison.tables
        self._finish()
        self._show(found)
        self._say(_("The studies were compared."), "info")

    def _onFailed(self, error: Exception) -> None:
        self._finish()
        if isinstance(error, LiverCascadeError):
            self._say(str(error), "error")
        else:
            self._say(_("The studies could not be compared: {error}").format(error=error), "error")

    def _onEnded(self, text: str) -> None:
        if self._isBusy:
            reason = f" {text}" if text else ""
            self._onFailed(WorkerCrashed(_("The process that compares ended unexpectedly.") + reason))

    def _onCancel(self, checked: bool = False) -> None:
        if self._isBusy:
            self._stop()
            self._say(_("The comparison was cancelled. Nothing in the scene was changed."), "info")

    def _stop(self) -> None:
        """Gives up a comparison that is going on."""
        if self._isBusy:
            self._worker.stop()
            self._finish()

    def _finish(self) -> None:
        self._stepper.stop()
        self._comparison = None
        self._isBusy = False
        self._worker.rest()
        self._updateButtons()

    def _forget(self) -> None:
        """Shows no comparison any more; the nodes that it made stay in the scene."""
        self._closeViews()
        ownColors(self._tables)
        self._found, self._tables, self._nodes = None, (), []
        self._refreshResult()

    def _show(self, found: FollowUp) -> None:
        self._found = found
        scene = slicer.mrmlScene
        names = [study.label for study in found.studies]
        self._nodes = [followUpTableNode(found, self._tables, scene)]
        for index, step in enumerate(found.steps):
            name = f"{names[index]} to {names[index + 1]}"
            self._nodes.append(transformNodeFromDeformation(step.registration.deformation, scene, name))
        self._refreshResult()

    def _judgeAgain(self, targets: Sequence[int] | None) -> None:
        try:
            self._found = self._found.with_targets(targets)
        except LiverCascadeError as error:
            self._say(str(error), "warning")
        else:
            followUpTableNode(self._found, self._tables, slicer.mrmlScene, self._nodes[0])
        self._refreshResult()

    def _refreshResult(self) -> None:
        ui, found = self._ui, self._found
        for widget in (
            ui.followUpTable,
            ui.followUpSummaryLabel,
            ui.compareViewsCheckBox,
            ui.changeColorsCheckBox,
            ui.candidateTargetsButton,
        ):
            widget.setVisible(found is not None)
        if found is None:
            ui.followUpTable.setRowCount(0)
            ui.followUpSummaryLabel.text = ""
            ui.changeColorsCheckBox.checked = False
            return
        ui.followUpSummaryLabel.text = "\n".join(sentences(found))
        ui.candidateTargetsButton.enabled = found.chosen
        self._fillTable(found)

    def _fillTable(self, found: FollowUp) -> None:
        table = self._ui.followUpTable
        blocked = table.blockSignals(True)
        section = as_section(found)
        # On a narrow panel, volumes of each study are left out: their change is there.
        keep = [n for n, title in enumerate(section["columns"]) if not title.endswith("(mL)")]
        table.setColumnCount(len(keep))
        table.setHorizontalHeaderLabels([section["columns"][n] for n in keep])
        table.setRowCount(len(found.tracks))
        for row, track in enumerate(found.tracks):
            for column, number in enumerate(keep):
                item = table.item(row, column)
                if item is None:
                    item = qt.QTableWidgetItem()
                    table.setItem(row, column, item)
                item.setText(section["rows"][row][number])
                flags = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled
                if column == 0 and track.lesions[0]:
                    item.setFlags(flags | qt.Qt.ItemIsUserCheckable)
                    item.setCheckState(qt.Qt.Checked if is_target(found, track) else qt.Qt.Unchecked)
                else:
                    item.setFlags(flags)
        table.resizeColumnsToContents()
        table.blockSignals(blocked)

    def _onChecked(self, row: int, column: int) -> None:
        if column != 0 or self._found is None or row >= len(self._found.tracks):
            return
        table = self._ui.followUpTable
        wanted: list[int] = []
        for number, track in enumerate(self._found.tracks):
            item = table.item(number, 0)
            if track.lesions[0] and item.checkState() == qt.Qt.Checked:
                wanted += self._targetsOf(track)
        if len(wanted) > MOST_TARGETS:
            text = _("At most {count} target lesions: take another one away first.").format(count=MOST_TARGETS)
            self._say(text, "warning")
            self._refreshResult()
            return
        self._judgeAgain(wanted)

    def _targetsOf(self, track: Track) -> list[int]:
        """The target lesions of a track: those that it has, else its largest lesion in the baseline."""
        own = [lesion.label for lesion in track.lesions[0] if lesion.label in self._found.targets]
        if own:
            return own
        largest = max(track.lesions[0], key=lambda lesion: float(lesion.values.get("volume_ml") or 0.0))
        return [largest.label]

    def _onCandidates(self, checked: bool = False) -> None:
        if self._found is not None:
            self._judgeAgain(None)

    def _onClicked(self, row: int, column: int) -> None:
        if self._found is None or not 0 <= row < len(self._found.tracks):
            return
        before, after = placesOf(self._found, self._found.tracks[row])
        if self._views is not None:
            self._views.show(before, after)
        else:
            shown = self._tables[-1] if self._table is None else self._table
            isEarlier = len(self._tables) > 1 and shown.tableNode is self._tables[-2].tableNode
            centerOn(before if isEarlier else after, slicer.mrmlScene)

    def _onViews(self, checked: bool = False) -> None:
        if self._ui.compareViewsCheckBox.checked and self._found is not None:
            self._openViews()
        else:
            self._closeViews()

    def _openViews(self) -> None:
        layoutManager = slicer.app.layoutManager()
        if layoutManager is None:
            return
        self._layout = layoutManager.layout
        layoutManager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
        volumes = [table.volumeNode for table in self._tables[-2:]]
        self._views = CompareViews(slicer.mrmlScene, volumes, self._found.steps[-1].registration.deformation)
        row = max(0, self._ui.followUpTable.currentRow())
        if row < len(self._found.tracks):
            self._views.show(*placesOf(self._found, self._found.tracks[row]))

    def _closeViews(self) -> None:
        views, self._views = self._views, None
        if views is not None:
            views.close()
            layoutManager = slicer.app.layoutManager()
            if layoutManager is not None and self._layout is not None:
                layoutManager.setLayout(self._layout)
        self._layout = None
        self._ui.compareViewsCheckBox.checked = False

    def _onColors(self, checked: bool = False) -> None:
        if self._found is None:
            return
        if self._ui.changeColorsCheckBox.checked:
            colorByChange(self._found, self._tables)
        else:
            ownColors(self._tables)
