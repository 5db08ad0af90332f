"""Puts the parts of the panel together: what the user does, and what happens then."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

import slicer
from slicer.i18n import tr as _

from ..errors import Cancelled, InputError, LiverCascadeError, MissingPackageError
from ..findings import Severity
from ..jobs import remove_stale_folders
from ..preflight import COSTS, estimate_cost
from ..result import Result
from ..scene import (
    LesionTable,
    SegmentationSequence,
    frames,
    segmentationSteps,
    sequenceOf,
    uncertaintyNode,
    volumeSteps,
    worldGrid,
)
from .estimate import RunEstimate, in_words
from .input_choice import sensibleVolume
from .options_view import OptionsView
from .preflight_view import PreflightView
from .results_view import ResultsView
from .run import Run, RunListener, RunState
from .run_view import RunView
from .sections import Sections
from .services import Services
from .stepper import Stepper


class Panel:
    """The panel behind the widgets of the .ui file.

    Args:
        ui: the widgets, as attributes.
        services: its collaborators.
    """

    def __init__(self, ui: object, services: Services) -> None:
        self._ui, self._services = ui, services
        self._parameters = None
        self._estimate = RunEstimate()
        self._runView = RunView(ui, self._estimate, self.start, self.cancel)
        self._results = ResultsView(ui, services.dialogs, services.editor, self._runView.say)
        self._sections = Sections(
            ui, services.dialogs, self._runView.say, services.installer.ensure, self._showImported
        )
        self._preflight = None
        self._options = OptionsView(ui, services.dialogs, self._runView.say, self._refreshFindings)
        self._preflight = PreflightView(ui.findingsLabel, self._options, self._updateReady)
        listener = RunListener(
            self._onStateChanged, self._onProgress, self._runView.log, self._onFinished, self._onFailed
        )
        self._run = Run(services.worker, listener)
        self._adding, self._showing = Stepper(), Stepper()
        self._volumeNode = None
        self._replaced: list[LesionTable] = []
        self._frames: Iterator | None = None
        self._frame = None
        self._frameResults: SegmentationSequence | None = None
        ui.resultsCollapsibleButton.setVisible(False)
        remove_stale_folders()

    @property
    def isBusy(self) -> bool:
        """True from the press of the button until the result is in the scene."""
        return self._run.isBusy or self._adding.isActive or self._showing.isActive

    @property
    def table(self) -> LesionTable | None:
        """The lesions that are shown."""
        return self._results.table

    def enter(self) -> None:
        """The user comes to the panel."""
        self._services.editor.hideBackButton()
        self._showPackages()

    def setParameters(self, parameters: object) -> None:
        """Shows the scene's choices; None while there is no scene to work on."""
        self._parameters = parameters
        if parameters is not None and parameters.inputVolume is None and not self.isBusy:
            volumeNode = sensibleVolume(slicer.mrmlScene)
            if volumeNode is not None:
                parameters.inputVolume = volumeNode
        self._options.setParameters(parameters)
        self.parametersChanged()

    def parametersChanged(self, caller: object = None, event: object = None) -> None:
        """A choice was made, here or by a script."""
        parameters = self._parameters
        volumeNode = parameters.inputVolume if parameters is not None else None
        segmentationNode = parameters.resultSegmentation if parameters is not None else None
        self._preflight.setNode(volumeNode)
        self._sections.setVolumeNode(volumeNode)
        self._showSegmentation(segmentationNode)
        self._updateReady()

    def start(self) -> None:
        """The user wants the chosen volume segmented."""
        if self.isBusy or self._parameters is None or self._parameters.inputVolume is None:
            return
        self._runView.say("")
        try:
            self._services.installer.ensure()
        except MissingPackageError as error:
            self._runView.say(str(error), "error")
            self._showPackages()
            return
        self._showPackages()
        volumeNode = self._parameters.inputVolume
        self._replaced = self._tablesToReplace(volumeNode)
        self._volumeNode = volumeNode
        try:
            count = self._beginFrames(volumeNode)
        except InputError as error:
            self._onFailed(error)
            return
        self._estimate.begin(self._expectedSeconds(volumeNode), count)
        self._startRun()

    def cancel(self) -> None:
        """The user has had enough."""
        if self._run.isBusy:
            self._run.cancel()
        elif self._adding.isActive:
            self._adding.stop()
            self._onFailed(Cancelled(_("The run was cancelled. Nothing in the scene was changed.")))

    def sceneClosing(self) -> None:
        """All nodes go, and with them whatever is going on."""
        if self.isBusy:
            self._abort(InputError(_("The scene was closed, so the run was ended.")))
        self._sections.sceneClosing()
        self._results.sceneClosing()
        self._preflight.setNode(None)

    def nodeRemoved(self, node: object) -> None:
        """A node was taken out of the scene."""
        if node is self._volumeNode and self.isBusy:
            self._abort(
                InputError(_("The volume that was being segmented was removed from the scene, so the run was ended."))
            )
        table = self._results.table
        if table is not None and table.segmentationNode is None:
            self._showSegmentation(None)

    def close(self) -> None:
        """The application quits, or the module is loaded anew: nothing may be left behind."""
        self._adding.stop()
        self._showing.stop()
        self._run.close()
        self._runView.close()
        self._preflight.close()
        self._options.close()
        self._sections.close()
        self._results.close()

    def _abort(self, error: Exception) -> None:
        self._adding.stop()
        self._showing.stop()
        if self._run.isBusy:
            self._run.abort(error)
        else:
            self._onFailed(error)

    def _startRun(self) -> None:
        self._run.start(self._inputSteps(), self._options.options(), self._options.modelFolder())

    def _inputSteps(self) -> Generator:
        if self._frames is None:
            return (yield from volumeSteps(self._volumeNode))
        yield
        return self._frame.volume

    def _beginFrames(self, volumeNode: object) -> int:
        """Prepares for a sequence where one is wanted; returns how many volumes there are to do."""
        self._frames = self._frame = self._frameResults = None
        found = sequenceOf(volumeNode, slicer.mrmlScene) if self._parameters.allFrames else None
        if found is None:
            return 1
        browserNode, sequenceNode = found
        self._frames = frames(browserNode, sequenceNode)
        self._frame = next(self._frames, None)
        if self._frame is None:
            self._frames = None
            return 1
        self._frameResults = SegmentationSequence(browserNode, sequenceNode, slicer.mrmlScene)
        return sequenceNode.GetNumberOfDataNodes()

    def _expectedSeconds(self, volumeNode: object) -> float | None:
        try:
            return estimate_cost(worldGrid(volumeNode), COSTS[self._options.deviceKind()])[0]
        except InputError:
            return None  # the run itself will say why

    def _tablesToReplace(self, volumeNode: object) -> list[LesionTable]:
        """Edited results of this volume that the user agrees to replace."""
        edited = [table for table in self._tablesOf(volumeNode) if table.isEdited() or table.isReviewed()]
        if not edited:
            return []
        names = ", ".join(f"'{table.segmentationNode.GetName()}'" for table in edited)
        question = _(
            "{names} was edited or reviewed by hand. Replace it by the new result?\n\nYes replaces it when the new"
            " result is there. No keeps it and adds the new result beside it."
        )
        return edited if self._services.dialogs.ask(question.format(names=names)) else []

    def _tablesOf(self, volumeNode: object) -> list[LesionTable]:
        shown = self._results.table
        tables = []
        nodes = slicer.mrmlScene.GetNodesByClass("vtkMRMLSegmentationNode")
        nodes.UnRegister(None)
        for index in range(nodes.GetNumberOfItems()):
            node = nodes.GetItemAsObject(index)
            table = shown if shown is not None and shown.segmentationNode is node else LesionTable.find(node)
            if table is not None and table.volumeNode is volumeNode:
                tables.append(table)
        return tables

    def _onStateChanged(self, state: RunState) -> None:
        self._runView.showState(state)
        self._ui.inputSelector.enabled = state is RunState.IDLE
        self._ui.allFramesCheckBox.enabled = state is RunState.IDLE
        self._ui.optionsCollapsibleButton.enabled = state is RunState.IDLE
        self._updateReady()

    def _onProgress(self, stage: str, fraction: float) -> None:
        self._estimate.update(stage, fraction)
        text = ""
        if self._frames is not None:
            text = _("Frame {number}").format(number=self._frame.index + 1)
        self._runView.showStage(stage, fraction, text)

    def _onFinished(self, result: Result) -> None:
        self._estimate.learn(result.timings)
        for finding in result.findings:
            self._runView.log(f"{finding.severity.value}: {finding.message}")
        self._onStateChanged(RunState.FINISHING)
        if self._frames is not None:
            self._adding.start(self._addFrame(result), self._onFrameAdded, self._onFailed)
        elif result.liver_volume_ml == 0:
            self._onStateChanged(RunState.IDLE)
            self._runView.say(_summary(result), "warning")
        else:
            self._adding.start(self._addResult(result), self._onAdded, self._onFailed)

    def _addFrame(self, result: Result) -> Generator[None, None, Result]:
        yield
        self._frameResults.add(self._frame, result)
        yield
        return result

    def _onFrameAdded(self, result: Result) -> None:
        self._estimate.next_frame()
        try:
            self._frame = next(self._frames, None)
        except InputError as error:
            self._onFailed(error)
            return
        if self._frame is not None:
            self._startRun()
            return
        segmentationNode = self._frameResults.finish()
        self._frames = None
        if segmentationNode is None:
            self._onStateChanged(RunState.IDLE)
            self._runView.say(_("No liver was found on any frame."), "warning")
            return
        table = LesionTable.create(segmentationNode, self._volumeNode, slicer.mrmlScene, result)
        self._onAdded((table, result))

    def _addResult(self, result: Result) -> Generator[None, None, tuple[LesionTable, Result]]:
        segmentationNode = yield from segmentationSteps(result, slicer.mrmlScene, self._volumeNode)
        try:
            yield
            table = yield from LesionTable.creationSteps(segmentationNode, self._volumeNode, slicer.mrmlScene, result)
        except BaseException:
            slicer.mrmlScene.RemoveNode(segmentationNode)
            raise
        uncertaintyNode(result, self._volumeNode, slicer.mrmlScene)
        return table, result

    def _onAdded(self, added: tuple[LesionTable, Result]) -> None:
        # From here on it is too late to cancel: the result is in the scene.
        self._showing.start(self._show(*added), self._onShown, self._onFailed)

    def _show(self, table: LesionTable, result: Result) -> Generator[None, None, Result]:
        """Everything that the user sees of a result, except for 3D, with a pause after each part."""
        volumeNode, replaced = self._volumeNode, self._replaced
        self._replaced = []
        for old in self._tablesOf(volumeNode):
            if old.tableNode is table.tableNode:
                continue
            if any(old.tableNode is gone.tableNode for gone in replaced):
                self._remove(old)
            elif old.segmentationNode.GetDisplayNode() is not None:
                # Two results over each other cannot be told apart.
                old.segmentationNode.GetDisplayNode().SetVisibility(False)
            yield
        self._results.setSegmentation(table.segmentationNode, table)
        yield
        self._sections.setTable(table)
        yield
        if self._parameters is not None:
            self._parameters.resultSegmentation = table.segmentationNode
        self._showResultsSection(table.segmentationNode)
        yield
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
        yield
        self._results.goToLargest()
        yield
        return result

    def _onShown(self, result: Result) -> None:
        self._onStateChanged(RunState.IDLE)
        serious = _serious(result)
        done = _("Done in {time}.").format(time=in_words(self._estimate.elapsed))
        self._runView.say("\n".join([done, *serious]), "warning" if serious else "info")
        self._runView.log(result.summary)
        self._results.show3D()

    def _remove(self, table: LesionTable) -> None:
        for node in (table.segmentationNode, table.tableNode):
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)

    def _onFailed(self, error: Exception) -> None:
        frameResults, self._frames = self._frameResults if self._frames is not None else None, None
        self._replaced = []
        self._onStateChanged(RunState.IDLE)
        if isinstance(error, Cancelled):
            self._runView.say(str(error), "info")
        elif isinstance(error, LiverCascadeError):
            self._runView.say(str(error), "error")
        else:
            logging.error("LiverCascade: the run failed", exc_info=error)
            text = _("The run failed for an unexpected reason, which is in Slicer's error log: {error}")
            self._runView.say(text.format(error=error), "error")
        if isinstance(error, MissingPackageError):
            self._showPackages()
        if frameResults is not None:
            self._keepFrames(frameResults)

    def _keepFrames(self, frameResults: SegmentationSequence) -> None:
        """Frames that were done before a sequence was cut short are not thrown away."""
        if self._volumeNode is None or self._volumeNode.GetScene() is None:
            return
        frameResults.finish()

    def _refreshFindings(self) -> None:
        if self._preflight is not None:
            self._preflight.refresh()

    def _updateReady(self) -> None:
        volumeNode = self._parameters.inputVolume if self._parameters is not None else None
        # Asked again with every new finding: a volume may be chosen before it is known to belong to a sequence.
        inSequence = volumeNode is not None and sequenceOf(volumeNode, slicer.mrmlScene) is not None
        self._ui.allFramesCheckBox.setVisible(inSequence)
        if volumeNode is None:
            self._runView.setReady(False, _("Select a CT volume first."))
        elif self._preflight.refusal:
            self._runView.setReady(False, self._preflight.refusal)
        else:
            self._runView.setReady(not self.isBusy, _("Start the segmentation."))

    def _showPackages(self) -> None:
        notice = self._services.installer.notice()
        self._ui.packagesLabel.text = notice
        self._ui.packagesLabel.setVisible(bool(notice))

    def _showSegmentation(self, segmentationNode: object) -> None:
        self._results.setSegmentation(segmentationNode)
        self._sections.setTable(self._results.table)
        self._showResultsSection(segmentationNode)

    def _showImported(self, table: LesionTable) -> None:
        if self._parameters is not None:
            self._parameters.resultSegmentation = table.segmentationNode

    def _showResultsSection(self, segmentationNode: object) -> None:
        nodes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
        self._ui.resultsCollapsibleButton.setVisible(segmentationNode is not None or nodes > 0)


def _summary(result: Result) -> str:
    """What was found, and what a reader should know about it."""
    return "\n".join([result.summary, *_serious(result)])


def _serious(result: Result) -> list[str]:
    return [finding.message for finding in result.findings if finding.severity is not Severity.INFO]
