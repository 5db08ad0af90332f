"""Texts on their way into DICOM and out of it: lengths, characters, names, dates."""

from __future__ import annotations

import re
import unicodedata
import uuid
from datetime import date

# Most characters of a value, by its value representation (PS3.5, table 6.2-1).
LONGEST = {"LO": 64, "SH": 16, "CS": 16, "ST": 1024, "LT": 10240, "PN": 64}
# Where a line break may stay.
_NAMESPACE = uuid.UUID("5b9f3c1e-7d2a-4c60-9a53-2f8f0a6d41c7")
_MULTILINE = {"ST", "LT", "UT"}


def fitting(text: object, vr: str) -> str:
    """``text`` as a value of the representation ``vr``: no control characters, no backslash, not too long.

    A backslash separates values in DICOM and becomes a slash; what is cut off is marked by three dots, except in
    codes (CS).
    """
    keep = "\n" if vr in _MULTILINE else ""
    shown = str(text).replace("\r\n", "\n").replace("\r", "\n").replace("\\", "/")
    # Characters without a shape (soft hyphens, marks of writing direction) go; other control characters are blanks.
    shown = "".join(
        c if c in keep or c.isprintable() else "" if unicodedata.category(c) == "Cf" else " " for c in shown
    )
    shown = "\n".join(" ".join(line.split()) for line in shown.split("\n")).strip()
    if vr == "CS":
        shown = re.sub(r"[^A-Z0-9 _]", "_", shown.upper())
    if vr == "PN":
        # Each of the three groups (letters, ideograms, sounds) has its own limit.
        return "=".join(group.strip()[: LONGEST["PN"]] for group in shown.split("=")[:3])
    most = LONGEST.get(vr, len(shown))
    if len(shown) <= most:
        return shown
    return shown[:most].rstrip() if vr == "CS" else shown[: most - 3].rstrip() + "..."


def stable_uid(*sources: str) -> str:
    """A DICOM UID (2.25 and a UUID as a number; PS3.5, B.2) that is the same for the same ``sources``."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(sources)).int}"


def repaired(text: str) -> str:
    """``text`` as it was meant where a file holds UTF-8 but does not say so; any other text as it is."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def person_name(text: str) -> str:
    """A DICOM person name (Family^Given^Middle^Prefix^Suffix=ideograms=sounds) as people write it.

    'Family, Given Middle', with prefix and suffix where there are any, and the ideograms in brackets behind.
    """
    groups = [_one_name(group) for group in fitting(text, "UT").split("=")]
    letters, ideograms = groups[0], groups[1] if len(groups) > 1 else ""
    if letters and ideograms:
        return f"{letters} ({ideograms})"
    return letters or ideograms or (groups[2] if len(groups) > 2 else "")


def _one_name(group: str) -> str:
    parts = [" ".join(part.split()) for part in group.split("^")]
    family, given, middle, prefix, suffix = [*parts, "", "", "", "", ""][:5]
    first = " ".join(filter(None, (prefix, given, middle)))
    return ", ".join(filter(None, (family, first, suffix)))


def iso_date(text: str) -> str:
    """A DICOM date (YYYYMMDD, or YYYY.MM.DD of old files) as YYYY-MM-DD; anything else as it stands."""
    shown = fitting(text, "LO")
    match = re.fullmatch(r"(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})", shown)
    if not match:
        return shown
    try:
        return date(*map(int, match.groups())).isoformat()
    except ValueError:
        return shown
