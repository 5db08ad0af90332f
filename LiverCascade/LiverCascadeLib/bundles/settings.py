"""What a TorchScript model wants, from ``settings`` in its ``stage.json``: the file itself does not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ModelError
from ..models.stage_file import StageFile
from .plan import Clip, Described, Network, Normalize, Plan, Rescale, Step

_FIELDS = ("spacing_mm", "patch_size", "intensity", "outputs", "activation")
_OPTIONAL = {
    "overlap": 0.25,
    "mode": "gaussian",
    "padding": "constant",
    "padding_value": 0.0,
    "threshold": 0.5,
    "axis_order": "ijk",
    "half": True,
}


def read_settings(model: StageFile) -> Described:
    """How the TorchScript model is run.

    Raises:
        ModelError: something is missing, unknown or not possible; the message names the field.
    """
    settings = model.settings
    problems = list(_problems(settings))
    if problems:
        raise ModelError(f"The settings in {model.folder / 'stage.json'} are not valid: {'; '.join(problems)}.")
    given = {**_OPTIONAL, **settings}
    softmax = given["activation"] == "softmax"
    # Lists run along i, j, k; an array whose axes run along k, j, i wants them turned around.
    forward = given["axis_order"] == "ijk"
    turn = 1 if forward else -1
    steps = _steps(given["intensity"])
    plan = Plan(
        orientation=model.orientation,
        transpose=(2, 1, 0) if forward else (0, 1, 2),
        spacing=tuple(float(n) for n in given["spacing_mm"])[::turn],
        before=(),
        after=steps,
        crop_above_zero=False,
        patch_size=tuple(given["patch_size"])[::turn],
        overlap=(float(given["overlap"]),) * 3,
        gaussian=given["mode"] == "gaussian",
        sigma=(0.125,) * 3,
        padding=given["padding"],
        padding_value=float(given["padding_value"]),
        softmax=softmax,
        threshold=float(given["threshold"]),
        outputs=len(given["outputs"]),
        half=given["half"],
    )
    first = 0 if softmax else 1
    return Described(plan, Network(model.model), dict(enumerate(given["outputs"], start=first)))


def _steps(intensity: Mapping[str, Any]) -> tuple[Step, ...]:
    if "window" in intensity:
        low, high = intensity["window"]
        start, stop = intensity.get("range", (0.0, 1.0))
        return (Rescale(float(low), float(high), float(start), float(stop), clip=True),)
    low, high = intensity["clip"]
    return Clip(float(low), float(high)), Normalize(float(intensity["mean"]), float(intensity["std"]))


def _problems(settings: Mapping[str, Any]):
    """Yields what is wrong, in words."""
    known = (*_FIELDS, *_OPTIONAL)
    yield from (f"{name} is missing" for name in _FIELDS if name not in settings)
    yield from (f"{name} is not a known field" for name in settings if name not in known)
    for name, (accepts, expected) in _RULES.items():
        if name in settings and not accepts(settings[name]):
            yield f"{name} is {settings[name]!r}, expected {expected}"
    if settings.get("activation") == "softmax" and len(settings.get("outputs") or ()) == 1:
        yield "outputs has one name, and a softmax needs two at least, the first for background"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _is_triple(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(accepts, value))


def _is_ends(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _is_intensity(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if "window" in value:
        return set(value) <= {"window", "range"} and all(map(_is_ends, value.values()))
    if set(value) != {"clip", "mean", "std"} or not _is_ends(value["clip"]):
        return False
    return _is_number(value["mean"]) and _is_number(value["std"]) and value["std"] > 0


def _is_outputs(value: Any) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 256 and all(isinstance(n, str) and n for n in value)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "spacing_mm": (lambda v: _is_triple(v, lambda n: _is_number(n) and n > 0), "three numbers of mm above 0"),
    "patch_size": (lambda v: _is_triple(v, lambda n: type(n) is int and 1 <= n <= 1024), "three numbers of voxels"),
    "intensity": (
        _is_intensity,
        '{"window": [low, high], "range": [0, 1]} or {"clip": [low, high], "mean": number, "std": number above 0}',
    ),
    "outputs": (_is_outputs, "a list of names, one for each channel"),
    "activation": (lambda v: v in ("softmax", "sigmoid"), "'softmax' or 'sigmoid'"),
    "overlap": (lambda v: _is_number(v) and 0 <= v < 1, "a share from 0 to below 1"),
    "mode": (lambda v: v in ("gaussian", "constant"), "'gaussian' or 'constant'"),
    "padding": (lambda v: v in ("constant", "replicate"), "'constant' or 'replicate'"),
    "padding_value": (_is_number, "a number"),
    "threshold": (lambda v: _is_number(v) and 0 < v < 1, "a number between 0 and 1"),
    "axis_order": (lambda v: v in ("ijk", "kji"), "'ijk' or 'kji'"),
    "half": (lambda v: isinstance(v, bool), "true or false"),
}
