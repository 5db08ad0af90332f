"""Where to compute, as the user chooses it. Imported when Slicer starts, so it imports next to nothing."""

from __future__ import annotations

from enum import Enum

from slicer.i18n import tr as _


class Device(Enum):
    """Where to compute."""

    AUTO = "auto"
    GPU = "gpu"
    CPU = "cpu"

    def label(self) -> str:
        """What the user reads."""
        return {"auto": _("Automatic"), "gpu": _("GPU"), "cpu": _("CPU")}[self.value]
