"""The figures of a run, read while it writes them."""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

# Column of metrics.csv → its name in chart and table. A row has those of a training step or of a validation.
TRAINING = {"loss": "Loss"}
VALIDATION = {"dice_liver": "Dice of the liver", "dice_lesion": "Dice of the lesions"}


@dataclass
class Curves:
    """Points of some columns that come in the same rows.

    Attributes:
        columns: names in ``metrics.csv``.
        steps: of the rows.
        values: by column, one for each step; NaN where a row lacks it.
    """

    columns: tuple[str, ...]
    steps: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, row: dict[str, str]) -> None:
        """Takes a row, unless it has none of the columns."""
        found = {name: _number(row.get(name)) for name in self.columns}
        if all(math.isnan(value) for value in found.values()):
            return
        self.steps.append(_number(row["step"]))
        for name, value in found.items():
            self.values.setdefault(name, []).append(value)

    def last(self) -> dict[str, float]:
        """The values of the last row that are there."""
        return {name: values[-1] for name, values in self.values.items() if not math.isnan(values[-1])}


class MetricsFile:
    """Follows a ``metrics.csv``: only what is new is read.

    Args:
        path: of the file, which may not be there yet.

    Attributes:
        training, validation: what was read.
    """

    def __init__(self, path: Path):
        self.path = path
        self._forget()

    def update(self) -> bool:
        """Reads what is new; returns whether there was anything.

        A resumed run writes the file anew without the steps that it repeats: it is then read from its beginning.
        """
        try:
            with self.path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                changed = False
                if self._inode not in (0, status.st_ino) or status.st_size < self._offset:
                    self._forget()
                    changed = True
                self._inode = status.st_ino
                stream.seek(self._offset)
                content = stream.read()
        except OSError:
            return False
        whole = content[: content.rfind(b"\n") + 1]  # the last line may be half written
        self._offset += len(whole)
        for line in csv.reader(whole.decode("utf-8", "replace").splitlines()):
            changed = True
            if not self._header:
                self._header = line
                continue
            row = dict(zip(self._header, line, strict=False))
            if row.get("step", "").isdigit():
                self.training.add(row)
                self.validation.add(row)
        return changed

    @property
    def step(self) -> int:
        """The last step that is known."""
        return int(max([0, *self.training.steps[-1:], *self.validation.steps[-1:]]))

    def _forget(self) -> None:
        self._offset, self._inode, self._header = 0, 0, []
        self.training, self.validation = Curves(tuple(TRAINING)), Curves(tuple(VALIDATION))


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
