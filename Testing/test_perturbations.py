"""Scans changed on purpose: what changes, and that the liver stays where it lies in the patient."""

import numpy as np
import pytest
from analytic_bodies import LIVER, TEST_GRIDS, Ellipsoid, analytic_result, rasterize
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.sampling import upright_view
from LiverCascadeLib.volume import Volume
from LiverCascadeTrainingLib.proofs import perturbations as changes
from LiverCascadeTrainingLib.proofs.perturbations import PERTURBATIONS

BY_NAME = {perturbation.name: perturbation for perturbation in PERTURBATIONS}
STORAGE = [name for name in BY_NAME if name.startswith(("flip", "rotate", "cyclic"))]
SOFT = Ellipsoid(LIVER.center_ras, (85.0, 62.0, 200.0))


def patient(name: str = "LPS") -> tuple[Volume, np.ndarray]:
    """Soft tissue around the liver, air around that: a CT, and its liver."""
    grid = TEST_GRIDS[name]
    truth = analytic_result(grid)
    array = np.where(rasterize(SOFT, grid), 40, -1000)
    array = np.where(truth.labels > 0, 100, array) + np.random.default_rng(0).normal(0, 5, grid.shape)
    return Volume(array.astype(np.int16), grid, "patient"), truth.labels > 0


def values_at(volume: Volume, ras: np.ndarray) -> np.ndarray:
    """Values of the voxels next to positions."""
    k, j, i = np.rint(volume.grid.to_ijk(ras)).astype(int).T[::-1]
    return volume.array[k, j, i]


def test_there_are_all_kinds_of_changes_each_with_a_name_of_its_own():
    assert len(BY_NAME) == len(PERTURBATIONS) and len(STORAGE) >= 6
    assert {f"slices-{mm}mm" for mm in (1, 2, 3, 5, 7)} < set(BY_NAME)


@pytest.mark.parametrize("grid", ["LPS", "ASR permuted", "oblique"])
@pytest.mark.parametrize("name", STORAGE)
def test_another_order_of_voxels_is_the_same_patient(name, grid):
    volume, liver = patient(grid)
    turned, mask = BY_NAME[name].applied(volume, liver)
    assert turned.grid.axes != volume.grid.axes
    assert np.allclose(turned.grid.canonical().ijk_to_ras, volume.grid.canonical().ijk_to_ras)
    for before, after in ((volume.array, turned.array), (liver, mask)):
        assert np.array_equal(upright_view(before, volume.grid)[0], upright_view(after, turned.grid)[0])


@pytest.mark.parametrize("thickness", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("grid", ["LPS", "ASR permuted"])
def test_other_slices_keep_the_liver_where_it_is(thickness, grid):
    volume, liver = patient(grid)
    sliced, mask = BY_NAME[f"slices-{thickness}mm"].applied(volume, liver)
    assert sliced.grid.canonical().spacing[2] == pytest.approx(thickness)
    assert np.allclose(sliced.grid.canonical().spacing[:2], volume.grid.canonical().spacing[:2])
    assert mask.sum() * sliced.grid.voxel_volume_mm3 == pytest.approx(
        liver.sum() * volume.grid.voxel_volume_mm3, rel=0.03
    )
    centers = [g.to_ras(np.argwhere(m)[:, ::-1].mean(axis=0)) for g, m in ((volume.grid, liver), (sliced.grid, mask))]
    assert np.abs(centers[0] - centers[1]).max() < 0.5
    assert abs(np.median(sliced.array[mask]) - 100) < 3


def test_shifts_and_noise_are_as_large_as_they_say_and_come_out_the_same_each_time():
    volume, liver = patient()
    assert np.array_equal(BY_NAME["shift-plus"].applied(volume, liver)[0].array, volume.array + 20)
    assert np.array_equal(BY_NAME["shift-minus"].applied(volume, liver)[0].array, volume.array - 20)
    for level in (15, 40):
        noisy, mask = BY_NAME[f"noise-{level}"].applied(volume, liver)
        assert (noisy.array.astype(float) - volume.array).std() == pytest.approx(level, rel=0.03)
        assert np.array_equal(mask, liver)
        assert np.array_equal(noisy.array, BY_NAME[f"noise-{level}"].applied(volume, liver)[0].array)


def test_noise_leaves_padding_alone():
    volume, liver = patient()
    volume.array[:, :3] = -3024
    assert (BY_NAME["noise-40"].applied(volume, liver)[0].array[:, :3] == -3024).all()


@pytest.mark.parametrize("name", ["field-right", "field-inner", "field-upper", "field-lower"])
@pytest.mark.parametrize("grid", ["LPS", "PIR permuted"])
def test_a_smaller_field_of_view_is_a_part_of_the_same_patient(name, grid):
    volume, liver = patient(grid)
    part, mask = BY_NAME[name].applied(volume, liver)
    assert 0.2 < part.array.size / volume.array.size < 0.7
    ras = part.grid.to_ras(np.argwhere(mask)[:, ::-1])
    assert np.array_equal(values_at(volume, ras), part.array[mask])
    assert 0.1 * liver.sum() < mask.sum() < 0.95 * liver.sum()
    middle = volume.grid.to_ras((np.array(volume.grid.size) - 1) / 2)
    low, high = part.grid.to_ras([0, 0, 0]), part.grid.to_ras(np.array(part.grid.size) - 1)
    if name == "field-right":
        assert low[0] > middle[0] - volume.grid.canonical().spacing[0] and high[0] > low[0]
    if name == "field-upper":
        heights = volume.grid.to_ras(np.argwhere(liver)[:, ::-1])[:, 2]
        assert (heights.min() + heights.max()) / 2 == pytest.approx(low[2], abs=2 * volume.grid.canonical().spacing[2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("padding-low", -3024),
        ("padding-medium", -2000),
        ("padding-zero", 0),
        ("padding-high", 3071),
        ("wrap-padding", 32536),
    ],
)
def test_padding_fills_the_corners_and_nothing_of_the_body(name, value):
    volume, liver = patient("ASR permuted")
    padded, _ = BY_NAME[name].applied(volume, liver)
    upright = upright_view(padded.array, padded.grid)[0]
    assert (upright[:, [0, 0, -1, -1], [0, -1, 0, -1]] == value).all()
    body = volume.array > -500
    assert np.array_equal(padded.array[body], volume.array[body])
    assert 0.01 < np.mean(padded.array == value) < 0.25


def test_metal_beyond_the_range_comes_back_at_its_other_end_and_spares_the_liver():
    volume, liver = patient()
    changed, mask = BY_NAME["wrap-metal"].applied(volume, liver)
    metal = changed.array == 40000 - 65536
    milliliters = metal.sum() * changed.grid.voxel_volume_mm3 / 1000
    assert 3 < milliliters < 2 * 4 / 3 * np.pi * 1.2**3 * 1.1
    assert not (metal & mask).any()


def test_arms_lie_beside_the_body_and_streaks_between_them():
    volume, liver = patient()
    wide, mask = BY_NAME["arms"].applied(volume, liver)
    assert wide.grid.extent_mm[0] > volume.grid.canonical().extent_mm[0] + 4 * changes.ARM_RADIUS_MM
    ras = wide.grid.to_ras(np.argwhere(mask)[:, ::-1])
    assert mask.sum() == liver.sum()
    streaks = wide.array[mask].astype(float) - values_at(volume, ras)
    assert abs(streaks.mean()) < 3 and 1 < streaks.std() < 2 * changes.STREAK_HU
    center = wide.grid.to_ijk(np.array(LIVER.center_ras))[0]
    bone = wide.array > 400
    sides = [bone[:, :, : int(center)].sum(), bone[:, :, int(center) :].sum()]
    assert min(sides) > 0 and max(sides) < 1.5 * min(sides)
    outer = [wide.array[:, :, :3], wide.array[:, :, -3:]]
    assert all(np.median(part) < -900 for part in outer), "the scan is wide enough for both arms"


def test_without_a_body_there_is_no_place_for_arms():
    air = Volume(np.full((8, 20, 20), -1000, np.int16), Grid((20, 20, 8), np.diag([3.0, 3.0, 3.0, 1.0])))
    with pytest.raises(ValueError, match="No body"):
        BY_NAME["arms"].applied(air, np.zeros((8, 20, 20), bool))
