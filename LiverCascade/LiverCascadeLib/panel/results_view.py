"""The result: summary, lesions, reviews, 3D, the Segment Editor, files."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from ..errors import LiverCascadeError
from ..scene import LesionTable, centerOn, exportResult, showResult, surfaceSteps
from .dialogs import Dialogs
from .editor import EditorDoor
from .lesion_table_view import LesionTableView, TableListener
from .segmentation_watch import SegmentationWatch
from .stepper import Stepper

EXPORT_KEY = "LiverCascade/ExportFolder"
SURFACE = "Closed surface"


class ResultsView:
    """Shows one segmentation and does what the user wants with it.

    Args:
        ui: the widgets of the panel.
        dialogs: asks the user.
        editor: leads to the Segment Editor.
        say: shows one sentence, with a kind.
    """

    def __init__(self, ui: object, dialogs: Dialogs, editor: EditorDoor, say: Callable[[str, str], None]) -> None:
        self._ui, self._dialogs, self._editor, self._say = ui, dialogs, editor, say
        self._table: LesionTable | None = None
        self._surfaces = Stepper()
        listener = TableListener(self._onChosen, self._onCommented, self._updateButtons)
        self._rows = LesionTableView(ui.lesionTable, listener)
        self._watch = SegmentationWatch(self._refresh)
        for button, review in (
            (ui.acceptButton, "accepted"),
            (ui.rejectButton, "rejected"),
            (ui.unsureButton, "unsure"),
            (ui.resetReviewButton, "unreviewed"),
        ):
            button.connect("clicked(bool)", lambda checked=False, review=review: self._onReview(review))
        ui.makeLesionButton.connect("clicked(bool)", self._onMakeLesion)
        ui.editButton.connect("clicked(bool)", self._onEdit)
        ui.show3DButton.connect("clicked(bool)", self._onShow3D)
        ui.exportButton.connect("clicked(bool)", self._onExport)
        self._refresh()

    @property
    def table(self) -> LesionTable | None:
        """The table that is shown."""
        return self._table

    def setSegmentation(self, segmentationNode: object, table: LesionTable | None = None) -> None:
        """Shows ``segmentationNode``, or nothing.

        Args:
            table: its table, where the caller holds it; otherwise it is looked for in the scene.
        """
        shown = self._table.segmentationNode if self._table is not None else None
        if table is None and segmentationNode is not None and shown is segmentationNode:
            return
        self._surfaces.stop()
        if table is None and segmentationNode is not None:
            table = LesionTable.find(segmentationNode)
        self._table = table
        self._watch.setTable(table)
        if table is not None and segmentationNode is not None:
            self._watch.update()  # edits that were made while nobody watched; refreshes
        else:
            self._refresh()
        if segmentationNode is not None and table is None:
            self._ui.summaryLabel.text = _("This segmentation was not made by Liver Cascade.")

    def goToLargest(self) -> None:
        """Centers the views on the largest lesion."""
        rows = [row for row in self._table.rows() if row.isCounted] if self._table is not None else []
        if rows:
            largest = max(rows, key=lambda row: row.volumeMl)
            self._rows.select(largest.segmentId)
            centerOn(largest.centroidRas, slicer.mrmlScene)

    def show3D(self) -> None:
        """Makes the surfaces piece by piece, lesions first, and shows them."""
        if self._table is None or self._table.segmentationNode is None:
            return
        self._ui.show3DButton.checked = True
        lesions = [row.segmentId for row in self._table.rows() if row.isCounted]
        steps = surfaceSteps(self._table.segmentationNode, lesions)
        self._surfaces.start(steps, self._onSurfaces, self._onSurfacesFailed)

    def sceneClosing(self) -> None:
        """Lets go of all nodes."""
        self.setSegmentation(None)

    def close(self) -> None:
        """The panel goes."""
        self._surfaces.stop()
        self._watch.close()
        self._editor.close()
        self._table = None

    def _refresh(self) -> None:
        table = self._table
        alive = table is not None and table.segmentationNode is not None
        self._rows.show(table.rows() if alive else [])
        self._ui.summaryLabel.text = table.summary() if alive else ""
        foreign = table.foreignSegments() if alive else []
        self._ui.makeLesionButton.setVisible(bool(foreign))
        if len(foreign) == 1:
            name = table.segmentationNode.GetSegmentation().GetSegment(foreign[0]).GetName()
            self._ui.makeLesionButton.text = _("'{name}' is a lesion").format(name=name)
        elif foreign:
            self._ui.makeLesionButton.text = _("The {count} new segments are lesions").format(count=len(foreign))
        if alive:
            display = table.segmentationNode.GetDisplayNode()
            has = table.segmentationNode.GetSegmentation().ContainsRepresentation(SURFACE)
            self._ui.show3DButton.checked = self._surfaces.isActive or bool(
                has and display is not None and display.GetVisibility() and display.GetVisibility3D()
            )
        self._updateButtons()

    def _updateButtons(self) -> None:
        alive = self._table is not None and self._table.segmentationNode is not None
        selected = bool(alive and self._rows.selectedIds())
        ui = self._ui
        for button in (ui.acceptButton, ui.rejectButton, ui.unsureButton, ui.resetReviewButton):
            button.enabled = selected
        for button in (ui.editButton, ui.show3DButton, ui.exportButton):
            button.enabled = alive

    def _onChosen(self, segmentId: str) -> None:
        for row in self._table.rows():
            if row.segmentId == segmentId:
                centerOn(row.centroidRas, slicer.mrmlScene)
                self._editor.selectSegment(self._table.segmentationNode, segmentId)

    def _onCommented(self, segmentId: str, text: str) -> None:
        self._table.setComment(segmentId, text)
        self._refresh()

    def _onReview(self, review: str) -> None:
        for segmentId in self._rows.selectedIds():
            self._table.setReview(segmentId, review)
        self._refresh()

    def _onMakeLesion(self) -> None:
        for segmentId in self._table.foreignSegments():
            self._table.makeLesion(segmentId)
        self._refresh()

    def _onEdit(self) -> None:
        selected = self._rows.selectedIds()
        try:
            self._editor.open(self._table.segmentationNode, self._table.volumeNode, selected[0] if selected else "")
        except RuntimeError as error:  # no main window, or a Slicer without this module
            self._say(_("The Segment Editor cannot be opened: {error}").format(error=error), "error")

    def _onShow3D(self, checked: bool = False) -> None:
        if self._ui.show3DButton.checked:
            self.show3D()
        else:
            self._surfaces.stop()
            self._table.segmentationNode.GetDisplayNode().SetVisibility3D(False)

    def _onSurfaces(self, _result: None) -> None:
        showResult(self._table.segmentationNode, slicer.mrmlScene)
        layoutManager = slicer.app.layoutManager()
        if layoutManager is not None and layoutManager.threeDViewCount > 0:
            view = layoutManager.threeDWidget(0).threeDView()
            view.resetFocalPoint()
        self._refresh()

    def _onSurfacesFailed(self, error: Exception) -> None:
        self._ui.show3DButton.checked = False
        self._say(_("The 3D view could not be made: {error}").format(error=error), "warning")

    def _onExport(self) -> None:
        folder = self._dialogs.chooseFolder(_("Folder for the result's files"), EXPORT_KEY)
        if folder is None:
            return
        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            exportResult(self._table, folder)
        except LiverCascadeError as error:
            self._say(str(error), "error")
        except OSError as error:
            self._say(_("{folder} cannot be written: {error}").format(folder=folder, error=error), "error")
        else:
            self._say(_("Segmentation, label map and table were written to {folder}.").format(folder=folder), "info")
        finally:
            qt.QApplication.restoreOverrideCursor()
