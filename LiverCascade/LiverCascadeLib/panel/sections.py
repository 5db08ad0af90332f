"""The folded sections below the findings: liver segments, report, DICOM, follow-up."""

from __future__ import annotations

from collections.abc import Callable

from ..scene import LesionTable
from .couinaud_view import CouinaudView
from .dialogs import Dialogs
from .dicom_view import DicomView
from .followup_view import FollowUpView
from .report_view import ReportView


class Sections:
    """Puts each view into its section, and tells all of them which result is shown.

    Args:
        ui: the widgets of the panel.
        dialogs: asks the user.
        say: shows one sentence, with a kind.
        ensurePackages: offers to install what a section needs; raises MissingPackageError where that is declined.
        show: shows the result of a table that a section brought into the scene.
    """

    def __init__(
        self,
        ui: object,
        dialogs: Dialogs,
        say: Callable[[str, str], None],
        ensurePackages: Callable[[], None],
        show: Callable[[LesionTable], None],
    ) -> None:
        couinaud, report, followUp = CouinaudView(dialogs, say), ReportView(dialogs, say), FollowUpView(dialogs, say)
        self._dicom = DicomView(dialogs, say)
        self._views = (couinaud, report, self._dicom, followUp)
        # A DICOM segmentation can be read where there is no result yet.
        self._needResult = (ui.couinaudCollapsibleButton, ui.reportCollapsibleButton, ui.followUpCollapsibleButton)
        homes = (
            ui.couinaudCollapsibleButton,
            ui.reportCollapsibleButton,
            ui.dicomCollapsibleButton,
            ui.followUpCollapsibleButton,
        )
        for view, home in zip(self._views, homes, strict=True):
            home.layout().addWidget(view.widget)
        report.remnant = couinaud.remnant
        report.followUp = followUp.section
        report.ensurePackages = self._dicom.ensurePackages = ensurePackages
        self._dicom.imported = show
        self.setTable(None)

    @property
    def isBusy(self) -> bool:
        """True while one of them works."""
        return any(view.isBusy for view in self._views)

    def setTable(self, table: LesionTable | None) -> None:
        """Shows what belongs to ``table``; where there is no result, what needs one is hidden."""
        for button in self._needResult:
            button.setVisible(table is not None)
        for view in self._views:
            view.setTable(table)

    def setVolumeNode(self, volumeNode: object) -> None:
        """The CT that a DICOM segmentation is read onto where no result is shown."""
        self._dicom.setVolumeNode(volumeNode)

    def sceneClosing(self) -> None:
        """Lets go of all nodes."""
        for view in self._views:
            view.sceneClosing()

    def close(self) -> None:
        """The panel goes."""
        for view in self._views:
            view.close()
