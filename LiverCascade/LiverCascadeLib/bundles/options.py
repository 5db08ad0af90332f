"""Arguments of a component, each of which is either understood, known not to matter, or refused."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from .config import Component, Config

_MISSING = object()
# How configurations write the types of numbers; all compute the same within the precision of float32.
_FLOATS = {
    f"{module}{name}" for module in ("", "$torch.", "$np.", "$numpy.") for name in ("float32", "float64", "float")
}


class Options:
    """Arguments of one component. What was asked for is understood; :meth:`finish` refuses the rest."""

    def __init__(self, config: Config, component: Component):
        self._config, self.component = config, component
        self._left = dict(component.arguments)

    def get(self, name: str, default: Any = _MISSING) -> Any:
        """The plain value of an argument.

        Raises:
            ModelError: it is not given, where there is no default.
        """
        if name not in self._left:
            if default is _MISSING:
                raise ModelError(f"its {self.component.name} has no '{name}'.")
            return default
        return self._config.plain(self._left.pop(name), f"{self.component.place}#{name}")

    def number(self, name: str, default: Any = _MISSING) -> Any:
        """An argument that is a number, or its default."""
        value = _single(self.get(name, default))
        if not _is_number(value) and (default is _MISSING or value != default):
            raise self._wrong(name, value, "a number")
        return value

    def switch(self, name: str, default: bool) -> bool:
        """An argument that is true or false."""
        value = _single(self.get(name, default))
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def triple(self, name: str, default: Any = _MISSING) -> tuple[float, float, float]:
        """An argument that is a number for each axis, or one for all."""
        value = self.get(name, default)
        numbers = [value] * 3 if _is_number(value) else value
        if not isinstance(numbers, list | tuple) or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise self._wrong(name, value, "a number for each of three axes")
        return tuple(float(number) for number in numbers)

    def only(self, name: str, *accepted: Any) -> Any:
        """An argument that must be one of ``accepted``, of which the first is the default."""
        value = _single(self.get(name, accepted[0]))
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in accepted):
            raise self._wrong(name, value, " or ".join(repr(one) for one in accepted))
        return value

    def keys(self) -> list[str]:
        """Names of the data that the component works on."""
        value = self.get("keys")
        return list(value) if isinstance(value, list) else [value]

    def floats(self, name: str = "dtype") -> None:
        """An argument that is a type of numbers.

        Raises:
            ModelError: one that rounds.
        """
        value = self._left.pop(name, None)
        if value is not None and str(value) not in _FLOATS:
            raise self._wrong(name, value, "float32 or float64")

    def ignore(self, *names: str) -> None:
        """Arguments that change nothing of what is computed; they are not even looked at."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Refuses what nobody asked for.

        Raises:
            ModelError: there is such an argument.
        """
        if self._left:
            name, value = next(iter(self._left.items()))
            raise ModelError(
                f"its {self.component.name} ({self.component.place}) has the argument '{name}' = {value!r}, which is "
                "not covered here, and which may change what the network sees."
            )

    def _wrong(self, name: str, value: Any, expected: str) -> ModelError:
        return ModelError(
            f"its {self.component.name} ({self.component.place}) has {name} = {value!r}, and only {expected} is "
            "covered here."
        )


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
