"""What is measured of a lesion and of a liver, declared once: tables, exports and reports follow from it.

A measurement that is not defined for a lesion (no CT, no liver, an erased segment) is not a number, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from ..geometry import Box, Grid
from ..steps import exhausted
from .assessment import Value
from .diameters import largest_diameter_mm, slice_axis
from .region import Around, Region
from .surroundings import capsule_distance_mm, contrast_hu

Subject = TypeVar("Subject")
NOT_A_NUMBER = float("nan")
SIZE_BINS = (SMALL, MEDIUM, LARGE) = ("< 10 mm", "10–20 mm", "> 20 mm")


@dataclass(frozen=True)
class Code:
    """A coded concept, as DICOM writes it."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Measurement(Generic[Subject]):
    """One figure of a lesion or of a liver.

    Attributes:
        key: identifier in tables and files; ends with the unit.
        title: for a table's header.
        unit: as it is shown; empty where there is none.
        digits: decimals worth showing.
        compute: the figure of a :class:`~.region.Region`, or of :class:`LiverFigures`.
        kind: a 'number', a 'flag' (true or false) or a 'category' (a text).
        source: where the definition comes from.
        code: DICOM concept; None where no standard one says this.
        derivation: DICOM modifier of ``code``, such as 'Mean'.
        unit_code: UCUM.
        surroundings: what it depends on beside the lesion's own voxels: the 'shell' of liver around it, the liver's
            'surface', or nothing.
    """

    key: str
    title: str
    unit: str
    digits: int
    compute: Callable[[Subject], Value]
    kind: Literal["number", "flag", "category"] = "number"
    source: str = ""
    code: Code | None = None
    derivation: Code | None = None
    unit_code: Code | None = None
    surroundings: Literal["", "shell", "surface"] = ""

    def text(self, value: Value) -> str:
        """``value`` for a reader; empty where there is no answer."""
        if not is_known(value):
            return ""
        if self.kind == "number":
            return f"{float(value):.{self.digits}f}"
        return str(value) if self.kind == "category" else "yes" if value else "no"

    @property
    def header(self) -> str:
        """Title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def unknown(self) -> Value:
        """What stands where there is no answer."""
        return NOT_A_NUMBER if self.kind == "number" else None


def is_known(value: Value) -> bool:
    """Whether there is an answer."""
    return value is not None and not (isinstance(value, float | np.floating) and not math.isfinite(value))


def volume_ml(region: Region) -> float:
    """Voxel count × voxel volume, in mL."""
    return region.voxel_count * region.grid.voxel_volume_mm3 / 1000


def equivalent_diameter_mm(region: Region) -> float:
    """Diameter of the sphere that has the region's volume V: (6 V / π)^(1/3), in mm."""
    return float(np.cbrt(6 * region.voxel_count * region.grid.voxel_volume_mm3 / np.pi))


def long_axis_mm(region: Region) -> float:
    """Longest diameter in an axial plane of the patient; see :class:`.diameters.AxialDiameters`."""
    return region.axial.long.length_mm if region.axial.long else NOT_A_NUMBER


def short_axis_mm(region: Region) -> float:
    """Longest line across the long axis, in its plane."""
    return region.axial.short.length_mm if region.axial.short else NOT_A_NUMBER


def diameter_3d_mm(region: Region) -> float:
    """Largest distance of two points of the boundary, not less than the long axis."""
    return float(np.fmax(largest_diameter_mm(region.mask, region.grid), long_axis_mm(region)))


def mean_hu(region: Region) -> float:
    """Mean of the lesion's voxels."""
    return float(region.hounsfield.mean(dtype=np.float64)) if region.hounsfield.size else NOT_A_NUMBER


def sd_hu(region: Region) -> float:
    """Standard deviation of the lesion's voxels around their mean, as of a whole population."""
    return float(region.hounsfield.std(dtype=np.float64)) if region.hounsfield.size else NOT_A_NUMBER


def size_bin(region: Region) -> str | None:
    """The bin of the long axis."""
    length = long_axis_mm(region)
    if not math.isfinite(length):
        return None
    return SMALL if length < 10 else MEDIUM if length <= 20 else LARGE


def is_measurable(region: Region) -> bool | None:
    """Measurable by RECIST 1.1: a long axis of 10 mm or more with slices up to 5 mm, else of twice the slices.

    None where the slices are not known.
    """
    thickness = NOT_A_NUMBER if region.around is None else region.around.slice_thickness_mm
    length = long_axis_mm(region)
    if not math.isfinite(thickness) or not math.isfinite(length):
        return None
    return length >= (10.0 if thickness <= 5.0 + 1e-3 else 2 * thickness)


def touches_border(region: Region) -> bool | None:
    """Whether a voxel lies at the edge of the CT, so that part of the lesion may be missing; None without a CT."""
    if region.ct_voxels is None:
        return None
    last = np.array(region.around.ct_grid.size) - 1
    return bool((region.ct_voxels <= 0).any() or (region.ct_voxels >= last).any())


def _slice(last: bool) -> Callable[[Region], float]:
    def number(region: Region) -> float:
        if region.ct_voxels is None:
            return NOT_A_NUMBER
        numbers = region.ct_voxels[:, slice_axis(region.around.ct_grid)]
        return int(1 + (numbers.max() if last else numbers.min()))

    return number


def _centroid(axis: int) -> Callable[[Region], float]:
    return lambda region: float(region.centroid_ras[axis])


VOLUME = Code("118565006", "SCT", "Volume")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
MM = Code("mm", "UCUM", "mm")
CM3 = Code("cm3", "UCUM", "cubic centimeter")  # 1 mL
HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")
RECIST = "RECIST 1.1 (Eisenhauer 2009)"

MEASUREMENTS: tuple[Measurement[Region], ...] = (
    Measurement(
        "volume_ml", "Volume", "mL", 2, volume_ml, source="voxel count × voxel volume", code=VOLUME, unit_code=CM3
    ),
    Measurement(
        "equivalent_diameter_mm",
        "Equivalent diameter",
        "mm",
        1,
        equivalent_diameter_mm,
        source="(6 V / π)^(1/3)",
        unit_code=MM,
    ),
    Measurement(
        "long_axis_mm",
        "Long axis",
        "mm",
        1,
        long_axis_mm,
        source=f"{RECIST}: longest diameter in the axial plane",
        code=Code("103339001", "SCT", "Long axis"),
        unit_code=MM,
    ),
    Measurement(
        "short_axis_mm",
        "Short axis",
        "mm",
        1,
        short_axis_mm,
        source="longest line perpendicular to the long axis in its plane",
        code=Code("103340004", "SCT", "Short axis"),
        unit_code=MM,
    ),
    Measurement(
        "diameter_3d_mm",
        "3D diameter",
        "mm",
        1,
        diameter_3d_mm,
        source="IBSI L0JK, maximum 3D diameter",
        code=Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh"),
        unit_code=MM,
    ),
    *(
        Measurement(
            f"centroid_{letter.lower()}_mm",
            f"Centroid {letter}",
            "mm",
            1,
            _centroid(n),
            source="mean of voxel centers, RAS",
            unit_code=MM,
        )
        for n, letter in enumerate("RAS")
    ),
    Measurement("slice_first", "First slice", "", 0, _slice(False), source="number in the CT, from 1"),
    Measurement("slice_last", "Last slice", "", 0, _slice(True), source="number in the CT, from 1"),
    Measurement(
        "mean_hu",
        "Mean",
        "HU",
        0,
        mean_hu,
        source="mean of voxels",
        code=ATTENUATION,
        derivation=MEAN,
        unit_code=HU,
    ),
    Measurement(
        "sd_hu",
        "SD",
        "HU",
        0,
        sd_hu,
        source="standard deviation of voxels (population)",
        code=ATTENUATION,
        derivation=STANDARD_DEVIATION,
        unit_code=HU,
    ),
    Measurement(
        "contrast_hu",
        "Contrast",
        "HU",
        0,
        contrast_hu,
        source="mean of the lesion minus mean of the liver 2–10 mm around it, other lesions left out",
        unit_code=HU,
        surroundings="shell",
    ),
    Measurement(
        "capsule_distance_mm",
        "Distance to capsule",
        "mm",
        1,
        capsule_distance_mm,
        source="smallest distance of the lesion's boundary to the liver's outer surface",
        unit_code=MM,
        surroundings="surface",
    ),
    Measurement("size_bin", "Size", "", 0, size_bin, "category", source="long axis: < 10, 10–20, > 20 mm"),
    Measurement(
        "measurable",
        "RECIST-measurable",
        "",
        0,
        is_measurable,
        "flag",
        source=f"{RECIST}: ≥ 10 mm with slices ≤ 5 mm, else ≥ 2 × slice thickness",
    ),
    Measurement(
        "voxel_count",
        "Voxels",
        "",
        0,
        lambda region: region.voxel_count,
        source="count",
        unit_code=NO_UNITS,
    ),
    Measurement(
        "touches_border", "At the volume's edge", "", 0, touches_border, "flag", source="voxels of the CT's rim"
    ),
    Measurement(
        "confidence",
        "Confidence",
        "",
        2,
        lambda region: region.confidence,
        source="calibrated score of the model, 0…1; not known of a lesion that was edited or drawn",
        unit_code=NO_UNITS,
    ),
)


@dataclass(frozen=True)
class LiverFigures:
    """What the liver's measurements are made from.

    Attributes:
        volume_ml: of liver and lesions together.
        lesion_ml: of each lesion.
        mean_hu: of the liver without its lesions; not a number without a CT.
    """

    volume_ml: float
    lesion_ml: tuple[float, ...]
    mean_hu: float = NOT_A_NUMBER


def _burden(liver: LiverFigures) -> float:
    return 100 * sum(liver.lesion_ml) / liver.volume_ml if liver.volume_ml > 0 else NOT_A_NUMBER


LIVER_MEASUREMENTS: tuple[Measurement[LiverFigures], ...] = (
    Measurement(
        "volume_ml",
        "Liver volume, lesions included",
        "mL",
        0,
        lambda liver: liver.volume_ml,
        source="voxel count × voxel volume",
        code=VOLUME,
        unit_code=CM3,
    ),
    Measurement(
        "parenchyma_ml",
        "Liver volume without lesions",
        "mL",
        0,
        lambda liver: max(0.0, liver.volume_ml - sum(liver.lesion_ml)),
        source="liver volume minus lesion volume",
        unit_code=CM3,
    ),
    Measurement(
        "mean_hu",
        "Mean of the liver without lesions",
        "HU",
        0,
        lambda liver: liver.mean_hu,
        source="mean of voxels",
        code=ATTENUATION,
        derivation=MEAN,
        unit_code=HU,
    ),
    Measurement(
        "lesion_count",
        "Lesions",
        "",
        0,
        lambda liver: len(liver.lesion_ml),
        source="count",
        unit_code=NO_UNITS,
    ),
    Measurement(
        "lesion_ml",
        "Lesion volume",
        "mL",
        2,
        lambda liver: float(sum(liver.lesion_ml)),
        source="sum of all lesions",
        unit_code=CM3,
    ),
    Measurement(
        "burden_percent",
        "Lesion burden",
        "%",
        1,
        _burden,
        source="lesion volume / liver volume, lesions included",
        unit_code=PERCENT,
    ),
)


def measure(
    mask: np.ndarray,
    grid: Grid,
    offset: Sequence[int] = (0, 0, 0),
    around: Around | None = None,
    confidence: float = NOT_A_NUMBER,
) -> dict[str, Value]:
    """All :data:`MEASUREMENTS` of a lesion, by their keys.

    Args:
        mask: the lesion's voxels [k, j, i], true where it is; a box that holds it is enough.
        grid: where voxels lie in the patient.
        offset: (i, j, k) of the first voxel of ``mask`` on ``grid``.
        around: what the lesion lies in; None measures its shape only.
        confidence: of the network.

    Raises:
        ValueError: the mask has not three dimensions.
    """
    return measure_region(region_of(mask, grid, offset, around, confidence))


def region_of(
    mask: np.ndarray,
    grid: Grid,
    offset: Sequence[int] = (0, 0, 0),
    around: Around | None = None,
    confidence: float = NOT_A_NUMBER,
) -> Region:
    """The :class:`Region` of a mask, in the smallest box that holds it; arguments and errors as of :func:`measure`."""
    if mask.ndim != 3:
        raise ValueError(f"A lesion's mask has three dimensions [k, j, i], this one has {mask.ndim}.")
    mask = mask if mask.dtype == bool else mask != 0
    box = Box.around(mask) or Box((0, 0, 0), (0, 0, 0))
    start = tuple(int(a + b) for a, b in zip(offset, box.start, strict=True))
    return Region(mask[box.slices], grid, start, around, confidence)


def measure_region(region: Region) -> dict[str, Value]:
    """All :data:`MEASUREMENTS` of a region, by their keys."""
    return exhausted(measuring_steps(region))


def measuring_steps(
    region: Region, measurements: Sequence[Measurement[Region]] = MEASUREMENTS
) -> Generator[None, None, dict[str, Value]]:
    """Some measurements of a region, by their keys, with a step before each."""
    values = {}
    for measurement in measurements:
        yield
        values[measurement.key] = measurement.compute(region)
    return values


def unknown_values() -> dict[str, Any]:
    """A lesion of which nothing is known."""
    return {measurement.key: measurement.unknown for measurement in MEASUREMENTS}
