"""All figures of one case, each declared once with its unit, its direction and its definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from LiverCascadeLib.geometry import Box, Grid

from .detection import FoundLesion, find_lesions
from .overlap import NOT_A_NUMBER, Overlap
from .surfaces import TOLERANCES_MM, SurfaceDistances, surface_dice, surface_distances, union_block

STRUCTURES = {"liver": "Liver", "lesion": "Lesions"}


@dataclass(frozen=True)
class Agreement:
    """What the figures of one structure are computed from.

    Attributes:
        overlap: counts of voxels.
        distances: between the surfaces; None where a mask is empty.
        surface_dice: one figure for each of :data:`.surfaces.TOLERANCES_MM`.
        voxel_ml: volume of a voxel.
    """

    overlap: Overlap
    distances: SurfaceDistances | None
    surface_dice: tuple[float, ...]
    voxel_ml: float

    def distance(self, name: str) -> float:
        """A figure of :class:`SurfaceDistances`: 0 for two empty masks, not a number where one is empty."""
        if self.distances is None:
            return NOT_A_NUMBER if self.overlap.union else 0.0
        return getattr(self.distances, name)


@dataclass(frozen=True)
class Figure:
    """A figure of one structure in one case.

    Attributes:
        key: its name in files, after the structure's.
        title: for tables.
        unit: such as 'mm', or empty.
        digits: after the decimal point, for readers.
        better: 'high', 'low', or 'zero' where both directions are wrong; empty where it is no measure of quality.
        definition: one line.
        value: computes it.
    """

    key: str
    title: str
    unit: str
    digits: int
    better: str
    definition: str
    value: Callable[[Agreement], float]

    def text(self, value: float | None) -> str:
        """The figure for a reader, without its unit; a dash where it is not known."""
        return as_text(value, self.digits)

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def as_text(value: float | None, digits: int) -> str:
    """A number with so many digits after the decimal point; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    # Adding 0 turns what rounds to −0 into 0.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _nsd(index: int) -> Figure:
    mm = TOLERANCES_MM[index]
    definition = f"share of both surfaces' area within {mm:g} mm of the other (NSD, by surface elements)"
    return Figure(
        f"nsd_{mm:g}mm", f"NSD {mm:g} mm", "", 3, "high", definition, lambda agreement: agreement.surface_dice[index]
    )


FIGURES: tuple[Figure, ...] = (
    Figure("dice", "Dice", "", 3, "high", "2|P∩R| / (|P|+|R|)", lambda a: a.overlap.dice),
    Figure("iou", "IoU", "", 3, "high", "|P∩R| / |P∪R|", lambda a: a.overlap.iou),
    Figure("voe", "VOE", "", 3, "low", "1 − IoU", lambda a: a.overlap.voe),
    Figure("rvd", "RVD", "", 3, "zero", "(|P|−|R|) / |R|, above 0 is too much", lambda a: a.overlap.rvd),
    Figure(
        "assd_mm",
        "ASSD",
        "mm",
        2,
        "low",
        "mean distance from the surface voxels of each to the nearest of the other",
        lambda a: a.distance("assd_mm"),
    ),
    Figure("msd_mm", "MSD", "mm", 1, "low", "largest of these distances (Hausdorff)", lambda a: a.distance("msd_mm")),
    Figure(
        "hd95_mm",
        "HD95",
        "mm",
        2,
        "low",
        "95th percentile of these distances, the larger of the two directions",
        lambda a: a.distance("hd95_mm"),
    ),
    Figure(
        "hd95_pooled_mm",
        "HD95, pooled",
        "mm",
        2,
        "low",
        "95th percentile of these distances, both directions together, as in model cards",
        lambda a: a.distance("hd95_pooled_mm"),
    ),
    *(_nsd(index) for index in range(len(TOLERANCES_MM))),
    Figure("sensitivity", "Sensitivity", "", 3, "high", "|P∩R| / |R|", lambda a: a.overlap.sensitivity),
    Figure("precision", "Precision", "", 3, "high", "|P∩R| / |P|", lambda a: a.overlap.precision),
    Figure(
        "specificity",
        "Specificity",
        "",
        5,
        "high",
        "share of the scan's voxels outside R that are outside P",
        lambda a: a.overlap.specificity,
    ),
    Figure(
        "accuracy",
        "Voxel accuracy",
        "",
        5,
        "high",
        "share of the scan's voxels that are rightly inside or outside",
        lambda a: a.overlap.accuracy,
    ),
    Figure("volume_ml", "Volume", "mL", 1, "", "of the prediction", lambda a: a.overlap.predicted * a.voxel_ml),
    Figure(
        "reference_ml", "Reference volume", "mL", 1, "", "of the reference", lambda a: a.overlap.reference * a.voxel_ml
    ),
    Figure(
        "volume_error_ml",
        "Volume error",
        "mL",
        1,
        "zero",
        "predicted − reference volume",
        lambda a: (a.overlap.predicted - a.overlap.reference) * a.voxel_ml,
    ),
    Figure(
        "absolute_volume_error_ml",
        "Absolute volume error",
        "mL",
        1,
        "low",
        "its size without its sign",
        lambda a: abs(a.overlap.predicted - a.overlap.reference) * a.voxel_ml,
    ),
)
BY_KEY: Mapping[str, Figure] = {figure.key: figure for figure in FIGURES}


@dataclass(frozen=True)
class Case:
    """One case, evaluated.

    Attributes:
        name: of the case.
        patient: cases of one patient are drawn together where chance is asked for.
        overlaps: by structure: 'liver' (with its lesions) and, where the reference tells them apart, 'lesion'.
        values: every figure of :data:`FIGURES` as 'liver_dice', 'lesion_dice', …; with lesions also 'burden',
            'reference_burden', 'burden_error' and 'labels_right', the share of the scan's voxels with the right one
            of background, liver and lesion. Not a number where a figure is not defined.
        predicted_lesions, reference_lesions: by falling size; empty where the reference does not tell them apart.
        with_lesions: whether it does.
    """

    name: str
    patient: str
    overlaps: Mapping[str, Overlap]
    values: Mapping[str, float]
    predicted_lesions: tuple[FoundLesion, ...]
    reference_lesions: tuple[FoundLesion, ...]
    with_lesions: bool

    @property
    def has_lesion(self) -> bool:
        """Whether the reference has a lesion."""
        return bool(self.reference_lesions)


def evaluate_case(
    name: str,
    predicted: np.ndarray,
    reference: np.ndarray,
    grid: Grid,
    with_lesions: bool = True,
    patient: str | None = None,
    confidences: Mapping[int, float] | None = None,
    instances: np.ndarray | None = None,
) -> Case:
    """All figures of one case.

    Args:
        name: of the case.
        predicted, reference: [k, j, i] on ``grid``: 0 background, 1 liver, 2 and above lesions.
        grid: of both.
        with_lesions: whether the reference tells lesions from liver.
        patient: None takes the case's name.
        confidences: 0…1 by label of ``instances``.
        instances: predicted labels, one value per lesion; None takes ``predicted``.
    """
    block = union_block(predicted > 0, reference > 0) or (slice(0, 1),) * 3
    part = grid.crop(Box(tuple(s.start for s in block[::-1]), tuple(s.stop for s in block[::-1])))
    first, second = predicted[block], reference[block]
    spacing, voxel_ml, voxels = grid.spacing[::-1], grid.voxel_volume_mm3 / 1000, predicted.size
    agreements = {}
    for value, structure in enumerate(STRUCTURES, start=1):
        if structure == "lesion" and not with_lesions:
            continue
        agreements[structure] = _agreement(first >= value, second >= value, spacing, voxel_ml, voxels)
    values = {
        f"{structure}_{figure.key}": figure.value(agreement)
        for structure, agreement in agreements.items()
        for figure in FIGURES
    }
    found: tuple[tuple[FoundLesion, ...], tuple[FoundLesion, ...]] = ((), ())
    if with_lesions:
        known = _confidence_map(confidences, (predicted if instances is None else instances)[block])
        found = find_lesions(first >= 2, second >= 2, part, known)
        values |= _burden(agreements)
        wrong = np.count_nonzero(np.minimum(first, 2) != np.minimum(second, 2))
        values["labels_right"] = 1 - wrong / voxels
    overlaps = {structure: agreement.overlap for structure, agreement in agreements.items()}
    return Case(name, patient or name, overlaps, values, *found, with_lesions)


def _agreement(
    predicted: np.ndarray, reference: np.ndarray, spacing: np.ndarray, voxel_ml: float, voxels: int
) -> Agreement:
    overlap = Overlap.of(predicted, reference, voxels)
    block = union_block(predicted, reference) or (slice(0, 1),) * 3
    predicted, reference = predicted[block], reference[block]
    both = overlap.predicted and overlap.reference
    distances = surface_distances(predicted, reference, spacing) if both else None
    return Agreement(overlap, distances, surface_dice(predicted, reference, spacing), voxel_ml)


def _burden(agreements: Mapping[str, Agreement]) -> dict[str, float]:
    """Lesion burden (LiTS: tumor burden): volume of lesions / of the liver with them; 0 without a liver."""
    liver, lesion = agreements["liver"].overlap, agreements["lesion"].overlap
    predicted = lesion.predicted / liver.predicted if liver.predicted else 0.0
    reference = lesion.reference / liver.reference if liver.reference else 0.0
    return {"burden": predicted, "reference_burden": reference, "burden_error": predicted - reference}


def _confidence_map(confidences: Mapping[int, float] | None, labels: np.ndarray) -> np.ndarray | None:
    """The confidence at each voxel; not a number where none is known."""
    if not confidences:
        return None
    table = np.full(max(int(labels.max(initial=0)), *confidences) + 1, NOT_A_NUMBER, np.float32)
    for label, confidence in confidences.items():
        table[label] = confidence
    return table[labels]
