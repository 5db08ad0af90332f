"""A model is data: a JSON manifest beside a weights file says everything that is needed to run it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..channels import INPUTS
from ..errors import ModelError
from . import calibration as calibrations
from .calibration import Calibration
from .json_files import field_problems, read_json
from .networks import ARCHITECTURES

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
ROLES = ("locate", "refine", "classify")
# Channels of a classify model, and what its 'gate' says of how it is to be used.
CLASSES = {"no_lesion": 0, "lesion": 1}
MASKS, LEVELS = ("soft", "binary"), ("slice", "case")


@dataclass(frozen=True)
class Manifest:
    """What a model is and how it wants to be fed.

    Attributes:
        id: unique name, stays with the weights for ever.
        role: 'locate' (whole volume, low resolution), 'refine' (inside the liver's box) or 'classify' (whether the
            located liver holds lesions, see :mod:`..gate`).
        title: name shown to the user.
        architecture: name from the allow-list of :mod:`.networks`.
        arguments: keyword arguments of the architecture; plain JSON values.
        inputs: what the channels hold, in order: 'ct' and, for refine models, 'liver_probability' and
            'liver_contrast', see :mod:`..channels`.
        labels: channel of the softmax output by name; 'background' is 0, 'liver' is the parenchyma where there is also
            a 'lesion' channel. For classify models :data:`CLASSES`.
        spacing_mm: voxel spacing of the network's grid along (R, A, S).
        patch_size: voxels of the sliding window along (R, A, S).
        window_hu: (low, high); HU are clipped to it and scaled to 0…1, so that air is 0.
        margin_mm: refine models: tissue around the located liver that belongs to the box.
        overlap: default overlap of neighboring windows, 0 ≤ overlap < 1.
        mirror_axes: axes, of R, A and S, along which the network was trained with mirrored scans; 'thorough' runs
            average over them.
        min_lesion_peak: refine models: a lesion whose highest probability stays below this is dropped.
        min_lesion_confidence: refine models: so is one whose confidence stays below this; without a calibration
            nothing is.
        input_spacing_mm: (lowest, highest) spacing along R, A and S of the scans that it was trained on; empty where
            nobody knows.
        weights_file: file name of the safetensors weights, beside the manifest.
        weights_sha256: hexadecimal digest of that file.
        calibration: refine models: how sure the model is of a lesion, see :class:`.calibration.Calibration`; None
            where that was not found out, and then lesions have no confidence.
        gate: classify models: 'mask' ('soft' or 'binary'), 'level' ('slice' or 'case'), 'context' (slices on either
            side of each), 'top' (so many highest slices make the liver's figure) and 'threshold'. Empty for others.
        version, license, training_data, measured, intended_use: for people; shown in the panel and in reports.
        folder: where the manifest was read from.
    """

    id: str
    role: str
    title: str
    architecture: str
    arguments: dict[str, Any]
    inputs: tuple[str, ...]
    labels: dict[str, int]
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    window_hu: tuple[float, float]
    weights_file: str
    weights_sha256: str
    version: str
    license: str
    intended_use: str
    margin_mm: float = 0.0
    overlap: float = 0.25
    mirror_axes: tuple[str, ...] = ()
    min_lesion_peak: float = 0.0
    min_lesion_confidence: float = 0.0
    input_spacing_mm: tuple[tuple[float, float], ...] = ()
    training_data: tuple[str, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    gate: dict[str, Any] = field(default_factory=dict)
    folder: Path = field(default=Path("."), compare=False)

    @property
    def weights_path(self) -> Path:
        """The weights file."""
        return self.folder / self.weights_file

    def as_dict(self) -> dict[str, Any]:
        """The content of ``manifest.json``."""
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        content["calibration"] = None if self.calibration is None else self.calibration.as_dict()
        if not self.gate:
            del content["gate"]
        return {"schema_version": SCHEMA_VERSION, **content}

    def save(self, folder: Path) -> None:
        """Writes ``manifest.json`` into ``folder``."""
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def load_manifest(path: Path | str) -> Manifest:
    """Reads and validates a manifest.

    Args:
        path: the manifest, or the folder that holds ``manifest.json``.

    Raises:
        ModelError: not there, not JSON, or not a manifest; the message names the field, what was found and what was
            expected.
    """
    path = Path(path)
    path = path / MANIFEST_NAME if path.is_dir() else path
    content = read_json(path, f"There is no model at {path.parent}: {path.name} is missing.")
    problems = list(_problems(content))
    if problems:
        raise ModelError(f"The model manifest {path} is not valid: {'; '.join(problems)}.")
    content.pop("schema_version")
    if content.get("calibration") is not None:
        content["calibration"] = Calibration.from_dict(content["calibration"])
    content["input_spacing_mm"] = tuple(tuple(pair) for pair in content.get("input_spacing_mm", ()))
    for name in ("inputs", "mirror_axes", "spacing_mm", "patch_size", "window_hu", "training_data"):
        content[name] = tuple(content.get(name, ()))
    return Manifest(**content, folder=path.parent)


def _problems(content: Any):
    """Yields what is wrong with a manifest's content, in words."""
    if not isinstance(content, dict):
        yield f"expected a JSON object, found {type(content).__name__}"
        return
    if content.get("schema_version") != SCHEMA_VERSION:
        yield f"schema_version is {content.get('schema_version')!r}, this version reads {SCHEMA_VERSION}"
        return
    yield from field_problems(Manifest, content)
    for name, (accepts, expected) in _RULES.items():
        if name in content and not accepts(content[name]):
            yield f"{name} is {content[name]!r}, expected {expected}"
    yield from _gate_problems(content)
    calibration = content.get("calibration")
    yield from calibrations.problems(calibration)
    if isinstance(calibration, dict) and calibration.get("weights_sha256") != content.get("weights_sha256"):
        yield "calibration belongs to other weights than weights_sha256 names: calibrate the model again"


def _gate_problems(content: dict[str, Any]):
    """Yields what does not go together in a classify model, or should not be in another."""
    gate, classifies = content.get("gate", {}), content.get("role") == "classify"
    if classifies and content.get("labels") != CLASSES:
        yield f"labels are {content.get('labels')!r}, expected {CLASSES!r} for the role 'classify'"
    if not classifies and (gate or content.get("labels") == CLASSES):
        yield f"gate and the labels {', '.join(CLASSES)} are for the role 'classify' only"
    if not classifies:
        return
    if not isinstance(gate, dict) or set(gate) != set(_GATE_RULES):
        yield f"gate is {gate!r}, expected an object with {', '.join(_GATE_RULES)}"
        return
    for name, (accepts, expected) in _GATE_RULES.items():
        if not accepts(gate[name]):
            yield f"gate.{name} is {gate[name]!r}, expected {expected}"


def _is_numbers(value: Any, count: int, low: float, whole: bool = False) -> bool:
    kinds = (int,) if whole else (int, float)
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, kinds) and not isinstance(v, bool) and v > low for v in value)
    )


def _is_ranges(value: Any) -> bool:
    return isinstance(value, list) and (
        not value or (len(value) == 3 and all(_is_numbers(pair, 2, 0) and pair[0] < pair[1] for pair in value))
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_labels(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("background") == 0
        and "liver" in value
        and sorted(value.values(), key=str) == list(range(len(value)))
    )


_TEXT = (_is_text, "a text")
_RULES = {
    "id": _TEXT,
    "title": _TEXT,
    "version": _TEXT,
    "license": _TEXT,
    "intended_use": _TEXT,
    "role": (lambda v: v in ROLES, f"one of {', '.join(ROLES)}"),
    "architecture": (lambda v: v in ARCHITECTURES, f"one of {', '.join(ARCHITECTURES)}"),
    "arguments": (lambda v: isinstance(v, dict), "an object"),
    "inputs": (
        lambda v: isinstance(v, list) and v[:1] == ["ct"] and all(i in INPUTS for i in v) and len(set(v)) == len(v),
        f"a list that begins with 'ct', of {', '.join(INPUTS)}",
    ),
    "labels": (
        lambda v: _is_labels(v) or v == CLASSES,
        "an object with background = 0, liver, and consecutive channel numbers",
    ),
    "spacing_mm": (lambda v: _is_numbers(v, 3, 0), "three positive numbers in mm along R, A, S"),
    "patch_size": (lambda v: _is_numbers(v, 3, 7, whole=True), "three whole numbers of at least 8 voxels"),
    "window_hu": (lambda v: _is_numbers(v, 2, -5000) and v[0] < v[1], "two rising numbers in HU"),
    "margin_mm": (lambda v: _is_numbers([v], 1, -1e-9), "a number of millimetres, not negative"),
    "min_lesion_peak": (lambda v: _is_numbers([v], 1, -1e-9) and v < 1, "a number from 0 to below 1"),
    "min_lesion_confidence": (lambda v: _is_numbers([v], 1, -1e-9) and v < 1, "a number from 0 to below 1"),
    "mirror_axes": (
        lambda v: isinstance(v, list) and all(a in ("R", "A", "S") for a in v) and len(set(v)) == len(v),
        "a list of some of R, A, S",
    ),
    "overlap": (lambda v: _is_numbers([v], 1, -1e-9) and v < 1, "a number from 0 to below 1"),
    "input_spacing_mm": (_is_ranges, "three pairs of rising numbers in mm, or nothing"),
    "weights_file": (
        lambda v: _is_text(v) and Path(v).name == v and v.endswith(".safetensors"),
        "the name of a .safetensors file in the same folder",
    ),
    "weights_sha256": (
        lambda v: isinstance(v, str) and len(v) == 64 and set(v) <= set("0123456789abcdef"),
        "64 hexadecimal digits",
    ),
    "training_data": (lambda v: isinstance(v, list) and all(isinstance(t, str) for t in v), "a list of texts"),
    "measured": (lambda v: isinstance(v, dict), "an object"),
}
_GATE_RULES = {
    "mask": (lambda v: v in MASKS, f"one of {', '.join(MASKS)}"),
    "level": (lambda v: v in LEVELS, f"one of {', '.join(LEVELS)}"),
    "context": (lambda v: _is_numbers([v], 1, -1, whole=True), "a whole number, not negative"),
    "top": (lambda v: _is_numbers([v], 1, 0, whole=True), "a whole number of at least 1"),
    "threshold": (lambda v: _is_numbers([v], 1, -1e-9) and v <= 1, "a number from 0 to 1"),
}
