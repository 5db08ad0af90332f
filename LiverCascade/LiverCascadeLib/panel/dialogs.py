"""Questions to the user. Tests and headless scripts pass something else."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _


class Dialogs:
    """Slicer's own message boxes and file dialogs. Under ``--testing`` the boxes answer No by themselves."""

    def confirm(self, text: str) -> bool:
        """OK or Cancel."""
        return bool(slicer.util.confirmOkCancelDisplay(text, windowTitle=_("Liver Cascade")))

    def ask(self, text: str) -> bool:
        """Yes or No."""
        return bool(slicer.util.confirmYesNoDisplay(text, windowTitle=_("Liver Cascade")))

    def chooseFolder(self, title: str, settingsKey: str) -> Path | None:
        """A folder, or None where the user changed their mind; the choice is remembered under ``settingsKey``."""
        settings = qt.QSettings()
        start = slicer.util.settingsValue(settingsKey, "")
        chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, start)
        if not chosen:
            return None
        settings.setValue(settingsKey, chosen)
        return Path(chosen)

    def chooseFile(self, title: str, settingsKey: str) -> Path | None:
        """A file, or None where the user changed their mind; its folder is remembered under ``settingsKey``."""
        settings = qt.QSettings()
        start = slicer.util.settingsValue(settingsKey, "")
        chosen = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, start)
        if not chosen:
            return None
        settings.setValue(settingsKey, str(Path(chosen).parent))
        return Path(chosen)
