"""The figures of the evaluation: by hand on small cases, and against what others compute."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import GRID, ball, prediction, truth
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.postprocess import components
from LiverCascadeLib.volume import read_labels, write_labels
from LiverCascadeTrainingLib.evaluation import compare, surfaces
from LiverCascadeTrainingLib.evaluation.cases import FIGURES, as_text, evaluate_case
from LiverCascadeTrainingLib.evaluation.detection import SharedVoxels, find_lesions
from LiverCascadeTrainingLib.evaluation.overlap import Overlap
from LiverCascadeTrainingLib.evaluation.surfaces import surface_dice, surface_distances

SPACING = (3.0, 1.2, 0.7)


@pytest.fixture(scope="module")
def masks() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of ragged masks; those of the second pair touch the array's border."""
    grid = Grid((40, 36, 20), np.diag([0.7, 1.2, 3.0, 1.0]))
    rng = np.random.default_rng(5)
    first, second = ball((9, 17, 19), 12, grid), ball((10, 19, 22), 11, grid)
    ragged = first ^ (rng.random(first.shape) < 0.02)
    cut = ball((0, 2, 38), 13, grid)
    return [(ragged, second), (cut, np.roll(cut, 2, axis=1))]


def test_figures_of_a_case_counted_by_hand():
    grid = Grid((10, 10, 10), np.diag([1.0, 1.0, 2.0, 1.0]))
    reference, predicted = np.zeros((2, *grid.shape), np.uint8)
    reference[2:6, 2:6, 2:6] = 1
    predicted[2:6, 2:6, 3:7] = 1
    case = evaluate_case("a", predicted, reference, grid, with_lesions=False)
    expected = {
        "dice": 0.75,  # 48 of 64 and 64 voxels
        "iou": 0.6,
        "voe": 0.4,
        "rvd": 0.0,
        "sensitivity": 0.75,
        "precision": 0.75,
        "specificity": 1 - 16 / 936,
        "accuracy": 1 - 32 / 1000,
        "volume_ml": 0.128,
        "reference_ml": 0.128,
        "volume_error_ml": 0.0,
        # Of the 56 surface voxels of each, the 16 of the far side are 1 mm away, and 4 that the other side has inside.
        "assd_mm": 20 / 56,
        "msd_mm": 1.0,
        "hd95_mm": 1.0,
        "nsd_1mm": 1.0,
    }
    for key, value in expected.items():
        assert case.values[f"liver_{key}"] == pytest.approx(value), key
    assert "lesion_dice" not in case.values and case.predicted_lesions == ()


def test_sizes_and_errors_have_signs():
    overlap = Overlap(both=10, predicted_only=5, reference_only=10, neither=75)
    assert overlap.rvd == pytest.approx(-0.25)
    assert (overlap.dice, overlap.iou) == (pytest.approx(20 / 35), pytest.approx(0.4))
    assert (overlap.sensitivity, overlap.precision) == (0.5, pytest.approx(2 / 3))
    assert (overlap.specificity, overlap.accuracy) == (pytest.approx(75 / 80), 0.85)


def test_empty_masks_follow_one_rule():
    liver = truth(0, lesions=0)
    empty = np.zeros_like(liver)
    both = evaluate_case("both", liver, liver, GRID).values
    for figure in FIGURES:
        perfect = {"high": 1.0, "low": 0.0, "zero": 0.0, "": 0.0}[figure.better]
        assert both[f"lesion_{figure.key}"] == perfect, figure.key
    missed = evaluate_case("missed", empty, liver, GRID).values
    defined = {
        "dice": 0.0,
        "iou": 0.0,
        "voe": 1.0,
        "rvd": -1.0,
        "sensitivity": 0.0,
        "nsd_2mm": 0.0,
        "specificity": 1.0,
    }
    for key, value in defined.items():
        assert missed[f"liver_{key}"] == value, key
    for key in ("precision", "assd_mm", "msd_mm", "hd95_mm", "hd95_pooled_mm"):
        assert math.isnan(missed[f"liver_{key}"]), key
    with_false = liver.copy()
    with_false[ball((12, 24, 28), 6)] = 2
    false = evaluate_case("false", with_false, liver, GRID).values
    assert false["lesion_dice"] == 0 and math.isnan(false["lesion_rvd"]) and math.isnan(false["lesion_sensitivity"])
    assert (missed["burden"], missed["burden_error"]) == (0.0, 0.0)


def test_burden_is_the_share_of_lesions_in_the_liver_with_them():
    reference, predicted = np.zeros((2, *GRID.shape), np.uint8)
    reference[4:14, 4:14, 4:14] = predicted[4:14, 4:14, 4:14] = 1
    reference[5:7, 5:10, 5:15] = 2  # 90 of 1000 lie inside the cube, 10 beside it
    predicted[5:7, 5:10, 5:10] = 2
    values = evaluate_case("a", predicted, reference, GRID).values
    assert values["reference_burden"] == pytest.approx(100 / 1010)
    assert values["burden_error"] == pytest.approx(50 / 1000 - 100 / 1010)
    assert values["labels_right"] == pytest.approx(1 - 50 / reference.size)


def test_surface_distances_agree_with_monai(masks):
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    for predicted, reference in masks:
        own = surface_distances(predicted, reference, SPACING)
        pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, reference)]
        given = {"include_background": True, "spacing": SPACING}
        monai = metrics.compute_hausdorff_distance(*pair, percentile=95, **given)
        assert own.hd95_mm == pytest.approx(float(monai), abs=1e-4)
        assert own.msd_mm == pytest.approx(float(metrics.compute_hausdorff_distance(*pair, **given)), abs=1e-4)
        monai = metrics.compute_average_surface_distance(*pair, symmetric=True, **given)
        assert own.assd_mm == pytest.approx(float(monai), abs=1e-4)


def test_surface_dice_agrees_with_monai_and_with_surface_distance(masks):
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    deepmind = pytest.importorskip("surface_distance")
    for predicted, reference in masks:
        own = surface_dice(predicted, reference, SPACING, (0.7, 1.0, 2.0, 3.0))
        assert all(a <= b for a, b in pairwise(own)) and own[0] < 1
        theirs = deepmind.compute_surface_distances(reference, predicted, SPACING)
        for tolerance, value in zip((0.7, 1.0, 2.0, 3.0), own, strict=True):
            assert value == pytest.approx(deepmind.compute_surface_dice_at_tolerance(theirs, tolerance), abs=1e-6)
            pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, reference)]
            monai = metrics.compute_surface_dice(
                *pair, [tolerance], include_background=True, spacing=SPACING, use_subvoxels=True
            )
            assert value == pytest.approx(float(monai), abs=1e-5)


def test_panoptic_figures_agree_with_panoptica():
    panoptica = pytest.importorskip("panoptica")
    from LiverCascadeTrainingLib.evaluation.pooled import DataSet

    panoptica.disable_citation_reminder()
    evaluator = panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.UNMATCHED_INSTANCE,
        instance_matcher=panoptica.NaiveThresholdMatching(matching_threshold=0.5),
        instance_metrics=[panoptica.Metric.IOU],
        global_metrics=[panoptica.Metric.DSC],
    )
    for number in (1, 2):
        reference, predicted = truth(number), prediction(number, 1, 0.3, 1.0)
        pair = [components(labels == 2)[0].astype(np.uint8) for labels in (predicted, reference)]
        theirs = next(iter(evaluator.evaluate(*pair, verbose=False).values()))
        own = DataSet([evaluate_case("a", predicted, reference, GRID)]).overall
        assert theirs.tp > 0
        assert own["panoptic_recognition"].value == pytest.approx(theirs.rq)
        assert own["panoptic_segmentation"].value == pytest.approx(theirs.sq)
        assert own["panoptic_quality"].value == pytest.approx(theirs.pq)
        assert own["lesion_dice_global"].value == pytest.approx(theirs.global_bin_dsc)


def test_a_lesion_is_found_by_all_that_touches_it_together():
    predicted, reference = np.zeros((2, *GRID.shape), bool)
    reference[5, 5, 5:15] = True  # 10 voxels, in two predicted pieces of 4
    predicted[5, 5, 5:9] = predicted[5, 5, 11:15] = True
    reference[15, 5:7, 5] = True  # touched by 1 of 9
    predicted[15, 6:15, 5] = True
    predicted[20, 20, 20] = True
    found, true = find_lesions(predicted, reference, GRID)
    assert [round(n.iou, 3) for n in true] == [0.8, 0.1]
    assert [round(n.iou, 3) for n in found] == [0.1, 0.4, 0.4, 0.0]
    assert [round(n.pair_iou, 3) for n in true] == [0.4, 0.1]
    assert [round(n.lits_iou, 3) for n in found] == [0.1, 0.8, 0.8, 0.0]


def test_the_rule_of_lits_merges_both_ways_and_chooses_the_larger_share():
    # Two predictions, three references: the first prediction covers references 1 and 2, and touches 3 with one voxel;
    # reference 3 belongs to the second prediction.
    rows, columns, counts = (np.array(n) for n in ([0, 0, 0, 1], [0, 1, 2, 2], [8, 6, 1, 5]))
    shared = SharedVoxels(rows, columns, counts, predicted=np.array([20, 6]), reference=np.array([10, 8, 9]))
    predicted, reference = shared.lits_iou()
    np.testing.assert_allclose(reference, [14 / (20 + 18 - 14)] * 2 + [5 / (6 + 9 - 5)])
    np.testing.assert_allclose(predicted, [14 / 24, 5 / 10])


def test_a_group_that_no_prediction_chooses_is_not_found():
    # The prediction covers most of both references, which are merged; a second one covers less of each.
    rows, columns, counts = (np.array(n) for n in ([0, 0, 1], [0, 1, 1], [4, 4, 3]))
    shared = SharedVoxels(rows, columns, counts, predicted=np.array([8, 5, 7]), reference=np.array([9, 9, 5]))
    predicted, reference = shared.lits_iou()
    merged = 11 / (13 + 18 - 11)
    np.testing.assert_allclose(predicted, [merged, merged, 0])
    np.testing.assert_allclose(reference, [merged, merged, 0])


def test_a_prediction_of_noise_is_judged():
    noise = np.random.default_rng(0).random((40, 120, 120)) < 0.02
    other = np.random.default_rng(1).random((40, 120, 120)) < 0.02
    found, true = (components(mask)[0] for mask in (noise, other))
    shared = SharedVoxels.of(found, true)
    assert len(shared.predicted) > 5000 and len(shared.reference) > 5000
    assert all(iou.min() >= 0 and iou.max() <= 1 for iou in (shared.touching_iou(), *shared.lits_iou()))


def test_distances_from_a_map_are_those_of_the_tree(masks, monkeypatch):
    for predicted, reference in masks:
        tree = surface_distances(predicted, reference, SPACING)
        monkeypatch.setattr(surfaces, "MOST_POINTS", 0)
        mapped = surface_distances(predicted, reference, SPACING)
        monkeypatch.undo()
        np.testing.assert_allclose(mapped.all, tree.all, atol=1e-4)


def test_a_blob_that_hardly_touches_a_lesion_does_not_count_as_found():
    # The challenge's public scorer counted such a pair as detected, because both components have number 1.
    predicted, reference = np.zeros((2, *GRID.shape), bool)
    reference[5, 5, 5:10] = True
    predicted[5:15, 5:10, 9:20] = True
    (found,), (true,) = find_lesions(predicted, reference, GRID)
    assert 0 < true.iou < 0.01 and true.lits_iou == found.lits_iou == pytest.approx(1 / 554)


def test_cases_without_lesions_are_no_error():
    found, true = find_lesions(np.zeros(GRID.shape, bool), np.zeros(GRID.shape, bool), GRID)
    assert found == true == ()


def test_lesions_are_sized_by_their_long_axis_in_the_axial_plane():
    mask = np.zeros(GRID.shape, bool)
    mask[3:20, 10, 10] = True  # 51 mm from feet to head, one voxel in the axial plane
    mask[10, 20, 20:35] = True  # 30 mm from right to left
    _, true = find_lesions(mask, mask, GRID)
    assert [n.size_bin for n in true] == ["<10", ">20"]
    assert true[1].long_axis_mm == pytest.approx(30, abs=2)
    assert true[0].equivalent_diameter_mm == pytest.approx((6 * 17 * 12 / np.pi) ** (1 / 3))
    assert true[1].center_ras == pytest.approx(tuple(GRID.to_ras(np.array([27, 20, 10]))))


def test_the_figures_of_model_cards_agree_with_the_full_ones():
    predicted, reference = prediction(2, 1, 0.3, 1.0), truth(2)
    few, case = compare(predicted, reference, GRID), evaluate_case("a", predicted, reference, GRID)
    assert few["liver_dice"] == case.values["liver_dice"]
    assert few["liver_hd95_mm"] == case.values["liver_hd95_pooled_mm"]
    assert few["lesion_dice"] == case.values["lesion_dice"]
    assert few["lesions"] == len(case.reference_lesions) and few["predicted"] == len(case.predicted_lesions)
    assert few["hit"] == sum(n.iou > 0.1 for n in case.reference_lesions)
    assert few["false"] == sum(n.iou == 0 for n in case.predicted_lesions)


def test_figures_agree_with_the_scoring_tool(shared_data, tmp_path):
    tool = shared_data("../tools/score.py")
    predicted, reference = prediction(2, 1, 0.3, 1.0), truth(2)
    write_labels(tmp_path / "p.nii.gz", predicted, GRID)
    write_labels(tmp_path / "r.nii.gz", reference, GRID)
    command = [sys.executable, str(tool), str(tmp_path / "p.nii.gz"), str(tmp_path / "r.nii.gz")]
    theirs = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    own = compare(predicted, reference, GRID)
    assert own["liver_dice"] == pytest.approx(theirs["liver_dice"], abs=1e-4)
    assert own["liver_hd95_mm"] == pytest.approx(theirs["liver_hd95"], abs=0.01)
    assert own["lesion_dice"] == pytest.approx(theirs["tumor_dice"], abs=1e-4)
    for key in ("lesions", "hit", "lesions_ge10", "hit_ge10", "predicted", "false"):
        assert own[key] == theirs[key], key


@pytest.mark.alone
def test_a_liver_of_full_size_takes_seconds(shared_data):
    labels, grid = read_labels(shared_data("chaos_03/liver.nii.gz"))
    reference = (labels > 0).astype(np.uint8)
    predicted = np.roll(reference, (1, 3), (0, 1))
    reference[ball((40, 256, 150), 20, grid) & (reference > 0)] = 2
    predicted[ball((41, 258, 152), 20, grid) & (predicted > 0)] = 2
    evaluate_case("warm", truth(0), truth(0), GRID)
    start = time.process_time()
    values = evaluate_case("a", predicted, reference, grid).values
    assert time.process_time() - start < 10
    assert 0.9 < values["liver_dice"] < 1 and 1 < values["liver_hd95_mm"] < 5
    assert 0.7 < values["lesion_dice"] < 1


def test_numbers_for_readers_have_a_minus_and_no_negative_zero():
    assert (as_text(-0.0004, 2), as_text(-1.25, 1), as_text(float("nan"), 2)) == ("0.00", "−1.2", "–")


def test_importing_the_evaluation_needs_neither_torch_nor_matplotlib():
    code = "import sys, LiverCascadeTrainingLib.evaluation, LiverCascadeTrainingLib.evaluation.command as c\n"
    code += "assert not {'torch', 'monai', 'matplotlib', 'jinja2'} & set(sys.modules)"
    folders = [str(Path(__file__).resolve().parents[1] / name) for name in ("LiverCascade", "LiverCascadeTraining")]
    code = f"import sys; sys.path[:0] = {folders!r}\n{code}"
    subprocess.run([sys.executable, "-c", code], check=True)
