"""``livercascade-train`` in Slicer without a window, in PythonSlicer, or in plain Python::

    Slicer --no-splash --no-main-window --python-script train.py -- check DATA -o report
    PythonSlicer train.py locate lits-locate.yaml --run runs --cache cache --split split.json

``--help`` lists the commands; the exit code says how it went. Several GPUs need PythonSlicer or plain Python: each
further process is a copy of the program that was started.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Does what ``livercascade-train`` does with ``arguments``; returns the exit code."""
    module = Path(__file__).resolve().parents[1]
    # One and the same folder once installed; beside each other in a checkout.
    for folder in (module, module.parent / "LiverCascade"):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    from LiverCascadeLib.jobs import worker_command
    from LiverCascadeTrainingLib.cli import main as train

    # In the application sys.executable is Slicer itself: helpers that make samples must not open a second one.
    multiprocessing.set_executable(worker_command()[0])
    # Slicer may hand over the two dashes that separate its own arguments from the script's.
    return train(arguments[1:] if arguments[:1] == ["--"] else arguments)


if __name__ == "__main__":
    # Slicer stays open without an exit of its own.
    sys.exit(main(sys.argv[1:]))
