"""The training companion: samples, losses, priors of synthetic bodies, and the embedded example."""

import dataclasses

import numpy as np
import pytest
import torch
from LiverCascadeLib.channels import blur
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.stages import CanonicalStage
from LiverCascadeLib.volume import read_labels, write_labels
from LiverCascadeTrainingLib import cli
from LiverCascadeTrainingLib.anatomy import Tissue, invent_body, smooth_noise
from LiverCascadeTrainingLib.cases import _save, load_cases
from LiverCascadeTrainingLib.data.sources import SyntheticSource
from LiverCascadeTrainingLib.evaluation import compare, compare_files, dice, lesion_counts, surface_distance_95
from LiverCascadeTrainingLib.lesions import LesionRanges, add_lesions
from LiverCascadeTrainingLib.livers import organs_of, with_liver
from LiverCascadeTrainingLib.looks import (
    LESION,
    LIVER,
    LIVER_OR_LESION,
    SampleSpec,
    leave_invisible_out,
    look_up,
    sample_tissues,
    shade_neighbors,
)
from LiverCascadeTrainingLib.losses import (
    build_loss,
    cascade_loss,
    missed_lesions,
    mistaken_lesions,
    soft_dice_loss,
    unseen_lesions,
)
from LiverCascadeTrainingLib.painting import draw_palette
from LiverCascadeTrainingLib.phantom import phantom_organs
from LiverCascadeTrainingLib.priors import PriorBank, imitate_prior
from LiverCascadeTrainingLib.samples import SampleSet
from scipy import ndimage
from tiny_models import save_model

MOVED = np.array([[1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SPEC = SampleSpec(
    (2.0, 2.0, 3.0), (32, 32, 16), (-175.0, 250.0), ("ct", "liver_probability"), with_lesions=True, real_share=0.5
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One synthetic and two 'real' cases, one of which hides real lesions."""
    folder = tmp_path_factory.mktemp("cases")
    rng = np.random.default_rng(3)
    tissue = invent_body(phantom_organs(rng), 2.0, rng)
    _save(folder, "phantom", "synthetic", tissue, None, (2.0, 2.0, 2.0), True)
    liver = (tissue == Tissue.LIVER).astype(np.uint8)
    hu = draw_palette(rng).mean_hu[tissue].astype(np.int16)
    _save(folder, "healthy", "real", hu, liver, (2.0, 2.0, 2.0), True)
    _save(folder, "unknown", "real", hu, liver, (2.0, 2.0, 2.0), False)
    return folder


def test_a_body_is_invented_around_the_organs_and_leaves_them_alone():
    rng = np.random.default_rng(5)
    organs = phantom_organs(rng)
    tissue = invent_body(organs, 2.0, rng)
    inner = tissue[:, 20:-20, 20:-20]
    assert np.array_equal(inner[organs > 0], organs[organs > 0])
    for wanted in (Tissue.LUNG, Tissue.BONE, Tissue.MARROW, Tissue.SUBCUTANEOUS_FAT, Tissue.MUSCLE, Tissue.HEART):
        assert (tissue == wanted).sum() > 1000, wanted.name
    lung, liver = np.nonzero(tissue == Tissue.LUNG)[0].mean(), np.nonzero(tissue == Tissue.LIVER)[0].mean()
    assert lung > liver
    spine, front = np.nonzero(tissue == Tissue.MARROW)[1].mean(), np.nonzero(tissue == Tissue.LIVER)[1].mean()
    assert spine < front


def test_noise_has_zero_mean_and_unit_variance():
    noise = smooth_noise((40, 50, 60), 12, np.random.default_rng(0))
    assert noise.shape == (40, 50, 60)
    assert abs(noise.mean()) < 1e-3
    assert abs(noise.std() - 1) < 1e-3


def test_blurring_keeps_the_mean_and_has_the_asked_width():
    point = torch.zeros(41, 41, 41)
    point[20, 20, 20] = 1
    blurred = blur(point, (3.0, 2.0, 0.0))
    assert torch.isclose(blurred.sum(), torch.tensor(1.0), atol=1e-4)
    offsets = torch.arange(41) - 20.0
    assert abs(float((blurred.sum(dim=(1, 2)) * offsets**2).sum().sqrt()) - 3) < 0.15
    assert abs(float((blurred.sum(dim=(0, 2)) * offsets**2).sum().sqrt()) - 2) < 0.15
    assert float(blurred[20, 20, 21]) == 0


def test_organs_of_one_palette_belong_to_one_phase():
    palettes = [draw_palette(np.random.default_rng(seed)) for seed in range(200)]
    arterial = [p for p in palettes if p.phase == "arterial"]
    unenhanced = [p for p in palettes if p.phase == "unenhanced"]
    assert min(p.mean_hu[Tissue.AORTA] for p in arterial) > max(p.mean_hu[Tissue.AORTA] for p in unenhanced)
    assert len({p.phase for p in palettes}) == 4


def test_lesions_lie_in_the_liver_and_change_only_its_surroundings():
    liver = torch.zeros(40, 60, 60, dtype=torch.bool)
    liver[5:35, 10:50, 10:50] = True
    hu = torch.where(liver, 100.0, 0.0)
    generator = torch.Generator().manual_seed(0)
    ranges = LesionRanges((5.0, 12.0), chance=1.0, mean_count=2.0)
    changed, mask = add_lesions(hu, liver, (2.0, 1.0, 1.0), ranges, np.random.default_rng(1), generator)
    assert mask.any()
    assert not (mask & ~liver).any()
    assert (changed[mask] - hu[mask]).abs().mean() > 10
    far = ~liver.clone()
    far[3:37, 7:53, 7:53] = False
    assert torch.equal(changed[far], hu[far])


def test_a_bulging_lesion_leaves_the_liver_but_not_through_bone():
    liver = torch.zeros(40, 60, 60, dtype=torch.bool)
    liver[:, :30] = True
    hu = torch.where(liver, 100.0, -100.0)
    hu[:, 34:] = 400.0
    outside, most = [], 0.0
    for seed in range(20):
        masks = []
        for bulge in (0.0, 1.0):
            ranges = LesionRanges((8.0, 10.0), 1.0, mean_count=4.0, bulge_chance=bulge)
            rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
            changed, mask = add_lesions(hu, liver, (1.5, 1.0, 1.0), ranges, rng, generator)
            masks.append(mask)
        assert not (masks[0] & ~liver).any()
        outside.append(int((masks[1] & ~liver).sum()))
        assert not masks[1][:, 34:].any()
        if outside[-1]:
            # It looks like the lesion there, not like the fat that it pushed away.
            most = max(most, float((changed - hu)[masks[1] & ~liver].max()))
    assert np.count_nonzero(outside) >= 5 and most > 80


def test_patchy_lesions_are_lobed():
    liver = torch.ones(40, 40, 40, dtype=torch.bool)
    roughness = []
    for patchy in (0.0, 1.0):
        ranges = LesionRanges((12.0, 13.0), 1.0, mean_count=0, bright_chance=0.0, patchy_chance=patchy)
        found = []
        for seed in range(16):
            rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
            _, mask = add_lesions(torch.full((40, 40, 40), 100.0), liver, (1.5, 1.5, 1.5), ranges, rng, generator)
            surface = sum(int((mask.diff(dim=axis) != 0).sum()) for axis in range(3))
            found.append(surface / int(mask.sum()) ** (2 / 3))
        roughness.append(np.median(found))
    assert roughness[1] > 1.1 * roughness[0]


def test_a_patchy_lesion_changes_nothing_where_there_is_none():
    liver = torch.zeros(40, 40, 40, dtype=torch.bool)
    liver[:20] = True
    ranges = LesionRanges((8.0, 9.0), 1.0, patchy_chance=1.0)
    rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
    hu, mask = add_lesions(torch.full((40, 40, 40), 100.0), liver, (1.5, 1.5, 1.5), ranges, rng, generator)
    assert mask.any() and not mask[20:].any()
    assert float((hu[24:] - 100).abs().max()) < 1


def test_a_zoned_lesion_is_darker_inside_than_at_its_rim():
    liver = torch.ones(48, 48, 48, dtype=torch.bool)
    ranges = LesionRanges((20.0, 21.0), 1.0, mean_count=0, zoned_chance=1.0)
    differences = []
    for seed in range(12):
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        hu, mask = add_lesions(torch.full((48, 48, 48), 110.0), liver, (1.5, 1.5, 1.5), ranges, rng, generator)
        depth = torch.from_numpy(ndimage.distance_transform_edt(np.pad(mask.numpy(), 1))[1:-1, 1:-1, 1:-1])
        rim, core = (depth > 1) & (depth <= 3), depth > 0.8 * depth.max()
        differences.append(float(hu[rim].mean() - hu[core].mean()))
        assert float(hu[mask].mean()) < 110 - 5
    assert np.median(differences) > 15


def test_mimics_darken_some_of_the_liver_and_are_no_lesions():
    liver = torch.zeros(40, 60, 60, dtype=torch.bool)
    liver[:, :40] = True
    ranges = LesionRanges(chance=0.0, mimic_chance=1.0)
    for seed in range(6):
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        hu, mask = add_lesions(torch.full((40, 60, 60), 100.0), liver, (1.5, 1.0, 1.0), ranges, rng, generator)
        dark = hu < 95
        assert not mask.any()
        assert 0 < int(dark[liver].sum()) < 0.5 * int(liver.sum())
        assert float((hu[:, 44:] - 100).abs().max()) < 1


def test_the_liver_of_another_patient_takes_the_place_of_the_old_one_and_spares_large_vessels(shared_data):
    data = shared_data("labels_btcv").parent
    volume = shared_data("labels_lits_liver") / "segmentation-1.nii.gz"
    organs = organs_of(sorted((data / "labels_btcv").glob("*.nii.gz"))[0])
    changed = with_liver(organs, data, 1)
    labels, grid = read_labels(volume)
    litres, wanted = (changed == Tissue.LIVER).sum() * 8e-6, (labels > 0).sum() * grid.voxel_volume_mm3 / 1e6
    assert 0.9 < litres / wanted <= 1.01
    # Where the slices of both lie can be told by the vessels alone, which stay as they were.
    first = next(
        k for k in range(len(organs)) if np.array_equal(organs[k] == Tissue.AORTA, changed[0] == Tissue.AORTA)
    )
    kept = organs[first : first + len(changed)]
    for vessel in (Tissue.AORTA, Tissue.VENA_CAVA, Tissue.PORTAL_VEIN):
        assert np.array_equal(kept == vessel, changed == vessel) and (changed == vessel).any()
    domes = [np.nonzero(map_ == Tissue.LIVER)[0].max() for map_ in (kept, changed)]
    assert domes[0] == domes[1]


def test_no_lesions_where_there_is_no_liver():
    hu = torch.zeros(10, 10, 10)
    result = add_lesions(hu, hu > 1, (1.0, 1.0, 1.0), LesionRanges(), np.random.default_rng(0), torch.Generator())
    assert not result[1].any()


def test_a_sample_depends_on_seed_and_index_alone(cache):
    cases = load_cases(cache)
    first, again = (SampleSet(cases, SPEC, seed=1) for _ in range(2))
    for index in (0, 5, 17):
        a, b = first[index], again[index]
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(first[1][0], first[2][0])
    assert not torch.equal(SampleSet(cases, SPEC, seed=2)[1][0], first[1][0])


def test_samples_have_the_asked_shape_range_and_labels(cache):
    samples = SampleSet(load_cases(cache), SPEC, seed=4)
    labels = set()
    for index in range(24):
        image, target = samples[index]
        assert image.shape == (2, 16, 32, 32) and image.dtype == torch.float32
        assert target.shape == (16, 32, 32) and target.dtype == torch.uint8
        assert float(image.min()) >= 0 and float(image.max()) <= 1
        labels |= set(torch.unique(target).tolist())
    assert labels == {0, LIVER, LESION, LIVER_OR_LESION}


def test_real_cases_come_as_often_as_their_weights_say(cache):
    spec = dataclasses.replace(SPEC, real_share=1.0, negative_share=0.0, lesions=LesionRanges(chance=0.0))
    only_unknown = SampleSet(load_cases(cache), spec, seed=4, weights={"healthy": 0.0, "unknown": 2.0})
    only_healthy = SampleSet(load_cases(cache), spec, seed=4, weights={"unknown": 0.0})
    for index in range(8):
        assert LIVER not in only_unknown[index][1] and LIVER_OR_LESION not in only_healthy[index][1]


def test_a_liver_that_may_hide_lesions_gets_made_ones_where_that_is_wanted(cache):
    ranges = LesionRanges((5.0, 12.0), chance=1.0)
    for wanted in (False, True):
        spec = dataclasses.replace(
            SPEC, real_share=1.0, negative_share=0.0, lesions=ranges, lesions_beside_unknown=wanted
        )
        samples = SampleSet(load_cases(cache), spec, seed=4, weights={"healthy": 0.0})
        labels = {int(value) for index in range(8) for value in torch.unique(samples[index][1])}
        assert labels == ({0, LESION, LIVER_OR_LESION} if wanted else {0, LIVER_OR_LESION})


def test_small_lesions_that_nobody_could_see_are_neither_lesion_nor_liver():
    noise = torch.randn(40, 60, 80, generator=torch.Generator().manual_seed(1))
    target = torch.full(noise.shape, LIVER, dtype=torch.uint8)
    hu = 100 + blur(20 * noise, (1, 1, 1))
    # A faint, a clear and a bright lesion of 1 cm, and a faint one of more than 2 cm.
    for place, change in (((5, 5, 5), 0), ((5, 5, 25), -40), ((5, 5, 45), 40)):
        block = tuple(slice(n, n + 9) for n in place)
        target[block], hu[block] = LESION, hu[block] + change
    target[16:38, 20:42, 20:42] = LESION
    told = leave_invisible_out(hu, target, (1.0, 1.0, 1.0), 0.5)
    assert (told[5:14, 5:14, 5:14] == LIVER_OR_LESION).all()
    assert int((told == LIVER_OR_LESION).sum()) == 9**3
    assert int((told == LESION).sum()) == int((target == LESION).sum()) - 9**3
    assert torch.equal(leave_invisible_out(hu, target, (1.0, 1.0, 1.0), 0.0), target)
    # By millimeters, not by voxels: the same lesion of larger voxels is too large to be left out.
    assert torch.equal(leave_invisible_out(hu, target, (3.0, 3.0, 3.0), 0.5), target)
    # Where hardly any liver is in sight, nobody knows what it is like.
    alone = torch.where(target == LESION, target, 0)
    assert torch.equal(leave_invisible_out(hu, alone, (1.0, 1.0, 1.0), 0.5), alone)


def test_samples_leave_out_what_cannot_be_seen_where_that_is_wanted(cache):
    cases = [case for case in load_cases(cache) if case.kind == "synthetic"]
    ranges = LesionRanges((4.0, 8.0), chance=1.0, mean_count=4.0)
    spec = dataclasses.replace(SPEC, real_share=0.0, negative_share=0.0, centered_share=1.0, lesions=ranges)
    everything = SampleSet(cases, spec, seed=4)
    visible = SampleSet(cases, dataclasses.replace(spec, least_lesion_contrast=1.5), seed=4)
    left_out = kept = 0
    for index in range(12):
        whole, part = everything[index][1], visible[index][1]
        assert torch.equal(whole.gt(0), part.gt(0))
        assert (whole[part == LIVER_OR_LESION] == LESION).all()
        left_out += int((part == LIVER_OR_LESION).sum())
        kept += int((part == LESION).sum())
    assert left_out > 0 and kept > 0


def test_neighbors_of_a_liver_get_other_densities_and_fat_bone_and_liver_keep_theirs():
    hu = torch.full((30, 60, 80), 50.0)
    hu[:, :, :20], hu[:, :, 60:70], hu[:, :, 70:] = 100.0, -100.0, 700.0
    liver = torch.zeros_like(hu)
    liver[:, :, :20] = 1.0
    changes = []
    for seed in range(6):
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        change = shade_neighbors(hu, liver, (1.5, 0.8, 0.8), rng, generator) - hu
        assert (change[:, :, :20] == 0).all() and float(change[:, :, 60:].abs().max()) < 0.01
        changes.append(change[:, :, 20:60])
        assert 3 < float(changes[-1].std()) < 40
    assert float(torch.stack(changes).mean(dim=0).abs().mean()) < 15


def test_tissues_between_voxels_are_what_most_of_the_neighborhood_is():
    rng = np.random.default_rng(3)
    image = np.kron(rng.integers(0, 6, (5, 6, 7)), np.ones((4, 4, 4), int)).astype(np.uint8)
    position = torch.from_numpy(rng.uniform(-2, np.array(image.shape) + 1, (30, 30, 30, 3)).astype(np.float32))
    votes = torch.stack([look_up((image == tissue).astype(np.float32), position) for tissue in range(6)])
    sure = votes.topk(2, dim=0).values.diff(dim=0).abs()[0] > 1e-3
    found = sample_tissues(image, position)
    assert torch.equal(found[sure], votes.argmax(dim=0)[sure].to(torch.uint8))
    beyond = ((position < -1) | (position > torch.tensor(image.shape))).any(dim=-1)
    assert beyond.any() and (found[beyond] == Tissue.AIR).all()


def test_made_lesions_teach_beside_liver_of_which_nobody_knows_whether_it_is_lesion(cache):
    ranges = LesionRanges((5.0, 12.0), chance=1.0)
    spec = dataclasses.replace(SPEC, real_share=1.0, negative_share=0.0, lesions=ranges, lesions_beside_unknown=True)
    source = SyntheticSource(SampleSet(load_cases(cache), spec, seed=4, weights={"healthy": 0.0}))
    item = next(item for item in map(source.__getitem__, range(8)) if (item["target"] == LESION).any())
    assert (item["target"] == LIVER_OR_LESION).any()
    batch = {"target": item["target"][None], "known": {group: flag[None] for group, flag in item["known"].items()}}
    logits = torch.zeros(1, 3, *item["target"].shape)
    for name in ("cascade", "dice-ce"):
        loss = build_loss(name, labels=3)
        start = logits.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss([start], batch)[0], start)
        assert (slope[0, 2][item["target"] == LESION] < 0).all()
        # What may be either is pulled towards both alike.
        either = item["target"] == LIVER_OR_LESION
        assert torch.allclose(slope[0, 1][either], slope[0, 2][either], atol=1e-6)


def test_a_locate_sample_has_one_channel_and_one_label(cache):
    spec = dataclasses.replace(SPEC, inputs=("ct",), with_lesions=False, spacing_mm=(4.0, 4.0, 4.0))
    samples = SampleSet(load_cases(cache), spec, seed=4)
    seen = set()
    for index in range(12):
        image, target = samples[index]
        assert image.shape[0] == 1
        seen |= set(torch.unique(target).tolist())
    assert seen == {0, 1}


def test_dice_loss_is_zero_for_a_match_and_one_for_a_miss():
    mask = torch.zeros(2, 8, 8, 8)
    mask[:, :4] = 1
    assert float(soft_dice_loss(mask, mask)) < 1e-3
    assert float(soft_dice_loss(mask, 1 - mask)) > 0.99


def test_unknown_lesion_state_counts_as_liver_and_not_against_lesions():
    target = torch.full((1, 4, 4, 4), LIVER_OR_LESION)
    as_liver, as_lesion, as_background = (torch.full((1, 3, 4, 4, 4), -8.0) for _ in range(3))
    as_liver[:, 1], as_lesion[:, 2], as_background[:, 0] = 8, 8, 8
    assert torch.isclose(cascade_loss(as_liver, target), cascade_loss(as_lesion, target), atol=1e-4)
    assert cascade_loss(as_background, target) > cascade_loss(as_liver, target) + 1


def test_a_missed_lesion_costs_more_than_a_found_one():
    target = torch.full((1, 4, 4, 4), LIVER)
    target[:, :2] = LESION
    right = torch.full((1, 3, 4, 4, 4), -8.0)
    right[:, 2, :2], right[:, 1, 2:] = 8, 8
    missed = torch.full((1, 3, 4, 4, 4), -8.0)
    missed[:, 1] = 8
    assert cascade_loss(missed, target) > cascade_loss(right, target) + 1


def test_false_lesions_cost_more_when_they_are_weighed_and_unknown_ones_do_not():
    target = torch.full((1, 8, 8, 8), LIVER)
    false = torch.full((1, 3, 8, 8, 8), -8.0)
    false[:, 2] = 8
    right = false[:, [0, 2, 1]]

    def added(logits, labels):
        return cascade_loss(logits, labels, false_lesion_weight=1.0) - cascade_loss(logits, labels)

    assert torch.isclose(added(false, target), 2 * torch.log1p(torch.tensor(512 / 500)), atol=1e-3)
    assert added(right, target) < 1e-3
    assert added(false, torch.full_like(target, LIVER_OR_LESION)) < 1e-3


def test_a_missed_small_lesion_counts_by_its_diameter_beside_a_large_one():
    lesion = torch.zeros(2, 20, 20, 20)
    lesion[0, 2:10, 2:10, 2:10] = 1
    lesion[0, 14:18, 14:18, 14:18] = 1
    large, both = torch.zeros_like(lesion), lesion.clone()
    large[0, 2:10, 2:10, 2:10] = 1
    # Diameters of 8 and 4: the small one is a third of what is to be found, though a ninth of the voxels.
    assert float(missed_lesions(large, lesion)) == pytest.approx(1 / 3, abs=1e-6)
    assert float(missed_lesions(both, lesion)) == pytest.approx(0, abs=1e-6)
    assert float(missed_lesions(0.25 * both, lesion)) == pytest.approx(0.75, abs=1e-6)
    assert float(missed_lesions(both, torch.zeros_like(lesion))) == 0


def test_missed_lesions_teach_a_network_that_false_ones_silence():
    target = torch.full((1, 24, 24, 24), LIVER)
    target[:, 2:16, 2:16, 2:16], target[:, 19:22, 19:22, 19:22] = LESION, LESION
    small = target.eq(LESION)
    small[:, :18] = False
    slopes = []
    for weight in (0.0, 1.0):
        # The large lesion is found; of the small one the network is unsure, and of as much of the liver around it.
        logits = torch.full((1, 3, 24, 24, 24), -6.0)
        logits[:, 1] = 6.0
        logits[:, 1, 2:16, 2:16, 2:16], logits[:, 2, 2:16, 2:16, 2:16] = -6.0, 6.0
        logits[:, 1:, 18:23, 18:23, 18:23] = 0.0
        logits.requires_grad_()
        cascade_loss(logits, target, false_lesion_weight=0.5, missed_lesion_weight=weight).backward()
        unsure = torch.zeros_like(small)
        unsure[:, 18:23, 18:23, 18:23] = True
        slopes.append(float(logits.grad[:, 2][unsure].sum()))
    assert slopes[0] > 0 > slopes[1]


def test_a_lesion_that_is_surely_not_seen_is_learned_from_when_unseen_lesions_are_weighed():
    target = torch.full((1, 24, 24, 24), LIVER)
    target[:, 4:10, 4:10, 4:10] = LESION
    pulls = []
    for weights in ({"missed_lesion_weight": 1.0}, {"unseen_lesion_weight": 1.0}):
        logits = torch.full((1, 3, 24, 24, 24), -6.0)
        logits[:, 1] = 0.0
        logits.requires_grad_()
        cascade_loss(logits, target, **weights).backward()
        pulls.append(-float(logits.grad[:, 2][target.eq(LESION)].sum()))
    # exp(-6) of a mean probability, beside the 0.001 that is added, leaves 70 % of the full slope of 2.
    assert pulls[1] == pytest.approx(pulls[0] + 2 * 0.71, rel=0.03)
    assert pulls[0] < 0.1


def test_unseen_lesions_count_by_diameter_and_have_a_highest_price():
    lesion = torch.zeros(1, 20, 20, 20)
    lesion[0, 2:10, 2:10, 2:10] = 1
    lesion[0, 14:18, 14:18, 14:18] = 1
    half = 0.5 * lesion
    assert float(unseen_lesions(half, lesion)) == pytest.approx(np.log(2), abs=0.003)
    assert float(unseen_lesions(0 * half, lesion)) == pytest.approx(np.log(1000), abs=1e-3)
    large = lesion.clone()
    large[0, 12:] = 0
    assert float(unseen_lesions(large, lesion)) == pytest.approx(np.log(1000) / 3, abs=2e-3)
    assert float(unseen_lesions(half, torch.zeros_like(lesion))) == 0


def test_a_false_lesion_that_the_network_is_sure_of_is_unlearned_when_mistaken_lesions_are_weighed():
    target = torch.full((1, 24, 24, 24), LIVER)
    false = torch.zeros_like(target, dtype=torch.bool)
    false[:, 4:10, 4:10, 4:10] = True
    pulls = []
    for weight in (0.0, 1.0):
        logits = torch.zeros(1, 3, 24, 24, 24)
        logits[:, 1] = 6.0
        logits[:, 2][false] = 12.0
        logits.requires_grad_()
        cascade_loss(logits, target, mistaken_lesion_weight=weight).backward()
        pulls.append(float(logits.grad[:, 2][false].sum()))
    # 1 - p is exp(-6) in it, beside the 0.001 that is added; the whole term weighs 2.
    assert pulls[1] == pytest.approx(pulls[0] + 2 * 0.71, rel=0.03)
    assert pulls[0] < 0.2


def test_mistaken_lesions_count_by_diameter_among_true_ones_and_spare_what_touches_a_lesion():
    lesion = torch.zeros(1, 20, 20, 20)
    lesion[0, 2:10, 2:10, 2:10] = 1
    probability = torch.zeros_like(lesion)
    probability[0, 9:13, 2:10, 2:10] = 0.9
    assert float(mistaken_lesions(probability, lesion)) == 0
    probability[0, 15:19, 15:19, 15:19] = 0.9
    assert float(mistaken_lesions(probability, lesion)) == pytest.approx(-np.log(0.101) / 3, rel=1e-3)
    probability[0, 9:13] = 0
    assert float(mistaken_lesions(probability, 0 * lesion)) == pytest.approx(-np.log(0.101), rel=1e-3)
    assert float(mistaken_lesions(0.5 * probability, lesion)) == 0


def test_a_gentle_prior_is_nearly_right_and_a_harsh_one_is_not(cache):
    spec = SPEC
    target = torch.zeros(16, 32, 32, dtype=torch.uint8)
    target[4:12, 8:24, 8:24] = LIVER
    shares = []
    for gentle in (True, False):
        wrong = 0.0
        for seed in range(20):
            rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
            prior = imitate_prior(target, spec, rng, generator, gentle)
            assert float(prior.min()) >= 0 and float(prior.max()) <= 1
            wrong += float(((prior > 0.5) != (target > 0)).float().mean()) / 20
        shares.append(wrong)
    assert shares[0] < 0.5 * shares[1]


@pytest.fixture(scope="module")
def locate_folder(tmp_path_factory):
    """A locate model; what it says does not matter where :class:`KnownLiver` stands in for it."""
    folder = tmp_path_factory.mktemp("locate")
    save_model(folder, "locate", spacing_mm=(6.0, 6.0, 6.0), patch_size=(32, 32, 32))
    return folder


class KnownLiver(CanonicalStage):
    """A locate stage that marks every voxel of soft tissue in the right half of the body, whatever it sees."""

    def __init__(self, folder):
        self.manifest = load_manifest(folder)

    def predict(self, ct, prior, grid, progress):
        found = torch.zeros_like(ct)
        found[ct.shape[0] // 3 : 2 * ct.shape[0] // 3, :, ct.shape[2] // 2 :] = 0.9
        return found[None]


def test_priors_of_a_locate_model_follow_the_patch_through_the_case(cache, locate_folder, tmp_path):
    cases, spec = load_cases(cache), SPEC
    bank = PriorBank.fill(tmp_path / "priors", cases, KnownLiver(locate_folder), spec, variants=1, seed=7)
    assert all(bank.knows(case) for case in cases)
    case = cases[0]
    corner = np.array(case.image.shape) // 2 - np.array([8, 16, 16])
    axes = [torch.arange(n) + float(a) for n, a in zip((16, 32, 32), corner, strict=True)]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).float()
    target = torch.zeros(16, 32, 32, dtype=torch.uint8)
    inside, outside = [], []
    for seed in range(10):
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        prior = bank.prior(case, position, target, spec, rng, generator)
        assert prior.shape == target.shape and float(prior.min()) >= 0 and float(prior.max()) <= 1
        inside.append(float(prior[:, :, -8:].median()))
        outside.append(float(prior[:, :, :8].median()))
    assert np.median(inside) > 0.6 and np.median(outside) < 0.1


def test_priors_are_made_once_and_are_the_same_each_time(cache, locate_folder, tmp_path):
    cases, spec = load_cases(cache), SPEC
    stage = KnownLiver(locate_folder)
    PriorBank.fill(tmp_path / "a", cases, stage, spec, variants=1, seed=7)
    files = sorted((tmp_path / "a").glob("*.npy"))
    assert len(files) == 4 + 4 + 1  # four looks of each real case
    stamps = [path.stat().st_mtime_ns for path in files]
    PriorBank.fill(tmp_path / "a", cases, stage, spec, variants=1, seed=7)
    assert stamps == [path.stat().st_mtime_ns for path in files]
    PriorBank.fill(tmp_path / "b", cases, stage, spec, variants=1, seed=7)
    for path in files:
        assert np.array_equal(np.load(path), np.load(tmp_path / "b" / path.name))


def test_evaluation_figures_match_a_case_counted_by_hand():
    grid = Grid((20, 20, 20), np.diag([1.0, 1.0, 2.0, 1.0]))
    reference, predicted = np.zeros((2, *grid.shape), np.uint8)
    reference[5:15, 5:15, 5:15] = 1
    predicted[5:15, 5:15, 6:16] = 1
    assert np.isclose(dice(predicted > 0, reference > 0), 0.9)
    assert surface_distance_95(predicted > 0, reference > 0, grid) == 1.0
    reference[6:8, 6:8, 6:8] = 2
    reference[12:14, 12:14, 12:14] = 2
    predicted[6:8, 6:8, 6:9] = 2  # IoU 8/12
    predicted[9, 9, 9] = 2  # false
    counts = lesion_counts(predicted > 1, reference > 1, grid)
    assert counts == {"lesions": 2, "hit": 1, "lesions_ge10": 0, "hit_ge10": 0, "predicted": 2, "false": 1}
    assert compare(predicted, reference, grid)["liver_ml"] == 2.0
    assert dice(predicted > 9, reference > 9) == 1.0
    with pytest.raises(ValueError, match="not empty"):
        surface_distance_95(predicted > 9, reference > 0, grid)


def test_files_with_the_same_voxels_in_another_order_are_compared_rightly(tmp_path):
    rng = np.random.default_rng(0)
    labels = (rng.random((9, 8, 7)) > 0.5).astype(np.uint8)
    grid = Grid((7, 8, 9), np.array([[-2.0, 0, 0, 30], [0, -2.0, 0, 40], [0, 0, 3.0, 50], [0, 0, 0, 1]]))
    turned = grid.canonical()
    write_labels(tmp_path / "a.nii.gz", labels, grid)
    write_labels(tmp_path / "b.nii.gz", np.ascontiguousarray(labels[:, ::-1, ::-1]), turned)
    assert compare_files(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", with_lesions=False)["liver_dice"] == 1.0
    write_labels(tmp_path / "c.nii.gz", labels, grid.transformed(MOVED))
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_files(tmp_path / "a.nii.gz", tmp_path / "c.nii.gz")
    assert cli.main(["evaluate", str(tmp_path / "a.nii.gz"), str(tmp_path / "c.nii.gz")]) == 2
    assert cli.main(["evaluate", str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz"), "--liver-only"]) == 0


def test_measuring_writes_figures_and_cards_to_both_models(tmp_path):
    for role in ("locate", "refine"):
        save_model(tmp_path / "models" / role, role, spacing_mm=(12.0, 12.0, 12.0))
    assert cli.main(["measure", "--models", str(tmp_path / "models"), "--data", str(tmp_path)]) == 0
    for role in ("locate", "refine"):
        figures = load_manifest(tmp_path / "models" / role).measured["cascade"]["embedded example"]
        assert 0 <= figures["liver_dice"] <= 1
        card = (tmp_path / "models" / role / "MODEL_CARD.md").read_text()
        assert f"{figures['liver_dice']:.3f}" in card
        assert "not a medical device" in card or "tests" in card


def test_the_committed_example_is_what_the_generator_makes(tmp_path):
    from LiverCascadeLib.resources import RESOURCES

    assert cli.main(["example", "--to", str(tmp_path)]) == 0
    for name in ("synthetic_abdomen.nii.gz", "synthetic_abdomen_truth.nii.gz"):
        (made, grid), (committed, other) = (read_labels(f / name) for f in (tmp_path, RESOURCES / "SampleData"))
        assert grid.is_close(other)
        # Rounding differs between processors; the picture does not.
        assert np.mean(np.abs(made.astype(int) - committed) > 1) < 1e-3
    assert len(np.unique(committed)) >= 4
    assert (RESOURCES / "SampleData" / "synthetic_abdomen.nii.gz").stat().st_size <= 3_000_000
