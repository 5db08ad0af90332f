"""The Segment Editor: opened with the right nodes, and a way back from it."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

MODULE = "SegmentEditor"
HOME = "LiverCascade"
SEGMENT_EDITOR_TAG = "SegmentEditor"


class EditorDoor:
    """Leads to the Segment Editor and back."""

    def __init__(self) -> None:
        self._backButton = None

    def open(self, segmentationNode: object, volumeNode: object, segmentId: str = "") -> None:
        """Opens the Segment Editor on ``segmentationNode``, with ``segmentId`` selected."""
        slicer.util.selectModule(MODULE)
        widget = slicer.util.getModuleWidget(MODULE)
        editor = widget.editor
        editor.setSegmentationNode(segmentationNode)
        if volumeNode is not None:
            editor.setSourceVolumeNode(volumeNode)
        if segmentId:
            editor.setCurrentSegmentID(segmentId)
        self._showBackButton(widget)

    def selectSegment(self, segmentationNode: object, segmentId: str) -> None:
        """Selects a segment for the editor without opening it, if it works on this segmentation."""
        node = slicer.mrmlScene.GetSingletonNode(SEGMENT_EDITOR_TAG, "vtkMRMLSegmentEditorNode")
        if node is not None and node.GetSegmentationNode() is segmentationNode:
            node.SetSelectedSegmentID(segmentId)

    def hideBackButton(self) -> None:
        """Whoever comes to the editor by another way next time is not offered the way back."""
        if self._backButton is not None:
            self._backButton.setVisible(False)

    def close(self) -> None:
        """Takes the button out of the Segment Editor."""
        button, self._backButton = self._backButton, None
        if button is not None:
            button.setParent(None)
            button.deleteLater()

    def _showBackButton(self, widget: object) -> None:
        if self._backButton is None:
            self._backButton = qt.QPushButton(_("Back to Liver Cascade"))
            self._backButton.toolTip = _("Returns to the table of lesions, which has followed your edits.")
            self._backButton.connect("clicked(bool)", self._onBack)
            widget.layout.insertWidget(0, self._backButton)
        self._backButton.setVisible(True)

    def _onBack(self) -> None:
        self.hideBackButton()
        slicer.util.selectModule(HOME)
