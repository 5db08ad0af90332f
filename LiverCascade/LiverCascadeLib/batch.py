"""Every study under a folder: one result folder each, and a table that is right at every moment."""

from __future__ import annotations

import csv
import io
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from .cascade import Options
from .dicom_headers import count_of
from .errors import (
    EXIT_BAD_INPUT,
    EXIT_CANCELLED,
    EXIT_DONE,
    EXIT_OUT_OF_RESOURCES,
    Cancelled,
    InputError,
    LiverCascadeError,
    MissingPackageError,
)
from .jobs import remove_stale_folders
from .loading import check_models
from .models.cascade_file import read_cascade
from .progress import Progress
from .report.files import explained, safe_cell
from .resources import EMBEDDED_MODELS
from .result import Result
from .studies import Study, find_studies, record_in
from .study import Wishes, segment_study
from .volume import Volume
from .worker_client import WorkerClient

STATUS_FILE = "status.csv"
DONE, FAILED, MISSING = "done", "failed", "missing"
_SHOWN_LEFT_OUT = 5


@dataclass(frozen=True)
class Row:
    """One line of status.csv.

    Attributes:
        name: of the study, and of its result folder.
        input: where the study lies.
        status: 'done'; 'failed', with the reason as ``message``; 'missing': not done yet.
        seconds: that it took, from reading to writing.
        liver_ml, lesions: of the result.
        findings: their codes.
        message: the result's summary, or why it failed.
    """

    name: str
    input: str
    status: str = MISSING
    seconds: str = ""
    liver_ml: str = ""
    lesions: str = ""
    findings: str = ""
    message: str = ""


COLUMNS = tuple(f.name for f in fields(Row))


class StatusTable:
    """status.csv: read when a batch begins, and replaced as a whole after each study.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: dict[str, Row] = {row.name: row for row in _read_rows(path)}

    def get(self, name: str) -> Row | None:
        """The row of a study."""
        return self.rows.get(safe_cell(name))

    def put(self, *rows: Row) -> None:
        """Changes or adds rows, and writes the file.

        Raises:
            OutputError, ResourceError: it cannot be written.
        """
        self.rows.update((safe_cell(row.name), row) for row in rows)
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name in sorted(self.rows, key=str.casefold):
            writer.writerow([safe_cell(str(getattr(self.rows[name], column))) for column in COLUMNS])
        draft = self.path.with_name(f".{self.path.name}.partial")
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                draft.write_text(stream.getvalue(), encoding="utf-8")
                os.replace(draft, self.path)
            finally:
                draft.unlink(missing_ok=True)


def _read_rows(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error):
        return []
    return [Row(**{column: line.get(column) or "" for column in COLUMNS}) for line in lines if line.get("name")]


def _done_row(study: Study, seconds: str, known: dict) -> Row:
    """The row of a study whose results are there, from their record."""
    return Row(
        study.name,
        str(study.path),
        DONE,
        seconds or f"{sum(known['timings_s'].values()):.1f}",
        f"{known['liver']['volume_ml']:.1f}",
        str(len(known["lesions"])),
        " ".join(finding["code"] for finding in known["findings"]),
        str(known["summary"]),
    )


@dataclass
class BatchSettings:
    """How a batch is run.

    Attributes:
        options: for each run.
        models: folder with the models; None takes the embedded default.
        jobs: studies at the same time, each with a worker of its own.
        threads: CPU threads of all workers together; None takes all cores.
        overwrite: do everything again, not only what is missing or failed.
        quiet: tell errors only.
        python: interpreter of the workers; None chooses.
        wishes: what is wanted beside the usual files, for each study.
    """

    options: Options = field(default_factory=Options)
    models: Path | None = None
    jobs: int = 1
    threads: int | None = None
    overwrite: bool = False
    quiet: bool = False
    python: str | None = None
    wishes: Wishes = field(default_factory=Wishes)


def run_batch(
    input: Path | str,
    output: Path | str,
    settings: BatchSettings | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
    stream: TextIO | None = None,
) -> int:
    """Segments every study under ``input`` into ``output``/NAME, and keeps ``output``/status.csv.

    A study that fails does not stop the others. What is already done is not done again.

    Args:
        input: folder to search, see :func:`find_studies`.
        output: folder for the results; it may be the same or lie inside ``input``.
        settings: how; None takes the defaults.
        is_cancelled: asked all the time; true ends the batch, and what was not finished stays missing.
        stream: where progress is told; None takes standard error.

    Returns:
        the exit code: 0 all is done, 2 at least one study failed, 3 cancelled, 4 at least one study failed because
        memory, disk, GPU or a package was lacking.

    Raises:
        InputError: the input is not there, or holds no CT.
        ModelError: the models cannot be used.
        OutputError, ResourceError: the output cannot be written.
    """
    settings = settings or BatchSettings()
    output = Path(output).expanduser().absolute()
    # A wrong model would fail every study.
    check_models(read_cascade(EMBEDDED_MODELS if settings.models is None else Path(settings.models)))
    remove_stale_folders()
    left_out: list[Path] = []
    studies = find_studies(input, left_out)
    studies = [study for study in studies if not _lies_in_results(study.path, Path(input), output)]
    if not studies:
        hint = f" {count_of(len(left_out), 'label map')} left out, such as {left_out[0].name}." if left_out else ""
        raise InputError(f"There is no CT under {input}: neither volume files nor DICOM folders.{hint}")
    batch = _Batch(studies, output, settings, is_cancelled, Reporter(stream or sys.stderr, settings.quiet))
    batch.reporter.left_out(left_out)
    return batch.run()


def _lies_in_results(path: Path, input: Path, output: Path) -> bool:
    """True for what lies in an output folder inside the input, which is no input."""
    inside = output != input.expanduser().absolute() and output.is_relative_to(input.expanduser().absolute())
    return inside and path.absolute().is_relative_to(output)


class _Batch:
    """One run over a list of studies."""

    def __init__(
        self,
        studies: Sequence[Study],
        output: Path,
        settings: BatchSettings,
        is_cancelled: Callable[[], bool],
        reporter: Reporter,
    ):
        self.output, self.settings, self.reporter = output, settings, reporter
        self._asked = is_cancelled
        self._stopped = threading.Event()
        self._codes: list[int] = []
        self._lock = threading.Lock()
        self._table = StatusTable(output / STATUS_FILE)
        self._waiting: queue.SimpleQueue[Study] = queue.SimpleQueue()
        self._studies = studies
        self._count = 0

    def _sort(self) -> list[Row]:
        """Puts what is to be done into the queue; returns the rows of the table as they are now."""
        rows = []
        for study in self._studies:
            old = self._table.get(study.name)
            failed = old is not None and old.status == FAILED
            known = record_in(self.output / study.name)
            if known is not None and not failed:
                seconds = old.seconds if old is not None and old.status == DONE else ""
                rows.append(_done_row(study, seconds, known))
            else:
                rows.append(replace(old, input=str(study.path)) if failed else Row(study.name, str(study.path)))
            if known is None or failed or self.settings.overwrite:
                self._waiting.put(study)
                self._count += 1
        return rows

    def run(self) -> int:
        """Works until all is done, cancelled, or nothing more can be done; returns the exit code."""
        self._table.put(*self._sort())
        self.reporter.begin(len(self._studies), len(self._studies) - self._count)
        jobs = max(1, min(self.settings.jobs, self._count))
        threads = max(1, (self.settings.threads or available_cores()) // jobs)
        workers = [threading.Thread(target=self._work, args=(number, threads), daemon=True) for number in range(jobs)]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():  # in pieces, so that signals are heard
                    worker.join(0.1)
                    if self._asked():
                        self._stopped.set()
        finally:
            self._stopped.set()
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
            self._remove_empty_folders()
            self.reporter.end()
        if self._asked() and any(self._table.get(study.name).status == MISSING for study in self._studies):
            return EXIT_CANCELLED
        return max(self._codes, default=EXIT_DONE)

    def _remove_empty_folders(self) -> None:
        for study in self._studies:
            for folder in Path(study.name).parents[:-1]:
                with suppress(OSError):  # holds results, or was never made
                    (self.output / folder).rmdir()

    def _work(self, number: int, threads: int) -> None:
        """What each thread does: one worker, one study after the other."""
        with WorkerClient(self.settings.python, threads) as client:
            while not self._stopped.is_set():
                try:
                    study = self._waiting.get_nowait()
                except queue.Empty:
                    return
                with suppress(Cancelled):
                    self._put(self._segment(study, client, number), number)

    def _segment(self, study: Study, client: WorkerClient, number: int) -> Row:
        """The row of a study, however it went.

        Raises:
            Cancelled: it stays missing.
        """
        client.start()
        settings, started = self.settings, time.monotonic()
        folder = self.output / study.name
        show = lambda stage, fraction: self.reporter.show(number, study.name, stage, fraction)  # noqa: E731
        progress = Progress(show, self._stopped.is_set)

        def compute(volume: Volume, progress: Progress) -> Result:
            return client.run(volume, settings.options, settings.models, progress)

        try:
            # Made here, so that no other study's failure takes the folder away again.
            folder.parent.mkdir(parents=True, exist_ok=True)
            segment_study(study.path, folder, compute, progress, wishes=settings.wishes)
        except Cancelled:
            raise
        except Exception as error:
            if isinstance(error, MissingPackageError):  # every other study would fail the same way
                self._stopped.set()
            code, message = _reason(error)
            self._codes.append(code)
            return Row(study.name, str(study.path), FAILED, _seconds(started), message=message)
        return _done_row(study, _seconds(started), record_in(folder))

    def _put(self, row: Row, number: int) -> None:
        with self._lock:
            try:
                self._table.put(row)
            except LiverCascadeError as error:  # such as a table that is open in a spreadsheet on Windows
                self._codes.append(error.exit_code)
                self.reporter.warn(str(error))
            self.reporter.finished(number, row)


def _reason(error: Exception) -> tuple[int, str]:
    if isinstance(error, LiverCascadeError):
        return error.exit_code, str(error)
    if isinstance(error, MemoryError):
        return EXIT_OUT_OF_RESOURCES, "The computer's memory is not enough for this volume."
    return EXIT_BAD_INPUT, f"It failed unexpectedly ({type(error).__name__}: {error}). Please report this."


def _seconds(started: float) -> str:
    return f"{time.monotonic() - started:.1f}"


def available_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Reporter:
    """Tells how far a batch is: a bar on a terminal, and one line per finished study everywhere.

    Args:
        stream: where to write.
        quiet: tell errors only.
    """

    def __init__(self, stream: TextIO, quiet: bool = False):
        self._stream, self._quiet = stream, quiet
        # Slicer puts objects of its own in the place of the standard streams.
        self._bar = not quiet and bool(getattr(stream, "isatty", bool)())
        self._lock = threading.Lock()
        self._total = self._done = self._failed = 0
        self._running: dict[int, tuple[str, str, float]] = {}
        self._drawn, self._started = 0.0, time.monotonic()

    def left_out(self, paths: Sequence[Path]) -> None:
        """Names the files that were taken for label maps."""
        if paths and not self._quiet:
            names = ", ".join(path.name for path in paths[:_SHOWN_LEFT_OUT])
            more = ", …" if len(paths) > _SHOWN_LEFT_OUT else ""
            self._print(f"Left out, as they hold labels: {names}{more}")

    def begin(self, total: int, done: int) -> None:
        """Says what there is to do."""
        self._total, self._done = total, done
        if not self._quiet:
            text = f"{total} studies" if total != 1 else "1 study"
            self._print(text + (f", {done} of them done already" if done else ""))

    def show(self, number: int, name: str, stage: str, fraction: float) -> None:
        """How far the study in place ``number`` is."""
        with self._lock:
            self._running[number] = (name, stage, fraction)
            if self._bar and time.monotonic() - self._drawn > 0.1:
                self._draw()

    def finished(self, number: int, row: Row) -> None:
        """A study is done or failed."""
        with self._lock:
            self._running.pop(number, None)
            self._done += 1
            self._failed += row.status == FAILED
            if row.status == FAILED or not self._quiet:
                place = f"[{self._done}/{self._total}] {row.name}"
                self._print(f"{place}: {row.status}, {row.seconds} s. {row.message}")

    def warn(self, message: str) -> None:
        """Something that the user should know at once."""
        self._print(message)

    def end(self) -> None:
        """Removes the bar."""
        with self._lock:
            self._clear()
            if not self._quiet and self._total:
                failed = f", {self._failed} of them failed" if self._failed else ""
                seconds = time.monotonic() - self._started
                self._print(f"{self._done} of {self._total} finished{failed}, in {seconds:.0f} s.")

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        width = shutil.get_terminal_size().columns
        share = (self._done + sum(_share(*state[1:]) for state in self._running.values())) / max(1, self._total)
        bar = "█" * round(share * 20) + "·" * (20 - round(share * 20))
        running = ", ".join(f"{name} ({stage})" for name, stage, _ in self._running.values())
        text = f"{bar} {self._done}/{self._total} {time.monotonic() - self._started:.0f} s  {running}"
        print("\r" + text[: width - 1].ljust(width - 1), end="", file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._bar and self._drawn:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", end="", file=self._stream)

    def _print(self, text: str) -> None:
        self._clear()
        print(text, file=self._stream, flush=True)


# Where a run's stages begin, as a share of its time: on a CPU almost all of it is the refine stage.
_STAGES = {"read": 0.0, "load": 0.03, "check": 0.05, "locate": 0.05, "refine": 0.1, "fuse": 0.93, "clean": 0.94}
_STAGES |= {"write": 0.96, "": 1.0}
_ENDS = {stage: end for (stage, _), (_, end) in pairwise(_STAGES.items())}


def _share(stage: str, fraction: float) -> float:
    """The share of a study that is done."""
    start = _STAGES.get(stage, 0.0)
    return start + fraction * (_ENDS.get(stage, start) - start)
