"""A run: networks for masks and seeds, one after the other, kept when done; then figures, plots and the model."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from LiverCascadeLib import __version__
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.models import Manifest, build_network, save_weights, sha256_of
from LiverCascadeLib.models.manifest import CLASSES
from LiverCascadeLib.report.files import RESEARCH_USE

from ..training.fit import Machine
from ..training.record import versions
from .comparison import CASES, SLICES, compare, gate_threshold, scores_of
from .config import ClassifyConfig
from .livers import LiverSet
from .plots import roc_plot
from .training import Judged, judge_livers, train

CONFIG, RECORD, COMPARISON, WEIGHTS = "config.yaml", "run.json", "comparison.json", "weights.safetensors"
CASES_CSV, SLICES_CSV, JUDGED = "cases.csv", "slices.csv", "judged.json"
PARTS = ("validation", "test")
INTENDED_USE = "Research use only. Not for diagnosis or treatment."


def run(
    config: ClassifyConfig,
    livers: LiverSet,
    folder: Path,
    masks: Sequence[str],
    seeds: int,
    machine: Machine,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Trains what is missing, judges, and writes everything into ``folder``.

    A network that is done is kept: a run that was stopped goes on with the next one, and a later call may ask for
    more seeds or the other mask.

    Args:
        config: of the run.
        livers: its data.
        folder: made where needed.
        masks: of 'soft' and 'binary'.
        seeds: networks for each mask, with consecutive seeds.
        machine: where to compute.
        say: is told what takes long, and the figures.

    Returns:
        the content of ``comparison.json``.

    Raises:
        InputError: the folder holds a run with another configuration or other data.
    """
    _begin(config, livers, folder)
    first = config.training.seed
    chosen = list(range(first, first + seeds))
    judged: dict[str, list[dict[str, list[Judged]]]] = {}
    # Seed by seed, so that what is there after a stop can be compared.
    for seed in chosen:
        for mask in masks:
            judged.setdefault(mask, []).append(_one(config, livers, folder, mask, seed, machine, say))
    by_part = {part: {mask: [run[part] for run in runs] for mask, runs in judged.items()} for part in PARTS}
    content = {
        "format": "LiverCascade classification",
        "format_version": 1,
        "notice": RESEARCH_USE,
        "livercascade": __version__,
        "level": config.level,
        "seeds": chosen,
        "remarks": list(livers.remarks),
        "livers": {
            part: [sum(v.truth(config.labels.least_lesion_ml) is truth for v in found) for truth in (True, False)]
            for part, found in livers.parts.items()
        },
        **compare(by_part["test"], by_part["validation"], config.gate.sensitivity),
    }
    _write_json(folder / COMPARISON, content)
    _write_tables(folder, by_part["test"], chosen)
    _write_plots(folder, by_part["test"], content)
    if config.mask in judged:
        export(config, folder, judged[config.mask][0], content)
    return content


def _begin(config: ClassifyConfig, livers: LiverSet, folder: Path) -> None:
    identity = hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode()).hexdigest()
    record = {
        "format": "livercascade-classification-run",
        "configuration": identity,
        "data": livers.fingerprint,
        "versions": versions(),
        "livers": {part: [liver.name for liver in found] for part, found in livers.parts.items()},
    }
    try:
        there = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        config.save(folder / CONFIG)
        _write_json(folder / RECORD, record)
        return
    except ValueError as error:
        raise InputError(f"{folder / RECORD} cannot be read as JSON: {error}.") from None
    for key, what in (("configuration", "another configuration"), ("data", "other data")):
        if there.get(key) != record[key]:
            raise InputError(f"{folder} holds a run with {what}. Choose another run folder, or bring it back.")


def _one(config, livers: LiverSet, folder: Path, mask: str, seed: int, machine: Machine, say) -> dict[str, Any]:
    """Validation and test part as the network of one mask and seed judges them; trained where it is not there."""
    place = folder / "networks" / f"{mask}-{seed}"
    if (place / JUDGED).is_file():
        return _read_judged(place / JUDGED)
    say(f"{mask} mask, seed {seed}: training, {config.training.steps} steps")
    module = train(livers.parts["train"], config, mask, seed, machine)
    place.mkdir(parents=True, exist_ok=True)
    save_weights(module.network, place / WEIGHTS)
    # Judged as it is exported: with weights in half precision.
    network = _loaded(config, place / WEIGHTS)
    found = {part: judge_livers(network, livers.parts[part], config, mask) for part in PARTS}
    content = {"losses": module.losses, **{part: [asdict(one) for one in found[part]] for part in PARTS}}
    _write_json(place / JUDGED, content)
    return found


def _loaded(config: ClassifyConfig, path: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    network = build_network(*config.architecture())
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(str(path)).items()})
    return network.eval()


def _read_judged(path: Path) -> dict[str, list[Judged]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        part: [Judged(**{**one, "slices": tuple(tuple(row) for row in one["slices"])}) for one in content[part]]
        for part in PARTS
    }


def _write_tables(folder: Path, test: Mapping[str, Sequence[Sequence[Judged]]], seeds: Sequence[int]) -> None:
    """Every score of the test part: one row for each liver or slice, mask and seed."""
    cases, slices = [], []
    for mask, runs in test.items():
        for seed, found in zip(seeds, runs, strict=True):
            for liver in found:
                head = (mask, seed, liver.name, liver.patient)
                cases.append((*head, _truth(liver.truth), "" if liver.score is None else round(liver.score, 6)))
                slices.extend((*head, n, _truth(truth), round(score, 6)) for n, truth, score in liver.slices)
    head = ("mask", "seed", "case", "patient")
    _write_csv(folder / CASES_CSV, (*head, "lesion", "score"), cases)
    if slices:
        _write_csv(folder / SLICES_CSV, (*head, "slice", "lesion", "score"), slices)


def _truth(truth: bool | None) -> Any:
    return "" if truth is None else int(truth)


def _write_plots(folder: Path, test: Mapping[str, Sequence[Sequence[Judged]]], content: Mapping[str, Any]) -> None:
    for unit, title in ((SLICES, "Slices: lesion or not"), (CASES, "Livers: lesion or not")):
        if unit in next(iter(content["masks"].values())):
            scores = {mask: scores_of(runs, unit) for mask, runs in test.items()}
            if scores[next(iter(scores))].truth.any() and not scores[next(iter(scores))].truth.all():
                figures = {mask: content["masks"][mask][unit] for mask in scores}
                _write(folder / f"roc_{unit}.svg", roc_plot(scores, figures, title))


def export(
    config: ClassifyConfig, folder: Path, judged: Mapping[str, Sequence[Judged]], content: Mapping[str, Any]
) -> Manifest:
    """Writes the first seed's network as a model beside the run's files.

    With the runs 'locate' and 'refine' in the same folder, the cascade has a gate.

    Args:
        config: of the run.
        folder: of the run, which becomes the model's folder.
        judged: what the network says of validation and test part.
        content: the run's figures.
    """
    source = folder / "networks" / f"{config.mask}-{config.training.seed}" / WEIGHTS
    _write(folder / WEIGHTS, source.read_bytes())
    threshold, positives = gate_threshold(judged["validation"], config.gate.sensitivity)
    own = content["masks"][config.mask]
    measured = {
        "training_steps": config.training.steps,
        "threshold_fitted_on_livers_with_lesions": positives,
        "test": {unit: own[unit]["auc_by_seed"][0] for unit in (SLICES, CASES) if unit in own},
        "test_gate": own["gate"][0],
        "remarks": content["remarks"],
    }
    architecture, arguments = config.architecture()
    manifest = Manifest(
        id=config.model.id,
        role=config.role,
        title=config.model.title,
        architecture=architecture,
        arguments=arguments,
        inputs=("ct", "liver_probability"),
        labels=CLASSES,
        spacing_mm=config.grid.spacing_mm,
        patch_size=config.grid.patch_size,
        window_hu=config.grid.window_hu,
        weights_file=WEIGHTS,
        weights_sha256=sha256_of(folder / WEIGHTS),
        version=config.model.version,
        license=config.model.license,
        intended_use=INTENDED_USE,
        training_data=config.model.training_data,
        measured=_plain({"what": f"{config.mask} mask, level {config.level}", **measured}),
        gate={
            "mask": config.mask,
            "level": config.level,
            "context": config.context,
            "top": config.labels.top,
            "threshold": threshold,
        },
        folder=folder,
    )
    manifest.save(folder)
    return manifest


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    _write(path, (text + "\n").encode())


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    os.replace(part, path)


def _plain(value: Any) -> Any:
    """For JSON: what is not a number becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
