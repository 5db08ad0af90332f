"""What can be said about an input in plain words, before and right after the liver was located.

Nothing here raises for odd content and nothing changes the volume. All judgments are made on a subsample of about
4 mm, so that they cost a fraction of a second on any volume.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from .bright_fill import bright_fill
from .findings import Finding, Severity
from .geometry import Grid
from .sampling import BODY_ABOVE, MOST_VOXELS, Sample, body_silhouette, cuts_body, lungs_in, sample, upright_view
from .steps import exhausted
from .volume import AIR_HU, Volume

THICK_SLICE_MM = 5.0
# Scanners and exports fill what lies outside the field of view with values below any tissue or air.
PADDING_BELOW = -1500
SOFT_TISSUE = (-50, 150)
BONE_ABOVE = 300
METAL_ABOVE = 2500

# Share of the scanned space that soft tissue fills in a CT of a body; 9 to 33 % on real abdomens.
LEAST_SOFT_TISSUE = 0.02
# Voxels of CT lie in air or in tissue; 2 to 4 % lie between on real abdomens, in lungs and at surfaces.
MOST_BETWEEN = 0.25
# A crop from within a body: little of it lies between lung and fat, or is dense bone; much is muscle and organs.
CROP_SOFT_TISSUE, CROP_BETWEEN, CROP_FAT, CROP_DENSE, CROP_UPPER_HU = 0.4, 0.05, 0.01, 0.1, 20
METAL_ML = 5.0
EMPTY_SLICES = 0.25
# A top slice through the chest above the liver is at least this much lung; 0.13 where a dome was known to be cut.
LUNG_AT_TOP = 0.2
LITTLE_LUNG = 0.1
LITTLE_LUNG_MM = 40.0
CUT_AREA_CM2 = 4.0
# Without contrast medium a liver has 40 to 75 HU, and less where it is fatty; in the portal-venous phase about 100.
LITTLE_CONTRAST_HU = 75
# A spine shows this much dense bone in nearly every slice: in all of them on six real abdomens. Contrast in the bowel
# shows as much in 93 % of the slices at most, on the one of them that has much of it.
SPINE_CM2, SPINE_SLICES = 1.0, 0.95


@dataclass(frozen=True)
class CostModel:
    """How time and memory grow with the input; the constants are measured, on one device each.

    Attributes:
        seconds: fixed time of a run, in seconds.
        seconds_per_megavoxel: added per million voxels of the input.
        seconds_per_liter: added per liter of scanned space, which the locate stage goes through.
        gigabytes: fixed memory of a run, in GB.
        bytes_per_voxel: added per voxel of the input.
    """

    seconds: float
    seconds_per_megavoxel: float
    seconds_per_liter: float
    gigabytes: float
    bytes_per_voxel: float


COSTS = {
    "cpu": CostModel(32.0, 0.03, 0.1, 1.2, 8.0),
    "cuda": CostModel(8.0, 0.03, 0.02, 2.0, 6.0),
}


def preflight(
    volume: Volume, spacing_range_mm: Sequence[tuple[float, float]] | None = None, device: str = "cpu"
) -> tuple[Finding, ...]:
    """Judges a volume before any work.

    Args:
        volume: the input.
        spacing_range_mm: lowest and highest spacing in mm along (R, A, S) that the models were trained for, or None.
        device: 'cpu' or 'cuda', for the estimate of time and memory.

    Returns:
        Findings, the most serious first. Codes: constant-volume, not-hu, mr-like, no-soft-tissue, half-empty, metal,
        bright-fill, thick-slices, spacing-outside-model, liver-cut-top, liver-cut-bottom, identity-affine,
        cost-estimate.
    """
    return exhausted(preflight_steps(volume.array, volume.grid, spacing_range_mm, device))


def preflight_steps(
    array: np.ndarray,
    grid: Grid,
    spacing_range_mm: Sequence[tuple[float, float]] | None = None,
    device: str = "cpu",
    most: int = MOST_VOXELS,
) -> Generator[None, None, tuple[Finding, ...]]:
    """:func:`preflight` in steps of a few ten milliseconds, for a user interface that must not wait.

    Args:
        array: values [k, j, i] of any real type; what is no number counts as air.
        grid: where they lie.
        most: at most this many voxels are looked at.

    Returns:
        the findings, as the generator's return value.
    """
    findings = _spacing_findings(grid, spacing_range_mm)
    taken = sample(array, grid, most=most)
    if taken.values.dtype != np.int16:
        numbers = np.nan_to_num(taken.values.astype(np.float32), nan=AIR_HU)
        taken = Sample(np.clip(np.rint(numbers), -32768, 32767).astype(np.int16), taken.grid)
    filled = bright_fill(taken.values)
    if filled is not None:
        findings.append(_fill_finding(int(taken.values[filled][0])))
        taken = Sample(np.where(filled, np.int16(AIR_HU), taken.values), taken.grid)
    yield
    values = _values_finding(taken, array)
    yield
    if values is not None:
        findings.append(values)
    else:
        findings += yield from _content_steps(taken)
    if values is None and np.allclose(np.abs(grid.ijk_to_ras), np.eye(4)):
        findings.append(_identity_finding())
    findings.append(cost_finding(grid, device))
    rank = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
    return tuple(sorted(findings, key=lambda finding: rank[finding.severity]))


def estimate_cost(grid: Grid, model: CostModel) -> tuple[float, float]:
    """Estimated (seconds, GB of memory) of a run on a volume with ``grid``."""
    voxels = float(np.prod(grid.size, dtype=np.float64))
    liters = voxels * grid.voxel_volume_mm3 / 1e6
    seconds = model.seconds + model.seconds_per_megavoxel * voxels / 1e6 + model.seconds_per_liter * liters
    return seconds, model.gigabytes + model.bytes_per_voxel * voxels / 1e9


def cost_finding(grid: Grid, device: str = "cpu") -> Finding:
    """The estimate of :func:`estimate_cost` in words; any device name beginning with 'cuda' counts as one GPU."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    seconds, gigabytes = estimate_cost(grid, COSTS[kind])
    where = "a GPU" if kind == "cuda" else "the CPU"
    shown = f"{round(seconds, -1):.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return Finding("cost-estimate", Severity.INFO, f"About {shown} on {where}, and {gigabytes:.1f} GB of memory.")


def _spacing_findings(grid: Grid, known: Sequence[tuple[float, float]] | None) -> list[Finding]:
    spacing = grid.canonical().spacing
    thickest = float(spacing.max())
    found = []
    if thickest > THICK_SLICE_MM + 1e-3:
        text = (
            f"Slices are {thickest:.1f} mm apart; above {THICK_SLICE_MM:g} mm, small lesions are missed and volumes "
            "become inexact. Use a thinner reconstruction if there is one."
        )
        found.append(Finding("thick-slices", Severity.WARNING, text))
    if known is not None:
        outside = [
            f"{s:.2f} mm {name} (trained for {low:g} to {high:g} mm)"
            for name, s, (low, high) in zip(("left-right", "front-back", "head-foot"), spacing, known, strict=True)
            if not low - 1e-3 <= s <= high + 1e-3
        ]
        if outside:
            text = (
                f"The voxel spacing is outside what the models know: {', '.join(outside)}. Look closely at the result."
            )
            found.append(Finding("spacing-outside-model", Severity.WARNING, text))
    return found


@dataclass(frozen=True)
class _Shares:
    """Shares of the scanned space, padding left out, that have the values of air, of soft tissue, and between."""

    air: float
    between: float
    soft: float

    def are_ct(self, least_soft: float = LEAST_SOFT_TISSUE, most_between: float = MOST_BETWEEN) -> bool:
        return self.air >= 0.02 and self.soft >= least_soft and self.between <= most_between


def _shares(values: np.ndarray, offset: float = 0.0, scale: float = 1.0) -> _Shares:
    scaled = values.astype(np.float32) * scale - offset
    scanned = scaled[scaled > PADDING_BELOW]
    if scanned.size == 0:
        return _Shares(0.0, 0.0, 0.0)

    def share(low: float, high: float) -> float:
        return float(np.count_nonzero((scanned >= low) & (scanned < high)) / scanned.size)

    return _Shares(share(-1200, -800), share(-700, -250), share(*SOFT_TISSUE))


def _values_finding(taken: Sample, array: np.ndarray) -> Finding | None:
    """What speaks against the values being Hounsfield units of a body, or None."""
    values = taken.values
    low, high = int(values.min()), int(values.max())
    if low == high and int(array.min()) == int(array.max()):
        text = f"Every voxel has the same value ({low}): there is no image. Export the volume again."
        return Finding("constant-volume", Severity.ERROR, text)
    shares = _shares(values)
    if shares.are_ct():
        return None
    spread = f"values from {low} to {high}"
    if high - low <= 20:
        text = f"These are no CT numbers ({spread}): the volume looks normalized, or like a label map. Pass the CT."
        return Finding("not-hu", Severity.ERROR, text)
    if low >= 0 and high <= 255:
        text = f"These are no CT numbers ({spread}): an 8-bit picture of the CT lost its scale. Pass the original CT."
        return Finding("not-hu", Severity.ERROR, text)
    if _tissue_alone(values, shares):
        return None
    rescale = _likely_rescale(values)
    if rescale:
        text = f"These are no Hounsfield units ({spread}): {rescale}, and pass that volume."
        return Finding("not-hu", Severity.ERROR, text)
    if low > -200:
        return _without_air(values, shares, spread)
    if shares.soft < LEAST_SOFT_TISSUE:
        text = (
            f"Only {100 * shares.soft:.1f} % of the scanned space has the CT numbers of soft tissue ({spread}); a "
            "body has more. The scale is wrong, or this is no abdomen."
        )
        return Finding("no-soft-tissue", Severity.ERROR, text)
    if shares.between > MOST_BETWEEN:
        text = (
            f"{100 * shares.between:.0f} % of the values lie between lung and fat ({spread}), where CT has few: the "
            "rescale slope or intercept is probably wrong."
        )
        return Finding("not-hu", Severity.WARNING, text)
    return None


def _tissue_alone(values: np.ndarray, shares: _Shares) -> bool:
    """Whether ``values`` are those of CT within a body, with fat among the organs and hardly any air.

    There fat looks as air does in a CT whose slope is ten times too small; the organs above 20 HU tell them apart.
    """
    if shares.soft < CROP_SOFT_TISSUE or shares.between > CROP_BETWEEN:
        return False
    scanned = values[values > PADDING_BELOW]
    low, high = SOFT_TISSUE
    fat = np.count_nonzero((scanned >= -150) & (scanned < low)) / scanned.size
    dense = np.count_nonzero(scanned > 500) / scanned.size
    upper = np.percentile(scanned[(scanned >= low) & (scanned < high)], 75)
    return fat >= CROP_FAT and dense <= CROP_DENSE and upper >= CROP_UPPER_HU


def _likely_rescale(values: np.ndarray) -> str | None:
    """The simple mistake in the rescaling that, undone, turns ``values`` into those of a CT; None where none does."""
    for offset in (1024, 1000, 8192, -1024, -1000):
        if _shares(values, offset).are_ct(least_soft=0.05, most_between=0.15):
            verb = "subtract" if offset > 0 else "add"
            return f"the rescale intercept was ignored or applied twice; {verb} {abs(offset)}"
    for scale in (2.0, 0.5, 10.0, 0.1):
        if _shares(values, scale=scale).are_ct(least_soft=0.05, most_between=0.15):
            return f"the rescale slope is wrong; multiply by {scale:g}"
    return None


def _without_air(values: np.ndarray, shares: _Shares, spread: str) -> Finding | None:
    """Judges a volume in which nothing is as dark as air: MR, an unknown scale, or a crop from within the body."""
    low, bright = float(values.min()), float(np.percentile(values, 99))
    background = np.count_nonzero(values <= low + 0.05 * (bright - low)) / values.size
    if background >= 0.05:
        text = (
            f"No voxel is as dark as air in CT ({spread}), and the values spread as in MR. Only CT in Hounsfield "
            "units can be used; a result would probably be wrong."
        )
        return Finding("mr-like", Severity.ERROR, text)
    if shares.soft >= 0.5:
        return None  # a crop from within the body has no air, but its tissue is that of CT
    text = f"All values are positive or near zero ({spread}); Hounsfield units of a body go from -1000 upward."
    return Finding("not-hu", Severity.ERROR, text)


def _content_steps(taken: Sample) -> Generator[None, None, list[Finding]]:
    values = taken.values
    found = []
    bright = float(np.count_nonzero(values > METAL_ABOVE)) * taken.voxel_ml
    if bright >= METAL_ML:
        text = f"About {bright:.0f} mL are as dense as metal: streaks may hide lesions or imitate them. Look closely."
        found.append(Finding("metal", Severity.WARNING, text))
    occupied = np.count_nonzero(values > BODY_ABOVE, axis=(1, 2)) >= 0.005 * values[0].size
    empty = 1 - np.count_nonzero(occupied) / len(occupied)
    if empty >= EMPTY_SLICES:
        text = (
            f"{100 * empty:.0f} % of the slices are empty: part of the patient is missing, or the export went wrong."
        )
        found.append(Finding("half-empty", Severity.WARNING, text))
    yield
    inside = body_silhouette(values)
    if inside is not None:
        yield
        found += _coverage_by_lungs(values, inside, float(taken.grid.spacing[2]))
    return found


def _coverage_by_lungs(values: np.ndarray, inside: np.ndarray, slice_mm: float) -> list[Finding]:
    """A guess at a cut liver before anything was located: lungs must end the scan at the top, and only there."""
    lungs = lungs_in(values, inside)
    areas = np.count_nonzero(inside, axis=(1, 2))
    filled = np.flatnonzero(areas >= 0.3 * areas.max())
    share = np.count_nonzero(lungs, axis=(1, 2)) / np.maximum(1, areas)
    bottom, top = float(share[filled[:2]].mean()), float(share[filled[-2:]].mean())
    # The recesses of the lungs reach far down beside the liver: a little lung counts only if it goes on for long.
    low_share = np.flatnonzero(share[: filled[-1] + 1] < LITTLE_LUNG)
    lung_mm = (filled[-1] - (low_share[-1] if len(low_share) else -1)) * slice_mm
    found = []
    if top < LUNG_AT_TOP and lung_mm < LITTLE_LUNG_MM:
        text = (
            "The uppermost slices show little lung, so that the dome of the liver may be cut off at the top (or the "
            "volume is upside down). Volumes would be too small."
        )
        found.append(Finding("liver-cut-top", Severity.WARNING, text))
    if bottom >= LUNG_AT_TOP:
        text = (
            "The lowest slices still show the lungs: the scan ends above the lower liver, or the volume is upside "
            "down. Volumes would be too small."
        )
        found.append(Finding("liver-cut-bottom", Severity.WARNING, text))
    return found


def _fill_finding(value: int) -> Finding:
    text = (
        f"The corners of the slices, which were not scanned, are filled with the value {value}, far above that of "
        "air. They are taken for air."
    )
    return Finding("bright-fill", Severity.INFO, text)


def _identity_finding() -> Finding:
    text = (
        "The voxel-to-patient matrix is an identity, which often means that orientation and voxel size were lost. The "
        "orientation is checked once the liver is located; sizes in mm cannot be checked."
    )
    return Finding("identity-affine", Severity.WARNING, text)


def judge_coverage(liver_mask: np.ndarray, grid: Grid, area_cm2: float = CUT_AREA_CM2) -> tuple[Finding, ...]:
    """Says where the border of the volume cuts the liver.

    Args:
        liver_mask: [k, j, i] on ``grid``, not zero in the liver.
        grid: the grid of the mask: that of the input, or the located one.
        area_cm2: contact with the border, in cm², from which on the liver counts as cut.

    Returns:
        Findings liver-cut-top, liver-cut-bottom and liver-cut-side.
    """
    values, upright = upright_view(np.asarray(liver_mask), grid)
    dr, da, ds = upright.spacing
    contacts = (
        ("liver-cut-top", "top", values[-1], dr * da),
        ("liver-cut-bottom", "bottom", values[0], dr * da),
        ("liver-cut-side", "right", values[:, :, -1], da * ds),
        ("liver-cut-side", "left", values[:, :, 0], da * ds),
        ("liver-cut-side", "front", values[:, -1], dr * ds),
        ("liver-cut-side", "back", values[:, 0], dr * ds),
    )
    found = []
    for code, side, face, pixel_mm2 in contacts:
        area = float(np.count_nonzero(face)) * pixel_mm2 / 100
        if area >= area_cm2:
            text = (
                f"The liver is cut off at the {side} of the volume ({area:.0f} cm² touch the border): its volume is "
                "too small, and lesions beyond are not seen."
            )
            found.append(Finding(code, Severity.WARNING, text))
    return tuple(found)


def judge_density(hounsfield: np.ndarray) -> tuple[Finding, ...]:
    """Says where a liver is no denser than one without contrast medium, in which few lesions can be seen.

    Args:
        hounsfield: HU of the liver's voxels, its lesions left out.

    Returns:
        The finding little-contrast, or none.
    """
    density = float(np.median(hounsfield)) if hounsfield.size else np.inf
    if density >= LITTLE_CONTRAST_HU:
        return ()
    text = (
        f"The liver has {density:.0f} HU, as without contrast medium, early after it, or with much fat. "
        "Lesions hardly stand out there and may be missed, and the outline is less certain. Look at both yourself."
    )
    return (Finding("little-contrast", Severity.WARNING, text),)


def settled(guessed: Sequence[Finding], judged: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings from before the liver was located, with guesses about its coverage replaced by what was then seen."""
    return (*(finding for finding in guessed if not finding.code.startswith("liver-cut-")), *judged)


def judge_orientation(located: np.ndarray, grid: Grid, volume: Volume) -> tuple[Finding, ...]:
    """Compares where the liver was located with where it lies in a patient.

    The liver lies on the right, the lungs above it and the spine behind: a header that says otherwise is probably
    wrong, as with identity matrices that were written without regard to the voxels' order.

    Args:
        located: mask, or probability in 0…1, [k, j, i] on ``grid``.
        grid: the grid of ``located``, which covers the same patient as the volume.
        volume: the input.

    Returns:
        Findings orientation-left-right, orientation-head-foot and orientation-front-back; none where the liver is
        too small to tell, or the values are not those of CT.
    """
    mask = located if located.dtype == bool else located > 0.5
    found_at = sample(mask, grid)
    if np.count_nonzero(found_at.values) * found_at.voxel_ml < 100:
        return ()
    taken = sample(volume.array, volume.grid)
    inside = body_silhouette(taken.values)
    if inside is None:
        return ()
    voxels = np.argwhere(found_at.values)
    liver = taken.grid.to_ijk(found_at.grid.to_ras(voxels[:, ::-1]))
    low, high = np.clip(np.floor([liver[:, 2].min(), liver[:, 2].max() + 1]).astype(int), 0, len(inside))
    if low >= high or not inside[low:high].any():
        return ()
    center = liver.mean(axis=0)
    found = []
    # The middle of what is seen is not that of the body where one side is cut and the other is not.
    if not _cut_on_one_side(taken.values[low:high], 2, taken):
        found.append(_left_right(inside[low:high], center, taken.grid))
    found.append(_head_foot(lungs_in(taken.values, inside), low, high, taken))
    if not _cut_on_one_side(taken.values[low:high], 1, taken):
        found.append(_front_back(taken.values[low:high] > BONE_ABOVE, inside[low:high], taken.grid))
    return tuple(finding for finding in found if finding is not None)


def _cut_on_one_side(values: np.ndarray, axis: int, taken: Sample) -> bool:
    """Whether one end of an axis of [S, A, R] lies in muscle or organs, and the other one does not."""
    pixel_cm2 = 10 * taken.voxel_ml / float(taken.grid.spacing[2 - axis])
    first, last = (cuts_body(np.take(values, end, axis=axis), pixel_cm2) for end in (0, -1))
    return first != last


def _left_right(inside: np.ndarray, center: np.ndarray, grid: Grid) -> Finding | None:
    columns = np.flatnonzero(inside.any(axis=(0, 1)))
    middle = float(np.average(np.arange(inside.shape[2]), weights=inside.sum(axis=(0, 1))))
    off = float(center[0] - middle) * float(grid.spacing[0])
    if off > -0.05 * len(columns) * float(grid.spacing[0]):
        return None
    text = (
        f"The liver lies {-off:.0f} mm to the LEFT of the body's middle: left and right are probably swapped in the "
        "header (or the organs are mirrored, situs inversus). Sides in the result follow the header."
    )
    return Finding("orientation-left-right", Severity.ERROR, text)


def _has_spine(bone: np.ndarray, inside: np.ndarray, grid: Grid) -> bool:
    """Whether the middle third of the body holds a spine's bone in nearly every slice of ``bone``."""
    columns = np.flatnonzero(inside.any(axis=(0, 1)))
    third = len(columns) // 3
    middle = bone[:, :, columns[0] + third : columns[-1] + 1 - third]
    area_cm2 = np.count_nonzero(middle, axis=(1, 2)) * float(grid.spacing[0] * grid.spacing[1]) / 100
    return float((area_cm2 >= SPINE_CM2).mean()) >= SPINE_SLICES


def _head_foot(lungs: np.ndarray, low: int, high: int, taken: Sample) -> Finding | None:
    middle = (low + high) // 2
    above = float(np.count_nonzero(lungs[middle:])) * taken.voxel_ml
    below = float(np.count_nonzero(lungs[:middle])) * taken.voxel_ml
    if below < 250 or below < 3 * above:
        return None
    text = (
        f"The lungs lie below the liver ({below:.0f} mL of lung below its middle, {above:.0f} mL above): head and "
        "foot are probably swapped in the header."
    )
    return Finding("orientation-head-foot", Severity.ERROR, text)


def _front_back(bone: np.ndarray, inside: np.ndarray, grid: Grid) -> Finding | None:
    bone = bone & inside
    if np.count_nonzero(bone) * grid.voxel_volume_mm3 < 50_000:
        return None
    rows = np.arange(inside.shape[1])
    middle = float(np.average(rows, weights=inside.sum(axis=(0, 2))))
    off = float(np.average(rows, weights=bone.sum(axis=(0, 2)))) - middle
    depth = np.count_nonzero(inside.any(axis=(0, 2)))
    if off < 0.05 * depth or _has_spine(bone[:, : round(middle)], inside, grid):
        return None
    text = (
        f"Bone lies {off * float(grid.spacing[1]):.0f} mm in FRONT of the body's middle on average, but the spine "
        "lies behind it: unless bright bowel contrast explains this, front and back are swapped in the header."
    )
    return Finding("orientation-front-back", Severity.WARNING, text)
