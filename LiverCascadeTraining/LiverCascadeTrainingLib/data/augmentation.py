"""Other looks of a patch: turned, scaled, mirrored, bent, with other contrast, noise, sharpness and resolution.

Everything random about a sample is drawn once, as :class:`Look`, from the sample's own generator. What is done with it
is PyTorch on whole batches, on whatever device the batch is: the same look gives the same patch in a loader's process
and on a GPU, but for rounding and for the noise, whose generators differ between devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from LiverCascadeLib.channels import blur
from LiverCascadeLib.errors import InputError
from torch.nn.functional import grid_sample, interpolate

# Knots of the elastic field lie this far apart, in mm.
_KNOTS_MM = 40.0


@dataclass(frozen=True)
class AugmentationSpec:
    """Chances and ranges. Ranges are the lowest and highest value; chances are per sample.

    Attributes:
        rotation_chance, rotation_deg: about the axes R, A and S, up to plus or minus this.
        scale_chance, scale: of all axes together.
        flip_chance: for each of ``flip_axes``.
        flip_axes: of R, A and S. The liver lies on the right: mirroring sides costs what left and right tell.
        elastic_chance, elastic_mm: largest displacement of a knot, knots 40 mm apart.
        intensity_chance, contrast, brightness_hu: HU · contrast + brightness.
        gamma_chance, gamma: exponent of the windowed values.
        noise_chance, noise_hu: standard deviation.
        blur_chance, blur_mm: standard deviation of a Gaussian.
        low_resolution_chance, low_resolution: voxels larger by this factor, along S or within slices.
        cut_chance: the scan begins or ends inside the patch.
    """

    rotation_chance: float = 0.5
    rotation_deg: tuple[float, float, float] = (7.0, 7.0, 15.0)
    scale_chance: float = 0.5
    scale: tuple[float, float] = (0.85, 1.18)
    flip_chance: float = 0.0
    flip_axes: tuple[str, ...] = ("R", "A", "S")
    elastic_chance: float = 0.2
    elastic_mm: float = 6.0
    intensity_chance: float = 0.5
    contrast: tuple[float, float] = (0.9, 1.1)
    brightness_hu: tuple[float, float] = (-20.0, 20.0)
    gamma_chance: float = 0.15
    gamma: tuple[float, float] = (0.8, 1.25)
    noise_chance: float = 0.4
    noise_hu: tuple[float, float] = (2.0, 18.0)
    blur_chance: float = 0.15
    blur_mm: tuple[float, float] = (0.4, 1.2)
    low_resolution_chance: float = 0.15
    low_resolution: tuple[float, float] = (1.5, 3.0)
    cut_chance: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_chance") and not 0 <= value <= 1:
                raise InputError(f"{field.name} is {value!r}; expected a chance from 0 to 1.")
        for name in ("scale", "contrast", "brightness_hu", "gamma", "noise_hu", "blur_mm", "low_resolution"):
            low, high = getattr(self, name)
            if low > high or (name != "brightness_hu" and low <= 0):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected two rising positive numbers.")
        if len(self.rotation_deg) != 3 or max(self.rotation_deg) > 45 or min(self.rotation_deg) < 0:
            raise InputError(f"rotation_deg is {self.rotation_deg!r}; expected three angles from 0 to 45 degrees.")
        if any(axis not in ("R", "A", "S") for axis in self.flip_axes):
            raise InputError(f"flip_axes is {self.flip_axes!r}; expected some of R, A, S.")

    @classmethod
    def none(cls) -> AugmentationSpec:
        """No augmentation at all."""
        return cls(**{f.name: 0.0 for f in fields(cls) if f.name.endswith("_chance")})


@dataclass
class Look:
    """What happens to one sample.

    Attributes:
        linear: 3×3, offsets in mm along (k, j, i) from the patch's middle → offsets in the case.
        knots: displacement in mm, float32 [3, a, b, c] along (k, j, i), or None.
        contrast, brightness, gamma: see :class:`AugmentationSpec`.
        noise_hu, blur_mm: 0 for none.
        coarser: factors along (k, j, i), all 1 for none.
        cut: slices at the beginning (positive) or end (negative) of the patch that hold air.
        seed: of the noise and of all that is drawn later.
    """

    linear: np.ndarray
    knots: np.ndarray | None
    contrast: float
    brightness: float
    gamma: float
    noise_hu: float
    blur_mm: float
    coarser: tuple[float, float, float]
    cut: int
    seed: int

    @property
    def is_straight(self) -> bool:
        """True where no voxel moves."""
        return self.knots is None and np.array_equal(self.linear, np.eye(3))


def draw_look(
    spec: AugmentationSpec,
    size: Sequence[int],
    spacing: Sequence[float],
    rng: np.random.Generator,
    flat: bool = False,
) -> Look:
    """What happens to a sample, from the next random numbers of ``rng``.

    Args:
        spec: chances and ranges.
        size: voxels of the patch along (k, j, i).
        spacing: mm along (k, j, i).
        flat: the patch is a slice, or a stack of them: nothing moves between slices.
    """
    linear = np.eye(3)
    if rng.random() < spec.rotation_chance:
        degrees = [rng.uniform(-most, most) if most else 0.0 for most in spec.rotation_deg]
        linear = _rotation(degrees, flat) @ linear
    if rng.random() < spec.scale_chance:
        factor = float(np.exp(rng.uniform(*np.log(spec.scale))))
        # A factor above 1 makes the anatomy larger: the patch then covers less of the case.
        linear = np.diag([1.0 if flat else 1 / factor, 1 / factor, 1 / factor]) @ linear
    mirrored = [1.0, 1.0, 1.0]
    for axis in spec.flip_axes:
        if rng.random() < spec.flip_chance and not (flat and axis == "S"):
            mirrored[2 - "RAS".index(axis)] = -1.0
    linear = linear @ np.diag(mirrored)
    knots = None
    if rng.random() < spec.elastic_chance and spec.elastic_mm > 0:
        count = [max(2, int(np.ceil(n * s / _KNOTS_MM)) + 1) for n, s in zip(size, spacing, strict=True)]
        knots = np.clip(rng.standard_normal((3, *count)) / 2, -1, 1).astype(np.float32)
        knots *= np.float32(rng.uniform(0.3, 1) * spec.elastic_mm)
        if flat:
            knots[0] = 0
            knots = np.repeat(knots[:, :1], knots.shape[1], axis=1)
    contrast, brightness = 1.0, 0.0
    if rng.random() < spec.intensity_chance:
        contrast, brightness = float(rng.uniform(*spec.contrast)), float(rng.uniform(*spec.brightness_hu))
    gamma = float(np.exp(rng.uniform(*np.log(spec.gamma)))) if rng.random() < spec.gamma_chance else 1.0
    noise = float(np.exp(rng.uniform(*np.log(spec.noise_hu)))) if rng.random() < spec.noise_chance else 0.0
    smear = float(rng.uniform(*spec.blur_mm)) if rng.random() < spec.blur_chance else 0.0
    coarser = (1.0, 1.0, 1.0)
    if rng.random() < spec.low_resolution_chance:
        factor, along_s = float(rng.uniform(*spec.low_resolution)), rng.random() < 0.5
        coarser = (factor, 1.0, 1.0) if along_s and not flat else (1.0, factor, factor)
    cut = 0
    if rng.random() < spec.cut_chance and not flat and size[0] >= 6:
        cut = int(rng.integers(1, size[0] // 3 + 1)) * (1 if rng.random() < 0.5 else -1)
    return Look(linear, knots, contrast, brightness, gamma, noise, smear, coarser, cut, int(rng.integers(2**62)))


def _rotation(degrees: Sequence[float], flat: bool) -> np.ndarray:
    """The 3×3 rotation about R, A and S, in that order, on vectors (k, j, i) = (S, A, R)."""
    result = np.eye(3)
    for axis, angle in zip((2, 1, 0), np.deg2rad(degrees), strict=True):
        if flat and axis != 0:
            continue
        a, b = (n for n in range(3) if n != axis)
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        result = turn @ result
    return result


def reach(look: Look, size: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """How many voxels of the case lie between the patch's middle and the furthest that the look needs, (k, j, i)."""
    half = (np.array(size) - 1) / 2 * np.array(spacing)
    needed = np.abs(look.linear) @ half
    if look.knots is not None:
        needed = needed + np.abs(look.knots).reshape(3, -1).max(axis=1)
    return needed / np.array(spacing)


def sampling_grid(
    looks: Sequence[Look],
    centers: torch.Tensor,
    size: Sequence[int],
    spacing: Sequence[float],
    shape: Sequence[int],
    device: torch.device | str,
) -> torch.Tensor:
    """Where the voxels of patches lie in their blocks, as ``grid_sample`` wants it.

    Args:
        looks: one per sample.
        centers: where the patches' middles lie in their blocks, voxels (k, j, i), [n, 3].
        size: voxels of a patch along (k, j, i).
        spacing: mm along (k, j, i).
        shape: voxels of a block along (k, j, i).
        device: where to compute.

    Returns:
        float32 [n, k, j, i, 3], along (i, j, k), -1 … 1 from the first voxel's center to the last one's.
    """
    step = np.array(spacing, dtype=np.float64)
    scale = 2 / np.maximum(1, np.array(shape, dtype=np.float64) - 1)
    # From voxels of the patch to voxels of the block, linear in mm, and on to -1 … 1.
    matrices = np.stack([np.diag(scale / step) @ look.linear @ np.diag(step) for look in looks])
    matrix = torch.as_tensor(matrices, dtype=torch.float32, device=device)
    middles = torch.as_tensor(centers.double().cpu().numpy() * scale - 1, dtype=torch.float32, device=device)
    axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in size]
    parts = []
    for out in (2, 1, 0):
        along = [matrix[:, out, axis, None] * axes[axis] for axis in range(3)]
        plane = along[1][:, :, None] + along[2][:, None, :] + middles[:, out, None, None]
        parts.append(along[0][:, :, None, None] + plane[:, None])
    for number, look in enumerate(looks):
        if look.knots is not None:
            knots = torch.from_numpy((look.knots * (scale / step)[:, None, None, None]).astype(np.float32)).to(device)
            bent = interpolate(knots[None], size=tuple(size), mode="trilinear", align_corners=True)[0]
            for out, part in zip((2, 1, 0), parts, strict=True):
                part[number] += bent[out]
    return torch.stack(parts, dim=-1)


def look_up(block: torch.Tensor, grid: torch.Tensor, nearest: bool = False) -> torch.Tensor:
    """Values of blocks at positions between voxels; beyond the block its border goes on.

    Args:
        block: float32 [n, c, k, j, i].
        grid: what :func:`sampling_grid` gave for blocks of this shape.
        nearest: the nearest voxel instead of the trilinear mean.

    Returns:
        [n, c, k', j', i'].
    """
    mode = "nearest" if nearest else "bilinear"
    return grid_sample(block, grid, mode=mode, padding_mode="border", align_corners=True)


def change_values(hu: torch.Tensor, looks: Sequence[Look], spacing: Sequence[float]) -> torch.Tensor:
    """Contrast, sharpness, resolution and noise of a batch, in HU.

    Args:
        hu: float32 [n, k, j, i]; changed in place where that is possible.
        looks: one per sample.
        spacing: mm along (k, j, i).
    """
    if any(look.contrast != 1 or look.brightness for look in looks):
        pairs = [[look.contrast, look.brightness] for look in looks]
        factor, shift = torch.tensor(pairs, dtype=hu.dtype, device=hu.device).T.reshape(2, -1, 1, 1, 1)
        hu = hu * factor + shift
    for number, look in enumerate(looks):
        if look.blur_mm:
            hu[number] = blur(hu[number], tuple(look.blur_mm / s for s in spacing))
        if max(look.coarser) > 1:
            hu[number] = _coarser(hu[number], look.coarser)
        if look.noise_hu:
            generator = torch.Generator(hu.device).manual_seed(look.seed)
            hu[number] += look.noise_hu * torch.randn(hu[number].shape, generator=generator, device=hu.device)
    return hu


def _coarser(hu: torch.Tensor, factors: Sequence[float]) -> torch.Tensor:
    """``hu`` [k, j, i] as larger voxels would have seen it."""
    small = tuple(max(2, round(n / f)) if n > 1 else 1 for n, f in zip(hu.shape, factors, strict=True))
    coarse = interpolate(hu[None, None], size=small, mode="area")
    return interpolate(coarse, size=tuple(hu.shape), mode="trilinear", align_corners=False)[0, 0]


def windowed(hu: torch.Tensor, window: tuple[float, float], looks: Sequence[Look]) -> torch.Tensor:
    """HU as the network sees them: the window scaled to 0…1, so that air is 0, and by chance another gamma.

    Args:
        hu: float32 [n, k, j, i]; changed in place.
        window: lowest and highest HU.
        looks: one per sample.
    """
    low, high = window
    result = hu.sub_(low).mul_(1 / (high - low)).clamp_(0, 1)
    for number, look in enumerate(looks):
        if look.gamma != 1:
            result[number].pow_(look.gamma)
    return result
