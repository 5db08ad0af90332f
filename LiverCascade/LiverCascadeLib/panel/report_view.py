"""The report: what the reader writes, who was examined, a preview, the files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..errors import LiverCascadeError, MissingPackageError
from ..jobs import PREFIX
from ..lesions.remnant import Remnant
from ..report.document import ReaderText
from ..report.identity import StudyIdentity
from ..report.writing import HTML_FILE, ReportRequest, WrittenReport, report_steps
from ..resources import RESOURCES
from ..scene import (
    LesionTable,
    ReportNotes,
    assessmentSteps,
    identityOfVolumeNode,
    readReportNotes,
    writeReportNotes,
)
from .dialogs import Dialogs
from .stepper import Stepper

REPORT_KEY = "LiverCascade/ReportFolder"


class ReportView:
    """Lets the reader write and makes the report.

    Args:
        dialogs: asks the user.
        say: shows one sentence, with a kind.

    Attributes:
        widget: to be put into the panel.
        ensurePackages: called before a report is made; raises MissingPackageError where one is missing.
        remnant: gives the future liver remnant of the segments that the reader chose, or None.
        followUp: gives the section that compares with earlier studies, or None.
    """

    def __init__(self, dialogs: Dialogs, say: Callable[[str, str], None]) -> None:
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "Report.ui"))
        self.ensurePackages: Callable[[], None] = lambda: None
        self.remnant: Callable[[], Remnant | None] = lambda: None
        self.followUp: Callable[[], Mapping[str, Any] | None] = lambda: None
        self._ui = slicer.util.childWidgetVariables(self.widget)
        self._dialogs, self._say = dialogs, say
        self._table: LesionTable | None = None
        self._notes = ReportNotes()
        self._known = StudyIdentity()
        self._stepper = Stepper()
        self._previewFolder: Path | None = None
        ui = self._ui
        self._texts = {
            "clinical_information": ui.clinicalEdit,
            "findings": ui.findingsEdit,
            "impression": ui.impressionEdit,
        }
        self._identity = {
            "patient_name": ui.patientNameEdit,
            "patient_id": ui.patientIdEdit,
            "birth_date": ui.birthDateEdit,
            "patient_sex": ui.sexEdit,
            "study_date": ui.studyDateEdit,
            "accession_number": ui.accessionEdit,
            "study_description": ui.studyEdit,
            "institution": ui.institutionEdit,
        }
        for name, edit in self._texts.items():
            edit.connect("textChanged()", lambda name=name: self._onText(name))
        for name, edit in self._identity.items():
            edit.connect("textEdited(QString)", lambda text, name=name: self._onIdentity(name, text))
        ui.previewButton.connect("clicked(bool)", self._onPreview)
        ui.saveButton.connect("clicked(bool)", self._onSave)
        self._refresh()

    @property
    def isBusy(self) -> bool:
        """True while a report is made."""
        return self._stepper.isActive

    def setTable(self, table: LesionTable | None) -> None:
        """Shows what belongs to ``table``; a report that is being made for another one is given up."""
        if table is not None and self._table is not None and table.tableNode is self._table.tableNode:
            self._table = table
            return
        self._stepper.stop()
        self._table = table
        self._notes = readReportNotes(table.tableNode) if table is not None else ReportNotes()
        self._known = self._identityOfTable()
        self._refresh()

    def sceneClosing(self) -> None:
        """Lets go of all nodes."""
        self.setTable(None)

    def close(self) -> None:
        """The panel goes, and with it the preview's files."""
        self._stepper.stop()
        self._table = None
        self._removePreview()

    def _identityOfTable(self) -> StudyIdentity:
        volumeNode = self._table.volumeNode if self._table is not None else None
        if volumeNode is None:
            return StudyIdentity()
        try:
            return identityOfVolumeNode(volumeNode) or StudyIdentity()
        except LiverCascadeError as error:  # a file of the database is gone: the reader can still type
            self._say(str(error), "warning")
            return StudyIdentity()

    def _refresh(self) -> None:
        for name, edit in self._texts.items():
            text = getattr(self._notes.text, name) or ""
            if edit.toPlainText() != text:
                blocked = edit.blockSignals(True)
                edit.setPlainText(text)
                edit.blockSignals(blocked)
        for name, edit in self._identity.items():
            edit.setText(self._notes.identity.get(name, getattr(self._known, name)))
        self._updateButtons()

    def _updateButtons(self) -> None:
        isReady = self._table is not None and not self.isBusy
        self._ui.previewButton.enabled = isReady
        self._ui.saveButton.enabled = isReady
        for edit in (*self._texts.values(), *self._identity.values()):
            edit.enabled = self._table is not None

    def _onText(self, name: str) -> None:
        if self._table is None:
            return
        self._notes.text = replace(self._notes.text, **{name: self._texts[name].toPlainText()})
        writeReportNotes(self._table.tableNode, self._notes)

    def _onIdentity(self, name: str, text: str) -> None:
        if self._table is None:
            return
        self._notes.identity[name] = text
        writeReportNotes(self._table.tableNode, self._notes)

    def _request(self) -> ReportRequest:
        return ReportRequest(
            date=datetime.now(),
            identity=replace(self._known, **{n: v for n, v in self._notes.identity.items() if n in self._identity}),
            text=self._notes.text,
            remnant=self.remnant(),
            followup=self.followUp(),
            keep_identity=False,
        )

    def _onPreview(self) -> None:
        self._removePreview()
        try:
            # Private to the user, and swept away with the folders of runs should Slicer crash.
            self._previewFolder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}report-"))
        except OSError as error:
            self._say(_("No temporary folder could be made: {error}").format(error=error), "error")
            return
        self._make(self._previewFolder, self._onPreviewMade)

    def _onSave(self) -> None:
        folder = self._dialogs.chooseFolder(_("Folder for the report's files"), REPORT_KEY)
        if folder is not None:
            self._make(folder, self._onSaved)

    def _make(self, folder: Path, done: Callable[[WrittenReport], None]) -> None:
        try:
            self.ensurePackages()
            request = self._request()
        except LiverCascadeError as error:
            self._say(str(error), "error")
            return
        self._say(_("The report is being made."), "info")
        self._stepper.start(self._steps(folder, request), done, self._onFailed)
        self._updateButtons()

    def _steps(self, folder: Path, request: ReportRequest) -> Generator[None, None, WrittenReport]:
        yield
        assessment = yield from assessmentSteps(self._table)
        yield
        return (yield from report_steps(assessment, folder, request))

    def _onPreviewMade(self, written: WrittenReport) -> None:
        self._updateButtons()
        page = written.folder / HTML_FILE
        if qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(page))):
            self._say(_("The report was opened in the web browser. It is a preview: save it to keep it."), "info")
        else:
            text = _("No web browser could be opened. Until Slicer quits, the preview lies at {page}.")
            self._say(text.format(page=page), "warning")

    def _onSaved(self, written: WrittenReport) -> None:
        # What was kept of an earlier report in this folder is shown, and belongs to the scene from now on.
        if self._notes.text != written.text:
            self._notes.text = ReaderText(**vars(written.text))
            writeReportNotes(self._table.tableNode, self._notes)
        self._refresh()
        self._say(_("The report was written to {folder}.").format(folder=written.folder), "info")

    def _onFailed(self, error: Exception) -> None:
        self._updateButtons()
        if isinstance(error, ImportError):
            text = _(
                "The package '{name}', which reports need, is not installed. It comes with the first segmentation."
            )
            error = MissingPackageError(text.format(name=error.name))
        if isinstance(error, LiverCascadeError):
            self._say(str(error), "error")
        else:
            self._say(_("The report could not be made: {error}").format(error=error), "error")

    def _removePreview(self) -> None:
        if self._previewFolder is not None:
            shutil.rmtree(self._previewFolder, ignore_errors=True)
            self._previewFolder = None
