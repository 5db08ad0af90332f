"""What is said about an input in plain words."""

from __future__ import annotations

import time

import numpy as np
import pytest
from LiverCascadeLib.findings import Finding, Severity
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.preflight import (
    CostModel,
    cost_finding,
    estimate_cost,
    judge_coverage,
    judge_density,
    judge_orientation,
    preflight,
    settled,
)
from LiverCascadeLib.sampling import body_silhouette, sample
from LiverCascadeLib.volume import Volume, read_labels, read_volume

SIZE = (88, 64, 72)
SPACING = 4.0


def ras_grid(size=SIZE, spacing=(SPACING,) * 3) -> Grid:
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = (-150, -120, 40)
    return Grid(size, matrix)


def ellipsoid(center, radii) -> np.ndarray:
    """Bool [S, A, R]; center and radii in voxels along (R, A, S)."""
    s, a, r = np.indices(SIZE[::-1])
    return sum(((x - c) / d) ** 2 for x, c, d in zip((r, a, s), center, radii, strict=True)) <= 1


LIVER = ellipsoid((58, 34, 34), (16, 14, 12))


def phantom() -> np.ndarray:
    """A coarse trunk on a table, axes along R, A and S: lungs at the top, liver on the right, spine at the back."""
    values = np.full(SIZE[::-1], -1000.0)
    trunk = ellipsoid((44, 32, 36), (36, 24, 1e6))
    values[trunk] = -100
    values[ellipsoid((44, 32, 36), (33, 21, 1e6))] = 30
    for center in (28, 60):
        lung = ellipsoid((center, 34, 72), (13, 17, 30))
        values[lung] = -800
    values[LIVER] = 60
    values[ellipsoid((44, 14, 36), (4, 4, 1e6))] = 500
    values[:, 2, 10:78] = -100  # the table's top
    noise = np.random.default_rng(0).normal(0, 10, values.shape)
    return np.clip(values + noise, -1024, 3000).astype(np.int16)


PHANTOM = phantom()


def volume(array: np.ndarray, grid: Grid | None = None) -> Volume:
    return Volume(np.ascontiguousarray(array).astype(np.int16), grid or ras_grid(array.shape[::-1]))


def codes(findings) -> list[str]:
    return [finding.code for finding in findings if finding.code != "cost-estimate"]


def only(findings, code: str) -> Finding:
    return next(finding for finding in findings if finding.code == code)


def test_a_good_volume_has_nothing_but_an_estimate():
    findings = preflight(volume(PHANTOM), [(0.5, 6)] * 3)
    assert [f.code for f in findings] == ["cost-estimate"]
    assert findings[0].severity is Severity.INFO


@pytest.mark.parametrize("fill", [0, -1000, 37])
def test_a_constant_volume_is_an_error(fill):
    (finding,) = [f for f in preflight(volume(np.full(SIZE[::-1], fill))) if f.code != "cost-estimate"]
    assert finding.code == "constant-volume" and finding.severity is Severity.ERROR
    assert str(fill) in finding.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v + 1024, "subtract 1024"),
        (lambda v: v - 1024, "add 1024"),
        (lambda v: v + 8192, "subtract 8192"),
        (lambda v: v / 2, "multiply by 2"),
        (lambda v: v / 10, "multiply by 10"),
        (lambda v: (np.clip(v, -160, 240) + 160) * 255 / 400, "8-bit"),
        (lambda v: v / 1000, "normalized"),
        (lambda v: v > 0, "label map"),
    ],
)
def test_values_that_are_no_hounsfield_units_are_an_error_that_says_why(change, words):
    finding = preflight(volume(change(PHANTOM.astype(np.float32))))[0]
    assert finding.code == "not-hu" and finding.severity is Severity.ERROR
    assert words in finding.message


def test_mr_like_intensities_are_named():
    rng = np.random.default_rng(0)
    mr = np.where(PHANTOM > -300, rng.normal(600, 200, PHANTOM.shape), rng.rayleigh(8, PHANTOM.shape))
    finding = preflight(volume(np.clip(mr, 0, 4000)))[0]
    assert finding.code == "mr-like" and finding.severity is Severity.ERROR


def test_positive_values_without_background_are_not_hu():
    values = np.random.default_rng(0).normal(2500, 400, (20, 30, 40))
    assert codes(preflight(volume(np.clip(values, 300, None)))) == ["not-hu"]


def test_a_crop_from_within_the_body_is_accepted_as_ct():
    crop = PHANTOM[10:30, 22:42, 34:54]
    assert crop.min() > -200
    assert not {"not-hu", "mr-like", "no-soft-tissue"} & set(codes(preflight(volume(crop))))


def _crop_with_a_little_gas() -> np.ndarray:
    """Unenhanced organs, water, fat, bone and 1 % of gas, as the middle of an abdomen has them; the seed is fixed."""
    rng = np.random.default_rng(0)
    tissues = ((45, 12, 0.45), (8, 8, 0.15), (-105, 10, 0.32), (300, 200, 0.05), (-900, 60, 0.01), (-500, 150, 0.02))
    means, spreads, shares = zip(*tissues, strict=True)
    kind = rng.choice(len(tissues), size=(20, 30, 40), p=shares)
    return rng.normal(np.array(means)[kind], np.array(spreads)[kind])


def test_the_fat_of_a_crop_is_not_taken_for_air_of_a_wrong_slope():
    crop = _crop_with_a_little_gas()
    assert not {"not-hu", "mr-like", "no-soft-tissue"} & set(codes(preflight(volume(crop))))


@pytest.mark.parametrize("change", [lambda v: v + 1024, lambda v: v - 1024])
def test_a_crop_with_another_scale_is_still_doubted(change):
    found = codes(preflight(volume(change(_crop_with_a_little_gas()))))
    assert {"not-hu", "no-soft-tissue"} & set(found)


def test_air_alone_has_no_soft_tissue():
    values = np.random.default_rng(0).normal(-990, 10, SIZE[::-1])
    finding = preflight(volume(values))[0]
    assert finding.code == "no-soft-tissue" and finding.severity is Severity.ERROR


def test_values_between_lung_and_fat_everywhere_are_doubted():
    values = np.random.default_rng(0).uniform(-1000, 300, SIZE[::-1])
    finding = preflight(volume(values))[0]
    assert finding.code == "not-hu" and finding.severity is Severity.WARNING


def test_padding_outside_the_field_of_view_is_not_held_against_a_ct():
    padded = PHANTOM.copy()
    padded[:, :, :6] = padded[:, :, -6:] = -3024
    assert codes(preflight(volume(padded))) == []


def test_thick_slices_are_warned_about_above_5_mm():
    thin, thick = ras_grid(spacing=(4, 4, 5)), ras_grid(spacing=(4, 4, 7.5))
    assert codes(preflight(volume(PHANTOM, thin))) == []
    assert "7.5 mm apart" in only(preflight(volume(PHANTOM, thick)), "thick-slices").message


def test_spacing_outside_the_models_range_is_named_by_axis():
    known = [(0.5, 1.5), (0.5, 5.0), (0.5, 5.0)]
    finding = only(preflight(volume(PHANTOM), known), "spacing-outside-model")
    assert "4.00 mm left-right (trained for 0.5 to 1.5 mm)" in finding.message
    assert "front-back" not in finding.message


def test_the_range_follows_the_patients_axes_and_not_the_files():
    turned = np.ascontiguousarray(PHANTOM.transpose(1, 2, 0))
    matrix = np.zeros((4, 4))
    matrix[2, 0], matrix[0, 1], matrix[1, 2], matrix[3, 3] = 5.0, 1.0, 1.0, 1.0
    grid = Grid(turned.shape[::-1], matrix)
    assert "spacing-outside-model" not in codes(preflight(volume(turned, grid), [(1, 1), (1, 1), (5, 5)]))


def test_metal_is_measured():
    metal = PHANTOM.copy()
    metal[30:34, 30:34, 30:40] = 3000
    assert "10 mL" in only(preflight(volume(metal)), "metal").message


def test_empty_slices_are_counted():
    empty = PHANTOM.copy()
    empty[:36] = -1000
    assert "50 % of the slices" in only(preflight(volume(empty)), "half-empty").message


def test_without_lungs_at_the_top_the_dome_may_be_cut():
    assert "liver-cut-top" in codes(preflight(volume(PHANTOM[:40])))


def test_with_lungs_at_the_bottom_the_lower_liver_is_missing():
    assert "liver-cut-bottom" in codes(preflight(volume(PHANTOM[56:])))


def test_a_volume_upside_down_is_suspected_from_its_lungs():
    assert {"liver-cut-top", "liver-cut-bottom"} <= set(codes(preflight(volume(PHANTOM[::-1]))))


def test_an_identity_matrix_is_pointed_out():
    assert "identity-affine" in codes(preflight(volume(PHANTOM, Grid(SIZE, np.eye(4)))))


def test_serious_findings_come_first():
    findings = preflight(volume(PHANTOM + 1024, ras_grid(spacing=(4, 4, 8))))
    assert [f.severity for f in findings] == [Severity.ERROR, Severity.WARNING, Severity.INFO]


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 300, 3), (1, 1, 1)])
def test_odd_volumes_never_raise(shape):
    rng = np.random.default_rng(0)
    for values in (rng.integers(-1000, 1000, shape), np.full(shape, -3024), np.full(shape, 40)):
        assert preflight(volume(values))


def test_the_body_holds_its_lungs_and_leaves_the_table_out():
    inside = body_silhouette(PHANTOM)
    assert inside[70, 34, 60] and inside[20, 34, 20]
    assert not inside[:, 2].any()


def test_there_is_no_body_in_air():
    assert body_silhouette(np.full((5, 6, 7), -1000, np.int16)) is None


def test_a_sample_is_upright_and_knows_where_its_voxels_lie():
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1.0, 0], [0, 0, 2.0], [-1.5, 0, 0]]
    grid = Grid((40, 30, 20), matrix)
    k, j, i = np.indices(grid.shape)
    heights = grid.to_ras(np.stack([i, j, k], axis=-1))[..., 2]
    taken = sample(heights, grid, spacing_mm=4.0)
    assert taken.grid.axes == "RAS"
    assert np.allclose(taken.grid.spacing, (4, 4, 3))
    s, a, r = np.indices(taken.values.shape)
    assert np.allclose(taken.values, taken.grid.to_ras(np.stack([r, a, s], axis=-1))[..., 2])


def test_a_sample_never_exceeds_its_limit():
    assert (
        sample(np.zeros((60, 70, 80), bool), Grid((80, 70, 60), np.diag([4, 4, 4, 1])), most=20_000).values.size
        <= 20_000
    )


def test_the_estimate_grows_with_voxels_and_with_space():
    model = CostModel(10, 1.0, 2.0, 1.5, 4.0)
    seconds, gigabytes = estimate_cost(ras_grid((100, 100, 100), (1, 1, 1)), model)
    assert seconds == pytest.approx(10 + 1 + 2 * 1)
    assert gigabytes == pytest.approx(1.5 + 0.004)
    assert estimate_cost(ras_grid((100, 100, 100), (2, 1, 1)), model)[0] == pytest.approx(10 + 1 + 2 * 2)


def test_the_estimate_is_told_in_words():
    assert "on the CPU" in cost_finding(ras_grid()).message
    assert "on a GPU" in cost_finding(ras_grid(), "cuda:1").message
    assert "min" in cost_finding(ras_grid((1000, 1000, 1000), (1, 1, 1))).message


def test_a_liver_inside_the_volume_is_whole():
    assert judge_coverage(LIVER, ras_grid()) == ()


@pytest.mark.parametrize(
    ("part", "code", "word"),
    [
        (np.s_[:34], "liver-cut-top", "top"),
        (np.s_[34:], "liver-cut-bottom", "bottom"),
        (np.s_[:, :, :58], "liver-cut-side", "right"),
        (np.s_[:, :, 58:], "liver-cut-side", "left"),
        (np.s_[:, :34], "liver-cut-side", "front"),
        (np.s_[:, 34:], "liver-cut-side", "back"),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_a_liver_that_touches_the_border_is_cut_on_that_side_of_the_patient(part, code, word, flip):
    mask = LIVER[part]
    grid = ras_grid(mask.shape[::-1])
    if flip:
        mask = mask[::-1, ::-1, ::-1]
        grid = grid.transformed(np.diag([-1, -1, -1, 1.0]))
    (finding,) = judge_coverage(mask, grid)
    assert finding.code == code and f"at the {word} of" in finding.message
    assert finding.severity is Severity.WARNING


def test_a_touch_of_a_few_voxels_is_no_cut():
    mask = np.zeros((10, 20, 20), bool)
    mask[:, 10, 10] = True
    assert judge_coverage(mask, ras_grid((20, 20, 10))) == ()


@pytest.mark.parametrize(("density", "said"), [(46, True), (74, True), (76, False), (110, False)])
def test_a_liver_without_contrast_medium_is_warned_about(density, said):
    # As many bright vessels as there may be do not make it an enhanced one.
    values = np.r_[np.full(900, density), np.full(100, 200)].astype(np.int16)
    findings = judge_density(values)
    assert codes(findings) == (["little-contrast"] if said else [])
    assert all(f"{density} HU" in finding.message for finding in findings)


def test_no_liver_has_no_density():
    assert judge_density(np.zeros(0, np.int16)) == ()


def test_what_was_seen_replaces_what_was_guessed():
    guessed = preflight(volume(PHANTOM[:40], ras_grid((88, 64, 40), (4, 4, 8))))
    seen = judge_coverage(LIVER, ras_grid())
    assert codes(settled(guessed, seen)) == ["thick-slices"]


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ((1, 1, 1), []),
        ((-1, 1, 1), ["orientation-left-right"]),
        ((1, 1, -1), ["orientation-head-foot"]),
        ((1, -1, 1), ["orientation-front-back"]),
        ((-1, -1, 1), ["orientation-left-right", "orientation-front-back"]),
    ],
)
def test_a_flipped_header_contradicts_the_anatomy(signs, expected):
    grid = ras_grid().transformed(np.diag([*signs, 1.0]))
    assert codes(judge_orientation(LIVER, grid, volume(PHANTOM, grid))) == expected


@pytest.mark.parametrize(("gaps", "expected"), [(False, []), (True, ["orientation-front-back"])])
def test_contrast_in_the_bowel_is_told_from_a_spine_by_its_gaps(gaps, expected):
    array = PHANTOM.copy()
    body = np.argwhere((array > -200).any(axis=0))
    low, high = body.min(axis=0), body.max(axis=0)
    # More of it than of all bone, before the body's middle, and in most slices only.
    j = slice(low[0] + (3 * (high[0] - low[0])) // 5, high[0] - 3)
    i = slice((low[1] + high[1]) // 2 - 12, (low[1] + high[1]) // 2 + 12)
    array[np.arange(len(array)) % 8 > 0, j, i] = 500
    if gaps:
        spineless = array[::8]
        spineless[spineless > 300] = 40
    assert codes(judge_orientation(LIVER, ras_grid(), volume(array))) == expected


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_the_order_of_the_files_axes_does_not_matter(axes):
    matrix = ras_grid().ijk_to_ras.copy()
    matrix[:3, :3] = matrix[:3, :3][:, [2 - axes[2 - n] for n in range(3)]]
    array = PHANTOM.transpose(axes)
    grid = Grid(array.shape[::-1], matrix)
    assert judge_orientation(LIVER.transpose(axes), grid, volume(array, grid)) == ()


def test_a_located_probability_on_a_coarser_grid_is_enough():
    grid = ras_grid()
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, :3] *= 2
    coarse = Grid((44, 32, 36), matrix)
    probability = np.where(LIVER[::2, ::2, ::2], 0.9, 0.1).astype(np.float32)
    flip = np.diag([-1, 1, 1, 1.0])
    assert judge_orientation(probability, coarse, volume(PHANTOM)) == ()
    flipped = judge_orientation(probability, coarse.transformed(flip), volume(PHANTOM, grid.transformed(flip)))
    assert codes(flipped) == ["orientation-left-right"]


@pytest.mark.parametrize("cut", [slice(None, 44), slice(44, None)])
def test_nothing_is_said_about_left_and_right_where_half_of_the_body_is_missing(cut):
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    half, liver = np.ascontiguousarray(PHANTOM[:, :, cut]), np.ascontiguousarray(LIVER[:, :, cut])
    grid = volume(half).grid
    for turned in (grid, grid.transformed(flip)):
        assert "orientation-left-right" not in codes(judge_orientation(liver, turned, volume(half, turned)))


def test_nothing_is_said_about_orientation_without_a_liver_or_a_body():
    assert judge_orientation(np.zeros_like(LIVER), ras_grid(), volume(PHANTOM)) == ()
    assert judge_orientation(LIVER, ras_grid(), volume(np.full_like(PHANTOM, -1000))) == ()
    elsewhere = np.eye(4)
    elsewhere[2, 3] = 5000
    assert judge_orientation(LIVER, ras_grid().transformed(elsewhere), volume(PHANTOM)) == ()


REAL = [
    ("ts_example/ct.nii.gz", "ts_example/seg_104_classes.nii.gz", 5, {"metal", "liver-cut-top"}, {"liver-cut-top"}),
    ("chaos_03/ct.nii.gz", "chaos_03/liver.nii.gz", None, set(), {"liver-cut-bottom"}),
    ("dicom_ct20", "dicom_ct20/seg.nii.gz", 5, {"liver-cut-top"}, {"liver-cut-top", "liver-cut-bottom"}),
]


@pytest.mark.parametrize(("ct", "labels", "liver", "before", "after"), REAL, ids=[case[0] for case in REAL])
def test_real_volumes_are_judged_as_they_are(shared_data, ct, labels, liver, before, after):
    image = read_volume(shared_data(ct))
    array, grid = read_labels(shared_data(labels))
    mask = array == liver if liver else array > 0
    assert set(codes(preflight(image))) == before
    assert {f.code for f in judge_coverage(mask, grid)} == after
    assert judge_orientation(mask, grid, image) == ()
    flip = np.diag([-1, 1, 1, 1.0])
    flipped = Volume(image.array, image.grid.transformed(flip))
    assert codes(judge_orientation(mask, grid.transformed(flip), flipped)) == ["orientation-left-right"]


def test_the_real_dicom_volume_with_flipped_axes_is_judged_as_it_is(shared_data, unzipped):
    image = read_volume(unzipped("lits_000/series.zip"))
    mask, grid = read_labels(shared_data("lits_000/liver.nii.gz"))
    assert codes(preflight(image)) == []
    assert judge_coverage(mask > 0, grid) == ()
    assert judge_orientation(mask > 0, grid, image) == ()
    flip = np.diag([1, 1, -1, 1.0])
    flipped = Volume(image.array, image.grid.transformed(flip))
    assert codes(judge_orientation(mask > 0, grid.transformed(flip), flipped)) == ["orientation-head-foot"]


@pytest.mark.parametrize("name", ["acrin_flt_001", "matrad_liver"])
def test_other_real_volumes_raise_no_alarm(shared_data, name):
    assert codes(preflight(read_volume(shared_data(f"unlabelled/{name}.nii.gz")))) == []


@pytest.mark.alone
def test_preflight_is_quick():
    big = np.zeros((119, 512, 512), np.int16)
    big[:, 100:400, 100:400] = 50
    big[:, :100] = -1000
    candidate = volume(big, ras_grid((512, 512, 119), (0.74, 0.74, 1.6)))
    preflight(candidate)  # imports scipy
    started = time.perf_counter()
    preflight(candidate)
    assert time.perf_counter() - started < 0.5
