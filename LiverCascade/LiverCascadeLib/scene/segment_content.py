"""The voxels of segments, and which of them changed.

Several segments may share one image (a layer), told apart by their label values, and any edit may split, merge, crop
or reallocate layers. What counts here is what a segment covers: an image that was not touched is not looked at, and of
one that was touched, only the segments whose own voxels differ are reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..geometry import Box
from .volumes import arrayFromMatrix

LABELMAP = "Binary labelmap"
MATRIX_TOLERANCE = 1e-5  # in mm per voxel; files keep fewer digits than memory


@dataclass(frozen=True, eq=False)
class SegmentContent:
    """What one segment covers.

    Attributes:
        mask: its voxels in the smallest box [k, j, i]; of size 0 where it is empty.
        offset: (i, j, k) of the box's first voxel.
        ijk_to_ras: 4×4, to the coordinates of the segmentation node (not of the world).
    """

    mask: np.ndarray
    offset: tuple[int, int, int]
    ijk_to_ras: np.ndarray

    @property
    def box(self) -> Box:
        """The box of ``mask``, in voxels of the segment's image."""
        return Box(self.offset, tuple(a + n for a, n in zip(self.offset, self.mask.shape[::-1], strict=True)))

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same voxels, also when they come from a file or from another layer."""
        digest = hashlib.blake2b(np.array([*self.offset, *self.mask.shape], np.int64).tobytes(), digest_size=12)
        digest.update(np.packbits(self.mask))
        return digest.hexdigest()


_EMPTY = np.zeros((0, 0, 0), bool)


def _content(image: slicer.vtkOrientedImageData, labelValues: Iterable[int]) -> dict[int, SegmentContent]:
    """What each label value covers in a layer."""
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ijkToRas = arrayFromMatrix(matrix)
    found = {value: SegmentContent(_EMPTY, (0, 0, 0), ijkToRas) for value in labelValues}
    if image.IsEmpty():
        return found
    extent = np.array(image.GetExtent()).reshape(3, 2)
    shape = tuple((extent[:, 1] - extent[:, 0] + 1)[::-1])
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
    boxes = _boxes(values, found) if len(found) > 1 else dict.fromkeys(found, Box((0, 0, 0), shape[::-1]))
    for value, box in boxes.items():
        mask = values[box.slices] == value
        inner = Box.around(mask)
        if inner is not None:
            offset = tuple(int(n) for n in extent[:, 0] + np.array(box.start) + np.array(inner.start))
            found[value] = SegmentContent(np.ascontiguousarray(mask[inner.slices]), offset, ijkToRas)
    return found


def _boxes(values: np.ndarray, wanted: Iterable[int]) -> dict[int, Box]:
    """The box of each wanted value in an image that is mostly zero."""
    # A comparison and a search in booleans are some thirty times faster than a search in the values themselves.
    positions = np.flatnonzero(values != 0)
    labels = values.ravel()[positions]
    order = np.argsort(labels, kind="stable")
    labels, positions = labels[order], positions[order]
    boxes = {}
    for value in wanted:
        first, last = np.searchsorted(labels, (value, value + 1))
        if first < last:
            kji = np.array(np.unravel_index(positions[first:last], values.shape))
            boxes[value] = Box(tuple(kji.min(axis=1)[::-1].tolist()), tuple((kji.max(axis=1)[::-1] + 1).tolist()))
    return boxes


@dataclass(frozen=True, eq=False)
class _Known:
    """A segment as it was last read; holding the image keeps another one from taking its address."""

    image: slicer.vtkOrientedImageData
    time: int
    labelValue: int
    content: SegmentContent


class SegmentReader:
    """Reads segments of a segmentation node and remembers them."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def read(self, segmentation: slicer.vtkSegmentation, segmentIds: Iterable[str]) -> dict[str, SegmentContent]:
        """What the segments cover. One whose image was not touched since the last time is taken from memory; one whose
        image was touched, but not its own voxels, keeps its old object.
        """
        segments = {segmentId: segmentation.GetSegment(segmentId) for segmentId in segmentIds}
        result: dict[str, SegmentContent] = {}
        layers: dict[int, tuple[slicer.vtkOrientedImageData, list[str]]] = {}
        for segmentId, segment in segments.items():
            image = segment.GetRepresentation(LABELMAP)
            if image is None:  # drawn as a surface: nothing to count
                result[segmentId] = SegmentContent(_EMPTY, (0, 0, 0), np.eye(4))
            elif self._isUntouched(segmentId, image, segment.GetLabelValue()):
                result[segmentId] = self._known[segmentId].content
            else:
                layers.setdefault(id(image), (image, []))[1].append(segmentId)
        for image, ids in layers.values():
            values = {segmentId: segments[segmentId].GetLabelValue() for segmentId in ids}
            contents = _content(image, values.values())
            for segmentId, value in values.items():
                content = self._sameAsBefore(segmentId, contents[value])
                self._known[segmentId] = _Known(image, image.GetMTime(), value, content)
                result[segmentId] = content
        return {segmentId: result[segmentId] for segmentId in segments}

    def forget(self, segmentIds: Iterable[str]) -> None:
        """Frees what is remembered about segments that are gone."""
        for segmentId in segmentIds:
            self._known.pop(segmentId, None)

    def _isUntouched(self, segmentId: str, image: slicer.vtkOrientedImageData, labelValue: int) -> bool:
        known = self._known.get(segmentId)
        return (
            known is not None
            and known.image is image
            and known.time == image.GetMTime()
            and known.labelValue == labelValue
        )

    def _sameAsBefore(self, segmentId: str, content: SegmentContent) -> SegmentContent:
        known = self._known.get(segmentId)
        if known is not None and covers_the_same(known.content, content):
            return known.content
        return content


def covers_the_same(one: SegmentContent, other: SegmentContent) -> bool:
    """Whether both cover the same voxels at the same place."""
    return (
        one.offset == other.offset
        and np.array_equal(one.mask, other.mask)
        and np.abs(one.ijk_to_ras - other.ijk_to_ras).max() <= MATRIX_TOLERANCE
    )
