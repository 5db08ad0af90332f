"""Which lesion is which: bodies at known places, maps with known errors."""

from __future__ import annotations

import time

import numpy as np
import pytest
from LiverCascadeLib.followup.deformation import Deformation
from LiverCascadeLib.followup.matching import Body, match
from LiverCascadeLib.geometry import Grid


def grid_around(low: float = -120.0, high: float = 120.0, step: float = 6.0) -> Grid:
    matrix = np.diag([step, step, step, 1.0])
    matrix[:3, 3] = low
    return Grid([int((high - low) / step) + 1] * 3, matrix)


WIDE = grid_around()


def shifted(way=(0.0, 0.0, 0.0)) -> Deformation:
    return Deformation(WIDE, np.broadcast_to(np.float32(way), (*WIDE.shape, 3)).copy())


def ball(label: int, center, radius: float, step: float = 1.5) -> Body:
    axis = np.arange(-radius, radius + step, step)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points[(points**2).sum(axis=1) <= radius**2]
    points = points if len(points) else np.zeros((1, 3))
    chosen = points[:: max(1, len(points) // 600)]
    volume = 4 / 3 * np.pi * radius**3
    return Body(label, volume / 1000, chosen + np.array(center, dtype=float), 0.75 * np.cbrt(volume / len(chosen)))


def groups(before, after, deformation=None, earlier=WIDE, later=WIDE):
    result = match(before, after, deformation or shifted(), earlier, later)
    return {(group.before, group.after) for group in result.groups}, result


def test_pairs_new_and_resolved_are_told_apart():
    before = [ball(2, (0, 0, 0), 8), ball(3, (50, 0, 0), 6)]
    after = [ball(2, (-50, 10, 0), 7), ball(3, (1, 1, 0), 10)]
    found, _ = groups(before, after)
    assert found == {((2,), (3,)), ((3,), ()), ((), (2,))}


def test_many_lesions_are_matched_in_spite_of_a_smooth_error_of_fifteen_millimeters():
    rng = np.random.default_rng(0)
    places: list[np.ndarray] = []
    while len(places) < 14:
        place = rng.uniform(-75, 75, 3)
        if all(np.linalg.norm(place - other) > 32 for other in places):
            places.append(place)
    before = [ball(n, place, 6) for n, place in enumerate(places, start=2)]
    error = [15 * np.array([np.cos(p[0] / 60), np.sin(p[1] / 60), 0.0]) for p in places]
    after = [ball(n, place + e, 6) for n, (place, e) in enumerate(zip(places, error, strict=True), start=2)]
    found, result = groups(before, after)
    assert found == {((n,), (n,)) for n in range(2, 16)}
    assert result.correction_mm > 8
    back = result.deformation.apply(np.array(places)) - (np.array(places) + error)
    assert np.linalg.norm(back, axis=1).mean() < 5, "the corrected map is better than the one that came in"


@pytest.mark.parametrize("backwards", [False, True], ids=["split", "merged"])
def test_pieces_belong_to_the_whole(backwards):
    whole = [ball(2, (0, 0, 0), 14), ball(3, (60, 0, 0), 8)]
    pieces = [ball(2, (-9, 0, 3), 6), ball(3, (10, 0, 3), 6), ball(4, (61, 0, 0), 8)]
    found, _ = groups(pieces, whole) if backwards else groups(whole, pieces)
    expected = {((2,), (2, 3)), ((3,), (4,))}
    assert found == ({(b, a) for a, b in expected} if backwards else expected)


def test_new_lesion_beside_a_stable_one_is_no_piece_of_it():
    found, _ = groups([ball(2, (0, 0, 0), 10)], [ball(2, (0, 0, 0), 10), ball(3, (19, 0, 0), 5)])
    assert found == {((2,), (2,)), ((), (3,))}


def test_resolved_lesion_far_from_a_new_one_is_not_matched_with_it():
    found, _ = groups([ball(2, (0, 0, 0), 6)], [ball(2, (30, 0, 0), 6)])
    assert found == {((2,), ()), ((), (2,))}


def test_lesion_outside_the_other_volume_is_not_covered():
    later = Grid((41, 41, 11), np.array([[6.0, 0, 0, -120], [0, 6.0, 0, -120], [0, 0, 6.0, 0], [0, 0, 0, 1]]))
    _, result = groups([ball(2, (0, 0, -40), 6), ball(3, (0, 0, 30), 6)], [], later=later)
    assert [(group.before, group.covered) for group in result.groups] == [((2,), False), ((3,), True)]
    _, result = groups([], [ball(2, (0, 0, -40), 6), ball(3, (0, 0, 30), 6)], earlier=later)
    assert [(group.after, group.covered) for group in result.groups] == [((2,), False), ((3,), True)]


def test_two_equal_readings_are_said_to_be_unsure():
    _, result = groups([ball(2, (0, 0, 0), 4)], [ball(2, (7, 0, 0), 4), ball(3, (-7, 0, 0), 4)])
    matched = [group for group in result.groups if group.before and group.after]
    assert len(matched) == 1 and not matched[0].sure
    _, result = groups([ball(2, (0, 0, 0), 4)], [ball(2, (1, 0, 0), 4)])
    assert result.groups[0].sure


def test_no_lesions_at_all_is_an_answer():
    assert groups([], [])[1].groups == ()
    assert groups([ball(2, (0, 0, 0), 5)], [])[0] == {((2,), ())}


def test_lesion_of_one_voxel_is_matched():
    one = Body(2, 0.008, np.array([[10.0, 0, 0]]), 1.0)
    found, _ = groups([one], [Body(5, 0.008, np.array([[11.0, 1, 0]]), 1.0)])
    assert found == {((2,), (5,))}


def test_every_lesion_is_in_exactly_one_group_and_five_hundred_are_matched_in_time():
    rng = np.random.default_rng(4)
    places = rng.uniform(-100, 100, (500, 3))
    before = [ball(n, place, 2.5) for n, place in enumerate(places, start=2)]
    after = [ball(n, place + 1.0, 2.5) for n, place in enumerate(places, start=2)]
    started = time.perf_counter()
    _, result = groups(before, after)
    assert time.perf_counter() - started < 60
    for side in ("before", "after"):
        labels = [label for group in result.groups for label in getattr(group, side)]
        assert sorted(labels) == list(range(2, 502))
    right = sum(group.before == group.after for group in result.groups)
    assert right > 450
