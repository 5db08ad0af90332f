"""Real CTs without labels: what the cascade says of them, after a review."""

import numpy as np
import pytest
import torch
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.volume import Volume
from LiverCascadeTrainingLib.anatomy import Tissue
from LiverCascadeTrainingLib.painting import draw_palette, paint
from LiverCascadeTrainingLib.reviewed import Review, reviewed_liver

# 3 mm voxels; x grows to the patient's right, so that the liver has the larger one.
GRID = Grid((70, 50, 40), np.array([[3.0, 0, 0, -100], [0, 3, 0, -75], [0, 0, 3, -60], [0, 0, 0, 1]]))
_ijk = np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij")[::-1]
RAS = GRID.to_ras(np.stack(_ijk, axis=-1))
LIVER = (((RAS - (50, 0, -10)) / (45, 50, 40)) ** 2).sum(-1) < 1
HEART = (((RAS - (-40, 10, 25)) / (50, 40, 30)) ** 2).sum(-1) < 1
HEART &= ~LIVER


def volume(liver_hu: float, heart_hu: float) -> Volume:
    hu = np.full(GRID.shape, -100.0)
    hu[LIVER], hu[HEART] = liver_hu, heart_hu
    noise = np.random.default_rng(1).normal(0, 12, GRID.shape)
    return Volume((hu + noise).round().astype(np.int16), GRID, "two organs")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_what_is_darker_than_the_liver_is_taken_away():
    found = LIVER | HEART
    assert dice(found, LIVER) < 0.85
    corrected = reviewed_liver(volume(62, 38), found, Review("", least_hu=50.0))
    assert dice(corrected, LIVER) > 0.97


def test_a_liver_that_was_found_right_stays():
    assert dice(reviewed_liver(volume(62, 38), LIVER, Review("", least_hu=50.0)), LIVER) > 0.985


def test_a_plane_parts_what_is_equally_dense():
    found = LIVER | HEART
    review = Review("", right_of=(-5.0, 5.0, 0.2))
    corrected = reviewed_liver(volume(40, 40), found, review)
    above = RAS[..., 2] > -5.0
    beyond = above & (RAS[..., 0] < 5.0 + 0.2 * (RAS[..., 2] + 5.0))
    assert not (corrected & beyond).any()
    assert np.array_equal(corrected & ~beyond, (LIVER | HEART) & ~beyond & corrected)
    assert dice(corrected, LIVER) > dice(found, LIVER)


@pytest.mark.parametrize("tissue", [Tissue.HEART, Tissue.STOMACH, Tissue.BOWEL])
def test_neighbors_of_the_liver_are_smooth_now_and_then_and_mottled_otherwise(tissue):
    palettes = [draw_palette(np.random.default_rng(seed)) for seed in range(200)]
    texture = np.array([palette.texture_hu[tissue] for palette in palettes])
    liver = np.array([palette.texture_hu[Tissue.LIVER] for palette in palettes])
    assert 0.1 < np.mean(texture < 1.5 * liver) < 0.9


def test_parts_of_a_heart_are_as_dense_as_its_muscle_and_parts_as_its_blood():
    shape = (30, 40, 40)
    heart = torch.full(shape, int(Tissue.HEART), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(3)
    rng = np.random.default_rng(3)
    seen = []
    for _ in range(20):
        palette = draw_palette(rng)
        blood, muscle = float(palette.mean_hu[Tissue.HEART]), palette.myocardium_hu
        if abs(blood - muscle) < 40:
            continue
        hu = paint(heart, palette, (3.0, 3.0, 3.0), rng, generator)
        share = (hu - blood) / (muscle - blood)
        seen.append((float((share < 0.3).float().mean()), float((share > 0.7).float().mean())))
    assert len(seen) >= 4
    assert np.mean(seen, axis=0).min() > 0.15
