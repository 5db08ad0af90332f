"""Pictures of the worst cases: the axial slice with most disagreement, as radiologists look at it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.report.drawing import LEVEL_HU, WINDOW_HU
from LiverCascadeLib.volume import read_labels

from .files import CaseFiles, in_order_of
from .study import Model, Request, read_ct, read_prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE_COLOR, PREDICTED_COLOR = "#56B4E9", "#FFD34D"
MARGIN_MM = 15.0


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes:
        data: of a PNG file.
        text: what it shows.
    """

    data: bytes
    text: str


def draw_case(request: Request, files: CaseFiles, model: Model, value: int) -> Picture:
    """Where a model and the reference of one case disagree most.

    Args:
        request: the evaluation.
        files: of the case.
        model: one of the request's.
        value: 1 looks at the liver, 2 at lesions.
    """
    raw, grid = read_labels(files.reference)
    ct = read_ct(files.ct, grid) if files.ct is not None else None
    predicted, _, _ = read_prediction(model, files, grid, ct)
    arrays = [request.reference_meaning.applied(raw), predicted, *([ct] if ct is not None else [])]
    reference, predicted, *scan = (in_order_of(array, grid, grid.canonical()) for array in arrays)
    return draw_disagreement(reference, predicted, scan[0] if scan else None, grid.canonical(), value)


def draw_disagreement(
    reference: np.ndarray, predicted: np.ndarray, ct: np.ndarray | None, grid: Grid, value: int
) -> Picture:
    """The axial slice with most wrong voxels.

    Args:
        reference, predicted: labels 0/1/2 [k, j, i] on ``grid``.
        ct: HU on ``grid``, or None.
        grid: canonical: its axes grow to R, A and S.
        value: 1 looks at the liver, 2 at lesions.
    """
    from matplotlib.figure import Figure

    wrong = (reference >= value) != (predicted >= value)
    counts = wrong.sum(axis=(1, 2))
    if not counts.any():
        counts = (reference >= value).sum(axis=(1, 2))
    k = int(counts.argmax())
    box = Box.around((reference > 0) | (predicted > 0)) or Box((0, 0, 0), grid.size)
    block = box.grown(int(np.ceil(MARGIN_MM / grid.spacing.min())), grid.size).slices[1:]
    # The reader looks up from the feet: right is on the left, the front is on top.
    turned = (slice(None, None, -1), slice(None, None, -1))
    r, p = (array[k][block][turned] for array in (reference, predicted))
    right, front = grid.spacing[0], grid.spacing[1]
    height, width = r.shape[0] * front, r.shape[1] * right
    figure = Figure(figsize=(3.4, 3.4 * height / width), dpi=160)
    axes = figure.add_axes((0, 0, 1, 1))
    if ct is None:
        gray = 0.25 * (r > 0)
        low, high = 0.0, 1.0
    else:
        gray = ct[k][block][turned]
        low, high = LEVEL_HU - WINDOW_HU / 2, LEVEL_HU + WINDOW_HU / 2
    axes.imshow(gray, cmap="gray", vmin=low, vmax=high, aspect=front / right, interpolation="bilinear")
    for mask, color, style in ((r, REFERENCE_COLOR, "solid"), (p, PREDICTED_COLOR, (0, (3, 1.5)))):
        _contour(axes, mask > 0, color, style, 0.9)
        _contour(axes, mask > 1, color, style, 1.7)
    axes.set_axis_off()
    for x, letter in ((0.02, "R"), (0.95, "L")):
        axes.text(x, 0.5, letter, color="white", transform=axes.transAxes, fontsize=8)
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    position = grid.to_ras(np.array([0, 0, k]))[2]
    voxel_ml = grid.voxel_volume_mm3 / 1000
    surplus, missing = (
        np.count_nonzero(a & ~b) * voxel_ml
        for a, b in ((predicted >= value, reference >= value), (reference >= value, predicted >= value))
    )
    what = "liver" if value == 1 else "lesions"
    text = f"S {position:.0f} mm; {what}: {surplus:.1f} mL too much and {missing:.1f} mL missed in the whole scan"
    return Picture(stream.getvalue(), text)


def _contour(axes: Axes, mask: np.ndarray, color: str, style: object, width: float) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors=color, linewidths=width, linestyles=[style])
