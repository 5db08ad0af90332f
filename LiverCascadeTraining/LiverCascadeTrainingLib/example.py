"""The embedded example: a synthetic abdominal CT with known truth on an oblique grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.postprocess import CleanUp, clean
from LiverCascadeLib.volume import write_labels

from .anatomy import Tissue, invent_body
from .lesions import LesionRanges, add_lesions
from .looks import sample_tissues
from .painting import Palette, draw_palette, paint, scan
from .phantom import SPACING_MM, phantom_organs

SIZE = (154, 122, 72)
SPACING = (2.6, 2.6, 4.0)
# Turns about R, A and S in degrees: enough that nothing lines up by accident.
TURNS = (6.0, -4.0, 9.0)


def oblique_grid(center_ras: np.ndarray) -> Grid:
    """The example's grid: axes near L, P and S, turned by :data:`TURNS`, centered at ``center_ras`` (mm)."""
    matrix = np.diag([-1.0, -1.0, 1.0])
    for axis, angle in enumerate(np.deg2rad(TURNS)):
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    affine = np.eye(4)
    affine[:3, :3] = matrix * SPACING
    affine[:3, 3] = center_ras - affine[:3, :3] @ ((np.array(SIZE) - 1) / 2)
    return Grid(SIZE, affine)


def make_example(folder: Path, seed: int = 16) -> None:
    """Writes ``synthetic_abdomen.nii.gz`` and ``synthetic_abdomen_truth.nii.gz`` (1 liver, 2, 3, … lesions).

    Args:
        folder: where to write; made where needed.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    tissue = invent_body(phantom_organs(rng), SPACING_MM, rng)
    body = Grid(tissue.shape[::-1], np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0]))
    liver = np.argwhere(tissue == Tissue.LIVER)[:, ::-1]
    inside = np.argwhere((tissue != Tissue.AIR) & (tissue != Tissue.TABLE))[:, ::-1]
    # In the middle of the body, at the height of the liver.
    center = body.to_ras(np.array([*inside.mean(axis=0)[:2], liver[:, 2].mean()]))
    grid = oblique_grid(center)
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    position = body.to_ijk(grid.to_ras(np.stack([i, j, k], axis=-1)))[..., ::-1]
    painted = sample_tissues(tissue, torch.from_numpy(position.astype(np.float32)))
    spacing = SPACING[::-1]
    mask = painted == Tissue.LIVER
    palette = _portal_venous(rng)
    hu = paint(painted, palette, spacing, rng, generator)
    hu, lesions = add_lesions(
        hu, mask, spacing, LesionRanges((10.0, 20.0), 1.0, 4.0, bright_chance=0.0), rng, generator
    )
    hu = scan(hu, spacing, rng, generator).round().clamp(-1024, 3071)
    truth, _ = clean((mask.byte() + lesions.byte()).numpy(), grid, CleanUp(8, 300.0))
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(folder / "synthetic_abdomen.nii.gz", hu.short().numpy(), grid, compression=9)
    write_labels(folder / "synthetic_abdomen_truth.nii.gz", truth, grid, compression=9)


def _portal_venous(rng: np.random.Generator) -> Palette:
    while True:
        palette = draw_palette(rng)
        if palette.phase == "portal-venous" and palette.mean_hu[Tissue.LIVER] > 95:
            return palette
