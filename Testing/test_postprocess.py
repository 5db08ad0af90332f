"""Components, holes, islands and lesion measures."""

import numpy as np
import pytest
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.postprocess import (
    CleanUp,
    clean,
    components,
    fill_holes,
    halo_means,
    largest_component,
    liver_contact,
    measure_lesions,
    only_lesions,
)


def grid_of(shape, spacing=(1.0, 1.0, 1.0)):
    return Grid(shape[::-1], np.diag([*spacing, 1.0]))


def test_components_are_numbered_by_falling_size_and_join_over_corners():
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    mask[3:6, 3:6, 3:6] = True
    numbers, sizes = components(mask)
    assert sizes.tolist() == [27, 2]
    assert numbers[0, 0, 0] == numbers[1, 1, 1] == 2


def test_the_largest_component_of_nothing_is_nothing():
    assert not largest_component(np.zeros((3, 3, 3), bool)).any()


def test_enclosed_holes_are_filled_and_open_ones_stay():
    mask = np.ones((5, 5, 5), bool)
    mask[2, 2, 2] = False
    mask[0, 2, 2] = False
    filled = fill_holes(mask)
    assert filled[2, 2, 2]
    assert not filled[0, 2, 2]


def liver_with_lesions():
    classes = np.zeros((20, 40, 40), np.uint8)
    classes[2:18, 2:38, 2:30] = 1
    classes[4:8, 4:8, 4:8] = 2  # 64 voxels
    classes[10:16, 10:16, 10:16] = 2  # 216 voxels
    classes[5, 30, 20] = 2  # one voxel
    classes[5:9, 5:9, 34:38] = 2  # outside the liver
    return classes


def test_lesions_are_kept_inside_the_liver_and_numbered_by_falling_volume():
    classes = liver_with_lesions()
    labels, lesions = clean(classes, grid_of(classes.shape), CleanUp())
    assert [lesion.voxel_count for lesion in lesions] == [216, 64]
    assert [lesion.label for lesion in lesions] == [2, 3]
    assert labels[12, 12, 12] == 2
    assert labels[6, 6, 6] == 3
    assert labels[5, 30, 20] == 1  # the island is liver again
    assert labels[6, 6, 35] == 0
    assert labels.dtype == np.uint8


def test_an_island_is_dropped_only_below_both_limits():
    classes = liver_with_lesions()
    coarse = grid_of(classes.shape, (5.0, 5.0, 5.0))  # one voxel is 125 mm³
    assert len(clean(classes, coarse, CleanUp())[1]) == 3
    fine = grid_of(classes.shape, (0.5, 0.5, 0.5))  # 64 voxels are 8 mm³
    assert len(clean(classes, fine, CleanUp())[1]) == 2
    assert len(clean(classes, fine, CleanUp(min_lesion_voxels=100))[1]) == 1


def test_a_hole_in_the_liver_becomes_liver_and_stray_liver_goes():
    classes = np.zeros((12, 12, 20), np.uint8)
    classes[1:11, 1:11, 1:11] = 1
    classes[5, 5, 5] = 0
    classes[3:6, 3:6, 15:18] = 1
    labels, _ = clean(classes, grid_of(classes.shape), CleanUp())
    assert labels[5, 5, 5] == 1
    assert not labels[:, :, 13:].any()


def test_more_than_254_lesions_need_16_bits():
    classes = np.ones((8, 130, 130), np.uint8)
    classes[3:5, 1::8, 1::8] = 2
    classes[3:5, 2::8, 1::8] = 2
    labels, lesions = clean(classes, grid_of(classes.shape), CleanUp(0, 0))
    assert len(lesions) == 17 * 17 == 289
    assert labels.dtype == np.uint16
    assert labels.max() == 290


def test_measures_follow_from_voxels_and_grid():
    matrix = np.array([[0, 0, -2.0, 10], [1.0, 0, 0, 20], [0, 3.0, 0, 30], [0, 0, 0, 1]])
    grid = Grid((6, 7, 8), matrix)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:6, 1:5, 1:4] = 1
    labels[2:4, 3, 2] = 2
    (lesion,) = measure_lesions(labels, grid)
    assert lesion.voxel_count == 2
    assert np.isclose(lesion.volume_ml, 2 * 6 / 1000)
    assert lesion.box == Box((2, 3, 2), (3, 4, 4))
    assert np.allclose(lesion.centroid_ras, (10 - 2 * 2.5, 20 + 2, 30 + 3 * 3))


def test_no_lesions_measure_as_none():
    assert measure_lesions(np.ones((3, 3, 3), np.uint8), grid_of((3, 3, 3))) == ()


def test_a_lesion_without_a_confident_voxel_is_a_doubt_and_the_rest_is_numbered_without_a_gap():
    classes = liver_with_lesions()
    probability = np.where(classes == 2, 0.7, 0.1).astype(np.float16)
    probability[5, 5, 5] = 0.95  # in the smaller lesion
    labels, lesions = clean(classes, grid_of(classes.shape), CleanUp(min_lesion_peak=0.8), probability)
    assert [lesion.voxel_count for lesion in lesions] == [64]
    assert labels[6, 6, 6] == 2
    assert labels[12, 12, 12] == 1
    assert len(clean(classes, grid_of(classes.shape), CleanUp(), probability)[1]) == 2


def test_the_halo_of_a_lesion_counts_into_its_mean_and_nothing_beyond_it_does():
    inside = np.ones((6, 20, 20), bool)
    inside[:, :, 15:] = False
    probability = np.full(inside.shape, 0.19, np.float32)
    probability[2:4, 2:6, 2:6] = 1.0  # 32 voxels with a halo of 8
    probability[2:4, 6, 2:6] = 0.5
    probability[2:4, 12:16, 10:20] = 0.3  # 40 of these 80 lie inside
    means = halo_means(probability, inside)
    assert means[3, 3, 3] == means[3, 6, 3] == pytest.approx((32 + 8 * 0.5) / 40)
    assert np.count_nonzero(means) == 40 + 40
    assert means[2, 12, 12] == pytest.approx(0.3) and means[2, 12, 16] == 0 and means[0, 0, 0] == 0
    assert not halo_means(np.zeros_like(probability), inside).any()


def test_the_lesions_that_stay_are_numbered_without_a_gap_and_the_others_become_liver():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[1:7, 1:7, 1:7] = 1
    labels[2, 2:5, 2], labels[4, 2:4, 2], labels[6, 2, 2] = 2, 3, 4
    kept, lesions = only_lesions(labels, [1, 3], grid_of(labels.shape))
    assert [(lesion.id, lesion.voxel_count) for lesion in lesions] == [(1, 3), (2, 1)]
    assert kept[2, 2, 2] == 2 and kept[4, 2, 2] == 1 and kept[6, 2, 2] == 3
    assert kept.dtype == np.uint8 and np.array_equal(kept > 0, labels > 0)
    nothing, none = only_lesions(labels, [], grid_of(labels.shape))
    assert none == () and nothing.max() == 1


def test_what_lies_beside_the_liver_is_neither_lesion_nor_liver():
    classes = np.zeros((20, 40, 60), np.uint8)
    classes[2:18, 2:38, 2:30] = 1
    classes[5:15, 10:30, 30:50] = 2  # touches the liver with one of its six faces
    classes[6:12, 10:20, 20:30] = 2  # subcapsular: its right face is the liver's surface, next to the other
    classes[6:12, 24:30, 5:11] = 2  # inside
    labels, lesions = clean(classes, grid_of(classes.shape), CleanUp())
    assert not labels[:, :, 31:].any()
    assert labels[8, 26, 8] > 1
    assert len(lesions) >= 1


def test_contact_is_the_share_of_the_surface_on_liver():
    numbers = np.zeros((9, 9, 9), int)
    numbers[3:6, 3:6, 3:6] = 1
    liver = np.zeros(numbers.shape, bool)
    liver[:, :, :5] = True
    liver &= numbers == 0
    contact = liver_contact(numbers, 1, liver)
    shell = 5**3 - 3**3
    assert np.isclose(contact[0], (25 + 2 * 16) / shell)
    assert liver_contact(numbers, 1, numbers == 0)[0] == 1.0
