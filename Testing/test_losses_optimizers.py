"""Optimizers and schedules by name."""

from __future__ import annotations

import pytest
import torch
from LiverCascadeTrainingLib.names import SettingError
from LiverCascadeTrainingLib.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    build_optimizer,
    build_schedule,
    optimizer_settings,
    schedule_settings,
)


def weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([3.0, -2.0]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill_and_says_what_it_can_be_told(name):
    parameter = weight()
    optimizer = build_optimizer(name, [parameter], **{**optimizer_settings(name), "learning_rate": 0.01})
    for _ in range(5):
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        optimizer.step()
    assert float((parameter**2).sum()) < 13


def test_defaults_are_those_of_the_papers():
    adam = build_optimizer("adam", [weight()]).defaults
    assert adam["lr"] == 1e-4 and adam["weight_decay"] == 0
    sgd = build_optimizer("sgd", [weight()]).defaults
    assert (sgd["lr"], sgd["momentum"], sgd["nesterov"], sgd["weight_decay"]) == (0.01, 0.99, True, 3e-5)
    assert isinstance(build_optimizer("adamw", [weight()]), torch.optim.AdamW)


def test_schedules_have_their_known_values():
    poly = build_schedule("poly", 1000)
    assert [poly.factor(step) for step in (0, 500, 1000)] == pytest.approx([1, 0.5**0.9, 0])
    cosine = build_schedule("cosine", 1000)
    assert [cosine.factor(step) for step in (0, 49, 50, 525, 1000)] == pytest.approx([0.02, 1, 1, 0.505, 0.01])
    cycle = build_schedule("one-cycle", 1000)
    factors = [cycle.factor(step) for step in range(1001)]
    assert max(factors) == pytest.approx(1) and factors.index(max(factors)) in (299, 300)
    assert factors[0] == pytest.approx(0.04, abs=1e-3) and factors[-1] == pytest.approx(1e-5)
    constant = build_schedule("constant", 10, warmup=0.5)
    assert [constant.factor(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_a_function_of_the_step_and_never_negative(name):
    schedule = build_schedule(name, 7, **schedule_settings(name))
    factors = [schedule.factor(step) for step in range(20)]
    assert all(0 <= factor <= 1 for factor in factors)
    optimizer = build_optimizer("adamw", [weight()], learning_rate=0.5)
    scheduler = schedule.scheduler(optimizer)
    for step in range(6):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * factors[step])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("build", "name", "settings", "text"),
    [
        (build_optimizer, "adm", {}, "Did you mean 'adam'"),
        (build_optimizer, "adam", {"momentum": 0.9}, "no setting of the optimizer 'adam' 'momentum'"),
        (build_optimizer, "adamw", {"learning_rate": 0}, "learning_rate is 0, expected a number above 0"),
        (build_optimizer, "adamw", {"betas": [0.9]}, "expected two numbers"),
        (build_optimizer, "adamw", {"betas": [0.9, 1]}, "betas is 1, expected a number from 0 to below 1"),
        (build_optimizer, "sgd", {"momentum": 1}, "momentum is 1, expected a number from 0 to below 1"),
        (build_optimizer, "sgd", {"momentum": 0}, "nesterov needs a momentum"),
        (build_optimizer, "sgd", {"nesterov": "yes"}, "expected true or false"),
        (build_schedule, "onecycle", {}, "Did you mean 'one-cycle'"),
        (build_schedule, "poly", {"floor": 0.1}, "no setting of the schedule 'poly' 'floor'"),
        (build_schedule, "cosine", {"warmup": 1.0}, "warmup is 1.0"),
        (build_schedule, "poly", {"power": -1}, "power is -1"),
    ],
)
def test_unknown_names_and_settings_out_of_range_are_refused(build, name, settings, text):
    first = [weight()] if build is build_optimizer else 100
    with pytest.raises(SettingError, match=text):
        build(name, first, **settings)


def test_a_run_without_steps_is_refused():
    with pytest.raises(SettingError, match="steps is 0"):
        build_schedule("poly", 0)
