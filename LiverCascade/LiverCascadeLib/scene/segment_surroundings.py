"""What lesions in a scene lie in: the liver, other lesions and the CT, on the voxels that each lesion was drawn on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..geometry import Box, Grid
from ..lesions.assess import voxel_digest
from ..lesions.diameters import slice_axis
from ..lesions.region import (
    BEYOND,
    LIVER,
    OTHER_LESION,
    OUTSIDE,
    THIS_LESION,
    between,
    common,
    cut,
    moved,
    nearest,
)
from .segment_content import SegmentContent

# Voxel counts over which two segments must agree to count as drawn on the same voxels.
_REACH = (1024, 1024, 1024)
NOWHERE = Box((0, 0, 0), (0, 0, 0))


@dataclass(frozen=True, eq=False)
class Ct:
    """The voxels [k, j, i] of a CT of any type, and where they lie in the world."""

    array: np.ndarray
    grid: Grid

    @cached_property
    def digest(self) -> bytes:
        """Tells it from other CTs, see :func:`~..lesions.assess.voxel_digest`."""
        return voxel_digest(self.array)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A segment on the voxels of another one.

    Attributes:
        box: on those voxels; a segment that counts other voxels gets a box that holds it.
        matrix: 4×4, from those voxels to the segment's mask; None where both count the same voxels.
    """

    content: SegmentContent
    box: Box
    matrix: np.ndarray | None

    def mask(self, box: Box) -> np.ndarray:
        """bool [k, j, i]: where the segment covers the voxels of ``box``, which lies within :attr:`box`."""
        if self.matrix is None:
            return self.content.mask[moved(box, np.negative(self.box.start)).slices]
        return nearest(self.content.mask, self.matrix, box, False, bool)


class Surroundings:
    """All segments that matter to lesions, and the CT.

    Args:
        livers: what is liver, by segment id, rejected lesions included.
        lesions: the lesions that count, by segment id.
        couinaud: the liver's segments, by their values.
        world: 4×4, from the coordinates of the segments to the world.
        ct: None where there is none.
    """

    def __init__(
        self,
        livers: Mapping[str, SegmentContent],
        lesions: Mapping[str, SegmentContent],
        couinaud: Mapping[int, SegmentContent],
        world: np.ndarray,
        ct: Ct | None,
    ):
        self._world, self.couinaud, self.ct = world, dict(couinaud), ct
        self._parts = [(LIVER, n, content) for n, content in livers.items() if content.mask.size]
        self.has_liver = bool(self._parts)
        self._parts += [(OTHER_LESION, n, content) for n, content in lesions.items() if content.mask.size]
        self._placed: dict[bytes, list[_Placed]] = {}
        self._corners: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def grid(self, content: SegmentContent) -> Grid:
        """The voxels that ``content`` counts, in the world."""
        return Grid((1, 1, 1), self._world @ content.ijk_to_ras)

    def of(self, segmentId: str, content: SegmentContent) -> SegmentAround:
        """What lies around a lesion."""
        return SegmentAround(self, segmentId, content)

    def met(self, content: SegmentContent, box: Box) -> list[tuple[int, str, _Placed]]:
        """The segments whose boxes meet ``box`` on the voxels of ``content``: class, id and place."""
        key, placed = self._onto(content)
        if not placed:
            return []
        starts, stops = self._corners[key]
        meets = ((starts < box.stop) & (stops > box.start)).all(axis=1)
        return [(*self._parts[n][:2], placed[n]) for n in np.flatnonzero(meets)]

    def bounds(self, content: SegmentContent) -> Box:
        """The box of all segments, one voxel wider."""
        key, _ = self._onto(content)
        starts, stops = self._corners[key]
        own = place(content, content)
        starts, stops = np.vstack([starts, own.box.start]), np.vstack([stops, own.box.stop])
        return Box(tuple((starts.min(axis=0) - 1).tolist()), tuple((stops.max(axis=0) + 1).tolist()))

    def fingerprint(self) -> str:
        """The same for the same segments in the same roles."""
        known = [f"{kind} {content.fingerprint}" for kind, _, content in self._parts]
        known += [f"couinaud {value} {content.fingerprint}" for value, content in self.couinaud.items()]
        return hashlib.blake2b("\n".join(sorted(known)).encode(), digest_size=12).hexdigest()

    def classes(self, onto: SegmentContent, box: Box) -> np.ndarray:
        """uint8 [k, j, i]: OUTSIDE, LIVER or OTHER_LESION at the voxels of ``box``, as ``onto`` counts them."""
        result = np.full(box.size[::-1], OUTSIDE, np.uint8)
        for kind, _, placed in self.met(onto, box):
            _paint(result, box, placed, kind)
        return result

    def changesSince(self, before: Surroundings | None) -> dict[str, Box | None]:
        """Where something is different now, by what it matters to.

        Returns:
            'shell' (liver and lesions), 'surface' (liver and lesions together) and 'couinaud': the box of what
            changed, in voxels as all segments count them; None where it may be anywhere.
        """
        anywhere = dict.fromkeys(("shell", "surface", "couinaud"))
        if before is None:
            return anywhere
        old, new = ({(kind, n): content for kind, n, content in one._parts} for one in (before, self))
        box, onto = _changes(old, new)
        changed = {"shell": box, "surface": box, "couinaud": _changes(before.couinaud, self.couinaud)[0]}
        if box is not None and onto is not None:
            one, other = before.classes(onto, box), self.classes(onto, box)
            for key, differs in (("shell", one != other), ("surface", (one != OUTSIDE) != (other != OUTSIDE))):
                inner = Box.around(differs)
                changed[key] = NOWHERE if inner is None else moved(inner, box.start)
        return changed

    def _onto(self, content: SegmentContent) -> tuple[bytes, list[_Placed]]:
        key = content.ijk_to_ras.tobytes()
        if key not in self._placed:
            placed = [place(part, content) for _, _, part in self._parts]
            self._placed[key] = placed
            shape = (len(placed), 3)
            starts = np.array([one.box.start for one in placed], np.int64).reshape(shape)
            stops = np.array([one.box.stop for one in placed], np.int64).reshape(shape)
            self._corners[key] = starts, stops
        return key, self._placed[key]


class SegmentAround:
    """One lesion among the segments; see :class:`..lesions.region.Around`."""

    def __init__(self, everything: Surroundings, segmentId: str, content: SegmentContent):
        self._all, self._id, self._content = everything, segmentId, content
        ct = everything.ct
        self.bounds = everything.bounds(content)
        self.has_liver = everything.has_liver
        self.ct_grid = None if ct is None else ct.grid
        self.slice_thickness_mm = float("nan") if ct is None else float(ct.grid.spacing[slice_axis(ct.grid)])
        if ct is not None:
            self._toCt, self._shift = between(everything.grid(content), ct.grid)

    def hounsfield(self, box: Box) -> np.ndarray:
        """float32 [k, j, i], in HU; not a number beyond the CT."""
        if self._all.ct is None:
            return np.full(box.size[::-1], np.nan, np.float32)
        if self._shift is not None:
            return cut(self._all.ct.array, moved(box, self._shift), np.nan, np.float32)
        return nearest(self._all.ct.array, self._toCt, box, np.nan, np.float32)

    def classes(self, box: Box) -> np.ndarray:
        """uint8 [k, j, i], as :mod:`..lesions.region` counts."""
        result = np.full(box.size[::-1], OUTSIDE, np.uint8)
        for kind, segmentId, placed in self._all.met(self._content, box):
            if segmentId != self._id:
                _paint(result, box, placed, kind)
        _paint(result, box, place(self._content, self._content), THIS_LESION)
        if self._all.ct is not None:
            result[self._beyond(box)] = BEYOND
        return result

    def _beyond(self, box: Box) -> np.ndarray | tuple:
        """Which voxels of ``box`` the CT does not have."""
        size = self._all.ct.grid.size
        if self._shift is None:
            there = np.broadcast_to(np.ones((), bool), size[::-1])
            return ~nearest(there, self._toCt, box, False, bool)
        inner = common(moved(box, self._shift), Box((0, 0, 0), size))
        outside = np.ones(box.size[::-1], bool)
        outside[moved(moved(inner, np.negative(self._shift)), np.negative(box.start)).slices] = False
        return outside


def place(content: SegmentContent, onto: SegmentContent) -> _Placed:
    """``content`` on the voxels of ``onto``."""
    if not content.mask.size:
        return _Placed(content, NOWHERE, None)
    if content.ijk_to_ras is onto.ijk_to_ras:
        shift = np.zeros(3, np.int64)
    else:
        source, target = Grid((1, 1, 1), onto.ijk_to_ras), Grid((1, 1, 1), content.ijk_to_ras)
        matrix, back = between(source, target, _REACH)
        shift = None if back is None else -back
    own = content.box
    if shift is not None:
        return _Placed(content, moved(own, shift), None)
    edges = zip(np.array(own.start) - 0.5, np.array(own.stop) - 0.5, strict=True)
    corners = source.to_ijk(target.to_ras(np.array(np.meshgrid(*edges)).reshape(3, -1).T))
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    toMask = matrix.copy()
    toMask[:3, 3] -= content.offset
    return _Placed(content, Box(tuple(low.tolist()), tuple(high.tolist())), toMask)


def _paint(values: np.ndarray, box: Box, placed: _Placed, kind: int) -> None:
    """Writes ``kind`` into ``values``, which fill ``box``, wherever the segment is."""
    shared = common(box, placed.box)
    if min(shared.size) > 0:
        values[moved(shared, np.negative(box.start)).slices][placed.mask(shared)] = kind


def valuesOver(content: SegmentContent, others: Mapping[int, SegmentContent]) -> np.ndarray:
    """uint8 [k, j, i] over the box of ``content``: the key of the one of ``others`` that is there, 0 for none."""
    box = content.box
    values = np.zeros(content.mask.shape, np.uint8)
    for value, other in others.items():
        if other.mask.size:
            _paint(values, box, place(other, content), value)
    return values


def _changes(
    old: Mapping[Any, SegmentContent], new: Mapping[Any, SegmentContent]
) -> tuple[Box | None, SegmentContent | None]:
    """The box of all voxels that any segment gained or lost, and a segment that counts them so.

    None for the box where the segments count different voxels.
    """
    pairs = [(old.get(key), new.get(key)) for key in old.keys() | new.keys()]
    pairs = [(a, b) for a, b in pairs if a is not b]
    several = [content for pair in pairs for content in pair if content is not None and content.mask.size]
    if not several:
        return NOWHERE, None
    everything = [content for content in (*old.values(), *new.values()) if content.mask.size]
    if any(not np.array_equal(content.ijk_to_ras, several[0].ijk_to_ras) for content in everything):
        return None, None
    boxes = [box for box in (_changedBox(*pair) for pair in pairs) if min(box.size) > 0]
    return (_hull(boxes), several[0]) if boxes else (NOWHERE, None)


def _changedBox(before: SegmentContent | None, after: SegmentContent | None) -> Box:
    """Where two states of a segment differ, on its voxels. One that came or went counts with all its voxels."""
    both = [content for content in (before, after) if content is not None and content.mask.size]
    if not both:
        return NOWHERE
    boxes = [place(content, content).box for content in both]
    if len(both) == 1:
        return boxes[0]
    hull = _hull(boxes)
    different = np.zeros(hull.size[::-1], bool)
    for content, box in zip(both, boxes, strict=True):
        different[moved(box, np.negative(hull.start)).slices] ^= content.mask
    inner = Box.around(different)
    return NOWHERE if inner is None else moved(inner, hull.start)


def _hull(boxes: list[Box]) -> Box:
    start = tuple(min(corner) for corner in zip(*(box.start for box in boxes), strict=True))
    return Box(start, tuple(max(corner) for corner in zip(*(box.stop for box in boxes), strict=True)))


def unionCount(parts: Sequence[SegmentContent]) -> int:
    """How many voxels of the first part's grid lie in any of the parts, none of which is empty."""
    placed = [place(part, parts[0]) for part in parts]
    box = _hull([one.box for one in placed])
    union = np.zeros(box.size[::-1], bool)
    for one in placed:
        _paint(union, box, one, True)
    return int(np.count_nonzero(union))
