"""Two small studies of one body, as results of runs: for scenes, panels and folders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from analytic_bodies import TEST_GRIDS, analytic_result
from followup_pairs import Case, Pair, Recipe, make_pair
from LiverCascadeLib.postprocess import measure_lesions
from LiverCascadeLib.result import Result

RECIPE = Recipe(
    seed=5,
    fates=("stable", "grown", "shrunk", "resolved", "new"),
    amplitude_mm=7.0,
    knots_mm=50.0,
    shift_mm=30.0,
    spacing_mm=(2.0, 2.0, 3.0),
    radius_mm=(5.0, 8.0),
)


def body() -> Case:
    """The analytic liver with noise, without lesions."""
    result = analytic_result(TEST_GRIDS["LPS"], lesions=())
    noise = np.random.default_rng(0).normal(0, 10, result.labels.shape)
    volume = replace(result.volume, array=(result.volume.array + noise).astype(np.int16))
    return Case(volume, result.labels)


def small_pair(recipe: Recipe = RECIPE) -> Pair:
    """The analytic liver with planted lesions, and its later study."""
    return make_pair(body(), recipe)


def result_of(case: Case) -> Result:
    """A run's result; lesions keep the labels that the pair knows."""
    grid = case.volume.grid
    lesions = measure_lesions(case.labels, grid)
    volume_ml = float((case.labels > 0).sum() * grid.voxel_volume_mm3 / 1000)
    return Result(case.volume, case.labels, lesions, volume_ml)
