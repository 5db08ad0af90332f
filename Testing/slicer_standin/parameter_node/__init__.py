"""The module slicer.parameterNodeWrapper: as strict as Slicer's about types, with the same bindings to widgets.

Parameters: int, float, bool, str, Path, Enum and MRML nodes, with the validators and GUI annotations. Packs, lists,
unions and Any are not imitated and raise NotImplementedError.
"""

from __future__ import annotations

import typing
import weakref
from typing import Any

import slicer
import vtk

from .connectors import Decimals, SingleStep, createConnector
from .serializers import makeSerializer
from .validators import Choice, Default, Exclude, Maximum, Minimum, RangeBounds, Validator, WithinRange

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "Maximum",
    "Minimum",
    "RangeBounds",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "Validator",
    "WithinRange",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Cached:
    """One parameter of one node. The value is read again whenever the node is modified, as Slicer does."""

    def __init__(self, name: str, serializer: Any, node: Any, default: Any):
        self.name, self.serializer, self.node, self.default = name, serializer, node, default
        self.writing = False
        self.value = self._read()
        # The node must not keep a forgotten wrapper alive.
        weak = weakref.ref(self)

        def onModified(caller: Any, event: Any) -> None:
            known = weak()
            if known is not None and not known.writing:
                known.value = known._read()

        self.tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, onModified)

    def __del__(self) -> None:
        self.node.RemoveObserver(self.tag)

    def _read(self) -> Any:
        if not self.serializer.isIn(self.node, self.name):  # the scene was closed, which resets the node
            self.serializer.write(self.node, self.name, self.default)
        return self.serializer.read(self.node, self.name)

    def write(self, value: Any) -> None:
        self.writing = True
        try:
            with slicer.util.NodeModify(self.node):
                self.serializer.validate(value)
                self.serializer.write(self.node, self.name, value)
                self.value = self.serializer.read(self.node, self.name)
        finally:
            self.writing = False


class _Methods:
    """What the decorator adds to a class."""

    def __init__(self, parameterNode: Any, prefix: str | None = None):
        self.parameterNode = parameterNode
        self._cached: dict[str, _Cached] = {}
        self._connectors: dict[int, dict[str, Any]] = {}
        self._tags: dict[int, int] = {}
        self._updatingGui = False
        for name, (serializer, default) in self.allParameters.items():
            key = f"{prefix or ''}{name}"
            if not serializer.isIn(parameterNode, key):
                serializer.validate(default)
                serializer.write(parameterNode, key, default)
            self._cached[name] = _Cached(key, serializer, parameterNode, default)

    def getValue(self, name: str) -> Any:
        """The value of a parameter by its name."""
        self._check(name)
        return self._cached[name].value

    def setValue(self, name: str, value: Any) -> None:
        """Sets a parameter by its name."""
        self._check(name)
        self._cached[name].write(value)

    def default(self, name: str) -> Default:
        """The default of a parameter."""
        self._check(name)
        return Default(self.allParameters[name][1])

    def isCached(self, name: str) -> bool:
        """All parameters of the stand-in are."""
        self._check(name)
        return True

    def _check(self, name: str) -> None:
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")

    def connectGui(self, gui: Any) -> int:
        """Binds all widgets with a property SlicerParameterName, found in a widget or in an object's ``__dict__``."""
        import qt

        isWidget = getattr(gui, "isWidgetType", lambda: False)()
        widgets = gui.findChildren(qt.QWidget) if isWidget else gui.__dict__.values()
        named = [(widget.property(SlicerParameterNamePropertyName), widget) for widget in widgets]
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Binds parameters to widgets, both ways; returns a tag for :meth:`disconnectGui`."""
        for name in mapping:
            self._check(name)
        connectors = {name: createConnector(widget, self._dataTypes[name]) for name, widget in mapping.items()}
        tag = max(self._connectors, default=-1) + 1
        self._connectors[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(self._makeCallback(name, connector))
        self._tags[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, self._updateGui)
        return tag

    def _makeCallback(self, name: str, connector: Any) -> Any:
        def callback() -> None:
            with slicer.util.NodeModify(self):
                if not self._updatingGui:
                    self.setValue(name, connector.read())

        return callback

    def _updateGui(self, caller: Any, event: Any) -> None:
        if self._updatingGui:
            return
        self._updatingGui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in self._connectors.values():
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updatingGui = False

    def disconnectGui(self, tag: int | None) -> None:
        """Undoes one connection; an unknown tag is nothing."""
        for connector in self._connectors.pop(tag, {}).values():
            connector.onChanged(None)
        if tag in self._tags:
            self.RemoveObserver(self._tags.pop(tag))

    def StartModify(self) -> int:
        """As of the node."""
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: int) -> None:
        """As of the node."""
        self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        """As of the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        """As of the node."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """As of the node."""
        self.parameterNode.Modified()


def _decorate(cls: type) -> type:
    parameters: dict[str, tuple[Any, Any]] = {}
    types = typing.get_type_hints(cls, include_extras=True)
    for name, hint in types.items():
        annotated = typing.get_origin(hint) is typing.Annotated
        plain, *annotations = typing.get_args(hint) if annotated else (hint,)
        serializer = makeSerializer(plain, [note for note in annotations if isinstance(note, Validator)])
        default = next((note.value for note in annotations if isinstance(note, Default)), serializer.default())
        parameters[name] = (serializer, getattr(cls, name, default))
        if any(name == taken for taken in [*vars(_Methods), "allParameters"]):
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        setattr(cls, name, _property(name))
    cls.allParameters = parameters
    cls._dataTypes = types
    cls._is_parameter_node_wrapper = True
    cls.dataType = staticmethod(lambda name: types[name])
    for name, value in vars(_Methods).items():
        if callable(value):
            setattr(cls, name, value)
    return cls


def _property(name: str) -> property:
    return property(lambda self: self._cached[name].value, lambda self, value: self._cached[name].write(value))


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """The class decorator, with or without brackets."""
    return _decorate if classtype is None else _decorate(classtype)


def isParameterNodeWrapper(classOrObj: Any) -> bool:
    """Whether the decorator was there."""
    return getattr(classOrObj, "_is_parameter_node_wrapper", False)


def parameterPack(classtype: type | None = None) -> Any:
    """Not imitated."""
    raise NotImplementedError("parameterPack is not part of the stand-in")
