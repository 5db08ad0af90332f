"""Scans changed on purpose, as they come out of other scanners, other exports and accidents.

A perturbation changes a CT together with the mask of its liver, so that what is found can be judged where it lies. The
same scan and name give the same result each time.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from LiverCascadeLib.geometry import Box, Grid, resample
from LiverCascadeLib.preflight import PADDING_BELOW
from LiverCascadeLib.sampling import body_silhouette, upright_view
from LiverCascadeLib.volume import Volume
from scipy import ndimage

AIR_HU = -1024
INT16 = np.iinfo(np.int16)
# Arms beside the body, as thick as those of adults; HU of fat, muscle, cortex and marrow.
ARM_RADIUS_MM, ARM_MUSCLE_MM, BONE_MM, MARROW_MM = 42.0, 36.0, 11.0, 6.0
ARM_FAT_HU, ARM_MUSCLE_HU, BONE_HU, MARROW_HU = -100, 55, 700, 150
# Fewer photons pass two arms and the body: streaks from arm to arm.
STREAK_HU, STREAK_MM = 12.0, 60.0
METAL_RADIUS_MM = 12.0
_VALUES = ("not-hu", "mr-like", "no-soft-tissue", "metal", "half-empty", "bright-fill")

# Takes scan, liver [k, j, i] and random numbers; gives both changed, on one grid.
Change = Callable[[Volume, np.ndarray, np.random.Generator], tuple[Volume, np.ndarray]]


@dataclass(frozen=True)
class Perturbation:
    """One way to change a scan.

    Attributes:
        name: in kebab-case.
        text: for people.
        change: does it.
        reasons: codes of findings that tell a user what is wrong with such a scan.
    """

    name: str
    text: str
    change: Change
    reasons: tuple[str, ...] = ()

    def applied(self, volume: Volume, liver: np.ndarray) -> tuple[Volume, np.ndarray]:
        """A changed scan and its liver.

        Args:
            volume: the CT.
            liver: bool [k, j, i] on ``volume.grid``.
        """
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return self.change(volume, liver, rng)


def _of(array: np.ndarray, grid: Grid, volume: Volume) -> Volume:
    """A CT with the name of ``volume``; values beyond the range of int16 are cut off."""
    values = np.clip(np.rint(array), INT16.min, INT16.max) if array.dtype != np.int16 else array
    return Volume(np.ascontiguousarray(values, dtype=np.int16), grid, volume.name)


def _stored(
    order: tuple[int, int, int], flips: tuple[bool, bool, bool], volume: Volume, liver: np.ndarray, rng
) -> tuple[Volume, np.ndarray]:
    """The same patient with voxels stored in another order: the new axis n is the old axis ``order[n]``, and runs the
    other way where ``flips[n]``.
    """
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, (old, flipped) in enumerate(zip(order, flips, strict=True)):
        turn[old, new] = -1 if flipped else 1
        turn[old, 3] = volume.grid.size[old] - 1 if flipped else 0
    size = tuple(volume.grid.size[old] for old in order)
    # Arrays are [k, j, i]: array axis 2 - n is axis n of the grid.
    axes = [2 - order[2 - axis] for axis in range(3)]
    steps = tuple(slice(None, None, -1 if flips[2 - axis] else 1) for axis in range(3))
    arrays = [np.ascontiguousarray(array.transpose(axes)[steps]) for array in (volume.array, liver)]
    return _of(arrays[0], Grid(size, volume.grid.ijk_to_ras @ turn), volume), arrays[1]


def _sliced(thickness_mm: float, volume: Volume, liver: np.ndarray, rng) -> tuple[Volume, np.ndarray]:
    """Other slices along the body, each the mean of what it covers."""
    right, front, _ = volume.grid.canonical().spacing
    grid = volume.grid.canonical((right, front, thickness_mm))
    hu = resample(volume.array, volume.grid, grid, AIR_HU).numpy()
    return _of(hu, grid, volume), resample(liver.astype(np.uint8), volume.grid, grid, 0).numpy() > 0.5


def _shifted(hu: int, volume: Volume, liver: np.ndarray, rng) -> tuple[Volume, np.ndarray]:
    return _of(volume.array.astype(np.int32) + hu, volume.grid, volume), liver


def _noisy(level_hu: float, volume: Volume, liver: np.ndarray, rng) -> tuple[Volume, np.ndarray]:
    """Noise of a standard deviation, correlated over about a pixel as reconstruction makes it."""
    noise = ndimage.gaussian_filter(rng.standard_normal(volume.array.shape, dtype=np.float32), (0, 0.7, 0.7))
    noise *= level_hu / noise.std()
    return _of(np.where(volume.array > PADDING_BELOW, volume.array + noise, volume.array), volume.grid, volume), liver


def _cut(part: str, volume: Volume, liver: np.ndarray, rng) -> tuple[Volume, np.ndarray]:
    """Half of what was scanned: the right half of the slices, the inner half of both of their axes, or what lies above
    or below the middle of the liver.
    """
    values, grid = upright_view(volume.array, volume.grid)
    mask, _ = upright_view(liver, volume.grid)
    heights = np.flatnonzero(mask.any(axis=(1, 2)))
    middle = int(heights.mean())
    start, stop = [0, 0, 0], list(grid.size)
    if part == "right":
        start[0] = grid.size[0] // 2
    elif part == "inner":
        for axis in (0, 1):
            start[axis], stop[axis] = grid.size[axis] // 4, grid.size[axis] - grid.size[axis] // 4
    elif part == "upper":
        start[2] = middle
    else:
        stop[2] = middle
    box = Box(tuple(start), tuple(stop))
    return _of(values[box.slices], grid.crop(box), volume), np.ascontiguousarray(mask[box.slices])


def _with_arms(volume: Volume, liver: np.ndarray, rng) -> tuple[Volume, np.ndarray]:
    """Both arms beside the body, the scan as wide as that takes, and streaks between them."""
    values, grid = upright_view(volume.array, volume.grid)
    mask, _ = upright_view(liver, volume.grid)
    more = int(np.ceil(2.2 * ARM_RADIUS_MM / grid.spacing[0]))
    values = np.pad(values, ((0, 0), (0, 0), (more, more)), constant_values=AIR_HU)
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, 3] = grid.to_ras(np.array([-more, 0, 0]))
    wide = Grid(values.shape[::-1], matrix)
    body = body_silhouette(values)
    if body is None:
        raise ValueError("No body is seen in the scan: arms cannot be put beside it.")
    hu = values.astype(np.float32)
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    right, front, up = wide.spacing
    y = (np.arange(hu.shape[1]) - rows.mean()) * front
    streaks = ndimage.gaussian_filter(
        rng.standard_normal(hu.shape, dtype=np.float32), (0, 0.8 / front, STREAK_MM / right)
    )
    reach = np.exp(-((y / ARM_RADIUS_MM) ** 2))[None, :, None]
    hu += np.where(values > PADDING_BELOW, STREAK_HU * streaks / streaks.std() * reach, 0)
    # Arms come nearer and go away along the body.
    sway = 6 * np.sin(np.arange(len(hu)) * up / 60)[:, None, None]
    for edge, side in ((columns[0], -1), (columns[-1], 1)):
        x = (np.arange(hu.shape[2]) - edge) * right - side * (ARM_RADIUS_MM + 8)
        distance = np.hypot(x[None, None, :] + sway, y[None, :, None])
        for radius, density in (
            (ARM_RADIUS_MM, ARM_FAT_HU),
            (ARM_MUSCLE_MM, ARM_MUSCLE_HU),
            (BONE_MM, BONE_HU),
            (MARROW_MM, MARROW_HU),
        ):
            arm = (distance < radius) & ~body
            hu[arm] = density + 10 * rng.standard_normal(np.count_nonzero(arm))
    return _of(hu, wide, volume), np.pad(mask, ((0, 0), (0, 0), (more, more)))


def _outside(volume: Volume) -> np.ndarray:
    """Air beyond the circle that a scanner reconstructs, bool [k, j, i]."""
    upright, _ = upright_view(volume.array, volume.grid)
    y, x = (np.linspace(-1, 1, n) for n in upright.shape[1:])
    mask = np.zeros(volume.array.shape, bool)
    view, _ = upright_view(mask, volume.grid)
    view[...] = (np.hypot(y[:, None], x[None]) > 1)[None] & (upright < -500)
    return mask


def _padded(value: int, volume: Volume, liver: np.ndarray, rng) -> tuple[Volume, np.ndarray]:
    """Another filling around the circle that was reconstructed; values beyond int16 come back at its other end."""
    wrapped = np.array(value, np.int64).astype(np.int16)
    return _of(np.where(_outside(volume), wrapped, volume.array), volume.grid, volume), liver


def _metal(value: int, volume: Volume, liver: np.ndarray, rng) -> tuple[Volume, np.ndarray]:
    """Two balls of metal in the body, outside the liver; values beyond int16 come back at its other end."""
    values, grid = upright_view(volume.array, volume.grid)
    mask, _ = upright_view(liver, volume.grid)
    values = values.copy()
    free = body_silhouette(values)
    free = np.ones(values.shape, bool) if free is None else free
    near = ndimage.distance_transform_edt(~mask, sampling=grid.spacing[::-1]) < METAL_RADIUS_MM + 5
    inside = np.argwhere(free & ~near & (values > -50))
    for center in inside[rng.integers(len(inside), size=2)]:
        axes = [(np.arange(n) - c) * s for n, c, s in zip(values.shape, center, grid.spacing[::-1], strict=True)]
        distance = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None] ** 2)
        values[distance < METAL_RADIUS_MM] = np.array(value, np.int64).astype(np.int16)
    return _of(values, grid, volume), np.ascontiguousarray(mask)


def _storage(name: str, text: str, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Perturbation:
    return Perturbation(name, f"{text}, corrected by the header", partial(_stored, order, flips))


PERTURBATIONS = (
    _storage("flip-i", "first axis flipped", (0, 1, 2), (True, False, False)),
    _storage("flip-j", "second axis flipped", (0, 1, 2), (False, True, False)),
    _storage("flip-k", "third axis flipped", (0, 1, 2), (False, False, True)),
    _storage("flip-all", "all axes flipped", (0, 1, 2), (True, True, True)),
    _storage("rotate-i", "rotated by 90° about the first axis", (0, 2, 1), (False, True, False)),
    _storage("rotate-j", "rotated by 90° about the second axis", (2, 1, 0), (True, False, False)),
    _storage("rotate-k", "rotated by 90° about the third axis", (1, 0, 2), (True, False, False)),
    _storage("cyclic", "axes in cyclic order", (1, 2, 0), (False, False, False)),
    *(
        Perturbation(
            f"slices-{mm}mm", f"slices of {mm} mm", partial(_sliced, mm), ("thick-slices", "spacing-outside-model")
        )
        for mm in (1, 2, 3, 5, 7)
    ),
    Perturbation("shift-plus", "+20 HU", partial(_shifted, 20)),
    Perturbation("shift-minus", "−20 HU", partial(_shifted, -20)),
    Perturbation("noise-15", "more noise, SD 15 HU", partial(_noisy, 15.0)),
    Perturbation("noise-40", "more noise, SD 40 HU", partial(_noisy, 40.0)),
    Perturbation(
        "field-right", "right half of the field of view", partial(_cut, "right"), ("liver-cut-side", "no-liver")
    ),
    Perturbation(
        "field-inner",
        "inner half of the field of view, both ways",
        partial(_cut, "inner"),
        ("liver-cut-side", "no-liver"),
    ),
    Perturbation(
        "field-upper", "only above the liver's middle", partial(_cut, "upper"), ("liver-cut-bottom", "no-liver")
    ),
    Perturbation(
        "field-lower", "only below the liver's middle", partial(_cut, "lower"), ("liver-cut-top", "no-liver")
    ),
    Perturbation("arms", "arms down, with streaks", _with_arms),
    *(
        Perturbation(f"padding-{name}", f"filled with {text} around the circle", partial(_padded, value), _VALUES)
        for name, text, value in (
            ("low", "−3024", -3024),
            ("medium", "−2000", -2000),
            ("zero", "0", 0),
            ("high", "3071", 3071),
        )
    ),
    Perturbation("wrap-padding", "padding of −33000 that wrapped to 32536", partial(_padded, -33000), _VALUES),
    Perturbation("wrap-metal", "metal of 40000 that wrapped to −25536", partial(_metal, 40000), _VALUES),
)
