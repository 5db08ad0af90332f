"""How values are written into a vtkMRMLScriptedModuleNode; the texts are Slicer's, so that scenes can be exchanged."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable
from typing import Any

import slicer

from .validators import IsInstance, NotNone, Validator


class Serializer:
    """For one type: text in the node's parameter."""

    def __init__(self, checks: list[Validator], default: Any, toText: Callable[[Any], str], fromText: Callable):
        self._checks = checks
        self._default = default
        self._toText, self._fromText = toText, fromText

    def default(self) -> Any:
        """The value where none was declared."""
        return self._default

    def validate(self, value: Any) -> None:
        """Raises TypeError or ValueError."""
        for check in self._checks:
            check.validate(value)

    def isIn(self, node: Any, name: str) -> bool:
        """Whether the node has the parameter."""
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        """Into the node."""
        node.SetParameter(name, self._toText(value))

    def read(self, node: Any, name: str) -> Any:
        """From the node."""
        return self._fromText(node.GetParameter(name))


class NodeSerializer(Serializer):
    """A node reference; the empty parameter of the same name says that it was set, be it to None."""

    def __init__(self, checks: list[Validator]):
        super().__init__(checks, None, str, str)

    def write(self, node: Any, name: str, value: Any) -> None:
        """Into the node."""
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        """From the node; None if the referenced node is gone."""
        return node.GetNodeReference(name)


def _enumFrom(type_: type[enum.Enum]) -> Callable[[str], enum.Enum]:
    def read(key: str) -> enum.Enum:
        try:
            return type_[key]
        except KeyError as error:
            raise ValueError(f"Found {key!r} in parameter node but it is not a name in {type_!r}") from error

    return read


def makeSerializer(type_: Any, validators: list[Validator]) -> Serializer:
    """The serializer of a declared type."""
    if not isinstance(type_, type):
        raise NotImplementedError(f"The stand-in has no parameters of type {type_}")
    if type_ in (int, float):
        checks = [NotNone(), IsInstance((int, float) if type_ is float else int)]
        return Serializer(checks + validators, 0, str, type_)
    if type_ is bool:
        return Serializer(
            [NotNone(), IsInstance(bool), *validators],
            False,
            lambda value: str(bool(value)),
            lambda text: text == "True",
        )
    if type_ is str:
        return Serializer([NotNone(), IsInstance(str), *validators], "", str, str)
    if issubclass(type_, pathlib.PurePath):
        return Serializer([NotNone(), IsInstance(type_), *validators], type_(), str, type_)
    if issubclass(type_, enum.Enum):
        first = next(iter(type_))
        return Serializer([IsInstance(type_), *validators], first, lambda value: value.name, _enumFrom(type_))
    if issubclass(type_, slicer.vtkMRMLNode):
        return NodeSerializer([IsInstance(type_), *validators])
    raise NotImplementedError(f"The stand-in has no parameters of type {type_}")
