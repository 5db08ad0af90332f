"""What the owners of a model call liver, lesions, vessels and Couinaud's segments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .stage_file import STRUCTURES

# 'Tumor' is a data set's word, not a finding's.
_LESIONS = ("tumor", "tumour", "lesion", "cancer", "carcinoma", "metastasis", "metastases", "hcc", "mass", "masses")
_NAMES = {
    "liver": "liver",
    **dict.fromkeys(_LESIONS, "lesion"),
    **dict.fromkeys(("vessel", "vein", "vasculature"), "vessel"),
}
# Words that may stand around such a name; with any other one, as in 'kidney tumor', something else is meant.
_AROUND = {
    "hepatic",
    "hepatocellular",
    "whole",
    "healthy",
    "normal",
    "parenchyma",
    "tissue",
    "focal",
    "ct",
    "of",
    "all",
}
_SEGMENT = re.compile(r"(?:liver_)?(?:couinaud_)?(?:segment|couinaud|seg)_?0?([1-8])")


def structures_of(labels: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Guesses from their names which labels make up which structure, in the order of :data:`.STRUCTURES`.

    Args:
        labels: label values by name. A region 'liver' may hold the values of its lesions too; those are lesions.
    """
    found: dict[str, list[int]] = {}
    for name, values in labels.items():
        structure = structure_of(name)
        if structure is not None:
            known = found.setdefault(structure, [])
            known.extend(value for value in values if value not in known)
    lesions = found.get("lesion", [])
    found = {s: [v for v in values if s == "lesion" or v not in lesions] for s, values in found.items()}
    return {name: found[name] for name in STRUCTURES if found.get(name)}


def structure_of(name: str) -> str | None:
    """The structure that a label's name means; None where it is none of those that are known."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    segment = _SEGMENT.fullmatch(plain)
    if segment:
        return f"couinaud_{segment.group(1)}"
    words = [word if word in _NAMES else word.removesuffix("s") for word in plain.split("_")]
    if any(word not in _NAMES and word not in _AROUND for word in words):
        return None
    meant = {_NAMES[word] for word in words if word in _NAMES}
    special = meant - {"liver"}
    if len(special) > 1 or not meant:
        return None
    return (special or meant).pop()
