"""Looks of a case: where a patch lies in it, and what a scanner would make of it this time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from LiverCascadeLib.channels import blur
from torch.nn.functional import grid_sample, interpolate

from .anatomy import Tissue
from .cases import AIR_HU, Case
from .lesions import LesionRanges, add_lesions
from .painting import draw_palette, paint, scan, torch_noise

BACKGROUND, LIVER, LESION, LIVER_OR_LESION = 0, 1, 2, 3


@dataclass(frozen=True)
class SampleSpec:
    """What a sample looks like.

    Attributes:
        spacing_mm: along (R, A, S).
        patch_size: along (R, A, S).
        window_hu: clipped to and scaled to 0…1.
        inputs: channels, see :mod:`LiverCascadeLib.channels`; 'liver_probability' imitates the locate network's.
        with_lesions: distinguish lesions; otherwise everything is liver.
        real_share: share of samples from real CTs.
        negative_share: share of samples without a liver (phantoms, heads, limbs).
        centered_share: share of samples centered inside the liver's box.
        gentle_prior_until: samples up to this number get a prior that is nearly right, later ones one with errors as
            large as real ones, so that the network first learns where to look and then not to trust it.
        lesions: sizes and counts of synthetic lesions.
        located_share: share of the priors that come from a trained locate network, where there is one.
        located_errors: how often and how much such priors are made worse than they are: 1 often, 0 never.
        vessel_contrast_chance: probability that a real liver's vessels get another contrast.
        lesions_beside_unknown: put synthetic lesions also into real livers that may hide real ones.
    """

    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    window_hu: tuple[float, float]
    inputs: tuple[str, ...]
    with_lesions: bool
    real_share: float = 0.4
    negative_share: float = 0.05
    centered_share: float = 0.8
    gentle_prior_until: int = 0
    lesions: LesionRanges = field(default_factory=LesionRanges)
    located_share: float = 0.0
    located_errors: float = 1.0
    vessel_contrast_chance: float = 0.0
    lesions_beside_unknown: bool = False


def _liver_voxel(case: Case, rng: np.random.Generator) -> np.ndarray:
    """A random voxel of the liver, found by trying points of its box."""
    low, high = np.array(case.liver_box)
    point = (low + high) // 2
    for _ in range(20):
        point = rng.integers(low, high + 1)
        value = case.image[tuple(point)] == Tissue.LIVER if case.liver is None else case.liver[tuple(point)]
        if value:
            break
    return point.astype(float)


def offsets(size: Sequence[int], spacing: Sequence[float]) -> torch.Tensor:
    """Where the voxels of a patch lie from its middle: float32 [k, j, i, 3] in mm along (k, j, i)."""
    axes = [
        torch.from_numpy(((np.arange(n) - (n - 1) / 2) * s).astype(np.float32))
        for n, s in zip(size, spacing, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def source_positions(case: Case, spec: SampleSpec, rng, generator) -> torch.Tensor:
    """Where the patch's voxels lie in the case: float32 [k, j, i, 3], in source voxels (k, j, i)."""
    source_spacing = np.array(case.spacing)
    spacing, size = np.array(spec.spacing_mm[::-1]), np.array(spec.patch_size[::-1])
    extent = size * spacing / source_spacing
    if rng.random() < spec.centered_share:
        center = _liver_voxel(case, rng) + rng.uniform(-0.3, 0.3, 3) * extent
    else:
        shape = np.array(case.image.shape)
        center = rng.uniform(np.minimum(extent / 4, shape / 2), np.maximum(shape - extent / 4, shape / 2))
    angles = np.deg2rad(rng.normal(0, 7, 3)) if rng.random() < 0.7 else np.zeros(3)
    linear = np.diag(np.exp(rng.normal(0, 0.1)) * np.exp(rng.normal(0, 0.05, 3)))
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        linear = turn @ linear
    from_middle = offsets(size, spacing)
    position = from_middle @ torch.from_numpy(linear.T.astype(np.float32))
    if rng.random() < 0.6:
        coarse = [max(2, int(np.ceil(n * s / 40)) + 1) for n, s in zip(size, spacing, strict=True)]
        shift = torch.randn((1, 3, *coarse), generator=generator) * float(rng.uniform(1, 6))
        shift = interpolate(shift, size=tuple(int(n) for n in size), mode="trilinear", align_corners=True)
        position = position + shift[0].permute(1, 2, 3, 0)
    return position / torch.from_numpy(source_spacing.astype(np.float32)) + torch.from_numpy(center.astype(np.float32))


def _crop_around(position: torch.Tensor, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], torch.Tensor]:
    """The part of the source that ``position`` needs, and the positions as ``grid_sample`` wants them."""
    flat = position.reshape(-1, 3)
    low = torch.clamp(flat.min(dim=0).values.floor().long() - 1, min=0)
    high = torch.minimum(flat.max(dim=0).values.ceil().long() + 2, torch.tensor(shape))
    low = torch.minimum(low, torch.tensor(shape) - 2)
    high = torch.maximum(high, low + 2)
    block = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    normalized = (position - low) * 2 / (high - low - 1) - 1
    return block, normalized.flip(-1)[None]


def sample_tissues(image: np.ndarray, position: torch.Tensor, smooth: bool = True) -> torch.Tensor:
    """Looks tissues up at positions between voxels.

    Args:
        image: :class:`Tissue` map [k, j, i].
        position: float32 [..., 3], voxels of ``image`` as (k, j, i).
        smooth: let the neighbors vote, for smooth surfaces; otherwise the nearest voxel decides.

    Returns:
        uint8 [...]; air outside the map.
    """
    block, where = _crop_around(position, image.shape)
    crop = torch.from_numpy(np.array(image[block]))
    if not smooth:
        nearest = grid_sample(
            crop[None, None].float(), where, mode="nearest", padding_mode="zeros", align_corners=True
        )
        return nearest[0, 0].to(torch.uint8)
    present = torch.unique(crop)
    votes = torch.stack([(crop == tissue).float() for tissue in present])[None]
    votes = grid_sample(votes, where, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    # Outside the map no tissue has a vote, which leaves air.
    best, tissue = torch.full_like(votes[0], 1e-3), torch.full(votes.shape[1:], Tissue.AIR, dtype=torch.uint8)
    for number, candidate in enumerate(present):
        tissue[votes[number] > best] = candidate
        best = torch.maximum(best, votes[number])
    return tissue


def look_up(image: np.ndarray, position: torch.Tensor, outside: float = 0.0) -> torch.Tensor:
    """Values of an image at positions between voxels, trilinear.

    Args:
        image: numbers [k, j, i].
        position: float32 [..., 3], voxels of ``image`` as (k, j, i).
        outside: value beyond the image.

    Returns:
        float32 [...].
    """
    block, where = _crop_around(position, image.shape)
    crop = torch.from_numpy(np.ascontiguousarray(image[block]).astype(np.float32)) - outside
    sampled = grid_sample(crop[None, None], where, mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled[0, 0] + outside


def scan_of(case: Case, position: torch.Tensor, spec: SampleSpec, rng, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A new look of a case: other densities, lesions, noise.

    Args:
        case: synthetic or real.
        position: where to look, float32 [k, j, i, 3], voxels of the case as (k, j, i), ``spec.spacing_mm`` apart.
        spec: ranges.

    Returns:
        (HU float32 [k, j, i], target uint8 [k, j, i] as in :class:`SampleSet`).
    """
    make = _from_synthetic if case.kind == "synthetic" else _from_real
    return make(case, position, spec, rng, generator)


def _from_synthetic(case: Case, position: torch.Tensor, spec: SampleSpec, rng, generator):
    tissue = sample_tissues(case.image, position, smooth=max(spec.spacing_mm) < 2.5)
    spacing = spec.spacing_mm[::-1]
    liver = tissue == Tissue.LIVER
    hu = paint(tissue, draw_palette(rng), spacing, rng, generator)
    hu, lesions = add_lesions(hu, liver, spacing, spec.lesions, rng, generator)
    hu = scan(hu, spacing, rng, generator)
    return hu, liver.to(torch.uint8) + lesions.to(torch.uint8)


def _from_real(case: Case, position: torch.Tensor, spec: SampleSpec, rng, generator):
    hu = look_up(case.image, position, AIR_HU)
    liver = look_up(case.liver, position) > 0.5
    spacing = spec.spacing_mm[::-1]
    soft = blur(liver.float(), tuple(1.0 / s for s in spacing))
    if rng.random() < spec.vessel_contrast_chance and bool(liver.any()):
        # Vessels brighter, fainter, or darker than the liver as in unenhanced scans: their shape tells them from
        # lesions, not their brightness.
        factor = float(rng.choice([rng.uniform(-1.2, -0.3), rng.uniform(-0.3, 0.8), rng.uniform(1.2, 1.8)]))
        detail = (hu - hu[liver].median()).clamp(-60, 120)
        hu = hu + (factor - 1) * blur(detail, tuple(0.6 / s for s in spacing)) * soft
    if rng.random() < 0.4:  # another contrast in the liver than the rest has
        hu = hu + float(rng.uniform(-35, 35)) * soft
    if rng.random() < 0.6:
        hu = hu * float(rng.uniform(0.92, 1.08)) + float(rng.uniform(-20, 20))
    target = liver.to(torch.uint8)
    hidden = spec.with_lesions and not case.lesions_known
    if hidden:
        target = target * LIVER_OR_LESION
    if not hidden or spec.lesions_beside_unknown:
        hu, lesions = add_lesions(hu, liver, spacing, spec.lesions, rng, generator)
        target[lesions] = LESION
    if rng.random() < 0.3:
        hu = blur(hu, tuple(float(rng.uniform(0.3, 1.2)) / s for s in spacing))
    noise = blur(torch.randn(hu.shape, generator=generator), (0.4, 0.5, 0.5))
    return hu + float(rng.uniform(0, 14)) * noise / noise.std(), target


def no_liver(spec: SampleSpec, rng, generator):
    """Something that is not an abdomen: a water phantom, a head, limbs, noise."""
    spacing, size = np.array(spec.spacing_mm[::-1]), spec.patch_size[::-1]
    position = offsets(size, spacing)
    hu = torch.full(size, float(AIR_HU))
    bodies = int(rng.integers(1, 3))
    for number in range(bodies):
        beside = np.array([0, 0, (number - (bodies - 1) / 2) * 180])
        center = torch.tensor(rng.normal(0, 15, 3) + beside, dtype=torch.float32)
        radii = rng.uniform(55, 110, 3)
        radii[0] = rng.choice([1e4, rng.uniform(70, 130)])
        scaled = (position - center) / torch.tensor(radii, dtype=torch.float32)
        depth = (1 - scaled.norm(dim=-1)) * float(radii[1:].min())
        depth = depth + float(rng.uniform(0, 5)) * torch_noise(size, 30 / spacing.max(), generator)
        shells = [(0, rng.uniform(-20, 20)), (rng.uniform(2, 20), rng.uniform(20, 70))]
        if rng.random() < 0.6:  # skull around brain
            skull = rng.uniform(3, 15)
            shells += [(skull, rng.uniform(400, 1100)), (skull + rng.uniform(4, 9), rng.uniform(0, 60))]
            shells += [(rng.uniform(35, 55), rng.uniform(0, 40))]
        for limit, value in shells:
            hu = torch.where(depth > limit, torch.full_like(hu, float(value)), hu)
        if rng.random() < 0.5:  # a long bone
            bone = (position[..., 1:] - center[1:]).norm(dim=-1)
            hu = torch.where(bone < float(rng.uniform(8, 16)), torch.full_like(hu, float(rng.uniform(300, 900))), hu)
    hu = hu + float(rng.uniform(0, 15)) * torch_noise(size, 20 / spacing.max(), generator)
    return scan(hu, tuple(spacing), rng, generator), torch.zeros(size, dtype=torch.uint8)
