"""Networks by name: presets over the engine's allow-list, and what their outputs look like."""

from __future__ import annotations

from .heads import labels_of, set_answer, with_levels
from .outputs import outputs_of
from .plans import Plan, plan_levels
from .presets import PRESETS, Preset, build, divisor_of, fitting_patch
from .thin import float32_where_thin

__all__ = [
    "PRESETS",
    "Plan",
    "Preset",
    "build",
    "divisor_of",
    "fitting_patch",
    "float32_where_thin",
    "labels_of",
    "outputs_of",
    "plan_levels",
    "set_answer",
    "with_levels",
]
