"""What training needs beyond what segmenting needs."""

from __future__ import annotations

from LiverCascadeLib.panel.dialogs import Dialogs
from LiverCascadeLib.panel.installer import Installer

from .workplace import MODULE_FOLDER

REQUIREMENTS = MODULE_FOLDER / "Resources" / "requirements.txt"
TORCH_RANGE = ">=2.8"


class TrainingInstaller(Installer):
    """The main panel's installer with more packages; PyTorch comes from the PyTorch extension here, too."""

    def requirements(self) -> list[str]:
        """PyTorch, what the main panel needs, and what training needs."""
        lines = (line.strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
        return [*super().requirements(), *(line for line in lines if line and not line.startswith("#"))]


def defaultInstaller() -> TrainingInstaller:
    """The real one, which asks with Slicer's own dialogs."""
    return TrainingInstaller(TORCH_RANGE, Dialogs())
