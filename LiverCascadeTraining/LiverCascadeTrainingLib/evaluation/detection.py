"""Which lesions were found: predicted and reference lesions, and three rules that bring them together.

A lesion is a connected component (26 neighbors). All three rules work on the
voxels that lesions share.

* *Touching*, the rule of all figures that name none: a reference lesion is detected at a threshold if its IoU with all
  predicted lesions that touch it, taken together, is above it; a predicted lesion is true at a threshold if its IoU
  with all reference lesions that touch it, taken together, is above it; else it is a false positive.
* *LiTS*, as that challenge documents it: reference lesions whose largest share belongs to the same predicted lesion
  are merged, predicted lesions with the same (merged) reference are merged, and a pair is detected if its IoU is above
  the threshold. The challenge's public scorer compares component numbers there instead, so that a lesion of IoU 0.008
  counted as detected, and it fails on a case without lesions; the rule is meant here, not the scorer. The scorer has
  components by faces, this room by 26 neighbors, as everywhere in LiverCascade.
* *One to one*, as panoptic quality has it (Kirillov et al. 2019): pairs with an IoU above 0.5, of which a lesion can
  be in one only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.lesions.diameters import axial_diameters
from LiverCascadeLib.postprocess import components

THRESHOLDS = (0.0, 0.1, 0.5)
BINS = ("<10", "10–20", ">20")
ONE_TO_ONE_IOU = 0.5
# Lobed synthetic lesions leave crumbs beside them, down to a single voxel; what was planted measures 5 mm and more.
LEAST_LESION_MM = 4.0


@dataclass(frozen=True)
class FoundLesion:
    """One lesion of the prediction or of the reference.

    Attributes:
        number: of the component, 1 the largest.
        volume_ml: its volume.
        equivalent_diameter_mm: diameter of the sphere of its volume, (6 V / π)^(1/3).
        long_axis_mm: longest diameter in an axial plane.
        center_ras: mean of its voxels' centers, mm.
        iou: with all lesions of the other side that touch it, taken together; 0 where none does.
        lits_iou: of its merged pair by the rule of LiTS; 0 where it has none.
        pair_iou: the highest with one lesion of the other side; above 0.5 these are the pairs one to one.
        confidence: 0…1 of a predicted lesion, where it is known.
    """

    number: int
    volume_ml: float
    equivalent_diameter_mm: float
    long_axis_mm: float
    center_ras: tuple[float, float, float]
    iou: float
    lits_iou: float
    pair_iou: float
    confidence: float | None = None

    @property
    def size_bin(self) -> str:
        """The bin of the long axis: below 10 mm, 10 to 20 mm, above 20 mm, as in reports."""
        return BINS[0] if self.long_axis_mm < 10 else BINS[1] if self.long_axis_mm <= 20 else BINS[2]


@dataclass(frozen=True)
class SharedVoxels:
    """How lesions overlap, as a list of pairs: a prediction of noise may have a hundred thousand of them.

    Attributes:
        rows, columns: predicted and reference lesion of each pair that shares voxels, from 0.
        counts: how many voxels it shares.
        predicted, reference: voxels of each lesion.
    """

    rows: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    predicted: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(cls, predicted: np.ndarray, reference: np.ndarray) -> SharedVoxels:
        """Counts of two arrays of component numbers, 0 background, 1 and above lesions."""
        where = (predicted > 0) & (reference > 0)
        width = int(reference.max(initial=0)) + 1
        pairs, counts = np.unique(predicted[where].astype(np.int64) * width + reference[where], return_counts=True)
        sizes = [np.bincount(n[n > 0], minlength=int(n.max(initial=0)) + 1)[1:] for n in (predicted, reference)]
        return cls(pairs // width - 1, pairs % width - 1, counts, *sizes)

    @property
    def transposed(self) -> SharedVoxels:
        """The same with both sides exchanged."""
        return SharedVoxels(self.columns, self.rows, self.counts, self.reference, self.predicted)

    def touching_iou(self) -> np.ndarray:
        """For each reference lesion: IoU with all predicted lesions that touch it, taken together."""
        shared = _sums(self.columns, self.counts, len(self.reference))
        together = _sums(self.columns, self.predicted[self.rows], len(self.reference))
        return shared / (self.reference + together - shared)

    def pair_iou(self) -> np.ndarray:
        """For each reference lesion: the highest IoU with one predicted lesion."""
        best = np.zeros(len(self.reference))
        union = self.predicted[self.rows] + self.reference[self.columns] - self.counts
        np.maximum.at(best, self.columns, self.counts / union)
        return best

    def lits_iou(self) -> tuple[np.ndarray, np.ndarray]:
        """IoU of the merged pair that each lesion is in, by the rule of LiTS; 0 where it is in none.

        Returns:
            for predicted and for reference lesions.
        """
        rows, columns = len(self.predicted), len(self.reference)
        # Every reference lesion goes to the prediction that covers most of it; those of one prediction are a group.
        group = _largest_partner(self.columns, self.rows, self.counts, columns)
        # Every predicted lesion goes to the group of which it covers most.
        keys, inverse = np.unique(self.rows * max(1, rows) + group[self.columns], return_inverse=True)
        merged = _sums(inverse, self.counts, len(keys))
        members, groups = keys // max(1, rows), keys % max(1, rows)
        goal = _largest_partner(members, groups, merged, rows)
        chosen = goal[members] == groups
        shared = _sums(groups[chosen], merged[chosen], rows)
        predicted = _sums(goal[goal >= 0], self.predicted[goal >= 0], rows)
        reference = _sums(group[group >= 0], self.reference[group >= 0], rows)
        # A group that no prediction chose is not found; the last entry stands for lesions without a partner.
        iou = np.append(np.where(shared > 0, shared / np.maximum(1, predicted + reference - shared), 0), 0)
        return iou[goal], iou[group]


def _sums(keys: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(keys, values, count)


def _largest_partner(items: np.ndarray, partners: np.ndarray, counts: np.ndarray, count: int) -> np.ndarray:
    """For each of ``count`` items the partner with the highest count, the first of equal ones; -1 without any."""
    order = np.lexsort((partners, -counts, items))
    found, first = np.unique(items[order], return_index=True)
    best = np.full(count, -1)
    best[found] = partners[order][first]
    return best


def find_lesions(
    predicted: np.ndarray, reference: np.ndarray, grid: Grid, confidences: np.ndarray | None = None
) -> tuple[tuple[FoundLesion, ...], tuple[FoundLesion, ...]]:
    """Lesions of both sides, each with its agreement with the other side.

    Args:
        predicted, reference: lesion masks [k, j, i] on ``grid``.
        confidences: 0…1 at the voxels of predicted lesions, or not a number where it is not known; a lesion has that
            of most of its voxels.

    Returns:
        predicted lesions, reference lesions, both by falling size.
    """
    found, true = components(predicted)[0], components(reference)[0]
    shared = SharedVoxels.of(found, true)
    lits_predicted, lits_reference = shared.lits_iou()
    sides = (
        (found, shared.transposed.touching_iou(), lits_predicted, shared.transposed.pair_iou(), confidences),
        (true, shared.touching_iou(), lits_reference, shared.pair_iou(), None),
    )
    return tuple(_described(numbers, grid, *rest) for numbers, *rest in sides)


def _described(
    numbers: np.ndarray,
    grid: Grid,
    iou: Sequence[float],
    lits_iou: Sequence[float],
    pair_iou: Sequence[float],
    confidences: np.ndarray | None,
) -> tuple[FoundLesion, ...]:
    from scipy import ndimage

    lesions = []
    for index, block in enumerate(ndimage.find_objects(numbers)):
        mask = numbers[block] == index + 1
        offset = tuple(s.start for s in block[::-1])
        volume = float(np.count_nonzero(mask)) * grid.voxel_volume_mm3
        equivalent = (6 * volume / np.pi) ** (1 / 3)
        axis = axial_diameters(mask, grid, offset).long
        center = grid.to_ras(np.argwhere(mask)[:, ::-1].mean(axis=0) + offset)
        lesions.append(
            FoundLesion(
                number=index + 1,
                volume_ml=volume / 1000,
                equivalent_diameter_mm=equivalent,
                long_axis_mm=axis.length_mm if axis else equivalent,
                center_ras=tuple(float(x) for x in center),
                iou=float(iou[index]),
                lits_iou=float(lits_iou[index]),
                pair_iou=float(pair_iou[index]),
                confidence=None if confidences is None else _most_frequent(confidences[block][mask]),
            )
        )
    return tuple(lesions)


def _most_frequent(values: np.ndarray) -> float | None:
    kept, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    return float(kept[counts.argmax()]) if len(kept) else None
