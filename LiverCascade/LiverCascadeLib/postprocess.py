"""From probabilities to labels: components, holes, small islands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .geometry import Box, Grid
from .pixels import array_of
from .result import FIRST_LESION_LABEL, LIVER_LABEL, Lesion

LESION_CLASS = 2

# Down to this probability what surrounds a lesion is its halo.
HALO_PROBABILITY = 0.2


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected components (26 neighbors) of a boolean mask.

    Returns:
        (labels, sizes): int32 components [k, j, i] numbered by falling size from 1, and their voxel counts.
    """
    labels = np.zeros(mask.shape, np.int32)
    box = Box.around(mask)
    if box is None:
        return labels, np.zeros(0, np.int64)
    found, sizes = _found_components(mask[box.slices])
    order = np.argsort(-sizes, kind="stable")
    number = np.zeros(len(sizes) + 1, np.int32)
    number[order + 1] = np.arange(1, len(sizes) + 1)
    labels[box.slices] = number[found]
    return labels, sizes[order]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected component of a mask; an empty mask stays empty."""
    largest = np.zeros(mask.shape, bool)
    box = Box.around(mask)
    if box is not None:
        found, sizes = _found_components(mask[box.slices])
        largest[box.slices] = found == 1 + int(np.argmax(sizes))
    return largest


def _found_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components (26 neighbors) in the order in which they are met, and their voxel counts."""
    found, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return found, np.bincount(found[mask], minlength=count + 1)[1:]


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fills background that is enclosed in three dimensions."""
    filled = mask.copy()
    box = Box.around(mask)
    if box is not None:
        # The rim keeps all background around the mask in one piece. Where the mask touches the array's border there
        # is none, so that what is open there stays open.
        block = filled[box.grown(1, mask.shape[::-1]).slices]
        image = sitk.GetImageFromArray(block.astype(np.uint8))
        block[...] = array_of(sitk.BinaryFillhole(image, True))
    return filled


def liver_contact(numbers: np.ndarray, count: int, liver: np.ndarray) -> np.ndarray:
    """How far lesions are embedded in liver.

    Args:
        numbers: lesion components [k, j, i], 1 … ``count``.
        count: how many there are.
        liver: liver without lesions, bool [k, j, i].

    Returns:
        for each lesion the share of the voxels around it (26 neighbors) that are liver or another lesion, 0…1;
        voxels beyond the array are not counted.
    """
    contact = np.zeros(count)
    for number, block in enumerate(ndimage.find_objects(numbers, count), start=1):
        wider = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in block)
        mask = numbers[wider] == number
        shell = ndimage.binary_dilation(mask, np.ones((3, 3, 3))) & ~mask
        embedded = shell & (liver[wider] | (numbers[wider] > 0))
        contact[number - 1] = np.count_nonzero(embedded) / max(1, np.count_nonzero(shell))
    return contact


def halo_means(probability: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How sharply lesions stand out: the mean probability over each lesion together with its halo.

    A lesion with its halo is everything that hangs together above :data:`HALO_PROBABILITY`, not only what is more
    likely lesion than liver. Where there is a lesion, its probability mostly falls off within a voxel or two; a doubt
    has a small sure core, if any, in a wide halo.

    Args:
        probability: of lesion, [k, j, i].
        inside: where lesions may be, bool [k, j, i].

    Returns:
        float32 [k, j, i]: at each voxel of a lesion or of its halo the mean over both, and 0 elsewhere.
    """
    means = np.zeros(probability.shape, np.float32)
    wide = inside & (probability > HALO_PROBABILITY)
    box = Box.around(wide)
    if box is not None:
        numbers, _ = _found_components(wide[box.slices])
        sizes = np.bincount(numbers.ravel())
        sums = np.bincount(numbers.ravel(), probability[box.slices].ravel().astype(np.float64))
        sums[0] = 0
        means[box.slices] = (sums / np.maximum(1, sizes)).astype(np.float32)[numbers]
    return means


@dataclass(frozen=True)
class CleanUp:
    """What is removed.

    Attributes:
        min_lesion_voxels, min_lesion_mm3: a lesion that is below both is an island of noise.
        min_liver_contact: what has less than this share of its surface on liver lies beside the liver, not in it; it
            is neither lesion nor liver.
        min_lesion_peak: a lesion whose highest probability stays below this is a doubt, not a lesion; None takes what
            the model's manifest says.
        min_lesion_confidence: so is one whose confidence is below this, see :class:`.models.calibration.Calibration`;
            without a calibration nothing is. None as above.
    """

    min_lesion_voxels: int = 30
    min_lesion_mm3: float = 65.0  # a sphere of 5 mm diameter
    min_liver_contact: float = 0.35
    min_lesion_peak: float | None = None
    min_lesion_confidence: float | None = None


def clean(
    classes: np.ndarray, grid: Grid, limits: CleanUp, probability: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[Lesion, ...]]:
    """Keeps the largest liver, fills its holes, keeps lesions inside it, drops islands and doubts, numbers the rest.

    Args:
        classes: 0 background, 1 liver, 2 lesion, [k, j, i] on ``grid``.
        grid: the grid of ``classes``.
        limits: what counts as an island, and as a doubt.
        probability: of lesion, [k, j, i] on ``grid``; None judges by size alone.

    Returns:
        (labels, lesions): labels as in :class:`.result.Result` (uint8, or uint16 from 255 lesions on), and the
        lesions with boxes in voxels of ``grid``.
    """
    box = Box.around(classes > 0)
    if box is None:
        return np.zeros(classes.shape, np.uint8), ()
    # Nothing below looks further than one voxel around the liver.
    box = box.grown(1, grid.size)
    part = _clean_part(classes[box.slices], grid, limits, None if probability is None else probability[box.slices])
    labels = np.zeros(classes.shape, part.dtype)
    labels[box.slices] = part
    return labels, measure_lesions(labels, grid)


def _clean_part(classes: np.ndarray, grid: Grid, limits: CleanUp, probability: np.ndarray | None) -> np.ndarray:
    """The labels of :func:`clean`; ``grid`` is asked for the size of its voxels only."""
    liver = fill_holes(largest_component(classes > 0))
    numbers, sizes = components((classes == LESION_CLASS) & liver)
    beside = liver_contact(numbers, len(sizes), liver & (numbers == 0)) < limits.min_liver_contact
    if beside.any():
        liver &= ~np.concatenate([[False], beside])[numbers]
        liver = fill_holes(largest_component(liver))
        numbers, sizes = components((classes == LESION_CLASS) & liver)
    inside = numbers > 0
    voxel = grid.voxel_volume_mm3
    real = (sizes >= limits.min_lesion_voxels) | (sizes * voxel >= limits.min_lesion_mm3)
    if probability is not None and limits.min_lesion_peak:
        peaks = np.zeros(len(sizes) + 1)
        np.maximum.at(peaks, numbers[inside], probability[inside])
        real &= peaks[1:] >= limits.min_lesion_peak
    # Components are numbered by falling size, and so are those that stay.
    new_number = np.concatenate([[0], np.where(real, np.cumsum(real), 0)])
    labels = liver.astype(np.uint8 if real.sum() + LIVER_LABEL <= 255 else np.uint16)
    labels[inside] += new_number[numbers[inside]].astype(labels.dtype)
    return labels


def only_lesions(labels: np.ndarray, ids: Sequence[int], grid: Grid) -> tuple[np.ndarray, tuple[Lesion, ...]]:
    """Some of the lesions of a label map, numbered anew without a gap; the others become liver.

    Args:
        labels: as in :class:`.result.Result`, on ``grid``.
        ids: of the lesions that stay, rising.

    Returns:
        as :func:`clean`.
    """
    new_label = np.minimum(np.arange(int(labels.max(initial=0)) + 1), LIVER_LABEL)
    for number, lesion_id in enumerate(ids):
        new_label[FIRST_LESION_LABEL - 1 + lesion_id] = FIRST_LESION_LABEL + number
    kept = new_label.astype(labels.dtype)[labels]
    return kept, measure_lesions(kept, grid)


def measure_lesions(labels: np.ndarray, grid: Grid) -> tuple[Lesion, ...]:
    """The lesions of a label map, by falling label order; see :class:`.result.Lesion`.

    Args:
        labels: as in :class:`.result.Result`, on ``grid``.
    """
    lesions = labels >= FIRST_LESION_LABEL
    outer = Box.around(lesions)
    if outer is None:
        return ()
    part = labels[outer.slices]
    positions = np.argwhere(part >= FIRST_LESION_LABEL)
    ids = part[tuple(positions.T)].astype(np.int64) - FIRST_LESION_LABEL + 1
    order = np.argsort(ids, kind="stable")
    positions, ids = positions[order][:, ::-1] + np.array(outer.start), ids[order]
    found = []
    for group in np.split(np.arange(len(ids)), np.flatnonzero(np.diff(ids)) + 1):
        voxels = positions[group]
        found.append(
            Lesion(
                id=int(ids[group[0]]),
                voxel_count=len(voxels),
                volume_ml=len(voxels) * grid.voxel_volume_mm3 / 1000,
                centroid_ras=tuple(float(x) for x in grid.to_ras(voxels.mean(axis=0))),
                box=Box(tuple(voxels.min(axis=0).tolist()), tuple((voxels.max(axis=0) + 1).tolist())),
            )
        )
    return tuple(found)
