"""One network that answers on several levels: liver, lesion, Couinaud segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from LiverCascadeLib.models.multilevel import ANSWERS, LEVELS

from ..names import SettingError, check_name

SEGMENTS = 8


def labels_of(levels: Sequence[str], answer: str = "labels") -> dict[str, int]:
    """Channels of what a multi-level network answers in evaluation mode, for the manifest.

    Args:
        levels: of the network.
        answer: 'labels' or 'couinaud'; see the engine's ``MultiLevel``. The same weights serve both.
    """
    segments = [f"couinaud_{roman}" for roman in ("I", "II", "III", "IV", "V", "VI", "VII", "VIII")]
    more = segments if answer == "couinaud" else [level for level in ("lesion",) if level in levels]
    return {name: channel for channel, name in enumerate(["background", "liver", *more])}


def check_levels(levels: Sequence[str]) -> None:
    """Refuses levels that there are not, or that lack the liver.

    Raises:
        SettingError: see above.
    """
    for level in levels:
        check_name(level, LEVELS, "level")
    if "liver" not in levels:
        raise SettingError(f"The levels are {', '.join(levels)}: 'liver' must be one of them.")


def with_levels(
    architecture: str, arguments: dict[str, Any], levels: Sequence[str] = LEVELS
) -> tuple[str, dict[str, Any]]:
    """Puts heads upon a network; upon the 2D one inside, where it goes slice by slice.

    Args:
        architecture, arguments: of the trunk; what it has as output channels becomes the heads' input.
        levels: 'liver', and any of 'lesion' and 'couinaud'.

    Returns:
        Architecture and arguments of the whole. Its labels are those of :func:`labels_of`.
    """
    check_levels(levels)
    if architecture == "SliceWise":
        inner, its_arguments = with_levels(arguments["architecture"], arguments["arguments"], levels)
        return architecture, {**arguments, "architecture": inner, "arguments": its_arguments}
    return "MultiLevel", {
        "architecture": architecture,
        "arguments": arguments,
        "features": arguments["out_channels"],
        "levels": [level for level in LEVELS if level in levels],
        "segments": SEGMENTS,
        # Networks without that argument are 2D ones, or UNETR.
        "spatial_dims": arguments.get("spatial_dims", 3 if architecture == "UNETR" else 2),
    }


def set_answer(network: torch.nn.Module, answer: str) -> None:
    """Chooses what a multi-level network answers in evaluation mode: 'labels', 'couinaud' or 'all'.

    Raises:
        SettingError: there is no such answer, or the network has no levels.
    """
    check_name(answer, ANSWERS, "answer")
    parts = [module for module in network.modules() if hasattr(module, "levels") and hasattr(module, "answer")]
    if not parts:
        raise SettingError("This network has no levels; it always answers with its labels.")
    for module in parts:
        module.answer = answer
