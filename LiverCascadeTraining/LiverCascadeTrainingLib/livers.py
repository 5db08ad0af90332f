"""Livers of one data set among the organs of another: far more shapes than there are maps with all organs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from LiverCascadeLib.geometry import resample
from LiverCascadeLib.postprocess import largest_component
from LiverCascadeLib.volume import read_labels

from .anatomy import Tissue

# Of bodies, along every axis.
BODY_MM = 2.0
# Liver shapes: LiTS 1 … 111, without number 0, of which the image is trained on, and without 28 … 47, which are
# 3D-IRCADb and for evaluation only. Every third is kept from the training.
_LIVERS = tuple(n for n in range(1, 112) if not 28 <= n <= 47)
HELD_OUT_LIVERS = tuple(n for n in _LIVERS if n % 3 == 0)
TRAINING_LIVERS = tuple(n for n in _LIVERS if n % 3)
# What large vessels and kidneys occupy is not liver; other organs make room.
_STAYS = (Tissue.KIDNEY_RIGHT, Tissue.AORTA, Tissue.VENA_CAVA, Tissue.PORTAL_VEIN)
# Body that is kept above and below the liver.
_AROUND_MM = 36.0


def organs_of(path: Path) -> np.ndarray:
    """A BTCV label map, uint8 [k, j, i] along (S, A, R), voxels of 2 mm."""
    # The headers' identity affine mirrors the patient: flipped, the first axis grows to the right.
    return read_labels(path)[0][:, :, ::-1].astype(np.uint8)


def with_liver(organs: np.ndarray, data: Path, number: int) -> np.ndarray:
    """Organs with the liver of another patient under the same dome, and with what lies around it only.

    Args:
        organs: as :func:`organs_of` gives them.
        data: folder with ``labels_lits_liver``.
        number: of the liver in LiTS.
    """
    liver = _liver(data / "labels_lits_liver" / f"segmentation-{number}.nii.gz")
    old = np.argwhere(organs == Tissue.LIVER)
    new = np.argwhere(liver)
    # Same dome, same middle within the slices.
    shift = np.round(old.mean(axis=0) - new.mean(axis=0)).astype(int)
    shift[0] = old[:, 0].max() - new[:, 0].max()
    exchanged = np.where(organs == Tissue.LIVER, 0, organs)
    places = new + shift
    places = places[((places >= 0) & (places < organs.shape)).all(axis=1)]
    places = places[~np.isin(exchanged[tuple(places.T)], _STAYS)]
    mask = np.zeros(organs.shape, bool)
    mask[tuple(places.T)] = True
    exchanged[largest_component(mask)] = Tissue.LIVER
    heights = np.flatnonzero((exchanged == Tissue.LIVER).any(axis=(1, 2)))
    around = int(_AROUND_MM / BODY_MM)
    return exchanged[max(0, heights[0] - around) : heights[-1] + around + 1]


def _liver(path: Path) -> np.ndarray:
    """A LiTS liver, bool [k, j, i] along (S, A, R), voxels of 2 mm, without anything around."""
    labels, grid = read_labels(path)
    target = grid.canonical((BODY_MM,) * 3)
    mask = largest_component((resample((labels > 0).astype(np.uint8), grid, target, 0) > 0.5).numpy())
    hits = np.argwhere(mask)
    return mask[tuple(slice(a, b + 1) for a, b in zip(hits.min(axis=0), hits.max(axis=0), strict=True))]
