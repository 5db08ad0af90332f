"""Where the files are that come with the extension. Imported when Slicer starts, so it imports next to nothing."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
# Beside the package in a checkout and in Slicer, inside it in a wheel.
RESOURCES = next((p for p in (_HERE / "Resources", _HERE.parent / "Resources") if p.is_dir()), _HERE)
EMBEDDED_MODELS = RESOURCES / "Models"
