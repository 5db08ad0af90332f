"""Settings that are chosen by name: what is unknown or out of range is refused in words, with the nearest known."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from LiverCascadeLib.errors import LiverCascadeError


class SettingError(LiverCascadeError, ValueError):
    """A setting that cannot be used: unknown, missing, or out of range."""


def check_name(name: str, known: Iterable[str], what: str) -> str:
    """Returns ``name`` where it is known.

    Args:
        name: what was asked for.
        known: what there is.
        what: what kind of thing it is, such as 'loss', for the message.

    Raises:
        SettingError: it is not known; the message names the nearest known one.
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise SettingError(f"There is no {what} {name!r}.{hint} Known are: {', '.join(known)}.")


def check_arguments(arguments: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Refuses arguments that ``what`` does not take.

    Raises:
        SettingError: an unknown argument; the message names the nearest known one.
    """
    known = list(known)
    for argument in arguments:
        check_name(argument, known, f"setting of {what}")


def settings_of(function: Callable) -> dict[str, Any]:
    """Keyword-only arguments of ``function`` with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_number(
    value: Any,
    name: str,
    low: float,
    high: float = float("inf"),
    low_included: bool = True,
    high_included: bool = True,
    whole: bool = False,
) -> None:
    """Refuses what is not a number from ``low`` to ``high``.

    Raises:
        SettingError: not a number, or out of range.
    """
    kinds = (int,) if whole else (int, float)
    good = isinstance(value, kinds) and not isinstance(value, bool)
    good = good and (low <= value if low_included else low < value)
    if not good or not (value <= high if high_included else value < high):
        start = f"{'from' if low_included else 'above'} {low:g}"
        end = "" if high == float("inf") else f" {'to' if high_included else 'to below'} {high:g}"
        kind = "a whole number" if whole else "a number"
        raise SettingError(f"{name} is {value!r}, expected {kind} {start}{end}.")
