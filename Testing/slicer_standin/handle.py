"""The handle that tests hold: it starts the stand-in, acts as the user and looks at what happened."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import traceback
import types
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import shiboken6
import slicer
from PySide6 import QtCore, QtTest, QtWidgets

from . import (
    application,
    ctk_widgets,
    dialogs,
    modules,
    mrml_widgets,
    packages,
    parameter_node,
    qt_module,
    scripted_module,
    translation,
)
from .immortal import keepAlive
from .namespace import Namespace
from .pythonqt import Wrapper, problems, register, unwrap, wrap, wrapperClass
from .scene import LOGICS, SceneRoom

_QMRML = (mrml_widgets.qMRMLWidget, mrml_widgets.qMRMLNodeComboBox)
_current: SlicerStandin | None = None
_qt: types.ModuleType | None = None
_ctk: types.ModuleType | None = None


class StandinProblems(AssertionError):
    """A slot raised, a signal was not found, or a dialog waited for ever."""


def _makeModules() -> None:
    global _qt, _ctk
    if _qt is None:
        keepAlive()
        _qt, _ctk = qt_module.make(), ctk_widgets.make()
        for native in _QMRML:
            register(native)
            qt_module.customWidgets[native.__name__] = native
        register(modules.qSlicerScriptedLoadableModuleWidget)


def _keepException(type_: Any, error: BaseException, trace: Any) -> None:
    # VTK prints what an observer raised and goes on; Slicer with --testing fails for it.
    problems.add("Exception in an observer:\n" + "".join(traceback.format_exception(type_, error, trace)))


def install(version: str = "5.12.3", withMainWindow: bool = True, testing: bool = False) -> SlicerStandin:
    """Makes this process look like a started Slicer, until :meth:`SlicerStandin.uninstall`.

    Args:
        version: "5.10.x" or "5.12.x".
        withMainWindow: False: as ``--no-main-window``; there is then no layout manager and no module selector.
        testing: as ``--testing``.
    """
    if _current is not None:
        raise RuntimeError("The stand-in is installed already")
    return SlicerStandin(version, withMainWindow, testing)


class SlicerStandin:
    """A started Slicer. See :func:`install`.

    Attributes:
        messages: every dialog that was to open, oldest first: ``kind``, ``title``, ``text``, ``buttons``.
        answers: what the next dialogs are answered, in order: "Yes", "Cancel", a path, a menu's entry, …
        packages: how installations of packages end, and which were asked for.
        app: Qt's side of ``slicer.app``.
    """

    def __init__(self, version: str, withMainWindow: bool, testing: bool):
        global _current
        self._folder = Path(tempfile.mkdtemp(prefix="slicer-standin-"))
        if QtWidgets.QApplication.instance() is None:
            QtWidgets.QApplication(["Slicer"])
        QtWidgets.QApplication.instance().setQuitOnLastWindowClosed(False)
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.QSettings.setPath(
            QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(self._folder / "settings")
        )
        QtCore.QCoreApplication.setOrganizationName("Standin")
        QtCore.QCoreApplication.setApplicationName("Slicer")
        _makeModules()
        problems.take()
        dialogs.conversation.clear()
        self.packages = packages.Packages()
        self._sysPath = list(sys.path)
        self._room = SceneRoom()
        self.app = application.qSlicerApplication(self._room, self._folder, version, withMainWindow)
        self.app._testing = testing
        self._namespace = Namespace()
        self._pythonModules: list[str] = []
        self._cppModules: list[QtCore.QObject] = []
        self._exceptHook = sys.excepthook
        sys.excepthook = _keepException
        self._enterNamespace(".".join(version.split(".")[:2]))
        self._addModules()
        _current = self

    def _enterNamespace(self, version: str) -> None:
        space = self._namespace
        space.enter(version)
        space.addModule("qt", _qt)
        space.addModule("ctk", _ctk)
        space.set(slicer, "app", wrap(self.app))
        space.set(slicer, "mrmlScene", self._room.scene)
        for native in (*_QMRML, modules.qSlicerScriptedLoadableModuleWidget, modules.qSlicerScriptedLoadableModule):
            space.set(slicer, native.__name__, wrapperClass(native))
        space.addModule("slicer.modules", types.ModuleType("slicer.modules"))
        space.addModule("slicer.moduleNames", types.ModuleType("slicer.moduleNames"))
        space.addModule("slicer.i18n", translation.make())
        space.addModule("slicer.parameterNodeWrapper", parameter_node)
        space.addModule("slicer.ScriptedLoadableModule", scripted_module)
        space.addModule("slicer.packaging", packages.packagingModule(self.packages) if version != "5.10" else None)
        space.addModule("SampleData", translation.sampleData(hasCategories=version != "5.10"))
        space.addModule("imp", None)  # gone with Python 3.12
        space.addModule("PyTorchUtils", packages.torchModule(self.packages))

        def pip_install(requirements: Any, **kwargs: Any) -> None:
            if kwargs and version == "5.10":
                raise TypeError("pip_install() of Slicer 5.10 takes the requirements only")
            self.packages.install("pip_install", requirements)

        space.set(slicer.util, "pip_install", pip_install)
        if version == "5.10":
            launch = slicer.util.launchConsoleProcess

            def launchConsoleProcess(
                args: Any, useStartupEnvironment: bool = True, updateEnvironment: Any = None, cwd: Any = None
            ) -> Any:
                return launch(args, useStartupEnvironment, updateEnvironment, cwd)

            space.set(slicer.util, "launchConsoleProcess", launchConsoleProcess)

    def _addModules(self) -> None:
        manager = self.app.moduleManager()
        for name in LOGICS:
            module = modules.qSlicerCoreModule(name, self._room)
            manager._modules[name] = module
            setattr(slicer.modules, name.lower(), wrap(module))
            setattr(slicer.moduleNames, name, name)
        self._addScripted("SegmentEditor", Path("SegmentEditor.py"), modules.SegmentEditor)

    def _addScripted(self, name: str, path: Path, makeWidget: Callable[[Any], Any]) -> QtCore.QObject:
        module = modules.qSlicerScriptedLoadableModule(name, path, self._room)
        module._makeWidget = makeWidget
        self.app.moduleManager()._modules[name] = module
        setattr(slicer.modules, name.lower(), wrap(module))
        setattr(slicer.moduleNames, name, name)
        return module

    # What Slicer sees

    @property
    def messages(self) -> list[dialogs.Message]:
        """See the class."""
        return dialogs.conversation.messages

    @property
    def answers(self) -> deque[Any]:
        """See the class."""
        return dialogs.conversation.answers

    @property
    def problems(self) -> list[str]:
        """What Slicer would only have printed. A test that provokes a problem takes it: ``problems.clear()``."""
        return problems.texts

    def withoutTorchExtension(self) -> None:
        """From now on ``import PyTorchUtils`` fails."""
        self._namespace.addModule("PyTorchUtils", None)

    # Modules

    def loadModule(self, path: str | Path) -> Any:
        """Loads a scripted module as the application does when it starts: the panel is not made yet.

        Returns:
            the Python module.
        """
        path = Path(path).resolve()
        name = path.stem
        before = set(sys.modules)
        python = modules.loadPythonModule(path, name)
        for heavy in {"torch", "monai"} & (set(sys.modules) - before):
            problems.add(f"{path.name} imports '{heavy}' at file scope: Slicer would pay for it at every start")
        self._pythonModules.append(name)
        module = self._addScripted(name, path, lambda parent: getattr(python, f"{name}Widget")(parent))
        module._python = getattr(python, name)(wrap(module))
        setattr(slicer.modules, f"{name}Instance", module._python)
        self.app.startupCompleted.emit()
        return python

    def openModule(self, path: str | Path, **collaborators: Any) -> Any:
        """Loads a module and opens its panel as a user does; the ``collaborators`` go to the widget's constructor.

        Returns:
            the Python widget. A failure of its ``setup`` or ``enter`` is raised here.
        """
        name = Path(path).stem
        python = self.loadModule(path)
        module = self.app.moduleManager()._modules[name]
        module._makeWidget = lambda parent: getattr(python, f"{name}Widget")(parent, **collaborators)
        before = len(problems.texts)
        if self.app._mainWindow is None:
            module._enter()
        else:
            slicer.util.selectModule(name)
        if len(problems.texts) > before:
            raise StandinProblems("\n".join(problems.texts))
        self.process()
        return module._widget._python

    def openedModule(self) -> str:
        """The name of the module that is open."""
        return self.app._mainWindow.moduleSelector().selectedModule

    # The user

    def click(self, widget: Any) -> None:
        """A click with the left button, where a user could do it.

        Raises:
            AssertionError: the widget is hidden or disabled.
        """
        native = unwrap(widget)
        assert native.isVisible(), f"{native.objectName() or native} cannot be clicked: it is not visible"
        assert native.isEnabled(), f"{native.objectName() or native} cannot be clicked: it is disabled"
        if isinstance(native, QtWidgets.QAbstractButton) and not isinstance(native, ctk_widgets.ctkCollapsibleButton):
            native.click()
        else:
            left = QtCore.Qt.MouseButton.LeftButton
            position = QtCore.QPoint(10, 8)
            QtTest.QTest.mouseClick(native, left, QtCore.Qt.KeyboardModifier.NoModifier, position)
        self.process()

    def clickCell(self, table: Any, row: int, column: int) -> None:
        """A click into a cell of a table."""
        native = unwrap(table)
        place = native.visualItemRect(native.item(row, column)).center()
        left = QtCore.Qt.MouseButton.LeftButton
        QtTest.QTest.mouseClick(native.viewport(), left, QtCore.Qt.KeyboardModifier.NoModifier, place)
        self.process()

    def select(self, comboBox: Any, text: str) -> None:
        """Chooses an entry of a combo box or of a node selector by its text."""
        native = unwrap(comboBox)
        box = native if isinstance(native, QtWidgets.QComboBox) else native.findChild(QtWidgets.QComboBox)
        index = box.findText(text)
        assert native.isVisible() and native.isEnabled(), f"{native.objectName()} cannot be used"
        assert index >= 0, (
            f"{native.objectName()} offers {[box.itemText(i) for i in range(box.count())]}, not '{text}'"
        )
        box.setCurrentIndex(index)
        box.activated.emit(index)
        self.process()

    def type(self, widget: Any, text: str) -> None:
        """Types into a widget that has the keyboard."""
        native = unwrap(widget)
        assert native.isVisible() and native.isEnabled(), f"{native.objectName()} cannot be used"
        QtTest.QTest.keyClicks(native, text)
        self.process()

    def process(self, seconds: float = 0.0, until: Callable[[], Any] | None = None) -> bool:
        """Lets Qt's event loop run.

        Args:
            seconds: how long at most; without ``until`` for the whole time.
            until: ends it when it becomes true.

        Returns:
            whether ``until`` became true.
        """
        loop, timer = QtCore.QEventLoop(), QtCore.QTimer()
        end = time.monotonic() + seconds
        outcome: list[Any] = []

        def look() -> None:
            try:
                if until is not None and until():
                    outcome.append(True)
            except Exception as error:
                outcome.append(error)
            if outcome or time.monotonic() >= end:
                loop.quit()

        timer.timeout.connect(look)
        timer.start(5 if seconds else 0)
        loop.exec()
        timer.stop()
        if outcome and isinstance(outcome[0], Exception):
            raise outcome[0]
        return bool(outcome)

    def screenshot(self, widget: Any, path: str | Path) -> Path:
        """Writes a picture of a widget (a wrapper, or a module's Python widget)."""
        self.process()
        native = unwrap(widget if isinstance(widget, Wrapper) else widget.parent)
        if not native.grab().save(str(path)):
            raise OSError(f"{path} could not be written")
        return Path(path)

    # The scene

    def closeScene(self) -> None:
        """File → Close scene."""
        slicer.mrmlScene.Clear(0)
        self.process()

    def saveScene(self, path: str | Path) -> None:
        """File → Save, all into one .mrb file."""
        messages = slicer.vtkMRMLMessageCollection()
        saved = self.app.coreIOManager().saveScene(str(path), None, messages)
        assert saved, f"{path} could not be saved: {messages.GetAllMessagesAsString()}"
        self.process()

    def loadScene(self, path: str | Path) -> None:
        """File → Load, in place of the present scene."""
        messages = slicer.vtkMRMLMessageCollection()
        loaded = self.app.coreIOManager().loadScene(str(path), True, messages)
        assert loaded, f"{path} could not be loaded: {messages.GetAllMessagesAsString()}"
        self.process()

    # The end

    def quit(self) -> None:
        """File → Exit: the open panel is left, every panel cleaned up, ``aboutToQuit`` emitted."""
        if self.app is None or self._namespace is None:
            return
        self.app.aboutToQuit.emit()
        if self.app._mainWindow is not None:
            self.app._mainWindow.moduleSelector()._leave()
        for name in list(self.app.moduleManager()._modules):
            self.app.moduleManager().moduleAboutToBeUnloaded.emit(name)
        self.process()

    def uninstall(self) -> None:
        """Quits, and takes everything away again.

        Raises:
            StandinProblems: something failed where Slicer would only have printed.
        """
        global _current
        if _current is not self:
            return
        try:
            self.quit()
        finally:
            qt_module.stopSingleShots()
            for module in self.app.moduleManager()._modules.values():
                widget = getattr(module, "_widget", None)
                if widget is not None and shiboken6.isValid(widget):
                    widget._python = None
                    shiboken6.delete(widget)
            if self.app._mainWindow is not None:
                shiboken6.delete(self.app._mainWindow)
            sys.excepthook = self._exceptHook
            self._namespace.leave()
            for name in self._pythonModules:
                sys.modules.pop(name, None)
            sys.path[:] = self._sysPath
            self._room.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            _current = None
            texts = problems.take()
            unused = list(self.answers)
        if unused:
            texts.append(f"Nothing asked for these answers of the test: {unused}")
        if texts:
            raise StandinProblems("\n".join(texts))
