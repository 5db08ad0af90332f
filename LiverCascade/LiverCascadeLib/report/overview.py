"""overview.png: three orthogonal slices with contours beside a 3D view, for a first look at a result.

All three slices have one scale; :mod:`.drawing` says which side is which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..findings import Severity
from ..geometry import Box, Grid
from ..result import FIRST_LESION_LABEL, LIVER_LABEL, Result
from .drawing import (
    AMBER,
    BACKGROUND,
    DIM,
    INK,
    LESION_LINE,
    LESION_WIDTH,
    LEVEL_HU,
    LIVER_LINE,
    LIVER_WIDTH,
    PLANES,
    WINDOW_HU,
    Labeled,
    Plane,
    Window,
    as_image,
    cut,
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

PANEL, GAP, HEADER, FOOTER, NOTE = 720, 8, 88, 38, 38
SAMPLES = 360  # a slice is sampled at this size and enlarged: close to the voxels, and four times cheaper
MARGIN_MM = 25.0


@dataclass(frozen=True)
class Rendering:
    """A 3D picture, or why there is none.

    Attributes:
        image: uint8 RGB [row, column, 3], or None.
        reason: where there is no picture, the reason in a few words.
    """

    image: np.ndarray | None
    reason: str = ""


@dataclass(frozen=True)
class Framing:
    """What the slices show: they cross at ``focus`` and are centered on ``center``, ``width_mm`` wide; RAS mm."""

    focus: np.ndarray
    center: np.ndarray
    width_mm: float

    @staticmethod
    def of(result: Labeled) -> Framing:
        """Slices through the largest lesion, else the liver, else the middle of the volume."""
        grid = result.volume.grid
        box = Box.around(result.labels)
        if box is None:
            low, high = ras_bounds(grid, Box((0, 0, 0), grid.size))
            return Framing((low + high) / 2, (low + high) / 2, float((high - low).max()))
        low, high = ras_bounds(grid, box)
        inside = (box, LIVER_LABEL)
        if result.lesions:
            inside = (result.lesions[0].box, result.lesions[0].label)
        focus = _central_voxel(result.labels, grid, *inside)
        return Framing(focus, (low + high) / 2, float((high - low).max()) + 2 * MARGIN_MM)

    def window(self, plane: Plane) -> Window:
        """The part of ``plane`` that a panel shows."""
        center = self.center.copy()
        center[plane.normal] = self.focus[plane.normal]
        return Window(plane, center, self.width_mm, PANEL)

    def pixel(self, plane: Plane, ras: np.ndarray) -> np.ndarray:
        """Fractional (column, row) of a panel at which ``ras`` appears."""
        return self.window(plane).pixel(ras)


def _central_voxel(labels: np.ndarray, grid: Grid, box: Box, at_least: int) -> np.ndarray:
    """RAS of the voxel nearest to the centroid: of a crescent, the centroid itself may lie outside."""
    crop = labels[box.slices]
    mask = crop == at_least if at_least >= FIRST_LESION_LABEL else crop >= at_least
    ijk = np.argwhere(mask)[:, ::-1]
    if len(ijk) == 0:
        ijk = np.array([box.size]) // 2
    distance = ((ijk - ijk.mean(axis=0)) * grid.spacing) ** 2
    return grid.to_ras(ijk[distance.sum(axis=1).argmin()] + np.array(box.start))


def draw_slices(result: Labeled) -> list[Image]:
    """The axial, coronal and sagittal panel, each ``PANEL`` pixels square."""
    framing = Framing.of(result)
    return [draw_slice(result, framing, plane) for plane in PLANES]


def draw_slice(result: Labeled, framing: Framing, plane: Plane) -> Image:
    """One panel."""
    from PIL import ImageDraw

    window = framing.window(plane)
    content = cut(result, window, SAMPLES)
    picture = gray_picture(content, PANEL)
    picture = draw_contour(picture, enlarge(content.liver, PANEL), LIVER_LINE, LIVER_WIDTH)
    picture = draw_contour(picture, enlarge(content.lesions, PANEL), LESION_LINE, LESION_WIDTH)
    image = as_image(picture)
    draw = ImageDraw.Draw(image)
    _number_lesions(draw, content.labels)
    _draw_cross_marks(draw, framing, plane)
    draw_scale(draw, window, 50 if framing.width_mm < 600 else 200)
    draw_letters(draw, plane.letters, PANEL)
    draw_text(draw, (14, 12), f"{plane.name}  {position_text(plane, framing.focus)}", 22)
    return image


def _number_lesions(draw: ImageDraw, labels: np.ndarray) -> None:
    """Writes each lesion's number beside it; the smaller ones are left out where they are too many to read."""
    scale = PANEL / SAMPLES
    for label in [n for n in np.unique(labels) if n >= FIRST_LESION_LABEL][:12]:
        rows, columns = np.nonzero(labels == label)
        right, middle = columns.max() * scale + 10, rows[columns == columns.max()].mean() * scale
        draw_text(draw, (right, middle), str(label - FIRST_LESION_LABEL + 1), 22, LESION_LINE, "lm")


def _draw_cross_marks(draw: ImageDraw, framing: Framing, plane: Plane) -> None:
    """Ticks at the edges where the other two planes cross this one."""
    column, row = framing.pixel(plane, framing.focus)
    for start, end in (((column, 0), (column, 9)), ((column, PANEL - 9), (column, PANEL))):
        draw.line([start, end], fill=DIM, width=2)
    for start, end in (((0, row), (9, row)), ((PANEL - 9, row), (PANEL, row))):
        draw.line([start, end], fill=DIM, width=2)


def compose(result: Result, slices: list[Image], rendering: Rendering) -> Image:
    """The whole overview.

    Args:
        slices: what :func:`draw_slices` returned.
        rendering: the 3D view, or the reason why there is none.
    """
    from PIL import Image, ImageDraw

    note = _note(result)
    top = HEADER + 2 * PANEL + GAP
    width, height = 2 * PANEL + 3 * GAP, top + GAP + FOOTER + (NOTE if note else 0)
    page = Image.new("RGB", (width, height), (0, 0, 0))
    draw = ImageDraw.Draw(page)
    for index, panel in enumerate([*slices, _draw_rendering(rendering)]):
        row, column = divmod(index, 2)
        page.paste(panel, (GAP + column * (PANEL + GAP), HEADER + row * (PANEL + GAP)))
    draw_text(draw, (width - 18, 14), "Research use only", 26, AMBER, "rt")
    draw_text(draw, (18, 14), _fit(draw, result.volume.name, 26, width - 340), 26)
    draw_text(draw, (18, 50), _fit(draw, result.summary, 24, width - 36), 24, INK)
    _draw_legend(draw, result, top + FOOTER // 2 + GAP // 2)
    if note:
        draw_text(draw, (18, top + FOOTER + GAP), _fit(draw, note, 20, width - 36), 20, AMBER)
    return page


def _draw_rendering(rendering: Rendering) -> Image:
    from PIL import Image, ImageDraw

    if rendering.image is None:
        panel = Image.new("RGB", (PANEL, PANEL), BACKGROUND)
        draw = ImageDraw.Draw(panel)
        draw_text(draw, (PANEL / 2, PANEL / 2 - 18), "3D view not available", 26, DIM, "mm")
        draw_text(draw, (PANEL / 2, PANEL / 2 + 18), _fit(draw, rendering.reason, 18, PANEL - 40), 18, DIM, "mm")
        return panel
    panel = Image.fromarray(rendering.image).resize((PANEL, PANEL), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(panel)
    draw_text(draw, (14, 12), "3D  from anterior, slightly right and superior", 22)
    draw_letters(draw, "RL  ", PANEL)
    return panel


def _draw_legend(draw: ImageDraw, result: Result, middle: float) -> None:
    left = 18
    entries = ((LIVER_LINE, LIVER_WIDTH, "liver"), (LESION_LINE, LESION_WIDTH, "lesion, with its number"))
    for color, line, text in entries:
        draw.line([(left, middle), (left + 44, middle)], fill=color, width=max(2, round(line)))
        draw_text(draw, (left + 54, middle), text, 20, DIM, "lm")
        left += 54 + round(draw.textlength(text, font_size=20)) + 36
    target = "lesion 1, the largest" if result.lesions else "the liver" if result.liver_volume_ml else "the volume"
    draw_text(
        draw, (left, middle), f"slices through {target}    W {WINDOW_HU:.0f}  L {LEVEL_HU:.0f} HU", 20, DIM, "lm"
    )


def _note(result: Result) -> str:
    """The gravest finding that the reader has to know, and how many more there are."""
    ranks = {Severity.ERROR: 0, Severity.WARNING: 1}
    grave = sorted((f for f in result.findings if f.severity in ranks), key=lambda finding: ranks[finding.severity])
    if not grave:
        return ""
    more = f" (+{len(grave) - 1} in result.json)" if len(grave) > 1 else ""
    return f"Note{more}: {grave[0].message}"


def _fit(draw: ImageDraw, text: str, size: int, room: float) -> str:
    """``text`` on one line, cut to ``room`` pixels."""
    text = " ".join(text.split())
    if draw.textlength(text, font_size=size) <= room:
        return text
    while text and draw.textlength(text + " ...", font_size=size) > room:
        text = text[:-1]
    return text + " ..."
