"""What networks are shown where a side of the volume cuts the body near the liver."""

import numpy as np
import pytest
import torch
from LiverCascadeLib.border import BEYOND_MM, NEAR_MM, Border
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.located import Located
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.stages import CanonicalStage, Wishes
from LiverCascadeLib.volume import AIR_HU, Volume
from tiny_models import manifest

SPACING = (2.0, 2.0, 4.0)
WHOLE = Grid((60, 50, 30), np.diag([*SPACING, 1.0]))
NONE = ((0, 0), (0, 0), (0, 0))


def body() -> np.ndarray:
    """HU [k, j, i] of a body that air surrounds on all four sides and that goes on at the top and at the bottom."""
    array = np.full(WHOLE.shape, AIR_HU, np.int16)
    array[:, 10:40, 12:48] = 50
    return array


def border_of(array: np.ndarray, grid: Grid, whole: Grid, liver: np.ndarray | None = None) -> Border:
    """With the liver everywhere in the body, unless it is given."""
    liver = array > 0 if liver is None else liver
    return Border.of(torch.from_numpy(array.astype(np.float32)), torch.from_numpy(liver).float(), grid, whole)


def test_a_body_within_air_is_not_continued_nor_is_any_at_the_top_and_the_bottom():
    border = border_of(body(), WHOLE, WHOLE)
    assert border.margins == NONE and not border


def test_sides_at_which_the_body_goes_on_are_continued():
    left, back = (round(BEYOND_MM / SPACING[axis]) for axis in (0, 1))
    cut = WHOLE.crop(Box((30, 20, 0), (60, 50, 30)))
    border = border_of(body()[:, 20:, 30:], cut, cut)
    assert border.margins == ((left, 0), (back, 0), (0, 0)) and border


def test_a_part_of_a_volume_is_continued_only_where_the_volume_ends_too():
    whole = body()
    box = Box((20, 15, 5), (60, 35, 25))
    assert border_of(whole[box.slices], WHOLE.crop(box), WHOLE).margins == NONE
    cut = Box((30, 0, 5), (60, 50, 25))
    half = WHOLE.crop(cut)
    beyond = round(BEYOND_MM / SPACING[0])
    assert border_of(whole[cut.slices], half, half).margins[0] == (beyond, 0)


def test_a_little_tissue_at_a_side_is_not_continued():
    array = np.full(WHOLE.shape, AIR_HU, np.int16)
    # One voxel of a side along i has 2 × 4 mm: 240 of them are less than 20 cm², 255 are more.
    array[:16, :15, 0] = 50
    assert border_of(array, WHOLE, WHOLE).margins == NONE
    array[16, :15, 0] = 50
    assert border_of(array, WHOLE, WHOLE).margins[0] == (round(BEYOND_MM / SPACING[0]), 0)


def test_arms_at_a_side_are_not_continued_while_the_liver_is_far():
    array = body()
    array[:, 10:40] = 50
    liver = np.zeros(array.shape, bool)
    near = round(NEAR_MM / SPACING[0])
    liver[10:20, 20:30, near : 60 - near] = True
    assert border_of(array, WHOLE, WHOLE, liver).margins == NONE
    liver[15, 25, 60 - near] = True
    assert border_of(array, WHOLE, WHOLE, liver).margins[0] == (0, round(BEYOND_MM / SPACING[0]))


@pytest.mark.parametrize("flipped", [False, True])
def test_sides_are_those_of_the_network_whatever_order_the_voxels_are_stored_in(flipped):
    whole = WHOLE.crop(Box((30, 0, 0), (60, 50, 30)))
    if flipped:
        matrix = whole.ijk_to_ras @ np.diag([-1.0, 1.0, 1.0, 1.0])
        matrix[:3, 3] = whole.to_ras([whole.size[0] - 1, 0, 0])
        whole = Grid(whole.size, matrix)
    grid = whole.canonical((3.0, 3.0, 3.0))
    ct = np.full(grid.shape, AIR_HU, np.float32)
    ct[:, 5:20, 0] = 50
    beyond = round(BEYOND_MM / 3)
    assert border_of(ct, grid, whole).margins[0] == (beyond, 0)


def test_what_is_continued_lies_where_it_should_and_comes_back_as_it_was():
    border = Border(((3, 0), (0, 2), (1, 4)))
    values = torch.arange(24.0).reshape(2, 3, 4)
    grid = Grid((4, 3, 2), np.diag([2.0, 3.0, 4.0, 1.0]))
    wide = border.continued(values)
    assert tuple(wide.shape) == border.grid(grid).shape == (7, 5, 7)
    assert torch.equal(border.inner(wide), values)
    assert torch.equal(border.inner(torch.stack([wide, wide])), torch.stack([values, values]))
    assert (wide[1, 0, :3] == values[0, 0, 0]).all() and (wide[2:, 4, 6] == values[1, 2, 3]).all()
    np.testing.assert_allclose(border.grid(grid).to_ras([3, 0, 1]), grid.to_ras([0, 0, 0]))
    assert torch.equal(Border(NONE).continued(values), values)


class Timid(CanonicalStage):
    """Finds all tissue but what lies within 12 mm of the end of what it is shown along i, as the networks do."""

    manifest = manifest("refine", spacing_mm=SPACING)

    def predict(self, ct, prior, grid, progress):
        found = (ct > 0).float()
        found[:, :, :6], found[:, :, -6:] = 0, 0
        return torch.stack([found, torch.zeros_like(found)])


def test_a_network_that_mistrusts_the_end_of_what_it_sees_finds_the_liver_up_to_a_cut_side():
    array = np.ascontiguousarray(body()[:, :, 30:])
    grid = WHOLE.crop(Box((30, 0, 0), (60, 50, 30)))
    volume = Volume(array, grid)
    whole = Box((0, 0, 0), grid.size)
    located = Located(torch.from_numpy((array > 0).astype(np.float32)), array > 0, grid, whole)
    for probability in (
        Timid().locate(volume, Progress())[0],
        Timid().opinion(volume, whole, located, Wishes(), Progress()).probability[0],
    ):
        np.testing.assert_array_equal(probability > 0.5, array > 0)
