"""Corners of slices that a program filled with something bright: taken for air, and nothing else is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from analytic_bodies import Ellipsoid
from LiverCascadeLib.bright_fill import bright_fill, with_air_around
from LiverCascadeLib.cascade import Cascade, Options, segment
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.volume import AIR_HU, Volume
from test_preflight import PHANTOM, codes, only, preflight, volume
from tiny_models import Oracle, manifest

HEIGHT, WIDTH = PHANTOM.shape[1:]
AROUND = np.hypot(np.linspace(-1, 1, HEIGHT)[:, None], np.linspace(-1, 1, WIDTH)[None]) > 1
LARGEST = 3071
WRAPPED = int(np.array(-33000).astype(np.int16))


def filled(value: int) -> np.ndarray:
    return np.where(AROUND, np.int16(value), PHANTOM)


@pytest.mark.parametrize("value", [LARGEST, WRAPPED])
def test_a_bright_filling_is_said_to_be_one_and_not_taken_for_metal(value):
    findings = preflight(volume(filled(value)))
    assert codes(findings) == ["bright-fill"]
    assert f"the value {value}" in only(findings, "bright-fill").message


def test_metal_of_the_same_value_stays_metal():
    array = filled(LARGEST)
    array[30:34, 30:34, 30:40] = LARGEST
    assert np.array_equal(bright_fill(array), np.broadcast_to(AROUND, array.shape))
    findings = preflight(volume(array))
    assert set(codes(findings)) == {"bright-fill", "metal"}
    assert "10 mL" in only(findings, "metal").message


@pytest.mark.parametrize("value", [-3024, AIR_HU, 0, 200])
def test_another_filling_is_left_as_it_is(value):
    plain = volume(filled(value))
    assert with_air_around(plain) is plain
    assert "bright-fill" not in codes(preflight(plain))


def test_bright_corners_of_a_few_slices_are_no_filling():
    array = PHANTOM.copy()
    array[:40][:, AROUND] = LARGEST
    assert bright_fill(array) is None


def test_one_value_alone_is_no_filling():
    assert bright_fill(np.full((4, 5, 6), LARGEST, np.int16)) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_the_corners_are_found_in_any_storage(order):
    upright = volume(filled(LARGEST))
    # Array axes (k, j, i) in another order, some of them backward, and a grid that says so.
    array = np.ascontiguousarray(upright.array.transpose(order)[::-1, :, ::-1])
    columns = [upright.grid.ijk_to_ras[:3, 2 - axis] for axis in order][::-1]
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([-columns[0], columns[1], -columns[2]])
    stored = Volume(array, Grid(array.shape[::-1], matrix))
    expected = np.where(AROUND, np.int16(AIR_HU), PHANTOM).transpose(order)[::-1, :, ::-1]
    assert np.array_equal(with_air_around(stored).array, expected)
    assert stored.array.max() == LARGEST, "the volume itself is not touched"


@dataclass
class Watching(Oracle):
    """Remembers the largest value that it was shown."""

    highest: float = -np.inf

    def predict(self, ct, prior, grid, progress) -> torch.Tensor:
        self.highest = max(self.highest, float(ct.max()))
        return super().predict(ct, prior, grid, progress)


def test_networks_are_shown_air_and_the_result_keeps_the_volume():
    bright = volume(filled(LARGEST))
    # Wide enough for the box around it to reach the corners.
    liver = Ellipsoid(tuple(bright.grid.to_ras((np.array(bright.grid.size) - 1) / 2)), (170.0, 120.0, 60.0))
    stages = [
        Watching(manifest("locate", spacing_mm=(6.0, 6.0, 6.0)), [[liver]]),
        Watching(manifest("refine", spacing_mm=(4.0, 4.0, 4.0)), [[liver], []]),
    ]
    result = segment(bright, Cascade(*stages), Options(force=True))
    assert all(0 < stage.highest < 1000 for stage in stages)
    assert result.volume is bright and result.volume.array.max() == LARGEST
    assert "bright-fill" in [finding.code for finding in result.findings]
