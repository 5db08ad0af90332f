"""ROC curves as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..evaluation.plots import COLORS, GRAY, STYLE, _figure, _svg
from .comparison import Scores
from .figures import roc_curve

_LINES = ("-", "--")


def roc_plot(scores: Mapping[str, Scores], figures: Mapping[str, Mapping[str, Any]], title: str) -> bytes:
    """ROC curves of each mask: thin for each seed, thick for their mean at equal false-positive rate.

    Args:
        scores: by mask.
        figures: by mask, as :meth:`.comparison.MaskFigures.as_dict` gives them.
        title: above the curves.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = _figure(3.6, 3.7)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", color=GRAY, linewidth=0.8)
        places = np.linspace(0, 1, 201)
        for number, (mask, one) in enumerate(scores.items()):
            color, curves = COLORS[number], []
            for values in one.values:
                rate, sensitivity, _ = roc_curve(one.truth, values)
                axes.step(rate, sensitivity, where="post", color=color, linewidth=0.5, alpha=0.4)
                # The highest sensitivity at each rate.
                curves.append(sensitivity[np.searchsorted(rate, places, side="right") - 1])
            interval = figures[mask]["auc"]
            text = f"{mask}: AUC {interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"
            axes.plot(places, np.mean(curves, axis=0), _LINES[number % 2], color=color, linewidth=1.8, label=text)
        axes.set_xlabel("1 − specificity")
        axes.set_ylabel("Sensitivity")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_aspect("equal")
        axes.set_title(title)
        axes.legend(loc="lower right", fontsize=7)
        return _svg(figure)
