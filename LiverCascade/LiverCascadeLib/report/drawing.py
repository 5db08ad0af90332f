"""Pictures of a labeled CT: planes through it, contours, scale, letters. The overview and the report draw with it.

Radiological convention: the reader faces the patient or looks up from the feet, so the patient's right is on the left
of axial and coronal pictures; sagittal pictures have anterior on the left. Planes are true anatomical planes in RAS
millimeters, also where the volume is oblique.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..geometry import Box, Grid
from ..result import FIRST_LESION_LABEL, LIVER_LABEL
from ..steps import exhausted
from ..volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

WINDOW_HU, LEVEL_HU = 350.0, 60.0

BACKGROUND = (28, 31, 36)
INK, DIM, AMBER = (235, 237, 240), (158, 164, 172), (255, 184, 77)
# Told apart without color too: the liver's line is thin, the lesions' is thick, numbered, and brightest.
LIVER_LINE, LIVER_WIDTH = (112, 205, 255), 1.6
LESION_LINE, LESION_WIDTH = (255, 228, 77), 3.2

Color = tuple[int, int, int]


class LabeledLesion(Protocol):
    """A lesion as far as pictures know it."""

    @property
    def label(self) -> int:
        """Its value in the labels."""

    @property
    def box(self) -> Box:
        """The smallest box of the grid that holds it."""


class Labeled(Protocol):
    """What pictures are drawn of: a :class:`~..result.Result` or an :class:`~..lesions.assessment.Assessment`."""

    @property
    def volume(self) -> Volume:
        """The CT."""

    @property
    def labels(self) -> np.ndarray:
        """[k, j, i]: 0 background, 1 liver, 2 and above one value per lesion."""

    @property
    def lesions(self) -> tuple[LabeledLesion, ...]:
        """Its lesions."""


@dataclass(frozen=True)
class Plane:
    """An anatomical plane and how it is shown.

    Attributes:
        right, down: RAS unit vectors along the picture's axes.
        letters: at the picture's left, right, top and bottom edge.
        normal: the RAS axis that the plane is perpendicular to.
    """

    name: str
    right: tuple[int, int, int]
    down: tuple[int, int, int]
    letters: str
    normal: int


AXIAL, CORONAL, SAGITTAL = PLANES = (
    Plane("Axial", (-1, 0, 0), (0, -1, 0), "RLAP", 2),
    Plane("Coronal", (-1, 0, 0), (0, 0, -1), "RLSI", 1),
    Plane("Sagittal", (0, -1, 0), (0, 0, -1), "APSI", 0),
)


@dataclass(frozen=True)
class Window:
    """A square part of a plane as a picture.

    Attributes:
        plane: which one, and how it is turned.
        center: RAS mm of the picture's middle.
        width_mm: from edge to edge.
        pixels: the same.
    """

    plane: Plane
    center: np.ndarray
    width_mm: float
    pixels: int

    def pixel(self, ras: np.ndarray) -> np.ndarray:
        """Fractional (column, row) at which ``ras`` appears."""
        axes = np.array([self.plane.right, self.plane.down], dtype=float)
        return (axes @ (np.asarray(ras) - self.center)) / self.width_mm * self.pixels + (self.pixels - 1) / 2

    def points(self, samples: int) -> np.ndarray:
        """RAS (samples, samples, 3) of evenly spread points, row by row."""
        steps = ((np.arange(samples) + 0.5) / samples - 0.5) * self.width_mm
        right, down = np.array(self.plane.right), np.array(self.plane.down)
        return self.center + steps[None, :, None] * right + steps[:, None, None] * down


@dataclass(frozen=True)
class Cut:
    """What lies in a window.

    Attributes:
        hu: the CT.
        inside: 1 where there is a volume, else 0.
        liver, lesions: shares of the liver with its lesions, and of lesions; 0…1.
        one: share of the wanted lesion.
        labels: the nearest voxel's.
    """

    hu: np.ndarray
    inside: np.ndarray
    liver: np.ndarray
    lesions: np.ndarray
    one: np.ndarray
    labels: np.ndarray


def cut(labeled: Labeled, window: Window, samples: int, wanted: int = -1) -> Cut:
    """Samples a window linearly at ``samples`` × ``samples`` points.

    Args:
        wanted: label value of one lesion that is drawn apart from the others.
    """
    return exhausted(cut_steps(labeled, window, samples, wanted))


def cut_steps(labeled: Labeled, window: Window, samples: int, wanted: int = -1) -> Generator[None, None, Cut]:
    """As :func:`cut`, with pauses between short pieces."""
    grid, shape = labeled.volume.grid, labeled.labels.shape
    kji = grid.to_ijk(window.points(samples))[..., ::-1]
    inside = ((kji >= -0.5) & (kji <= np.array(shape) - 0.5)).all(axis=-1)
    low = np.floor(kji).astype(np.int32)
    fraction = (kji - low).astype(np.float32)
    sums = [np.zeros(inside.shape, np.float32) for _ in range(4)]
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner, bool), fraction, 1 - fraction), axis=-1)
        index = tuple(np.clip(low[..., axis] + corner[axis], 0, shape[axis] - 1) for axis in range(3))
        labels = labeled.labels[index]
        parts = (labeled.volume.array[index], labels >= LIVER_LABEL, labels >= FIRST_LESION_LABEL, labels == wanted)
        for total, value in zip(sums, parts, strict=True):
            total += weight * value
        yield
    nearest = np.clip(np.rint(kji).astype(np.int32), 0, np.array(shape) - 1)
    labels = np.where(inside, labeled.labels[tuple(np.moveaxis(nearest, -1, 0))], 0)
    for share in sums[1:]:
        share[~inside] = 0
    return Cut(sums[0], inside.astype(np.float32), *sums[1:], labels)


def gray_picture(content: Cut, pixels: int) -> np.ndarray:
    """The CT in the liver's window as float RGB [row, column, 3], 0…255; background outside the volume."""
    gray = np.clip((content.hu - (LEVEL_HU - WINDOW_HU / 2)) / WINDOW_HU, 0, 1)
    shown = enlarge(content.inside, pixels)[..., None] > 0.5
    return np.where(shown, 255 * enlarge(gray, pixels)[..., None], BACKGROUND)


def enlarge(values: np.ndarray, pixels: int) -> np.ndarray:
    """``values`` at ``pixels`` × ``pixels``, smoothly."""
    from PIL import Image

    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((pixels, pixels), Image.Resampling.BICUBIC))


def draw_contour(picture: np.ndarray, share: np.ndarray, color: Color, width: float) -> np.ndarray:
    """Draws the line on which ``share`` is one half, ``width`` pixels wide, smooth, with a dark seam on both sides."""
    down, right = np.gradient(share)
    slope = np.hypot(down, right)
    distance = np.abs(share - 0.5) / np.maximum(slope, 1e-6)
    distance[slope < 1e-3] = np.inf
    for half, ink, strength in ((width / 2 + 1.2, (0, 0, 0), 0.55), (width / 2, color, 1.0)):
        alpha = strength * np.clip(half + 0.5 - distance, 0, 1)[..., None]
        picture = picture * (1 - alpha) + alpha * np.array(ink)
    return picture


def as_image(picture: np.ndarray) -> Image:
    """A float RGB picture as 8 bits."""
    from PIL import Image

    return Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))


def draw_letters(draw: ImageDraw, letters: str, pixels: int, size: int = 30, color: Color = INK) -> None:
    """The directions at the left, right, top and bottom edge."""
    middle = pixels / 2
    places = (((16, middle), "lm"), ((pixels - 16, middle), "rm"), ((middle, 14), "mt"), ((middle, pixels - 14), "mb"))
    for letter, (place, anchor) in zip(letters, places, strict=True):
        draw_text(draw, place, letter, size, color, anchor)


def draw_scale(draw: ImageDraw, window: Window, length_mm: float, size: int = 18) -> None:
    """A bar of a known length in the lower right corner."""
    length = length_mm / window.width_mm * window.pixels
    right, bottom = window.pixels - 18, window.pixels - 22
    draw.line([(right - length, bottom), (right, bottom)], fill=(0, 0, 0), width=5)
    draw.line([(right - length, bottom), (right, bottom)], fill=INK, width=3)
    draw_text(draw, (right - length / 2, bottom - 6), f"{length_mm:g} mm", size, anchor="mb")


def draw_text(
    draw: ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    color: Color = INK,
    anchor: str = "lt",
    seam: Color = (0, 0, 0),
) -> None:
    """Text with a seam around its letters, so that it can be read on anything."""
    draw.text(place, text, fill=color, font=_font(size), anchor=anchor, stroke_width=2, stroke_fill=seam)


@lru_cache(maxsize=16)
def _font(size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def position_text(plane: Plane, ras: np.ndarray) -> str:
    """Where a plane lies, such as 'S 12.3 mm'."""
    at = float(ras[plane.normal])
    return f"{('RL', 'AP', 'SI')[plane.normal][int(at < 0)]} {abs(at):.1f} mm"


def ras_bounds(grid: Grid, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest R, A, S in mm over the outer corners of ``box``."""
    edges = zip(np.array(box.start) - 0.5, np.array(box.stop) - 0.5, strict=True)
    corners = grid.to_ras(np.array(np.meshgrid(*edges)).reshape(3, -1).T)
    return corners.min(axis=0), corners.max(axis=0)
