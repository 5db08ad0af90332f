"""The liver in 3D without a graphics driver: its lesions seen through it, as a shaded relief of the masks.

Each point of the picture is a ray through a regular lattice of points in the patient. The surface is where the
smoothed mask reaches one half along the ray, and its brightness follows from the mask's gradient there.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..geometry import Box
from ..result import LIVER_LABEL
from .drawing import Color, Labeled, as_image, draw_text

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

# The reader stands in front of the patient, a little to the patient's right and above.
AZIMUTH_DEGREES, ELEVATION_DEGREES = 18.0, 14.0
FINEST_MM, MOST_POINTS = 1.4, 150
LIGHT = np.array([0.35, 0.45, 0.82])  # falls from the upper left: to the right, down and into the picture
LIVER_INK, OTHER_INK, LESION_INK = (150, 158, 168), (158, 160, 164), (158, 44, 24)
OUTSIDE: Color = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Surface:
    """What a ray meets first, for each point of a part of the picture.

    Attributes:
        start: (row, column) of the part.
        share: 0…1, how much of the point is covered.
        shade: 0…1, how bright.
        facing: 0…1, 1 where the surface faces the reader.
    """

    start: tuple[int, int]
    share: np.ndarray
    shade: np.ndarray
    facing: np.ndarray


class Relief:
    """The liver of one labeled CT from one direction; :meth:`prepare` comes first.

    Args:
        labeled: with at least one voxel of liver.
    """

    def __init__(self, labeled: Labeled):
        self._labeled = labeled
        self._axes = _view_axes()
        box = Box.around(labeled.labels)
        if box is None:
            raise ValueError("A relief needs a liver.")
        edges = zip(np.array(box.start) - 0.5, np.array(box.stop) - 0.5, strict=True)
        corners = labeled.volume.grid.to_ras(np.array(np.meshgrid(*edges)).reshape(3, -1).T) @ self._axes.T
        extent = corners.max(axis=0) - corners.min(axis=0)
        self.spacing_mm = max(FINEST_MM, float(extent.max()) / MOST_POINTS)
        self._start = corners.min(axis=0) - 3 * self.spacing_mm
        self._count = np.ceil(extent / self.spacing_mm).astype(int) + 7
        self._lattice = np.zeros(0, labeled.labels.dtype)
        self._liver: Surface | None = None
        self._parts: list[tuple[slice, ...] | None] = []
        self._surfaces: dict[int, Surface | None] = {}

    def prepare(self) -> Generator[None, None, None]:
        """Samples the masks; yields between short pieces."""
        columns, rows, depth = (int(n) for n in self._count)
        self._lattice = np.zeros((depth, rows, columns), self._labeled.labels.dtype)
        for first in range(0, depth, 16):
            self._lattice[first : first + 16] = self._sample(first, min(first + 16, depth))
            yield
        smooth = (self._lattice >= LIVER_LABEL).astype(np.float32)
        for axis in range(3):
            smooth = ndimage.gaussian_filter1d(smooth, 1.0, axis=axis)
            yield
        self._liver = _surface(smooth, (0, 0))
        yield
        self._parts = ndimage.find_objects(self._lattice.astype(np.int32))
        yield

    def _sample(self, first: int, last: int) -> np.ndarray:
        """Labels of the nearest voxels for the layers ``first`` … ``last`` - 1."""
        labels, grid = self._labeled.labels, self._labeled.volume.grid
        to_ijk = np.linalg.inv(grid.ijk_to_ras)
        step = to_ijk[:3, :3] @ self._axes.T * self.spacing_mm  # columns: per step right, down, deeper
        zero = to_ijk[:3, :3] @ (self._axes.T @ self._start) + to_ijk[:3, 3]
        columns, rows = np.arange(self._count[0]), np.arange(self._count[1])
        index, inside = [], True
        for axis, size in enumerate(grid.size):
            at = (
                zero[axis]
                + step[axis, 2] * np.arange(first, last)[:, None, None]
                + step[axis, 1] * rows[:, None]
                + step[axis, 0] * columns
            )
            at = np.rint(at).astype(np.int32)
            inside = inside & (at >= 0) & (at < size)
            index.append(np.clip(at, 0, size - 1))
        return np.where(inside, labels[index[2], index[1], index[0]], 0)

    def size(self, width: int) -> tuple[int, int]:
        """Width and height of a picture that is ``width`` pixels wide."""
        return width, round(width * self._count[1] / self._count[0])

    def pixel(self, ras: np.ndarray, width: int) -> np.ndarray:
        """Fractional (column, row) at which ``ras`` appears in a picture of this width."""
        at = (self._axes @ np.asarray(ras, dtype=float) - self._start) / self.spacing_mm
        return (at[:2] + 0.5) * self._scale(width) - 0.5

    def _scale(self, width: int) -> float:
        """Pixels per point of the lattice."""
        return width / float(self._count[0])

    def picture(self, width: int, label: int | None = None, numbers: dict[int, str] | None = None) -> Image:
        """The liver, translucent, with its lesions.

        Args:
            width: in pixels; the height follows from the liver.
            label: of a lesion that is shown in a darker ink with a ring around it; None shows all alike.
            numbers: texts beside lesions, by their labels.
        """
        from PIL import Image, ImageDraw

        rows, columns = self._lattice.shape[1:]
        page = np.empty((rows, columns, 3))
        page[:] = OUTSIDE
        others = [n for n in self._labels() if n != label]
        for n in others:
            page = _paint(page, self._lesion(n), OTHER_INK if label is not None else LESION_INK)
        if label is not None and label in self._labels():
            page = _paint(page, self._lesion(label), LESION_INK)
        if self._liver is not None:
            glass = 0.22 + 0.5 * (1 - self._liver.facing) ** 2
            page = _paint(page, self._liver, LIVER_INK, glass)
        image = as_image(page).resize(self.size(width), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        if label is not None:
            self._ring(draw, label, width)
        for n, text in (numbers or {}).items():
            self._number(draw, n, text, width)
        middle = image.height / 2
        for letter, place, anchor in (("R", (6, middle), "lm"), ("L", (width - 6, middle), "rm")):
            draw_text(draw, place, letter, max(14, width // 20), (60, 60, 60), anchor, OUTSIDE)
        return image

    def _labels(self) -> list[int]:
        return [lesion.label for lesion in self._labeled.lesions]

    def _lesion(self, label: int) -> Surface | None:
        """None for a lesion that lies between all points."""
        if label not in self._surfaces:
            part = self._parts[label - 1] if label <= len(self._parts) else None
            self._surfaces[label] = self._surface_of(label, part) if part is not None else None
        return self._surfaces[label]

    def _surface_of(self, label: int, found: tuple[slice, ...]) -> Surface:
        around = tuple(slice(max(0, part.start - 3), part.stop + 3) for part in found)
        mask = (self._lattice[around] == label).astype(np.float32)
        smooth = ndimage.gaussian_filter(mask, 0.7)
        if smooth.max() < 0.5:  # of a point or two, smoothing leaves too little
            smooth /= smooth.max()
        return _surface(smooth, (around[1].start, around[2].start))

    def _where(self, label: int) -> tuple[np.ndarray, float] | None:
        """Middle of a lesion's box in RAS mm, and half its diagonal in mm."""
        lesion = next((one for one in self._labeled.lesions if one.label == label), None)
        if lesion is None:
            return None
        grid = self._labeled.volume.grid
        start, stop = np.array(lesion.box.start) - 0.5, np.array(lesion.box.stop) - 0.5
        return grid.to_ras((start + stop) / 2), float(np.linalg.norm((stop - start) * grid.spacing)) / 2

    def _ring(self, draw: ImageDraw, label: int, width: int) -> None:
        found = self._where(label)
        if found is None:
            return
        column, row = self.pixel(found[0], width)
        radius = max(found[1] / self.spacing_mm * self._scale(width) * 0.8, width / 22)
        for line, color in ((4, OUTSIDE), (2, (30, 30, 30))):
            corners = [column - radius, row - radius, column + radius, row + radius]
            draw.ellipse(corners, outline=color, width=line)

    def _number(self, draw: ImageDraw, label: int, text: str, width: int) -> None:
        """On a large lesion; beside one that the number would hide."""
        found = self._where(label)
        if found is None:
            return
        size = max(13, width // 24)
        column, row = self.pixel(found[0], width)
        if found[1] / self.spacing_mm * self._scale(width) < 1.3 * size:
            column, row = column + 0.8 * size, row - 0.8 * size
        draw_text(draw, (column, row), text, size, (0, 0, 0), "mm", OUTSIDE)


def _view_axes() -> np.ndarray:
    """Rows: RAS unit vectors to the right, down and into the picture."""
    azimuth, elevation = np.deg2rad(AZIMUTH_DEGREES), np.deg2rad(ELEVATION_DEGREES)
    toward = np.array([np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.cross(-toward, (0, 0, 1))
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(-toward, right), -toward])


def _surface(smooth: np.ndarray, start: tuple[int, int]) -> Surface:
    """The first layer along axis 0 at which ``smooth`` reaches one half."""
    solid = smooth >= 0.5
    first = solid.argmax(axis=0)
    share = np.clip(smooth.max(axis=0) / 0.5 - 0.5, 0, 1)
    row, column = np.indices(first.shape)
    last = np.array(smooth.shape) - 1
    right = smooth[first, row, np.minimum(column + 1, last[2])] - smooth[first, row, np.maximum(column - 1, 0)]
    down = smooth[first, np.minimum(row + 1, last[1]), column] - smooth[first, np.maximum(row - 1, 0), column]
    inward = smooth[np.minimum(first + 1, last[0]), row, column] - smooth[np.maximum(first - 1, 0), row, column]
    normal = np.stack([right, down, inward])
    # The mask grows inward: where the surface faces the reader, its gradient points away from the reader.
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-6)
    shade = np.clip((normal * (LIGHT / np.linalg.norm(LIGHT))[:, None, None]).sum(axis=0), 0, 1)
    return Surface(start, share, shade, np.clip(normal[2], 0, 1))


def _paint(page: np.ndarray, surface: Surface | None, ink: Color, glass: np.ndarray | float = 1.0) -> np.ndarray:
    """``page`` under or behind a surface of ``ink``; ``glass`` is how much of it covers what lies behind."""
    if surface is None:
        return page
    rows, columns = surface.share.shape
    part = (slice(surface.start[0], surface.start[0] + rows), slice(surface.start[1], surface.start[1] + columns))
    alpha = (surface.share * glass)[..., None]
    color = np.array(ink) * (0.45 + 0.75 * surface.shade)[..., None]
    page[part] = page[part] * (1 - alpha) + alpha * np.clip(color, 0, 255)
    return page
