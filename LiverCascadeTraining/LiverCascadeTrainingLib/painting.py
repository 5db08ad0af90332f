"""From tissues to Hounsfield units: contrast phases, texture, vessels, partial volume and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from LiverCascadeLib.channels import blur

from .anatomy import Tissue

# Mean HU ranges by contrast phase. Sources: textbook ranges for abdominal CT at 120 kV; single organs vary more than
# their phase, so that :func:`draw_palette` adds a jitter of its own to each.
_PHASES: dict[str, dict[Tissue, tuple[float, float]]] = {
    "unenhanced": {
        Tissue.LIVER: (40, 70), Tissue.SPLEEN: (38, 56), Tissue.KIDNEY_RIGHT: (24, 40), Tissue.AORTA: (32, 48),
        Tissue.VENA_CAVA: (32, 48), Tissue.PORTAL_VEIN: (32, 48), Tissue.PANCREAS: (25, 48), Tissue.HEART: (32, 48),
        Tissue.MUSCLE: (40, 62), Tissue.ADRENAL_RIGHT: (10, 40),
    },
    "arterial": {
        Tissue.LIVER: (50, 90), Tissue.SPLEEN: (80, 150), Tissue.KIDNEY_RIGHT: (100, 190), Tissue.AORTA: (200, 400),
        Tissue.VENA_CAVA: (40, 130), Tissue.PORTAL_VEIN: (60, 150), Tissue.PANCREAS: (70, 120),
        Tissue.HEART: (120, 280), Tissue.MUSCLE: (45, 68), Tissue.ADRENAL_RIGHT: (40, 90),
    },
    "portal-venous": {
        Tissue.LIVER: (85, 135), Tissue.SPLEEN: (95, 145), Tissue.KIDNEY_RIGHT: (140, 230), Tissue.AORTA: (115, 190),
        Tissue.VENA_CAVA: (90, 170), Tissue.PORTAL_VEIN: (125, 195), Tissue.PANCREAS: (75, 120),
        Tissue.HEART: (110, 170), Tissue.MUSCLE: (48, 72), Tissue.ADRENAL_RIGHT: (50, 100),
    },
    "delayed": {
        Tissue.LIVER: (70, 105), Tissue.SPLEEN: (75, 110), Tissue.KIDNEY_RIGHT: (100, 180), Tissue.AORTA: (85, 125),
        Tissue.VENA_CAVA: (85, 125), Tissue.PORTAL_VEIN: (85, 125), Tissue.PANCREAS: (60, 95),
        Tissue.HEART: (80, 120), Tissue.MUSCLE: (48, 72), Tissue.ADRENAL_RIGHT: (40, 80),
    },
}  # fmt: skip
# The heart's muscle; the heart's own range above is that of the blood in it.
_MYOCARDIUM = {"unenhanced": (36, 54), "arterial": (60, 120), "portal-venous": (75, 130), "delayed": (65, 105)}
_PHASE_SHARES = {"unenhanced": 0.25, "arterial": 0.15, "portal-venous": 0.45, "delayed": 0.15}

# Amplitude of the slow variation inside a tissue, HU, drawn log-uniformly; 1 to 6 for those that are not named. All
# ranges begin where the liver's do: what is mottled on most scans is smooth on some, so that a network that knows the
# liver by its smoothness takes a smooth heart or stomach for liver.
_TEXTURE: dict[Tissue, tuple[float, float]] = {
    Tissue.BOWEL: (2, 45), Tissue.STOMACH: (2, 30), Tissue.HEART: (1, 12), Tissue.MUSCLE: (2, 18),
    Tissue.KIDNEY_LEFT: (4, 38), Tissue.KIDNEY_RIGHT: (4, 38), Tissue.VISCERAL_FAT: (2, 15),
    Tissue.MARROW: (15, 75), Tissue.LUNG: (15, 75), Tissue.BONE: (30, 150),
}  # fmt: skip

# Tissues whose density does not follow the phase.
_CONSTANT: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (-1024, -990), Tissue.GALLBLADDER: (-5, 25), Tissue.OESOPHAGUS: (20, 60),
    Tissue.SUBCUTANEOUS_FAT: (-118, -88), Tissue.VISCERAL_FAT: (-112, -80), Tissue.BONE: (300, 850),
    Tissue.MARROW: (90, 320), Tissue.DISC: (30, 100), Tissue.LUNG: (-900, -680), Tissue.BOWEL: (0, 60),
    Tissue.BOWEL_GAS: (-1000, -700), Tissue.TABLE: (-850, -100), Tissue.STOMACH: (0, 60),
}  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """One patient's densities.

    Attributes:
        phase: contrast phase.
        mean_hu: mean HU by tissue, [25].
        texture_hu: amplitude of the slow variation inside each tissue, [25].
        vessel_hu: density of the liver's vessels.
        myocardium_hu: density of the heart's muscle.
    """

    phase: str
    mean_hu: np.ndarray
    texture_hu: np.ndarray
    vessel_hu: float
    myocardium_hu: float


def draw_palette(rng: np.random.Generator) -> Palette:
    """Draws densities that belong together: one phase for all organs, with jitter, fatty livers, oral contrast."""
    phase = str(rng.choice(list(_PHASE_SHARES), p=list(_PHASE_SHARES.values())))
    ranges = {**_CONSTANT, **_PHASES[phase]}
    ranges[Tissue.KIDNEY_LEFT] = ranges[Tissue.KIDNEY_RIGHT]
    ranges[Tissue.ADRENAL_LEFT] = ranges[Tissue.ADRENAL_RIGHT]
    mean = np.zeros(len(Tissue), np.float32)
    # Organs of one phase are early or late together: one position in the range, with a little freedom for each.
    position = rng.uniform(0, 1)
    for tissue, (low, high) in ranges.items():
        mean[tissue] = low + (high - low) * np.clip(position + rng.normal(0, 0.35), -0.3, 1.3)
    if rng.random() < 0.15:
        mean[Tissue.LIVER] -= rng.uniform(20, 70)  # steatosis
    for filled in (Tissue.STOMACH, Tissue.BOWEL):
        if rng.random() < 0.3:
            mean[filled] = rng.uniform(120, 450)  # positive oral contrast
    if rng.random() < 0.04:
        mean[Tissue.VISCERAL_FAT] = rng.uniform(-5, 25)  # ascites
    texture = [np.exp(rng.uniform(*np.log(_TEXTURE.get(tissue, (1, 6))))) for tissue in Tissue]
    vessel = mean[Tissue.PORTAL_VEIN] + rng.normal(0, 10) if rng.random() < 0.8 else mean[Tissue.LIVER]
    myocardium = float(rng.uniform(*_MYOCARDIUM[phase]))
    return Palette(phase, mean, np.array(texture, np.float32), float(vessel), myocardium)


def torch_noise(shape: tuple[int, int, int], scale: float, generator: torch.Generator) -> torch.Tensor:
    """Band-limited noise [k, j, i] of about zero mean and unit variance; ``scale`` in voxels."""
    coarse = [max(2, round(n / scale) + 1) for n in shape]
    noise = torch.randn((1, 1, *coarse), generator=generator)
    noise = torch.nn.functional.interpolate(noise, size=shape, mode="trilinear", align_corners=True)[0, 0]
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def paint(
    tissue: torch.Tensor,
    palette: Palette,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
    generator: torch.Generator,
) -> torch.Tensor:
    """Noise-free HU of a tissue map.

    Args:
        tissue: integer :class:`Tissue` map [k, j, i].
        palette: the patient's densities.
        spacing: mm along (k, j, i).
        rng, generator: sources of randomness.

    Returns:
        float32 HU [k, j, i].
    """
    index = tissue.long()
    mean, amplitude = torch.from_numpy(palette.mean_hu), torch.from_numpy(palette.texture_hu)
    shape = tuple(tissue.shape)
    slow, quick = (torch_noise(shape, scale / max(spacing), generator) for scale in (25, 8))
    texture = 0.6 * slow + 0.4 * quick
    hu = mean[index] + amplitude[index] * texture
    hu = torch.where(index == Tissue.LIVER, _with_vessels(hu, palette, spacing, rng, generator), hu)
    heart = index == Tissue.HEART
    if bool(heart.any()):
        hu = torch.where(heart, _with_chambers(hu, palette, spacing, rng, generator), hu)
    if rng.random() < 0.6:  # gas rises to the front of the stomach
        gas = torch_noise(shape, 30 / max(spacing), generator) > rng.uniform(0, 1.5)
        hu = torch.where((index == Tissue.STOMACH) & gas, torch.full_like(hu, -950.0), hu)
    return hu


def _with_vessels(hu, palette, spacing, rng, generator) -> torch.Tensor:
    """Tubes where two independent smooth fields are both near zero: winding, of varying caliber."""
    scale = rng.uniform(18, 35) / max(spacing)
    shape = tuple(hu.shape)
    first, second = torch_noise(shape, scale, generator), torch_noise(shape, scale, generator)
    caliber = rng.uniform(0.06, 0.16) * (1 + 0.3 * torch_noise(shape, scale, generator))
    inside = torch.sigmoid((caliber - torch.hypot(first, second)) * 30)
    return hu + inside * (palette.vessel_hu - palette.mean_hu[Tissue.LIVER])


def _with_chambers(hu, palette, spacing, rng, generator) -> torch.Tensor:
    """Blood and muscle of the heart, in lumps of a few centimeters: one or the other may be as dense as the liver."""
    lumps = torch_noise(tuple(hu.shape), rng.uniform(18, 40) / max(spacing), generator)
    muscle = torch.sigmoid((lumps - rng.uniform(-1.0, 1.0)) * rng.uniform(2, 8))
    return hu + muscle * (palette.myocardium_hu - float(palette.mean_hu[Tissue.HEART]))


def scan(
    hu: torch.Tensor, spacing: tuple[float, float, float], rng: np.random.Generator, generator: torch.Generator
) -> torch.Tensor:
    """What a scanner makes of it: point spread, slice thickness, and noise with a kernel's correlation.

    Args:
        hu: float32 [k, j, i].
        spacing: mm along (k, j, i).
    """
    in_plane, thickness = rng.uniform(0.4, 1.1), rng.choice([0.8, 1.5, 2.5, 5.0, 7.0], p=[0.25, 0.3, 0.25, 0.15, 0.05])
    hu = blur(hu, (thickness / 2.4 / spacing[0], in_plane / spacing[1], in_plane / spacing[2]))
    level = float(np.exp(rng.uniform(np.log(3), np.log(30))))
    noise = torch.randn(hu.shape, generator=generator)
    kernel = rng.uniform(0.0, 1.2)
    noise = blur(noise, (0.5 * thickness / 2.4 / spacing[0], kernel / spacing[1], kernel / spacing[2]))
    return hu + level * noise / (noise.std() + 1e-6)
