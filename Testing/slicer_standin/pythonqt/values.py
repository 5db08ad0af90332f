"""Values on their way into Qt and back."""

from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np


class EnumValue(int):
    """A Qt enum value as PythonQt gives it, a plain integer, that remembers Qt 6's own value.

    Values that were combined with ``|`` or ``&`` stay usable as arguments.
    """

    native: Any

    def __new__(cls, native: enum.Enum) -> EnumValue:
        """Takes Qt's own value."""
        value = super().__new__(cls, native.value)
        value.native = native
        return value

    def _combined(self, other: Any, operation) -> int:
        if isinstance(other, EnumValue) and type(other.native) is type(self.native):
            result = operation(self.native, other.native)
            return EnumValue(result) if isinstance(result, enum.Enum) else result
        return operation(int(self), int(other)) if isinstance(other, int) else NotImplemented

    def __or__(self, other: Any) -> int:
        return self._combined(other, lambda a, b: a | b)

    def __and__(self, other: Any) -> int:
        return self._combined(other, lambda a, b: a & b)

    def __invert__(self) -> int:
        return EnumValue(~self.native) if isinstance(self.native, enum.Flag) else ~int(self)

    __hash__ = int.__hash__


class EnumType(type):
    """The name of an enum, such as ``qt.Qt.AlignmentFlag``: its values are not attributes of it in PythonQt."""

    native: Any

    def __call__(cls, value: int) -> EnumValue:
        return EnumValue(cls.native(int(value)))

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(
            f"'{cls.__name__}' has no attribute '{name}': PythonQt has enum values on the class around the enum only"
        )


def enumType(native: type[enum.Enum]) -> EnumType:
    """What stands for Qt's enum class ``native``."""
    made = EnumType(native.__name__, (), {})
    made.native = native
    return made


INTEGER_TYPES = {"int", "uint", "short", "ushort", "long", "ulong", "qlonglong", "qulonglong", "qint64"}
FLOAT_TYPES = {"double", "float", "qreal"}


def asNumber(value: Any, typeName: str) -> Any:
    """``value`` for a parameter or property of Qt type ``typeName``; other types pass untouched.

    Raises:
        ValueError: PythonQt does not take it there, or takes it only by luck.
    """
    if isinstance(value, np.bool_):
        raise ValueError(f"NumPy's {value!r} does not pass for '{typeName}': use bool(...)")
    if typeName == "bool" and not isinstance(value, bool):
        raise ValueError(f"{value!r} does not pass for 'bool': use bool(...)")
    if typeName in INTEGER_TYPES:
        if isinstance(value, np.integer):
            return int(value)
        if type(value) is float:
            return math.floor(value)
        if not isinstance(value, int):
            raise ValueError(f"{value!r} does not pass for '{typeName}'")
        return int(value)
    if typeName in FLOAT_TYPES:
        if isinstance(value, (int, float, np.integer, np.floating)):
            return float(value)
        raise ValueError(f"{value!r} does not pass for '{typeName}'")
    if typeName == "QString" and not isinstance(value, str):
        raise ValueError(f"{value!r} does not pass for 'QString': use str(...)")
    return value
