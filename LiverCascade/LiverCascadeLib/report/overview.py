"""overview.png: three orthogonal slices with contours beside a 3D view, for a first look at a result.

Radiological convention: the reader faces the patient or looks up from the feet, so the patient's right is on the left
of axial and coronal pictures; sagittal pictures have anterior on the left. Slices are true anatomical planes in RAS
millimeters, also where the volume is oblique, and all three have one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..findings import Severity
from ..geometry import Box, Grid
from ..result import FIRST_LESION_LABEL, LIVER_LABEL, Result

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

PANEL, GAP, HEADER, FOOTER, NOTE = 720, 8, 88, 38, 38
SAMPLES = 360  # a slice is sampled at this size and enlarged: close to the voxels, and four times cheaper
MARGIN_MM = 25.0
WINDOW_HU, LEVEL_HU = 350.0, 60.0

BACKGROUND = (28, 31, 36)
INK, DIM, AMBER = (235, 237, 240), (158, 164, 172), (255, 184, 77)
# Told apart without color too: the liver's line is thin, the lesions' is thick, numbered, and brightest.
LIVER_LINE, LIVER_WIDTH = (112, 205, 255), 1.6
LESION_LINE, LESION_WIDTH = (255, 228, 77), 3.2


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


PLANES = (
    Plane("Axial", (-1, 0, 0), (0, -1, 0), "RLAP", 2),
    Plane("Coronal", (-1, 0, 0), (0, 0, -1), "RLSI", 1),
    Plane("Sagittal", (0, -1, 0), (0, 0, -1), "APSI", 0),
)


@dataclass(frozen=True)
class Framing:
    """What the slices show: they cross at ``focus`` and are centered on ``center``, ``width_mm`` wide; RAS mm."""

    focus: np.ndarray
    center: np.ndarray
    width_mm: float

    @staticmethod
    def of(result: Result) -> Framing:
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

    def pixel(self, plane: Plane, ras: np.ndarray) -> np.ndarray:
        """Fractional (column, row) of a panel at which ``ras`` appears."""
        axes = np.array([plane.right, plane.down], dtype=float)
        return (axes @ (ras - self.center)) / self.width_mm * PANEL + (PANEL - 1) / 2


def ras_bounds(grid: Grid, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest R, A, S in mm over the outer corners of ``box``."""
    edges = zip(np.array(box.start) - 0.5, np.array(box.stop) - 0.5, strict=True)
    corners = grid.to_ras(np.array(np.meshgrid(*edges)).reshape(3, -1).T)
    return corners.min(axis=0), corners.max(axis=0)


def _central_voxel(labels: np.ndarray, grid: Grid, box: Box, at_least: int) -> np.ndarray:
    """RAS of the voxel nearest to the centroid: of a crescent, the centroid itself may lie outside."""
    crop = labels[box.slices]
    mask = crop == at_least if at_least >= FIRST_LESION_LABEL else crop >= at_least
    ijk = np.argwhere(mask)[:, ::-1]
    if len(ijk) == 0:
        ijk = np.array([box.size]) // 2
    distance = ((ijk - ijk.mean(axis=0)) * grid.spacing) ** 2
    return grid.to_ras(ijk[distance.sum(axis=1).argmin()] + np.array(box.start))


def draw_slices(result: Result) -> list[Image]:
    """The axial, coronal and sagittal panel, each ``PANEL`` pixels square."""
    framing = Framing.of(result)
    return [_draw_slice(result, framing, plane) for plane in PLANES]


def _draw_slice(result: Result, framing: Framing, plane: Plane) -> Image:
    from PIL import Image, ImageDraw

    ct, inside, liver, lesions, labels = _sample(result, framing, plane)
    gray = np.clip((ct - (LEVEL_HU - WINDOW_HU / 2)) / WINDOW_HU, 0, 1)
    picture = np.where(_enlarge(inside)[..., None] > 0.5, 255 * _enlarge(gray)[..., None], BACKGROUND)
    picture = _draw_contour(picture, _enlarge(liver), LIVER_LINE, LIVER_WIDTH)
    picture = _draw_contour(picture, _enlarge(lesions), LESION_LINE, LESION_WIDTH)
    image = Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    _number_lesions(draw, labels)
    _draw_cross_marks(draw, framing, plane)
    _draw_scale(draw, framing.width_mm)
    _draw_letters(draw, plane.letters)
    letter = ("RL", "AP", "SI")[plane.normal][int(framing.focus[plane.normal] < 0)]
    _text(draw, (14, 12), f"{plane.name}  {letter} {abs(framing.focus[plane.normal]):.1f} mm", 22)
    return image


def _sample(result: Result, framing: Framing, plane: Plane) -> tuple[np.ndarray, ...]:
    """The plane at SAMPLES × SAMPLES: CT in HU, the part inside the volume, liver and lesion shares, labels."""
    grid, shape = result.volume.grid, result.labels.shape
    center = framing.center.copy()
    center[plane.normal] = framing.focus[plane.normal]
    steps = ((np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5) * framing.width_mm
    ras = center + steps[None, :, None] * np.array(plane.right) + steps[:, None, None] * np.array(plane.down)
    kji = grid.to_ijk(ras)[..., ::-1]
    inside = ((kji >= -0.5) & (kji <= np.array(shape) - 0.5)).all(axis=-1)
    low = np.floor(kji).astype(np.int32)
    fraction = (kji - low).astype(np.float32)
    sums = [np.zeros(inside.shape, np.float32) for _ in range(3)]
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner, bool), fraction, 1 - fraction), axis=-1)
        index = tuple(np.clip(low[..., axis] + corner[axis], 0, shape[axis] - 1) for axis in range(3))
        labels = result.labels[index]
        for total, value in zip(
            sums, (result.volume.array[index], labels >= LIVER_LABEL, labels >= FIRST_LESION_LABEL), strict=True
        ):
            total += weight * value
    nearest = np.clip(np.rint(kji).astype(np.int32), 0, np.array(shape) - 1)
    labels = np.where(inside, result.labels[tuple(np.moveaxis(nearest, -1, 0))], 0)
    sums[1][~inside], sums[2][~inside] = 0, 0
    return sums[0], inside.astype(np.float32), sums[1], sums[2], labels


def _enlarge(values: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((PANEL, PANEL), Image.Resampling.BICUBIC))


def _draw_contour(picture: np.ndarray, share: np.ndarray, color: tuple[int, int, int], width: float) -> np.ndarray:
    """Draws the line on which ``share`` is one half, ``width`` pixels wide, smooth, with a dark seam on both sides."""
    down, right = np.gradient(share)
    slope = np.hypot(down, right)
    distance = np.abs(share - 0.5) / np.maximum(slope, 1e-6)
    distance[slope < 1e-3] = np.inf
    for half, ink, strength in ((width / 2 + 1.2, (0, 0, 0), 0.55), (width / 2, color, 1.0)):
        alpha = strength * np.clip(half + 0.5 - distance, 0, 1)[..., None]
        picture = picture * (1 - alpha) + alpha * np.array(ink)
    return picture


def _number_lesions(draw: ImageDraw, labels: np.ndarray) -> None:
    """Writes each lesion's number beside it; the smaller ones are left out where they are too many to read."""
    scale = PANEL / SAMPLES
    for label in [n for n in np.unique(labels) if n >= FIRST_LESION_LABEL][:12]:
        rows, columns = np.nonzero(labels == label)
        right, middle = columns.max() * scale + 10, rows[columns == columns.max()].mean() * scale
        _text(draw, (right, middle), str(label - FIRST_LESION_LABEL + 1), 22, LESION_LINE, "lm")


def _draw_cross_marks(draw: ImageDraw, framing: Framing, plane: Plane) -> None:
    """Ticks at the edges where the other two planes cross this one."""
    column, row = framing.pixel(plane, framing.focus)
    for start, end in (((column, 0), (column, 9)), ((column, PANEL - 9), (column, PANEL))):
        draw.line([start, end], fill=DIM, width=2)
    for start, end in (((0, row), (9, row)), ((PANEL - 9, row), (PANEL, row))):
        draw.line([start, end], fill=DIM, width=2)


def _draw_scale(draw: ImageDraw, width_mm: float) -> None:
    length_mm = 50 if width_mm < 600 else 200
    length, right, bottom = length_mm / width_mm * PANEL, PANEL - 18, PANEL - 22
    draw.line([(right - length, bottom), (right, bottom)], fill=(0, 0, 0), width=5)
    draw.line([(right - length, bottom), (right, bottom)], fill=INK, width=3)
    _text(draw, (right - length / 2, bottom - 6), f"{length_mm} mm", 18, anchor="mb")


def _draw_letters(draw: ImageDraw, letters: str) -> None:
    middle = PANEL / 2
    places = (((16, middle), "lm"), ((PANEL - 16, middle), "rm"), ((middle, 14), "mt"), ((middle, PANEL - 14), "mb"))
    for letter, (place, anchor) in zip(letters, places, strict=True):
        _text(draw, place, letter, 30, anchor=anchor)


def _text(
    draw: ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    color: tuple[int, int, int] = INK,
    anchor: str = "lt",
) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    draw.text(place, text, fill=color, font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


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
    _text(draw, (width - 18, 14), "Research use only", 26, AMBER, "rt")
    _text(draw, (18, 14), _fit(draw, result.volume.name, 26, width - 340), 26)
    _text(draw, (18, 50), _fit(draw, result.summary, 24, width - 36), 24, INK)
    _draw_legend(draw, result, top + FOOTER // 2 + GAP // 2)
    if note:
        _text(draw, (18, top + FOOTER + GAP), _fit(draw, note, 20, width - 36), 20, AMBER)
    return page


def _draw_rendering(rendering: Rendering) -> Image:
    from PIL import Image, ImageDraw

    if rendering.image is None:
        panel = Image.new("RGB", (PANEL, PANEL), BACKGROUND)
        draw = ImageDraw.Draw(panel)
        _text(draw, (PANEL / 2, PANEL / 2 - 18), "3D view not available", 26, DIM, "mm")
        _text(draw, (PANEL / 2, PANEL / 2 + 18), _fit(draw, rendering.reason, 18, PANEL - 40), 18, DIM, "mm")
        return panel
    panel = Image.fromarray(rendering.image).resize((PANEL, PANEL), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(panel)
    _text(draw, (14, 12), "3D  from anterior, slightly right and superior", 22)
    _draw_letters(draw, "RL  ")
    return panel


def _draw_legend(draw: ImageDraw, result: Result, middle: float) -> None:
    left = 18
    entries = ((LIVER_LINE, LIVER_WIDTH, "liver"), (LESION_LINE, LESION_WIDTH, "lesion, with its number"))
    for color, line, text in entries:
        draw.line([(left, middle), (left + 44, middle)], fill=color, width=max(2, round(line)))
        _text(draw, (left + 54, middle), text, 20, DIM, "lm")
        left += 54 + round(draw.textlength(text, font_size=20)) + 36
    target = "lesion 1, the largest" if result.lesions else "the liver" if result.liver_volume_ml else "the volume"
    _text(draw, (left, middle), f"slices through {target}    W {WINDOW_HU:.0f}  L {LEVEL_HU:.0f} HU", 20, DIM, "lm")


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
