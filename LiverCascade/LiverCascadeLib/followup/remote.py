"""Comparison in a process of its own: what it and whoever started it say to each other.

The process is ``PYTHON -m LiverCascadeLib.followup`` (:func:`comparison_command`). One JSON object per line, as in
:mod:`..jobs`. To the process: ``{"command": "compare", "id", "before", "after"}`` with two sides. From it: ``ready``,
then for each comparison ``progress`` events and one ``done`` (with ``step``) or ``error``. The sides are small enough
to travel as text, so that no file is left behind, whatever ends the process.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from ..findings import Finding, Severity
from ..geometry import Grid
from ..jobs import worker_command
from .comparison import Side, Step
from .deformation import Deformation
from .liver_sample import LiverSample
from .matching import Body, Group
from .registration import Quality, Registration


def comparison_command(python: str | None = None) -> tuple[str, list[str], dict[str, str]]:
    """How to start the process: program, arguments, and what to add to its environment.

    Args:
        python: the interpreter; None takes Slicer's own inside Slicer and this process's elsewhere.
    """
    program, _, environment = worker_command(python)
    return program, ["-m", "LiverCascadeLib.followup"], environment


def compare_message(job_id: str, before: Side, after: Side) -> dict[str, Any]:
    """The message that starts a comparison."""
    return {"command": "compare", "id": job_id, "before": side_as_dict(before), "after": side_as_dict(after)}


def side_as_dict(side: Side) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
        "sample": sample_as_dict(side.sample),
        "grid": _grid_as_dict(side.grid),
        "bodies": [
            {
                "label": body.label,
                "volume_ml": body.volume_ml,
                "reach_mm": body.reach_mm,
                "points": _packed(body.points.astype(np.float64)),
            }
            for body in side.bodies
        ],
    }


def side_from_dict(values: dict[str, Any]) -> Side:
    """The inverse of :func:`side_as_dict`."""
    bodies = tuple(
        Body(
            int(body["label"]),
            float(body["volume_ml"]),
            _unpacked(body["points"], np.float64, (-1, 3)),
            float(body["reach_mm"]),
        )
        for body in values["bodies"]
    )
    return Side(sample_from_dict(values["sample"]), bodies, _grid(values["grid"]))


def step_as_dict(step: Step) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {"registration": registration_as_dict(step.registration), "groups": [vars(group) for group in step.groups]}


def step_from_dict(values: dict[str, Any]) -> Step:
    """The inverse of :func:`step_as_dict`."""
    groups = tuple(
        Group(**{**group, "before": tuple(group["before"]), "after": tuple(group["after"])})
        for group in values["groups"]
    )
    return Step(registration_from_dict(values["registration"]), groups)


def sample_as_dict(sample: LiverSample) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
        "grid": _grid_as_dict(sample.grid),
        "hu": _packed(sample.hu),
        "liver": _packed(sample.liver),
        "lesions": _packed(sample.lesions),
        "cut": [list(ends) for ends in sample.cut],
    }


def sample_from_dict(values: dict[str, Any]) -> LiverSample:
    """The inverse of :func:`sample_as_dict`."""
    grid = _grid(values["grid"])
    arrays = [
        _unpacked(values[key], dtype, grid.shape)
        for key, dtype in (("hu", np.int16), ("liver", np.uint8), ("lesions", np.uint8))
    ]
    return LiverSample(grid, *arrays, tuple((bool(low), bool(high)) for low, high in values["cut"]))


def registration_as_dict(registration: Registration) -> dict[str, Any]:
    """Plain values, for JSON."""
    deformation = registration.deformation
    return {
        "grid": _grid_as_dict(deformation.grid),
        "displacement": _packed(deformation.displacement),
        "rigid": registration.rigid.tolist(),
        "quality": {key: float(value) for key, value in vars(registration.quality).items()},
        "findings": [finding.as_dict() for finding in registration.findings],
    }


def registration_from_dict(values: dict[str, Any]) -> Registration:
    """The inverse of :func:`registration_as_dict`."""
    grid = _grid(values["grid"])
    displacement = _unpacked(values["displacement"], np.float32, (*grid.shape, 3))
    return Registration(
        Deformation(grid, displacement),
        np.array(values["rigid"]),
        Quality(**values["quality"]),
        tuple(Finding(f["code"], Severity(f["severity"]), f["message"]) for f in values["findings"]),
    )


def _grid_as_dict(grid: Grid) -> dict[str, Any]:
    return {"size": list(grid.size), "ijk_to_ras": grid.ijk_to_ras.tolist()}


def _grid(values: dict[str, Any]) -> Grid:
    return Grid(values["size"], np.array(values["ijk_to_ras"]))


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode("ascii")


def _unpacked(text: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype).reshape(shape)
