"""The table of lesions of a segmentation: measured figures, reviews and comments, kept in step with the segments."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..errors import InputError
from ..geometry import Box, Grid
from ..lesions.assess import tracking_uid
from ..lesions.assessment import Axis, Value, couinaud_text
from ..lesions.couinaud import Share, shares
from ..lesions.measurements import MEASUREMENTS, NOT_A_NUMBER, is_known, measuring_steps, region_of
from ..lesions.region import Region, common, grown_by_mm
from ..lesions.surroundings import SHELL_MM
from ..report.files import LESION_COLUMNS, lesion_cells, safe_cell
from ..result import Result, summarize
from ..steps import exhausted
from .segment_content import SegmentContent, SegmentReader
from .segment_surroundings import Ct, Surroundings, unionCount, valuesOver
from .table_store import LesionRecord, TableState, readState, writeState
from .terminology import (
    AUTOMATIC_NAME,
    DEFAULT_CODE,
    ISLAND_NAME,
    LESION_NAME,
    couinaudValue,
    isCouinaud,
    isLesionType,
    isLiver,
    setLesion,
    typeCode,
)
from .volumes import arrayFromMatrix, placeBeside, voxelsOfNode, worldGrid

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
        longAxis, shortAxis: their ends, world, RAS mm; None where the segment is empty.
        couinaud: the liver's segments that it touches, such as 'IVa, VIII'; empty where they are not known.
        confidence: of the run, 0…1; not a number where there is none, and after an edit.
        trackingUid: stays with the lesion in everything that is written about it.
        values: all figures, by the keys of :data:`~..lesions.measurements.MEASUREMENTS`.
    """

    segmentId: str
    name: str
    number: int | None
    volumeMl: float
    longAxisMm: float
    shortAxisMm: float
    centroidRas: tuple[float, float, float]
    longAxis: Axis | None
    shortAxis: Axis | None
    couinaud: str
    confidence: float
    review: str
    comment: str
    trackingUid: str
    values: dict[str, Value]

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
        self._before: Surroundings | None = None

    @classmethod
    def create(
        cls,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        volumeNode: slicer.vtkMRMLScalarVolumeNode | None,
        scene: slicer.vtkMRMLScene,
        result: Result | None = None,
    ) -> LesionTable:
        """Adds the table node 'NAME liver lesions', ties it to the segmentation and measures its lesions.

        A table that the segmentation already has is used again. What is there now counts as not edited, unless that
        was noted before.

        Args:
            result: of the run that made the segmentation, for confidences, findings and provenance.
        """
        return exhausted(cls.creationSteps(segmentationNode, volumeNode, scene, result))

    @classmethod
    def creationSteps(
        cls,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        volumeNode: slicer.vtkMRMLScalarVolumeNode | None,
        scene: slicer.vtkMRMLScene,
        result: Result | None = None,
    ) -> Generator[None, None, LesionTable]:
        """:meth:`create` in short steps, at least one for each lesion; closed early, it leaves no node behind."""
        found, added = cls.find(segmentationNode), None
        if found is None:
            added = scene.AddNewNodeByClass("vtkMRMLTableNode", f"{segmentationNode.GetName()} lesions")
            added.SetNodeReferenceID(SEGMENTATION_ROLE, segmentationNode.GetID())
            segmentationNode.SetNodeReferenceID(TABLE_ROLE, added.GetID())
            found = cls(added, TableState())
            placeBeside(segmentationNode, added, scene)
        if volumeNode is not None:
            found.tableNode.SetNodeReferenceID(VOLUME_ROLE, volumeNode.GetID())
        try:
            if result is not None:
                found._noteRun(result)
                yield
            yield from found.updateSteps()
            yield
        except BaseException:
            if added is not None:
                scene.RemoveNode(added)
            raise
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

    @property
    def runFindings(self) -> list[dict[str, str]]:
        """Findings of the run that made the segmentation, as plain texts."""
        return list(self._state.findings)

    @property
    def provenance(self) -> dict[str, Any]:
        """Of the run; empty where it is not known."""
        return dict(self._state.provenance)

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

    def update(self) -> list[str]:
        """Brings the table in step with the segments: rows come and go, and what changed is measured again.

        Islands that were split off a lesion get a lesion's terminology and color, which the editor does not give them.
        Where something else than a lesion's own voxels changed, only what depends on that is measured: the contrast,
        the distance to the capsule, the shares of the liver's segments.

        Returns:
            ids of the segments whose own voxels were measured.
        """
        return exhausted(self.updateSteps())

    def updateSteps(self) -> Generator[None, None, list[str]]:
        """:meth:`update` in short steps; what it says is true of the segments as they were at the first one."""
        segments = self._segments()
        before = dict(self._state.lesions)
        lesionIds = self._lesionIds(segments)
        world = self._worldFromLocal()
        moved = np.abs(world.ravel() - self._state.world).max() > WORLD_TOLERANCE
        # Of several that are the same one the first counts.
        couinaud = {couinaudValue(segments[segmentId]): segmentId for segmentId in reversed(segments)}
        couinaud.pop(0, None)
        livers = [segmentId for segmentId, segment in segments.items() if isLiver(segment)]
        contents = self._contents([*livers, *lesionIds, *couinaud.values()])
        rejected = {n for n in lesionIds if n in before and before[n].review == REJECTED}
        around = Surroundings(
            {n: contents[n] for n in livers},
            {n: contents[n] for n in lesionIds if n not in rejected},
            {value: contents[n] for value, n in couinaud.items()},
            world,
            self._ct(),
        )
        ct = around.ct.digest.hex() if around.ct is not None else ""
        # Figures of a CT that was taken away stay.
        everything = moved or (ct != self._state.ct and bool(ct))
        measured = [
            n for n in lesionIds if everything or n not in before or before[n].fingerprint != contents[n].fingerprint
        ]
        for segmentId in measured:
            self._state.lesions[segmentId] = yield from self._recordSteps(segmentId, contents[segmentId], around)
        yield from self._surroundingsSteps([n for n in lesionIds if n not in measured], contents, around)
        self._state.ct = ct or self._state.ct
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
        if wasRejected == (review == REJECTED):
            self._write()
        else:
            self._setVisible(segmentId, wasRejected)
            self.update()  # its neighbors have another liver around them now

    def setComment(self, segmentId: str, text: str) -> None:
        """Keeps a remark of the reader.

        Raises:
            KeyError: there is no such lesion.
        """
        self._state.lesions[segmentId].comment = text
        self._write()

    def setTrackingUid(self, segmentId: str, uid: str) -> None:
        """Takes over the identifier by which somebody else already follows a lesion.

        Raises:
            KeyError: there is no such lesion.
        """
        self._state.lesions[segmentId].tracking_uid = uid
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
        self.update()

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
        return unionCount(parts) * world.voxel_volume_mm3 / 1000

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
        """Writes one line per lesion, with the columns of a run's lesions.csv, and name, review and comment.

        The id is that of exported labels (label value minus 1); a rejected or empty lesion has none.

        Raises:
            OSError: the file cannot be written.
        """
        ids = {segmentId: number for number, segmentId in enumerate(self.countedIds(), start=1)}
        grid = self._ctGrid()
        with Path(path).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow([*LESION_COLUMNS, "name", "review", "comment"])
            for row in self.rows():
                corners = self._state.lesions[row.segmentId].box
                box = None if corners is None else Box(tuple(corners[0]), tuple(n + 1 for n in corners[1]))
                axes = (row.longAxis, row.shortAxis)
                cells = lesion_cells(row.values, axes, row.couinaud, grid, box, row.trackingUid)
                texts = [safe_cell(row.name), row.review, safe_cell(row.comment)]
                writer.writerow([safe_cell(self.caseName()), ids.get(row.segmentId, ""), *cells, *texts])

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

    def _recordSteps(
        self, segmentId: str, content: SegmentContent, around: Surroundings
    ) -> Generator[None, None, LesionRecord]:
        """Measures; keeps the review, also that of a segment that was removed and is back unchanged."""
        region = self._region(segmentId, content, around)
        values = yield from measuring_steps(region)
        kept = self._state.lesions.get(segmentId)
        removed = self._removed.pop(segmentId, None)
        if kept is None and removed is not None and removed.fingerprint == content.fingerprint:
            kept = removed
            if kept.review == REJECTED:
                self._setVisible(segmentId, False)
        record = LesionRecord(
            content.fingerprint,
            values,
            UNREVIEWED if kept is None else kept.review,
            "" if kept is None else kept.comment,
            region.axial.long,
            region.axial.short,
            _ctBox(region),
            _shares(content, around),
            "" if kept is None else kept.tracking_uid,
        )
        if not record.tracking_uid:
            taken = {other.tracking_uid for other in self._state.lesions.values()}
            digest = b"" if around.ct is None else around.ct.digest
            record.tracking_uid = tracking_uid(digest, region, taken)
        return record

    def _region(self, segmentId: str, content: SegmentContent, around: Surroundings) -> Region:
        confidence = self._state.confidences.get(content.fingerprint, NOT_A_NUMBER)
        grid = around.grid(content)
        return region_of(content.mask, grid, content.offset, around.of(segmentId, content), confidence)

    def _surroundingsSteps(
        self, lesionIds: list[str], contents: Mapping[str, SegmentContent], around: Surroundings
    ) -> Generator[None, None, None]:
        """Measures what changed of lesions whose own voxels did not."""
        before, self._before = self._before, around
        fingerprint = around.fingerprint()
        if fingerprint == self._state.surroundings:
            return
        self._state.surroundings = fingerprint
        changed = around.changesSince(before)
        for segmentId in lesionIds:
            record, content = self._state.lesions[segmentId], contents[segmentId]
            kinds = {kind for kind, box in changed.items() if _isNear(content, box, kind, record, around)}
            wanted = [measurement for measurement in MEASUREMENTS if measurement.surroundings in kinds]
            if wanted:
                region = self._region(segmentId, content, around)
                values = yield from measuring_steps(region, wanted)
                record.values |= values
            if "couinaud" in kinds:
                record.couinaud = _shares(content, around)

    def _ct(self) -> Ct | None:
        """The CT; None where there is none, or one that cannot be measured on."""
        try:
            return None if self.volumeNode is None else Ct(*voxelsOfNode(self.volumeNode))
        except InputError:
            return None

    def _ctGrid(self) -> Grid | None:
        try:
            return None if self.volumeNode is None else worldGrid(self.volumeNode)
        except InputError:
            return None

    def _noteRun(self, result: Result) -> None:
        """Keeps what a run knows beside its labels."""
        ids = {f"Lesion_{lesion.id}": lesion.id for lesion in result.lesions}
        contents = self._contents([n for n in ids if n in self._segments()])
        confidences = {n: result.confidences.get(ids[n], NOT_A_NUMBER) for n in contents}
        self._state.confidences = {
            contents[n].fingerprint: float(value) for n, value in confidences.items() if is_known(value)
        }
        for record in self._state.lesions.values():
            record.values["confidence"] = self._state.confidences.get(record.fingerprint, NOT_A_NUMBER)
        self._state.findings = [finding.as_dict() for finding in result.findings]
        self._state.provenance = result.provenance

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
        # Couinaud's segments are made from the liver, and made again whenever a landmark moves.
        contents = self._contents([segmentId for segmentId, segment in segments.items() if not isCouinaud(segment)])
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
        longAxisMm=values["long_axis_mm"],
        shortAxisMm=values["short_axis_mm"],
        centroidRas=tuple(values[f"centroid_{axis}_mm"] for axis in "ras"),
        longAxis=record.long_axis,
        shortAxis=record.short_axis,
        couinaud=couinaud_text(record.couinaud),
        confidence=values["confidence"],
        review=record.review,
        comment=record.comment,
        trackingUid=record.tracking_uid,
        values=dict(values),
    )


def _shares(content: SegmentContent, around: Surroundings) -> tuple[Share, ...]:
    if not around.couinaud or not content.mask.any():
        return ()
    return shares(valuesOver(content, around.couinaud), content.mask)


def _ctBox(region: Region) -> list[list[int]] | None:
    """First and last voxel of the CT."""
    voxels = region.ct_voxels
    return None if voxels is None else [voxels.min(axis=0).tolist(), voxels.max(axis=0).tolist()]


def _isNear(content: SegmentContent, box: Box | None, kind: str, record: LesionRecord, around: Surroundings) -> bool:
    """Whether a change in ``box``, in voxels of ``content``, can matter to a lesion; None is anywhere."""
    if box is None:
        return True
    if not content.mask.size or min(box.size) == 0:
        return False
    reach = {"shell": SHELL_MM[1], "surface": record.values["capsule_distance_mm"], "couinaud": 0.0}[kind]
    if not is_known(reach):
        return True
    wider = grown_by_mm(content.box, around.grid(content), reach + 2 * float(around.grid(content).spacing.max()))
    return min(common(wider, box).size) > 0


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
