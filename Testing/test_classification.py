"""Classification of livers: figures, samples, the comparison of masks as one command, and the gate in the cascade."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, analytic_result
from dataset_layouts import invented, lay_out_csv
from LiverCascadeLib.cascade import Cascade, Options, load_cascade, segment
from LiverCascadeLib.errors import InputError, ModelError
from LiverCascadeLib.gate import Gate, case_score, crop_grid, judge, masked
from LiverCascadeLib.geometry import Box, Grid, resample
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.models.manifest import CLASSES
from LiverCascadeTrainingLib.cases import Case
from LiverCascadeTrainingLib.classification import run as run_module
from LiverCascadeTrainingLib.classification.comparison import compare, gate_threshold, scores_of
from LiverCascadeTrainingLib.classification.config import RESNETS, config_from, load_config
from LiverCascadeTrainingLib.classification.figures import (
    at_threshold,
    auc,
    bootstrap,
    delong,
    roc_curve,
    threshold_for,
    weighted_auc,
)
from LiverCascadeTrainingLib.classification.livers import Liver, LiverSet, gather, make_liver
from LiverCascadeTrainingLib.classification.run import run
from LiverCascadeTrainingLib.classification.training import Judged, LiverSamples, judge_livers, train
from LiverCascadeTrainingLib.commands import classify
from LiverCascadeTrainingLib.data.cache import Cache, PrepareSettings, add_priors, prepare
from LiverCascadeTrainingLib.data.layouts import find_studies
from LiverCascadeTrainingLib.data.splits import make_split
from LiverCascadeTrainingLib.names import SettingError
from LiverCascadeTrainingLib.training.fit import Machine
from LiverCascadeTrainingLib.training.sources import DataPlaces
from tiny_models import Oracle, manifest, save_model, save_pair

CPU = Machine("cpu", workers=0, quiet=True)
CONTENT = {
    "role": "classify",
    "model": {"id": "small-gate", "title": "small gate"},
    "network": {"name": "resnet10", "width": 4, "context": 1},
    "grid": {"spacing_mm": [8.0, 8.0, 8.0], "patch_size": [40, 32, 32]},
    "training": {"steps": 4, "batch_size": 4, "learning_rate": 0.005},
}


def small(**changes):
    content = {**CONTENT}
    for name, values in changes.items():
        content[name] = {**content.get(name, {}), **values} if isinstance(values, dict) else values
    return config_from(content)


def made_up(number: int, lesion: bool, size=(12, 32, 40)) -> Liver:
    """A gray ellipsoid in a block, with a dark ball where it has a lesion, in its middle slices."""
    rng = np.random.default_rng(number)
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij")
    inside = (i / 0.8) ** 2 + (j / 0.8) ** 2 + (k / 0.95) ** 2
    ball = ((i - rng.uniform(-0.2, 0.2)) ** 2 + j**2 < 0.08) & (np.abs(k) < 0.3) & lesion
    hu = np.where(inside < 1, 110, 20) + np.where(ball, -90, 0) + rng.normal(0, 4, size)
    probability = (1 / (1 + np.exp(12 * (inside - 1))) * 255).round().astype(np.uint8)
    area = ball.sum(axis=(1, 2)).astype(np.float32) * 64
    judged = (probability > 127).sum(axis=(1, 2)) * 64 >= 400
    ml = float(ball.sum() * 0.512)
    return Liver(f"case {number}", f"patient {number // 2}", hu.astype(np.int16), probability, judged, area, ml, True)


def made_up_set(train_count=8, rest=4) -> LiverSet:
    ends = np.cumsum([train_count, rest, rest])
    livers = [made_up(n, n % 2 == 1) for n in range(ends[-1])]
    parts = {"train": livers[: ends[0]], "validation": livers[ends[0] : ends[1]], "test": livers[ends[1] :]}
    return LiverSet(parts, ("made of formulas",), "abc")


# Figures


def test_the_area_below_the_curve_counts_pairs_in_the_right_order_and_half_of_the_ties():
    truth = np.array([1, 1, 1, 0, 0], bool)
    score = np.array([0.9, 0.5, 0.2, 0.5, 0.1])
    # Pairs: 0.9 beats both; 0.5 ties one, beats one; 0.2 loses one, beats one.
    assert auc(truth, score) == pytest.approx((2 + 1.5 + 1) / 6)
    assert np.isnan(auc(np.ones(3, bool), score[:3]))


def test_the_roc_curve_has_the_area_that_pairs_give_and_takes_ties_together():
    rng = np.random.default_rng(3)
    truth, score = rng.random(200) < 0.3, np.round(rng.random(200), 1)
    rate, sensitivity, threshold = roc_curve(truth, score)
    area = float(np.sum(np.diff(rate) * (sensitivity[1:] + sensitivity[:-1]) / 2))
    assert area == pytest.approx(auc(truth, score))
    assert rate[0] == sensitivity[0] == 0 and rate[-1] == sensitivity[-1] == 1
    assert len(threshold) == len(np.unique(score)) + 1 and (np.diff(threshold) < 0).all()
    place = int(np.flatnonzero(threshold == 0.5)[0])
    assert sensitivity[place] == pytest.approx((score[truth] >= 0.5).mean())


def test_weights_count_rows_as_often_as_they_say():
    rng = np.random.default_rng(4)
    truth, score = rng.random(30) < 0.4, np.round(rng.random(30), 1)
    weights = rng.integers(0, 3, (5, 30))
    wanted = [auc(np.repeat(truth, row), np.repeat(score, row)) for row in weights]
    assert weighted_auc(truth, score, weights) == pytest.approx(wanted)
    assert np.isnan(weighted_auc(truth, score, truth[None].astype(int)))[0]


def test_delongs_variance_is_that_of_the_placements_counted_pair_by_pair():
    rng = np.random.default_rng(5)
    truth = np.arange(40) < 15
    score = np.round(rng.normal(0, 1, 40) + truth, 1)
    positive, negative = score[truth], score[~truth]
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = pairs.mean(axis=1).var(ddof=1) / 15 + pairs.mean(axis=0).var(ddof=1) / 25
    found = delong(truth, score)
    assert found.value == pytest.approx(pairs.mean())
    assert found.high - found.low == pytest.approx(2 * 1.959964 * np.sqrt(variance), rel=1e-5)


def test_the_bootstrap_draws_patients_and_so_is_wider_where_slices_repeat_them():
    rng = np.random.default_rng(7)
    truth = np.arange(30) % 2 == 0
    score = truth * 0.8 + rng.normal(0, 1, 30)
    single = bootstrap([str(n) for n in range(30)], lambda weights: weighted_auc(truth, score, weights), 500)
    # Each row ten times, as slices that look alike: nothing more is known.
    many, scores = np.repeat(truth, 10), np.repeat(score, 10)
    names = [str(n) for n in np.repeat(np.arange(30), 10)]
    repeated = bootstrap(names, lambda weights: weighted_auc(many, scores, weights), 500)
    assert repeated.value == pytest.approx(single.value)
    assert repeated.high - repeated.low == pytest.approx(single.high - single.low, rel=0.25)
    alone = bootstrap([str(n) for n in range(300)], lambda weights: weighted_auc(many, scores, weights), 500)
    assert alone.high - alone.low < 0.6 * (repeated.high - repeated.low)


def test_the_threshold_keeps_the_share_of_livers_with_lesions_that_was_asked_for():
    truth = np.array([1] * 20 + [0] * 10, bool)
    score = np.append(np.arange(20) / 20, np.full(10, 0.12))
    threshold = threshold_for(truth, score, 0.95)
    assert threshold == 0.05 and at_threshold(truth, score, threshold)["sensitivity"] == 0.95
    assert threshold_for(truth, score, 1.0) == 0
    assert at_threshold(truth, score, 0.2)["specificity"] == 1
    assert gate_threshold([], 0.95) == (0.0, 0)


# Configuration and network


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": "sotf"}, "'soft'"),
        ({"level": "volume"}, "slice, case"),
        ({"network": {"name": "resnet19"}}, "resnet18"),
        ({"network": {"depth": 18}}, "no setting in network 'depth'"),
        ({"training": {"steps": 0}}, "steps is 0"),
        ({"prepared": False}, "nothing to train on"),
        ({"synthetic": {"use": True, "shares": [0.9, 0.2, 0.1]}}, "add up to 1"),
        ({"role": "locate"}, "classify"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_in_words(changes, words):
    with pytest.raises(SettingError, match=words):
        small(**changes)


def test_the_committed_configurations_are_valid_and_may_be_written_out_in_full(tmp_path):
    folder = Path(__file__).resolve().parent.parent / "LiverCascadeTraining" / "Resources" / "Classification"
    for path in sorted(folder.glob("*.yaml")):
        config = load_config(path)
        config.save(tmp_path / path.name)
        assert load_config(tmp_path / path.name) == config
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("level", ["slice", "case"])
def test_every_resnet_gives_two_logits_for_slices_and_for_cases(name, level):
    from LiverCascadeLib.models import build_network

    config = small(level=level, network={"name": name, "width": 2, "context": 1, "fine": name == "resnet10"})
    network = build_network(*config.architecture()).eval()
    image = torch.zeros((2, 3, 32, 40) if level == "slice" else (2, 1, 12, 32, 40))
    assert network(image).shape == (2, 2)


# Samples


def test_the_masks_differ_at_the_edge_only_and_both_hide_what_is_not_liver():
    liver = made_up(1, True)
    hu, probability = torch.from_numpy(liver.hu).float(), torch.from_numpy(liver.probability).float() / 255
    soft, binary = (masked(hu, probability, (-75, 225), mask) for mask in ("soft", "binary"))
    edge = (probability > 0.02) & (probability < 0.98)
    assert torch.allclose(soft[~edge], binary[~edge], atol=0.02) and (soft - binary)[edge].abs().max() > 0.2
    assert float(soft[probability < 0.001].max()) < 0.001
    assert set(torch.unique(binary[probability < 0.5]).tolist()) == {0.0}


def test_a_sample_depends_on_seed_and_number_alone_and_both_kinds_are_drawn_equally():
    config = small(training={"steps": 100})
    livers = [made_up(n, n == 1) for n in range(6)]
    first, second = (LiverSamples(livers, config, "soft", 5) for _ in range(2))
    assert torch.equal(first[17][0], second[17][0]) and first[17][1] == second[17][1]
    assert first[17][0].shape == (3, 32, 40) and first[17][0].dtype == torch.float32
    assert not torch.equal(LiverSamples(livers, config, "soft", 6)[17][0], first[17][0])
    assert 0.35 < np.mean([first[n][1] for n in range(100)]) < 0.65


def test_slices_with_a_trace_of_lesion_are_neither_trained_on_nor_judged_as_either():
    liver = made_up(1, True)
    trace = dataclasses.replace(liver, lesion_mm2=np.where(liver.lesion_mm2 > 0, 5.0, 0.0).astype(np.float32))
    numbers, truth = trace.slices(20.0)
    assert not truth.any() and len(numbers) == (trace.judged & (trace.lesion_mm2 == 0)).sum()
    assert dataclasses.replace(liver, lesion_ml=0.01).truth(0.05) is None
    assert made_up(2, False).truth(0.05) is False


# Livers from data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Six cases, every second healthy, with a split that has all parts."""
    folder = tmp_path_factory.mktemp("classify")
    data = lay_out_csv(folder / "data", [invented(seed, 4, seed % 2 == 0) for seed in range(6)])
    report = prepare(data, folder / "cache", PrepareSettings((8.0, 8.0, 8.0)))
    assert not report.failed, report.as_text()
    studies = find_studies(data)
    names = [study.name for study in studies]
    lists = {"train": names[:2], "validation": names[2:4], "test": names[4:]}
    make_split(studies, "fixed", lists=lists).save(folder / "split.json")
    return DataPlaces(folder / "cache", folder / "split.json")


def test_prepared_cases_give_livers_in_the_middle_of_their_block_with_their_truth(prepared):
    livers = gather(small(), prepared)
    assert {part: len(found) for part, found in livers.parts.items()} == {"train": 2, "validation": 2, "test": 2}
    assert any("imitated" in remark for remark in livers.remarks)
    for found in livers.parts.values():
        for liver in found:
            assert liver.hu.shape == (32, 32, 40) and liver.fits
            where = np.argwhere(liver.probability > 127)
            middle = (where.min(axis=0) + where.max(axis=0)) / 2
            assert np.abs(middle - (np.array(liver.hu.shape) - 1) / 2).max() < 4
            assert (liver.lesion_ml > 0) == bool((liver.lesion_mm2 > 0).any())
    assert {liver.truth(0.05) for liver in livers.parts["train"]} == {True, False}
    assert gather(small(), prepared).fingerprint == livers.fingerprint


def test_a_located_probability_in_the_cache_becomes_the_mask(prepared, tmp_path):
    import shutil

    copy = tmp_path / "cache"
    shutil.copytree(prepared.cache, copy)
    cache = Cache(next(path for path in copy.iterdir() if path.is_dir()))
    seen = []

    def locate(volume):
        seen.append(volume.name if hasattr(volume, "name") else "")
        return np.where(cache.case(cache.names[len(seen) - 1]).labels > 0, 0.8, 0.0)

    add_priors(cache, cache.names, locate)
    livers = gather(small(), DataPlaces(copy, prepared.split))
    assert not any("imitated" in remark for remark in livers.remarks)
    assert livers.parts["test"][0].probability.max() == round(0.8 * 255)


def test_an_imitated_mask_knows_nothing_of_the_lesions(prepared):
    from LiverCascadeTrainingLib.classification.livers import _imitated

    item = invented(0, 4)
    alone = _imitated(item.labels > 0, item.grid, "x")
    assert np.array_equal(alone, _imitated((item.labels > 0) | (item.labels == 2), item.grid, "x"))
    inside = alone[item.labels == 2]
    assert abs(float(inside.mean()) - float(alone[item.labels == 1].mean())) < 0.35


def test_parts_without_healthy_livers_are_refused_in_words(prepared, tmp_path):
    with pytest.raises(InputError, match="no livers with lesions, or none without"):
        gather(small(level="case", labels={"least_lesion_ml": 10000.0}), prepared)
    with pytest.raises(InputError, match="--cache"):
        gather(small(), DataPlaces())
    with pytest.raises(InputError, match="expected one"):
        gather(small(), DataPlaces(tmp_path, prepared.split))


def test_synthetic_livers_alternate_between_healthy_and_not_and_are_made_again_the_same():
    tissue = _tissue()
    case = Case("btcv_0001_0", "synthetic", tissue, None, (8.0, 8.0, 8.0), True, ((0, 0, 0), (1, 1, 1)))
    config = small(synthetic={"use": True, "lesions": {"radius_mm": [15.0, 30.0]}})
    healthy, sick = (make_liver(case, look, config, None) for look in (0, 1))
    assert healthy.lesion_ml == 0 and sick.lesion_ml > 1 and sick.patient == "btcv_0001"
    again = make_liver(case, 1, config, None)
    assert np.array_equal(again.hu, sick.hu) and np.array_equal(again.probability, sick.probability)


def _tissue() -> np.ndarray:
    from dataset_layouts import _phantom

    return np.ascontiguousarray(_phantom(1)[::4, ::4, ::4])


# Training and comparison


@pytest.mark.parametrize("level", ["slice", "case"])
def test_a_network_learns_by_heart_which_livers_hold_a_dark_ball(level):
    torch.set_num_threads(1)
    config = small(level=level, training={"steps": 80, "batch_size": 8, "gain": 0.02, "offset_hu": 3.0})
    livers = [made_up(n, n % 2 == 1) for n in range(6)]
    module = train(livers, config, "soft", 1, CPU)
    assert module.losses[-1][1] < 0.7 * module.losses[0][1]
    found = judge_livers(module.network, livers, config, "soft")
    scores = scores_of([found], "cases")
    assert auc(scores.truth, scores.values[0]) > 0.9
    if level == "slice":
        slices = scores_of([found], "slices")
        assert auc(slices.truth, slices.values[0]) > 0.9 and len(slices.truth) > 40
    else:
        assert all(not one.slices for one in found)


def test_two_trainings_with_one_seed_give_the_same_network_and_another_seed_another():
    config, livers = small(), [made_up(n, n % 2 == 1) for n in range(4)]
    one, same, other = (train(livers, config, "binary", seed, CPU).network for seed in (1, 1, 2))
    first = next(iter(one.parameters()))
    assert torch.equal(first, next(iter(same.parameters()))) and not torch.equal(first, next(iter(other.parameters())))


def answer(name: str, truth: bool, score: float) -> Judged:
    return Judged(name, name, truth, score)


def test_the_comparison_is_paired_by_seed_and_by_patient():
    names = [f"p{n}" for n in range(40)]
    truth = [n % 2 == 0 for n in range(40)]
    rng = np.random.default_rng(1)

    def runs(strength):
        return [
            [answer(n, t, float(strength * t + rng.normal())) for n, t in zip(names, truth, strict=True)]
            for _ in range(3)
        ]

    test = {"soft": runs(3.0), "binary": runs(0.3)}
    content = compare(test, test, 0.95)
    assert set(content["masks"]["soft"]) == {"cases", "gate"}
    soft, binary = (content["masks"][mask]["cases"] for mask in ("soft", "binary"))
    assert len(soft["auc_by_seed"]) == len(soft["delong_by_seed"]) == 3 and soft["sd_over_seeds"] >= 0
    found = content["difference"]["cases"]
    assert found["value"] == pytest.approx(soft["auc"]["value"] - binary["auc"]["value"])
    assert 0 < found["low"] < found["value"] < found["high"] and found["seeds_for_soft"] == 3
    same = compare({"soft": test["soft"], "binary": test["soft"]}, test, 0.95)["difference"]["cases"]
    assert same["value"] == same["low"] == same["high"] == 0 and same["seeds_for_soft"] == 0
    with pytest.raises(ValueError, match="same livers"):
        scores_of([test["soft"][0], test["soft"][0][:-1]], "cases")


def test_one_command_compares_the_masks_writes_everything_and_goes_on_where_it_was_stopped(
    prepared, tmp_path, monkeypatch, capsys
):
    import yaml

    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONTENT))
    parser = argparse.ArgumentParser()
    classify.add_parser(parser.add_subparsers())
    arguments = ["classify", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "run"), "--compare-masks"]
    arguments += ["--cache", str(prepared.cache), "--split", str(prepared.split), "--accelerator", "cpu"]
    arguments += ["--workers", "0", "--seeds"]
    trained = []

    def counted(livers, config, mask, seed, machine):
        if len(trained) == 3 and stop:
            raise KeyboardInterrupt
        trained.append((mask, seed))
        return train(livers, config, mask, seed, machine)

    monkeypatch.setattr(run_module, "train", counted)
    options, stop = parser.parse_args([*arguments, "2"]), True
    with pytest.raises(KeyboardInterrupt):
        options.run(options)
    stop = False
    assert options.run(options) == 0
    assert sorted(trained) == [("binary", 2026), ("binary", 2027), ("soft", 2026), ("soft", 2027)]
    said = capsys.readouterr().out
    assert "soft − binary, slices" in said and "AUC" in said
    folder = tmp_path / "run" / "classify"
    content = json.loads((folder / "comparison.json").read_text())
    assert content["seeds"] == [2026, 2027] and "difference" in content
    assert content["masks"]["soft"]["slices"]["positives"] > 0
    for unit in ("slices", "cases"):
        assert (folder / f"roc_{unit}.svg").read_bytes().startswith(b"<?xml")
        rows = list(csv.DictReader((folder / f"{unit}.csv").open()))
        assert {(row["mask"], row["seed"]) for row in rows} == {(m, str(s)) for m, s in trained}
    manifest = load_manifest(folder)
    assert manifest.role == "classify" and manifest.gate["mask"] == "soft"
    with pytest.raises(InputError, match="another configuration"):
        run(small(training={"steps": 5}), gather(small(), prepared), folder, ("soft",), 1, CPU)


def test_an_exported_model_says_of_a_liver_what_the_run_said(tmp_path):
    config, livers = small(), made_up_set()
    run(config, livers, tmp_path, ("soft",), 1, CPU)
    gate = Gate(load_manifest(tmp_path))
    first = livers.parts["test"][1]
    matrix = np.diag([8.0, 8.0, 8.0, 1.0])
    grid = Grid(first.hu.shape[::-1], matrix)
    probability = torch.from_numpy(first.probability.astype(np.float32)) / 255
    image = masked(torch.from_numpy(first.hu.astype(np.float32)), probability, (-75, 225), "soft")
    own = judge(gate._network, image, torch.from_numpy(first.judged), "slice", 1)
    stored = json.loads((tmp_path / "networks" / "soft-2026" / "judged.json").read_text())["test"][1]
    assert np.allclose(own, [score for _, _, score in stored["slices"]], atol=1e-6)
    box = Box.around(first.probability > 127)
    # The gate's block is another one than the made-up one, by a part of a voxel and air around it.
    assert gate.probability(first.hu, grid, probability, grid, box) == pytest.approx(stored["score"], abs=0.1)


# The gate in the engine

GATE = {"mask": "soft", "level": "slice", "context": 0, "top": 3, "threshold": 0.5}
NETWORK = {
    "block": "basic",
    "layers": [1, 1, 1, 1],
    "block_inplanes": [2, 4, 8, 16],
    "spatial_dims": 2,
    "n_input_channels": 1,
    "num_classes": 2,
}


def classify_fields(**changes):
    fields = {
        "architecture": "ResNet",
        "arguments": NETWORK,
        "inputs": ("ct", "liver_probability"),
        "labels": CLASSES,
        "spacing_mm": (5.0, 5.0, 5.0),
        "patch_size": (48, 48, 40),
        "gate": GATE,
    }
    return {**fields, **changes}


class Fixed(torch.nn.Module):
    """Answers every view with one logit for 'lesion'."""

    def __init__(self, logit: float):
        super().__init__()
        self.logit = torch.nn.Parameter(torch.tensor(logit))

    def forward(self, image):
        assert image.max() > 0.2, "it sees the liver"
        return torch.stack([torch.zeros(len(image)), self.logit.expand(len(image))], dim=1)


def gated(logit: float, mode: str):
    gate = Gate(manifest("classify", **classify_fields()), network=Fixed(logit))
    locate = Oracle(manifest("locate", spacing_mm=(3.0, 3.0, 3.0)), [[LIVER]])
    refine = Oracle(manifest("refine", spacing_mm=(2.0, 2.0, 2.0)), [[LIVER], list(LESIONS)])
    volume = analytic_result(next(iter(TEST_GRIDS.values()))).volume
    return segment(volume, Cascade(locate, refine, gate), Options(force=True, gate=mode))


def test_a_gate_that_sees_lesions_leaves_the_result_as_it_is():
    plain, passed = gated(-2.0, "off"), gated(2.0, "drop")
    assert np.array_equal(plain.labels, passed.labels) and len(passed.lesions) == len(plain.lesions) > 0
    assert not any(finding.code == "gate-sees-no-lesion" for finding in (*plain.findings, *passed.findings))
    assert "gate" not in plain.provenance
    assert passed.provenance["gate"]["probability"] == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-5)
    assert [model["role"] for model in passed.provenance["models"]] == ["locate", "refine", "classify"]


def test_a_gate_that_sees_none_marks_the_lesions_or_makes_them_liver():
    plain, marked, dropped = gated(2.0, "mark"), gated(-2.0, "mark"), gated(-2.0, "drop")
    assert np.array_equal(plain.labels, marked.labels)
    assert "gate-sees-no-lesion" in [finding.code for finding in marked.findings]
    assert not dropped.lesions and dropped.labels.max() == 1 and not dropped.confidences
    assert "gate-sees-no-lesion" in [finding.code for finding in dropped.findings]
    assert dropped.liver_volume_ml == pytest.approx(plain.liver_volume_ml)


def test_confidence_falls_with_the_gates_doubt_and_never_rises():
    from LiverCascadeLib.cascade import _lowered

    found = {1: 0.9, 2: 0.4}
    assert _lowered(found, {}) == found
    assert _lowered(found, {"gate": {"probability": 0.7, "threshold": 0.5}}) == found
    assert _lowered(found, {"gate": {"probability": 0.1, "threshold": 0.5}}) == pytest.approx({1: 0.18, 2: 0.08})


def test_a_folder_of_models_has_a_gate_where_it_holds_one(tmp_path):
    save_pair(tmp_path)
    assert load_cascade(tmp_path, Options()).gate is None
    with pytest.raises(ModelError, match="no model 'classify'"):
        load_cascade(tmp_path, Options(gate="drop"))
    with pytest.raises(ModelError, match="expected one of off, mark, drop"):
        load_cascade(tmp_path, Options(gate="perhaps"))
    save_model(tmp_path / "classify", "classify", **classify_fields())
    assert load_cascade(tmp_path, Options(gate="drop")).gate.threshold == 0.5
    assert load_cascade(tmp_path, Options(gate="off")).gate is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gate": {**GATE, "mask": "hard"}}, "gate.mask is 'hard'"),
        ({"gate": {**GATE, "threshold": 1.5}}, "gate.threshold is 1.5"),
        ({"gate": {"mask": "soft"}}, "expected an object with mask, level"),
        ({"labels": {"background": 0, "liver": 1}}, "for the role 'classify'"),
        ({"role": "refine"}, "for the role 'classify' only"),
    ],
)
def test_a_manifest_that_mixes_up_its_role_is_refused(tmp_path, changes, words):
    save_model(tmp_path, "classify", **classify_fields())
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**content, **changes}))
    with pytest.raises(ModelError) as error:
        load_manifest(tmp_path)
    assert words in str(error.value)


def test_a_block_has_the_liver_in_its_middle_on_grids_of_any_orientation():
    for grid in TEST_GRIDS.values():
        located = grid.canonical((3.0, 3.0, 3.0))
        truth = analytic_result(grid).labels > 0
        probability = resample(truth.astype(np.uint8), grid, located, 0)
        box = Box.around(probability.numpy() > 0.5)
        block, fits = crop_grid(grid, located, box, (4.0, 4.0, 4.0), (80, 80, 80))
        where = np.argwhere(resample(probability, located, block, 0.0).numpy() > 0.5)
        assert fits and np.abs((where.min(axis=0) + where.max(axis=0)) / 2 - 39.5).max() <= 1.5
        assert not crop_grid(grid, located, box, (4.0, 4.0, 4.0), (8, 8, 8))[1]


def test_a_case_scores_the_mean_of_its_highest_slices():
    assert case_score([0.1, 0.9, 0.5, 0.7], 3) == pytest.approx(0.7)
    assert case_score([0.2], 3) == pytest.approx(0.2)
