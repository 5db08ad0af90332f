"""Segments every study under a folder, in Slicer without a window, in PythonSlicer, or in plain Python::

    Slicer --no-splash --no-main-window --python-script segment_folder.py -- --input FOLDER --output FOLDER
    PythonSlicer segment_folder.py --input FOLDER --output FOLDER
    python segment_folder.py --input FOLDER --output FOLDER

``--help`` lists the options; the exit code says how it went.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Does what ``livercascade batch`` does with ``arguments``; returns the exit code."""
    folder = str(Path(__file__).resolve().parents[1])
    if folder not in sys.path:
        sys.path.insert(0, folder)
    from LiverCascadeLib.cli import main as livercascade

    # Slicer may hand over the two dashes that separate its own arguments from the script's.
    return livercascade(["batch", *(arguments[1:] if arguments[:1] == ["--"] else arguments)])


if __name__ == "__main__":
    # Slicer stays open without an exit of its own.
    sys.exit(main(sys.argv[1:]))
