"""Writes a result as files, all of them or none.

Everything is made in a hidden staging folder on the file system of the output, and moved at the end. MRML is not
touched here: whoever has it passes a :class:`SceneWriter`, such as ``scene.SceneProcess``.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import LiverCascadeError, OutputError, ResourceError
from ..geometry import Grid
from ..progress import Progress
from ..result import Lesion, Result
from ..volume import write_labels
from .overview import Rendering, compose, draw_slices, ras_bounds

LABELS_FILE, LESIONS_FILE, RESULT_FILE, OVERVIEW_FILE = (
    "labels.nii.gz",
    "lesions.csv",
    "result.json",
    "overview.png",
)
RESULT_FORMAT = "LiverCascade result"
RESULT_FORMAT_VERSION = 1
RESEARCH_USE = "Research use only. Not for diagnosis or treatment."

LESION_COLUMNS = (
    "case",
    "id",
    "volume_ml",
    *(f"centroid_{axis}_mm" for axis in "ras"),
    *(f"box_{axis}_{end}" for axis in "ijk" for end in ("first", "last")),
    *(f"box_{axis}_{end}_mm" for axis in "ras" for end in ("min", "max")),
)


class SceneWriter(Protocol):
    """Who writes segmentation.seg.nrrd and scene.mrb and draws the 3D view."""

    def start(self, result: Result, folder: Path) -> None:
        """Begins to write the files into ``folder``, if possible without waiting for them."""

    def finish(self, progress: Progress) -> Rendering:
        """Waits for the files; returns the 3D view. Calls ``progress.update`` meanwhile."""


class OutputFolder:
    """The folder for a run's results, which stays as it is until :meth:`commit`.

    Use as a context manager around the whole run: entering finds out at once whether the folder can be written, and
    leaving removes whatever was not committed, parent folders made on the way included.

    Attributes:
        path: where the results will be.
        staging: a hidden folder on the same file system in which they are made.
        scratch: a folder inside it for intermediate files, which are never committed.

    Raises:
        OutputError: the path is a file, or cannot be written.
        ResourceError: the disk is full.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path).absolute()
        self._made: list[Path] = []
        # Inside an existing folder, which may be a mount of its own; beside one that does not exist yet.
        parent = self.path if self.path.is_dir() else self.path.parent
        self.staging = parent / f".{self.path.name}-{uuid.uuid4().hex[:8]}.partial"
        self.scratch = self.staging / "scratch"

    def __enter__(self) -> OutputFolder:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"The output {self.path} is a file. Choose a folder.")
        try:
            with explained(self.path):
                for folder in [*reversed(self.staging.parents), self.staging, self.scratch]:
                    if not folder.is_dir():
                        folder.mkdir()
                        self._made.append(folder)
        except LiverCascadeError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        for folder in reversed(self._made):
            with suppress(OSError):  # gone, or holds results by now
                folder.rmdir()

    def commit(self) -> None:
        """Moves the files into place; those of an earlier run are replaced, others in the folder are kept.

        Raises:
            OutputError: a folder is in the way of a file, or the output cannot be written any more.
        """
        shutil.rmtree(self.scratch, ignore_errors=True)
        # The record comes last: where it is new, everything else is.
        names = sorted((entry.name for entry in self.staging.iterdir()), key=lambda name: (name == RESULT_FILE, name))
        for name in names:
            if (self.path / name).is_dir():
                raise OutputError(f"A folder is in the way: {self.path / name}. Remove it or choose another output.")
        with explained(self.path):
            if not self.path.exists():
                self.staging.rename(self.path)
                return
            for name in names:
                os.replace(self.staging / name, self.path / name)


@contextmanager
def explained(path: Path):
    """Turns the errors of writing into sentences for the user.

    Raises:
        ResourceError: the disk or the memory is full.
        OutputError: anything else that keeps ``path`` from being written.
    """
    try:
        yield
    except LiverCascadeError:
        raise
    except MemoryError as error:
        raise ResourceError("The memory ran out while the results were written. Nothing was kept.") from error
    except (OSError, RuntimeError) as error:
        code = getattr(error, "errno", None)
        if code == errno.ENOMEM:
            raise ResourceError("The memory ran out while the results were written. Nothing was kept.") from error
        if code in (errno.ENOSPC, errno.EDQUOT) or _is_full(path):
            raise ResourceError(
                f"The disk of {path} is full. Free some space or choose another output folder. Nothing was kept."
            ) from error
        reason = (
            os.strerror(code) if code else str(error).strip().splitlines()[-1] if str(error).strip() else "no reason"
        )
        raise OutputError(f"The results cannot be written to {path}: {reason}.") from error


def _is_full(path: Path) -> bool:
    """Whether libraries that do not say why they failed may have met a full disk."""
    for folder in (path, *path.parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free < 1 << 16
    return False


def write_results(
    result: Result, output: OutputFolder, progress: Progress, scene_writer: SceneWriter | None = None
) -> None:
    """Writes all files of ``result`` and commits them: labels.nii.gz, lesions.csv, overview.png and result.json.

    Args:
        output: an entered :class:`OutputFolder`.
        progress: gets the stage ``write``; cancellation leaves the output folder as it was.
        scene_writer: adds segmentation.seg.nrrd, scene.mrb and the 3D view; works beside this function if it can.

    Raises:
        OutputError: something cannot be written.
        ResourceError: the disk or the memory is full.
        Cancelled: the user asked for it.
    """
    progress.stage("write")
    started = time.perf_counter()
    folder = output.staging
    with explained(output.path):
        if scene_writer is not None:
            scene_writer.start(result, folder)
        write_labels(folder / LABELS_FILE, result.labels, result.volume.grid)
        progress.update(0.2)
        write_lesions(folder / LESIONS_FILE, result)
        slices = draw_slices(result)
        progress.update(0.4)
        rendering = Rendering(None, "written without a scene")
        if scene_writer is not None:
            rendering = scene_writer.finish(progress)
        compose(result, slices, rendering).save(folder / OVERVIEW_FILE, compress_level=4)
        progress.update(0.9)
        write_record(folder / RESULT_FILE, result, {"write": time.perf_counter() - started})
        progress.update(1.0)
        if _is_full(output.path):  # some writers below do not tell that their last bytes were lost
            raise OSError(errno.ENOSPC, "No space left on device")
    output.commit()
    progress.finish()


def write_lesions(path: Path, result: Result) -> None:
    """Writes one line per lesion; boxes by their first and last voxel, and by their outer edges in RAS mm."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(LESION_COLUMNS)
        for lesion in result.lesions:
            low, high = ras_bounds(result.volume.grid, lesion.box)
            voxels = [n for a, b in zip(lesion.box.start, lesion.box.stop, strict=True) for n in (a, b - 1)]
            edges = [f"{n:.2f}" for ends in zip(low, high, strict=True) for n in ends]
            centroid = [f"{n:.2f}" for n in lesion.centroid_ras]
            writer.writerow(
                [safe_cell(result.volume.name), lesion.id, f"{lesion.volume_ml:.4f}", *centroid, *voxels, *edges]
            )


def safe_cell(text: str) -> str:
    """``text`` as a cell that no spreadsheet takes for a formula: one line, never beginning with =, +, - or @."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def write_record(path: Path, result: Result, more_timings: dict[str, float] | None = None) -> None:
    """Writes result.json: what was found, with provenance, findings and seconds per stage."""
    path.write_text(json.dumps(record(result, more_timings), indent=2, default=_plain) + "\n", encoding="utf-8")


def record(result: Result, more_timings: dict[str, float] | None = None) -> dict[str, object]:
    """The content of result.json."""
    grid = result.volume.grid
    return {
        "format": RESULT_FORMAT,
        "format_version": RESULT_FORMAT_VERSION,
        "notice": RESEARCH_USE,
        "summary": result.summary,
        "input": {
            "name": result.volume.name,
            "source": result.volume.source,
            "size_ijk": grid.size,
            "spacing_mm": [round(float(s), 6) for s in grid.spacing],
            "ijk_to_ras": grid.ijk_to_ras.tolist(),
        },
        "liver": {"volume_ml": round(result.liver_volume_ml, 4), "label": 1, "includes_lesions": True},
        "lesions": [_lesion_record(lesion, grid) for lesion in result.lesions],
        "findings": [finding.as_dict() for finding in result.findings],
        "timings_s": {stage: round(s, 3) for stage, s in {**result.timings, **(more_timings or {})}.items()},
        "provenance": result.provenance,
    }


def _lesion_record(lesion: Lesion, grid: Grid) -> dict[str, object]:
    low, high = ras_bounds(grid, lesion.box)
    return {
        "id": lesion.id,
        "label": lesion.label,
        "voxel_count": lesion.voxel_count,
        "volume_ml": round(lesion.volume_ml, 4),
        "centroid_ras_mm": [round(float(n), 3) for n in lesion.centroid_ras],
        "box_ijk": {"first": lesion.box.start, "last": [n - 1 for n in lesion.box.stop]},
        "box_ras_mm": {"min": low.round(3).tolist(), "max": high.round(3).tolist()},
    }


def _plain(value: object) -> object:
    """What JSON does not know: NumPy's numbers and arrays as they are, anything else by its name."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
