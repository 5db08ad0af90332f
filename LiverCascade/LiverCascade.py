"""The module that clinicians open: wiring between Slicer, the scene and the engine."""

import logging
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    from LiverCascadeLib.result import Result

TORCH_RANGE = ">=2.8"


class LiverCascade(ScriptedLoadableModule):
    """What the module selector and the help section show."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Liver Cascade")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["LiverCascade contributors"]
        self.parent.helpText = _(
            "Segments the liver and its lesions on abdominal CT: a first network locates the liver in the whole"
            " volume, further networks work at fine resolution inside it. Everything is computed on this computer."
            " For research use only; not a medical device. See the"
            ' <a href="{url}">documentation</a>.'
        ).format(url="https://github.com/LiverCascade/SlicerLiverCascade")
        self.parent.acknowledgementText = _("Built on 3D Slicer, MONAI and PyTorch. License: Apache-2.0.")


@parameterNodeWrapper
class LiverCascadeParameterNode:
    """What the user chose; saved with the scene.

    Attributes:
        inputVolume: the CT.
    """

    inputVolume: vtkMRMLScalarVolumeNode


class LiverCascadeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LiverCascade.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.ui.progressBar.setVisible(False)

        self.logic = LiverCascadeLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.segmentButton.connect("clicked(bool)", self.onSegmentButton)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes and the widget is destroyed."""
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Called each time the user opens a different module."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        """Called just before the scene is closed: the parameter node is about to be reset."""
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """Called just after the scene is closed."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Observes the scene's parameter node and chooses the first volume where nothing was chosen yet."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            firstVolumeNode = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if firstVolumeNode:
                self._parameterNode.inputVolume = firstVolumeNode

    def setParameterNode(self, parameterNode: LiverCascadeParameterNode | None) -> None:
        """Connects the panel to ``parameterNode``, or to nothing."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._updateButton)
        self._parameterNode = parameterNode
        self._parameterNodeGuiTag = None
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._updateButton)
            self._updateButton()

    def _updateButton(self, caller=None, event=None) -> None:
        ready = bool(self._parameterNode and self._parameterNode.inputVolume)
        self.ui.segmentButton.enabled = ready
        self.ui.segmentButton.toolTip = _("Start the segmentation.") if ready else _("Select a CT volume first.")

    def onSegmentButton(self) -> None:
        """Segments the chosen volume; says what happened under the button."""
        from LiverCascadeLib.errors import LiverCascadeError

        volumeNode = self._parameterNode.inputVolume
        try:
            if self.logic.missingPackages():
                self.logic.installPackages()
            self._setBusy(True)
            result = self.logic.compute(volumeNode, self.showProgress)
            self.logic.addToScene(result, volumeNode)
        except (LiverCascadeError, MissingPackagesError) as error:
            logging.warning(str(error))
            self.ui.statusLabel.text = str(error)
        except Exception as error:
            self.ui.statusLabel.text = _("The run failed: {error}").format(error=error)
            with slicer.util.tryWithErrorDisplay(_("The run failed.")):
                raise
        else:
            self.ui.statusLabel.text = "\n".join([result.summary, *(finding.message for finding in result.findings)])
            slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
        finally:
            self._setBusy(False)

    def showProgress(self, stage: str, fraction: float) -> None:
        """Shows how far the run is, and lets the panel paint."""
        self.ui.progressBar.setValue(int(100 * fraction))
        self.ui.statusLabel.text = _("{stage} …").format(stage=stage)
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)

    def _setBusy(self, busy: bool) -> None:
        self.ui.progressBar.setVisible(busy)
        self.ui.progressBar.setValue(0)
        self.ui.inputSelector.enabled = not busy
        if busy:
            self.ui.segmentButton.enabled = False
        else:
            self._updateButton()


class MissingPackagesError(RuntimeError):
    """Python packages are missing and were not installed; the text says what to do."""


class LiverCascadeLogic(ScriptedLoadableModuleLogic):
    """What scripts call: ``slicer.util.getModuleLogic("LiverCascade").segment(volumeNode)``."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)

    def getParameterNode(self) -> LiverCascadeParameterNode:
        """The scene's parameters of this module."""
        return LiverCascadeParameterNode(super().getParameterNode())

    def segment(self, volumeNode: vtkMRMLScalarVolumeNode) -> "slicer.vtkMRMLSegmentationNode":
        """Segments the liver and its lesions of a CT volume; returns when that is done.

        Args:
            volumeNode: CT in Hounsfield units.

        Returns:
            a new segmentation node: one segment for the liver and one for each lesion.

        Raises:
            MissingPackagesError: PyTorch or another package is not there.
            LiverCascadeLib.errors.LiverCascadeError: the volume cannot be used, or memory ran out.
        """
        return self.addToScene(self.compute(volumeNode), volumeNode)

    def compute(
        self, volumeNode: vtkMRMLScalarVolumeNode, listener: Callable[[str, float], None] | None = None
    ) -> "Result":
        """The computing half of :meth:`segment`; the scene stays as it is.

        Args:
            volumeNode: CT in Hounsfield units.
            listener: called with (stage, fraction of that stage in 0…1).

        Returns:
            what the engine found, on the grid of ``volumeNode``.
        """
        missing = self.missingPackages()
        if missing:
            raise MissingPackagesError(_missingText(missing))

        from LiverCascadeLib.cascade import Options, load_cascade, segment
        from LiverCascadeLib.progress import Progress
        from LiverCascadeLib.scene import volumeFromNode

        options = Options()
        progress = Progress(listener) if listener else Progress()
        return segment(volumeFromNode(volumeNode), load_cascade(None, options), options, progress)

    @staticmethod
    def addToScene(result: "Result", volumeNode: vtkMRMLScalarVolumeNode) -> "slicer.vtkMRMLSegmentationNode":
        """The scene's half of :meth:`segment`: ``result`` as a new segmentation node of ``volumeNode``."""
        from LiverCascadeLib.scene import segmentationFromResult

        return segmentationFromResult(result, slicer.mrmlScene, volumeNode)

    @staticmethod
    def requirements() -> list[str]:
        """The lines of ``Resources/requirements.txt`` and PyTorch, as ``name>=version``."""
        path = Path(__file__).parent / "Resources" / "requirements.txt"
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        return [f"torch{TORCH_RANGE}", *(line for line in lines if line and not line.startswith("#"))]

    def missingPackages(self) -> list[str]:
        """Requirements that are not installed, or not at a version that is known to work."""
        from importlib.metadata import PackageNotFoundError, version

        from packaging.requirements import Requirement

        missing = []
        for line in self.requirements():
            requirement = Requirement(line)
            try:
                # A local build such as 2.8.0+cpu counts as its public version.
                if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                    missing.append(line)
            except PackageNotFoundError:
                missing.append(line)
        return missing

    def installPackages(self) -> None:
        """Installs what is missing, after the user has agreed. Call it on the main thread, from a user's action.

        Raises:
            MissingPackagesError: declined, failed, or Slicer runs in testing mode.
        """
        missing = self.missingPackages()
        if slicer.app.testingEnabled():
            raise MissingPackagesError(_missingText(missing))
        try:
            if any(line.startswith("torch>") for line in missing):
                self._installTorch()
            self._installOthers([line for line in missing if not line.startswith("torch>")])
        except MissingPackagesError:
            raise
        except Exception as error:
            reason = str(error).rstrip(".")
            raise MissingPackagesError(f"{reason}. {_missingText(self.missingPackages())}") from error
        still = self.missingPackages()
        if still:
            raise MissingPackagesError(_missingText(still))

    @staticmethod
    def _installTorch() -> None:
        try:
            import PyTorchUtils
        except ModuleNotFoundError:
            raise MissingPackagesError(
                _(
                    "PyTorch is missing. Install the extension 'PyTorch' in the Extensions Manager, restart Slicer"
                    " and press the button again."
                )
            ) from None
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=True, torchVersionRequirement=TORCH_RANGE
        )
        if torch is None:
            raise MissingPackagesError(_("PyTorch was not installed. Nothing else was changed."))

    @staticmethod
    def _installOthers(requirements: list[str]) -> None:
        if not requirements:
            return
        try:
            from slicer import packaging
        except ImportError:  # Slicer 5.10
            text = _("LiverCascade needs these Python packages: {packages}. Install them now?")
            if not slicer.util.confirmOkCancelDisplay(text.format(packages=", ".join(requirements))):
                raise MissingPackagesError(_missingText(requirements)) from None
            slicer.util.pip_install(requirements)
        else:
            packaging.pip_ensure(requirements, requester="LiverCascade")


def _missingText(missing: list[str]) -> str:
    text = _(
        "These Python packages are missing: {packages}. Press the button in the module 'Liver Cascade' to install"
        " them; without a connection to the internet, see the documentation."
    )
    return text.format(packages=", ".join(missing))


class LiverCascadeTest(ScriptedLoadableModuleTest):
    """Self-test in Slicer, on the embedded example; it needs no network."""

    def setUp(self) -> None:
        """Starts from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Runs all tests; called by 'Reload and Test'."""
        self.setUp()
        try:
            self.test_exampleIsSegmented()
        except unittest.SkipTest as reason:
            self.delayDisplay(_("Skipped: {reason}").format(reason=reason))

    def test_exampleIsSegmented(self) -> None:
        """The liver of the embedded example is found where it is known to be."""
        logic = LiverCascadeLogic()
        missing = logic.missingPackages()
        if missing:
            self.skipTest(_missingText(missing))
        folder = Path(__file__).parent / "Resources" / "SampleData"
        volumeNode = slicer.util.loadVolume(str(folder / "synthetic_abdomen.nii.gz"))
        truthNode = slicer.util.loadLabelVolume(str(folder / "synthetic_abdomen_truth.nii.gz"))

        segmentationNode = logic.segment(volumeNode)

        truth = slicer.util.arrayFromVolume(truthNode) > 0
        found = np.zeros(truth.shape, dtype=bool)
        for segmentId in segmentationNode.GetSegmentation().GetSegmentIDs():
            found |= slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, volumeNode) > 0
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        self.assertGreater(dice, 0.85)
        self.delayDisplay(_("The test passed: liver Dice {dice:.3f}.").format(dice=dice))
