"""A CT with labels, measured: what every lesion and the liver get, also where the input is odd."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, Ellipsoid, analytic_result, rasterize, rotation
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.lesions.assess import LesionNote, assess, assess_result, slice_thickness_mm
from LiverCascadeLib.lesions.couinaud import CouinaudMap
from LiverCascadeLib.lesions.measurements import LIVER_MEASUREMENTS, MEASUREMENTS
from LiverCascadeLib.lesions.remnant import future_liver_remnant, nodule_hint
from LiverCascadeLib.volume import Volume

STRAIGHT = Grid((60, 50, 24), np.array([[-1.0, 0, 0, 30], [0, -1.0, 0, 25], [0, 0, 2.5, -30], [0, 0, 0, 1]]))


def block(*corners: int, value: int = 1, onto: np.ndarray | None = None) -> np.ndarray:
    """Labels on STRAIGHT with ``value`` in a block: i from, to, j from, to, k from, to."""
    labels = np.zeros(STRAIGHT.shape, np.uint8) if onto is None else onto
    i0, i1, j0, j1, k0, k1 = corners
    labels[k0:k1, j0:j1, i0:i1] = value
    return labels


def ct(fill: int = 0) -> np.ndarray:
    return np.full(STRAIGHT.shape, fill, np.int16)


@pytest.mark.parametrize("grid", TEST_GRIDS.values(), ids=TEST_GRIDS)
def test_every_key_is_there_on_every_grid(grid):
    result = analytic_result(grid)
    found = assess_result(result)
    assert found.summary == result.summary
    assert list(found.liver) == [measurement.key for measurement in LIVER_MEASUREMENTS]
    assert found.liver["volume_ml"] == pytest.approx(result.liver_volume_ml)
    assert found.liver["mean_hu"] == 110
    assert found.liver["parenchyma_ml"] + found.liver["lesion_ml"] == pytest.approx(result.liver_volume_ml)
    for lesion, known, body in zip(found.lesions, result.lesions, LESIONS, strict=True):
        assert list(lesion.values) == [measurement.key for measurement in MEASUREMENTS]
        assert (lesion.label, lesion.name, lesion.box) == (known.label, f"Lesion {known.id}", known.box)
        assert lesion.values["volume_ml"] == pytest.approx(known.volume_ml)
        assert lesion.values["contrast_hu"] == -60 and lesion.values["sd_hu"] == 0
        assert lesion.values["long_axis_mm"] == pytest.approx(2 * body.radii[0], abs=5)
        assert lesion.long_axis.length_mm == lesion.values["long_axis_mm"]
        assert lesion.values["measurable"] is True and lesion.values["size_bin"] == "> 20 mm"
        assert np.isnan(lesion.values["confidence"]) and lesion.couinaud == ()
        assert lesion.tracking_uid.startswith("2.25.") and len(lesion.tracking_uid) <= 64


def test_slices_are_counted_from_one_along_the_patient():
    labels = block(10, 40, 10, 40, 2, 20)
    block(20, 26, 20, 26, 7, 10, value=2, onto=labels)
    (lesion,) = assess(Volume(ct(), STRAIGHT), labels).lesions
    assert (lesion.values["slice_first"], lesion.values["slice_last"]) == (8, 10)
    # The same volume, stored with its slices along i.
    matrix = STRAIGHT.ijk_to_ras[:, [2, 1, 0, 3]]
    turned = Grid(STRAIGHT.size[::-1], matrix)
    (same,) = assess(Volume(ct().transpose(2, 1, 0).copy(), turned), labels.transpose(2, 1, 0).copy()).lesions
    for key, value in lesion.values.items():
        assert same.values[key] == pytest.approx(value, nan_ok=True), key


def test_contrast_leaves_out_other_lesions_what_is_near_and_what_is_no_liver():
    labels, array = block(5, 55, 5, 45, 2, 22), ct(-500)
    array[labels == 1] = 100
    block(24, 32, 20, 28, 10, 13, value=2, onto=labels)
    block(35, 40, 20, 28, 10, 13, value=3, onto=labels)
    array[labels == 2], array[labels == 3] = 40, 900
    # Partial volume right beside the lesion, and around its neighbor.
    array[10:13, 20:28, 32:34] = 500
    array[10:13, 20:28, 33:35] = 500
    first = assess(Volume(array, STRAIGHT), labels).lesions[0]
    assert first.values["contrast_hu"] == -60
    assert first.values["mean_hu"] == 40


def test_the_shell_ends_where_it_says_whatever_rounding_says():
    fine = Grid((60, 60, 24), np.diag([-0.6, -0.6, 1.6, 1]))
    labels, array = np.ones(fine.shape, np.uint8), np.random.default_rng(3).integers(0, 200, fine.shape)
    labels[12, 30, 30] = 2
    k, j, i = np.ogrid[-12:12, -30:30, -30:30]
    # In tenths of a millimeter: exactly 2 mm away are voxels such as (1.2, 0, 1.6), exactly 10 mm (6, 0, 8).
    squares = (6 * i) ** 2 + (6 * j) ** 2 + (16 * k) ** 2
    assert np.isin([20**2, 100**2], squares).all()
    shell = (squares > 20**2) & (squares <= 100**2)
    (lesion,) = assess(Volume(array.astype(np.int16), fine), labels).lesions
    assert lesion.values["contrast_hu"] == pytest.approx(array[12, 30, 30] - array[shell].mean(), abs=1e-6)


def test_contrast_is_not_known_without_enough_liver_around():
    labels = block(20, 30, 20, 30, 5, 10, value=2)
    block(33, 34, 20, 25, 5, 7, value=1, onto=labels)
    (lesion,) = assess(Volume(ct(50), STRAIGHT), labels).lesions
    assert np.isnan(lesion.values["contrast_hu"])
    (alone,) = assess(Volume(ct(50), STRAIGHT), block(20, 30, 20, 30, 5, 10, value=2)).lesions
    assert np.isnan(alone.values["contrast_hu"]) and np.isnan(alone.values["capsule_distance_mm"])


def test_the_distance_to_the_capsule_counts_voxels_between():
    labels = block(5, 55, 5, 45, 2, 22)
    block(9, 15, 20, 26, 10, 13, value=2, onto=labels)
    (lesion,) = assess(Volume(ct(), STRAIGHT), labels).lesions
    assert lesion.values["capsule_distance_mm"] == pytest.approx(4)
    block(5, 9, 22, 23, 11, 12, value=2, onto=labels)
    (lesion,) = assess(Volume(ct(), STRAIGHT), labels).lesions
    assert lesion.values["capsule_distance_mm"] == 0


def test_where_the_volume_ends_there_is_no_capsule():
    labels = block(0, 60, 0, 50, 0, 24)
    block(1, 5, 20, 26, 10, 13, value=2, onto=labels)
    (lesion,) = assess(Volume(ct(), STRAIGHT), labels).lesions
    assert np.isnan(lesion.values["capsule_distance_mm"])
    assert lesion.values["touches_border"] is False
    labels[20:] = 0  # now the liver ends inside the volume, 7 slices above the lesion
    (lesion,) = assess(Volume(ct(), STRAIGHT), labels).lesions
    assert lesion.values["capsule_distance_mm"] == pytest.approx(7 * 2.5)
    block(0, 5, 20, 26, 10, 13, value=2, onto=labels)
    (lesion,) = assess(Volume(ct(), STRAIGHT), labels).lesions
    assert lesion.values["touches_border"] is True


@pytest.mark.parametrize(
    ("step", "said", "voxels", "measurable"),
    [
        (2.0, None, 10, True),
        (2.0, None, 9, False),
        (5.0, None, 10, True),
        (6.0, None, 11, False),
        (6.0, None, 12, True),
        (2.0, "7.5", 14, False),
        (2.0, "7.5", 15, True),
        (2.0, "1", 10, True),
        (2.0, "thick", 10, True),
        (2.0, "nan", 10, True),
    ],
)
def test_measurable_is_what_recist_says_of_the_slices(step, said, voxels, measurable):
    grid = Grid((40, 20, 9), np.diag([-1.0, -1.0, step, 1.0]))
    labels = np.ones(grid.shape, np.uint8)
    labels[4, 10, 5 : 5 + voxels] = 2
    volume = Volume(np.zeros(grid.shape, np.int16), grid, source={} if said is None else {"slice_thickness_mm": said})
    (lesion,) = assess(volume, labels).lesions
    assert lesion.values["long_axis_mm"] == pytest.approx(voxels)
    assert lesion.values["measurable"] is measurable
    assert slice_thickness_mm(volume) >= step


def test_size_bins_go_by_the_long_axis():
    grid = Grid((40, 20, 9), np.diag([-1.0, -1.0, 2.0, 1.0]))
    labels = np.ones(grid.shape, np.uint8)
    for row, (label, voxels) in enumerate(((2, 9), (3, 10), (4, 20), (5, 21))):
        labels[4, 4 * row + 2, 5 : 5 + voxels] = label
    found = assess(Volume(np.zeros(grid.shape, np.int16), grid), labels)
    assert [n.values["size_bin"] for n in found.lesions] == ["< 10 mm", "10–20 mm", "10–20 mm", "> 20 mm"]


def test_notes_of_the_reader_and_confidences_come_along():
    result = analytic_result(TEST_GRIDS["LPS"])
    notes = [LesionNote(3, "the small one", "unsure", "look again", "2.25.7"), LesionNote(9, "gone")]
    found = assess(result.volume, result.labels, lesions=notes, confidences={2: 0.4}, rejected=1)
    assert [n.name for n in found.lesions] == ["Lesion 1", "the small one"]
    second = found.lesions[1]
    assert (second.review, second.comment, second.tracking_uid) == ("unsure", "look again", "2.25.7")
    assert second.values["confidence"] == 0.4 and np.isnan(found.lesions[0].values["confidence"])
    assert found.summary.endswith("; 1 more was rejected.")


def test_a_rejected_lesion_becomes_liver():
    result = analytic_result(TEST_GRIDS["LPS"])
    found = assess(result.volume, result.labels, lesions=[LesionNote(2, review="rejected")])
    assert [n.label for n in found.lesions] == [3] and found.rejected == 1
    assert (found.labels == 2).sum() == 0 and (result.labels == 2).any()
    assert found.liver["volume_ml"] == pytest.approx(result.liver_volume_ml)


def test_tracking_uids_are_the_same_for_the_same_voxels_and_no_others():
    result = analytic_result(TEST_GRIDS["LPS"])
    uids = [n.tracking_uid for n in assess_result(result).lesions]
    assert uids == [n.tracking_uid for n in assess_result(result).lesions]
    assert len(set(uids)) == 2
    other = replace(result, volume=replace(result.volume, array=result.volume.array + np.int16(1)))
    assert not set(uids) & {n.tracking_uid for n in assess_result(other).lesions}
    labels = result.labels.copy()
    labels[tuple(np.argwhere(labels == 2)[0])] = 1
    assert assess(result.volume, labels).lesions[0].tracking_uid != uids[0]
    assert assess(result.volume, labels).lesions[1].tracking_uid == uids[1]


def halves(grid: Grid) -> CouinaudMap:
    """VIII and V on the right of a plane, IVa on the left."""
    liver = rasterize(LIVER, grid)
    k, j, i = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    labels = np.where(ras[..., 0] > 58, np.where(ras[..., 2] > 11, 8, 5), 9)
    return CouinaudMap((labels * liver).astype(np.uint8), "landmarks", "By planes.")


def test_segments_have_volumes_and_lesions_have_shares():
    grid = TEST_GRIDS["RAS"]
    result = analytic_result(grid)
    found = assess_result(result, halves(grid))
    assert found.couinaud_ml.keys() == {5, 8, 9}
    assert sum(found.couinaud_ml.values()) == pytest.approx(found.liver["volume_ml"])
    assert sum(found.couinaud_lesion_ml.values()) == pytest.approx(found.liver["lesion_ml"])
    first, second = found.lesions
    assert first.couinaud[0].name == "IVa" and first.couinaud_text.startswith("IVa, ")
    assert sum(share.fraction for share in first.couinaud) == pytest.approx(1)
    assert [share.name for share in second.couinaud] == ["IVa"]


def test_the_remnant_names_its_denominator_and_takes_no_lesion_for_liver():
    grid = TEST_GRIDS["RAS"]
    found = assess_result(analytic_result(grid), halves(grid))
    remnant = future_liver_remnant(found, {9})
    healthy = found.couinaud_ml[9] - found.couinaud_lesion_ml[9]
    assert remnant.ml == pytest.approx(healthy) and remnant.denominator == "parenchyma"
    assert remnant.percent == pytest.approx(100 * healthy / found.liver["parenchyma_ml"])
    of_liver = future_liver_remnant(found, {9}, "liver")
    assert of_liver.percent == pytest.approx(100 * healthy / found.liver["volume_ml"])
    assert "lesions included" in of_liver.sentence and "IVa" in of_liver.sentence
    # IV stands for its halves; what is not there is not kept.
    assert future_liver_remnant(found, {4, 2}).kept == (9,)
    assert future_liver_remnant(found, {5, 8, 9}).percent == pytest.approx(100)
    assert future_liver_remnant(found, set()).ml == 0
    for words in ("20 % (normal liver)", "30 % (after chemotherapy)", "40 % (cirrhosis)"):
        assert words in remnant.note
    with pytest.raises(InputError, match="segments"):
        future_liver_remnant(assess_result(analytic_result(grid)), {9})
    with pytest.raises(ValueError, match="no segments"):
        future_liver_remnant(found, {11})


def test_the_hint_on_number_and_size_is_no_stage():
    grid = TEST_GRIDS["RAS"]
    found = assess_result(analytic_result(grid))
    assert nodule_hint(found) == "Number and size are outside ≤ 3 nodules ≤ 3 cm; this is not a stage."
    small = analytic_result(grid, lesions=LESIONS[1:])
    assert "within" in nodule_hint(assess_result(small))
    assert nodule_hint(assess_result(analytic_result(grid, lesions=()))) == ""


def test_a_lesion_of_one_voxel_is_measured():
    labels, array = block(10, 50, 10, 40, 2, 22), ct(100)
    labels[10, 20, 20], array[10, 20, 20] = 2, 30
    (lesion,) = assess(Volume(array, STRAIGHT), labels).lesions
    values = lesion.values
    assert (values["voxel_count"], values["long_axis_mm"], values["short_axis_mm"]) == (1, 1.0, 1.0)
    assert values["diameter_3d_mm"] == pytest.approx(2.5)
    assert (values["mean_hu"], values["sd_hu"], values["contrast_hu"]) == (30, 0, -70)
    assert values["measurable"] is False and values["size_bin"] == "< 10 mm"


@pytest.mark.parametrize("liver", [False, True])
def test_without_lesions_and_without_a_liver_there_is_an_answer(liver):
    found = assess(Volume(ct(60), STRAIGHT), block(10, 40, 10, 40, 2, 20) if liver else block(0, 0, 0, 0, 0, 0))
    assert found.lesions == () and found.liver["lesion_count"] == 0
    assert found.summary == ("Liver 40 mL; no lesion found." if liver else "No liver was found.")
    assert np.isnan(found.liver["burden_percent"]) != liver
    assert found.liver["mean_hu"] == pytest.approx(60, nan_ok=False) if liver else np.isnan(found.liver["mean_hu"])


def test_labels_may_have_gaps_and_any_whole_type():
    labels = block(10, 50, 10, 40, 2, 22).astype(np.int32)
    labels[5:8, 20:25, 20:25] = 7
    labels[12:15, 20:25, 20:25] = 300
    found = assess(Volume(ct(), STRAIGHT), labels)
    assert [n.label for n in found.lesions] == [7, 300]
    assert [n.name for n in found.lesions] == ["Lesion 6", "Lesion 299"]


def test_what_is_no_label_map_of_the_ct_is_refused():
    volume, labels = Volume(ct(), STRAIGHT), block(10, 50, 10, 40, 2, 22)
    for wrong in (labels[1:], labels.astype(np.float32), labels.astype(np.int16) - 1, labels.astype(np.int64) * 10**9):
        with pytest.raises(ValueError, match=r"[Ll]abels"):
            assess(volume, wrong)
    with pytest.raises(ValueError, match="Couinaud"):
        assess(volume, labels, couinaud=CouinaudMap(labels[1:], "reader", ""))


def many(count: int, size: tuple[int, int, int], spacing: tuple[float, float, float], largest: float, turn=None):
    """A CT with ``count`` ellipsoids in a liver of usual size."""
    linear = (np.eye(3) if turn is None else turn) @ np.diag(np.multiply(spacing, (-1, -1, 1)))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, -linear @ ((np.array(size) - 1) / 2)
    grid = Grid(size, matrix)
    liver = Ellipsoid((30.0, 10.0, 0.0), (95.0, 80.0, 70.0))
    labels = rasterize_in_part(grid, liver, np.zeros(grid.shape, np.uint16), 1)
    random = np.random.default_rng(5)
    for label in range(2, count + 2):
        radius = random.uniform(3, largest)
        turned = rotation((1, 2, 3), random.uniform(0, 180))
        center = tuple(random.uniform(-60, 60, 3) + np.array((30, 10, 0)))
        rasterize_in_part(grid, Ellipsoid(center, (radius, 0.8 * radius, 0.9 * radius), turned), labels, label)
    array = random.integers(80, 120, grid.shape, dtype=np.int16)
    array[labels > 1] -= 50
    return Volume(array, grid, "many"), labels


def rasterize_in_part(grid: Grid, body: Ellipsoid, labels: np.ndarray, label: int) -> np.ndarray:
    """Writes ``label`` where ``body`` is: the liver onto background, a lesion onto liver."""
    middle, half = grid.to_ijk(np.array(body.center_ras)), max(body.radii) / grid.spacing + 2
    low = np.maximum(0, np.floor(middle - half)).astype(int)
    high = np.minimum(grid.size, np.ceil(middle + half)).astype(int)
    box = Box(tuple(low.tolist()), tuple(high.tolist()))
    part = labels[box.slices]
    mask = rasterize(body, grid.crop(box)) & (part == min(label - 1, 1))
    part[mask] = label
    return labels


@pytest.mark.parametrize("turn", [None, rotation((1, 1, 0.3), 21)], ids=["axial", "oblique"])
@pytest.mark.alone
def test_thirty_lesions_of_a_large_ct_are_measured_in_three_seconds(turn):
    volume, labels = many(30, (512, 512, 119), (0.75, 0.75, 2.0), 18.0, turn)
    started = time.process_time()
    found = assess(volume, labels)
    seconds = time.process_time() - started
    print(f"30 lesions: {seconds:.2f} s of one core")
    assert len(found.lesions) >= 25
    assert all(np.isfinite(lesion.values["long_axis_mm"]) for lesion in found.lesions)
    assert seconds < 3.0  # on one core; two are promised


def test_five_hundred_lesions_are_measured():
    volume, labels = many(500, (150, 130, 90), (1.6, 1.6, 2.0), 6.0)
    started = time.process_time()
    found = assess(volume, labels)
    print(f"500 lesions: {time.process_time() - started:.2f} s of one core")
    assert len(found.lesions) > 400
    assert len({lesion.tracking_uid for lesion in found.lesions}) == len(found.lesions)
    assert found.liver["lesion_ml"] == pytest.approx(sum(lesion.values["volume_ml"] for lesion in found.lesions))
