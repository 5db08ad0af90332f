"""What a worker process and whoever started it say to each other: JSON lines, and a private folder for the voxels.

The worker is ``PYTHON -m LiverCascadeLib.worker`` (:func:`worker_command`). One JSON object per line.

To the worker, on its standard input:

* ``{"command": "run", "id", "folder", "models", "options"}`` segments the volume in a :class:`JobFolder`
* ``{"command": "cancel", "id"}`` ends that run, also in the middle of a stage or before it began
* ``{"command": "quit"}``, or the end of the input, ends the process at once, with the folders it was told of

From the worker, on its standard output; what libraries print goes to standard error:

* ``{"event": "ready", "version", "pid"}`` the process listens; it goes on to import its libraries
* ``{"event": "progress", "id", "stage", "fraction"}`` and ``{"event": "log", "message"}``
* for each run exactly one of ``{"event": "done", "id", …}`` with everything of the result but its voxels,
  ``{"event": "cancelled", "id"}``, ``{"event": "error", "id", "kind", "message", "exit_code"}`` with a kind of
  :data:`ERROR_KINDS`

Voxels pass as raw files in the job folder, because a CT as text would cost more than segmenting it on a GPU.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from .cascade import Options
from .errors import (
    InputError,
    LiverCascadeError,
    MissingPackageError,
    ModelError,
    OutputError,
    ResourceError,
    WorkerCrashed,
)
from .findings import Finding, Severity
from .geometry import Box, Grid
from .pixels import write_raw
from .postprocess import CleanUp
from .result import Lesion, Result, Uncertainty
from .steps import exhausted
from .structures import COUINAUD_RAW, VESSELS_RAW, Structures
from .volume import Volume

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
PREFIX = "livercascade-"
JOB_FILE, VOLUME_FILE, LABELS_FILE, UNCERTAINTY_FILE = "job.json", "volume.raw", "labels.raw", "uncertainty.raw"
_JOB_FILES = (JOB_FILE, VOLUME_FILE, LABELS_FILE, UNCERTAINTY_FILE, COUINAUD_RAW, VESSELS_RAW)
# Set for a worker that Slicer starts: Slicer lowers its own priority, and its children inherit that.
NORMAL_PRIORITY = "LIVERCASCADE_NORMAL_PRIORITY"

ERROR_KINDS: dict[str, type[LiverCascadeError]] = {
    "input": InputError,
    "model": ModelError,
    "resources": ResourceError,
    "output": OutputError,
    "missing-package": MissingPackageError,
    "crash": WorkerCrashed,
}

# Start times of processes are known to a fraction of a second, and move with the clock when that is set.
_SAME_START_S = 60.0
# A folder without a readable note of its owner is left alone this long: somebody may be about to write it.
_UNOWNED_S = 24 * 3600.0


def encode(message: dict[str, Any]) -> bytes:
    """``message`` as one line."""
    return json.dumps(message, default=_plain).encode() + b"\n"


def _plain(value: object) -> object:
    """What JSON does not know: NumPy's numbers and arrays as they are, anything else as text."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


class LineDecoder:
    """Turns pieces of a byte stream into messages; what is no JSON object on a line of its own is skipped.

    Attributes:
        skipped: lines that were no messages, since the last call.
    """

    def __init__(self) -> None:
        self.skipped: list[str] = []
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that ``data`` completes; a line that is not complete yet is kept for the next call."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        messages = []
        self.skipped = []
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict):
                messages.append(message)
            elif line.strip():
                self.skipped.append(line.decode("utf-8", "replace").strip())
        return messages


def crash_message(exit_code: int, last_line: str = "") -> str:
    """What to tell a user about a worker that died.

    Args:
        exit_code: of the process; negative numbers are signals.
        last_line: the last that it wrote to standard error.
    """
    text = f"The process that computes ended unexpectedly (exit code {exit_code})."
    if exit_code in (-9, 137):
        text = "The process that computes was ended by the system, most likely because the memory ran out."
    if last_line:
        text += f" Its last words: {last_line[:300].rstrip('.')}."
    return f"{text} Nothing was changed; the next run starts a new process."


def error_of(event: dict[str, Any]) -> LiverCascadeError:
    """The exception for an ``error`` event."""
    return ERROR_KINDS.get(event.get("kind"), WorkerCrashed)(
        event.get("message") or "The run failed without a reason."
    )


def options_as_dict(options: Options) -> dict[str, Any]:
    """``options`` as plain JSON values."""
    return asdict(options)


def options_from_dict(values: dict[str, Any]) -> Options:
    """The inverse of :func:`options_as_dict`; what is missing takes its default.

    Raises:
        InputError: an unknown option.
    """
    known = {f.name for f in fields(Options)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"Unknown options: {', '.join(unknown)}. Known are: {', '.join(sorted(known))}.")
    try:
        clean_up = CleanUp(**values.get("clean_up", {}))
    except TypeError as error:
        raise InputError(f"The option clean_up is not valid: {error}.") from error
    return Options(**{**values, "clean_up": clean_up})


class JobFolder:
    """The private temporary folder of one run; see :meth:`create`.

    It holds ``job.json`` (who owns it, and everything about the volume but its voxels), ``volume.raw`` (int16
    [k, j, i]) and, when the run is done, ``labels.raw``: the labels inside the box that the ``done`` event names, and
    ``uncertainty.raw``: the entropy inside its own box, where it was asked for; and the files of
    :class:`.structures.Structures`, where there are some.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)

    @classmethod
    def create(cls, volume: Volume) -> JobFolder:
        """Makes the folder of a run on ``volume``, readable by this user only. Somebody must :meth:`remove` it.

        Raises:
            ResourceError: temporary files cannot be written.
        """
        return exhausted(cls.creation_steps(volume))

    @classmethod
    def creation_steps(cls, volume: Volume) -> Generator[None, None, JobFolder]:
        """:meth:`create` in short steps; closing the generator before its end leaves nothing behind."""
        folder = None
        try:
            folder = cls(tempfile.mkdtemp(prefix=PREFIX))
            content = {"owner": _owner(), "volume": _volume_as_dict(volume)}
            (folder.path / JOB_FILE).write_bytes(encode(content))
            with (folder.path / VOLUME_FILE).open("wb") as stream:
                for part in volume.array:
                    stream.write(np.ascontiguousarray(part).data)
                    yield
        except BaseException as error:
            if folder is not None:
                folder.remove()
            if isinstance(error, OSError):
                raise _no_room(error) from error
            raise
        return folder

    def run_message(self, job_id: str, models: Path | str | None, options: Options) -> dict[str, Any]:
        """The message that starts the run ``job_id``.

        Args:
            job_id: a name that no other run of this worker has.
            models: folder with the models; None takes the embedded default.
            options: what the user chose.
        """
        return {
            "command": "run",
            "id": job_id,
            "folder": str(self.path),
            "models": None if models is None else str(Path(models).absolute()),
            "options": options_as_dict(options),
        }

    def read_volume(self) -> Volume:
        """The volume that :meth:`create` wrote.

        Raises:
            InputError: the folder is gone or is not complete.
        """
        try:
            known = json.loads((self.path / JOB_FILE).read_bytes())["volume"]
            grid = Grid(known["size"], known["ijk_to_ras"])
            array = np.fromfile(self.path / VOLUME_FILE, np.int16).reshape(grid.shape)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"The job folder {self.path} cannot be read: {error}. Start the run again.") from error
        findings = tuple(Finding(f["code"], Severity(f["severity"]), f["message"]) for f in known["findings"])
        return Volume(array, grid, known["name"], known["source"], findings)

    def write_result(self, result: Result) -> dict[str, Any]:
        """Writes labels and uncertainty; returns the rest of ``result`` as the fields of a ``done`` event.

        Raises:
            ResourceError: temporary files cannot be written.
        """
        box, doubt = Box.around(result.labels), result.uncertainty
        try:
            if box is not None:
                write_raw(self.path / LABELS_FILE, result.labels[box.slices])
            if doubt is not None:
                write_raw(self.path / UNCERTAINTY_FILE, doubt.entropy)
            structures = None if result.structures is None else result.structures.write(self.path)
        except OSError as error:
            raise _no_room(error) from error
        return {
            "box": _corners(box),
            "dtype": result.labels.dtype.name,
            "liver_volume_ml": result.liver_volume_ml,
            "lesions": [_lesion_as_dict(lesion) for lesion in result.lesions],
            "findings": [finding.as_dict() for finding in result.findings],
            "timings": result.timings,
            "provenance": result.provenance,
            "confidences": result.confidences,
            "evidence": result.evidence,
            "uncertainty_box": None if doubt is None else _corners(doubt.box),
            "structures": structures,
        }

    def read_result(self, event: dict[str, Any], volume: Volume) -> Result:
        """The result that a ``done`` event tells of.

        Args:
            event: as it came from the worker.
            volume: the volume that was given to :meth:`create`.

        Raises:
            WorkerCrashed: the labels, or the uncertainty, are not there.
        """
        box, doubtful = _box(event["box"]), _box(event["uncertainty_box"])
        labels, uncertainty, structures = np.zeros(volume.grid.shape, event["dtype"]), None, None
        try:
            if box is not None:
                labels[box.slices] = self._voxels(LABELS_FILE, event["dtype"], box)
            if doubtful is not None:
                uncertainty = Uncertainty(self._voxels(UNCERTAINTY_FILE, np.uint8, doubtful), doubtful)
            if event.get("structures") is not None:
                structures = Structures.read(self.path, event["structures"])
        except (OSError, ValueError) as error:
            raise WorkerCrashed(f"The labels of the run are lost: {error}. Start it again.") from error
        return Result(
            volume=volume,
            labels=labels,
            lesions=tuple(_lesion(values) for values in event["lesions"]),
            liver_volume_ml=event["liver_volume_ml"],
            findings=tuple(Finding(f["code"], Severity(f["severity"]), f["message"]) for f in event["findings"]),
            timings=dict(event["timings"]),
            provenance=event["provenance"],
            # JSON's keys are texts.
            confidences={int(number): score for number, score in event["confidences"].items()},
            evidence={int(number): values for number, values in event["evidence"].items()},
            uncertainty=uncertainty,
            structures=structures,
        )

    def _voxels(self, name: str, dtype: str | type, box: Box) -> np.ndarray:
        """The values of a raw file, in the shape of ``box``."""
        return np.fromfile(self.path / name, dtype).reshape(box.size[::-1])

    def remove(self) -> None:
        """Removes the folder; may be called twice, and never raises.

        Only files of a job are removed, so that a wrong path can do no harm.
        """
        for _ in range(3):  # a worker that is being ended may still add a file
            for name in _JOB_FILES:
                with suppress(OSError):
                    (self.path / name).unlink()
            with suppress(OSError):
                self.path.rmdir()
            if not self.path.exists():
                return
            time.sleep(0.05)


def _no_room(error: OSError) -> ResourceError:
    where = tempfile.gettempdir()
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return ResourceError(f"The disk of the temporary folder {where} is full. Free some space and try again.")
    reason = error.strerror or str(error)
    return ResourceError(f"No temporary files can be written in {where}: {reason}. Set TMPDIR to another folder.")


def _volume_as_dict(volume: Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "size": volume.grid.size,
        "ijk_to_ras": volume.grid.ijk_to_ras.tolist(),
        "source": volume.source,
        "findings": [finding.as_dict() for finding in volume.findings],
    }


def _corners(box: Box | None) -> list[list[int]] | None:
    return None if box is None else [list(box.start), list(box.stop)]


def _box(corners: list[list[int]] | None) -> Box | None:
    return None if corners is None else Box(*(tuple(corner) for corner in corners))


def _lesion_as_dict(lesion: Lesion) -> dict[str, Any]:
    return {**asdict(lesion), "box": _corners(lesion.box)}


def _lesion(values: dict[str, Any]) -> Lesion:
    return Lesion(**{**values, "centroid_ras": tuple(values["centroid_ras"]), "box": _box(values["box"])})


def worker_command(python: str | None = None) -> tuple[str, list[str], dict[str, str]]:
    """How to start a worker: program, arguments, and what to add to its environment.

    Args:
        python: the interpreter; None takes Slicer's own inside Slicer and this process's elsewhere.
    """
    path = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    # A safe path keeps a file 'random.py' in somebody's working directory from being imported.
    environment = {"PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}
    if python is None and _inside_slicer():
        environment[NORMAL_PRIORITY] = "1"
    return python or _interpreter(), ["-m", "LiverCascadeLib.worker"], environment


def _inside_slicer() -> bool:
    """True in the application, whose ``sys.executable`` names another program than the one that runs."""
    return not _is_python(sys.executable)


def _is_python(executable: str) -> bool:
    name = Path(executable or "").stem.lower()
    return name.startswith("python") and name != "pythonslicer"


def _interpreter() -> str:
    """PythonSlicer where this runs in Slicer, be it the application or its interpreter; otherwise this interpreter."""
    here = Path(sys.executable or sys.exec_prefix).absolute()
    if here.stem == "PythonSlicer":
        return str(here)
    prefix = Path(sys.exec_prefix)
    # Beside python-real, beside the application, in a build tree, in an installed Slicer (its Python is lib/Python).
    folders = [here.parent, here.parent / "bin", prefix / "bin", *(folder / "bin" for folder in prefix.parents[1:2])]
    for folder in folders:
        for name in ("PythonSlicer", "PythonSlicer.exe"):
            if (folder / name).is_file():
                return str(folder / name)
    if _is_python(sys.executable):
        return sys.executable
    return shutil.which("PythonSlicer") or sys.executable or "python"


def kill_tree(*pids: int) -> None:
    """Ends processes and all their children, at once; those that are gone already are passed over.

    Killing a launcher such as PythonSlicer alone would leave the interpreter alive that it started.
    """
    try:
        import psutil
    except ImportError:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        return
    doomed = []
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            doomed.append(process)
            doomed += process.children(recursive=True)
    for process in doomed:
        with suppress(psutil.Error):
            process.kill()


def _owner() -> dict[str, Any]:
    return {"pid": os.getpid(), "started": _started(os.getpid()), "host": platform.node()}


def _started(pid: int) -> float | None:
    """When a process began, in seconds; None where it does not run or psutil is missing."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def remove_stale_folders() -> list[Path]:
    """Removes job folders of processes that died without doing it; returns what was removed.

    Folders of running processes, of other computers and of other users stay, and so does what only has such a name.
    """
    removed = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            ours = path.is_dir() and not path.is_symlink() and set(os.listdir(path)) <= set(_JOB_FILES)
            if ours and _is_stale(path):
                JobFolder(path).remove()
                if not path.exists():
                    removed.append(path)
    return removed


def _is_stale(path: Path) -> bool:
    try:
        import psutil
    except ImportError:
        return False  # nobody can be asked who is alive
    try:
        owner = json.loads((path / JOB_FILE).read_bytes())["owner"]
        pid, started, host = int(owner["pid"]), owner["started"], owner["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return time.time() - path.stat().st_mtime > _UNOWNED_S
    if host != platform.node():
        return False
    if not psutil.pid_exists(pid):
        return True
    now = _started(pid)
    # The number may have been given to another process since.
    return started is not None and now is not None and abs(now - started) > _SAME_START_S
