"""Writes a result as files, all of them or none.

Everything is made in a hidden staging folder on the file system of the output, and moved at the end. MRML is not
touched here: whoever has it passes a :class:`SceneWriter`, such as ``scene.SceneProcess``.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import LiverCascadeError, OutputError, ResourceError
from ..geometry import Box, Grid
from ..lesions.assess import assess_result
from ..lesions.assessment import AssessedLesion, Assessment, Axis, Value
from ..lesions.couinaud import BY_VALUE
from ..lesions.measurements import MEASUREMENTS, is_known
from ..progress import Progress
from ..result import Result
from ..volume import write_labels
from .overview import Rendering, compose, draw_slices, ras_bounds

LABELS_FILE, LESIONS_FILE, RESULT_FILE, OVERVIEW_FILE = (
    "labels.nii.gz",
    "lesions.csv",
    "result.json",
    "overview.png",
)
RESULT_FORMAT = "LiverCascade result"
RESULT_FORMAT_VERSION = 2
RESEARCH_USE = "Research use only. Not for diagnosis or treatment."

COUINAUD_FILE, UNCERTAINTY_FILE, VESSELS_FILE = "couinaud.nii.gz", "uncertainty.nii.gz", "vessels.nii.gz"

_ENDS = tuple((axis, end) for axis in ("long_axis", "short_axis") for end in ("start", "end"))
LESION_COLUMNS = (
    "case",
    "id",
    *(measurement.key for measurement in MEASUREMENTS),
    *(f"{axis}_{end}_{letter}_mm" for axis, end in _ENDS for letter in "ras"),
    "couinaud",
    *(f"box_{axis}_{end}" for axis in "ijk" for end in ("first", "last")),
    *(f"box_{axis}_{end}_mm" for axis in "ras" for end in ("min", "max")),
    "tracking_uid",
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
    result: Result,
    output: OutputFolder,
    progress: Progress,
    scene_writer: SceneWriter | None = None,
    assess: Callable[[Result], Assessment] = assess_result,
    more: Callable[[Assessment, OutputFolder], None] | None = None,
) -> None:
    """Writes all files of ``result`` and commits them: labels.nii.gz, lesions.csv, overview.png and result.json.

    Where the assessment knows the liver's segments, couinaud.nii.gz is written too, uncertainty.nii.gz where the run
    was asked for it, and vessels.nii.gz where a model drew them.

    Args:
        output: an entered :class:`OutputFolder`.
        progress: gets the stage ``write``; cancellation leaves the output folder as it was.
        scene_writer: adds segmentation.seg.nrrd, scene.mrb and the 3D view; works beside this function if it can.
        assess: measures the result, beside the scene writer if that can work by itself.
        more: writes further files into the staging folder.

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
        assessment = assess(result)
        write_lesions(folder / LESIONS_FILE, assessment)
        write_couinaud(folder, assessment)
        if result.uncertainty is not None:
            grid = result.volume.grid
            write_labels(folder / UNCERTAINTY_FILE, result.uncertainty.on(grid), grid)
        if result.structures is not None and result.structures.vessels is not None:
            grid, structures = result.volume.grid, result.structures
            write_labels(folder / VESSELS_FILE, structures.on(structures.vessels, grid), grid)
        slices = draw_slices(result)
        progress.update(0.4)
        if more is not None:
            more(assessment, output)
        progress.update(0.6)
        rendering = Rendering(None, "written without a scene")
        if scene_writer is not None:
            rendering = scene_writer.finish(progress)
        compose(result, slices, rendering).save(folder / OVERVIEW_FILE, compress_level=4)
        progress.update(0.9)
        timings = {**result.timings, "write": time.perf_counter() - started}
        write_record(folder / RESULT_FILE, assessment, timings)
        progress.update(1.0)
        if _is_full(output.path):  # some writers below do not tell that their last bytes were lost
            raise OSError(errno.ENOSPC, "No space left on device")
    output.commit()
    progress.finish()


def write_couinaud(folder: Path, assessment: Assessment) -> None:
    """Writes couinaud.nii.gz where the liver's segments are known; values as in :mod:`..lesions.couinaud`."""
    if assessment.couinaud is not None:
        write_labels(folder / COUINAUD_FILE, assessment.couinaud.labels, assessment.volume.grid)


def write_lesions(path: Path, assessment: Assessment) -> None:
    """Writes one line per lesion; boxes by their first and last voxel, and by their outer edges in RAS mm."""
    name, grid = safe_cell(assessment.volume.name), assessment.volume.grid
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(LESION_COLUMNS)
        for lesion in assessment.lesions:
            axes = (lesion.long_axis, lesion.short_axis)
            cells = lesion_cells(lesion.values, axes, lesion.couinaud_text, grid, lesion.box, lesion.tracking_uid)
            writer.writerow([name, lesion.label - 1, *cells])


def lesion_cells(
    values: Mapping[str, Value],
    axes: Sequence[Axis | None],
    couinaud: str,
    grid: Grid | None,
    box: Box | None,
    tracking_uid: str,
) -> list[str]:
    """The cells of :data:`LESION_COLUMNS` after the first two; empty where something is not known.

    Args:
        values: by the keys of the measurements.
        axes: the long and the short one.
        couinaud: names of segments.
        grid: that ``box`` counts voxels of.
    """
    ends = [point for axis in axes for point in ((axis.start, axis.end) if axis else (None, None))]
    cells = [_cell(values[measurement.key]) for measurement in MEASUREMENTS]
    cells += [_cell(number) for point in ends for number in point or (None,) * 3]
    cells.append(safe_cell(couinaud))
    if grid is None or box is None:
        cells += [""] * 12
    else:
        cells += [str(n) for a, b in zip(box.start, box.stop, strict=True) for n in (a, b - 1)]
        cells += [f"{n:.2f}" for both in zip(*ras_bounds(grid, box), strict=True) for n in both]
    return [*cells, safe_cell(tracking_uid)]


def _cell(value: Value) -> str:
    """A value as a cell: numbers with up to four decimals and a point, flags as yes and no."""
    if not is_known(value):
        return ""
    if isinstance(value, str):
        return safe_cell(value)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


# The wide forms are those of East Asian keyboards; spreadsheets take them for the narrow ones.
_FORMULA_STARTS = tuple("=+-@＝＋－＠")


def safe_cell(text: str) -> str:
    """``text`` as a cell that no spreadsheet takes for a formula: one line, never beginning with =, +, - or @."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def write_record(path: Path, assessment: Assessment, timings: Mapping[str, float] | None = None) -> None:
    """Writes result.json: what was found, with provenance, findings and seconds per stage."""
    content = json.dumps(record_of(assessment, timings), indent=2, default=str, allow_nan=False)
    path.write_text(content + "\n", encoding="utf-8")


def record_of(assessment: Assessment, timings: Mapping[str, float] | None = None) -> dict[str, object]:
    """The content of result.json. What is not known is null.

    Args:
        timings: seconds per stage.
    """
    grid, couinaud = assessment.volume.grid, assessment.couinaud
    content = {
        "format": RESULT_FORMAT,
        "format_version": RESULT_FORMAT_VERSION,
        "notice": RESEARCH_USE,
        "summary": assessment.summary,
        "input": {
            "name": assessment.volume.name,
            "source": assessment.volume.source,
            "size_ijk": grid.size,
            "spacing_mm": [round(float(s), 6) for s in grid.spacing],
            "ijk_to_ras": grid.ijk_to_ras.tolist(),
        },
        "liver": {"label": 1, "includes_lesions": True, **_known(assessment.liver)},
        "lesions": [_lesion_record(lesion, grid) for lesion in assessment.lesions],
        "rejected": assessment.rejected,
        "couinaud": None,
        "findings": [finding.as_dict() for finding in assessment.findings],
        "timings_s": {stage: round(float(s), 3) for stage, s in (timings or {}).items()},
        "provenance": assessment.provenance,
    }
    if couinaud is not None:
        content["couinaud"] = {
            "file": COUINAUD_FILE,
            "provider": couinaud.provider,
            "method": couinaud.method,
            "limitations": list(couinaud.limitations),
            "volume_ml": _by_name(assessment.couinaud_ml),
            "lesion_ml": _by_name(assessment.couinaud_lesion_ml),
        }
    return _without_nan(content)


def _by_name(volumes: Mapping[int, float]) -> dict[str, float]:
    return {BY_VALUE[value].name: round(ml, 4) for value, ml in volumes.items()}


def _known(values: Mapping[str, Value]) -> dict[str, Value]:
    return {
        key: None if not is_known(value) else round(value, 4) if isinstance(value, float) else value
        for key, value in values.items()
    }


def _lesion_record(lesion: AssessedLesion, grid: Grid) -> dict[str, object]:
    low, high = ras_bounds(grid, lesion.box)
    return {
        "id": lesion.label - 1,
        "label": lesion.label,
        "name": lesion.name,
        "tracking_uid": lesion.tracking_uid,
        "review": lesion.review,
        "comment": lesion.comment,
        **_known(lesion.values),
        "long_axis_ras_mm": _axis_record(lesion.long_axis),
        "short_axis_ras_mm": _axis_record(lesion.short_axis),
        "couinaud": [{"segment": share.name, "share": round(share.fraction, 4)} for share in lesion.couinaud],
        "box_ijk": {"first": lesion.box.start, "last": [n - 1 for n in lesion.box.stop]},
        "box_ras_mm": {"min": low.round(3).tolist(), "max": high.round(3).tolist()},
    }


def _axis_record(axis: Axis | None) -> dict[str, list[float]] | None:
    if axis is None:
        return None
    return {"start": [round(n, 3) for n in axis.start], "end": [round(n, 3) for n in axis.end]}


def _without_nan(value: object) -> object:
    """The same with null in place of what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return _without_nan(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
