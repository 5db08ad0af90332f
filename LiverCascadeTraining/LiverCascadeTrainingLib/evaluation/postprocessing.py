"""Clean-up of label maps before they are scored, so that it can be compared like another model.

None of it is a conditional random field: no kept package has a dense one that installs everywhere (MONAI's needs an
extension that its wheels do not carry, pydensecrf is not maintained). The guided filter stands for that family: it
moves borders to edges of the CT nearby, in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.postprocess import CleanUp, clean, components, fill_holes, largest_component

from ..names import check_name

# HU between which the CT guides: fat to enhanced vessels; what is beyond has no say.
GUIDE_HU = (-100.0, 250.0)
# Differences below this are noise to the guided filter; its window reaches this far to each side.
GUIDE_NOISE_HU, GUIDE_REACH_MM = 25.0, 3.0
MARGIN_MM = 10.0


@dataclass(frozen=True)
class Step:
    """One kind of clean-up.

    Attributes:
        apply: (labels 0/1/2 [k, j, i], grid, ct in HU or None, number) → labels.
        meaning: one line for readers.
        number: what stands for the number in its name where none is given; None where it takes none.
        needs_ct: whether it cannot do without the CT.
    """

    apply: Callable[[np.ndarray, Grid, np.ndarray | None, float], np.ndarray]
    meaning: str
    number: float | None = None
    needs_ct: bool = False


def _largest(labels: np.ndarray, grid: Grid, ct: np.ndarray | None, number: float) -> np.ndarray:
    return labels * largest_component(labels > 0)


def _fill(labels: np.ndarray, grid: Grid, ct: np.ndarray | None, number: float) -> np.ndarray:
    return np.maximum(labels, fill_holes(labels > 0))


def _minimum(labels: np.ndarray, grid: Grid, ct: np.ndarray | None, number: float) -> np.ndarray:
    numbers, sizes = components(labels == 2)
    small = (6 * sizes * grid.voxel_volume_mm3 / np.pi) ** (1 / 3) < number
    kept = labels.copy()
    kept[np.concatenate([[False], small])[numbers]] = 1
    return kept


def _smooth(labels: np.ndarray, grid: Grid, ct: np.ndarray | None, number: float) -> np.ndarray:
    from scipy import ndimage

    sigma = number / grid.spacing[::-1]
    liver, lesion = (
        ndimage.gaussian_filter((labels >= value).astype(np.float32), sigma, truncate=3) > 0.5 for value in (1, 2)
    )
    return np.where(lesion, 2, liver).astype(np.uint8)


def _guided(labels: np.ndarray, grid: Grid, ct: np.ndarray | None, number: float) -> np.ndarray:
    low, high = GUIDE_HU
    guide = (np.clip(ct, low, high).astype(np.float32) - low) / (high - low)
    window = 2 * np.maximum(1, np.round(number / grid.spacing[::-1])).astype(int) + 1
    noise = (GUIDE_NOISE_HU / (high - low)) ** 2
    liver, lesion = (guided_filter((labels >= v).astype(np.float32), guide, window, noise) > 0.5 for v in (1, 2))
    return np.where(lesion, 2, liver).astype(np.uint8)


def guided_filter(image: np.ndarray, guide: np.ndarray, window: np.ndarray, noise: float) -> np.ndarray:
    """The image as a linear function of the guide in each window, averaged over the windows that hold a voxel.

    Source: He, Sun, Tang, 'Guided Image Filtering', IEEE TPAMI 35 (2013) 1397–1409, equations 5, 6 and 8.

    Args:
        image, guide: float32 [k, j, i].
        window: odd number of voxels along (k, j, i).
        noise: variance of the guide below which the image is averaged.
    """
    from scipy.ndimage import uniform_filter

    def averaged(array: np.ndarray) -> np.ndarray:
        return uniform_filter(array, tuple(int(n) for n in window), mode="nearest")

    mean, target = averaged(guide), averaged(image)
    slope = (averaged(guide * image) - mean * target) / (averaged(guide * guide) - mean**2 + noise)
    offset = target - slope * mean
    return averaged(slope) * guide + averaged(offset)


def _engine(labels: np.ndarray, grid: Grid, ct: np.ndarray | None, number: float) -> np.ndarray:
    return np.minimum(clean(labels, grid, CleanUp())[0], 2).astype(np.uint8)


STEPS: dict[str, Step] = {
    "largest": Step(_largest, "the largest connected liver only"),
    "fill": Step(_fill, "holes enclosed in the liver become liver"),
    "min": Step(_minimum, "lesions of a smaller volume-equivalent diameter (mm) become liver", 5.0),
    "smooth": Step(_smooth, "both masks smoothed by a Gaussian of this width (mm), cut at one half", 1.0),
    "guided": Step(
        _guided, "borders moved to edges of the CT within this distance (mm): guided filter", GUIDE_REACH_MM, True
    ),
    "engine": Step(_engine, "what livercascade does after its networks"),
}


@dataclass(frozen=True)
class PostProcessing:
    """A chain of steps.

    Attributes:
        name: such as 'largest+fill+min5'.
        steps: with the number that each was given.
    """

    name: str
    steps: tuple[tuple[Step, float], ...]

    @classmethod
    def parse(cls, name: str) -> PostProcessing:
        """Reads a chain such as 'largest+fill+min5'.

        Raises:
            SettingError: a step is not known.
            InputError: a step has a number that it does not take, or is no number above 0.
        """
        steps = []
        for part in name.split("+"):
            key, number = re.fullmatch(r"([^\d.]*)([\d.]*)", part.strip()).groups() if part.strip() else ("", "")
            step = STEPS[check_name(key, STEPS, "post-processing")]
            try:
                value = float(number) if number else step.number or 0.0
            except ValueError:
                value = 0.0
            if number and (step.number is None or value <= 0):
                raise InputError(f"'{part}' in the post-processing '{name}': {key} takes no such number.")
            steps.append((step, value))
        return cls(name, tuple(steps))

    @property
    def needs_ct(self) -> bool:
        """Whether a step cannot do without the CT."""
        return any(step.needs_ct for step, _ in self.steps)

    def apply(self, labels: np.ndarray, grid: Grid, ct: np.ndarray | None = None) -> np.ndarray:
        """Labels after all steps.

        Args:
            labels: 0 background, 1 liver, 2 lesion, [k, j, i] on ``grid``.
            grid: of the labels.
            ct: HU on the same grid.

        Raises:
            InputError: a step needs the CT, and there is none.
        """
        if self.needs_ct and ct is None:
            raise InputError(f"The post-processing '{self.name}' needs the CTs: give their folder with --ct.")
        box = Box.around(labels > 0)
        if box is None:
            return labels
        block = box.grown(int(np.ceil(MARGIN_MM / grid.spacing.min())), grid.size)
        part, part_grid = labels[block.slices], grid.crop(block)
        part_ct = None if ct is None else ct[block.slices]
        for step, number in self.steps:
            part = step.apply(part, part_grid, part_ct, number)
        done = np.zeros_like(labels, dtype=np.uint8)
        done[block.slices] = part
        return done
