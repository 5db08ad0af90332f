"""Models for tests: tiny networks with fixed weights that answer fast, and an oracle that needs no network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models import Manifest, build_network, save_weights
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.stages import CanonicalStage

TINY_UNET = {"spatial_dims": 3, "out_channels": 2, "channels": [4, 8], "strides": [2], "num_res_units": 0}


def manifest(role: str = "locate", **changes) -> Manifest:
    """A valid manifest of a tiny network."""
    refine = role == "refine"
    values = {
        "id": f"tiny-{role}",
        "role": role,
        "title": f"tiny {role} model",
        "architecture": "UNet",
        "arguments": {**TINY_UNET, "in_channels": 2 if refine else 1, "out_channels": 3 if refine else 2},
        "inputs": ("ct", "liver_probability") if refine else ("ct",),
        "labels": {"background": 0, "liver": 1, "lesion": 2} if refine else {"background": 0, "liver": 1},
        "spacing_mm": (2.0, 2.0, 2.0) if refine else (4.0, 4.0, 4.0),
        "patch_size": (16, 16, 16),
        "window_hu": (-175.0, 250.0),
        "weights_file": "weights.safetensors",
        "weights_sha256": "0" * 64,
        "version": "1",
        "license": "Apache-2.0",
        "intended_use": "tests",
        "margin_mm": 10.0 if refine else 0.0,
        "overlap": 0.5,
    }
    return Manifest(**{**values, **changes})


def save_model(folder: Path, role: str, seed: int = 0, **changes) -> Manifest:
    """Writes a tiny model with seeded random weights into ``folder`` and returns its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = manifest(role, **changes)
    torch.manual_seed(seed)
    network = build_network(draft.architecture, draft.arguments)
    digest = save_weights(network, folder / draft.weights_file, half=False)
    saved = manifest(role, **{**changes, "weights_sha256": digest})
    saved.save(folder)
    return saved


def save_pair(folder: Path) -> Path:
    """Writes a tiny locate and a tiny refine model into ``folder``, which it returns."""
    for role in ("locate", "refine"):
        save_model(folder / role, role)
    return folder


@dataclass
class Oracle(CanonicalStage):
    """Knows where the bodies are: answers with the analytic truth on whatever grid it is asked.

    Attributes:
        bodies: one list of bodies per foreground label; a body has ``contains(ras) -> bool array``.
        asked: the grids and priors that it was given.
    """

    manifest: Manifest
    bodies: list[list]
    asked: list = field(default_factory=list)

    def predict(self, ct: torch.Tensor, prior: torch.Tensor | None, grid: Grid, progress: Progress) -> torch.Tensor:
        """The softened truth: share of each voxel that is inside, from 2×2×2 points per voxel."""
        self.asked.append((grid, prior))
        progress.update(0.5)
        k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
        total = np.zeros((len(self.bodies), *grid.shape), np.float32)
        for offset in np.array(np.meshgrid(*[(-0.25, 0.25)] * 3)).reshape(3, -1).T:
            ras = grid.to_ras(np.stack([i, j, k], axis=-1) + offset)
            inside = [np.any([body.contains(ras) for body in group], axis=0) for group in self.bodies]
            for label, mask in enumerate(inside):
                later = np.any(inside[label + 1 :], axis=0) if inside[label + 1 :] else False
                total[label] += (mask & ~np.asarray(later)) / 8
        return torch.from_numpy(total)
