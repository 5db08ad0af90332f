"""Key images and the relief: they show the right place, at the right scale, and are read without color."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, rasterize
from assessments import assessment_from_masks, example_assessment, many_lesions
from LiverCascadeLib.report import key_images
from LiverCascadeLib.report.drawing import LESION_LINE, Window
from LiverCascadeLib.report.key_images import (
    NARROWEST_MM,
    PIXELS,
    draw_lesion,
    encoded,
    lesion_window,
    scale_length_mm,
    slice_number,
)
from LiverCascadeLib.report.relief import OUTSIDE, Relief
from LiverCascadeLib.steps import exhausted
from PIL import Image, ImageDraw

GRIDS = ("RAS", "LPS", "ASR permuted", "oblique left-handed", "thick slices")


def key_image(assessment, index=0) -> np.ndarray:
    return np.asarray(exhausted(draw_lesion(assessment, assessment.lesions[index]))).astype(int)


def near(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 40) -> np.ndarray:
    return np.abs(picture - color).max(axis=-1) <= tolerance


@pytest.mark.parametrize("name", GRIDS)
def test_the_contour_lies_on_the_lesion_on_every_grid(name):
    assessment = example_assessment(name, segments=False)
    picture, window = key_image(assessment), lesion_window(assessment, assessment.lesions[0])
    rows, columns = np.nonzero(near(picture, LESION_LINE))
    assert len(rows) > 150
    steps = (np.stack([columns, rows], axis=-1) - (PIXELS - 1) / 2) / PIXELS * window.width_mm
    ras = window.center + steps @ np.array([window.plane.right, window.plane.down])
    body = LESIONS[0]
    radius = np.linalg.norm(ras - np.array(body.center_ras), axis=-1)
    assert np.median(np.abs(radius - body.radii[0])) < 0.75 * assessment.volume.grid.spacing.max(), name


def test_the_slice_is_the_one_in_which_the_long_axis_was_measured():
    assessment = example_assessment("oblique", segments=False)
    for lesion in assessment.lesions:
        window = lesion_window(assessment, lesion)
        assert window.center[2] == pytest.approx(lesion.long_axis.start[2], abs=1e-6)
        number, count = slice_number(assessment.volume.grid, window.center)
        assert lesion.values["slice_first"] <= number <= lesion.values["slice_last"] <= count


def test_both_axes_are_drawn_to_their_ends_and_their_lengths_are_written(monkeypatch):
    texts = []
    draw_text = ImageDraw.ImageDraw.text

    def collect(self, xy, text, *args, **kwargs):
        texts.append(text)
        return draw_text(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", collect)
    assessment = example_assessment()
    lesion = assessment.lesions[0]
    picture, window = key_image(assessment), lesion_window(assessment, lesion)
    for axis in (lesion.long_axis, lesion.short_axis):
        assert f"{axis.length_mm:.1f}" in texts
        for end in (axis.start, axis.end):
            column, row = np.rint(window.pixel(end)).astype(int)
            assert picture[row - 3 : row + 4, column - 3 : column + 4].max() > 200
    assert {"R", "L", "A", "P"} <= set(texts)
    assert any(text.endswith(" mm") and text[0] in "SI" for text in texts)


def test_the_scale_bar_is_as_long_as_it_says(monkeypatch):
    lines = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "line", lambda self, xy, **more: lines.append(xy))
    assessment = example_assessment()
    window = lesion_window(assessment, assessment.lesions[0])
    exhausted(draw_lesion(assessment, assessment.lesions[0]))
    (left, _), (right, _) = lines[-1]
    assert (right - left) / PIXELS * window.width_mm == pytest.approx(scale_length_mm(window.width_mm))
    assert scale_length_mm(90) == 20 and scale_length_mm(300) == 100 and scale_length_mm(20) == 10


def test_a_lesion_of_one_voxel_has_a_picture():
    grid = TEST_GRIDS["thick slices"]
    mask = np.zeros(grid.shape, bool)
    mask[10, 60, 70] = True
    assessment = assessment_from_masks(grid, rasterize(LIVER, grid) | mask, [mask])
    picture = key_image(assessment)
    assert picture.shape == (PIXELS, PIXELS, 3) and near(picture, LESION_LINE, 90).any()
    assert lesion_window(assessment, assessment.lesions[0]).width_mm == NARROWEST_MM


def test_a_lesion_without_axes_has_a_picture():
    from dataclasses import replace

    assessment = example_assessment()
    lesion = replace(assessment.lesions[0], long_axis=None, short_axis=None)
    assert exhausted(draw_lesion(assessment, lesion)).size == (PIXELS, PIXELS)


def test_lines_differ_without_color():
    """The lesion's line is the widest; of the axes, one is dashed."""
    others = max(key_images.OTHER_WIDTH, key_images.LIVER_WIDTH)
    assert key_images.CONTOUR_WIDTH / others > 1.5
    gray = np.dot(LESION_LINE, (0.299, 0.587, 0.114))
    assert gray > 200


def test_the_labels_of_the_axes_do_not_lie_on_each_other():
    assessment = many_lesions(3)
    for lesion in assessment.lesions:
        window = lesion_window(assessment, lesion)
        axes = [axis for axis in (lesion.long_axis, lesion.short_axis) if axis]
        first, second = key_images._label_places(window, axes)
        assert np.linalg.norm(np.subtract(first, second)) > key_images.LABEL_SIZE
        assert all(0 < n < PIXELS for place in (first, second) for n in place)


def test_pictures_carry_what_they_show():
    picture = encoded(Image.new("RGB", (8, 4)), "something")
    assert picture.data[:2] == b"\xff\xd8" and (picture.width, picture.height) == (8, 4)
    assert picture.alternative == "something"


def relief_of(assessment) -> Relief:
    relief = Relief(assessment)
    exhausted(relief.prepare())
    return relief


@pytest.mark.parametrize("name", GRIDS)
def test_the_relief_shows_each_lesion_where_it_is(name):
    assessment = example_assessment(name, segments=False)
    relief = relief_of(assessment)
    for lesion, body in zip(assessment.lesions, LESIONS, strict=True):
        picture = np.asarray(relief.picture(400, lesion.label)).astype(int)
        red = picture[..., 0] - picture[..., 2] > 60
        rows, columns = np.nonzero(red)
        assert len(rows) > 50
        at = relief.pixel(np.array(body.center_ras), 400)
        assert np.hypot(columns.mean() - at[0], rows.mean() - at[1]) < 8, name


def test_the_patients_right_is_on_the_left_and_up_is_up():
    relief = relief_of(example_assessment())
    zero = relief.pixel(np.zeros(3), 400)
    assert relief.pixel(np.array([30.0, 0, 0]), 400)[0] < zero[0]
    assert relief.pixel(np.array([0, 0, 30.0]), 400)[1] < zero[1]


def test_the_relief_has_the_livers_outline():
    assessment = example_assessment(segments=False)
    relief = relief_of(assessment)
    picture = np.asarray(relief.picture(400)).astype(int)
    covered = (np.abs(picture - OUTSIDE).max(axis=-1) > 12).sum() * (relief.spacing_mm * relief._count[0] / 400) ** 2
    # The outline of an ellipsoid from any side: its radii are those of the body's shadow.
    axes = relief._axes[:2] @ LIVER.rotation @ np.diag(LIVER.radii)
    shadow = np.pi * np.prod(np.linalg.svd(axes, compute_uv=False))
    assert covered == pytest.approx(shadow, rel=0.08)


def test_the_wanted_lesion_is_darker_than_the_liver_without_color():
    assessment = example_assessment(segments=False)
    picture = np.asarray(relief_of(assessment).picture(400, 2).convert("L")).astype(int)
    column, row = np.rint(relief_of(assessment).pixel(np.array(LESIONS[0].center_ras), 400)).astype(int)
    liver = picture[(picture < 250) & (picture > 150)]
    assert picture[row - 4 : row + 5, column - 4 : column + 5].mean() < np.median(liver) - 60


def test_a_lesion_between_all_points_of_the_relief_still_has_its_ring():
    grid = TEST_GRIDS["thick slices"]
    mask = np.zeros(grid.shape, bool)
    mask[10, 60, 70] = True
    assessment = assessment_from_masks(grid, rasterize(LIVER, grid) | mask, [mask])
    relief = relief_of(assessment)
    relief._parts = [None] * 3
    assert not np.array_equal(np.asarray(relief.picture(300, 2)), np.asarray(relief.picture(300)))


def test_a_relief_needs_a_liver():
    from assessments import empty_assessment

    with pytest.raises(ValueError, match="needs a liver"):
        Relief(empty_assessment())


def test_a_window_and_its_points_agree():
    window = Window(key_images.AXIAL, np.array([10.0, 20.0, 30.0]), 100.0, 200)
    points = window.points(50)
    assert window.pixel(window.center) == pytest.approx([99.5, 99.5])
    assert window.pixel(points[10, 40]) == pytest.approx([(40.5 / 50) * 200 - 0.5, (10.5 / 50) * 200 - 0.5])
