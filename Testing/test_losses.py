"""Losses: against MONAI and PyTorch, by hand, with labels that nobody knows, and where there is nothing to see."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from LiverCascadeTrainingLib.losses import (
    LOSSES,
    ask_labels,
    ask_segments,
    build_loss,
    cascade_loss,
    loss_settings,
    signed_distances,
)
from LiverCascadeTrainingLib.losses.build import resize_labels
from LiverCascadeTrainingLib.losses.terms import binary_cross_entropy, blobs, boundary, cross_entropy, dice
from LiverCascadeTrainingLib.names import SettingError
from overfit import learn_preset
from torch.nn import functional

SHAPE = (4, 6, 5)


def random_case(channels: int = 3, cases: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits [cases, channels, k, j, i] that want a gradient, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((cases, channels, *SHAPE), generator=generator) * 2
    return logits.requires_grad_(), torch.randint(0, channels, (cases, *SHAPE), generator=generator)


def gradient(loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """What a loss says to the logits."""
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("kind", ["dice", "tversky", "dice-ce", "dice-focal"])
def test_losses_over_regions_agree_with_monai(kind, batch, include_background):
    from monai import losses as monai

    logits, target = random_case()
    common = {"include_background": include_background, "batch": batch}
    theirs = {**common, "softmax": True, "to_onehot_y": True, "smooth_nr": 1e-5, "smooth_dr": 1e-5}
    if kind == "tversky":
        expected = monai.TverskyLoss(alpha=0.3, beta=0.7, **theirs)(logits, target[:, None])
    else:
        expected = monai.DiceLoss(**theirs)(logits, target[:, None])
    if kind == "dice-ce":
        expected = expected + functional.cross_entropy(logits, target)
    if kind == "dice-focal":
        # MONAI averages over the labels too, here it is a sum, as it is in cross-entropy.
        focal = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)
        expected = expected + 3 * focal(logits, target[:, None])
    found, parts = build_loss(kind, smooth=1e-5, **common)([logits], target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(parts) == set(kind.split("-"))
    assert torch.allclose(gradient(found, logits), gradient(expected, logits), atol=1e-6)


def test_cross_entropy_agrees_with_pytorch_with_and_without_weights():
    logits, target = random_case()
    found, _ = build_loss("ce")(logits, target)
    assert found.item() == pytest.approx(functional.cross_entropy(logits, target).item(), rel=1e-6)
    weights = [0.2, 0.3, 0.5]
    found, _ = build_loss("weighted-ce", class_weights=weights)([logits], target)
    expected = functional.cross_entropy(logits, target, weight=torch.tensor(weights))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_binary_cross_entropy_agrees_with_pytorch():
    logits, target = random_case(channels=2)
    found, _ = build_loss("bce", labels=2)([logits], target)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], target.float())
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    logits, target = random_case(channels=3)
    p = torch.softmax(logits, dim=1)
    truth = functional.one_hot(target, 3).movedim(-1, 1).float()
    found, _ = build_loss("bce")([logits], target)
    assert found.item() == pytest.approx(functional.binary_cross_entropy(p, truth).item(), rel=1e-4)


@pytest.mark.parametrize("name", ["ce", "bce", "dice", "dice-ce", "dice-focal", "tversky"])
def test_without_lesion_labels_the_liver_and_its_lesions_are_one_label(name):
    logits, target = random_case()
    merged = torch.stack([logits[:, 0], torch.logsumexp(logits[:, 1:], dim=1)], dim=1)
    found, _ = build_loss(name)([logits], target, {"lesion": False})
    expected, _ = build_loss(name, labels=2)([merged], target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(gradient(found, logits), gradient(expected, logits), atol=1e-6)


@pytest.mark.parametrize("name", ["ce", "bce", "dice", "dice-ce", "dice-focal", "tversky"])
def test_without_liver_labels_everything_but_lesion_is_one_label(name):
    logits, target = random_case()
    merged = torch.stack([torch.logsumexp(logits[:, :2], dim=1), logits[:, 2]], dim=1)
    found, _ = build_loss(name)([logits], torch.where(target == 1, 0, target), {"liver": False})
    expected, _ = build_loss(name, labels=2)([merged], (target == 2).long())
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(gradient(found, logits), gradient(expected, logits), atol=1e-6)


def test_cases_of_one_batch_may_know_different_labels():
    logits, target = random_case()
    known = {"lesion": torch.tensor([True, False])}
    loss = build_loss("ce")
    both, _ = loss([logits], target, known)
    first, _ = loss([logits[:1]], target[:1])
    second, _ = loss([logits[1:]], target[1:], {"lesion": False})
    assert both.item() == pytest.approx((first.item() + second.item()) / 2, rel=1e-6)


def test_a_voxel_that_is_liver_or_lesion_is_neither_punished_for_the_one_nor_for_the_other():
    logits, target = random_case()
    target[:, 1] = 3
    question = ask_labels(logits, target)
    p = torch.softmax(logits, dim=1)
    inside = -(p[:, 1] + p[:, 2]).log()
    expected = functional.cross_entropy(logits, target.clamp(max=2), reduction="none")
    expected[:, 1] = inside[:, 1]
    assert cross_entropy(question).item() == pytest.approx(expected.mean().item(), rel=1e-5)
    for term in (dice, binary_cross_entropy):
        here = gradient(term(question), logits)[:, :, 1]
        # What moves between liver and lesion there does not matter.
        change = torch.stack([torch.zeros_like(p[:, 0]), p[:, 2], -p[:, 1]], dim=1)[:, :, 1]
        assert abs((here * change).sum().item()) < 1e-6, term.__name__


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "cascade"])
def test_voxels_and_cases_of_which_nothing_is_known_have_no_say(name):
    logits, target = random_case()
    target[0, :, :, 2] = 255
    nobody = {"liver": torch.tensor([True, False]), "lesion": torch.tensor([True, False])}
    loss, _ = build_loss(name)([logits], target, nobody)
    said = gradient(loss, logits)
    assert float(said[0, ..., 2].abs().max()) == 0 and float(said[1].abs().max()) == 0
    assert float(said[0, ..., 1].abs().max()) > 0
    loss, parts = build_loss(name)([logits], target, {"liver": False, "lesion": False})
    assert loss.item() == 0 and all(float(part) == 0 for part in parts.values())
    assert float(gradient(loss, logits).abs().max()) == 0


TARGETS = {
    "background": lambda: torch.zeros((2, *SHAPE), dtype=torch.uint8),
    "all liver": lambda: torch.ones((2, *SHAPE), dtype=torch.int64),
    "all lesion": lambda: torch.full((2, *SHAPE), 2),
    "one voxel": lambda: torch.zeros((2, *SHAPE), dtype=torch.int64).index_fill_(3, torch.tensor([0]), 2),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_finite_whatever_is_empty_and_however_sure_the_network_is(name, dtype, target):
    truth = TARGETS[target]()
    for scale in (0.0, 1.0, 1e4):
        logits = (random_case()[0].detach() * scale).clamp(-6e4, 6e4).to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss, parts = build_loss(name)([logits], truth)
        assert loss.dtype == torch.float32 and bool(torch.isfinite(loss)), scale
        assert all(bool(torch.isfinite(part)) and not part.requires_grad for part in parts.values())
        assert bool(torch.isfinite(gradient(loss, logits)).all()), scale


def test_each_instance_counts_the_same_in_the_blob_loss():
    # One row: a lesion of 4 voxels found to a half, one of 1 voxel missed, and a false half voxel.
    target = torch.tensor([[2, 2, 2, 2, 0, 0, 2, 0]])
    p = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0, 0.5, 0.0, 0.0]]).clamp(1e-6, 1 - 1e-6)
    logits = torch.stack([(1 - p) / 2, (1 - p) / 2, p], dim=1).log()
    found = blobs(ask_labels(logits, target), smooth=1e-6)
    large, small = 1 - 2 * 2 / (2 + 0.5 + 4), 1 - 0 / (0 + 0.5 + 1)
    assert found.item() == pytest.approx((large + small) / 2, abs=1e-4)


def test_blobs_touch_by_corners_and_cases_without_any_have_no_say():
    target = torch.zeros((2, 4, 4), dtype=torch.int64)
    target[0, 0, 0] = target[0, 1, 1] = 2
    logits = torch.zeros((2, 3, 4, 4), requires_grad=True)
    found = blobs(ask_labels(logits, target), smooth=1e-6)
    # One instance of two voxels: p inside 2/3, outside 14/3.
    assert found.item() == pytest.approx(1 - 2 * (2 / 3) / (16 / 3 + 2), rel=1e-4)
    assert float(gradient(found, logits)[1].abs().max()) == 0


def test_distances_are_positive_outside_negative_inside_and_zero_on_the_outermost_voxels():
    mask = np.array([[0, 0, 1, 1, 1, 1, 1, 0]])
    assert signed_distances(mask).tolist() == [[2, 1, 0, -1, -2, -1, 0, 1]]
    assert signed_distances(mask, (4.0, 0.5)).tolist() == [[1, 0.5, 0, -0.5, -1, -0.5, 0, 0.5]]
    assert not signed_distances(np.zeros((3, 3))).any() and not signed_distances(np.ones((3, 3))).any()


def test_the_boundary_loss_is_the_mean_distance_weighed_by_the_probability():
    target = torch.tensor([[0, 1, 1, 1, 0, 0, 0, 0]])
    p = torch.tensor([[0.1, 0.9, 0.9, 0.9, 0.5, 0.2, 0.1, 0.1]])
    logits = torch.stack([1 - p, p], dim=1).log().requires_grad_()
    expected = (0.1 * 1 + 0 - 0.9 + 0 + 0.5 * 1 + 0.2 * 2 + 0.1 * 3 + 0.1 * 4) / 8
    found = boundary(ask_labels(logits, target))
    assert found.item() == pytest.approx(expected, rel=1e-4)
    # False voxels are worse the farther away they are.
    said = gradient(found, logits)[0, 1] / (p * (1 - p))[0]
    assert bool((said[4:].diff() > 0).all()) and float(said[2]) < 0


def test_spacing_of_the_boundary_loss_is_given_along_r_a_s():
    target = torch.zeros((1, 3, 3, 3), dtype=torch.int64)
    target[0, 0] = 1
    logits = torch.zeros((1, 2, 3, 3, 3))
    loss = build_loss("boundary", labels=2, spacing=(1.0, 1.0, 5.0))
    _, parts = loss([logits], target)
    # Slices lie 5 mm apart: 9 voxels at 5 mm and 9 at 10 mm; those of the mask lie on the boundary of 5 - 1 mm.
    assert float(parts["boundary"]) == pytest.approx(0.5 * (9 * 5 + 9 * 10 - 9 * 4) / 27, rel=1e-5)


def test_deep_outputs_count_half_as_much_as_the_next_finer_one():
    logits, target = random_case()
    coarse = torch.zeros((2, 3, 2, 3, 3), requires_grad=True)
    one, _ = build_loss("ce")([logits], target)
    low = math.log(3)
    found, parts = build_loss("ce")([logits, coarse], target)
    assert found.item() == pytest.approx((one.item() + 0.5 * low) / 1.5, rel=1e-5)
    assert float(parts["ce"]) == pytest.approx(one.item(), rel=1e-6)
    found, _ = build_loss("ce", deep_weights=[1, 3])([logits, coarse, coarse * 0], target)
    assert found.item() == pytest.approx((one.item() + 3 * low) / 4, rel=1e-5)


def test_labels_for_coarser_outputs_are_those_at_the_centers():
    labels = torch.arange(6, dtype=torch.uint8)[None]
    assert resize_labels(labels, (2,)).tolist() == [[1, 4]]
    assert resize_labels(labels, (6,)) is labels and resize_labels(labels, (3,)).dtype == torch.uint8


def test_segments_are_asked_for_inside_the_liver_of_cases_that_have_them():
    logits, target = random_case(channels=11)
    target = target.clamp(max=2)
    couinaud = torch.where(target > 0, torch.randint(1, 11, target.shape), 0)
    loss = build_loss("ce", couinaud_weight=0.5)
    plain, _ = build_loss("ce")([logits[:, :3]], target)
    batch = {"target": target, "couinaud": couinaud, "known": {"couinaud": torch.tensor([True, False])}}
    found, parts = loss([logits], batch)
    assert found.item() == pytest.approx(plain.item() + 0.5 * float(parts["couinaud"]), rel=1e-5)
    said = gradient(found, logits)[:, 3:]
    assert float(said[1].abs().max()) == 0
    assert float(said[0, :, target[0] == 0].abs().max()) == 0 and float(said[0].abs().max()) > 0
    without, parts = loss([logits], target)
    assert float(parts["couinaud"]) == 0 and without.item() == pytest.approx(plain.item(), rel=1e-6)


def test_both_halves_of_segment_iv_are_segment_iv():
    logits = random_case(channels=8, cases=1)[0]
    halves = torch.full((1, *SHAPE), 9)
    halves[:, 0] = 10
    four = torch.full((1, *SHAPE), 4)
    assert torch.equal(ask_segments(logits, halves).truth, ask_segments(logits, four).truth)
    assert cross_entropy(ask_segments(logits, halves)).item() == pytest.approx(
        functional.cross_entropy(logits, four - 1).item(), rel=1e-6
    )


def test_the_loss_of_the_embedded_models_is_one_of_them():
    logits, target = random_case()
    target[0, 0] = 3
    found, _ = build_loss("cascade", false_lesion_weight=0.3)([logits], target)
    assert found.item() == pytest.approx(cascade_loss(logits, target, false_lesion_weight=0.3).item(), rel=1e-6)
    unlabeled = torch.where(target > 0, 3, 0)
    found, _ = build_loss("cascade")([logits], target, {"lesion": torch.tensor([False, False])})
    assert found.item() == pytest.approx(cascade_loss(logits, unlabeled).item(), rel=1e-6)
    with pytest.raises(SettingError, match="choose another loss"):
        build_loss("cascade")([logits], target, {"liver": False})


@pytest.mark.parametrize("name", LOSSES)
def test_losses_can_be_sent_to_another_process_and_say_what_they_can_be_told(name):
    logits, target = random_case()
    loss = build_loss(name)
    again = build_loss(name, **loss_settings(name))
    values = [one([logits], target)[0].item() for one in (loss, pickle.loads(pickle.dumps(loss)), again)]
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("dice_ce", {}, "Did you mean 'dice-ce'"),
        ("dice", {"smoth": 1}, "Did you mean 'smooth'"),
        ("dice", {"smooth": 0}, "expected a number above 0"),
        ("dice-focal", {"gamma": "2"}, "gamma is '2', expected a number from 0"),
        ("tversky", {"alpha": -1}, "alpha is -1"),
        ("blob", {"blob_weight": -1}, "blob_weight is -1"),
        ("weighted-ce", {"class_weights": [1, 2]}, "fewer numbers than there are labels"),
        ("weighted-ce", {"class_weights": []}, "class_weights is empty"),
        ("ce", {"deep_weights": [0, 1]}, "the finest output must count"),
        ("ce", {"labels": 1}, "a whole number from 2"),
    ],
)
def test_unknown_losses_and_settings_out_of_range_are_refused(name, settings, text):
    with pytest.raises(SettingError, match=text):
        build_loss(name, **settings)


@pytest.mark.long
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_network_learn_two_cases_by_heart(name):
    learned = learn_preset("unet", name)
    assert min(learned.dice) >= 0.9, learned.dice
    assert learned.losses[-1] < 0.8 * learned.losses[0]
