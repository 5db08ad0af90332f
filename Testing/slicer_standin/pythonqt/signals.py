"""Signals as PythonQt has them: strings such as ``"clicked(bool)"``, or attributes with ``connect``."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore

from .problems import problems

# Overloaded in Qt 5, single in Qt 6: an attribute alone does not say which one is meant.
OVERLOADED_IN_QT5 = {
    "QComboBox": {"activated", "currentIndexChanged", "highlighted"},
    "QSpinBox": {"valueChanged"},
    "QDoubleSpinBox": {"valueChanged"},
    "QButtonGroup": {"buttonClicked", "buttonPressed", "buttonReleased", "buttonToggled"},
    "QProcess": {"finished"},
    "QTabBar": set(),
    "QTextBrowser": {"highlighted"},
}


def normalized(signature: str) -> str:
    """The signature as Qt writes it."""
    return bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()


def signalMethods(native: QtCore.QObject) -> dict[str, list[QtCore.QMetaMethod]]:
    """All signals of an object by name; a signal with default arguments counts once per form."""
    meta = native.metaObject()
    found: dict[str, list[QtCore.QMetaMethod]] = {}
    for index in range(meta.methodCount()):
        method = meta.method(index)
        if method.methodType() == QtCore.QMetaMethod.MethodType.Signal:
            found.setdefault(bytes(method.name().data()).decode(), []).append(method)
    return found


def _signature(method: QtCore.QMetaMethod) -> str:
    return bytes(method.methodSignature().data()).decode()


def _parameters(signature: str) -> list[str]:
    inner = signature[signature.index("(") + 1 : -1]
    return inner.split(",") if inner else []


def customSignatures(native: QtCore.QObject) -> dict[str, str]:
    """Signals with types that Qt does not know: Slicer's signature → the name of the signal that stands for it."""
    found: dict[str, str] = {}
    for cls in reversed(type(native).__mro__):
        found.update(vars(cls).get("slicerSignals", {}))
    return found


def findSignal(native: QtCore.QObject, signature: str) -> tuple[Any, int, int] | None:
    """The bound signal of PySide, how many arguments it has and how many ``signature`` names; None: no such signal."""
    if "(" not in signature:
        return None
    signature = normalized(signature)
    custom = customSignatures(native)
    if signature in custom:
        count = len(_parameters(signature))
        return getattr(native, custom[signature]), count, count
    name = signature[: signature.index("(")]
    hidden = {known[: known.index("(")] for known in custom} | set(custom.values())
    if name in hidden:
        return None
    methods = signalMethods(native).get(name, [])
    if signature not in [_signature(method) for method in methods]:
        return None
    parameters = _parameters(signature)
    forms = [_parameters(_signature(method)) for method in methods]
    # A form that only leaves arguments out comes from default arguments.
    full = [form for form in forms if not any(form == more[: len(form)] and form != more for more in forms)]
    whole = max((form for form in full if form[: len(parameters)] == parameters), key=len)
    bound = getattr(native, name)
    return (bound[",".join(whole)] if len(full) > 1 else bound), len(whole), len(parameters)


def wantedArguments(function: Callable) -> int | None:
    """How many arguments PythonQt hands to ``function`` at most; None: all.

    As PythonQtSignalTarget::call counts: only functions and methods are looked into, not partials or callable objects.
    """
    bound = isinstance(function, types.MethodType)
    inner = function.__func__ if bound else function
    if not isinstance(inner, types.FunctionType) or inner.__code__.co_flags & 0x04:  # 0x04: CO_VARARGS
        return None
    return inner.__code__.co_argcount - bound


_connections: dict[int, list[tuple[str, Callable, Callable, Any]]] = {}


def _of(native: QtCore.QObject) -> list[tuple[str, Callable, Callable, Any]]:
    pointer = shiboken6.getCppPointer(native)[0]
    if pointer not in _connections:
        _connections[pointer] = []
        native.destroyed.connect(lambda *_: _connections.pop(pointer, None))
    return _connections[pointer]


def _withArguments(function: Callable, count: int) -> Callable:
    """``function`` with a fixed number of parameters: PySide hands over as many as it sees."""
    forms = (
        lambda: function(),
        lambda a: function(a),
        lambda a, b: function(a, b),
        lambda a, b, c: function(a, b, c),
        lambda a, b, c, d: function(a, b, c, d),
    )
    return forms[count]


def _connect(native: QtCore.QObject, key: str, bound: Any, full: int, count: int, function: Callable) -> bool:
    from .wrapping import wrap

    wanted = wantedArguments(function)
    taken = count if wanted is None else min(count, wanted)

    def call(*arguments: Any) -> None:
        try:
            function(*[wrap(argument) for argument in arguments[:taken]])
        except Exception:
            problems.addException(f"the slot {getattr(function, '__qualname__', function)!s} of {key}")

    relay = _withArguments(call, full)
    bound.connect(relay)
    _of(native).append((key, function, relay, bound))
    return True


def connect(native: QtCore.QObject, signature: str, function: Callable) -> bool:
    """``object.connect("clicked(bool)", function)``; an unknown signal prints, returns False, and is a problem."""
    if not callable(function):
        raise ValueError("Called connect with wrong arguments: the slot cannot be called")
    found = findSignal(native, signature)
    if found is None:
        problems.add(f"QObject::connect: No such signal {type(native).__name__}::{signature}")
        return False
    return _connect(native, normalized(signature), *found, function)


def disconnect(native: QtCore.QObject, signature: str, function: Callable | None = None) -> bool:
    """Takes connections of one signal away again: those to ``function``, or all; tells whether there was one."""
    return _disconnect(native, {normalized(signature)}, function)


def _disconnect(native: QtCore.QObject, keys: set[str], function: Callable | None) -> bool:
    mine = _of(native)
    gone = [entry for entry in mine if entry[0] in keys and (function is None or entry[1] == function)]
    for entry in gone:
        entry[3].disconnect(entry[2])
        mine.remove(entry)
    return bool(gone)


class BoundSignal:
    """``button.clicked``: with ``connect``, ``disconnect`` and ``emit``."""

    def __init__(self, native: QtCore.QObject, name: str):
        self._native = native
        self._name = name
        custom = [known for known in customSignatures(native) if known[: known.index("(")] == name]
        self._signatures = custom or [_signature(method) for method in signalMethods(native)[name]]

    def _isOverloaded(self) -> bool:
        forms = [_parameters(signature) for signature in self._signatures]
        longest = max(forms, key=len)
        if any(form != longest[: len(form)] for form in forms):
            return True
        classes = [cls.__name__ for cls in type(self._native).__mro__]
        return any(self._name in OVERLOADED_IN_QT5.get(name, ()) for name in classes)

    def connect(self, function: Callable) -> bool:
        """Calls ``function`` whenever the signal is emitted, with as many arguments as it takes."""
        if not callable(function):
            raise ValueError("Called connect with wrong arguments: the slot cannot be called")
        if self._isOverloaded() and wantedArguments(function) != 0:
            problems.add(
                f"'{self._name}' is overloaded in Slicer: what {function!r} would get is left to chance."
                f' Say which one: connect("{self._signatures[0]}", …)'
            )
            return False
        signature = max(self._signatures, key=lambda known: len(_parameters(known)))
        return _connect(self._native, signature, *findSignal(self._native, signature), function)

    def disconnect(self, function: Callable | None = None) -> bool:
        """Takes connections away again."""
        return _disconnect(self._native, set(self._signatures), function)

    def emit(self, *arguments: Any) -> None:
        """Emits the signal."""
        from .wrapping import unwrap

        findSignal(self._native, max(self._signatures, key=len))[0].emit(*[unwrap(value) for value in arguments])

    __call__ = emit
