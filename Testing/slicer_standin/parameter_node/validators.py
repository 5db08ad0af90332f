"""Annotations that check a value: the wrong type is a TypeError, a wrong value a ValueError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Validator:
    """Base of all."""

    def validate(self, value: Any) -> None:
        """Raises if ``value`` does not fit."""
        raise NotImplementedError


@dataclass(frozen=True)
class NotNone(Validator):
    """Anything but None."""

    def validate(self, value: Any) -> None:
        """See the class."""
        if value is None:
            raise ValueError("Value must not be None")


@dataclass(frozen=True)
class IsInstance(Validator):
    """An instance of a type or of one of several, or None."""

    classtype: Any

    def validate(self, value: Any) -> None:
        """See the class."""
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type '{self.classtype}', is type '{type(value)}' value '{value}'")


@dataclass(frozen=True)
class WithinRange(Validator):
    """From minimum to maximum, both included."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        """See the class."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclass(frozen=True)
class Minimum(Validator):
    """At least this."""

    minimum: float

    def validate(self, value: Any) -> None:
        """See the class."""
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


@dataclass(frozen=True)
class Maximum(Validator):
    """At most this."""

    maximum: float

    def validate(self, value: Any) -> None:
        """See the class."""
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


@dataclass(frozen=True)
class Choice(Validator):
    """One of these."""

    choices: list

    def validate(self, value: Any) -> None:
        """See the class."""
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be one of: {self.choices}")


@dataclass(frozen=True)
class Exclude(Validator):
    """None of these."""

    excludedValues: list

    def validate(self, value: Any) -> None:
        """See the class."""
        if value in self.excludedValues:
            raise ValueError(f"Value is {value}, which is excluded")


@dataclass(frozen=True)
class RangeBounds(Validator):
    """Bounds for both ends of a range."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        """See the class."""
        raise NotImplementedError("ranges are not part of the stand-in")


@dataclass(frozen=True)
class Default:
    """The value of a new node, where it is not given by ``name: type = value``."""

    value: Any
