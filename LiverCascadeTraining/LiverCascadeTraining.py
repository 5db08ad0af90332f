"""The training companion's module: wiring between Slicer and the panel that drives ``livercascade-train``."""

import os
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    from LiverCascadeLib.panel.installer import Installer


class LiverCascadeTraining(ScriptedLoadableModule):
    """What the module selector and the help section show."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Liver Cascade Training")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["LiverCascade"]
        self.parent.contributors = ["LiverCascade contributors"]
        self.parent.helpText = _(
            "Trains models for Liver Cascade on a data set of yours: check, split, prepare, train, evaluate, use."
            " Everything runs in a process of its own, can be stopped, and goes on where it was. From a terminal the"
            ' same is done by livercascade-train. See the <a href="{url}">documentation</a>.'
            "<p>For research use only; not a medical device."
        ).format(url="https://github.com/LiverCascade/SlicerLiverCascade")
        self.parent.acknowledgementText = _("Built on 3D Slicer, MONAI and PyTorch. License: Apache-2.0.")


class LiverCascadeTrainingWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel in Slicer's module area.

    Args:
        parent: given by Slicer.
        installer: knows which packages are missing; None takes the real one.
    """

    def __init__(self, parent=None, installer: "Installer | None" = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._installer = installer

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        from LiverCascadeLib.panel.dialogs import Dialogs
        from LiverCascadeTrainingPanel.installer import defaultInstaller
        from LiverCascadeTrainingPanel.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/LiverCascadeTraining.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = LiverCascadeTrainingLogic()
        self.panel = Panel(self.ui, self._installer or defaultInstaller(), Dialogs())
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        # Not left to cleanup(): a training must not outlive an application that ends without destroying its widgets.
        slicer.app.connect("aboutToQuit()", self.panel.close)

    def cleanup(self) -> None:
        """Called when the application closes and the widget is destroyed, and before the module is loaded anew."""
        self.removeObservers()
        if self.panel is not None:
            slicer.app.disconnect("aboutToQuit()", self.panel.close)
            self.panel.close()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self.panel.enter()

    def onSceneStartClose(self, caller, event) -> None:
        """Called just before the scene is closed."""
        self.panel.sceneClosing()


class LiverCascadeTrainingLogic(ScriptedLoadableModuleLogic):
    """Knows the command lines."""

    @staticmethod
    def libraryFolders() -> list[str]:
        """The folders that hold the training library and the engine; one and the same once installed."""
        names = [name for name in ("LiverCascadeTraining", "LiverCascade") if hasattr(slicer.modules, name.lower())]
        return sorted({os.path.dirname(slicer.util.modulePath(name)) for name in names})

    def missingPackages(self) -> list[str]:
        """Requirements of training that are not installed, or not at a version that is known to work."""
        from LiverCascadeTrainingPanel.installer import defaultInstaller

        return defaultInstaller().missing()

    def command(self, *arguments: str) -> tuple[str, list[str], dict[str, str]]:
        """Program, arguments and additions to the environment that do what ``livercascade-train`` does.

        Args:
            arguments: of ``livercascade-train``, such as ``"check", folder``.
        """
        from LiverCascadeTrainingPanel.workplace import TRAIN, python_command

        return python_command(TRAIN, arguments)


class LiverCascadeTrainingTest(ScriptedLoadableModuleTest):
    """Self-test in Slicer; it trains nothing and needs no network."""

    def setUp(self) -> None:
        """Starts from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Runs all tests; called by 'Reload and Test'."""
        self.setUp()
        self.test_commandsStartTheLibrary()
        self.setUp()
        self.test_panelOffersNothingWithoutData()

    def test_commandsStartTheLibrary(self) -> None:
        """The folders on the command's path hold the training library."""
        program, arguments, environment = LiverCascadeTrainingLogic().command("--help")
        folders = environment["PYTHONPATH"].split(os.pathsep)
        self.assertTrue(program)
        self.assertEqual(arguments, ["-m", "LiverCascadeTrainingLib.cli", "--help"])
        self.assertTrue(any(os.path.isdir(os.path.join(f, "LiverCascadeTrainingLib")) for f in folders))
        self.assertTrue(any(os.path.isdir(os.path.join(f, "LiverCascadeLib")) for f in folders))

    def test_panelOffersNothingWithoutData(self) -> None:
        """A panel without folders has nothing to start, and knows the configurations of the extension."""
        widget = slicer.modules.livercascadetraining.widgetRepresentation().self()
        data, work = widget.ui.dataEdit.text, widget.ui.workEdit.text
        try:
            widget.ui.dataEdit.text = widget.ui.workEdit.text = ""
            widget.enter()
            for name in ("check", "split", "prepare", "locate", "refine", "evaluate", "use"):
                self.assertFalse(getattr(widget.ui, f"{name}Button").enabled, name)
            self.assertGreaterEqual(widget.ui.configurationSelector.findText("small"), 0)
        finally:
            widget.ui.dataEdit.text, widget.ui.workEdit.text = data, work
            widget.enter()
