"""MRML in a process of its own: it works ahead while the networks compute, and may crash without harm.

Loading MRML and compressing the volume do not need the result, so they run beside the networks. Drawing without a
usable OpenGL driver ends a process (a segmentation fault inside VTK on a bare server), which must not take a finished
run down. Parent and child exchange JSON lines; arrays pass as files in a scratch folder.

Messages to the child: ``{"volume": …}``, then ``{"result": …}``. From the child, as ``{"event": …}``: ``ready`` (MRML
is loaded), ``prepared`` (the volume is compressed), ``files`` (both files are written), ``rendering`` (with the
picture's ``shape``, or None and a ``reason``), ``error`` (with ``message`` and ``errno``).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import numpy as np

from ..errors import OutputError
from ..geometry import Box
from ..pixels import write_raw
from ..progress import Progress
from ..report.files import explained
from ..report.overview import Rendering
from ..result import Result
from ..volume import Volume

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
CRASHED = "drawing crashed: no usable OpenGL driver (install libEGL with Mesa, or libOSMesa)"


class SceneProcess:
    """Writes segmentation.seg.nrrd and scene.mrb and draws the 3D view, in a child process.

    Use as a context manager: leaving it ends the child, however the run ended. In order: :meth:`prepare` as soon as
    the volume is there, :meth:`start` with the result, :meth:`finish`.

    Args:
        scratch: the ``scratch`` of an entered :class:`~..report.files.OutputFolder`, for intermediate files.
    """

    def __init__(self, scratch: Path):
        self.scratch = Path(scratch)
        self._child: subprocess.Popen | None = None
        self._log: TextIO | None = None
        self._events: queue.Queue[dict | None] = queue.Queue()
        self._reader: threading.Thread | None = None
        self._handing_over: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> SceneProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, volume: Volume) -> None:
        """Hands over the volume; returns at once. The child is started now, and compresses it for the scene.

        Raises:
            OutputError: the output cannot be written.
            ResourceError: the disk is full.
        """
        with explained(self.scratch.parents[1]):
            if shutil.disk_usage(self.scratch).free < volume.array.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.scratch))
            self._begin()
        self._handing_over = self._pool.submit(self._hand_over, volume)

    def _begin(self) -> None:
        path = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
        self._log = (self.scratch / "scene.log").open("w+")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "LiverCascadeLib.scene", str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _hand_over(self, volume: Volume) -> None:
        write_raw(self.scratch / "volume.raw", volume.array)
        matrix = volume.grid.ijk_to_ras.tolist()
        self._send({"volume": {"name": volume.name, "size": volume.grid.size, "ijk_to_ras": matrix}})

    def start(self, result: Result, folder: Path) -> None:
        """Begins to write the files of ``result`` into ``folder``.

        Raises:
            OutputError: the output cannot be written.
            ResourceError: the disk is full.
        """
        box = Box.around(result.labels)
        with explained(self.scratch.parents[1]):
            self._handing_over.result()
            if box is not None:
                write_raw(self.scratch / "labels.raw", result.labels[box.slices])
            structures = None if result.structures is None else result.structures.write(self.scratch)
        self._send(
            {
                "result": {
                    "folder": str(folder),
                    "box": None if box is None else [box.start, box.stop],
                    "dtype": result.labels.dtype.name,
                    "liver_volume_ml": result.liver_volume_ml,
                    "lesions": [lesion.id for lesion in result.lesions],
                    "structures": structures,
                }
            }
        )

    def finish(self, progress: Progress) -> Rendering:
        """Waits for the files and the picture.

        Raises:
            OutputError: the files could not be written.
            OSError: the disk is full or not writable.
            Cancelled: the user asked for it.
        """
        written = False
        while True:
            progress.update(0.5 if written else 0.1)
            try:
                event = self._events.get(timeout=0.1)
            except queue.Empty:
                continue
            if event is None:
                if written:
                    return Rendering(None, CRASHED)
                raise OutputError(f"The process that writes the scene ended early. {self._lastWords()}")
            if event["event"] == "error":
                raise _error(event)
            written = written or event["event"] == "files"
            if event["event"] == "rendering":
                shape = event["shape"]
                image = np.fromfile(self.scratch / "rendering.raw", np.uint8).reshape(shape) if shape else None
                return Rendering(image, event["reason"])

    def close(self) -> None:
        """Ends the child, whatever it is doing."""
        from ..jobs import kill_tree  # the child itself does without what that imports

        if self._child is None:
            return
        kill_tree(self._child.pid)  # in Slicer, the child is a launcher
        self._child.wait()
        self._pool.shutdown()  # the scratch folder goes next: nobody may still write into it
        self._reader.join()
        for stream in (self._child.stdin, self._child.stdout, self._log):
            with contextlib.suppress(OSError):  # a pipe that still held a message for the child
                stream.close()

    def _send(self, message: dict) -> None:
        # Where the child is gone, finish() tells what it said before, or that it said nothing.
        with contextlib.suppress(OSError):
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()

    def _read(self) -> None:
        for line in self._child.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # a library that prints
                continue
            self._events.put(event)
        self._events.put(None)

    def _lastWords(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else "It left no message."


def _error(event: dict) -> Exception:
    if event.get("errno"):
        return OSError(event["errno"], os.strerror(event["errno"]))
    return OutputError(event["message"])


def describe(error: Exception) -> dict:
    """The ``error`` event for ``error``."""
    if isinstance(error, OSError) and error.errno is not None:
        return {"event": "error", "message": str(error), "errno": error.errno}
    if isinstance(error, MemoryError):
        return {"event": "error", "message": str(error), "errno": errno.ENOMEM}
    if isinstance(error, ImportError):
        message = f"MRML is not installed, so no scene can be written: pip install slicer-core. ({error})"
        return {"event": "error", "message": message, "errno": None}
    return {"event": "error", "message": f"{type(error).__name__}: {error}", "errno": None}
