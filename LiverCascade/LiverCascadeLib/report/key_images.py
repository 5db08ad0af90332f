"""One axial slice per lesion, with its contour and diameters, as a radiologist would keep it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ..geometry import Grid
from ..lesions.assessment import AssessedLesion, Assessment, Axis
from .drawing import (
    AXIAL,
    INK,
    LESION_LINE,
    LIVER_LINE,
    Color,
    Window,
    as_image,
    cut_steps,
    draw_contour,
    draw_letters,
    draw_scale,
    draw_text,
    enlarge,
    gray_picture,
    position_text,
    ras_bounds,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

PIXELS, SAMPLES = 640, 320
NARROWEST_MM, WIDEST_MM, TIMES_LESION = 70.0, 300.0, 3.0
OTHER_LINE: Color = (190, 190, 190)
# Told apart without color: the contour is a plain line, the long axis a plain one with ends, the short one dashed.
CONTOUR_WIDTH, OTHER_WIDTH, LIVER_WIDTH = 3.0, 1.6, 1.6
AXIS_WIDTH, LABEL_SIZE = 3, 28


@dataclass(frozen=True)
class Picture:
    """A picture for a page.

    Attributes:
        data: of a JPEG file.
        width, height: in pixels.
        alternative: what it shows, for whoever cannot see it.
    """

    data: bytes
    width: int
    height: int
    alternative: str


def encoded(image: Image, alternative: str) -> Picture:
    """``image`` as JPEG."""
    stream = BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=90, subsampling=0, optimize=True)
    return Picture(stream.getvalue(), image.width, image.height, alternative)


def lesion_window(assessment: Assessment, lesion: AssessedLesion) -> Window:
    """The axial plane in which the lesion's long axis was measured, around the lesion."""
    low, high = ras_bounds(assessment.volume.grid, lesion.box)
    center, reach = (low + high) / 2, float((high - low)[:2].max())
    if lesion.long_axis is not None:
        center[2] = (lesion.long_axis.start[2] + lesion.long_axis.end[2]) / 2
        reach = max(reach, lesion.long_axis.length_mm)
    return Window(AXIAL, center, float(np.clip(TIMES_LESION * reach, NARROWEST_MM, WIDEST_MM)), PIXELS)


def draw_lesion(assessment: Assessment, lesion: AssessedLesion) -> Generator[None, None, Image]:
    """The key image of one lesion, ``PIXELS`` square; yields between short pieces."""
    from PIL import ImageDraw

    window = lesion_window(assessment, lesion)
    content = yield from cut_steps(assessment, window, SAMPLES, wanted=lesion.label)
    picture = gray_picture(content, PIXELS)
    for share, color, width in (
        (content.liver, LIVER_LINE, LIVER_WIDTH),
        (content.lesions - content.one, OTHER_LINE, OTHER_WIDTH),
        (content.one, LESION_LINE, CONTOUR_WIDTH),
    ):
        yield
        picture = draw_contour(picture, enlarge(share, PIXELS), color, width)
    yield
    image = as_image(picture)
    draw = ImageDraw.Draw(image)
    axes = [axis for axis in (lesion.long_axis, lesion.short_axis) if axis is not None]
    for axis in reversed(axes):
        _draw_axis(draw, window, axis, dashed=axis is lesion.short_axis)
    for axis, place in zip(axes, _label_places(window, axes), strict=True):
        draw_text(draw, place, f"{axis.length_mm:.1f}", LABEL_SIZE, INK, "mm")
    draw_scale(draw, window, scale_length_mm(window.width_mm), 24)
    draw_letters(draw, AXIAL.letters, PIXELS)
    draw_text(draw, (14, 12), position_text(AXIAL, window.center), 26)
    return image


def scale_length_mm(width_mm: float) -> float:
    """The longest of 10, 20, 50 and 100 mm that takes at most a third of the width."""
    return max((n for n in (10.0, 20.0, 50.0, 100.0) if n <= width_mm / 3), default=10.0)


def slice_number(grid: Grid, ras: np.ndarray) -> tuple[int, int]:
    """The slice that holds a position, from 1, along the grid's axis nearest to S; and how many there are."""
    axis = next(n for n, letter in enumerate(grid.axes) if letter in "SI")
    number = int(np.clip(np.rint(grid.to_ijk(ras)[axis]), 0, grid.size[axis] - 1)) + 1
    return number, grid.size[axis]


def _draw_axis(draw: ImageDraw, window: Window, axis: Axis, dashed: bool) -> None:
    """A measured line with marks at its ends."""
    start, end = window.pixel(axis.start), window.pixel(axis.end)
    length = float(np.linalg.norm(end - start))
    along = (end - start) / max(length, 1e-6)
    across = np.array([-along[1], along[0]])
    pieces = [(n, min(n + 9, length)) for n in np.arange(0, length, 16)] if dashed else [(0.0, length)]
    for width, color in ((AXIS_WIDTH + 2, (0, 0, 0)), (AXIS_WIDTH, INK)):
        for first, last in pieces:
            draw.line([tuple(start + first * along), tuple(start + last * along)], fill=color, width=width)
        for point in (start, end):
            draw.line([tuple(point - 7 * across), tuple(point + 7 * across)], fill=color, width=width)


def _label_places(window: Window, axes: list[Axis]) -> list[tuple[float, float]]:
    """Where the axes' lengths stand: each beyond one end of its axis, as far from each other as can be."""
    choices = []
    for axis in axes:
        start, end = window.pixel(axis.start), window.pixel(axis.end)
        along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-6)
        reach = np.array([LABEL_SIZE * 1.5, LABEL_SIZE]) * along
        choices.append([np.clip(place, 56, window.pixels - 56) for place in (end + reach, start - reach)])
    apart = max(product(*choices), key=lambda places: sum(np.linalg.norm(a - b) for a in places for b in places))
    return [tuple(place.tolist()) for place in apart]
