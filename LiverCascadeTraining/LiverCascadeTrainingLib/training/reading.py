"""Plain values into settings: types checked, unknown keys refused with the nearest known one."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from LiverCascadeLib.errors import LiverCascadeError

from ..names import SettingError, check_name

Settings = TypeVar("Settings")


def settings_from(kind: type[Settings], content: Any, where: str = "") -> Settings:
    """A dataclass from a mapping as YAML gives it, sections included.

    Args:
        kind: the dataclass.
        content: its values.
        where: dotted name of the section, for messages.

    Raises:
        SettingError: an unknown or missing setting, or a value of another type or out of range.
    """
    place = where or "the configuration"
    if not isinstance(content, Mapping):
        raise SettingError(f"{place} is {content!r}, expected settings with their values.")
    known = {f.name: f for f in fields(kind)}
    for key in content:
        check_name(str(key), known, f"setting in {where}" if where else "section or setting")
    hints = get_type_hints(kind)
    values = {}
    for name, entry in known.items():
        path = f"{where}.{name}" if where else name
        if name in content:
            values[name] = converted(content[name], hints[name], path)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise SettingError(f"{path} is missing.")
    try:
        return kind(**values)
    except LiverCascadeError as error:
        text = str(error)
        raise SettingError(text if text.startswith(place) else f"{place}: {text}") from None


def converted(value: Any, hint: Any, path: str) -> Any:
    """A value as its type hint wants it.

    Raises:
        SettingError: it is of another type.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return converted(value, next(part for part in inner if part is not type(None)), path)
    if is_dataclass(hint):
        return settings_from(hint, value, path)
    if origin is tuple:
        return _sequence(value, inner, path)
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, Mapping):
            raise SettingError(f"{path} is {value!r}, expected settings with their values.")
        part = inner[1] if inner else Any
        return {str(k): v if part is Any else converted(v, part, f"{path}.{k}") for k, v in value.items()}
    if hint is bool:
        good, what = isinstance(value, bool), "true or false"
    elif hint is int:
        good, what = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif hint is float:
        good, what = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    else:
        good, what = isinstance(value, str), "a text"
    if not good:
        hint_text = " (write 0.001 rather than 1e-3)" if hint is float and isinstance(value, str) else ""
        raise SettingError(f"{path} is {value!r}, expected {what}{hint_text}.")
    return float(value) if hint is float else value


def _sequence(value: Any, inner: tuple, path: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise SettingError(f"{path} is {value!r}, expected a list.")
    if inner[1:] == (Ellipsis,):
        return tuple(converted(v, inner[0], f"{path}[{n}]") for n, v in enumerate(value))
    if len(value) != len(inner):
        raise SettingError(f"{path} has {len(value)} values, expected {len(inner)}.")
    return tuple(converted(v, part, f"{path}[{n}]") for n, (v, part) in enumerate(zip(value, inner, strict=True)))


def plain(value: Any) -> Any:
    """Settings as plain values, every default written out, for YAML and JSON."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value
