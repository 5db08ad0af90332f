"""Dialogs never open: what they would have said is kept, and the test's next answer closes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PySide6 import QtGui, QtWidgets

from .pythonqt import problems, unwrap, wrap
from .pythonqt.values import EnumValue


@dataclass(frozen=True)
class Message:
    """One dialog that was to open.

    Attributes:
        kind: "question", "information", "warning", "critical", "message", "file", "input", "menu" or "dialog".
        title: of the window.
        text: what it said; of a menu, its entries, one per line.
        buttons: the names of the standard buttons, such as "Yes".
    """

    kind: str
    title: str
    text: str
    buttons: tuple[str, ...] = ()


@dataclass
class Conversation:
    """What dialogs said, and what they are answered.

    Attributes:
        messages: all dialogs so far, oldest first.
        answers: for the next dialogs, one each: the name of a button ("Yes"); the path for a file dialog, "" to
            cancel; the text for an input dialog; the text of a menu's entry, None to leave it; for any other dialog
            True or False, or a function that gets the dialog and returns one of these.
    """

    messages: list[Message] = field(default_factory=list)
    answers: deque[Any] = field(default_factory=deque)

    def clear(self) -> None:
        """Forgets everything."""
        self.messages.clear()
        self.answers.clear()

    def ask(self, message: Message, fallback: Any, needsAnswer: bool = True) -> Any:
        """Keeps the message and gives the test's answer to it; a question without an answer is a problem."""
        self.messages.append(message)
        if self.answers:
            return self.answers.popleft()
        if needsAnswer:
            problems.add(f"A dialog waits for the user, and the test has no answer for it: {message}")
        return fallback


conversation = Conversation()

_Buttons = QtWidgets.QMessageBox.StandardButton
_REAL_BUTTONS = {
    name: button
    for name, button in _Buttons.__members__.items()
    if name
    not in ("NoButton", "FirstButton", "LastButton", "YesAll", "NoAll", "Default", "Escape", "FlagMask", "ButtonMask")
}


def _namesOf(buttons: Any) -> tuple[str, ...]:
    return tuple(name for name, button in _REAL_BUTTONS.items() if int(buttons.value) & button.value)


def _chosen(answer: Any, offered: tuple[str, ...]) -> Any:
    """The standard button for an answer."""
    if isinstance(answer, bool):
        answer = next((name for name in (("Ok", "Yes") if answer else ("Cancel", "No")) if name in offered), None)
    if isinstance(answer, EnumValue):
        answer = answer.native.name
    if answer not in offered:
        problems.add(f"The test answered {answer!r}, but the dialog offers {offered}")
        answer = offered[-1]
    return _REAL_BUTTONS[answer]


def _cancelling(offered: tuple[str, ...]) -> str:
    return next((name for name in ("Cancel", "No", "Close", "Abort") if name in offered), offered[-1])


def _messageBox(kind: str, title: str, text: str, buttons: Any) -> EnumValue:
    offered = _namesOf(buttons) or ("Ok",)
    answer = conversation.ask(Message(kind, title, text, offered), _cancelling(offered), len(offered) > 1)
    return wrap(_chosen(answer, offered))


def messageBoxStatics() -> dict[str, Any]:
    """``question`` and its siblings for qt.QMessageBox."""

    def static(kind: str) -> Any:
        default = _Buttons.Yes | _Buttons.No if kind == "question" else _Buttons.Ok

        def show(parent: Any, title: str, text: str, buttons: Any = None, defaultButton: Any = None) -> EnumValue:
            return _messageBox(kind, title, text, default if buttons is None else unwrap(buttons))

        return staticmethod(show)

    return {kind: static(kind) for kind in ("question", "information", "warning", "critical")}


def execMessageBox(self: Any) -> Any:
    """``exec`` of a message box: the icon says what kind it is."""
    box = self._native
    kinds = {"Question": "question", "Information": "information", "Warning": "warning", "Critical": "critical"}
    kind = kinds.get(box.icon().name, "message")
    title, text = box.windowTitle(), "\n".join(filter(None, [box.text(), box.informativeText()]))
    # Qt itself adds a button for the detailed text.
    details = [button for button in box.buttons() if button.text() == "Show Details..."]
    own = [known for known in box.buttons() if box.standardButton(known) == _Buttons.NoButton and known not in details]
    if not own:
        return _messageBox(kind, title, text, box.standardButtons())
    offered = tuple(button.text().replace("&", "") for button in box.buttons())
    answer = conversation.ask(Message(kind, title, text, offered), None, len(offered) > 1)
    for index, button in enumerate(box.buttons()):
        if offered[index] == answer:
            button.click()
            return index
    problems.add(f"The test answered {answer!r}, but the dialog offers {offered}")
    return 0


def execDialog(self: Any) -> int:
    """``exec`` of any other dialog."""
    dialog = self._native
    labels = [label.text() for label in dialog.findChildren(QtWidgets.QLabel)]
    answer = conversation.ask(Message("dialog", dialog.windowTitle(), "\n".join(labels)), False)
    result = answer(self) if callable(answer) else answer
    return int(bool(result))


def execMenu(self: Any, *position: Any) -> Any:
    """``exec`` of a menu."""
    entries = [action for action in _actions(self._native) if not action.isSeparator()]
    text = "\n".join(action.text().replace("&", "") for action in entries)
    answer = conversation.ask(Message("menu", self._native.title(), text), None)
    if answer is None:
        return None
    for action in entries:
        if action.text().replace("&", "") == answer:
            if action.isEnabled():
                action.trigger()
                return wrap(action)
            problems.add(f"The test chose the disabled entry {answer!r}")
            return None
    problems.add(f"The test chose {answer!r}, but the menu offers {text!r}")
    return None


def _actions(menu: QtWidgets.QMenu) -> list[QtGui.QAction]:
    found = []
    for action in menu.actions():
        found.extend(_actions(action.menu()) if action.menu() else [action])
    return found


def fileDialogStatics() -> dict[str, Any]:
    """The static functions of qt.QFileDialog: they return a bare string, or a tuple of strings."""

    def single(parent: Any = None, caption: str = "", directory: str = "", filter: str = "", *rest: Any) -> str:
        for value in (caption, directory, filter):
            if not isinstance(value, str):
                raise ValueError(f"QFileDialog takes str, not {value!r}")
        return conversation.ask(Message("file", caption, "\n".join([directory, filter])), "")

    def several(parent: Any = None, caption: str = "", directory: str = "", filter: str = "", *rest: Any) -> tuple:
        return tuple(conversation.ask(Message("file", caption, "\n".join([directory, filter])), ()))

    def folder(parent: Any = None, caption: str = "", directory: str = "", *options: Any) -> str:
        return single(parent, caption, directory)

    return {
        "getOpenFileName": staticmethod(single),
        "getSaveFileName": staticmethod(single),
        "getExistingDirectory": staticmethod(folder),
        "getOpenFileNames": staticmethod(several),
    }


def inputDialogStatics() -> dict[str, Any]:
    """The static functions of qt.QInputDialog: PythonQt gives the bare value, and an empty one if cancelled."""

    def ask(fallback: Any) -> Any:
        def show(parent: Any, title: str, label: str, *rest: Any) -> Any:
            return conversation.ask(Message("input", title, label), fallback)

        return staticmethod(show)

    return {
        "getText": ask(""),
        "getMultiLineText": ask(""),
        "getItem": ask(""),
        "getInt": ask(0),
        "getDouble": ask(0.0),
    }


def both(function: Callable) -> dict[str, Callable]:
    """A blocking call under both of its names."""
    return {"exec": function, "exec_": function}
