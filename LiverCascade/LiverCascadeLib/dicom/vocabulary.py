"""Codes and colors of what is written, and what a code says about a segment that is read."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING

from ..lesions.couinaud import BY_NAME, BY_VALUE, SEGMENTS
from ..resources import RESOURCES

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

TERMINOLOGY = RESOURCES / "LiverCascade.term.json"
LIVER, LESION, COUINAUD, OTHER = "liver", "lesion", "couinaud", "other"

# SNOMED CT; older objects say the same in SNOMED RT (SRT), which pydicom's Code knows to be equal.
LIVER_CODE = ("10200004", "SCT", "Liver")
LESION_CODE = ("52988006", "SCT", "Lesion")
STRUCTURE_CODE = ("123037004", "SCT", "Anatomical Structure")
ALTERED_CODE = ("49755003", "SCT", "Morphologically Altered Structure")
# What is taken for a lesion of the liver. A cyst, an abscess or a vessel is not: the reader decides about those.
_LESION_CODES = (
    LESION_CODE,
    ("4147007", "SCT", "Mass"),
    ("108369006", "SCT", "Neoplasm"),
    ("86049000", "SCT", "Neoplasm, Primary"),
    ("372087000", "SCT", "Neoplasm, Primary"),
    ("14799000", "SCT", "Neoplasm, Secondary"),
    ("M-80003", "SRT", "Neoplasm, Primary"),
    ("M-80006", "SRT", "Neoplasm, Secondary"),
    ("M-01000", "SRT", "Lesion"),
    ("M-03000", "SRT", "Mass"),
    ("M-80000", "SRT", "Neoplasm"),
)
_HALF_OF_IV = re.compile(r"\bIV\s*([ab])\b", re.IGNORECASE)


def code(triplet: tuple[str, str, str]) -> Code:
    """A code from its value, scheme and meaning."""
    from pydicom.sr.coding import Code

    return Code(*triplet)


def couinaud_code(value: int) -> tuple[str, str, str]:
    """The code of one of Couinaud's segments by its label value; the halves of IV carry that of IV."""
    name = BY_VALUE[value].name.rstrip("ab")
    return (BY_NAME[name].code, "SCT", f"Couinaud hepatic segment {name}")


def segment_name(value: int) -> str:
    """How one of Couinaud's segments is called, such as 'Segment IVa'."""
    return f"Segment {BY_VALUE[value].name}"


def kind_of(type_code: Code, region: Code | None, label: str) -> tuple[str, int]:
    """What a segment is by its property type, its anatomic region and, for the halves of IV, its label.

    Returns:
        (kind, Couinaud value): the value is 0 for all but Couinaud's segments.
    """
    if type_code == code(LIVER_CODE):
        return LIVER, 0
    value = couinaud_value(type_code, label)
    if value:
        return COUINAUD, value
    is_here = region is None or region == code(LIVER_CODE) or couinaud_value(region, "") > 0
    if is_here and any(type_code == code(known) for known in _LESION_CODES):
        return LESION, 0
    return OTHER, 0


def couinaud_value(type_code: Code, label: str) -> int:
    """The label value of a Couinaud segment by its code; 0 where the code is another one."""
    for segment in SEGMENTS:
        if type_code == code((segment.code, "SCT", "")):
            half = _HALF_OF_IV.search(label) if segment.name == "IV" else None
            return BY_NAME[f"IV{half[1].lower()}"].value if half else segment.value
    return 0


@cache
def colors() -> dict[str, tuple[int, int, int]]:
    """Display colors (red, green, blue) by SNOMED code, as Slicer shows the same segments."""
    found: dict[str, tuple[int, int, int]] = {}
    content = json.loads(TERMINOLOGY.read_text(encoding="utf-8"))
    for category in content["SegmentationCodes"]["Category"]:
        for kind in category["Type"]:
            if "recommendedDisplayRGBValue" in kind:
                found[kind["CodeValue"]] = tuple(kind["recommendedDisplayRGBValue"])
    return found
