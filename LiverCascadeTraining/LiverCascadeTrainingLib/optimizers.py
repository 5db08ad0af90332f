"""Optimizers and schedules of the learning rate by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .names import SettingError, check_arguments, check_name, check_number, settings_of


def _adam(
    parameters: Iterable,
    *,
    learning_rate: float = 1e-4,
    weight_decay: float = 0.0,
    betas: Sequence[float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, betas=tuple(betas))


def _adamw(
    parameters: Iterable,
    *,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    betas: Sequence[float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, betas=tuple(betas))


def _sgd(
    parameters: Iterable,
    *,
    learning_rate: float = 0.01,
    momentum: float = 0.99,
    nesterov: bool = True,
    weight_decay: float = 3e-5,
) -> torch.optim.Optimizer:
    if nesterov and not momentum:
        raise SettingError("nesterov needs a momentum above 0; set nesterov: false, or a momentum.")
    return torch.optim.SGD(
        parameters, lr=learning_rate, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
    )


# Name → maker; its keyword arguments are the settings that a configuration may name.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": _adam, "adamw": _adamw, "sgd": _sgd}


def optimizer_settings(name: str) -> dict[str, Any]:
    """What an optimizer can be told, with the defaults.

    Raises:
        SettingError: no such optimizer.
    """
    return settings_of(OPTIMIZERS[check_name(name, OPTIMIZERS, "optimizer")])


def build_optimizer(name: str, parameters: Iterable, **arguments: Any) -> torch.optim.Optimizer:
    """An optimizer by name.

    Args:
        name: one of :data:`OPTIMIZERS`.
        parameters: what PyTorch's optimizers take.
        arguments: settings that are to be others than :func:`optimizer_settings` says.

    Raises:
        SettingError: unknown optimizer or setting, or one that is out of range.
    """
    check_arguments(arguments, optimizer_settings(name), f"the optimizer {name!r}")
    settings = {**optimizer_settings(name), **arguments}
    check_number(settings["learning_rate"], "learning_rate", 0, low_included=False)
    check_number(settings["weight_decay"], "weight_decay", 0)
    if "momentum" in settings:
        check_number(settings["momentum"], "momentum", 0, 1, high_included=False)
    if "betas" in settings:
        if not isinstance(settings["betas"], list | tuple) or len(settings["betas"]) != 2:
            raise SettingError(f"betas is {settings['betas']!r}, expected two numbers.")
        for value in settings["betas"]:
            check_number(value, "betas", 0, 1, high_included=False)
    if "nesterov" in settings and not isinstance(settings["nesterov"], bool):
        raise SettingError(f"nesterov is {settings['nesterov']!r}, expected true or false.")
    return OPTIMIZERS[name](parameters, **settings)


def _constant(share: float, *, warmup: float = 0.0) -> float:
    return 1.0


def _poly(share: float, *, power: float = 0.9, warmup: float = 0.0) -> float:
    return (1 - share) ** power


def _cosine(share: float, *, floor: float = 0.01, warmup: float = 0.05) -> float:
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def _one_cycle(share: float, *, warmup: float = 0.3, start: float = 0.04, floor: float = 1e-5) -> float:
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


# Name → factor of the learning rate at a share 0…1 of the steps that follow the warm-up.
SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": _constant,
    "poly": _poly,
    "cosine": _cosine,
    "one-cycle": _one_cycle,
}


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run, as a function of the step alone, so that a resumed run goes on as it was.

    Attributes:
        name: one of :data:`SCHEDULES`.
        steps: of the whole run.
        settings: complete; ``warmup`` is the share of the steps in which the rate rises: linearly, and for 'one-cycle'
            along a cosine from ``start``, as in Smith and Topin, 2019 (arXiv:1708.07120).
    """

    name: str
    steps: int
    settings: dict[str, float]

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied with at ``step``, counted from 0."""
        warmup = self.settings["warmup"]
        warm = max(1, int(self.steps * warmup)) if warmup else 0
        if step < warm:
            if self.name != "one-cycle":
                return (step + 1) / warm
            start = self.settings["start"]
            return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * (step + 1) / warm))
        share = min(1.0, (step - warm) / max(1, self.steps - warm))
        return SCHEDULES[self.name](share, **self.settings)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """The same for PyTorch and Lightning; to be stepped after each optimizer step."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor)


def schedule_settings(name: str) -> dict[str, Any]:
    """What a schedule can be told, with the defaults.

    Raises:
        SettingError: no such schedule.
    """
    return settings_of(SCHEDULES[check_name(name, SCHEDULES, "schedule")])


def build_schedule(name: str, steps: int, **arguments: Any) -> Schedule:
    """A schedule by name.

    Args:
        name: one of :data:`SCHEDULES`.
        steps: of the whole run.
        arguments: settings that are to be others than :func:`schedule_settings` says.

    Raises:
        SettingError: unknown schedule or setting, or one that is out of range.
    """
    check_arguments(arguments, schedule_settings(name), f"the schedule {name!r}")
    settings = {**schedule_settings(name), **arguments}
    check_number(steps, "steps", 1, whole=True)
    for setting, value in settings.items():
        if setting == "power":
            check_number(value, setting, 0)
        else:
            check_number(value, setting, 0, 1, high_included=False)
    return Schedule(name, steps, settings)
