"""The table of lesions of a segmentation: measured figures, reviews and comments, kept in step with the segments."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..geometry import Grid
from ..lesions.measurements import MEASUREMENTS, measure
from ..report.files import safe_cell
from ..result import summarize
from .segment_content import SegmentContent, SegmentReader
from .table_store import LesionRecord, TableState, readState, writeState
from .terminology import (
    AUTOMATIC_NAME,
    DEFAULT_CODE,
    ISLAND_NAME,
    LESION_NAME,
    isCouinaud,
    isLesionType,
    isLiver,
    setLesion,
    typeCode,
)
from .volumes import arrayFromMatrix, placeBeside

REVIEWS = UNREVIEWED, ACCEPTED, REJECTED, UNSURE = ("unreviewed", "accepted", "rejected", "unsure")

TABLE_ROLE, SEGMENTATION_ROLE, VOLUME_ROLE = "LiverCascade.Table", "LiverCascade.Segmentation", "LiverCascade.Volume"
# On the segmentation node: its fingerprint as the run wrote it.
ORIGINAL_ATTRIBUTE = "LiverCascade.Original"
WORLD_TOLERANCE = 1e-6


@dataclass(frozen=True)
class LesionRow:
    """One lesion as a reader sees it.

    Attributes:
        number: of 'Lesion 3', 3; None where the segment has another name.
        centroidRas: world, RAS mm; not numbers where the segment is empty.
        values: all figures, by the keys of :data:`~..lesions.measurements.MEASUREMENTS`.
    """

    segmentId: str
    name: str
    number: int | None
    volumeMl: float
    diameterMm: float
    centroidRas: tuple[float, float, float]
    review: str
    comment: str
    values: dict[str, float]

    @property
    def isRejected(self) -> bool:
        """Whether the reader said that this is no lesion."""
        return self.review == REJECTED

    @property
    def isCounted(self) -> bool:
        """Whether it is part of counts and sums: neither rejected nor erased."""
        return not self.isRejected and self.volumeMl > 0


class LesionTable:
    """The lesions of one segmentation node, tied to a table node that is saved with the scene.

    A lesion is a segment that the run found, an island that was split off one, or a segment that somebody declared to
    be one: by :meth:`makeLesion`, or by name and terminology. Hold one object per segmentation: it remembers what was
    measured, and the reviews of segments that Undo brings back.
    """

    def __init__(self, tableNode: slicer.vtkMRMLTableNode, state: TableState):
        self.tableNode = tableNode
        self._state = state
        self._reader = SegmentReader()
        self._removed: dict[str, LesionRecord] = {}

    @classmethod
    def create(
        cls,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        volumeNode: slicer.vtkMRMLScalarVolumeNode | None,
        scene: slicer.vtkMRMLScene,
    ) -> LesionTable:
        """Adds the table node 'NAME liver lesions', ties it to the segmentation and measures its lesions.

        A table that the segmentation already has is used again. What is there now counts as not edited, unless that
        was noted before.
        """
        found = cls.find(segmentationNode)
        if found is None:
            tableNode = scene.AddNewNodeByClass("vtkMRMLTableNode", f"{segmentationNode.GetName()} lesions")
            tableNode.SetNodeReferenceID(SEGMENTATION_ROLE, segmentationNode.GetID())
            segmentationNode.SetNodeReferenceID(TABLE_ROLE, tableNode.GetID())
            found = cls(tableNode, TableState())
            placeBeside(segmentationNode, tableNode, scene)
        if volumeNode is not None:
            found.tableNode.SetNodeReferenceID(VOLUME_ROLE, volumeNode.GetID())
        found.update()
        if not segmentationNode.GetAttribute(ORIGINAL_ATTRIBUTE):
            segmentationNode.SetAttribute(ORIGINAL_ATTRIBUTE, found._fingerprint())
        return found

    @classmethod
    def find(cls, segmentationNode: slicer.vtkMRMLSegmentationNode) -> LesionTable | None:
        """The table of a segmentation, such as after a scene was loaded; None where it has none."""
        tableNode = segmentationNode.GetNodeReference(TABLE_ROLE)
        table = cls.of(tableNode) if tableNode is not None else None
        # A clone of a segmentation refers to the table of the one that it was made from.
        return table if table is not None and table.segmentationNode is segmentationNode else None

    @classmethod
    def of(cls, tableNode: slicer.vtkMRMLTableNode) -> LesionTable | None:
        """The table that a table node holds; None where it is another kind of table."""
        state = readState(tableNode)
        return cls(tableNode, state) if state is not None else None

    @property
    def segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        """The segmentation; None once it was removed from the scene."""
        return self.tableNode.GetNodeReference(SEGMENTATION_ROLE)

    @property
    def volumeNode(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        """The CT; None where there is none, or no longer."""
        return self.tableNode.GetNodeReference(VOLUME_ROLE)

    def rows(self) -> list[LesionRow]:
        """The lesions in the order of their segments, as last measured."""
        segments = self._segments()
        return [
            _row(segmentId, segments[segmentId].GetName(), record)
            for segmentId, record in self._state.lesions.items()
            if segmentId in segments
        ]

    def foreignSegments(self) -> list[str]:
        """Ids of segments that are neither liver, nor lesion, nor a Couinaud segment: somebody's own."""
        return [
            segmentId
            for segmentId, segment in self._segments().items()
            if segmentId not in self._state.lesions and not isLiver(segment) and not isCouinaud(segment)
        ]

    def update(self, segmentIds: Iterable[str] | None = None) -> list[str]:
        """Brings the table in step with the segments: rows come and go, and what changed is measured again.

        Islands that were split off a lesion get a lesion's terminology and color, which the editor does not give them.

        Args:
            segmentIds: look at these only, and at new ones; None finds out what changed.

        Returns:
            ids of the segments that were measured.
        """
        segments = self._segments()
        before = dict(self._state.lesions)
        lesionIds = self._lesionIds(segments)
        world = self._worldFromLocal()
        moved = np.abs(world.ravel() - self._state.world).max() > WORLD_TOLERANCE
        wanted = set(lesionIds) if segmentIds is None or moved else set(segmentIds)
        wanted |= set(lesionIds) - before.keys()
        contents = self._contents([segmentId for segmentId in lesionIds if segmentId in wanted])
        measured = []
        for segmentId, content in contents.items():
            if moved or segmentId not in before or before[segmentId].fingerprint != content.fingerprint:
                self._state.lesions[segmentId] = self._newRecord(segmentId, content, world)
                measured.append(segmentId)
        self._state.world = world.ravel().tolist()
        self._removed |= {segmentId: before[segmentId] for segmentId in before.keys() - set(lesionIds)}
        self._reader.forget(before.keys() - segments.keys())
        self._state.lesions = {segmentId: self._state.lesions[segmentId] for segmentId in lesionIds}
        self._noteNumbers(segments)
        self._write()
        return measured

    def setReview(self, segmentId: str, review: str) -> None:
        """Notes what the reader thinks; a rejected lesion is hidden in 2D and 3D, and leaves the sums.

        Args:
            review: one of :data:`REVIEWS`.

        Raises:
            KeyError: there is no such lesion.
            ValueError: there is no such review.
        """
        if review not in REVIEWS:
            raise ValueError(f"'{review}' is no review. Choose one of {', '.join(REVIEWS)}.")
        record = self._state.lesions[segmentId]
        wasRejected, record.review = record.review == REJECTED, review
        if wasRejected != (review == REJECTED):
            self._setVisible(segmentId, wasRejected)
        self._write()

    def setComment(self, segmentId: str, text: str) -> None:
        """Keeps a remark of the reader.

        Raises:
            KeyError: there is no such lesion.
        """
        self._state.lesions[segmentId].comment = text
        self._write()

    def makeLesion(self, segmentId: str) -> None:
        """Declares somebody's own segment to be a lesion: terminology, color, a number where it has no name, a row.

        Raises:
            KeyError: there is no such segment.
        """
        segment = self._segments()[segmentId]
        setLesion(segment)
        if AUTOMATIC_NAME.fullmatch(segment.GetName()):
            segment.SetName(f"Lesion {self._state.highest_number + 1}")
            segment.SetNameAutoGenerated(False)
        if segmentId in self._state.inherited:
            self._state.inherited.remove(segmentId)
        self._removed.pop(segmentId, None)
        self.update([segmentId])

    def liverVolumeMl(self) -> float:
        """Volume of the liver with its lesions, in mL: of all voxels that are liver or a lesion that counts.

        Slicer's editor, as it is set at the start, takes from the liver what is painted into a lesion: hence a union.
        """
        segments = self._segments()
        livers = [segmentId for segmentId, segment in segments.items() if isLiver(segment)]
        lesions = [row.segmentId for row in self.rows() if not row.isRejected]
        contents = self._contents(livers + lesions)
        parts = [contents[segmentId] for segmentId in livers + lesions if contents[segmentId].mask.size]
        if not any(contents[segmentId].mask.size for segmentId in livers):
            return 0.0
        world = Grid((1, 1, 1), self._worldFromLocal() @ parts[0].ijk_to_ras)
        return _unionCount(parts) * world.voxel_volume_mm3 / 1000

    def lesionVolumeMl(self) -> float:
        """Sum of the volumes of all lesions that were not rejected, in mL."""
        return sum(row.volumeMl for row in self.rows() if row.isCounted)

    def summary(self) -> str:
        """One sentence: liver volume, number of lesions and burden, or that no lesion was found."""
        rows = self.rows()
        text = summarize(self.liverVolumeMl(), [row.volumeMl for row in rows if row.isCounted])
        rejected = sum(row.isRejected for row in rows)
        if rejected:
            text = f"{text[:-1]}; {rejected} more {'was' if rejected == 1 else 'were'} rejected."
        return text

    def isEdited(self) -> bool:
        """Whether the segments differ from what the run wrote: voxels, names, segments more or less.

        An empty segment makes no difference, and reviews do not count: see :meth:`isReviewed`.
        """
        original = self.segmentationNode.GetAttribute(ORIGINAL_ATTRIBUTE) if self.segmentationNode else None
        return bool(original) and original != self._fingerprint()

    def isReviewed(self) -> bool:
        """Whether a reader reviewed or commented any lesion."""
        return any(record.review != UNREVIEWED or record.comment for record in self._state.lesions.values())

    def countedIds(self) -> list[str]:
        """Ids of the lesions that count, in order: the n-th is lesion n in exported files."""
        return [row.segmentId for row in self.rows() if row.isCounted]

    def writeCsv(self, path: Path | str) -> None:
        """Writes one line per lesion.

        The id is that of exported labels (label value minus 1); a rejected or empty lesion has none.

        Raises:
            OSError: the file cannot be written.
        """
        ids = {segmentId: number for number, segmentId in enumerate(self.countedIds(), start=1)}
        with Path(path).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["case", "id", "name", *(m.key for m in MEASUREMENTS), "review", "comment"])
            for row in self.rows():
                figures = [f"{row.values[m.key]:.4f}" if np.isfinite(row.values[m.key]) else "" for m in MEASUREMENTS]
                texts = [row.review, safe_cell(row.comment)]
                writer.writerow(
                    [safe_cell(self.caseName()), ids.get(row.segmentId, ""), safe_cell(row.name), *figures, *texts]
                )

    def caseName(self) -> str:
        """Name of the CT, else of the segmentation."""
        node = self.volumeNode or self.segmentationNode or self.tableNode
        return node.GetName() or ""

    def _segments(self) -> dict[str, slicer.vtkSegment]:
        """All segments by id, in their order; none where the segmentation is gone."""
        if self.segmentationNode is None:
            return {}
        segmentation = self.segmentationNode.GetSegmentation()
        return {segmentId: segmentation.GetSegment(segmentId) for segmentId in segmentation.GetSegmentIDs()}

    def _lesionIds(self, segments: dict[str, slicer.vtkSegment]) -> list[str]:
        """Which segments are lesions; islands become some here."""
        found, names = [], set()
        for segmentId, segment in segments.items():
            if self._wasLesion(segmentId, segment) or self._isNewLesion(segmentId, segment, names):
                found.append(segmentId)
                names.add(segment.GetName())
        return found

    def _wasLesion(self, segmentId: str, segment: slicer.vtkSegment) -> bool:
        if not isLesionType(segment):
            return False
        # The id of a removed segment may have been given to a new one.
        isBack = segmentId in self._removed and not AUTOMATIC_NAME.fullmatch(segment.GetName() or "")
        return segmentId in self._state.lesions or isBack

    def _isNewLesion(self, segmentId: str, segment: slicer.vtkSegment, lesionNames: set[str]) -> bool:
        name = segment.GetName() or ""
        island = ISLAND_NAME.fullmatch(name)
        if typeCode(segment) in ("", DEFAULT_CODE) and island and island[1] in lesionNames:
            setLesion(segment)
            return True
        if not isLesionType(segment):
            return False
        if AUTOMATIC_NAME.fullmatch(name) and segmentId not in self._state.inherited:
            self._state.inherited.append(segmentId)
        return segmentId not in self._state.inherited or bool(LESION_NAME.fullmatch(name))

    def _contents(self, segmentIds: list[str]) -> dict[str, SegmentContent]:
        if self.segmentationNode is None:
            return {}
        return self._reader.read(self.segmentationNode.GetSegmentation(), segmentIds)

    def _newRecord(self, segmentId: str, content: SegmentContent, world: np.ndarray) -> LesionRecord:
        """Measures; keeps the review, also that of a segment that was removed and is back unchanged."""
        record = self._state.lesions.get(segmentId)
        removed = self._removed.pop(segmentId, None)
        if record is None and removed is not None and removed.fingerprint == content.fingerprint:
            record = removed
            if record.review == REJECTED:
                self._setVisible(segmentId, False)
        values = measure(content.mask, Grid((1, 1, 1), world @ content.ijk_to_ras), content.offset)
        if record is None:
            return LesionRecord(content.fingerprint, values, UNREVIEWED)
        return LesionRecord(content.fingerprint, values, record.review, record.comment)

    def _noteNumbers(self, segments: dict[str, slicer.vtkSegment]) -> None:
        matches = (LESION_NAME.fullmatch(segment.GetName() or "") for segment in segments.values())
        numbers = [int(match[1]) for match in matches if match]
        self._state.highest_number = max([self._state.highest_number, *numbers])

    def _worldFromLocal(self) -> np.ndarray:
        """4×4; of a non-linear transform, its best approximation at the middle of the segmentation."""
        transform = self.segmentationNode.GetParentTransformNode() if self.segmentationNode else None
        if transform is None:
            return np.eye(4)
        if transform.IsTransformToWorldLinear():
            matrix = vtkMatrix4x4()
            transform.GetMatrixTransformToWorld(matrix)
            return arrayFromMatrix(matrix)
        return _linearized(self.segmentationNode)

    def _setVisible(self, segmentId: str, visible: bool) -> None:
        display = self.segmentationNode.GetDisplayNode() if self.segmentationNode else None
        if display is not None:
            display.SetSegmentVisibility(segmentId, visible)

    def _fingerprint(self) -> str:
        segments = self._segments()
        contents = self._contents(list(segments))
        known = sorted(
            f"{content.fingerprint} {segments[segmentId].GetName()}"
            for segmentId, content in contents.items()
            if content.mask.size
        )
        return hashlib.blake2b("\n".join(known).encode(), digest_size=12).hexdigest()

    def _write(self) -> None:
        names = {segmentId: segment.GetName() for segmentId, segment in self._segments().items()}
        writeState(self.tableNode, self._state, names)


def _row(segmentId: str, name: str, record: LesionRecord) -> LesionRow:
    number = LESION_NAME.fullmatch(name)
    values = record.values
    return LesionRow(
        segmentId=segmentId,
        name=name,
        number=int(number[1]) if number else None,
        volumeMl=values["volume_ml"],
        diameterMm=values["diameter_mm"],
        centroidRas=tuple(values[f"centroid_{axis}_mm"] for axis in "ras"),
        review=record.review,
        comment=record.comment,
        values=dict(values),
    )


def _unionCount(parts: list[SegmentContent]) -> int:
    """How many voxels of the first part's grid lie in any of the parts."""
    first, beyond = parts[0], []
    for part in parts[1:]:
        voxels = np.argwhere(part.mask)[:, ::-1] + np.array(part.offset)
        toFirst = np.linalg.inv(first.ijk_to_ras) @ part.ijk_to_ras
        voxels = np.rint(voxels @ toFirst[:3, :3].T + toFirst[:3, 3]).astype(np.int64)
        beyond.append(voxels[~first.covers(voxels)])
    count = int(np.count_nonzero(first.mask))
    return count + len(np.unique(np.concatenate(beyond), axis=0)) if beyond else count


def _linearized(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    bounds = np.zeros(6)
    node.GetBounds(bounds)
    middle = bounds.reshape(3, 2).mean(axis=1)
    points = np.vstack([middle, middle + np.eye(3)])
    images = np.zeros_like(points)
    for point, image in zip(points, images, strict=True):
        node.TransformPointToWorld(point, image)
    matrix = np.eye(4)
    matrix[:3, :3] = (images[1:] - images[0]).T
    matrix[:3, 3] = images[0] - matrix[:3, :3] @ middle
    return matrix
