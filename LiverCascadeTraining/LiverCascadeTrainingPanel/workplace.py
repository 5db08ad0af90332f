"""Where a training has its files, what can be done with them next, and the command lines for that."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from LiverCascadeLib.jobs import worker_command

MODULE_FOLDER = Path(__file__).resolve().parents[1]
CONFIGURATIONS = MODULE_FOLDER / "Resources" / "Configurations"
ROLES = ("locate", "refine")
TRAIN, TEST = "LiverCascadeTrainingLib.cli", "LiverCascadeTrainingPanel.test_part"
# They learn from synthetic bodies, which the panel does not prepare.
_OWN_SEQUENCE = "default"

Command = tuple[str, list[str], dict[str, str]]


def python_command(module: str, arguments: Sequence[str]) -> Command:
    """Program, arguments and additions to the environment that run a module of the training companion."""
    program, _, environment = worker_command()
    path = os.pathsep.join([str(MODULE_FOLDER), environment["PYTHONPATH"]])
    return program, ["-m", module, *arguments], {**environment, "PYTHONPATH": path}


@dataclass(frozen=True)
class Configuration:
    """A pair of configurations.

    Attributes:
        name: what stands before ``-locate.yaml``.
        folder: where both files are.
    """

    name: str
    folder: Path

    def path(self, role: str) -> Path:
        """The file for ``role``."""
        return self.folder / f"{self.name}-{role}.yaml"


def configurations(folder: Path | None = None) -> list[Configuration]:
    """The pairs ``NAME-locate.yaml`` and ``NAME-refine.yaml`` in ``folder``; None takes those of the extension."""
    place = folder or CONFIGURATIONS
    names = sorted(path.name.removesuffix("-locate.yaml") for path in place.glob("*-locate.yaml"))
    found = [Configuration(name, place) for name in names]
    own = folder is None
    return [c for c in found if c.path("refine").is_file() and not (own and c.name == _OWN_SEQUENCE)]


@dataclass(frozen=True)
class Choices:
    """What is rarely changed.

    Attributes:
        layout: of the data set.
        scheme: of the split.
        accelerator: where to train: 'auto', 'cpu' or 'gpu'.
        workers: processes that make samples; while checking and preparing, cases that are read at once.
        changes: settings of the configuration, such as ``training.steps=500``, separated by spaces.
    """

    layout: str = "auto"
    scheme: str = "70/10/20"
    accelerator: str = "auto"
    workers: int = 1
    changes: str = ""


@dataclass(frozen=True)
class Workplace:
    """A data set and the folder that everything is written into.

    Attributes:
        data: folder of the data set, or a CSV file of pairs.
        folder: gets ``report``, ``split.json``, ``cache``, ``runs``, ``test`` and ``evaluation``.
    """

    data: Path
    folder: Path

    @property
    def report(self) -> Path:
        """What 'check' wrote, for a reader."""
        return self.folder / "report" / "data-check.txt"

    @property
    def split(self) -> Path:
        """Who is trained on."""
        return self.folder / "split.json"

    @property
    def cache(self) -> Path:
        """The prepared cases."""
        return self.folder / "cache"

    @property
    def runs(self) -> Path:
        """Folder of both runs, and a folder of models as soon as both are exported."""
        return self.folder / "runs"

    @property
    def evaluation(self) -> Path:
        """The page of the evaluation."""
        return self.folder / "evaluation" / "evaluation.html"

    def metrics(self, role: str) -> Path:
        """Figures of a run."""
        return self.runs / role / "metrics.csv"

    def stop_file(self, role: str) -> Path:
        """Where this file is, the run stops after its step."""
        return self.runs / role / "stop"

    def is_begun(self, role: str) -> bool:
        """True where a run can be resumed."""
        return (self.runs / role / "checkpoints" / "last.ckpt").is_file()

    def is_exported(self, role: str) -> bool:
        """True where there is a model."""
        return (self.runs / role / "manifest.json").is_file()

    @property
    def is_split(self) -> bool:
        """True where it is settled who is trained on."""
        return self.split.is_file()

    @property
    def is_prepared(self) -> bool:
        """True where something was prepared."""
        return self.is_split and self.cache.is_dir()

    @property
    def has_models(self) -> bool:
        """True where both models are there."""
        return all(self.is_exported(role) for role in ROLES)

    def check(self, choices: Choices) -> Command:
        """Looks at all cases."""
        return python_command(
            TRAIN,
            ["check", *self._data(choices), "-o", str(self.report.parent), "--processes", _count(choices)],
        )

    def make_split(self, choices: Choices) -> Command:
        """Splits by patient; cases that the check found unusable are left out."""
        judged = self.report.with_suffix(".json")
        report = ["--report", str(judged)] if judged.is_file() else []
        arguments = ["split", *self._data(choices), "-o", str(self.split), "--scheme", choices.scheme, *report]
        return python_command(TRAIN, arguments)

    def prepare(self, configuration: Configuration, choices: Choices) -> Command:
        """Resamples the cases of the split for both runs."""
        return self._prepare([configuration.path(role) for role in ROLES], choices)

    def train(self, role: str, configuration: Configuration, choices: Choices) -> list[Command]:
        """Trains, or goes on. A refine run first gets what the locate model says about its cases.

        A run that was begun goes on with the configuration that it was begun with.

        Raises:
            ValueError: the changes have an open quote.
        """
        begun = self.is_begun(role)
        path = self.runs / role / "config.yaml" if begun else configuration.path(role)
        arguments = [role, str(path), "--run", str(self.runs), "--cache", str(self.cache)]
        arguments += ["--split", str(self.split), "--accelerator", choices.accelerator]
        arguments += ["--workers", str(choices.workers)]
        for change in [] if begun else shlex.split(choices.changes):
            arguments += ["--set", change]
        located = role == "refine" and self.is_exported("locate")
        first = [self._prepare([path], choices, "--locate", str(self.runs / "locate"))] if located else []
        return [*first, python_command(TRAIN, arguments)]

    def evaluate(self, choices: Choices) -> list[Command]:
        """Segments the test part with both models and judges what was found."""
        test, target = self.folder / "test", self.evaluation.parent
        segment = [*self._data(choices), "--split", str(self.split), "--models", str(self.runs), "-o", str(test)]
        segment += ["--device", choices.accelerator]
        judge = ["evaluate", "--pairs", str(test / "pairs.csv"), "-o", str(target)]
        return [python_command(TEST, segment), python_command(TRAIN, judge)]

    def _prepare(self, paths: Sequence[Path], choices: Choices, *more: str) -> Command:
        arguments = ["prepare", *self._data(choices), "--cache", str(self.cache), "--split", str(self.split)]
        arguments += ["--processes", _count(choices), "--config", *map(str, paths), *more]
        return python_command(TRAIN, arguments)

    def _data(self, choices: Choices) -> list[str]:
        return [str(self.data), "--layout", choices.layout]


def _count(choices: Choices) -> str:
    return str(max(choices.workers, 1))
