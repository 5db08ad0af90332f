"""Measures everything about a liver and its lesions, from a CT with its labels."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from ..findings import Finding
from ..geometry import Box
from ..result import FIRST_LESION_LABEL, LIVER_LABEL, Result, summarize
from ..steps import exhausted
from ..volume import Volume
from .assessment import AssessedLesion, Assessment
from .couinaud import BY_VALUE, CouinaudMap, shares
from .diameters import slice_axis
from .measurements import LIVER_MEASUREMENTS, NOT_A_NUMBER, LiverFigures, measure_region, region_of
from .region import BEYOND, LIVER, OTHER_LESION, OUTSIDE, THIS_LESION, Region, cut

HIGHEST_LABEL = 65535
UNREVIEWED, REJECTED = "unreviewed", "rejected"


@dataclass(frozen=True)
class LesionNote:
    """What a reader, or an earlier file, says about the lesion with ``label``.

    Attributes:
        name: empty for 'Lesion n', n counted from 1 by labels.
        review: 'unreviewed', 'accepted', 'unsure', or 'rejected', which makes the lesion liver.
        tracking_uid: empty for a new one.
    """

    label: int
    name: str = ""
    review: str = UNREVIEWED
    comment: str = ""
    tracking_uid: str = ""


def voxel_digest(array: np.ndarray) -> bytes:
    """Tells a CT from others by some thousand of its voxels [k, j, i]."""
    sample = np.rint(array[::8, ::16, ::16]).clip(-32768, 32767).astype("<i2")
    return hashlib.blake2b(np.array(array.shape, "<i8").tobytes() + sample.tobytes(), digest_size=16).digest()


def tracking_uid(ct: bytes, region: Region, taken: Container[str] = ()) -> str:
    """A DICOM UID for a lesion: 2.25 and a UUID as a number (DICOM PS3.5, B.2).

    The UUID follows from the CT and the voxels, so that all files and scenes of one result name a lesion alike. It is
    random without a CT, and where two lesions have the same voxels.

    Args:
        ct: :func:`voxel_digest` of the CT; empty without one.
        taken: UIDs of other lesions.
    """
    voxels = region.ct_voxels
    if ct and voxels is not None:
        name = hashlib.blake2b(ct + voxels.astype("<i4").tobytes(), digest_size=16).digest()
        found = f"2.25.{uuid.UUID(bytes=name, version=5).int}"
        if found not in taken:
            return found
    return f"2.25.{uuid.uuid4().int}"


def slice_thickness_mm(volume: Volume) -> float:
    """Thickness of slices for RECIST: their distance, or what DICOM says (SliceThickness) where that is more."""
    step = float(volume.grid.spacing[slice_axis(volume.grid)])
    try:
        said = float(str(volume.source.get("slice_thickness_mm") or 0).split("\\")[0])
    except ValueError:
        return step
    return max(step, said) if math.isfinite(said) else step


class LabelsAround:
    """A label map and its CT around one of its lesions; see :class:`.region.Around`.

    Args:
        volume: the CT.
        labels: 0 background, 1 liver, 2 and above lesions, [k, j, i] on ``volume.grid``.
        label: of the lesion.
        highest: of all labels.
        bounds: holds all labels, one voxel wider than they are.
        has_liver: whether any voxel is liver.
    """

    def __init__(self, volume: Volume, labels: np.ndarray, label: int, highest: int, bounds: Box, has_liver: bool):
        self._array, self._labels = volume.array, labels
        # One more entry at the end: what lies beyond the volume comes as label -1.
        self._classes = np.full(highest + 2, OTHER_LESION, np.uint8)
        self._classes[[0, LIVER_LABEL, label, -1]] = OUTSIDE, LIVER, THIS_LESION, BEYOND
        self.bounds, self.has_liver, self.ct_grid = bounds, has_liver, volume.grid
        self.slice_thickness_mm = slice_thickness_mm(volume)

    def hounsfield(self, box: Box) -> np.ndarray:
        """float32 [k, j, i], in HU; not a number beyond the CT."""
        return cut(self._array, box, np.nan, np.float32)

    def classes(self, box: Box) -> np.ndarray:
        """uint8 [k, j, i], as :mod:`.region` counts."""
        return self._classes[cut(self._labels, box, -1, np.int32)]


def assess(volume: Volume, labels: np.ndarray, **known: Any) -> Assessment:
    """Measures a liver and its lesions: :func:`assess_steps`, with the same arguments, at once."""
    return exhausted(assess_steps(volume, labels, **known))


def assess_steps(
    volume: Volume,
    labels: np.ndarray,
    *,
    lesions: Sequence[LesionNote] = (),
    couinaud: CouinaudMap | None = None,
    confidences: Mapping[int, float] | None = None,
    findings: Sequence[Finding] = (),
    provenance: Mapping[str, Any] | None = None,
    rejected: int = 0,
) -> Generator[None, None, Assessment]:
    """Measures a liver and its lesions, with a pause after each lesion.

    Args:
        volume: the CT.
        labels: whole numbers [k, j, i] on ``volume.grid``: 0 background, 1 liver, every higher one a lesion.
        lesions: what is known of lesions beside their voxels; notes on labels without voxels are left out.
        couinaud: the liver's segments, on ``volume.grid``.
        confidences: of the network, 0…1, by lesion id (label minus 1).
        findings: about the input and the run.
        provenance: of the run.
        rejected: how many lesions were made liver by the reader before this.

    Raises:
        ValueError: arrays of another shape than the CT's, negative labels, or labels that are not whole numbers.
    """
    labels = _checked(volume, labels, couinaud)
    yield
    notes = {note.label: note for note in lesions}
    refused = [n for n in sorted(notes) if n >= FIRST_LESION_LABEL and notes[n].review == REJECTED]
    refused = [n for n in refused if (labels == n).any()]
    if refused:
        labels = np.where(np.isin(labels, refused), labels.dtype.type(LIVER_LABEL), labels)
    box = Box.around(labels > 0)
    figures = LiverFigures(0.0, ())
    found: list[AssessedLesion] = []
    if box is not None:
        part = labels[box.slices]
        counts = np.bincount(part.ravel())
        wider = Box(tuple(n - 1 for n in box.start), tuple(n + 1 for n in box.stop))
        yield
        digest = voxel_digest(volume.array)
        yield
        taken = {note.tracking_uid for note in lesions}
        for label, region in _regions(volume, labels, part, box, wider, confidences or {}):
            note = notes.get(label) or LesionNote(label)
            uid = note.tracking_uid or tracking_uid(digest, region, taken)
            taken.add(uid)
            found.append(_assessed(region, replace(note, tracking_uid=uid), couinaud))
            yield
        is_liver = part == LIVER_LABEL
        mean = float(volume.array[box.slices][is_liver].mean(dtype=np.float64)) if counts[1] else NOT_A_NUMBER
        total = int(counts[1:].sum()) * volume.grid.voxel_volume_mm3 / 1000
        figures = LiverFigures(total, tuple(lesion.values["volume_ml"] for lesion in found), mean)
    yield
    whole, of_lesions = _couinaud_volumes(volume, labels, box, couinaud)
    return Assessment(
        volume=volume,
        labels=labels,
        lesions=tuple(found),
        liver={measurement.key: measurement.compute(figures) for measurement in LIVER_MEASUREMENTS},
        rejected=rejected + len(refused),
        couinaud=couinaud,
        couinaud_ml=whole,
        couinaud_lesion_ml=of_lesions,
        findings=tuple(findings),
        provenance=dict(provenance or {}),
        summary=_summary(figures, rejected + len(refused)),
    )


def assess_result(result: Result, couinaud: CouinaudMap | None = None) -> Assessment:
    """Everything about a finished run."""
    return assess(
        result.volume,
        result.labels,
        couinaud=couinaud,
        confidences=result.confidences,
        findings=result.findings,
        provenance=result.provenance,
    )


def _checked(volume: Volume, labels: np.ndarray, couinaud: CouinaudMap | None) -> np.ndarray:
    if labels.shape != volume.grid.shape:
        raise ValueError(f"The labels have shape {labels.shape}, but their CT has {volume.grid.shape}.")
    if couinaud is not None and couinaud.labels.shape != labels.shape:
        raise ValueError(f"The Couinaud segments have shape {couinaud.labels.shape}, but their CT has {labels.shape}.")
    if labels.dtype.kind not in "iub" or (labels.size and (labels.min() < 0 or labels.max() > HIGHEST_LABEL)):
        raise ValueError(f"Labels are whole numbers from 0 to {HIGHEST_LABEL}.")
    return labels.astype(np.uint8) if labels.dtype == bool else labels


def _regions(
    volume: Volume, labels: np.ndarray, part: np.ndarray, box: Box, wider: Box, confidences: Mapping[int, float]
) -> Iterator[tuple[int, Region]]:
    """The lesions of a label map, by rising labels."""
    has_liver = bool((part == LIVER_LABEL).any())
    blocks = ndimage.find_objects(part)
    for label, block in enumerate(blocks, start=1):
        if block is None or label < FIRST_LESION_LABEL:
            continue
        offset = tuple(a + s.start for a, s in zip(box.start, block[::-1], strict=True))
        around = LabelsAround(volume, labels, label, len(blocks), wider, has_liver)
        confidence = float(confidences.get(label - 1, NOT_A_NUMBER))
        yield label, region_of(part[block] == label, volume.grid, offset, around, confidence)


def _assessed(region: Region, note: LesionNote, couinaud: CouinaudMap | None) -> AssessedLesion:
    return AssessedLesion(
        label=note.label,
        name=note.name or f"Lesion {note.label - FIRST_LESION_LABEL + 1}",
        box=region.box,
        values=measure_region(region),
        long_axis=region.axial.long,
        short_axis=region.axial.short,
        couinaud=() if couinaud is None else shares(couinaud.labels[region.box.slices], region.mask),
        review=note.review or UNREVIEWED,
        comment=note.comment,
        tracking_uid=note.tracking_uid,
    )


def _couinaud_volumes(
    volume: Volume, labels: np.ndarray, box: Box | None, couinaud: CouinaudMap | None
) -> tuple[dict[int, float], dict[int, float]]:
    """mL of each segment that there is, of liver and lesions, and of lesions alone."""
    if couinaud is None or box is None:
        return {}, {}
    segments, part = couinaud.labels[box.slices], labels[box.slices]
    voxel_ml = volume.grid.voxel_volume_mm3 / 1000
    whole = np.bincount(segments[part > 0], minlength=max(BY_VALUE) + 1)
    ill = np.bincount(segments[part >= FIRST_LESION_LABEL], minlength=max(BY_VALUE) + 1)
    there = [value for value in BY_VALUE if whole[value]]
    return {n: float(whole[n] * voxel_ml) for n in there}, {n: float(ill[n] * voxel_ml) for n in there}


def _summary(liver: LiverFigures, rejected: int) -> str:
    text = summarize(liver.volume_ml, liver.lesion_ml)
    if rejected:
        text = f"{text[:-1]}; {rejected} more {'was' if rejected == 1 else 'were'} rejected."
    return text
