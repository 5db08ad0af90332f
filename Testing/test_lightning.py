"""Training runs: configuration, exact resumption, checkpoints, validation, export, and what else a run must do."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.models import load_manifest, load_network
from LiverCascadeTrainingLib import cli
from LiverCascadeTrainingLib.cases import _save, load_cases
from LiverCascadeTrainingLib.data.cache import Cache
from LiverCascadeTrainingLib.names import SettingError
from LiverCascadeTrainingLib.training.ablation import ablate
from LiverCascadeTrainingLib.training.callbacks import read_metrics
from LiverCascadeTrainingLib.training.config import (
    UnlabeledSection,
    changed,
    changes_from,
    config_from,
    load_run_config,
)
from LiverCascadeTrainingLib.training.delivery import best_checkpoint, export_run
from LiverCascadeTrainingLib.training.fit import Machine, fit
from LiverCascadeTrainingLib.training.judging import CaseScore, figures_of
from LiverCascadeTrainingLib.training.module import SegmentationModule
from LiverCascadeTrainingLib.training.record import RunFolder
from LiverCascadeTrainingLib.training.sources import DataPlaces, StepSampler
from LiverCascadeTrainingLib.training.unlabeled import ramp, unlabeled_loss
from small_runs import small_config, small_content, small_data

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATIONS = ROOT / "LiverCascadeTraining" / "Resources" / "Configurations"
HERE = Machine("cpu", workers=0, quiet=True)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return small_data(tmp_path_factory.mktemp("data"), unlabeled=2)


@pytest.fixture(scope="module")
def finished(places, tmp_path_factory):
    """An undisturbed run of six steps."""
    folder = tmp_path_factory.mktemp("run") / "locate"
    return folder, fit(small_config(), folder, places, HERE)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


def test_the_committed_configurations_are_valid():
    paths = [path for path in sorted(CONFIGURATIONS.glob("*.yaml")) if "classify" not in path.stem]
    roles = {path.stem: load_run_config(path).role for path in paths}
    assert roles == {
        "default-context": "refine",
        "default-context-contrast": "refine",
        "default-context-neighbors": "refine",
        "default-context-shaped": "refine",
        "default-context-small-lesions": "refine",
        "default-context-unseen": "refine",
        "default-context-visible": "refine",
        "default-context-lesions": "refine",
        "default-locate": "locate",
        "default-locate-reviewed": "locate",
        "default-refine": "refine",
        "default-refine-contrast": "refine",
        "default-refine-neighbors": "refine",
        "default-refine-shaped": "refine",
        "default-refine-small-lesions": "refine",
        "default-refine-unseen": "refine",
        "default-refine-visible": "refine",
        "default-refine-lesions": "refine",
        "default-refine-patchy": "refine",
        "default-refine-priors": "refine",
        "default-refine-tune": "refine",
        "leave-out-context": "refine",
        "leave-out-locate": "locate",
        "leave-out-refine": "refine",
        "lits-locate": "locate",
        "lits-refine": "refine",
        "msd-locate": "locate",
        "msd-refine": "refine",
        "small-locate": "locate",
        "small-plain": "locate",
        "small-refine": "refine",
        "trial-context-mistaken": "refine",
        "trial-refine-handed": "refine",
        "trial-refine-mistaken": "refine",
        "trial-refine-real": "refine",
        "trial-refine-trust": "refine",
    }


def test_a_configuration_written_in_full_reads_back_the_same(tmp_path):
    config = small_config("refine", prepared={"sampling": {"strategy": "lesions"}, "synthetic_chance": 0.5})
    config.save(tmp_path / "c.yaml")
    again = load_run_config(tmp_path / "c.yaml")
    assert again.as_dict() == config.as_dict()
    assert again.patch_spec() == config.patch_spec()
    text = (tmp_path / "c.yaml").read_text()
    assert "rotation_chance" in text and "weight_decay" in text and "patience" in text


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trainning": {}}, "'trainning'.*'training'"),
        ({"training": {"batchsize": 2}}, "training.*'batchsize'.*'batch_size'"),
        ({"training": {"steps": "many"}}, "training.steps is 'many', expected a whole number"),
        ({"training": {"steps": 7}}, "multiple of validation.every"),
        ({"training": {"precision": "bf32"}}, "'bf32'.*bf16"),
        ({"training": {"ema_decay": 1.0}}, "ema_decay is 1.0"),
        ({"optimizer": {"name": "adamm"}}, "'adamm'.*'adam"),
        ({"optimizer": {"name": "adam", "arguments": {"learning_rat": 1}}}, "'learning_rat'.*'learning_rate'"),
        ({"loss": {"name": "dicece"}}, "'dicece'.*'dice-ce'"),
        ({"schedule": {"name": "poly", "arguments": {"powr": 1.0}}}, "'powr'.*'power'"),
        ({"network": {"preset": "dynunet"}}, "network: name either a preset or an architecture"),
        ({"network": {"architecture": "Unet"}}, "'Unet'.*'UNet'"),
        ({"grid": {"patch_size": [16, 16]}}, "grid.patch_size has 2 values, expected 3"),
        ({"grid": {"spacing_mm": [1.0, 1.0, "1e0mm"]}}, r"grid.spacing_mm\[2\]"),
        ({"prepared": {"sampling": {"strategy": "lesion"}}}, "'lesion'.*lesions"),
        ({"prepared": {"augmentation": {"rotation_chanc": 0.1}}}, "'rotation_chanc'.*'rotation_chance'"),
        ({"prepared": {"share": 0.0}}, "nothing to train on"),
        ({"unlabeled": {"method": "mean-techer"}}, "'mean-techer'.*'mean-teacher'"),
        ({"role": "refind"}, "'refind'.*'refine'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_in_words(sections, message):
    with pytest.raises(SettingError, match=message):
        small_config(**sections)


def test_a_missing_section_is_named():
    content = small_content()
    del content["grid"]
    with pytest.raises(SettingError, match="grid is missing"):
        config_from(content)


def test_samples_of_a_step_do_not_depend_on_the_number_of_devices_or_on_stops():
    alone = list(StepSampler(4, 2))
    assert alone == [[0, 1], [2, 3], [4, 5], [6, 7]]
    shared = [list(StepSampler(4, 2, rank, 2)) for rank in range(2)]
    assert [[*a, *b] for a, b in zip(*shared, strict=True)] == alone
    resumed = StepSampler(4, 2)
    resumed.passes_done = lambda: 6
    assert list(resumed) == [[12, 13], [14, 15]] and len(resumed) == 4
    with pytest.raises(InputError, match="cannot be shared among 3"):
        StepSampler(4, 2, 0, 3)


@pytest.mark.parametrize("stops", [[1, 2, 3, 4, 5], [3], [4]])
def test_a_stopped_and_resumed_run_ends_with_the_same_weights(finished, places, tmp_path, stops):
    config = small_config()
    for stop in [*stops, None]:
        module = fit(config, tmp_path, places, HERE, until=stop)
        assert module.stopped_at == (stop or 6)
    assert same(finished[1], module)
    names = ("step", "epoch", "loss", "dice")
    figures = [
        [[row[name] for name in names] for row in read_metrics(folder / "metrics.csv")]
        for folder in (finished[0], tmp_path)
    ]
    assert figures[0] == figures[1]
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=False) for f in (finished[0], tmp_path)]
    for one, other in zip(*(s["optimizer_states"][0]["state"].values() for s in states), strict=True):
        assert torch.equal(one["exp_avg"], other["exp_avg"]) and one["step"] == other["step"]
    assert states[0]["lr_schedulers"][0]["last_epoch"] == states[1]["lr_schedulers"][0]["last_epoch"] == 6


def test_accumulated_passes_give_the_step_of_a_large_batch(places, tmp_path):
    network = {"arguments": {**small_content()["network"]["arguments"], "dropout": 0.0}}
    # Cross-entropy is a mean over samples; Adam would blow rounding up.
    more = {"loss": {"name": "ce"}, "optimizer": {"name": "sgd", "arguments": {}}, "network": network}
    large, small = (
        small_config(training={"steps": 3, "batch_size": batch, "accumulate": 4 // batch}, **more) for batch in (4, 2)
    )
    modules = [fit(config, tmp_path / str(n), places, HERE) for n, config in enumerate((large, small))]
    for (name, one), other in zip(modules[0].state_dict().items(), modules[1].state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5), name
    fit(small, tmp_path / "parts", places, HERE, until=2)
    assert same(modules[1], fit(small, tmp_path / "parts", places, HERE))


def test_it_does_not_matter_where_samples_get_their_look(places, tmp_path):
    # Adam would blow rounding up.
    config = small_config(loss={"name": "ce"}, optimizer={"name": "sgd", "arguments": {}})
    machines = [Machine("cpu", workers=n, quiet=True, look_on_device=bool(n)) for n in range(2)]
    modules = [fit(config, tmp_path / str(n), places, machine) for n, machine in enumerate(machines)]
    for (name, one), other in zip(modules[0].state_dict().items(), modules[1].state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-4), name


def test_a_run_folder_says_what_is_needed_to_repeat_the_run(finished, places):
    folder, _ = finished
    record = json.loads((folder / "run.json").read_text())
    session = record["sessions"][0]
    assert record["data"]["fingerprint"] and record["data"]["cases"]["train"] and record["data"]["cases"]["validation"]
    assert session["versions"]["torch"] == torch.__version__ and session["versions"]["lightning"]
    assert session["command"] and session["environment"]["cpus"]
    assert set(record["git"]) >= {"commit"}
    assert RunFolder(folder).config().as_dict() == small_config().as_dict()
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "run.json", "metrics.csv", "tensorboard"}
    assert not list(folder.rglob("*.part"))


def test_a_run_is_not_continued_with_another_configuration_or_other_data(finished, places, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    with pytest.raises(InputError, match=r"another configuration.*learning_rate"):
        optimizer = {"name": "adamw", "arguments": {"learning_rate": 0.02}}
        fit(small_config(optimizer=optimizer), tmp_path / "run", places, HERE)
    other = small_data(tmp_path, cases=5)
    with pytest.raises(InputError, match="other data"):
        fit(small_config(), tmp_path / "run", other, HERE)


def test_the_best_checkpoints_are_kept_and_the_best_is_exported(finished, tmp_path):
    folder, module = finished
    rows = {int(row["step"]): float(row["dice"]) for row in read_metrics(folder / "metrics.csv") if row["dice"]}
    kept = sorted(path.name for path in (folder / "checkpoints").glob("step*.ckpt"))
    assert kept == sorted(f"step{step:07d}-dice{dice:.4f}.ckpt" for step, dice in rows.items())
    best = max(rows, key=rows.get)
    assert best_checkpoint(folder).name.startswith(f"step{best:07d}")
    manifest = export_run(folder, tmp_path / "model", sources=["made up for a test"])
    assert manifest.measured["training_steps"] == best
    assert manifest.measured["validation"]["dice_liver"] == pytest.approx(rows[best], abs=1e-5)
    read = load_manifest(tmp_path / "model")
    assert read == manifest and read.training_data == ("made up for a test",)
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "By the validation during training" in card and "ircadb" not in card.lower()
    last = export_run(folder, tmp_path / "last", "last")
    image = torch.rand(1, 1, 16, 16, 16)
    assert torch.allclose(load_network(last)(image), module.average(image), atol=0.05)  # stored in half precision


def test_no_more_checkpoints_are_kept_than_wanted(places, tmp_path):
    config = small_config(validation={"every": 1, "keep": 2})
    fit(config, tmp_path, places, HERE)
    rows = [float(row["dice"]) for row in read_metrics(tmp_path / "metrics.csv") if row["dice"]]
    kept = [float(path.stem.split("dice")[1]) for path in (tmp_path / "checkpoints").glob("step*.ckpt")]
    assert len(rows) == 6 and len(kept) == 2
    assert sorted(kept) == pytest.approx(sorted(rows)[-2:], abs=1e-4)


def test_training_stops_early_where_nothing_gets_better(places, tmp_path):
    optimizer = {"name": "adamw", "arguments": {"learning_rate": 1e-12, "weight_decay": 0.0}}
    config = small_config(optimizer=optimizer, training={"steps": 20}, validation={"every": 2, "patience": 2})
    module = fit(config, tmp_path, places, HERE)
    assert module.stopped_at == 6  # the first validation, and two that are no better
    rows = read_metrics(tmp_path / "metrics.csv")
    assert fit(config, tmp_path, places, HERE).stopped_at == 6
    assert read_metrics(tmp_path / "metrics.csv") == rows


def test_training_lowers_the_loss_and_draws_curves_and_pictures(places, tmp_path):
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    network = {"arguments": {**small_content()["network"]["arguments"], "channels": [8, 16], "dropout": 0.0}}
    training = {"steps": 320, "log_every": 1, "precision": "bf16", "checkpoint_every": 50}
    config = small_config(training=training, validation={"every": 160}, network=network)
    fit(config, tmp_path, places, HERE)
    rows = read_metrics(tmp_path / "metrics.csv")
    losses = [float(row["loss"]) for row in rows if row["loss"]]
    judged = [float(row["dice"]) for row in rows if row["dice"]]
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.1
    assert judged[-1] > 0.5
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"training/loss", "training/loss_dice", "training/learning_rate", "validation/dice"} <= set(
        events.Tags()["scalars"]
    )
    assert [e.step for e in events.Scalars("validation/dice")] == [160, 320]
    assert [e.step for e in events.Images("overlay")] == [160, 320]
    assert events.Images("sweep")[-1].encoded_image_string[:6] == b"GIF89a"
    with Image.open(tmp_path / "sweeps" / "step0000160.gif") as sweep:
        assert sweep.n_frames > 8


def test_the_average_follows_the_weights_as_its_formula_says(places, tmp_path):
    config = small_config(training={"ema_decay": 0.5, "steps": 3})
    first = fit(config, tmp_path, places, HERE, until=1)
    start = SegmentationModule(config).state_dict()
    name = next(key for key in start if key.startswith("network.") and key.endswith("weight"))
    twin = name.replace("network.", "average.", 1)
    decay = min(0.5, 1 / 10)
    expected = decay * start[name] + (1 - decay) * first.state_dict()[name]
    assert torch.allclose(first.state_dict()[twin], expected, atol=1e-6)
    assert not torch.equal(first.state_dict()[twin], first.state_dict()[name])


def test_a_step_with_a_gradient_that_is_not_finite_is_left_out():
    module = SegmentationModule(small_config())
    parameter = next(module.network.parameters())
    parameter.grad = torch.full_like(parameter, float("nan"))
    module.configure_gradient_clipping(None)
    assert parameter.grad is None
    parameter.grad = torch.full_like(parameter, 1000.0)
    module.configure_gradient_clipping(None)
    assert float(parameter.grad.norm()) == pytest.approx(5.0, rel=1e-4)


def test_figures_of_a_validation_are_those_counted_by_hand():
    scores = [
        CaseScore("a", (90, 100, 100), (5, 10, 10)),
        CaseScore("b", (50, 100, 100), (0, 4, 0)),
        CaseScore("c", (100, 100, 100), (10, 10, 30)),
        CaseScore("d", (0, 0, 0), None),
    ]
    figures = figures_of(scores)
    assert figures["dice_liver"] == pytest.approx((0.9 + 0.5 + 1 + 1) / 4)
    assert figures["dice_lesion"] == pytest.approx((0.5 + 0.5) / 2)
    assert figures["dice_lesion_pooled"] == pytest.approx(30 / 60)
    assert figures["false_lesion_cases"] == 1
    assert figures["dice"] == pytest.approx((0.85 + 0.5) / 2)
    assert figures_of([]) == {"dice": 0.0}


@pytest.mark.parametrize(
    ("preset", "arguments"),
    [
        ("dynunet", {"filters": [4, 8, 8, 8]}),
        ("unet-2.5d", {"channels": [4, 8, 8]}),
        ("multi-level", {"filters": [4, 8, 8, 8], "features": 4}),
    ],
)
def test_deep_flat_and_many_headed_networks_train_and_are_exported(places, tmp_path, preset, arguments):
    content = small_content("refine", training={"steps": 2, "precision": "bf16"}, validation={"every": 2, "cases": 1})
    content["network"] = {"preset": preset, "arguments": arguments}
    content["grid"]["patch_size"] = [32, 32, 32]
    config = config_from(content)
    module = fit(config, tmp_path, places, HERE)
    assert module.stopped_at == 2 and module.figures["dice_liver"] >= 0
    manifest = export_run(tmp_path)
    image = torch.rand(1, 2, 32, 32, 32)
    given = load_network(load_manifest(tmp_path))(image)
    assert given.shape == (1, len(manifest.labels), 32, 32, 32)
    assert torch.allclose(given, module.average(image)[:, :3], atol=0.1)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """One synthetic body and one 'real' case that hides real lesions."""
    from LiverCascadeTrainingLib.anatomy import Tissue, invent_body
    from LiverCascadeTrainingLib.painting import draw_palette
    from LiverCascadeTrainingLib.phantom import phantom_organs

    folder = tmp_path_factory.mktemp("bodies")
    rng = np.random.default_rng(3)
    tissue = invent_body(phantom_organs(rng), 2.0, rng)[::2, ::2, ::2]
    _save(folder, "phantom", "synthetic", tissue, None, (4.0, 4.0, 4.0), True)
    liver = (tissue == Tissue.LIVER).astype(np.uint8)
    hu = draw_palette(rng).mean_hu[tissue].astype(np.int16)
    _save(folder, "unknown", "real", hu, liver, (4.0, 4.0, 4.0), False)
    return folder


def test_synthetic_bodies_are_one_source_beside_prepared_data(places, bodies, tmp_path):
    alone = small_config("refine", prepared={"share": 0.0}, synthetic={"share": 1.0}, loss={"name": "cascade"})
    module = fit(alone, tmp_path / "alone", DataPlaces(bodies=bodies), HERE)
    assert module.stopped_at == 6 and not (tmp_path / "alone" / "sweeps").exists()
    assert export_run(tmp_path / "alone").measured == {"training_steps": 6}
    mixed = small_config("refine", prepared={"share": 0.6}, synthetic={"share": 0.4})
    both = DataPlaces(places.cache, places.split, bodies=bodies)
    module = fit(mixed, tmp_path / "mixed", both, HERE)
    names = {module.sources.train[n]["name"] for n in range(12)}
    assert "synthetic" in names and len(names) > 1
    again = fit(mixed, tmp_path / "parts", both, HERE, until=4)
    assert same(module, fit(mixed, tmp_path / "parts", both, HERE)) and not same(module, again)


def test_a_run_begins_with_the_averaged_weights_of_another(finished, places, tmp_path):
    with pytest.raises(InputError, match="train that run first"):
        fit(small_config(), tmp_path / "x", places, HERE, start_from=tmp_path / "nowhere")
    module = SegmentationModule(small_config())
    from LiverCascadeTrainingLib.training.fit import load_average

    load_average(module, finished[0])
    assert same(module.network, finished[1].average) and same(module.average, finished[1].average)


def test_a_run_begins_with_the_weights_of_a_model(finished, tmp_path):
    from LiverCascadeTrainingLib.training.delivery import export_run
    from LiverCascadeTrainingLib.training.fit import load_average

    export_run(finished[0], tmp_path / "model")
    module = SegmentationModule(small_config())
    load_average(module, tmp_path / "model")
    assert same(module.network, module.average)
    pairs = zip(module.network.parameters(), finished[1].average.parameters(), strict=True)
    assert all(torch.equal(ours, theirs.half().float()) for ours, theirs in pairs)
    network = {"arguments": {**small_content()["network"]["arguments"], "channels": [8, 16]}}
    with pytest.raises(InputError, match="same network"):
        load_average(SegmentationModule(small_config(network=network)), tmp_path / "model")


def test_runs_with_located_priors_ask_for_the_locate_model(places, bodies, tmp_path):
    config = small_config("refine", prepared={"share": 0.0}, synthetic={"share": 1.0, "located_share": 1.0})
    with pytest.raises(InputError, match="--locate"):
        fit(config, tmp_path, DataPlaces(bodies=bodies), HERE)
    assert len(load_cases(bodies)) == 2


@pytest.mark.parametrize(
    ("places_without", "message"),
    [({"cache": None}, "--cache"), ({"split": None}, "--split")],
)
def test_missing_data_are_asked_for(places, tmp_path, places_without, message):
    values = {"cache": places.cache, "split": places.split, **places_without}
    with pytest.raises(InputError, match=message):
        fit(small_config(), tmp_path, DataPlaces(**values), HERE)


def test_a_cache_of_another_spacing_is_refused(places, tmp_path):
    config = small_config(grid={"spacing_mm": [7.0, 7.0, 7.0]})
    with pytest.raises(InputError, match=r"no prepared cache|other settings"):
        fit(config, tmp_path, places, HERE)


def test_the_weight_of_unlabeled_samples_grows_along_its_ramp():
    section = UnlabeledSection("mean-teacher", weight=2.0, ramp_steps=100)
    assert ramp(0, section) == pytest.approx(2 * np.exp(-5))
    assert ramp(50, section) == pytest.approx(2 * np.exp(-1.25))
    assert ramp(100, section) == ramp(1000, section) == 2.0


def test_only_sure_answers_become_labels():
    section = UnlabeledSection("pseudo-labels", threshold=0.9)
    teacher = torch.tensor([[[4.0, 0.1, -4.0]], [[-4.0, 0.0, 4.0]]]).permute(1, 0, 2)
    student = torch.zeros(1, 2, 3, requires_grad=True)
    unlabeled_loss(student, teacher, section).backward()
    assert torch.equal(student.grad[0, 0].sign(), torch.tensor([-1.0, 0.0, 1.0]))
    unsure = unlabeled_loss(student, torch.zeros(1, 2, 3), section)
    assert float(unsure.detach()) == 0.0


def test_mean_teacher_and_student_that_agree_cost_nothing():
    section = UnlabeledSection("mean-teacher")
    logits = torch.randn(1, 3, 4, 4, 4)
    assert float(unlabeled_loss(logits, logits + 5, section)) < 1e-10
    assert float(unlabeled_loss(logits, -logits, section)) > 0.01


@pytest.mark.parametrize("method", ["mean-teacher", "pseudo-labels"])
def test_training_uses_ct_without_labels_and_resumes_exactly(places, finished, tmp_path, method):
    unlabeled = {"method": method, "weight": 5.0, "ramp_steps": 0, "threshold": 0.5}
    config = small_config(unlabeled=unlabeled)
    module = fit(config, tmp_path / "whole", places, HERE)
    assert module.unlabeled_samples == 12
    assert len(module.sources.names["unlabeled"]) == 2
    assert not set(module.sources.names["unlabeled"]) & set(module.sources.names["train"])
    assert module.parts["loss_unlabeled"] > 0
    assert not same(module.network, finished[1].network)
    fit(config, tmp_path / "parts", places, HERE, until=4)
    assert same(module, fit(config, tmp_path / "parts", places, HERE))


def test_unlabeled_ct_must_be_there(tmp_path):
    bare = small_data(tmp_path)
    with pytest.raises(InputError, match="--unlabeled"):
        fit(small_config(unlabeled={"method": "mean-teacher"}), tmp_path / "run", bare, HERE)


def test_a_grid_of_changes_is_trained_and_compared(places, tmp_path):
    grid = changes_from(["loss.name=dice-ce|tversky", "training.seed=1|2"])
    assert grid == {"loss.name": ["dice-ce", "tversky"], "training.seed": [1, 2]}
    content = small_content(training={"steps": 2, "checkpoint_every": 1}, validation={"every": 2})
    table = ablate(content, grid, tmp_path, places, HERE)
    assert len(table.splitlines()) == 2 + 4 and "tversky" in table
    stamps = [(tmp_path / f"{n:02d}" / "checkpoints" / "last.ckpt").stat().st_mtime_ns for n in range(4)]
    assert ablate(content, grid, tmp_path, places, HERE) == table
    assert stamps == [(tmp_path / f"{n:02d}" / "checkpoints" / "last.ckpt").stat().st_mtime_ns for n in range(4)]
    assert (tmp_path / "ablation.csv").read_text().count("\n") == 5
    with pytest.raises(SettingError, match=r"With loss.name=dic: .*'dic'"):
        ablate(content, {"loss.name": ["dice-ce", "dic"]}, tmp_path / "no", places, HERE)
    assert not (tmp_path / "no").exists()
    with pytest.raises(SettingError, match="setting=value"):
        changes_from(["loss.name"])
    assert changed({"a": {"b": 1}}, {"a.c": 2, "d.e": 3}) == {"a": {"b": 1, "c": 2}, "d": {"e": 3}}


def test_a_file_named_stop_stops_the_run_and_it_goes_on(finished, places, tmp_path):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "stop").touch()
    stopped = fit(small_config(), tmp_path, places, HERE)
    assert stopped.stopped_at == 1 and not (tmp_path / "stop").exists()
    assert same(finished[1], fit(small_config(), tmp_path, places, HERE))


def test_a_checkpoint_of_another_network_is_refused_in_words(finished, places, tmp_path):
    network = {"arguments": {**small_content()["network"]["arguments"], "channels": [8, 16]}}
    with pytest.raises(InputError, match="cannot be used"):
        fit(small_config(network=network), tmp_path, places, HERE, start_from=finished[0])


def save_yaml(path: Path, content: dict) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_commands_lead_from_a_data_set_to_a_model(places, tmp_path, capsys):
    data = places.cache.parent / "data"
    locate = save_yaml(tmp_path / "locate.yaml", small_content(training={"steps": 3}))
    assert cli.main(["check", str(data), "-o", str(tmp_path / "report")]) in (0, 2)
    report = tmp_path / "report" / "data-check.json"
    split = tmp_path / "split.json"
    assert cli.main(["split", str(data), "-o", str(split), "--scheme", "70/10/20"]) == 0
    assert json.loads(report.read_text())["format"] == "livercascade-data-check"
    cache = tmp_path / "cache"
    assert cli.main(["prepare", str(data), "--cache", str(cache), "--config", str(locate), "--split", str(split)]) == 0
    runs = tmp_path / "runs"
    common = ["--run", str(runs), "--cache", str(cache), "--split", str(split), "--accelerator", "cpu"]
    assert cli.main(["locate", str(locate), *common, "--workers", "0"]) == 0
    assert load_manifest(runs / "locate").measured["training_steps"] == 3
    refine = save_yaml(
        tmp_path / "refine.yaml", small_content("refine", training={"steps": 3}, prepared={"prior": "located"})
    )
    assert cli.main(["refine", str(refine), *common, "--workers", "0"]) == 2
    assert "No located probability" in capsys.readouterr().err
    prepare = ["prepare", str(data), "--cache", str(cache), "--config", str(refine), "--locate", str(runs / "locate")]
    assert cli.main(prepare) == 0
    key = next(path for path in cache.iterdir())
    assert all(Cache(key).case(name).prior is not None for name in Cache(key).names)
    assert cli.main(["refine", str(refine), *common, "--workers", "1"]) == 0
    assert cli.main(["card", str(runs)]) == 0
    assert cli.main(["export", str(runs / "refine"), "--to", str(tmp_path / "out"), "--checkpoint", "last"]) == 0
    assert load_manifest(tmp_path / "out").role == "refine"
    capsys.readouterr()
    assert cli.main(["locate", str(refine), *common]) == 2
    assert "configuration for 'refine'" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "nothing")]) == 2
    assert "There is no run" in capsys.readouterr().err
    assert cli.main(["locate", str(tmp_path / "no.yaml"), *common]) == 2


def command(config: Path, runs: Path, places: DataPlaces, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "LiverCascadeTrainingLib.cli", "locate", str(config), "--run", str(runs), "--cache",
        str(places.cache), "--split", str(places.split), "--accelerator", "cpu", "--workers", "0", "--no-export",
        *more,
    ]  # fmt: skip


def surroundings() -> dict[str, str]:
    paths = [str(ROOT / name) for name in ("LiverCascade", "LiverCascadeTraining", "Testing")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "locate" / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


@pytest.mark.long
def test_killed_ten_times_at_random_steps_a_run_ends_with_the_same_weights(places, tmp_path):
    training = {"steps": 400, "checkpoint_every": 7, "log_every": 10}
    content = small_content(training=training, validation={"every": 50})
    config = save_yaml(tmp_path / "c.yaml", content)
    subprocess.run(command(config, tmp_path / "whole", places), env=surroundings(), check=True, capture_output=True)
    chance, kills, stood = random.Random(5), 0, []
    metrics = tmp_path / "killed" / "locate" / "metrics.csv"
    while kills < 10:
        process = subprocess.Popen(
            command(config, tmp_path / "killed", places), env=surroundings(), stdout=subprocess.PIPE, text=True
        )
        # Lines come while it trains; then a random moment later it is gone.
        lines = chance.randint(1, 3)
        for line in process.stdout:
            lines -= line.startswith("step")
            if lines <= 0:
                break
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kills += 1
        stood.append(int(read_metrics(metrics)[-1]["step"]))
    assert stood[-1] < 400, stood
    subprocess.run(command(config, tmp_path / "killed", places), env=surroundings(), check=True, capture_output=True)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(tensor, killed[name]) for name, tensor in whole.items())
    rows = [
        [(row["step"], row["loss"], row["dice"]) for row in read_metrics(tmp_path / name / "locate" / "metrics.csv")]
        for name in ("whole", "killed")
    ]
    assert rows[0] == rows[1]
    assert not [p for p in (tmp_path / "killed").rglob("*.ckpt.part") if p.stat().st_mtime > time.time()]


@pytest.mark.slow
def test_two_processes_give_the_validation_figures_of_one(places, tmp_path):
    network = {"arguments": {**small_content()["network"]["arguments"], "dropout": 0.0}}
    # Cross-entropy is a mean over samples, and so the same by parts; Adam would blow rounding up.
    content = small_content(
        training={"steps": 20, "log_every": 5}, validation={"every": 10}, network=network, loss={"name": "ce"},
        optimizer={"name": "sgd", "arguments": {}},
    )  # fmt: skip
    config = save_yaml(tmp_path / "c.yaml", content)
    for name, devices in (("one", "1"), ("two", "2")):
        answer = subprocess.run(
            command(config, tmp_path / name, places, "--devices", devices),
            env=surroundings(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr[-3000:]
    one, two = (
        [row for row in read_metrics(tmp_path / name / "locate" / "metrics.csv") if row["dice"]]
        for name in ("one", "two")
    )
    assert [row["step"] for row in one] == [row["step"] for row in two] == ["10", "20"]
    for a, b in zip(one, two, strict=True):
        assert float(a["dice_liver"]) == pytest.approx(float(b["dice_liver"]), abs=1e-3)
    alone, together = weights(tmp_path / "one"), weights(tmp_path / "two")
    difference = max(float((alone[n] - together[n]).abs().max()) for n in alone if alone[n].is_floating_point())
    assert difference < 1e-4, difference


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["lits", pytest.param("msd", marks=pytest.mark.long)])
def test_the_documented_sequence_leads_from_a_download_to_a_judged_model(layout, tmp_path):
    from training_walkthrough import walk

    walk(tmp_path, layout, None, quick=True)
    assert (tmp_path / "evaluation" / "evaluation.html").is_file()
    for role in ("locate", "refine"):
        rows = [
            float(row["dice_liver"]) for row in read_metrics(tmp_path / "runs" / role / "metrics.csv") if row["dice"]
        ]
        assert rows[-1] > 0.5, role
