"""What the panel works with; a test passes its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from .dialogs import Dialogs
from .editor import EditorDoor
from .installer import Installer
from .run import Worker
from .worker_process import WorkerProcess


@dataclass
class Services:
    """The panel's collaborators.

    Attributes:
        installer: knows which packages are missing.
        dialogs: asks the user.
        worker: computes.
        editor: leads to the Segment Editor.
    """

    installer: Installer
    dialogs: Dialogs = field(default_factory=Dialogs)
    worker: Worker = field(default_factory=WorkerProcess)
    editor: EditorDoor = field(default_factory=EditorDoor)


def defaultInstaller(torchRange: str) -> Installer:
    """The real installer, which asks with Slicer's own dialogs."""
    return Installer(torchRange, Dialogs())


def defaultServices(torchRange: str) -> Services:
    """The real ones."""
    return Services(defaultInstaller(torchRange))
