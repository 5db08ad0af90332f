"""Draws the icons of both modules: python Resources/make_icon.py

A liver with a box around it and a finer box around one lesion: locate, then refine.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

SIZE = 128
OVERSAMPLING = 8
ROOT = Path(__file__).resolve().parent.parent

LIVER = (146, 62, 54, 255)
LESION = (236, 205, 120, 255)
OUTER_BOX = (70, 96, 120, 255)
INNER_BOX = (24, 44, 66, 255)

# Anchor points of the silhouette, seen from the front: right lobe on the viewer's left.
OUTLINE = ((14, 62), (20, 40), (40, 28), (64, 30), (86, 34), (106, 34), (116, 42), (104, 54), (84, 62), (70, 74))
OUTLINE += ((60, 90), (44, 104), (27, 102), (17, 84))


def smooth_closed_curve(points: tuple[tuple[float, float], ...], steps: int = 16) -> list[tuple[float, float]]:
    """Points of a closed Catmull-Rom spline through ``points``."""
    curve = []
    count = len(points)
    for index in range(count):
        p0, p1, p2, p3 = (points[(index + offset) % count] for offset in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            pairs = list(zip(weights, (p0, p1, p2, p3), strict=True))
            curve.append((sum(w * p[0] for w, p in pairs) / 2, sum(w * p[1] for w, p in pairs) / 2))
    return curve


def frame(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], color: tuple[int, ...], width: int) -> None:
    """A rounded rectangle without filling."""
    scaled = [value * OVERSAMPLING for value in box]
    draw.rounded_rectangle(scaled, radius=4 * OVERSAMPLING, outline=color, width=width * OVERSAMPLING)


def draw_icon(training: bool) -> Image.Image:
    """The icon of LiverCascade, or with ``training`` that of its companion, which has bars beside it."""
    image = Image.new("RGBA", (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in smooth_closed_curve(OUTLINE)], fill=LIVER)
    draw.ellipse([value * OVERSAMPLING for value in (34, 54, 52, 72)], fill=LESION)
    frame(draw, (4, 18, 123, 113), OUTER_BOX, 4)
    frame(draw, (26, 46, 61, 81), INNER_BOX, 4)
    if training:
        for index, height in enumerate((10, 18, 28, 40)):
            left = 70 + 12 * index
            bar = (left, 106 - height, left + 8, 106)
            draw.rectangle([value * OVERSAMPLING for value in bar], fill=INNER_BOX)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def main() -> None:
    """Writes both icons into the modules' folders."""
    for name in ("LiverCascade", "LiverCascadeTraining"):
        path = ROOT / name / "Resources" / "Icons" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_icon(training=name == "LiverCascadeTraining").save(path, optimize=True)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
