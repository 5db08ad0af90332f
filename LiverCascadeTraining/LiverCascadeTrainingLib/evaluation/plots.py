"""Plots of an evaluation as SVG: drawn with Matplotlib's own objects, without its global state."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from .cases import BY_KEY
from .detection import BINS
from .pooled import DataSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colors, which the color-blind tell apart; in print, markers do.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GRAY = "#666666"
BOXES = ("dice", "nsd_2mm", "hd95_mm", "assd_mm")
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"],
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "livercascade",
}


def all_plots(data: Mapping[str, DataSet]) -> dict[str, tuple[bytes, str]]:
    """Every plot that the data has something for.

    Returns:
        by file name: the SVG, and what it shows in one sentence.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):
        plots = {"plot_boxes.svg": (_svg(box_plots(data)), "Figures of all cases by model: median, quartiles, cases.")}
        lesions = all(one.with_lesions for one in data.values())
        if lesions and any(row.references for row in next(iter(data.values())).detections):
            plots["plot_recall.svg"] = (
                _svg(recall_plot(data)),
                "Share of reference lesions that were found, by their long axis and the IoU that is asked for, with "
                "95 % intervals.",
            )
        plots["plot_volume.svg"] = (
            _svg(volume_plots(data)),
            "Bland–Altman: volume error against the mean of both volumes; lines are mean and mean ± 1.96 SD.",
        )
        if lesions and any(one.reliability() for one in data.values()):
            plots["plot_reliability.svg"] = (
                _svg(reliability_plot(data)),
                "Confidence of predicted lesions against the share of them that is true (IoU > 0.1).",
            )
    return plots


def _svg(figure: Figure) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def box_plots(data: Mapping[str, DataSet]) -> Figure:
    """Box plots of a few figures of each structure; every case is a dot."""
    structures = next(iter(data.values())).structures
    names = list(data)
    figure = _figure(7.2, 0.9 + len(structures) * (1.0 + 0.28 * len(names)))
    for axes, (structure, key) in zip(
        figure.subplots(len(structures), len(BOXES), squeeze=False).ravel(),
        [(structure, key) for structure in structures for key in BOXES],
        strict=True,
    ):
        values = [one.values(f"{structure}_{key}") for one in data.values()]
        known = [v[np.isfinite(v)] for v in values]
        places = np.arange(len(names), 0, -1)
        if any(len(v) for v in known):
            axes.boxplot(
                known,
                positions=places,
                orientation="horizontal",
                widths=0.55,
                showfliers=False,
                medianprops={"color": "black"},
            )
        for index, (place, v) in enumerate(zip(places, known, strict=True)):
            # Side by side by rank, not by chance: the same figures give the same picture.
            offset = 0.36 * ((np.argsort(np.argsort(v)) * 0.618) % 1 - 0.5)
            axes.plot(v, place + offset, MARKERS[index % 7], color=COLORS[index % 7], markersize=2.5, alpha=0.6)
        axes.set_yticks(places, names if key == BOXES[0] else [""] * len(names))
        axes.set_ylim(0.4, len(names) + 0.6)
        axes.set_title(f"{structure.capitalize()}: {BY_KEY[key].heading}")
        if BY_KEY[key].better == "high":
            axes.set_xlim(right=1.02)
        else:
            axes.set_xlim(left=0)
    return figure


def recall_plot(data: Mapping[str, DataSet]) -> Figure:
    """Recall of lesions by size, a panel for each threshold."""
    rows = {name: {(row.size, row.threshold): row for row in one.detections[:-2]} for name, one in data.items()}
    thresholds = sorted({threshold for _, threshold in next(iter(rows.values()))})
    figure = _figure(7.2, 2.6)
    for axes, threshold in zip(figure.subplots(1, len(thresholds), sharey=True), thresholds, strict=True):
        for index, (name, row) in enumerate(rows.items()):
            place = np.arange(len(BINS)) + 0.12 * (index - (len(rows) - 1) / 2)
            pooled = [row[size, threshold].recall for size in BINS]
            value, low, high = (np.array([getattr(p, part) for p in pooled]) for part in ("value", "low", "high"))
            bars = np.nan_to_num(np.array([value - low, high - value]))
            axes.errorbar(
                place,
                value,
                np.maximum(bars, 0),
                fmt=MARKERS[index % 7],
                color=COLORS[index % 7],
                markersize=4,
                capsize=2,
                linewidth=1,
                label=name,
            )
        counts = [next(iter(rows.values()))[size, threshold].references for size in BINS]
        axes.set_xticks(range(len(BINS)), [f"{size} mm\nn = {n}" for size, n in zip(BINS, counts, strict=True)])
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(-0.5, len(BINS) - 0.5)
        axes.set_title(f"IoU > {threshold:g}")
        axes.grid(axis="y", linewidth=0.3)
    figure.axes[0].set_ylabel("recall of lesions")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def volume_plots(data: Mapping[str, DataSet]) -> Figure:
    """Bland–Altman plots of the volumes (Bland and Altman, Lancet 1986)."""
    structures = next(iter(data.values())).structures
    figure = _figure(7.2, 2.8)
    for axes, structure in zip(figure.subplots(1, len(structures), squeeze=False)[0], structures, strict=True):
        for index, (name, one) in enumerate(data.items()):
            predicted, reference = one.values(f"{structure}_volume_ml"), one.values(f"{structure}_reference_ml")
            _bland_altman(axes, (predicted + reference) / 2, predicted - reference, index, name)
        axes.axhline(0, color=GRAY, linewidth=0.5)
        axes.set_title(f"{structure.capitalize()} volume")
        axes.set_xlabel("mean of predicted and reference (mL)")
    figure.axes[0].set_ylabel("predicted − reference (mL)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _bland_altman(axes: Axes, means: np.ndarray, differences: np.ndarray, index: int, name: str) -> None:
    color = COLORS[index % 7]
    axes.plot(means, differences, MARKERS[index % 7], color=color, markersize=3.5, alpha=0.7, label=name)
    if len(differences) < 2:
        return
    middle, spread = differences.mean(), 1.96 * differences.std(ddof=1)
    axes.axhline(middle, color=color, linewidth=0.9)
    for line in (middle - spread, middle + spread):
        axes.axhline(line, color=color, linewidth=0.7, linestyle="--")


def reliability_plot(data: Mapping[str, DataSet]) -> Figure:
    """Confidence against truth, in bins with as many lesions in each; the numbers are lesions."""
    figure = _figure(3.6, 3.9)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.6, linestyle="--")
    for index, (name, one) in enumerate(data.items()):
        rows = one.reliability()
        if not rows:
            continue
        style = {"color": COLORS[index % 7], "marker": MARKERS[index % 7]}
        label = f"{name} (error {one.calibration_error():.3f})"
        axes.plot([r.mean for r in rows], [r.observed for r in rows], linewidth=1, markersize=4, label=label, **style)
        for row in rows:
            place = (row.mean, row.observed)
            axes.annotate(str(row.count), place, xytext=(4, -8), textcoords="offset points", fontsize=6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of true lesions")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
    return figure
