"""Checks of the geometry that an input states, with words for a user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import InputError

# Axes may be this far from right angles (as a cosine): headers are rounded, but at 0.001 the far end of a volume of
# 500 mm would be off by half a millimeter.
RIGHT_ANGLE_TOLERANCE = 1e-3


def check_spacing(what: str, spacing: Sequence[float]) -> None:
    """Checks that every voxel spacing (mm) of the input called ``what`` is above zero.

    Raises:
        InputError: zero, negative, or not a number.
    """
    values = np.array(spacing, dtype=np.float64)
    if not np.isfinite(values).all() or (values <= 0).any():
        raise InputError(
            f"{what} has a voxel spacing of {'×'.join(f'{s:g}' for s in values)} mm; each must be above zero. "
            "Export the volume again, or correct its header."
        )


def check_directions(what: str, columns: np.ndarray) -> None:
    """Checks the 3×3 voxel-to-patient matrix of the input called ``what``: finite, invertible, at right angles.

    Raises:
        InputError: one of these does not hold.
    """
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(columns).all():
        raise InputError(f"The direction matrix of {what} holds values that are not numbers. Export it again.")
    if (lengths == 0).any():
        raise InputError(f"The direction matrix of {what} is singular: a voxel spacing is zero. Export it again.")
    unit = columns / lengths
    if abs(np.linalg.det(unit)) < 1e-3:
        raise InputError(f"The direction matrix of {what} is singular: two axes point the same way. Export it again.")
    cosine = float(np.abs(unit.T @ unit - np.eye(3)).max())
    if cosine > RIGHT_ANGLE_TOLERANCE:
        raise InputError(
            f"The axes of {what} are not at right angles (off by {np.degrees(np.arcsin(min(1.0, cosine))):.2g}°), as "
            "after a tilted gantry or a sheared transform. Resample it to a straight grid first; Slicer does so with "
            "'Resample Scalar/Vector/DWI Volume'."
        )
