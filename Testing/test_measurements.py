"""Declarations of measurements, and figures computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.lesions.measurements import (
    LIVER_MEASUREMENTS,
    MEASUREMENTS,
    Measurement,
    measure,
    measuring_steps,
    region_of,
)
from LiverCascadeLib.lesions.region import Region

GRID = Grid((20, 20, 20), np.array([[-2.0, 0, 0, 10], [0, 2.0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]]))


def test_a_block_is_measured_as_by_hand():
    mask = np.ones((1, 2, 3), bool)  # 6 voxels of 12 mm³
    values = measure(mask, GRID, (4, 5, 6))
    assert values["volume_ml"] == pytest.approx(0.072)
    assert values["equivalent_diameter_mm"] == pytest.approx((6 * 72 / np.pi) ** (1 / 3))
    # The middle of i = 4…6, j = 5…6, k = 6.
    centroid = [values[f"centroid_{axis}_mm"] for axis in "ras"]
    assert centroid == pytest.approx([10 - 2 * 5, -5 + 2 * 5.5, 7 + 3 * 6])


def test_the_diameter_of_a_ball_is_its_diameter():
    fine = Grid((1, 1, 1), np.diag([0.5, 0.5, 0.5, 1]))
    k, j, i = np.ogrid[-45:46, -45:46, -45:46]
    values = measure(k**2 + j**2 + i**2 <= 40**2, fine, (-45, -45, -45))
    assert values["equivalent_diameter_mm"] == pytest.approx(40, rel=0.002)
    assert [values[f"centroid_{axis}_mm"] for axis in "ras"] == pytest.approx([0, 0, 0])


def test_nothing_has_no_volume_and_no_place():
    values = measure(np.zeros((2, 2, 2), bool), GRID)
    assert values["volume_ml"] == values["equivalent_diameter_mm"] == 0
    assert np.isnan(values["centroid_r_mm"])
    centroid = next(m for m in MEASUREMENTS if m.key == "centroid_r_mm")
    assert centroid.text(values["centroid_r_mm"]) == ""


def test_any_integer_type_counts_as_a_mask():
    for dtype in (np.uint8, np.int16, np.uint16, bool):
        assert measure(np.full((2, 2, 2), 1, dtype), GRID)["volume_ml"] == pytest.approx(0.096)


def test_a_flat_array_is_refused():
    with pytest.raises(ValueError, match="three dimensions"):
        measure(np.ones((2, 2), bool), GRID)


def test_figures_are_shown_with_the_digits_that_they_are_worth():
    volume = MEASUREMENTS[0]
    assert (volume.text(12.3456), volume.unit, volume.header) == ("12.35", "mL", "Volume (mL)")
    for unknown in (None, float("nan"), float("inf"), np.float32("nan")):
        assert volume.text(unknown) == ""
    by_key = {measurement.key: measurement for measurement in MEASUREMENTS}
    assert by_key["measurable"].text(True) == "yes" and by_key["touches_border"].text(False) == "no"
    assert by_key["size_bin"].text("10–20 mm") == "10–20 mm" and by_key["size_bin"].text(None) == ""
    assert by_key["voxel_count"].text(7) == "7"


@pytest.mark.parametrize("declared", [MEASUREMENTS, LIVER_MEASUREMENTS], ids=["lesion", "liver"])
def test_every_measurement_says_what_it_is(declared):
    assert len({measurement.key for measurement in declared}) == len(declared)
    assert len({measurement.title for measurement in declared}) == len(declared)
    for measurement in declared:
        assert measurement.source and measurement.title
        if measurement.code is not None:
            assert measurement.unit_code is not None, measurement.key
        if measurement.unit:
            assert measurement.unit_code is not None, measurement.key
        assert not (measurement.derivation and measurement.code is None)


def test_codes_are_those_of_the_dicom_dictionary():
    dictionary = pytest.importorskip("pydicom.sr._concepts_dict").concepts
    declared = [*MEASUREMENTS, *LIVER_MEASUREMENTS]
    codes = {code for m in declared for code in (m.code, m.derivation, m.unit_code) if code is not None}
    assert len(codes) >= 10
    for code in codes:
        known = [entry[code.value] for entry in dictionary[code.scheme].values() if code.value in entry]
        assert known, f"{code} is not in DICOM's dictionary"
        assert code.meaning in [entry[0] for entry in known], code


def test_another_measurement_is_one_declaration():
    def widest_mm(region: Region) -> float:
        return float(np.ptp(region.voxels[:, 0]) * region.grid.spacing[0])

    width = Measurement("width_mm", "Width", "mm", 1, widest_mm)
    assert width.text(width.compute(Region(np.ones((1, 1, 4), bool), GRID))) == "6.0"


def test_a_user_interface_gets_its_turn_before_each_figure():
    region, done = region_of(np.ones((3, 3, 3), bool), GRID), []
    watched = [replace(m, compute=lambda region, m=m: done.append(m.key) or m.compute(region)) for m in MEASUREMENTS]
    counts = [len(done) for _ in measuring_steps(region, watched)]
    assert counts == list(range(len(MEASUREMENTS))) and len(done) == len(MEASUREMENTS)


def test_without_a_ct_only_the_shape_is_known():
    values = measure(np.ones((3, 3, 3), bool), GRID, (2, 2, 2))
    assert values["voxel_count"] == 27 and values["long_axis_mm"] > 6 and values["size_bin"] == "< 10 mm"
    for key in ("mean_hu", "sd_hu", "contrast_hu", "capsule_distance_mm", "slice_first", "slice_last", "confidence"):
        assert np.isnan(values[key]), key
    assert values["measurable"] is None and values["touches_border"] is None
