"""Wrappers around Qt's objects with the attribute rules of PythonQt.

One flat class per Qt class, so that ``isinstance(label, qt.QWidget)`` is False as in Slicer; a Python class that
derives from one of them gets a Qt class of its own below, whose virtual methods call the Python ones.
"""

from __future__ import annotations

import enum
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import shiboken6
from PySide6 import QtCore

from . import signals
from .names import PYSIDE_ONLY, QT6_ONLY, QT6_ONLY_ENUMS, TRAPS
from .problems import problems
from .values import EnumType, EnumValue, asNumber, enumType

_classes: dict[type, WrapperType] = {}
_enumTypes: dict[type, EnumType] = {}
_wrappers: weakref.WeakValueDictionary[int, Wrapper] = weakref.WeakValueDictionary()


def invokable(function: Callable) -> Callable:
    """Marks a method of a custom widget as one that Slicer's Python can call: Q_INVOKABLE, a slot, or decorated."""
    function.isInvokable = True
    return function


class WrapperType(type):
    """Finds what a class itself has: static methods, unbound methods, enums and their values."""

    def __new__(mcs, name: str, bases: tuple, namespace: dict, native: type | None = None) -> WrapperType:
        """Makes a wrapper class for ``native``, or a Python class on top of one."""
        return super().__new__(mcs, name, bases, namespace)

    def __init__(cls, name: str, bases: tuple, namespace: dict, native: type | None = None):
        super().__init__(name, bases, namespace)
        if native is not None:
            type.__setattr__(cls, "_nativeClass", native)
            type.__setattr__(cls, "_isPython", False)
        elif bases:
            type.__setattr__(cls, "_nativeClass", _overriding(cls, namespace))
            type.__setattr__(cls, "_isPython", True)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return classMember(cls._nativeClass, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        if not cls._isPython:
            raise AttributeError(f"'{cls.__name__}' is a class of C++; '{name}' cannot be set on it")
        super().__setattr__(name, value)


class Wrapper(metaclass=WrapperType):
    """Base of all wrappers."""

    _nativeClass: type = object
    _isPython = False

    def __init__(self, *arguments: Any):
        native = _construct(type(self)._nativeClass, arguments)
        self._bind(native)

    def _bind(self, native: Any) -> None:
        object.__setattr__(self, "_native", native)
        if isinstance(native, QtCore.QObject):
            _wrappers[id(native)] = self
            if type(self)._isPython:
                # The Python half lives as long as the Qt half.
                native._wrapper = self

    def __getattr__(self, name: str) -> Any:
        if name == "_native":
            raise AttributeError(f"{type(self).__name__}: __init__ of the Qt class was not called")
        if name.startswith("__"):
            raise AttributeError(name)
        return member(_alive(self, name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setMember(self, name, value)

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Wrapper):
            return NotImplemented
        mine, its = self._native, other._native
        if isinstance(mine, QtCore.QObject) or isinstance(its, QtCore.QObject):
            return mine is its
        return bool(mine == its)

    def __hash__(self) -> int:
        native = self._native
        return id(native) if isinstance(native, QtCore.QObject) else hash(native)

    def __bool__(self) -> bool:
        return shiboken6.isValid(self._native)

    def __repr__(self) -> str:
        return f"{type(self).__name__} (stand-in, {type(self)._nativeClass.__name__} at {id(self):#x})"


def register(native: type, namespace: dict[str, Any] | None = None, name: str | None = None) -> WrapperType:
    """Makes the wrapper class of ``native``; ``namespace`` goes before what Qt has."""
    _classes[native] = WrapperType(name or native.__name__, (Wrapper,), dict(namespace or {}), native=native)
    return _classes[native]


def wrapperClass(native: type) -> WrapperType:
    """The wrapper class of a Qt class, made where it is first needed."""
    return _classes.get(native) or register(native)


def wrap(value: Any) -> Any:
    """What Python sees of a value from Qt: wrappers, plain integers for enums, tuples for lists."""
    if isinstance(value, enum.Enum) and type(value).__module__.startswith("PySide6"):
        return EnumValue(value)
    if isinstance(value, (list, tuple)):
        return tuple(wrap(item) for item in value)
    if isinstance(value, dict):
        return {key: wrap(item) for key, item in value.items()}
    if not isinstance(value, shiboken6.Shiboken.Object):
        return value
    python = getattr(value, "_wrapper", None)
    if python is not None:
        return python
    known = _wrappers.get(id(value)) if isinstance(value, QtCore.QObject) else None
    if known is not None and known._native is value:
        return known
    cls = next(cls for cls in type(value).__mro__ if _isQtClass(cls))
    made = object.__new__(wrapperClass(cls))
    made._bind(value)
    return made


def _isQtClass(cls: type) -> bool:
    return cls in _classes or cls.__module__.startswith("PySide6")


def unwrap(value: Any) -> Any:
    """What Qt gets for a value from Python."""
    if isinstance(value, Wrapper):
        return _alive(value, "argument")
    if isinstance(value, WrapperType):
        return value._nativeClass
    if isinstance(value, EnumValue):
        return value.native
    if isinstance(value, EnumType):
        return value.native
    if isinstance(value, list):
        return [unwrap(item) for item in value]
    if isinstance(value, tuple):
        return [unwrap(item) for item in value]
    if isinstance(value, dict):
        return {key: unwrap(item) for key, item in value.items()}
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.bool_):
        raise ValueError(f"NumPy's {value!r} does not pass into Qt: use bool(...)")
    return value


def _alive(wrapper: Wrapper, what: str) -> Any:
    native = wrapper._native
    if not shiboken6.isValid(native):
        raise ValueError(f"Trying to use '{what}' of a destroyed {type(wrapper).__name__} object")
    return native


def _construct(native: type, arguments: tuple) -> Any:
    try:
        return native(*[unwrap(argument) for argument in arguments])
    except TypeError as error:
        raise ValueError(f"Could not find matching overload of {native.__name__}{arguments}: {error}") from None


def _denied(cls: type, name: str) -> str | None:
    """Why PythonQt on Qt 5 or 6 does not have ``name``, or None."""
    if name in PYSIDE_ONLY:
        return "it is PySide's own"
    for base in cls.__mro__:
        if name in TRAPS.get(base.__name__, ()):
            return TRAPS[base.__name__][name]
        if name in QT6_ONLY.get(base.__name__, ()):
            return "Qt 5 does not have it"
    return None


def _noMember(cls: type, name: str) -> AttributeError:
    why = _denied(cls, name)
    return AttributeError(f"{cls.__name__} has no attribute named '{name}'" + (f": {why}" if why else ""))


def classMember(native: type, name: str) -> Any:
    """An attribute of the class: an enum, an enum value, a static or an unbound method."""
    if name.startswith("_") or _denied(native, name):
        raise _noMember(native, name)
    found = _enumMember(native, name)
    if found is not None:
        return found
    function = _method(native, name)
    if function is None:
        raise _noMember(native, name)

    def call(*arguments: Any) -> Any:
        return _call(native, name, function, arguments)

    return call


def _enumMember(native: type, name: str) -> Any:
    for base in native.__mro__:
        enums = {
            key: held
            for key, held in vars(base).items()
            if isinstance(held, type)
            and issubclass(held, enum.Enum)
            and key not in QT6_ONLY_ENUMS.get(base.__name__, ())
        }
        if name in enums:
            return _enumTypes.setdefault(enums[name], enumType(enums[name]))
        for candidate in enums.values():
            if name in candidate.__members__:
                return EnumValue(candidate.__members__[name])
    return None


def _method(native: type, name: str) -> Callable | None:
    """The method as PySide has it; of a custom widget only what is marked or overrides a method of Qt."""
    for base in native.__mro__:
        held = vars(base).get(name)
        inner = held.__func__ if isinstance(held, staticmethod) else held
        if base.__module__.startswith("PySide6"):
            if callable(inner) and not isinstance(inner, type):
                return getattr(native, name)
        elif getattr(inner, "isInvokable", False):
            return getattr(native, name)
    return None


def member(native: Any, name: str) -> Any:
    """An attribute of an object, in PythonQt's order: property, signal, method, enum value, dynamic property."""
    cls = type(native)
    isObject = isinstance(native, QtCore.QObject)
    if name.startswith("_") or _denied(cls, name):
        raise _noMember(cls, name)
    if isObject:
        known = _propertyName(native, name)
        if known is not None:
            return wrap(native.property(known))
        if name in signals.signalMethods(native) and name not in signals.customSignatures(native).values():
            return signals.BoundSignal(native, name)
        if any(known.startswith(f"{name}(") for known in signals.customSignatures(native)):
            return signals.BoundSignal(native, name)
        if name in _OBJECT_METHODS:
            return lambda *arguments: _OBJECT_METHODS[name](native, *arguments)
    if name == "className":
        return lambda: native.metaObject().className() if isObject else cls.__name__
    plain = name[:-1] if name == "exec_" else name
    if _method(cls, plain) is not None:
        return lambda *arguments: _call(cls, plain, getattr(native, plain), arguments, native)
    found = _enumMember(cls, name)
    if found is not None:
        return found
    if isObject and name.encode() in [bytes(known.data()) for known in native.dynamicPropertyNames()]:
        return wrap(native.property(name))
    raise _noMember(cls, name)


def _propertyName(native: QtCore.QObject, name: str) -> str | None:
    if name == "name" and native.metaObject().indexOfProperty("name") < 0:
        name = "objectName"
    if name == "singleShot":
        return None
    return name if native.metaObject().indexOfProperty(name) >= 0 else None


def setMember(wrapper: Wrapper, name: str, value: Any) -> None:
    """Sets a property; anything else only on Python classes."""
    cls = type(wrapper)
    if name == "_native" or "_native" not in vars(wrapper):
        object.__setattr__(wrapper, name, value)
        return
    native = _alive(wrapper, name)
    if _denied(type(native), name):
        raise _noMember(type(native), name)
    if isinstance(native, QtCore.QObject):
        known = _propertyName(native, name)
        if known is not None:
            _setProperty(native, known, value)
            return
        if name in signals.signalMethods(native):
            raise AttributeError(f"Signal '{name}' can not be overwritten on {cls.__name__} object")
    if _method(type(native), name) is not None or name in _OBJECT_METHODS:
        raise AttributeError(f"Slot '{name}' can not be overwritten on {cls.__name__} object")
    if isinstance(native, QtCore.QObject) and name.encode() in [
        bytes(known.data()) for known in native.dynamicPropertyNames()
    ]:
        native.setProperty(name, unwrap(value))
        return
    if not cls._isPython:
        raise AttributeError(f"{cls.__name__} has no attribute named '{name}'; a C++ object takes no new ones")
    object.__setattr__(wrapper, name, value)


def _setProperty(native: QtCore.QObject, name: str, value: Any) -> None:
    meta = native.metaObject()
    about = meta.property(meta.indexOfProperty(name))
    if not about.isWritable():
        raise AttributeError(f"Property '{name}' of {type(native).__name__} object is not writable")
    try:
        done = native.setProperty(name, unwrap(asNumber(value, about.typeName())))
    except (TypeError, ValueError) as error:
        reason = str(error)
        done = False
    else:
        reason = ""
    if not done:
        raise AttributeError(
            f"Property '{name}' of type '{about.typeName()}' does not accept an object of type"
            f" {type(value).__name__} ({value!r}) {reason}"
        )


def _call(cls: type, name: str, function: Callable, arguments: tuple, native: Any = None) -> Any:
    passed = []
    for index, argument in enumerate(arguments):
        if callable(argument) and not isinstance(argument, (Wrapper, type)) and not _isCustom(cls, name):
            raise ValueError(f"Called {cls.__name__}.{name} with a Python function, which PythonQt refuses")
        if isinstance(argument, (np.generic, float)):
            types_ = _parameterTypes(native, name, len(arguments))
            if types_:
                argument = asNumber(argument, types_[index])
            elif isinstance(argument, np.floating):
                raise ValueError(f"NumPy's {argument!r} passes by luck only: use float(...) or int(...)")
        passed.append(unwrap(argument))
    try:
        return wrap(function(*passed))
    except (TypeError, NotImplementedError) as error:
        if _isCustom(cls, name) and not isinstance(error, NotImplementedError):
            raise
        raise ValueError(f"Called {cls.__name__}.{name}{arguments} with wrong arguments: {error}") from None


def _isCustom(cls: type, name: str) -> bool:
    return any(isinstance(vars(base).get(name), types.FunctionType) for base in cls.__mro__)


def _parameterTypes(native: Any, name: str, count: int) -> list[str]:
    """Names of the parameters' types where Qt's meta-object knows the method, else empty."""
    if isinstance(native, QtCore.QObject):
        meta = native.metaObject()
        for index in range(meta.methodCount()):
            method = meta.method(index)
            if bytes(method.name().data()).decode() == name and method.parameterCount() == count:
                return [bytes(known.data()).decode() for known in method.parameterTypes()]
    return []


def _findChildren(native: QtCore.QObject, type_: Any = None, name: str = "") -> tuple:
    wanted = type_ if isinstance(type_, str) else (unwrap(type_) if type_ is not None else QtCore.QObject)
    found = native.findChildren(QtCore.QObject, name) if name else native.findChildren(QtCore.QObject)
    if isinstance(wanted, str):
        return tuple(wrap(child) for child in found if child.inherits(wanted) or type(child).__name__ == wanted)
    return tuple(wrap(child) for child in found if isinstance(child, wanted))


def _findChild(native: QtCore.QObject, type_: Any = None, name: str = "") -> Any:
    return next(iter(_findChildren(native, type_, name)), None)


def _inherits(native: QtCore.QObject, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(native).__mro__)


def _dynamicProperty(native: QtCore.QObject, name: str, value: Any) -> bool:
    if native.metaObject().indexOfProperty(name) >= 0:
        _setProperty(native, name, value)
        return True
    return native.setProperty(name, unwrap(value))


_OBJECT_METHODS: dict[str, Callable] = {
    "connect": signals.connect,
    "disconnect": signals.disconnect,
    "findChild": _findChild,
    "findChildren": _findChildren,
    "inherits": _inherits,
    "property": lambda native, name: wrap(native.property(name)),
    "setProperty": _dynamicProperty,
    "delete": lambda native: shiboken6.delete(native),
}


def _overriding(cls: WrapperType, namespace: dict[str, Any]) -> type:
    """A Qt class whose virtual methods call those that the Python class ``cls`` defines."""
    base = next(known._nativeClass for known in cls.__mro__[1:] if isinstance(known, WrapperType))
    overrides = {
        name: _override(name, getattr(base, name))
        for name, held in namespace.items()
        if isinstance(held, types.FunctionType) and not name.startswith("_") and callable(getattr(base, name, None))
    }
    return type(base)(cls.__name__, (base,), overrides)


def _override(name: str, inherited: Callable) -> Callable:
    def method(self: Any, *arguments: Any) -> Any:
        wrapper = getattr(self, "_wrapper", None)
        if wrapper is None:  # while Qt builds or destroys the object
            return inherited(self, *arguments)
        try:
            result = getattr(wrapper, name)(*[wrap(argument) for argument in arguments])
        except Exception:
            problems.addException(f"{type(wrapper).__name__}.{name}")
            return False if name in ("event", "eventFilter") else None
        if name in ("event", "eventFilter") and not isinstance(result, bool):
            problems.add(f"{type(wrapper).__name__}.{name} returned {result!r} instead of True or False")
            return False
        return unwrap(result)

    return method
