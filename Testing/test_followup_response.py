"""RECIST 1.1 for the liver: each rule, at its limits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from LiverCascadeLib.followup.comparison import Change, change_of_volume
from LiverCascadeLib.followup.response import (
    COMPLETE,
    NEITHER,
    NOT_EVALUABLE,
    PARTIAL,
    PROGRESSIVE,
    STABLE,
    Seen,
    candidates,
    judge,
)


@pytest.mark.parametrize(
    ("sums", "category"),
    [
        ([100, 70], PARTIAL),
        ([100, 70.1], STABLE),
        ([100, 119.9], STABLE),
        ([100, 120], PROGRESSIVE),
        ([20, 24.9], STABLE),  # more than 20 %, but not 5 mm
        ([20, 25], PROGRESSIVE),
        ([100, 50, 59.9], PARTIAL),  # below the nadir's limit, still far below the baseline
        ([100, 50, 60], PROGRESSIVE),  # against the nadir, though below the baseline
        ([100, 80, 97], PROGRESSIVE),
        ([100, 120, 119], STABLE),  # the nadir stays that of the baseline
        ([100, 0], PARTIAL),  # other lesions are left
        ([100, 0, 10], PROGRESSIVE),
    ],
)
def test_category_follows_from_sums_baseline_and_nadir(sums, category):
    judged = judge([Seen(float(value), others=1) for value in sums])
    assert judged[0].category == "" and "baseline" in judged[0].rule
    assert judged[-1].category == category
    assert judged[-1].nadir_mm == min(sums[:-1])


def test_all_gone_is_complete_and_a_doubtful_rest_is_not():
    assert judge([Seen(30.0), Seen(0.0)])[1].category == COMPLETE
    assert judge([Seen(30.0), Seen(0.0, doubtful=("Lesion 1",))])[1].category == PARTIAL


def test_new_lesion_is_progression_whatever_the_sum_is():
    judged = judge([Seen(30.0), Seen(0.0, new=("Lesion 4",))])[1]
    assert judged.category == PROGRESSIVE and "Lesion 4" in judged.rule


def test_doubtful_new_lesion_is_a_caution_and_no_progression():
    judged = judge([Seen(30.0), Seen(30.0, doubtful=("Lesion 4",), others=1)])[1]
    assert judged.category == STABLE and "unsure" in judged.cautions[0]


def test_other_lesions_that_grew_are_left_to_the_reader():
    judged = judge([Seen(30.0, others=1), Seen(30.0, others=1, others_grown=("Lesion 2",))])[1]
    assert judged.category == STABLE and "reader" in judged.cautions[0]


def test_target_whose_place_is_not_shown_cannot_be_judged_and_makes_no_nadir():
    judged = judge([Seen(50.0), Seen(10.0, targets_seen=False), Seen(50.0)])
    assert judged[1].category == NOT_EVALUABLE and judged[1].sum_mm is None
    assert judged[2].category == STABLE and judged[2].nadir_mm == 50.0


def test_without_targets_only_new_and_gone_count():
    assert judge([Seen(None, others=2), Seen(None, others=2)])[1].category == NEITHER
    assert judge([Seen(None, others=2), Seen(None)])[1].category == COMPLETE
    assert judge([Seen(None), Seen(None)])[1].category == ""
    assert judge([Seen(None), Seen(None, new=("Lesion 1",))])[1].category == PROGRESSIVE


def lesion(label: int, long_axis: float, measurable: bool = True, review: str = "unreviewed", at_edge: bool = False):
    values = {"long_axis_mm": long_axis, "measurable": measurable, "touches_border": at_edge}
    return SimpleNamespace(label=label, values=values, review=review)


def test_candidates_are_the_two_largest_that_can_be_measured():
    lesions = [lesion(2, 12.0), lesion(3, 40.0), lesion(4, 9.0, False), lesion(5, 25.0), lesion(6, float("nan"))]
    assert candidates(lesions) == (3, 5)
    assert candidates([lesion(2, 8.0, False)]) == ()


def test_doubtful_and_cut_lesions_are_candidates_only_without_others():
    lesions = [lesion(2, 50.0, at_edge=True), lesion(3, 45.0, review="unsure"), lesion(4, 11.0)]
    assert candidates(lesions) == (2, 4)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (10.0, 12.0, Change.STABLE),
        (10.0, 15.4, Change.STABLE),
        (10.0, 15.5, Change.GROWN),
        (10.0, 6.6, Change.STABLE),
        (10.0, 6.5, Change.SHRUNK),
        (0.0, 6.5, Change.CUT),
    ],
)
def test_growth_is_more_than_measuring_varies(before, after, change):
    assert change_of_volume(before, after) is change
