"""The headless companion's page in Slicer: it says what the companion is and how it is started."""

import os

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)


class LiverCascadeTraining(ScriptedLoadableModule):
    """What the module selector and the help section show."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Liver Cascade Training")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["LiverCascade contributors"]
        self.parent.helpText = _(
            "Trains models for Liver Cascade from label maps, synthetic CT and your own CT. It runs without a window,"
            ' from a terminal. See the <a href="{url}">documentation</a>.'
        ).format(url="https://github.com/LiverCascade/SlicerLiverCascade")
        self.parent.acknowledgementText = _("Built on 3D Slicer, MONAI and PyTorch. License: Apache-2.0.")


class LiverCascadeTrainingWidget(ScriptedLoadableModuleWidget):
    """Explains; a training run takes hours and does not belong into Slicer's process."""

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        explanation = qt.QLabel(
            _(
                "Training runs from a terminal, where it can go on for hours, be stopped, and be continued."
                " The models that it writes are folders with a manifest and weights."
                " These commands show what there is; copy them into a terminal:"
            )
        )
        explanation.wordWrap = True
        self.layout.addWidget(explanation)
        self.commandsText = qt.QPlainTextEdit()
        self.commandsText.readOnly = True
        self.commandsText.setPlainText("\n".join(LiverCascadeTrainingLogic().commands()))
        self.layout.addWidget(self.commandsText)
        self.layout.addStretch(1)


class LiverCascadeTrainingLogic(ScriptedLoadableModuleLogic):
    """Knows the command lines."""

    @staticmethod
    def libraryFolders() -> list[str]:
        """The folders that hold the training library and the engine; one and the same once installed."""
        names = [name for name in ("LiverCascadeTraining", "LiverCascade") if hasattr(slicer.modules, name.lower())]
        return sorted({os.path.dirname(slicer.util.modulePath(name)) for name in names})

    def commands(self) -> list[str]:
        """Command lines for this computer, with Slicer's own Python and with any other."""
        launcher = os.path.join(slicer.app.slicerHome, "bin", "PythonSlicer")
        paths = os.pathsep.join(self.libraryFolders())
        setPath = f'set "PYTHONPATH={paths}"' if os.name == "nt" else f'export PYTHONPATH="{paths}"'
        return [
            _("# With Slicer's own Python:"),
            setPath,
            f'"{launcher}" -m LiverCascadeTrainingLib.cli --help',
            "",
            _("# With a Python of your own, where the project is installed by pip:"),
            "livercascade-train --help",
        ]


class LiverCascadeTrainingTest(ScriptedLoadableModuleTest):
    """Self-test in Slicer."""

    def runTest(self) -> None:
        """Runs all tests; called by 'Reload and Test'."""
        self.test_commandsNameTheLibrary()

    def test_commandsNameTheLibrary(self) -> None:
        """The folders in the shown commands hold the training library, and the commands start it."""
        logic = LiverCascadeTrainingLogic()
        folders = logic.libraryFolders()
        self.assertTrue(any(os.path.isdir(os.path.join(f, "LiverCascadeTrainingLib")) for f in folders))
        self.assertTrue(any("-m LiverCascadeTrainingLib.cli" in line for line in logic.commands()))
