"""Notices edits of a segmentation, wherever they are made, and has its lesions measured again."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from ..scene import LesionTable

# A stroke of the brush makes many events. Measured this long after the first of them, not after the last: whoever
# paints on and on still sees the figures follow.
DELAY_MS = 300


class SegmentationWatch(VTKObservationMixin):
    """Keeps a lesion table in step with its segmentation.

    Args:
        changed: called when rows or summary may be new.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        VTKObservationMixin.__init__(self)
        self._changed = changed
        self._table: LesionTable | None = None
        self._updating = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.connect("timeout()", self.update)

    def setTable(self, table: LesionTable | None) -> None:
        """Watches the segmentation of ``table`` from now on; None watches nothing."""
        self.removeObservers()
        self._timer.stop()
        self._table = table
        if table is None or table.segmentationNode is None:
            return
        for event in (
            slicer.vtkSegmentation.SourceRepresentationModified,
            slicer.vtkSegmentation.RepresentationModified,
            slicer.vtkSegmentation.SegmentAdded,
            slicer.vtkSegmentation.SegmentRemoved,
            slicer.vtkSegmentation.SegmentModified,
            slicer.vtkSegmentation.SegmentsOrderModified,
            slicer.vtkMRMLSegmentationNode.SegmentationChangedEvent,
            slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
        ):
            self.addObserver(table.segmentationNode, event, self._onEdited)
        self.addObserver(table.tableNode, vtk.vtkCommand.ModifiedEvent, self._onEdited)

    def update(self) -> None:
        """Measures now."""
        self._timer.stop()
        if self._table is None or self._table.segmentationNode is None:
            return
        self._updating = True
        try:
            self._table.update()
        finally:
            self._updating = False
        self._changed()

    def close(self) -> None:
        """Stops watching."""
        self.setTable(None)

    def _onEdited(self, caller: object, event: object) -> None:
        # update() itself writes: islands get their terminology there, and the table node its rows.
        if not self._updating and not self._timer.isActive():
            self._timer.start()
