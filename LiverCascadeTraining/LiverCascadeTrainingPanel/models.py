"""Hands trained models to the main panel."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from LiverCascadeLib.panel.options_view import FOLDERS_KEY, ModelChoice


def useInLiverCascade(folder: Path) -> str:
    """Adds ``folder`` to the main panel's list of models and chooses it there.

    Returns:
        the title of the models.

    Raises:
        ModelError: there is no pair of valid models in ``folder``.
    """
    folder = folder.absolute()
    choice = ModelChoice.load(folder)
    known = [line for line in str(slicer.util.settingsValue(FOLDERS_KEY, "")).split("\n") if line]
    if str(folder) not in known:
        qt.QSettings().setValue(FOLDERS_KEY, "\n".join([*known, str(folder)]))
    if hasattr(slicer.modules, "livercascade"):
        # An open panel has read its list already; it takes in what its parameters name.
        slicer.util.getModuleLogic("LiverCascade").getParameterNode().modelFolder = str(folder)
    return choice.title
