"""Grids, boxes, and resampling between grids."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from LiverCascadeLib.geometry import LPS_RAS, Box, Grid, axis_maps, iter_resampled, resample

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
NAMES = ["".join(str(a) for a in order) + "".join("+-"[s < 0] for s in signs) for order, signs in ORIENTATIONS]


def rotation(a: float, b: float, c: float) -> np.ndarray:
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def turned_grid(order, signs, size=(9, 8, 7), spacing=(1.5, 2.0, 2.5), tilt=(0, 0, 0)) -> Grid:
    """A grid whose voxel axes run along ``order`` of (R, A, S), with ``signs``."""
    matrix = np.eye(4)
    for axis, (ras, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[:3, axis] = 0
        matrix[ras, axis] = sign * spacing[axis]
    matrix[:3, :3] = rotation(*tilt) @ matrix[:3, :3]
    matrix[:3, 3] = (-40.5, 17.25, 300.0)
    return Grid(size, matrix)


def plain(size, spacing=(1, 1, 1), origin=(0, 0, 0)) -> Grid:
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = origin
    return Grid(size, matrix)


def linear(grid: Grid) -> np.ndarray:
    """Values [k, j, i] that are a linear function of the position in the patient."""
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    return (ras @ (2.0, -3.0, 0.5) + 7).astype(np.float32)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS, ids=NAMES)
class TestEveryOrientation:
    def test_lps_round_trip_returns_the_same_grid(self, order, signs):
        grid = turned_grid(order, signs, tilt=(0.2, -0.1, 0.3))
        assert Grid.from_lps(grid.size, *grid.to_lps()).is_close(grid, 1e-9)

    def test_positions_and_indices_are_inverse(self, order, signs):
        grid = turned_grid(order, signs, tilt=(0.2, -0.1, 0.3))
        ijk = np.random.default_rng(0).uniform(-3, 12, (20, 3))
        assert np.allclose(grid.to_ijk(grid.to_ras(ijk)), ijk)

    def test_axes_are_named_by_where_they_point(self, order, signs):
        letters = "".join(("RAS", "LPI")[s < 0][a] for a, s in zip(order, signs, strict=True))
        assert turned_grid(order, signs, tilt=(0.1, 0.1, -0.1)).axes == letters

    def test_canonical_axes_point_to_right_front_and_head(self, order, signs):
        grid = turned_grid(order, signs, tilt=(0.1, 0.1, -0.1))
        canonical = grid.canonical()
        assert canonical.axes == "RAS"
        assert canonical.canonical().is_close(canonical)
        assert np.isclose(canonical.voxel_volume_mm3, grid.voxel_volume_mm3)
        assert np.allclose(*[g.to_ras((np.array(g.size) - 1) / 2) for g in (canonical, grid)])

    def test_to_canonical_and_back_loses_nothing(self, order, signs):
        grid = turned_grid(order, signs, tilt=(0.1, 0.1, -0.1))
        values = np.random.default_rng(1).integers(-1000, 1000, grid.shape).astype(np.int16)
        canonical = grid.canonical()
        there = resample(values, grid, canonical, pad=-1024)
        back = resample(there, canonical, grid, pad=-1024)
        assert np.allclose(back.numpy(), values, atol=1e-2)

    def test_a_linear_function_is_resampled_exactly_inside(self, order, signs):
        grid = turned_grid(order, signs, tilt=(0.1, 0.1, -0.1))
        target = grid.canonical((1.0, 1.1, 1.2)).crop(Box((3, 3, 3), (10, 11, 10)))
        values = resample(linear(grid), grid, target, pad=0).numpy()
        assert np.allclose(values, linear(target), atol=1e-3)


@pytest.mark.parametrize(
    ("size", "matrix", "words"),
    [
        ((3, 0, 3), np.eye(4), "positive sizes"),
        ((3, 3), np.eye(4), "positive sizes"),
        ((3, 3, 3), np.eye(3), "finite 4×4"),
        ((3, 3, 3), np.full((4, 4), np.nan), "finite 4×4"),
        ((3, 3, 3), np.ones((4, 4)), "finite 4×4"),
        ((3, 3, 3), np.diag([1, 0, 1, 1.0]), "spacing is zero"),
        ((3, 3, 3), np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_a_grid_refuses_a_broken_geometry(size, matrix, words):
    with pytest.raises(ValueError, match=words):
        Grid(size, matrix)


def test_a_grid_cannot_be_changed():
    grid = plain((3, 4, 5))
    with pytest.raises(ValueError, match="read-only"):
        grid.ijk_to_ras[0, 0] = 2


def test_a_grid_knows_its_measures():
    grid = plain((3, 4, 5), (1, 2, 3))
    assert grid.shape == (5, 4, 3)
    assert np.allclose(grid.extent_mm, (3, 8, 15))
    assert grid.voxel_volume_mm3 == pytest.approx(6)
    assert repr(grid) == "Grid(size=(3, 4, 5), spacing=(1.0, 2.0, 3.0) mm, axes=RAS)"


def test_lps_is_ras_with_two_signs_changed():
    grid = Grid.from_lps((2, 2, 2), (10, 20, 30), (1, 2, 3), np.eye(3).ravel())
    assert grid.axes == "LPS"
    assert np.allclose(grid.to_ras([0, 0, 0]), (-10, -20, 30))
    assert np.allclose(LPS_RAS @ LPS_RAS, np.eye(4))


def test_left_handed_grids_stay_left_handed():
    grid = turned_grid((0, 1, 2), (1, 1, -1), tilt=(0.2, 0.1, 0))
    assert np.linalg.det(grid.ijk_to_ras[:3, :3]) < 0
    assert np.linalg.det(Grid.from_lps(grid.size, *grid.to_lps()).ijk_to_ras[:3, :3]) < 0


def test_grids_are_close_only_if_all_corners_are():
    grid = plain((100, 100, 100))
    matrix = grid.ijk_to_ras.copy()
    matrix[0, 0] += 1e-4
    assert not grid.is_close(Grid(grid.size, matrix))
    assert grid.is_close(Grid(grid.size, matrix), tolerance_mm=0.02)
    assert not grid.is_close(plain((100, 100, 99)))


def test_a_transform_carries_the_grid_along():
    grid = plain((4, 4, 4), (1, 2, 3))
    transform = np.eye(4)
    transform[:3, :3] = rotation(0.1, 0.2, 0.3)
    transform[:3, 3] = (5, 6, 7)
    moved = grid.transformed(transform)
    assert np.allclose(moved.to_ras([1, 2, 3]), transform[:3, :3] @ grid.to_ras([1, 2, 3]) + transform[:3, 3])
    assert moved.transformed(np.linalg.inv(transform)).is_close(grid)


def test_a_cropped_grid_keeps_positions():
    grid = turned_grid((2, 0, 1), (1, -1, -1), tilt=(0.1, 0, 0.2))
    box = Box((2, 3, 1), (5, 7, 4))
    cropped = grid.crop(box)
    assert cropped.size == box.size == (3, 4, 3)
    assert np.allclose(cropped.to_ras([1, 1, 1]), grid.to_ras([3, 4, 2]))
    assert linear(grid)[box.slices] == pytest.approx(linear(cropped), abs=1e-3)


def test_a_canonical_grid_of_given_spacing_shares_center_and_extent():
    grid = turned_grid((1, 2, 0), (-1, 1, -1), size=(101, 57, 33), spacing=(0.7, 0.8, 5.0), tilt=(0.1, 0, 0.05))
    coarse = grid.canonical((3.0, 3.0, 3.0))
    reordered = grid.canonical()
    assert np.allclose(coarse.spacing, 3)
    assert (np.abs(coarse.extent_mm - reordered.extent_mm) <= 1.5 + 1e-9).all()
    centers = [g.to_ras((np.array(g.size) - 1) / 2) for g in (coarse, grid)]
    assert np.allclose(*centers)


def test_a_canonical_grid_has_at_least_one_voxel():
    assert plain((2, 2, 2)).canonical((50, 50, 50)).size == (1, 1, 1)


def test_the_box_around_a_mask_is_tight():
    mask = np.zeros((6, 7, 8), bool)
    mask[2, 3, 4] = mask[4, 5, 4] = True
    assert Box.around(mask) == Box((4, 3, 2), (5, 6, 5))
    assert mask[Box.around(mask).slices].sum() == 2
    mask[:] = True
    assert Box.around(mask) == Box((0, 0, 0), (8, 7, 6))


def test_there_is_no_box_around_an_empty_mask():
    assert Box.around(np.zeros((3, 3, 3), bool)) is None


def test_a_box_covers_itself_and_nothing_more_on_the_same_grid():
    grid = turned_grid((1, 2, 0), (-1, 1, -1), tilt=(0.1, 0, 0.05))
    box = Box((2, 3, 1), (5, 7, 4))
    assert grid.box_covering(box, grid) == box


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5], ids=NAMES[::5])
def test_a_covering_box_holds_every_position_of_the_other(order, signs):
    coarse = plain((20, 20, 20), (3, 3, 3))
    fine = turned_grid(order, signs, size=(60, 60, 60), spacing=(0.9, 1.0, 1.1))
    fine = fine.transformed(
        np.block([[np.eye(3), (coarse.to_ras([9.5] * 3) - fine.to_ras([29.5] * 3))[:, None]], [0, 0, 0, 1]])
    )
    box = Box((6, 7, 8), (10, 12, 13))
    covering = fine.box_covering(box, coarse)
    edges = np.array(list(product(*zip(np.array(box.start) - 0.5, np.array(box.stop) - 0.5, strict=True))))
    ijk = fine.to_ijk(coarse.to_ras(edges))
    assert (ijk >= np.array(covering.start) - 0.5 - 1e-4).all() and (ijk <= np.array(covering.stop) - 0.5 + 1e-4).all()
    assert (np.array(covering.size) <= np.ceil(np.ptp(ijk, axis=0)) + 1).all()


def test_a_margin_widens_the_box_in_mm_up_to_the_border():
    grid = plain((40, 40, 40), (1, 2, 4))
    box = Box((10, 10, 10), (20, 20, 20))
    assert grid.box_covering(box, grid, margin_mm=8) == Box((2, 6, 8), (28, 24, 22))
    assert grid.box_covering(box, grid, margin_mm=1000) == Box((0, 0, 0), grid.size)


def test_a_box_elsewhere_is_an_error():
    with pytest.raises(ValueError, match="does not overlap"):
        plain((5, 5, 5)).box_covering(Box((0, 0, 0), (2, 2, 2)), plain((5, 5, 5), origin=(100, 0, 0)))


def test_grids_that_do_not_share_axes_cannot_be_resampled():
    grid = plain((50, 50, 50))
    turn = np.eye(4)
    turn[:3, :3] = rotation(0, 0, 0.1)
    with pytest.raises(ValueError, match="do not share their axes"):
        axis_maps(grid, grid.transformed(turn))


def test_resampling_wants_the_array_of_its_grid():
    with pytest.raises(ValueError, match="but its grid says"):
        resample(np.zeros((2, 2, 2), np.float32), plain((3, 3, 3)), plain((3, 3, 3)), pad=0)


def test_resampling_onto_the_same_grid_changes_nothing():
    grid = turned_grid((0, 2, 1), (1, -1, 1))
    values = np.random.default_rng(0).integers(-1024, 3000, grid.shape).astype(np.int16)
    assert np.array_equal(resample(values, grid, grid, pad=-1024).numpy(), values)


@pytest.mark.parametrize("spacing", [0.4, 1.0, 3.7])
def test_a_constant_stays_constant_inside(spacing):
    source = plain((20, 21, 22), (1, 1.2, 1.4))
    target = source.canonical((spacing,) * 3)
    values = resample(np.full(source.shape, 55, np.int16), source, target, pad=-1024).numpy()
    i, j, k = (np.arange(n) for n in target.size)
    inside = [
        (index >= -0.5) & (index <= n - 0.5)
        for index, n in zip(
            (
                source.to_ijk(target.to_ras(np.stack([i, i * 0, i * 0], axis=-1)))[:, 0],
                source.to_ijk(target.to_ras(np.stack([j * 0, j, j * 0], axis=-1)))[:, 1],
                source.to_ijk(target.to_ras(np.stack([k * 0, k * 0, k], axis=-1)))[:, 2],
            ),
            source.size,
            strict=True,
        )
    ]
    within = inside[2][:, None, None] & inside[1][None, :, None] & inside[0][None, None, :]
    assert np.allclose(values[within], 55, atol=1e-3)
    assert np.allclose(values[~within], -1024, atol=1e-2)
    assert within.any()


def test_outside_the_source_is_padding():
    source = plain((4, 4, 4))
    target = plain((12, 4, 4), origin=(-4, 0, 0))
    values = resample(np.full(source.shape, 10, np.int16), source, target, pad=-1024).numpy()
    assert (values[..., :4] == -1024).all() and (values[..., 8:] == -1024).all()
    assert (values[..., 4:8] == 10).all()


def test_a_target_that_does_not_touch_the_source_is_all_padding():
    source, target = plain((4, 4, 4)), plain((3, 3, 3), origin=(50, 0, 0))
    assert (resample(np.ones(source.shape, np.float32), source, target, pad=-7).numpy() == -7).all()


def test_coarser_grids_average_noise_away():
    source = plain((48, 48, 48))
    noise = np.random.default_rng(0).normal(0, 100, source.shape).astype(np.float32)
    coarse = resample(noise, source, source.canonical((4, 4, 4)), pad=0).numpy()[2:-2, 2:-2, 2:-2]
    # A triangle of half-width n averages with a variance of 2/(3n) per axis.
    assert coarse.std() == pytest.approx(100 * (2 / (3 * 4)) ** 1.5, rel=0.15)


def test_slabs_of_any_thickness_give_the_same():
    source = turned_grid((2, 1, 0), (1, -1, -1), size=(15, 14, 13))
    target = source.canonical((1.3, 1.7, 0.9))
    values = np.random.default_rng(3).normal(size=source.shape).astype(np.float32)
    whole = resample(values, source, target, pad=0, slab=1000).numpy()
    slabs = list(iter_resampled(values, source, target, pad=0, slab=4))
    assert max(len(slab) for slab in slabs) == 4
    assert np.allclose(np.concatenate([slab.numpy() for slab in slabs]), whole, atol=1e-5)


def test_tensors_and_a_device_are_accepted():
    torch = pytest.importorskip("torch")
    grid = plain((4, 5, 6))
    values = torch.arange(4 * 5 * 6, dtype=torch.float16).reshape(grid.shape)
    result = resample(values, grid, grid, pad=0, device="cpu")
    assert result.dtype == torch.float32 and torch.equal(result, values.float())
