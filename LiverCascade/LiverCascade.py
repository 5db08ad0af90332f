"""The module that clinicians open: wiring between Slicer, the panel and the engine."""

import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import slicer
import vtk
from LiverCascadeLib.panel.device import Device
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    from LiverCascadeLib.cascade import Options
    from LiverCascadeLib.panel.services import Services

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
            "<p>Choose a CT and press the button. Correct the result in the Segment Editor; the table of lesions"
            " follows. An example is in the module Sample Data, under 'Liver Cascade'."
            "<p>For research use only; not a medical device. See the"
            ' <a href="{url}">documentation</a>.'
        ).format(url="https://github.com/LiverCascade/SlicerLiverCascade")
        self.parent.acknowledgementText = _("Built on 3D Slicer, MONAI and PyTorch. License: Apache-2.0.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Adds the embedded example to the Sample Data module."""
    from LiverCascadeLib.panel import sample_data

    sample_data.register(Path(__file__).parent / "Resources" / "Icons" / "LiverCascade.png")


@parameterNodeWrapper
class LiverCascadeParameterNode:
    """What the user chose; saved with the scene.

    Attributes:
        inputVolume: the CT.
        allFrames: segment every frame of the sequence that the CT belongs to.
        resultSegmentation: the result that is shown.
        modelFolder: folder with the models; empty for the embedded ones.
        device: where to compute.
        thorough: more overlap of windows, and mirrored copies where the models know them.
        overlap: of neighboring windows; 0 takes the models' own.
        margin: tissue around the located liver, in mm; 0 takes the model's own.
        minLesionVolume: mm³; a lesion is dropped that is below this and below minLesionVoxels.
        minLesionVoxels: see minLesionVolume.
        minLesionConfidence: a lesion is dropped that the model is less sure of; 0 takes the model's own limit.
        force: segment also where the values are not those of a CT.
        uncertainty: add a volume that shows where the networks were undecided.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    allFrames: bool = False
    resultSegmentation: vtkMRMLSegmentationNode
    modelFolder: str = ""
    device: Device = Device.AUTO
    thorough: bool = False
    overlap: Annotated[float, WithinRange(0.0, 0.9)] = 0.0
    margin: Annotated[float, WithinRange(0.0, 60.0)] = 0.0
    minLesionVolume: Annotated[float, WithinRange(0.0, 5000.0)] = 65.0
    minLesionVoxels: Annotated[int, WithinRange(0, 1000)] = 30
    minLesionConfidence: Annotated[float, WithinRange(0.0, 0.99)] = 0.0
    force: bool = False
    uncertainty: bool = False


class LiverCascadeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel in Slicer's module area.

    Args:
        parent: given by Slicer.
        services: the panel's collaborators; None takes the real ones.
    """

    def __init__(self, parent=None, services: "Services | None" = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._services = services
        self._parameterNode = None
        self._parameterNodeGuiTag = None

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        from LiverCascadeLib.panel.panel import Panel
        from LiverCascadeLib.panel.services import defaultServices

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LiverCascade.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = LiverCascadeLogic()
        self.panel = Panel(self.ui, self._services or defaultServices(TORCH_RANGE))
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        # Not left to cleanup(): a worker must not outlive an application that ends without destroying its widgets.
        slicer.app.connect("aboutToQuit()", self.panel.close)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes and the widget is destroyed, and before the module is loaded anew."""
        self.removeObservers()
        if self.panel is not None:
            slicer.app.disconnect("aboutToQuit()", self.panel.close)
            self.setParameterNode(None)
            self.panel.close()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self.initializeParameterNode()
        self.panel.enter()

    def exit(self) -> None:
        """Called each time the user opens a different module. A run goes on, and the table follows the editor."""
        self._disconnectGui()

    def onSceneStartClose(self, caller, event) -> None:
        """Called just before the scene is closed: the parameter node is about to be reset."""
        self.panel.sceneClosing()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """Called just after the scene is closed."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event) -> None:
        """Called just after a scene was loaded: it brings its own choices and results."""
        self.initializeParameterNode()
        if not self.parent.isEntered:
            self._disconnectGui()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller, event, node) -> None:
        """Called for each node that is taken out of the scene."""
        self.panel.nodeRemoved(node)

    def initializeParameterNode(self) -> None:
        """Observes the scene's parameter node."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode: LiverCascadeParameterNode | None) -> None:
        """Connects the panel to ``parameterNode``, or to nothing."""
        self._disconnectGui()
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.panel.parametersChanged)
        self.panel.setParameters(parameterNode)

    def _disconnectGui(self) -> None:
        if self._parameterNode is not None and self._parameterNodeGuiTag is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.panel.parametersChanged)
            self._parameterNodeGuiTag = None


class LiverCascadeLogic(ScriptedLoadableModuleLogic):
    """What scripts call::

    logic = slicer.util.getModuleLogic("LiverCascade")
    segmentationNode = logic.process(slicer.util.getNode("CT"))
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)

    def getParameterNode(self) -> LiverCascadeParameterNode:
        """The scene's parameters of this module."""
        return LiverCascadeParameterNode(super().getParameterNode())

    def missingPackages(self) -> list[str]:
        """Requirements that are not installed, or not at a version that is known to work."""
        from LiverCascadeLib.panel.services import defaultInstaller

        return defaultInstaller(TORCH_RANGE).missing()

    def process(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        options: "Options | None" = None,
        models: Path | str | None = None,
        listener: Callable[[str, float], None] | None = None,
    ) -> vtkMRMLSegmentationNode:
        """Segments the liver and its lesions of a CT volume, with the same result as the panel.

        Returns when that is done, and asks nothing; the computation runs in a process of its own. From the Python
        console, with a GPU and without small lesions::

            from LiverCascadeLib.cascade import CleanUp, Options
            options = Options(device="gpu", clean_up=CleanUp(min_lesion_mm3=500, min_lesion_voxels=100))
            segmentationNode = slicer.util.getModuleLogic("LiverCascade").process(volumeNode, options)

        Args:
            volumeNode: CT in Hounsfield units.
            options: choices; None takes the defaults.
            models: folder with the models 'locate' and 'refine'; None takes the embedded ones.
            listener: called with (stage, fraction of that stage in 0…1).

        Returns:
            a new segmentation node: one segment for the liver and one for each lesion, with a table node of the
            lesions. Where no liver was found it has no segments.

        Raises:
            MissingPackageError: PyTorch or another package is not there; the panel installs them.
            LiverCascadeError: the volume cannot be used, a model is damaged, or memory ran out.
        """
        from LiverCascadeLib.cascade import Options
        from LiverCascadeLib.errors import MissingPackageError
        from LiverCascadeLib.panel.services import defaultInstaller
        from LiverCascadeLib.progress import Progress
        from LiverCascadeLib.scene import LesionTable, segmentationFromResult, uncertaintyNode, volumeFromNode
        from LiverCascadeLib.worker_client import WorkerClient

        installer = defaultInstaller(TORCH_RANGE)
        missing = installer.missing()
        if missing:
            raise MissingPackageError(installer.explain(missing))
        progress = Progress(listener) if listener else Progress()
        with WorkerClient() as worker:
            result = worker.run(volumeFromNode(volumeNode), options or Options(), models, progress)
        segmentationNode = segmentationFromResult(result, slicer.mrmlScene, volumeNode)
        LesionTable.create(segmentationNode, volumeNode, slicer.mrmlScene, result)
        uncertaintyNode(result, volumeNode, slicer.mrmlScene)
        return segmentationNode


class LiverCascadeTest(ScriptedLoadableModuleTest):
    """Self-test in Slicer, on the embedded example; it needs no network."""

    def setUp(self) -> None:
        """Starts from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Runs all tests; called by 'Reload and Test'."""
        for test in (self.test_logicSegmentsTheExample, self.test_panelSegmentsTheExample):
            self.setUp()
            try:
                test()
            except unittest.SkipTest as reason:
                self.delayDisplay(_("Skipped: {reason}").format(reason=reason))

    def test_logicSegmentsTheExample(self) -> None:
        """The blocking call finds the liver of the embedded example where it is known to be."""
        volumeNode = self._loadExample()
        segmentationNode = LiverCascadeLogic().process(volumeNode)
        self._check(segmentationNode, volumeNode)
        self.delayDisplay(_("The logic passed."))

    def test_panelSegmentsTheExample(self) -> None:
        """One click leads to a segmentation and its table, without a long wait of the user interface."""
        volumeNode = self._loadExample()
        widget = slicer.modules.livercascade.widgetRepresentation().self()
        widget.enter()
        try:
            widget.logic.getParameterNode().inputVolume = volumeNode
            self._processEvents(until=lambda: widget.ui.segmentButton.enabled, seconds=5)
            widget.ui.segmentButton.click()
            self.assertTrue(widget.panel.isBusy)
            self._processEvents(until=lambda: not widget.panel.isBusy, seconds=900)
            segmentationNode = widget.logic.getParameterNode().resultSegmentation
            self.assertIsNotNone(segmentationNode, widget.ui.statusLabel.text)
            self._check(segmentationNode, volumeNode)
            self.assertEqual(widget.ui.lesionTable.rowCount, len(widget.panel.table.rows()))
            self.assertIn("mL", widget.ui.summaryLabel.text)
        finally:
            widget.exit()
        self.delayDisplay(_("The panel passed."))

    def _loadExample(self) -> vtkMRMLScalarVolumeNode:
        from LiverCascadeLib.panel.sample_data import FILE

        missing = LiverCascadeLogic().missingPackages()
        if missing:
            self.skipTest(_("packages are missing: {packages}").format(packages=", ".join(missing)))
        return slicer.util.loadVolume(str(FILE))

    def _check(self, segmentationNode: vtkMRMLSegmentationNode, volumeNode: vtkMRMLScalarVolumeNode) -> None:
        """Dice, alignment and table."""
        from LiverCascadeLib.panel.sample_data import TRUTH_FILE
        from LiverCascadeLib.scene import LesionTable, resultLabelsFromSegmentation, worldGrid

        truthNode = slicer.util.loadLabelVolume(str(TRUTH_FILE))
        truth = slicer.util.arrayFromVolume(truthNode) > 0
        grid = worldGrid(volumeNode)
        found = resultLabelsFromSegmentation(segmentationNode, grid) > 0
        self.assertGreater(2 * (found & truth).sum() / (found.sum() + truth.sum()), 0.85)
        centers = [grid.to_ras(np.argwhere(mask)[:, ::-1].mean(axis=0)) for mask in (found, truth)]
        self.assertLess(float(np.linalg.norm(centers[0] - centers[1])), 10.0)
        table = LesionTable.find(segmentationNode)
        self.assertIsNotNone(table)
        segmentCount = segmentationNode.GetSegmentation().GetNumberOfSegments()
        self.assertEqual(len(table.rows()), segmentCount - 1)
        for row in table.rows():
            self.assertGreater(row.volumeMl, 0)

    def _processEvents(self, until: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not until():
            self.assertLess(time.monotonic(), end, "this took too long")
            slicer.app.processEvents()
            time.sleep(0.005)
