"""The same run with single settings changed: which of them matters."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from LiverCascadeLib.errors import ResourceError

from ..names import SettingError
from .callbacks import METRICS, read_metrics
from .config import changed, config_from
from .fit import Machine, fit
from .pictures import write_bytes
from .sources import DataPlaces

TABLE = "ablation"


def ablate(
    content: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    folder: Path,
    places: DataPlaces,
    machine: Machine | None = None,
) -> str:
    """Trains every combination, one after another; what is done already is kept.

    Args:
        content: the configuration's plain values.
        grid: dotted settings and the values that each takes.
        folder: gets a run 'NN' for each combination, ``ablation.csv`` and ``ablation.md``.
        places: where the data are.
        machine: where to compute; one device.

    Returns:
        the table, as Markdown.

    Raises:
        SettingError: a combination that is no valid configuration; nothing is trained then.
        ResourceError: more than one device was asked for.
    """
    machine = machine or Machine()
    if machine.devices * machine.nodes > 1:
        raise ResourceError("An ablation trains one run after another on one device. Choose --devices 1.")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    configs = []
    for changes in combinations:
        try:
            configs.append(config_from(changed(content, changes)))
        except SettingError as error:
            shown = ", ".join(f"{name}={value}" for name, value in changes.items())
            raise SettingError(f"With {shown}: {error}") from None
    rows = []
    for number, (changes, config) in enumerate(zip(combinations, configs, strict=True)):
        run = folder / f"{number:02d}"
        if not machine.quiet:
            print(f"{number + 1}/{len(configs)}: {changes}", flush=True)
        fit(config, run, places, machine)
        rows.append({**{k: json.dumps(v) for k, v in changes.items()}, **_best(run), "run": run.name})
        write_bytes(folder / f"{TABLE}.csv", _as_csv(rows).encode())
        write_bytes(folder / f"{TABLE}.md", _as_markdown(rows).encode())
    return _as_markdown(rows)


def _best(run: Path) -> dict[str, str]:
    """The best validation, and seconds per step."""
    rows = read_metrics(run / METRICS)
    judged = [row for row in rows if row["dice"]]
    paces = [float(row["seconds_per_step"]) for row in rows if row["seconds_per_step"]]
    pace = f"{sorted(paces)[len(paces) // 2]:.3g}" if paces else ""
    if not judged:
        return {"step": rows[-1]["step"] if rows else "0", "loss": rows[-1]["loss"] if rows else "", "s/step": pace}
    best = max(judged, key=lambda row: float(row["dice"]))
    names = ("step", "dice", "dice_liver", "dice_lesion")
    return {**{name: best[name] for name in names}, "s/step": pace}


def _as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _as_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(row.get(name) or '–' for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"
