"""Comparison of segmentations in a scene: studies, nodes with the result, colors, two views that move together."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np
import slicer
from vtkmodules.util.numpy_support import numpy_to_vtk
from vtkmodules.vtkCommonCore import vtkCommand, vtkDoubleArray, vtkStringArray
from vtkmodules.vtkCommonDataModel import vtkImageData

from ..followup.comparison import Change, FollowUp, Track
from ..followup.deformation import Deformation
from ..followup.study import Study, study_of
from ..followup.tables import CSV_COLUMNS, csv_rows
from .assessment import assessmentSteps
from .dicom import identityOfVolumeNode
from .lesion_table import LesionTable
from .volumes import matrixFromArray

# On the table node: which segmentations were compared, in the order of time.
STUDY_ROLE = "LiverCascade.Study"
CHANGE_COLORS: Mapping[Change, tuple[float, float, float]] = {
    Change.STABLE: (0.90, 0.80, 0.25),
    Change.CUT: (0.90, 0.80, 0.25),
    Change.GROWN: (0.85, 0.10, 0.10),
    Change.NEW: (0.95, 0.35, 0.75),
    Change.SHRUNK: (0.20, 0.65, 0.35),
    Change.RESOLVED: (0.25, 0.75, 0.90),
    Change.MERGED: (0.95, 0.55, 0.15),
    Change.SPLIT: (0.95, 0.55, 0.15),
    Change.REGROUPED: (0.95, 0.55, 0.15),
    Change.NOT_COVERED: (0.65, 0.65, 0.65),
}
EARLIER_VIEW, LATER_VIEW = "Red", "Yellow"


def lesionTables(scene: slicer.vtkMRMLScene) -> list[LesionTable]:
    """The tables of all segmentations that have lesions measured, and their CT in the scene."""
    nodes = scene.GetNodesByClass("vtkMRMLTableNode")
    nodes.UnRegister(None)
    found = []
    for index in range(nodes.GetNumberOfItems()):
        table = LesionTable.of(nodes.GetItemAsObject(index))
        if table is not None and table.segmentationNode is not None and table.volumeNode is not None:
            found.append(table)
    return found


def studySteps(table: LesionTable) -> Generator[None, None, Study]:
    """The time point of a table, in steps; identity and date come from the DICOM database where it has them.

    Raises:
        InputError: the segmentation or the CT is gone, or one stands under a non-linear transform.
    """
    yield
    assessment = yield from assessmentSteps(table)
    yield
    identity = identityOfVolumeNode(table.volumeNode)
    yield
    return study_of(assessment, identity, table.caseName())


def segmentOfLesion(table: LesionTable, label: int) -> str:
    """Id of the segment that has ``label`` in the assessment of the table; empty where it is gone."""
    ids = table.countedIds()
    return ids[label - 2] if 0 <= label - 2 < len(ids) else ""


def transformNodeFromDeformation(
    deformation: Deformation, scene: slicer.vtkMRMLScene, name: str
) -> slicer.vtkMRMLGridTransformNode:
    """Adds a transform node that takes the earlier study to the later one: put the earlier volume under it."""
    grid = deformation.grid
    image = vtkImageData()
    image.SetDimensions(*grid.size)
    image.SetSpacing(*grid.spacing.tolist())
    image.SetOrigin(*grid.ijk_to_ras[:3, 3].tolist())
    values = np.ascontiguousarray(deformation.displacement.reshape(-1, 3), dtype=np.float64)
    image.GetPointData().SetScalars(numpy_to_vtk(values, deep=True))
    direction = np.eye(4)
    direction[:3, :3] = grid.ijk_to_ras[:3, :3] / grid.spacing
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(image)
    transform.SetGridDirectionMatrix(matrixFromArray(direction))
    transform.SetInterpolationModeToLinear()
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", name)
    node.SetAndObserveTransformToParent(transform)
    return node


def followUpTableNode(
    followup: FollowUp,
    tables: Sequence[LesionTable],
    scene: slicer.vtkMRMLScene,
    node: slicer.vtkMRMLTableNode | None = None,
) -> slicer.vtkMRMLTableNode:
    """A table node with one row per site and study, as in followup.csv.

    Args:
        followup: the comparison.
        tables: of its studies, in the order of time.
        scene: gets the node.
        node: an earlier one, which is filled anew; None adds one.
    """
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLTableNode", f"{tables[-1].segmentationNode.GetName()} follow-up")
    wasModifying = node.StartModify()
    try:
        node.RemoveAllColumns()
        node.RemoveNodeReferenceIDs(STUDY_ROLE)
        for table in tables:
            node.AddNodeReferenceID(STUDY_ROLE, table.segmentationNode.GetID())
        rows = csv_rows(followup)
        for number, name in enumerate(CSV_COLUMNS):
            isNumber = name.endswith(("_mm", "_ml", "_percent")) or name == "site"
            array = vtkDoubleArray() if isNumber else vtkStringArray()
            array.SetName(name)
            for row in rows:
                cell = row[number]
                array.InsertNextValue((float(cell) if cell else float("nan")) if isNumber else cell)
            node.AddColumn(array)
    finally:
        node.EndModify(wasModifying)
    return node


def colorByChange(followup: FollowUp, tables: Sequence[LesionTable]) -> None:
    """Shows the lesions of the last two studies in the color of what became of them; segments keep their own color."""
    last = len(tables) - 1
    for track in followup.tracks:
        change = track.changes[last]
        if change is None:
            continue
        for study in (last - 1, last):
            _color(tables[study], [lesion.label for lesion in track.lesions[study]], CHANGE_COLORS[change])


def ownColors(tables: Sequence[LesionTable]) -> None:
    """Takes the colors of :func:`colorByChange` away."""
    for table in tables:
        display = table.segmentationNode.GetDisplayNode() if table.segmentationNode is not None else None
        if display is None:
            continue
        for segmentId in table.countedIds():
            display.UnsetSegmentOverrideColor(segmentId)


def _color(table: LesionTable, labels: Sequence[int], color: tuple[float, float, float]) -> None:
    display = table.segmentationNode.GetDisplayNode() if table.segmentationNode is not None else None
    for label in labels:
        segmentId = segmentOfLesion(table, label)
        if display is not None and segmentId:
            display.SetSegmentOverrideColor(segmentId, *color)


def placesOf(followup: FollowUp, track: Track) -> tuple[np.ndarray, np.ndarray]:
    """Where a track is in the last two studies, RAS mm; where it is not there, the place that corresponds to it."""
    last = len(followup.studies) - 1
    step = followup.steps[-1].registration.deformation
    before, after = (_middle(track, study) for study in (last - 1, last))
    if before is None and after is None:
        # Gone before: carried on from where it was seen last.
        study = max(n for n, lesions in enumerate(track.lesions) if lesions)
        place = _middle(track, study)
        for passed in followup.steps[study : last - 1]:
            place = passed.registration.deformation.apply(place)
        before = place
    if after is None:
        after = step.apply(before)
    if before is None:
        before = step.invert(after)
    return before, after


def _middle(track: Track, study: int) -> np.ndarray | None:
    lesions = track.lesions[study]
    if not lesions:
        return None
    places = np.array([[lesion.values[f"centroid_{axis}_mm"] for axis in "ras"] for lesion in lesions], dtype=float)
    weights = [max(float(lesion.values.get("volume_ml") or 0.0), 1e-6) for lesion in lesions]
    return np.average(places, axis=0, weights=weights)


class CompareViews:
    """Two slice views side by side that show the same tissue of two studies, and move together.

    The application must show both views (the layout 'side by side'); what they showed before comes back by
    :meth:`close`.

    Args:
        scene: that has the views.
        volumeNodes: the earlier and the later CT.
        deformation: from the one to the other.
    """

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        volumeNodes: Sequence[slicer.vtkMRMLScalarVolumeNode],
        deformation: Deformation,
    ):
        self._deformation = deformation
        self._views = [_sliceNode(scene, name) for name in (EARLIER_VIEW, LATER_VIEW)]
        self._composites = [_compositeNode(scene, name) for name in (EARLIER_VIEW, LATER_VIEW)]
        self._kept: list[tuple[str, str | None, int]] = []
        self._tags: list[int] = []
        self._moving = False
        for view, composite, volume in zip(self._views, self._composites, volumeNodes, strict=True):
            if view is None or composite is None:
                continue
            known = (view.GetOrientation(), composite.GetBackgroundVolumeID(), composite.GetLinkedControl())
            self._kept.append(known)
            composite.SetLinkedControl(False)
            composite.SetBackgroundVolumeID(volume.GetID())
            if view.HasSliceOrientationPreset("Axial"):
                view.SetOrientationToAxial()
        if self.isUsable:
            one, other = self._views
            self._tags = [
                one.AddObserver(vtkCommand.ModifiedEvent, lambda *_: self._follow(0)),
                other.AddObserver(vtkCommand.ModifiedEvent, lambda *_: self._follow(1)),
            ]

    @property
    def isUsable(self) -> bool:
        """Whether the scene has both views."""
        return len(self._kept) == 2

    def show(self, before: np.ndarray, after: np.ndarray) -> None:
        """Centers each view on its place, RAS mm."""
        if not self.isUsable:
            return
        self._moving = True
        try:
            for view, place in zip(self._views, (before, after), strict=True):
                if np.isfinite(place).all():
                    view.JumpSliceByCentering(*np.asarray(place, dtype=float).tolist())
        finally:
            self._moving = False

    def close(self) -> None:
        """Lets go of the views; they show what they showed before."""
        for view, tag in zip(self._views, self._tags, strict=False):
            view.RemoveObserver(tag)
        self._tags = []
        if self.isUsable:
            for view, composite, known in zip(self._views, self._composites, self._kept, strict=True):
                orientation, volumeId, linked = known
                if orientation and view.HasSliceOrientationPreset(orientation):
                    view.SetOrientation(orientation)
                composite.SetBackgroundVolumeID(volumeId)
                composite.SetLinkedControl(linked)
        self._kept = []

    def _follow(self, index: int) -> None:
        """The other view goes where the tissue in the middle of this one is."""
        if self._moving:
            return
        self._moving = True
        try:
            matrix = self._views[index].GetSliceToRAS()
            place = np.array([matrix.GetElement(row, 3) for row in range(3)])
            there = self._deformation.apply(place) if index == 0 else self._deformation.invert(place)
            self._views[1 - index].JumpSliceByCentering(*there.tolist())
        finally:
            self._moving = False


def _sliceNode(scene: slicer.vtkMRMLScene, name: str) -> slicer.vtkMRMLSliceNode | None:
    return scene.GetSingletonNode(name, "vtkMRMLSliceNode")


def _compositeNode(scene: slicer.vtkMRMLScene, name: str) -> slicer.vtkMRMLSliceCompositeNode | None:
    return scene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode")
