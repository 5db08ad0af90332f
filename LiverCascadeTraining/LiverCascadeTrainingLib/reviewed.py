"""Real CTs without labels: what the cascade says of them, put right by hand where it was seen to be wrong.

Both CTs are unenhanced and show the whole heart, which no labeled CT does; the cascade took most of it for liver. A
review is a few figures, read off the pictures, and no mask: so it can be committed, and so anyone can make the labels
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from LiverCascadeLib.volume import Volume
from scipy import ndimage

# How far from the mask's surface, in mm, densities are not mixed with those of the surroundings any more.
_DEEP_MM = 5.0
# What is taken away reaches so far beyond the deep voxels that are no liver, in mm.
_REACH_MM = 9.0
# Sheets and strings that are thinner than about twice this many voxels in a slice are no liver.
_STRING_VOXELS = 4


@dataclass(frozen=True)
class Review:
    """What a person saw in the cascade's answer for one CT.

    Attributes:
        file: name under ``unlabelled``.
        least_hu: density above which the liver lies, where all else that was taken for it lies below.
        right_of: (z, x, slope) in RAS mm: above z the liver lies on the right of x + slope · (height above z).
    """

    file: str
    least_hu: float | None = None
    right_of: tuple[float, float, float] | None = None


REVIEWS: Mapping[str, Review] = {
    # Liver 55 to 65 HU, blood 28 to 46: heart, gallbladder, vena cava and pancreas go.
    "acrin_flt_001": Review("acrin_flt_001.nii.gz", least_hu=50.0),
    # Liver 20 to 45 HU, as the heart; a line of fat parts them.
    "matrad_liver": Review("matrad_liver.nii.gz", right_of=(-3.0, 16.0, 1.1)),
}


def reviewed_liver(volume: Volume, liver: np.ndarray, review: Review) -> np.ndarray:
    """The liver after the review.

    Args:
        volume: the CT.
        liver: the cascade's liver with its lesions, bool [k, j, i] on the volume's grid.
        review: what was wrong.

    Returns:
        bool [k, j, i]: one piece, without holes in its slices.
    """
    spacing = np.array(volume.grid.spacing[::-1])
    if review.least_hu is not None:
        liver = liver & ~_too_dark(volume.array, liver, review.least_hu, spacing)
        disk = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), _STRING_VOXELS)
        liver = ndimage.binary_opening(liver, disk[None])
    if review.right_of is not None:
        z, x, slope = review.right_of
        voxels = np.argwhere(liver)
        ras = volume.grid.to_ras(voxels[:, ::-1])
        height = ras[:, 2] - z
        wrong = voxels[(height > 0) & (ras[:, 0] < x + slope * height)]
        liver = liver.copy()
        liver[tuple(wrong.T)] = False
    parts, _ = ndimage.label(liver)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    liver = parts == sizes.argmax()
    return np.stack([ndimage.binary_fill_holes(plane) for plane in liver])


def _too_dark(hu: np.ndarray, liver: np.ndarray, least: float, spacing: np.ndarray) -> np.ndarray:
    """Where something darker than the liver begins deep inside the mask, and what lies around it as dark."""
    smooth = ndimage.gaussian_filter(np.clip(hu, -20, 110).astype(np.float32), 2.5 / spacing)
    deep = liver & (ndimage.distance_transform_edt(liver, sampling=spacing) > _DEEP_MM)
    core = ndimage.binary_opening(deep & (smooth < least))
    near = ndimage.distance_transform_edt(~core, sampling=spacing) < _REACH_MM
    return near & (smooth < least + 3)
