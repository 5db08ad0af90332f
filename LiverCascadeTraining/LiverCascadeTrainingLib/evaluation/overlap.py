"""Agreement by counting voxels.

The rule for empty masks, here and everywhere in this room: where both masks are empty they agree perfectly. Where one
is empty, what the formula still defines keeps its value (Dice 0), and the rest (0/0, x/0, a distance) is not a number,
which no mean takes in and every table counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOT_A_NUMBER = float("nan")


@dataclass(frozen=True)
class Overlap:
    """Voxels of a predicted and a reference mask.

    Attributes:
        both, predicted_only, reference_only, neither: counts; they add up to the voxels of the scan.
    """

    both: int
    predicted_only: int
    reference_only: int
    neither: int

    @classmethod
    def of(cls, predicted: np.ndarray, reference: np.ndarray, voxels: int | None = None) -> Overlap:
        """Counts of two boolean masks of one shape.

        Args:
            voxels: of the whole scan, where the masks are a block of it that holds all that is true.
        """
        both = int(np.count_nonzero(predicted & reference))
        left = int(np.count_nonzero(predicted)) - both
        right = int(np.count_nonzero(reference)) - both
        return cls(both, left, right, (predicted.size if voxels is None else voxels) - both - left - right)

    @property
    def predicted(self) -> int:
        """Voxels of the predicted mask."""
        return self.both + self.predicted_only

    @property
    def reference(self) -> int:
        """Voxels of the reference mask."""
        return self.both + self.reference_only

    @property
    def union(self) -> int:
        """Voxels of either."""
        return self.both + self.predicted_only + self.reference_only

    def _ratio(self, part: float, whole: float) -> float:
        if not self.union:
            return 1.0
        return part / whole if whole else NOT_A_NUMBER

    @property
    def dice(self) -> float:
        """2 |P ∩ R| / (|P| + |R|)."""
        return self._ratio(2 * self.both, self.predicted + self.reference)

    @property
    def iou(self) -> float:
        """|P ∩ R| / |P ∪ R|, the Jaccard index."""
        return self._ratio(self.both, self.union)

    @property
    def voe(self) -> float:
        """Volumetric overlap error, 1 − IoU."""
        return 1 - self.iou

    @property
    def rvd(self) -> float:
        """Relative volume difference (|P| − |R|) / |R|: above 0 is too much; two empty masks differ by 0."""
        if not self.union:
            return 0.0
        return (self.predicted - self.reference) / self.reference if self.reference else NOT_A_NUMBER

    @property
    def sensitivity(self) -> float:
        """|P ∩ R| / |R|, also called recall or true positive rate."""
        return self._ratio(self.both, self.reference)

    @property
    def precision(self) -> float:
        """|P ∩ R| / |P|, also called positive predictive value."""
        return self._ratio(self.both, self.predicted)

    @property
    def specificity(self) -> float:
        """Share of the scan's voxels outside the reference that are outside the prediction."""
        outside = self.neither + self.predicted_only
        return self.neither / outside if outside else NOT_A_NUMBER

    @property
    def accuracy(self) -> float:
        """Share of the scan's voxels that are rightly inside or outside."""
        return (self.both + self.neither) / (self.union + self.neither)


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """2 |P ∩ R| / (|P| + |R|) of two masks of one shape; two empty masks agree perfectly (1)."""
    return Overlap.of(predicted, reference).dice
