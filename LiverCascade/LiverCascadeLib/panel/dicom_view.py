"""DICOM objects: written about a result, added to Slicer's database, and read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from ..dicom.instances import MissingIdentifiers
from ..errors import LiverCascadeError, MissingPackageError
from ..findings import Severity
from ..resources import RESOURCES
from ..scene import LesionTable, exportDicomSteps, importDicomSegmentation
from .dialogs import Dialogs
from .stepper import Stepper

if TYPE_CHECKING:
    from ..dicom.export import Exported

EXPORT_KEY, IMPORT_KEY = "LiverCascade/DicomFolder", "LiverCascade/DicomFile"


class DicomView:
    """Two buttons: one writes segmentation and measurements as DICOM, one reads a DICOM segmentation.

    Args:
        dialogs: asks the user.
        say: shows one sentence, with a kind.

    Attributes:
        widget: to be put into the panel.
        ensurePackages: called before anything is written; raises MissingPackageError where a package is missing.
        imported: called with the table of a segmentation that was read.
    """

    def __init__(self, dialogs: Dialogs, say: Callable[[str, str], None]) -> None:
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "Dicom.ui"))
        self.ensurePackages: Callable[[], None] = lambda: None
        self.imported: Callable[[LesionTable], None] = lambda table: None
        self._ui = slicer.util.childWidgetVariables(self.widget)
        self._dialogs, self._say = dialogs, say
        self._table: LesionTable | None = None
        self._volumeNode: object = None
        self._stepper = Stepper()
        self._ui.exportDicomButton.connect("clicked(bool)", self._onExport)
        self._ui.importDicomButton.connect("clicked(bool)", self._onImport)
        self._updateButtons()

    @property
    def isBusy(self) -> bool:
        """True while objects are written."""
        return self._stepper.isActive

    def setTable(self, table: LesionTable | None) -> None:
        """The result that is written; objects that are being written about another one are given up."""
        same = table is not None and self._table is not None and table.tableNode is self._table.tableNode
        if not same:
            self._stepper.stop()
        self._table = table
        self._updateButtons()

    def setVolumeNode(self, volumeNode: object) -> None:
        """The CT that a segmentation is read onto where no result is shown."""
        self._volumeNode = volumeNode
        self._updateButtons()

    def sceneClosing(self) -> None:
        """Lets go of all nodes."""
        self.setTable(None)
        self.setVolumeNode(None)

    def close(self) -> None:
        """The panel goes."""
        self._stepper.stop()
        self._table = self._volumeNode = None

    def _ct(self) -> object:
        return (self._table.volumeNode if self._table is not None else None) or self._volumeNode

    def _updateButtons(self) -> None:
        self._ui.exportDicomButton.enabled = self._table is not None and not self.isBusy
        self._ui.importDicomButton.enabled = self._ct() is not None and not self.isBusy

    def _onExport(self) -> None:
        try:
            self.ensurePackages()
        except MissingPackageError as error:
            self._say(str(error), "error")
            return
        folder = self._dialogs.chooseFolder(_("Folder for the DICOM objects"), EXPORT_KEY)
        if folder is not None:
            self._start(folder, False)

    def _start(self, folder: Path, generateUids: bool) -> None:
        self._say(_("Writing DICOM objects…"), "info")
        steps = exportDicomSteps(self._table, folder, generateUids)
        self._stepper.start(steps, self._onWritten, lambda error: self._onFailed(error, folder))
        self._updateButtons()

    def _onWritten(self, exported: Exported) -> None:
        self._updateButtons()
        folder = exported.files[0].parent
        warnings = [finding.message for finding in exported.findings if finding.severity != Severity.INFO]
        text = _("DICOM segmentation and measurements were written to {folder}.").format(folder=folder)
        self._say(" ".join([text, *warnings]), "warning" if warnings else "info")
        database = getattr(slicer, "dicomDatabase", None)
        if database is None or not database.isOpen:
            return
        if self._dialogs.ask(_("Add the objects to Slicer's DICOM database, beside the CT?")):
            for file in exported.files:
                database.insert(str(file))

    def _onFailed(self, error: Exception, folder: Path) -> None:
        self._updateButtons()
        question = _("{error}\n\nGenerate identifiers?").format(error=error)
        if isinstance(error, MissingIdentifiers) and self._dialogs.ask(question):
            self._start(folder, True)
        elif isinstance(error, LiverCascadeError):
            self._say(str(error), "error")
        else:
            self._say(_("The DICOM objects could not be written: {error}").format(error=error), "error")

    def _onImport(self) -> None:
        file = self._dialogs.chooseFile(_("DICOM segmentation"), IMPORT_KEY)
        if file is None:
            return
        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            table, read = importDicomSegmentation(file, self._ct())
        except LiverCascadeError as error:
            self._say(str(error), "error")
            return
        finally:
            qt.QApplication.restoreOverrideCursor()
        name = table.segmentationNode.GetName()
        remarks = [finding.message for finding in read.findings]
        text = _("The segmentation was read as '{name}'.").format(name=name)
        self._say(" ".join([text, *remarks]), "warning" if remarks else "info")
        self.imported(table)
