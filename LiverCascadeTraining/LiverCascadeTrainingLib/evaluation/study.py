"""Runs an evaluation: every case of every model, then the data set, then the comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.volume import read_labels, read_volume

from .cases import Case, evaluate_case
from .files import CaseFiles, LabelMeaning, confidences_beside, in_order_of, read_in_order
from .pooled import DRAWS, SEED, DataSet
from .postprocessing import PostProcessing


@dataclass(frozen=True)
class Model:
    """What is judged.

    Attributes:
        name: for tables.
        source: under which name its files are in :attr:`.files.CaseFiles.predicted`.
        meaning: of its labels.
        post: what is done with them before they are scored.
    """

    name: str
    source: str
    meaning: LabelMeaning = field(default_factory=LabelMeaning)
    post: PostProcessing | None = None


@dataclass(frozen=True)
class Request:
    """An evaluation that is wanted.

    Attributes:
        cases: their files.
        models: each judged on all cases.
        reference_meaning: of the references' labels.
        draws, seed: of intervals and permutations.
        remarks: for the reader, such as cases that were left out.
    """

    cases: Sequence[CaseFiles]
    models: Sequence[Model]
    reference_meaning: LabelMeaning = field(default_factory=LabelMeaning)
    draws: int = DRAWS
    seed: int = SEED
    remarks: tuple[str, ...] = ()

    @property
    def with_lesions(self) -> bool:
        """Whether lesions are judged: references and all models tell them from liver."""
        return self.reference_meaning.tells_lesions and all(m.meaning.tells_lesions for m in self.models)


@dataclass(frozen=True)
class Study:
    """A finished evaluation.

    Attributes:
        request: what was asked for.
        data: by model, in the order of the request.
    """

    request: Request
    data: Mapping[str, DataSet]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know about the evaluation itself."""
        remarks = list(self.request.remarks)
        first = next(iter(self.data.values()))
        if not self.request.with_lesions:
            remarks.append("Lesions were not judged: references or label maps of a model do not tell them from liver.")
        patients = first.resampling.patients
        if patients < 2:
            remarks.append("There is one patient only: no interval can be given.")
        elif patients < 10:
            remarks.append(f"There are {patients} patients only: the intervals are rough, and rather too narrow.")
        return tuple(remarks)


def run_study(request: Request, jobs: int = 1, say: Callable[[str], None] = lambda text: None) -> Study:
    """Evaluates all cases.

    Args:
        request: what is wanted.
        jobs: processes at the same time.
        say: is told after each case.

    Raises:
        InputError: a file cannot be read or does not fit its reference; the message names it.
    """
    found: dict[str, list[Case]] = {model.name: [] for model in request.models}
    for number, judged in enumerate(_judged(request, jobs), start=1):
        for name, case in judged.items():
            found[name].append(case)
        say(f"{number} of {len(request.cases)}: {request.cases[number - 1].name}")
    return Study(request, {name: DataSet(cases, request.draws, request.seed) for name, cases in found.items()})


def _judged(request: Request, jobs: int) -> Iterator[dict[str, Case]]:
    if jobs <= 1 or len(request.cases) == 1:
        yield from (judge(request, files) for files in request.cases)
        return
    with ProcessPoolExecutor(min(jobs, len(request.cases)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(judge, [request] * len(request.cases), request.cases)


def judge(request: Request, files: CaseFiles) -> dict[str, Case]:
    """One case of all models."""
    raw, grid = read_labels(files.reference)
    reference = request.reference_meaning.applied(raw)
    if not reference.any():
        raise InputError(
            f"The reference {files.reference} has no liver: its values are {_values(raw)}. Say with --ref-labels what "
            "its labels mean, or leave the case out."
        )
    needs_ct = any(model.post is not None and model.post.needs_ct for model in request.models)
    ct = read_ct(files.ct, grid) if needs_ct and files.ct is not None else None
    judged = {}
    for model in request.models:
        labels, instances, confidences = read_prediction(model, files, grid, ct)
        judged[model.name] = evaluate_case(
            files.name,
            labels,
            reference,
            grid,
            request.with_lesions,
            files.patient,
            confidences,
            instances,
        )
    return judged


def read_prediction(
    model: Model, files: CaseFiles, grid: Grid, ct: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, dict[int, float]]:
    """A model's labels 0/1/2 on ``grid`` after its clean-up; its own labels, and the confidences of those."""
    path: Path | None = files.predicted[model.source]
    if path is None:
        return np.zeros(grid.shape, np.uint8), None, {}
    instances = read_in_order(path, grid)
    labels = model.meaning.applied(instances)
    if model.post is not None:
        labels = model.post.apply(labels, grid, ct)
    confidences = confidences_beside(path)
    return labels, instances if confidences else None, confidences


def read_ct(path: Path, grid: Grid) -> np.ndarray:
    """HU in the voxel order of ``grid``.

    Raises:
        InputError: unreadable, or it does not have the voxels of ``grid``.
    """
    volume = read_volume(path)
    try:
        return in_order_of(volume.array, volume.grid, grid)
    except ValueError as error:
        raise InputError(f"The CT {path} does not have the voxels of its reference. {error}") from None


def _values(labels: np.ndarray, most: int = 8) -> str:
    values = np.unique(labels).tolist()
    return ", ".join(str(v) for v in values[:most]) + (", …" if len(values) > most else "")


def worst_cases(data: DataSet, key: str, count: int) -> list[Case]:
    """The cases in which a figure, of which high is good, is lowest; those without it are left out."""
    known = [case for case in data.cases if math.isfinite(case.values[key])]
    return sorted(known, key=lambda case: case.values[key])[:count]
