"""How sure the networks are: entropy voxel by voxel, a score per lesion, and what that score is worth."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, Ellipsoid, analytic_result, rasterize
from LiverCascadeLib.cascade import Cascade, Options, segment
from LiverCascadeLib.errors import ModelError
from LiverCascadeLib.fusing import Opinion, fuse
from LiverCascadeLib.geometry import Grid, resample
from LiverCascadeLib.lesions.confidence import confidences, evidence, slice_distance_mm
from LiverCascadeLib.models import Calibration, load_manifest
from LiverCascadeLib.models.calibration import FEATURES
from LiverCascadeLib.postprocess import CleanUp
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.resources import EMBEDDED_MODELS
from LiverCascadeLib.volume import Volume
from LiverCascadeTrainingLib import calibration as training
from LiverCascadeTrainingLib import cli, held_out, livers
from LiverCascadeTrainingLib.cards import card_text
from LiverCascadeTrainingLib.limits import limits_of, overlaps_of
from tiny_models import Oracle, manifest, save_model, save_pair

USUAL = training.USUAL_FEATURES


def calibration(**changes) -> Calibration:
    """A valid calibration; its figures mean nothing."""
    values = {
        "features": USUAL,
        "coefficients": (0.5, 0.3, 0.6, -2.0, 0.8, -0.4),
        "intercept": -1.0,
        "ranges": ((-3.0, 5.0), (-1.0, 5.0), (-3.0, 4.0), (0.0, 1.0), (1.0, 4.5), (0.0, 2.0)),
        "weights_sha256": "0" * 64,
        "real_iou": 0.1,
        "fitted_on": "nothing at all",
        "cases": 4,
        "lesions_fitted": 10,
        "lesions_tested": 8,
        "real_share": 0.5,
        "expected_calibration_error": 0.125,
        "area_under_curve": 0.75,
        "reliability": training.reliability(np.array([0.2, 0.8]), np.array([False, True]), 2),
        "risk_coverage": training.risk_coverage(np.array([0.2, 0.8]), np.array([False, True]), (1.0, 0.5)),
        "date": "2026-01-02",
        "note": "For tests.",
    }
    return Calibration(**{**values, **changes})


# --- features of a lesion ---------------------------------------------------------------------------------------


def test_the_features_of_a_lesion_are_what_a_hand_counts():
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 1:3, 1:4] = 2  # six voxels
    labels[0, 0, 0] = 3
    probability, entropy, spread, halo = (np.zeros(labels.shape, np.float32) for _ in range(4))
    halo[labels == 2], halo[labels == 3] = 0.6, 0.4
    probability[labels == 2] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    entropy[labels == 2] = [0.9, 0.8, 0.5, 0.4, 0.2, 0.2]
    spread[labels == 2] = [0.0, 0.0, 0.0, 0.0, 0.0, 0.6]
    probability[0, 0, 0] = 0.5
    # Slices, along i here, lie 4 mm apart.
    matrix = np.zeros((4, 4))
    matrix[[2, 0, 1, 3], [0, 1, 2, 3]] = 4.0, 1.0, 2.0, 1.0
    grid = Grid((5, 4, 3), matrix)
    found = evidence(labels, probability, entropy, grid, spread, halo)
    assert set(found) == {1, 2}
    assert found[1]["mean_logit"] == pytest.approx(np.log(0.75 / 0.25), abs=1e-4)
    assert found[1]["peak_logit"] == pytest.approx(np.log(0.995 / 0.005), abs=1e-4)
    assert found[1]["halo_logit"] == pytest.approx(np.log(0.6 / 0.4), abs=1e-4)
    assert found[2]["halo_logit"] == pytest.approx(-np.log(0.6 / 0.4), abs=1e-4)
    assert found[1]["entropy"] == pytest.approx(0.5, abs=1e-5)
    assert np.exp(found[1]["log_diameter"]) == pytest.approx((6 * 48 / np.pi) ** (1 / 3), abs=1e-3)
    assert np.exp(found[1]["log_slice"]) == pytest.approx(4.0, abs=1e-3)
    assert found[1]["mirror_spread"] == pytest.approx(np.sqrt(0.36 / 6), abs=1e-5)
    assert found[2]["mean_logit"] == found[2]["peak_logit"] == 0
    assert set(found[1]) == set(FEATURES)
    assert not {"mirror_spread", "halo_logit"} & set(evidence(labels, probability, entropy, grid)[1])
    assert evidence(np.ones((2, 2, 2), np.uint8), np.ones((2, 2, 2)), np.zeros((2, 2, 2)), grid) == {}


@pytest.mark.parametrize(("name", "expected"), [("thick slices", 5.0), ("SAL left-handed", 2.0), ("LPS", 3.0)])
def test_the_distance_of_slices_is_that_along_the_patient(name, expected):
    assert slice_distance_mm(TEST_GRIDS[name]) == pytest.approx(expected)


# --- the score --------------------------------------------------------------------------------------------------


def test_the_score_is_the_logistic_model_of_the_features_within_their_ranges():
    made = calibration()
    values = dict(zip(USUAL, (1.0, 2.0, 0.5, 0.25, 3.0, 1.0), strict=True))
    total = -1 + 0.5 + 0.6 + 0.3 - 0.5 + 2.4 - 0.4
    assert made.confidence(values) == pytest.approx(1 / (1 + np.exp(-total)))
    beyond = made.confidence({**values, "log_diameter": 99.0})
    assert beyond == made.confidence({**values, "log_diameter": 4.5})
    assert confidences({1: values, 2: {**values, "entropy": 0.9}}, made)[2] < made.confidence(values)


def test_without_a_calibration_or_with_a_missing_feature_there_is_no_confidence():
    values = dict.fromkeys(USUAL, 1.0)
    assert confidences({1: values}, None) == {}
    mirrored = calibration(
        features=(*USUAL, "mirror_spread"),
        coefficients=(*calibration().coefficients, -1.0),
        ranges=(*calibration().ranges, (0.0, 0.5)),
    )
    assert confidences({1: values}, mirrored) == {}
    assert mirrored.confidence({**values, "mirror_spread": 0.1}) is not None
    assert mirrored.confidence({**values, "mirror_spread": float("nan")}) is None


def embedded() -> Calibration:
    made = load_manifest(EMBEDDED_MODELS / "refine").calibration
    assert made is not None
    return made


@pytest.mark.parametrize("name", USUAL)
def test_the_embedded_score_never_works_against_common_sense(name):
    made = embedded()
    middle = dict(zip(made.features, np.mean(made.ranges, axis=1), strict=True))
    low, high = made.ranges[made.features.index(name)]
    scores = [made.confidence({**middle, name: value}) for value in np.linspace(low - 1, high + 1, 9)]
    assert (np.diff(scores) * FEATURES[name] >= 0).all()
    assert all(0 <= score <= 1 for score in scores)


def test_the_embedded_calibration_says_how_it_came_about_and_the_card_shows_it():
    made = embedded()
    card = (EMBEDDED_MODELS / "refine" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card == card_text(load_manifest(EMBEDDED_MODELS / "refine"))
    assert "synthetic" in made.note and made.note in card
    assert sum(row.count for row in made.reliability) == made.lesions_tested >= 50
    assert made.cases >= 30
    for row in made.reliability:
        assert f"{row.mean_confidence:.2f} | {row.observed:.2f}" in card
    error = sum(row.count * abs(row.mean_confidence - row.observed) for row in made.reliability) / made.lesions_tested
    assert made.expected_calibration_error == pytest.approx(error, abs=1e-3)
    assert [row.coverage for row in made.risk_coverage] == sorted(
        (r.coverage for r in made.risk_coverage), reverse=True
    )
    assert made.risk_coverage[0].risk == pytest.approx(1 - made.real_share, abs=1e-3)


# --- in the cascade ---------------------------------------------------------------------------------------------


def unsure(changes=None, answer=(0.2, 0.7), lesions=LESIONS) -> Cascade:
    """A cascade that is never quite certain: inside the lesions its probabilities are ``answer``."""
    refine = Oracle(manifest("refine", spacing_mm=(1.5, 1.5, 2.0), **(changes or {})), [[LIVER], list(lesions)])
    exact = refine.predict

    def predict(ct, prior, fine, progress):
        liver, lesion = exact(ct, prior, fine, progress)
        return torch.stack([0.9 * liver + answer[0] * lesion, answer[1] * lesion])

    refine.predict = predict
    return Cascade(Oracle(manifest("locate", spacing_mm=(3.0, 3.0, 3.0)), [[LIVER]]), refine)


FORCED = Options(force=True)


def run(grid_name: str, options: Options = FORCED, changes=None):
    return segment(analytic_result(TEST_GRIDS[grid_name]).volume, unsure(changes), options)


@pytest.fixture(scope="module")
def oblique():
    return run("oblique", Options(force=True, uncertainty=True), {"calibration": calibration()})


def test_every_lesion_gets_a_confidence_and_the_result_says_where_it_comes_from(oblique):
    assert [lesion.id for lesion in oblique.lesions] == [1, 2] == sorted(oblique.confidences)
    for lesion in oblique.lesions:
        features = oblique.evidence[lesion.id]
        assert np.exp(features["log_diameter"]) == pytest.approx(
            (6000 * lesion.volume_ml / np.pi) ** (1 / 3), rel=1e-4
        )
        assert features["mean_logit"] == pytest.approx(np.log(0.7 / 0.3), abs=0.2)
        assert oblique.confidences[lesion.id] == calibration().confidence(features)
    assert oblique.confidences[1] > oblique.confidences[2], "the larger lesion is the surer one"
    told = json.loads(json.dumps(oblique.provenance))["confidence"]
    assert told["note"] == "For tests." and told["features"] == list(USUAL)


def test_a_model_that_is_not_calibrated_gives_features_and_no_confidence():
    result = run("RAS")
    assert result.confidences == {} and set(result.evidence) == {1, 2}
    assert result.provenance["confidence"] is None
    assert result.uncertainty is None, "nobody asked for it"


def test_a_lesion_that_the_model_is_not_sure_enough_of_is_liver():
    both = run("RAS", changes={"calibration": calibration()})
    between = float(np.mean([both.confidences[1], both.confidences[2]]))
    strict = {"calibration": calibration(), "min_lesion_confidence": between}
    one = run("RAS", changes=strict)
    assert [lesion.id for lesion in one.lesions] == [1] == list(one.evidence) == list(one.confidences)
    assert one.confidences[1] == both.confidences[1]
    assert np.array_equal(one.labels > 0, both.labels > 0) and np.array_equal(one.labels == 2, both.labels == 2)
    lenient = Options(force=True, clean_up=CleanUp(min_lesion_confidence=0.0))
    assert np.array_equal(run("RAS", lenient, strict).labels, both.labels), "the user has the last word"
    uncalibrated = run("RAS", changes={"min_lesion_confidence": 0.99})
    assert len(uncalibrated.lesions) == 2 and uncalibrated.confidences == {}


def test_thicker_slices_never_make_a_lesion_surer():
    scores = [run(name, changes={"calibration": calibration()}).confidences for name in ("RAS", "thick slices")]
    assert scores[1][1] < scores[0][1]


def test_the_entropy_of_a_voxel_is_that_of_its_three_probabilities():
    grid = Grid((5, 4, 3), np.diag([2.0, 2.0, 2.0, 1.0]))
    triples = [(0, 0), (1, 0), (0, 1), (1 / 3, 1 / 3), (0.5, 0.5), (0.2, 0.7)]
    for liver, lesion in triples:
        probability = torch.stack([torch.full(grid.shape, float(p)) for p in (liver, lesion)])
        fused = fuse([Opinion(probability, grid)], grid, with_entropy=True)
        all_three = np.array([p for p in (1 - liver - lesion, liver, lesion) if p > 1e-9])
        expected = -(all_three * np.log(all_three)).sum() / np.log(3)
        assert np.abs(fused.entropy - 255 * expected).max() <= 0.51
        if lesion > liver:
            assert fused.lesion_doubt == pytest.approx(expected, abs=1e-5)
            assert len(fused.lesion_doubt) == np.prod(grid.shape)
    alone = fuse([Opinion(torch.full((1, *grid.shape), 0.5), grid)], grid, with_entropy=True)
    assert (alone.entropy == 255).all() and alone.lesion is None, "two classes have a highest entropy of their own"
    assert fuse([Opinion(probability, grid)], grid).entropy is None


def test_the_uncertainty_volume_lies_on_the_voxels_of_the_input(oblique):
    uncertainty, grid = oblique.uncertainty, TEST_GRIDS["oblique"]
    assert uncertainty.entropy.dtype == np.uint8
    assert uncertainty.entropy.shape == uncertainty.box.size[::-1]
    whole = uncertainty.on(grid)
    assert whole.shape == grid.shape
    outside = np.ones(grid.shape, bool)
    outside[uncertainty.box.slices] = False
    assert not whole[outside].any()
    # Another way to the same: all three probabilities on the whole grid at once.
    cascade = unsure()
    segment(oblique.volume, cascade, FORCED)
    fine = cascade.refine.asked[0][0]
    liver, lesion = (
        resample(p, fine, grid, 0.0).numpy() for p in cascade.refine.predict(None, None, fine, Progress())
    )
    stack = np.clip(np.stack([1 - liver - lesion, liver, lesion]), 1e-12, 1)
    expected = 255 * -(stack * np.log(stack)).sum(axis=0) / np.log(3)
    assert np.abs(whole[uncertainty.box.slices] - expected[uncertainty.box.slices]).max() <= 1
    inside = oblique.labels == 2
    assert whole[inside].mean() > 2 * whole[oblique.labels == 0].mean()


def test_a_liver_that_is_not_confirmed_still_has_its_uncertainty_and_one_that_is_not_located_has_none():
    cascade = unsure()
    cascade.refine.predict = lambda ct, prior, grid, progress: torch.full((2, *grid.shape), 0.2)
    asked = Options(force=True, uncertainty=True)
    result = segment(analytic_result(TEST_GRIDS["RAS"]).volume, cascade, asked)
    assert not result.labels.any() and result.uncertainty.entropy.min() > 200
    hidden = dataclasses.replace(asked, min_liver_ml=1e6)
    assert segment(analytic_result(TEST_GRIDS["RAS"]).volume, cascade, hidden).uncertainty is None


def test_disagreement_of_mirrored_copies_reaches_the_features_of_a_lesion():
    cascade = unsure({"calibration": None})
    exact = cascade.refine.predict

    def predict(ct, prior, fine, progress):
        cascade.refine.spread = torch.full(fine.shape, 0.25)
        return exact(ct, prior, fine, progress)

    cascade.refine.predict = predict
    result = segment(analytic_result(TEST_GRIDS["RAS"]).volume, cascade, FORCED)
    assert [values["mirror_spread"] for values in result.evidence.values()] == pytest.approx([0.25, 0.25], abs=1e-4)


# --- in a scene -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transformed", [False, True])
def test_the_uncertainty_node_lies_over_the_ct_also_under_a_transform(oblique, transformed):
    import slicer
    from LiverCascadeLib import scene as mrml
    from vtkmodules.util.numpy_support import vtk_to_numpy

    scene = mrml.createScene()
    volumeNode = mrml.nodeFromVolume(oblique.volume, scene)
    result = oblique
    if transformed:
        moved = np.array([[0, -1, 0, 5.0], [1, 0, 0, -7], [0, 0, 1, 11], [0, 0, 0, 1]])
        transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(mrml.volumes.matrixFromArray(moved))
        volumeNode.SetAndObserveTransformNodeID(transform.GetID())
        result = dataclasses.replace(oblique, volume=mrml.volumeFromNode(volumeNode))
    node = mrml.uncertaintyNode(result, volumeNode, scene)
    assert node.GetName().endswith("uncertainty")
    assert mrml.worldGrid(node).is_close(result.volume.grid.crop(result.uncertainty.box))
    values = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()).reshape(result.uncertainty.entropy.shape)
    assert np.array_equal(values, oblique.uncertainty.entropy)
    assert node.GetDisplayNode().GetApplyThreshold()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parents = [hierarchy.GetItemParent(hierarchy.GetItemByDataNode(one)) for one in (node, volumeNode)]
    assert parents[0] == parents[1] != 0


def test_no_uncertainty_gives_no_node_and_another_grid_is_refused(oblique):
    from LiverCascadeLib import scene as mrml

    scene = mrml.createScene()
    assert mrml.uncertaintyNode(dataclasses.replace(oblique, uncertainty=None), None, scene) is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    other = mrml.nodeFromVolume(analytic_result(TEST_GRIDS["RAS"]).volume, scene)
    with pytest.raises(ValueError, match="another grid"):
        mrml.uncertaintyNode(oblique, other, scene)


# --- in the manifest --------------------------------------------------------------------------------------------

_RECALLS = ("recall_below_10_mm", "recall_10_to_20_mm", "recall_above_20_mm")
_LIMIT = {"threshold": 0.5, **dict.fromkeys(_RECALLS, 0.5), "false_per_case": 1.0, "healthy_with_false": 0}


def test_a_calibration_in_a_manifest_reads_back_the_same(tmp_path):
    digest = save_model(tmp_path, "refine").weights_sha256
    made = calibration(weights_sha256=digest)
    dataclasses.replace(load_manifest(tmp_path), calibration=made).save(tmp_path)
    assert load_manifest(tmp_path).calibration == made
    dataclasses.replace(load_manifest(tmp_path), calibration=None).save(tmp_path)
    assert load_manifest(tmp_path).calibration is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "red"}, "calibration.colour is not a known field"),
        ({"note": None}, "calibration.note is missing"),
        ({"features": ["size"], "coefficients": [1], "ranges": [[0, 1]]}, "a list of some of mean_logit"),
        ({"features": [["entropy"]], "coefficients": [1], "ranges": [[0, 1]]}, "a list of some of mean_logit"),
        ({"coefficients": [1, 1]}, "6 features, 2 coefficients"),
        ({"coefficients": [0.5, 0.3, 0.6, 2.0, 0.8, -0.4]}, "coefficient of entropy is 2, expected at most 0"),
        (
            {"coefficients": [0.5, 0.3, 0.6, -2.0, -0.8, -0.4]},
            "coefficient of log_diameter is -0.8, expected at least 0",
        ),
        ({"ranges": [[5, 1]] * 6}, "pairs of rising numbers"),
        ({"intercept": "0"}, "calibration.intercept is '0', expected a number"),
        ({"intercept": float("nan")}, "expected a number"),
        ({"real_share": 1.5}, "from 0 to 1"),
        ({"reliability": [{"low": 0}]}, "calibration.reliability[0].high is missing"),
        ({"reliability": ["none"]}, "expected an object"),
        ({"risk_coverage": [{"coverage": "all", "threshold": 0, "risk": 0}]}, "coverage is 'all'"),
        ({"limits": [_LIMIT], "true_lesions": [4, 5]}, "limits and 2 counts of true lesions, expected 3"),
        ({"limits": [_LIMIT], "true_lesions": None}, "limits and 0 counts of true lesions, expected 3"),
        ({"weights_sha256": "1" * 64}, "belongs to other weights"),
    ],
)
def test_a_calibration_that_is_not_valid_is_refused_in_words(tmp_path, changes, words):
    digest = save_model(tmp_path, "refine").weights_sha256
    content = json.loads((tmp_path / "manifest.json").read_text())
    made = {**calibration(weights_sha256=digest).as_dict(), **changes}
    content["calibration"] = {name: value for name, value in made.items() if value is not None}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="not valid") as error:
        load_manifest(tmp_path)
    assert words in str(error.value)


def test_a_calibration_that_is_no_object_is_refused(tmp_path):
    save_model(tmp_path, "refine")
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "calibration": [1]}))
    with pytest.raises(ModelError, match="expected an object or null"):
        load_manifest(tmp_path)


# --- fitting and judging ----------------------------------------------------------------------------------------


def drawn(count: int, seed: int, slope=(1.5, -2.0), intercept=0.5):
    """Features, and outcomes drawn from a logistic model of them; the third feature has no say."""
    rng = np.random.default_rng(seed)
    features = rng.normal(1.0, 1.0, (count, 3))
    chance = 1 / (1 + np.exp(-(features[:, :2] @ np.array(slope) + intercept)))
    return features, rng.random(count) < chance, chance


def test_the_fit_finds_the_model_that_the_outcomes_were_drawn_from():
    features, real, _ = drawn(20_000, 1)
    coefficients, intercept = training.fit_logistic(features, real, (1, -1, 1))
    assert coefficients == pytest.approx([1.5, -2.0, 0.0], abs=0.1)
    assert intercept == pytest.approx(0.5, abs=0.15)


def test_a_feature_that_works_the_wrong_way_gets_no_say():
    features, real, _ = drawn(2000, 2)
    coefficients, _ = training.fit_logistic(features, real, (-1, -1, 1))
    assert coefficients[0] == 0


def test_few_lesions_do_not_give_steep_scores():
    features = np.array([[0.0], [0.0], [1.0], [1.0]])
    real = np.array([False, False, True, True])
    steep, _ = training.fit_logistic(features, real, (1,), ridge=1e-6)
    gentle, _ = training.fit_logistic(features, real, (1,))
    assert 0 < gentle[0] < 5 < steep[0]


def test_reliability_risk_and_area_match_a_case_counted_by_hand():
    scores = np.array([0.9, 0.1, 0.6, 0.4, 0.3, 0.8])
    real = np.array([True, False, True, True, False, False])
    low, middle, high = training.reliability(scores, real, 3)
    assert (low.low, low.high, low.count, low.mean_confidence, low.observed) == (0.1, 0.3, 2, 0.2, 0.0)
    assert (middle.mean_confidence, middle.observed) == (0.5, 1.0)
    assert (high.mean_confidence, high.observed) == (0.85, 0.5)
    rows = training.risk_coverage(scores, real, (1.0, 0.5, 0.01))
    assert [row.risk for row in rows] == [0.5, pytest.approx(1 / 3, abs=1e-4), 0.0]
    assert [row.threshold for row in rows] == [0.1, 0.6, 0.9]
    # Of nine pairs, 0.6 and 0.4 lose against 0.8.
    assert training.area_under_curve(scores, real) == pytest.approx(7 / 9)
    assert training.area_under_curve(np.zeros(4), np.array([True, False, True, False])) == 0.5
    assert sum(row.count for row in training.reliability(np.arange(3) / 3, np.ones(3, bool), 5)) == 3


def made_up_cases(count: int, seed: int = 3, weights=("1" * 64, "2" * 64)) -> list[dict]:
    """Cases whose lesions are real as a logistic model of two features says; the others are noise."""
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        lesions = []
        for _ in range(6):
            values = dict(zip(USUAL, rng.normal(0, 1, len(USUAL)).round(5).tolist(), strict=True))
            real = rng.random() < 1 / (1 + np.exp(-(2 * values["mean_logit"] - values["entropy"])))
            lesions.append({"evidence": values, "iou": 0.5 * bool(real), "volume_ml": 1.0, "shown": True})
        lesions[0]["shown"] = False
        # Real ones are what they look like; one true lesion more is not found.
        real = [n for n, lesion in enumerate(lesions) if lesion["iou"]]
        overlaps = {
            "voxels": [50] * 6,
            "true": [{"voxels": 50, "size": n % 3} for n in range(len(real) + 1)],
            "pairs": [[n, place, 50] for place, n in enumerate(real)],
        }
        case = {"number": number, "seed": 9, "weights": list(weights), "facts": {}, "lesions": lesions}
        cases.append({**case, "overlaps": overlaps})
    return cases


def test_scores_are_judged_on_lesions_that_they_were_not_fitted_to():
    cases = made_up_cases(200)
    made = training.fit(cases, "2" * 64, 9)
    assert (made.cases, made.lesions_fitted, made.lesions_tested) == (200, 1200, 1000)
    assert made.expected_calibration_error < 0.06
    assert made.area_under_curve > 0.8
    sure = training.fit(cases, "2" * 64, 9, least_confidence=0.5)
    assert sure.coefficients == made.coefficients and sure.lesions_tested < made.lesions_tested
    assert sure.real_share > made.real_share + 0.1 and sure.reliability[0].low >= 0.5
    # With the halves' truths exchanged, a score that had seen its own half would still look good.
    for case in cases[1::2]:
        for lesion in case["lesions"]:
            lesion["iou"] = 0.5 - lesion["iou"]
    assert training.fit(cases, "2" * 64, 9).area_under_curve < 0.55


def test_what_limits_find_and_show_in_vain_matches_a_case_counted_by_hand():
    grid = Grid((40, 40, 10), np.eye(4))
    truth, labels = np.zeros((10, 40, 40), np.uint16), np.zeros((10, 40, 40), np.uint16)
    truth[:, 2:38, 2:38] = labels[:, 2:38, 2:38] = 1
    truth[2:8, 4:12, 4:12] = 2  # 11 mm along its long axis
    truth[2:8, 20:36, 4:30] = 3  # 30 mm
    truth[1, 1, 1] = 4  # a crumb
    labels[2:8, 4:12, 4:12] = 2  # found
    labels[2:8, 20:36, 4:10] = 3  # a part of the large one, IoU 0.23
    labels[2:8, 20:22, 20:22] = 4  # a fragment of it, which alone is not it
    labels[2:4, 15:17, 32:36] = 5  # false
    sick = overlaps_of(labels, truth, grid)
    assert [lesion["size"] for lesion in sick["true"]] == [2, 1, None]
    healthy = overlaps_of(np.where(labels == 5, 2, np.minimum(labels, 1)), np.minimum(truth, 1), grid)
    scores = [np.array([0.9, 0.6, 0.8, 0.4]), np.array([0.5])]
    counts, (low, middle, high) = limits_of([sick, healthy], scores, (0.3, 0.6, 0.7))
    assert counts == (0, 1, 1)
    assert (low.recall_10_to_20_mm, low.recall_above_20_mm, low.false_per_case) == (1, 1, 1.5)
    assert (middle.recall_above_20_mm, middle.false_per_case, middle.healthy_with_false) == (1, 0.5, 0)
    assert (high.recall_10_to_20_mm, high.recall_above_20_mm, high.false_per_case) == (1, 0, 0.5)
    assert low.healthy_with_false == 1 and low.recall_below_10_mm == 0


def test_limits_are_judged_by_scores_of_the_other_half():
    made = training.fit(made_up_cases(60), "2" * 64, 9)
    assert sum(made.true_lesions) == sum(len(case["overlaps"]["true"]) for case in made_up_cases(60))
    falling = [(row.recall_below_10_mm, row.false_per_case) for row in made.limits]
    assert falling == sorted(falling, reverse=True) and falling[0][0] > falling[-1][0] > 0


def test_too_few_lesions_are_not_calibrated_with():
    with pytest.raises(ValueError, match="calibrate on more cases"):
        training.fit(made_up_cases(2), "2" * 64, 9)


def test_the_command_takes_up_what_was_run_and_writes_the_calibration_into_model_and_card(tmp_path, capsys):
    models, output = save_pair(tmp_path / "models"), tmp_path / "out"
    output.mkdir()
    weights = [load_manifest(models / role).weights_sha256 for role in ("locate", "refine")]
    for case in made_up_cases(40, weights=weights):
        (output / f"case-{case['number']:03d}.json").write_text(json.dumps(case))
    arguments = ["calibrate", str(models), "--data", str(tmp_path), "--cases", "40", "--seed", "9", "-o", str(output)]
    assert cli.main(arguments) == 0
    assert "200 lesions of 40 scans" in capsys.readouterr().out
    assert load_manifest(models / "refine").calibration is None, "without --apply nothing is changed"
    assert cli.main([*arguments, "--apply"]) == 0
    made = load_manifest(models / "refine").calibration
    assert made.as_dict() == calibration_of(output)
    assert load_manifest(models / "refine").weights_sha256 == weights[1]
    card = (models / "refine" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "## Confidence of lesions" in card and made.note in card
    assert sum(line.startswith("| 0.") for line in card.splitlines()) >= len(made.reliability) + len(made.limits)
    assert "What other limits of confidence show" in card
    # A case of another seed is no case of this calibration: it would have to be run, and there is no data for that.
    missing = ["calibrate", str(models), "--data", str(tmp_path), "--cases", "1", "--seed", "10", "-o", str(output)]
    assert cli.main(missing) == 2
    assert "no label maps" in capsys.readouterr().err


def calibration_of(folder) -> dict:
    """The content of calibration.json, with tuples where a calibration has them."""
    content = json.loads((folder / training.CALIBRATION).read_text())
    return Calibration.from_dict(content).as_dict()


def test_a_card_says_plainly_that_a_model_is_not_calibrated():
    assert "Not calibrated" in card_text(manifest("refine"))
    assert "Confidence" not in card_text(manifest("locate"))


def test_a_predicted_lesion_is_matched_with_the_one_true_lesion_that_it_fits_best():
    truth, labels = np.zeros((2, 4, 6, 6), np.uint16)
    truth[0, 0, :4], truth[0, 1, :2] = 2, 3
    labels[0, 0, 2:6] = 2
    labels[0, 1, :2], labels[0, 0, :1] = 3, 3
    labels[3, 3, 3] = 4
    assert held_out.matched(labels, truth, 2) == pytest.approx(2 / 6)
    assert held_out.matched(labels, truth, 3) == pytest.approx(2 / 3)
    assert held_out.matched(labels, truth, 4) == 0


def test_no_liver_of_an_evaluation_case_is_used_and_none_is_both_trained_on_and_held_out():
    trained, kept = set(livers.TRAINING_LIVERS), set(livers.HELD_OUT_LIVERS)
    assert not {0, *range(28, 48)} & (trained | kept)
    assert not trained & kept and len(trained) == 60 and len(kept) == 31


def test_a_held_out_scan_is_an_abdomen_with_a_known_liver_and_lesions(shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "PAINTED_MM", (3.0, 3.0, 3.0))
    monkeypatch.setattr(held_out, "SLICES_MM", {5.0: 1.0})
    data = shared_data("labels_btcv").parent
    shared_data("labels_lits_liver")
    scan = held_out.make_scan(data, 11, 3)
    assert scan.volume.array.dtype == np.int16
    liver = scan.volume.array[scan.truth == 1]
    assert 20 < np.median(liver) < 180
    assert np.median(scan.volume.array[0][-3:]) < -900, "air before the body; behind it may be the table"
    litres = np.count_nonzero(scan.truth) * scan.volume.grid.voxel_volume_mm3 / 1e6
    assert 0.6 < litres < 4
    assert scan.truth.max() >= 2
    held_out.save_scan(scan, tmp_path / "scan.npz")
    again = held_out.load_scan(tmp_path / "scan.npz")
    assert np.array_equal(again.truth, scan.truth) and np.array_equal(again.volume.array, scan.volume.array)
    assert again.volume.grid.is_close(scan.volume.grid) and again.facts == scan.facts


def body_scan(grid: Grid) -> held_out.HeldOutScan:
    """The analytic bodies as a scan: soft tissue around the liver, air around that, noise everywhere."""
    truth = analytic_result(grid)
    array = np.where(rasterize(Ellipsoid(LIVER.center_ras, (85.0, 62.0, 200.0)), grid), 40, -1000)
    array = np.where(truth.labels > 0, truth.volume.array, array) + np.random.default_rng(0).normal(0, 9, grid.shape)
    return held_out.HeldOutScan(Volume(array.astype(np.int16), grid, "body"), truth.labels, {"liver": "an ellipsoid"})


def test_what_is_found_on_a_scan_is_matched_with_its_truth_and_kept(tmp_path, capsys):
    grid = TEST_GRIDS["RAS"]
    # The first lesion is true; the second is found where there is none.
    cascade = unsure({"min_lesion_peak": 0.65}, lesions=(LESIONS[0], Ellipsoid((70.0, -20.0, -5.0), (8.0, 8.0, 8.0))))
    held_out.save_scan(body_scan(grid), tmp_path / "scan-007.npz")
    case = training._case(7, cascade, tmp_path, tmp_path, 5)
    assert "2 lesions found, 1 of them real; 0 dropped" in capsys.readouterr().out
    assert case["liver_dice"] > 0.97 and case["facts"] == {"liver": "an ellipsoid"}
    first, second = case["lesions"]
    assert first["iou"] > 0.8 and second["iou"] == 0 and first["shown"] and second["shown"]
    assert set(first["evidence"]) == set(USUAL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case-007.json"]
    assert training._case(7, cascade, tmp_path, tmp_path, 5) == case, "what was run is not run again"
    strict = unsure({"min_lesion_peak": 0.75}, lesions=(LESIONS[0],))
    shown = [lesion["shown"] for lesion in training.found_lesions(body_scan(grid), strict)["lesions"]]
    assert shown == [False], "what the model would drop is fitted to, and not counted as shown"
