"""Synthetic liver lesions: where no lesion labels exist, the lesions are made, and so their labels are exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from LiverCascadeLib.channels import blur
from scipy import ndimage

from .painting import torch_noise

# Bone, and vessels in the arterial phase.
_DOES_NOT_YIELD_HU = 200.0
_CAPSULE_SHARPNESS_MM = 0.4


@dataclass(frozen=True)
class LesionRanges:
    """What lesions are drawn from.

    Attributes:
        radius_mm: smallest and largest radius; drawn log-uniformly.
        chance: probability that a liver has lesions at all.
        mean_count: mean of the Poisson distribution of further lesions beyond the first.
        bright_chance: probability that a lesion is brighter than the liver.
        patchy_chance: probability that a lesion is lobed and patchy, with parts like liver, and fades into it.
        zoned_chance: probability that a large lesion has a dead core of any shape in a shell that is only a little
            darker than the liver.
        mimic_chance: probability that a liver gets what looks like lesions and is none: dark vessels and fissures.
        bulge_chance: probability that a lesion at the liver's surface bulges over it instead of ending there.
    """

    radius_mm: tuple[float, float] = (2.5, 42.0)
    chance: float = 0.75
    mean_count: float = 1.5
    bright_chance: float = 0.15
    patchy_chance: float = 0.0
    zoned_chance: float = 0.0
    mimic_chance: float = 0.0
    bulge_chance: float = 0.0


def add_lesions(
    hu: torch.Tensor,
    liver: torch.Tensor,
    spacing: tuple[float, float, float],
    ranges: LesionRanges,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts lesions into a liver.

    Args:
        hu: float32 [k, j, i], noise-free or real.
        liver: bool [k, j, i].
        spacing: mm along (k, j, i).
        ranges: sizes and counts.

    Returns:
        (hu with lesions, bool lesion mask); both new tensors. The mask leaves the liver only where lesions bulge.
    """
    mask = torch.zeros_like(liver)
    if ranges.mimic_chance and rng.random() < ranges.mimic_chance:
        hu = _with_mimics(hu, liver, spacing, rng, generator)
    sites = torch.nonzero(liver)
    if len(sites) < 200 or rng.random() > ranges.chance:
        return hu, mask
    base = float(hu[liver].median())
    for _ in range(1 + int(rng.poisson(ranges.mean_count))):
        center = sites[int(rng.integers(len(sites)))].numpy() * np.array(spacing)
        low, high = np.log(ranges.radius_mm)
        radius = float(np.exp(rng.uniform(low, high)))
        hu, mask = _add_one(hu, mask, liver, center, radius, base, spacing, ranges, rng, generator)
    return hu, mask


def _add_one(hu, mask, liver, center, radius, base, spacing, ranges, rng, generator):
    """Adds one lesion: a bumpy ellipsoid with texture, and by chance a rim, a necrotic core or calcification."""
    radii = radius * np.exp(rng.normal(0, 0.18, 3))
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    reach = 1.6 * radii.max() + 3
    shape = np.array(hu.shape)
    low = np.maximum(0, np.floor((center - reach) / spacing)).astype(int)
    high = np.minimum(shape, np.ceil((center + reach) / spacing).astype(int) + 1)
    if ((high - low) < 2).any():
        return hu, mask
    block = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    axes = [torch.arange(a, b) * s - c for a, b, s, c in zip(low, high, spacing, center, strict=True)]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).float()
    scaled = position @ torch.from_numpy((rotation / radii).astype(np.float32))
    local = tuple(int(n) for n in high - low)
    bumps = torch_noise(local, max(2.0, 0.7 * radius / max(spacing)), generator)
    # Distance to the surface in mm, positive inside.
    depth = (1 + rng.uniform(0.03, 0.16) * bumps - scaled.norm(dim=-1)) * float(radii.min())
    texture = torch_noise(local, max(1.5, rng.uniform(2, 8) / max(spacing)), generator)
    values = base + _contrast(base, ranges.bright_chance, rng) + rng.uniform(1, 9) * texture
    if radius > 6 and rng.random() < 0.35:  # necrosis or a central scar
        core = rng.uniform(0.25, 0.6) * float(radii.min())
        values = torch.where(depth > core, values - rng.uniform(10, 40), values)
    if radius > 4 and rng.random() < 0.3:  # enhancing rim, or a halo
        width = rng.uniform(1, 3.5)
        values = torch.where((depth > 0) & (depth < width), values + rng.uniform(-20, 45), values)
    if rng.random() < 0.05:  # calcification
        values = torch.where(texture > 1.6, values + rng.uniform(150, 500), values)
    sharpness = rng.uniform(0.3, 1.6)
    if ranges.patchy_chance and rng.random() < ranges.patchy_chance:
        depth, values, sharpness = _patchy(depth, values, base, radius, spacing, rng, generator)
    if radius > 10 and ranges.zoned_chance and rng.random() < ranges.zoned_chance:
        values = _zoned(depth, base, radius, spacing, rng, generator)
    room = liver[block]
    if ranges.bulge_chance and rng.random() < ranges.bulge_chance:
        room = _beyond_the_capsule(room, hu[block], rng.uniform(0.2, 0.9) * radius, spacing)
        # It may fade into the liver, but not into the fat or the lung around.
        sharpness = torch.where(liver[block], sharpness, _CAPSULE_SHARPNESS_MM)
    alpha = torch.sigmoid(depth / sharpness) * blur(room.float(), tuple(0.7 / s for s in spacing))
    hu, mask = hu.clone(), mask.clone()
    hu[block] = hu[block] * (1 - alpha) + values * alpha
    mask[block] |= (depth > 0) & room
    return hu, mask


def _beyond_the_capsule(liver, hu, reach_mm, spacing):
    """The liver with what lies around it, up to a distance; bone and vessels full of contrast medium do not yield."""
    if bool(liver.all()):
        return liver
    away = torch.from_numpy(ndimage.distance_transform_edt(~liver.numpy(), spacing))
    return liver | ((away <= reach_mm) & (hu < _DOES_NOT_YIELD_HU))


def _patchy(depth, values, base, radius, spacing, rng, generator):
    """Depth, values and edge width of a lesion as many large real ones are: lobed, uneven, without a sharp edge."""
    local = tuple(depth.shape)
    lobes = torch_noise(local, max(2.0, rng.uniform(0.5, 1.0) * radius / max(spacing)), generator)
    depth = depth + rng.uniform(0.1, 0.3) * radius * lobes
    patches = torch_noise(local, max(2.0, rng.uniform(0.25, 0.7) * radius / max(spacing)), generator)
    # From nearly the liver's density to nearly the lesion's own, in patches.
    share = rng.uniform(0.3, 0.6) + 0.6 * torch.sigmoid(rng.uniform(1.5, 4.0) * patches)
    grain = torch_noise(local, max(1.2, rng.uniform(1.5, 4.0) / max(spacing)), generator)
    values = base + share * (values - base) + rng.uniform(2, 10) * grain
    return depth, values, rng.uniform(0.8, 1.0 + 0.12 * radius)


def _zoned(depth, base, radius, spacing, rng, generator):
    """Values of a large lesion with a dead core: the core of any shape, the shell around it nearly liver."""
    local = tuple(depth.shape)
    wander = torch_noise(local, max(2.0, rng.uniform(0.3, 0.8) * radius / max(spacing)), generator)
    shell = rng.uniform(0.15, 0.6) * radius
    core = torch.sigmoid((depth - shell + rng.uniform(0.1, 0.3) * radius * wander) / rng.uniform(0.8, 4.0))
    grain = torch_noise(local, max(1.2, rng.uniform(2, 8) / max(spacing)), generator)
    outer = base - rng.uniform(8, 40) + rng.uniform(2, 8) * grain
    inner = min(base - 20, rng.uniform(5, 45)) + rng.uniform(2, 10) * grain
    return outer + (inner - outer) * core


def _with_mimics(hu, liver, spacing, rng, generator):
    """Dark tubes and thin plates in a liver: vessels without contrast in them, and fissures with fat in them."""
    shape = tuple(hu.shape)
    scale = rng.uniform(18, 35) / max(spacing)
    first, second = torch_noise(shape, scale, generator), torch_noise(shape, scale, generator)
    soft = blur(liver.float(), tuple(1.0 / s for s in spacing))
    if rng.random() < 0.6:
        caliber = rng.uniform(0.06, 0.16) * (1 + 0.3 * torch_noise(shape, scale, generator))
        inside = torch.sigmoid((caliber - torch.hypot(first, second)) * 30)
        hu = hu - rng.uniform(10, 45) * inside * soft
    else:
        plate = torch.exp(-((first / rng.uniform(0.04, 0.1)) ** 2)) * torch.sigmoid(4 * (second - rng.uniform(0, 1)))
        hu = hu - rng.uniform(25, 120) * plate * soft
    return hu


def _contrast(base: float, bright_chance: float, rng: np.random.Generator) -> float:
    """HU difference from the liver around: mostly darker, sometimes water, sometimes brighter; never invisible."""
    kind = rng.random()
    if kind < 0.15:  # cyst
        return rng.uniform(-5, 18) - base if base > 35 else -rng.uniform(20, 40)
    if kind < 1 - bright_chance:
        return -rng.uniform(15, 75)
    return rng.uniform(18, 70)
