"""An organ label map from formulas: an abdomen that owes nothing to any patient."""

from __future__ import annotations

import numpy as np

from .anatomy import Tissue, smooth_noise

SPACING_MM = 2.0
SIZE = (170, 140, 190)  # (k, j, i)
AORTA_AT = (105, 62, 92)  # (k, j, i); positions below are millimetres from here along (R, A, S)

# Organs as ellipsoids, (center, radii) in mm; later ones cover earlier ones.
_ELLIPSOIDS = (
    (Tissue.STOMACH, (-58, 48, 12), (40, 42, 52)),
    (Tissue.PANCREAS, (-15, 34, -52), (52, 12, 14)),
    (Tissue.SPLEEN, (-98, -22, 2), (26, 44, 52)),
    (Tissue.KIDNEY_RIGHT, (60, -26, -84), (25, 27, 52)),
    (Tissue.KIDNEY_LEFT, (-58, -26, -70), (25, 27, 54)),
    (Tissue.ADRENAL_RIGHT, (34, -8, -22), (5, 12, 12)),
    (Tissue.ADRENAL_LEFT, (-30, -4, -20), (5, 12, 12)),
)


def phantom_organs(rng: np.random.Generator) -> np.ndarray:
    """Draws an abdomen.

    Args:
        rng: makes the surfaces wavy, each time in another way.

    Returns:
        uint8 organ labels (BTCV numbers) [k, j, i] along (S, A, R), voxels of 2 mm.
    """
    axes = [(np.arange(n, dtype=np.float32) - c) * SPACING_MM for n, c in zip(SIZE, AORTA_AT, strict=True)]
    z, y, x = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
    wave = 0.035 * smooth_noise(SIZE, 22, rng)
    organs = np.zeros(SIZE, np.uint8)

    def ellipsoid(center, radii):
        return np.sqrt(sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), center, radii, strict=True))) + wave

    for tissue, center, radii in _ELLIPSOIDS:
        organs[ellipsoid(center, radii) < 1] = tissue
    # Right and left lobe under one dome; the visceral surface is a plane that rises toward the left.
    right, left = ellipsoid((84, 22, -22), (66, 88, 92)), ellipsoid((14, 66, 8), (84, 40, 44))
    liver = np.minimum(right, left) < 1
    liver &= z > -88 + 0.9 * (84 - x) + 40 * wave / 0.035 * 0.1
    liver &= ~(ellipsoid((30, -8, -60), (34, 42, 60)) < 1)
    kidney = np.isin(organs, (Tissue.KIDNEY_RIGHT, Tissue.ADRENAL_RIGHT))
    organs[liver & ~kidney] = Tissue.LIVER
    organs[ellipsoid((46, 62, -52), (13, 20, 26)) < 1] = Tissue.GALLBLADDER

    def tube(x0, y0, radius, low, high, slope_x=0.0, slope_y=0.0):
        inside = (x - x0 - slope_x * z) ** 2 + (y - y0 - slope_y * z) ** 2 < (radius * (1 + wave)) ** 2
        return inside & (z > low) & (z < high)

    organs[tube(38, 38, 6.5, -58, -8, slope_x=0.35)] = Tissue.PORTAL_VEIN
    organs[tube(-2, 14, 8, 42, 200)] = Tissue.OESOPHAGUS
    organs[tube(0, 0, 10.5, -220, 240)] = Tissue.AORTA
    organs[tube(27, 13, 11.5, -220, 92, slope_x=0.02)] = Tissue.VENA_CAVA
    return organs
