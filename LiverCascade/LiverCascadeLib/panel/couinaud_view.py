"""Couinaud's segments: made, shown, moved by landmarks; their volumes, and the liver that would stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator

import qt
import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..errors import LiverCascadeError
from ..lesions.couinaud import BY_VALUE, SegmentVolumes
from ..lesions.couinaud_planes import LiverDivider
from ..lesions.remnant import Remnant, future_liver_remnant
from ..resources import RESOURCES
from ..scene import (
    CouinaudFollower,
    LesionTable,
    areCouinaudSegmentsShown,
    centerOn,
    couinaudMethod,
    couinaudSegments,
    createLandmarks,
    landmarksFromNode,
    landmarksNode,
    liverOfSegmentation,
    segmentVolumes,
    setCouinaudSegments,
    showCouinaudSegments,
)
from .dialogs import Dialogs
from .stepper import Stepper

# On the segmentation node: names of the segments that stay.
KEPT_ATTRIBUTE = "LiverCascade.KeptSegments"
DELAY_MS = 300
COLUMN_NAME, COLUMN_VOLUME, COLUMN_SHARE, COLUMN_LESIONS = range(4)


class CouinaudView(VTKObservationMixin):
    """Divides the liver of one segmentation and shows what came out.

    Args:
        dialogs: asks the user.
        say: shows one sentence, with a kind.

    Attributes:
        widget: to be put into the panel.
    """

    def __init__(self, dialogs: Dialogs, say: Callable[[str, str], None]) -> None:
        VTKObservationMixin.__init__(self)
        self.widget = slicer.util.loadUI(str(RESOURCES / "UI" / "Couinaud.ui"))
        self._ui = slicer.util.childWidgetVariables(self.widget)
        self._say = say
        self._table: LesionTable | None = None
        self._follower: CouinaudFollower | None = None
        self._volumes = SegmentVolumes({}, {}, {})
        self._kept: set[int] = set()
        self._stepper = Stepper()
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.connect("timeout()", self._refresh)
        ui = self._ui
        ui.makeSegmentsButton.connect("clicked(bool)", self._onMake)
        ui.placeLandmarksButton.connect("clicked(bool)", self._onLandmarks)
        ui.showSegmentsCheckBox.connect("clicked(bool)", self._onShow)
        table = ui.segmentTable
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Stays"), _("mL"), _("% of liver"), _("Lesions mL")])
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setStretchLastSection(True)
        table.connect("cellChanged(int,int)", self._onChecked)
        self._refresh()

    @property
    def isBusy(self) -> bool:
        """True while segments are made."""
        return self._stepper.isActive

    def remnant(self) -> Remnant | None:
        """What would stay of the liver; None where the reader chose no segments, or there are none."""
        if not self._kept or not self._volumes.couinaud_ml:
            return None
        try:
            return future_liver_remnant(self._volumes, self._kept)
        except LiverCascadeError:
            return None

    def setTable(self, table: LesionTable | None) -> None:
        """Shows what belongs to ``table``; segments that are being made for another one are given up."""
        if table is not None and self._table is not None and table.tableNode is self._table.tableNode:
            self._table = table
            return
        self._stepper.stop()
        self._unfollow()
        self.removeObservers()
        self._table = table
        node = self._node()
        self._kept = _keptSegments(node)
        if node is not None:
            for event in (
                slicer.vtkSegmentation.SourceRepresentationModified,
                slicer.vtkSegmentation.SegmentAdded,
                slicer.vtkSegmentation.SegmentRemoved,
            ):
                self.addObserver(node, event, self._onChanged)
            self.addObserver(node, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, self._onDisplay)
            if landmarksNode(node) is not None:
                self._follow()
        self._refresh()

    def sceneClosing(self) -> None:
        """Lets go of all nodes."""
        self.setTable(None)

    def close(self) -> None:
        """The panel goes."""
        self._timer.stop()
        self._stepper.stop()
        self._unfollow()
        self.removeObservers()
        self._table = None

    def _node(self) -> object | None:
        return self._table.segmentationNode if self._table is not None else None

    def _onMake(self, checked: bool = False) -> None:
        if self._node() is not None and not self.isBusy:
            self._stepper.start(self._makeSteps(), self._onMade, self._onFailed)
            self._updateButtons()

    def _makeSteps(self) -> Generator[None, None, None]:
        node = self._node()
        markups = landmarksNode(node)
        landmarks = landmarksFromNode(markups) if markups is not None else {}
        labels, grid = liverOfSegmentation(node)
        yield
        divider = LiverDivider(grid, labels)
        yield
        couinaud = divider.divide(landmarks)
        yield
        setCouinaudSegments(node, couinaud, grid)
        showCouinaudSegments(node, True)

    def _onMade(self, result: object) -> None:
        node = self._node()
        if node is not None and landmarksNode(node) is not None:
            self._follow()
        self._refresh()

    def _onLandmarks(self, checked: bool = False) -> None:
        node = self._node()
        if node is None or self.isBusy:
            return
        self._stepper.start(self._landmarkSteps(), self._onLandmarksThere, self._onFailed)
        self._updateButtons()

    def _landmarkSteps(self) -> Generator[None, None, object]:
        node = self._node()
        labels, grid = liverOfSegmentation(node)
        yield
        estimates = LiverDivider(grid, labels).estimates()
        yield
        markups = createLandmarks(node, estimates, slicer.mrmlScene)
        markups.GetDisplayNode().SetVisibility(True)
        return markups

    def _onLandmarksThere(self, markups: object) -> None:
        self._follow()
        if self._follower is not None and not couinaudSegments(self._node()):
            self._follower.update()
        if markups.GetNumberOfControlPoints():
            centerOn(markups.GetNthControlPointPositionWorld(0), slicer.mrmlScene)
        self._say(_("Drag each point to its place: the segments follow. Points that stay count as estimates."), "info")
        self._refresh()

    def _onShow(self, checked: bool = False) -> None:
        if self._node() is not None:
            showCouinaudSegments(self._node(), bool(self._ui.showSegmentsCheckBox.checked))

    def _onFailed(self, error: Exception) -> None:
        if isinstance(error, LiverCascadeError):
            self._say(str(error), "error")
        else:
            self._say(_("The segments could not be made: {error}").format(error=error), "error")
        self._updateButtons()

    def _follow(self) -> None:
        self._unfollow()
        node = self._node()
        markups = landmarksNode(node) if node is not None else None
        if markups is None:
            return
        try:
            self._follower = CouinaudFollower(node, markups, self._timer.start, self._onRefused)
        except LiverCascadeError as error:
            self._say(str(error), "warning")

    def _unfollow(self) -> None:
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.close()

    def _onRefused(self, text: str) -> None:
        self._say(text, "warning")

    def _onChanged(self, caller: object, event: object) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _onDisplay(self, caller: object = None, event: object = None) -> None:
        node = self._node()
        self._ui.showSegmentsCheckBox.checked = node is not None and areCouinaudSegmentsShown(node)

    def _onChecked(self, row: int, column: int) -> None:
        values = list(self._volumes.couinaud_ml)
        if column != COLUMN_NAME or row >= len(values) or self._node() is None:
            return
        isKept = self._ui.segmentTable.item(row, column).checkState() == qt.Qt.Checked
        (self._kept.add if isKept else self._kept.discard)(values[row])
        names = [BY_VALUE[value].name for value in sorted(self._kept)]
        self._node().SetAttribute(KEPT_ATTRIBUTE, json.dumps(names))
        self._showRemnant()

    def _refresh(self) -> None:
        node = self._node()
        self._volumes = segmentVolumes(self._table) if node is not None else SegmentVolumes({}, {}, {})
        method, limitations = couinaudMethod(node) if node is not None else ("", ())
        hasSegments = bool(self._volumes.couinaud_ml)
        self._ui.methodLabel.text = method if hasSegments else ""
        self._ui.methodLabel.toolTip = "\n".join(limitations)
        self._ui.methodLabel.setVisible(hasSegments and bool(method))
        self._ui.segmentTable.setVisible(hasSegments)
        self._onDisplay()
        self._showVolumes()
        self._showRemnant()
        self._updateButtons()

    def _updateButtons(self) -> None:
        isReady = self._node() is not None and not self.isBusy
        self._ui.makeSegmentsButton.enabled = isReady
        self._ui.placeLandmarksButton.enabled = isReady
        self._ui.showSegmentsCheckBox.enabled = isReady and bool(self._volumes.couinaud_ml)

    def _showVolumes(self) -> None:
        table, volumes = self._ui.segmentTable, self._volumes
        blocked = table.blockSignals(True)
        table.setRowCount(len(volumes.couinaud_ml))
        whole = sum(volumes.couinaud_ml.values())
        for row, (value, ml) in enumerate(volumes.couinaud_ml.items()):
            lesions = volumes.couinaud_lesion_ml.get(value, 0.0)
            texts = {
                COLUMN_NAME: BY_VALUE[value].name,
                COLUMN_VOLUME: f"{ml:.0f}",
                COLUMN_SHARE: f"{100 * ml / whole:.0f}" if whole else "",
                COLUMN_LESIONS: f"{lesions:.1f}" if lesions else "",
            }
            for column, text in texts.items():
                item = table.item(row, column)
                if item is None:
                    item = qt.QTableWidgetItem()
                    table.setItem(row, column, item)
                item.setText(text)
                flags = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled
                if column == COLUMN_NAME:
                    item.setFlags(flags | qt.Qt.ItemIsUserCheckable)
                    item.setCheckState(qt.Qt.Checked if value in self._kept else qt.Qt.Unchecked)
                else:
                    item.setFlags(flags)
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        table.blockSignals(blocked)

    def _showRemnant(self) -> None:
        remnant = self.remnant()
        label = self._ui.remnantLabel
        label.setVisible(bool(self._volumes.couinaud_ml))
        if remnant is not None:
            label.text = f"{remnant.sentence}\n{remnant.note}"
        else:
            label.text = _("Check the segments that would stay to see the future liver remnant.")


def _keptSegments(node: object | None) -> set[int]:
    """What the reader checked, as the segmentation remembers it."""
    try:
        names = json.loads((node.GetAttribute(KEPT_ATTRIBUTE) if node is not None else None) or "[]")
        return {value for value, segment in BY_VALUE.items() if segment.name in names}
    except (TypeError, ValueError):
        return set()
