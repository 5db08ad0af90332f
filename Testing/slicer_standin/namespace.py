"""The package ``slicer`` of slicer-core, turned into the ``slicer`` of the application for a while.

The package itself is changed, not replaced: every module that has imported it sees the same. What slicer-core puts
into it and Slicer does not is taken away meanwhile.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import slicer
import slicer.util

# Names that Slicer's package has beside its classes.
_KEPT = {"util", "vtkAddon"}

# Names of slicer.util that the version lacks, by comparing Base/Python/slicer/util.py of the branches.
_NEWER = {"5.12": {"LazyImport"}, "5.10": {"LazyImport", "executePythonModule"}}


class Namespace:
    """What was changed, to be changed back."""

    def __init__(self) -> None:
        self._before: dict[tuple[types.ModuleType, str], Any] = {}
        self._modules: dict[str, Any] = {}

    def enter(self, version: str) -> None:
        """Hides what Slicer does not have."""
        for name in list(vars(slicer)):
            if not name.startswith("_") and not name.startswith("vtk") and name not in _KEPT:
                self.remove(slicer, name)
        for name in _NEWER[version]:
            self.remove(slicer.util, name)

    def remove(self, module: types.ModuleType, name: str) -> None:
        """Takes a name away."""
        self._before.setdefault((module, name), vars(module).get(name, _ABSENT))
        if name in vars(module):
            delattr(module, name)

    def set(self, module: types.ModuleType, name: str, value: Any) -> None:
        """Sets a name."""
        self._before.setdefault((module, name), vars(module).get(name, _ABSENT))
        setattr(module, name, value)

    def addModule(self, name: str, module: types.ModuleType | None) -> None:
        """Makes ``import name`` give ``module``, or fail where it is None."""
        self._modules.setdefault(name, sys.modules.get(name, _ABSENT))
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent and module is not None:
            self.set(sys.modules[parent], child, module)

    def leave(self) -> None:
        """Everything as before, and what the code under test set on the package is gone."""
        known = {name for module, name in self._before if module is slicer}
        for name in [name for name in vars(slicer) if not name.startswith(("_", "vtk")) and name not in _KEPT | known]:
            delattr(slicer, name)
        for (module, name), value in self._before.items():
            if value is not _ABSENT:
                setattr(module, name, value)
            elif name in vars(module):
                delattr(module, name)
        for name, module in self._modules.items():
            if module is _ABSENT:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        self._before.clear()
        self._modules.clear()


_ABSENT = object()
