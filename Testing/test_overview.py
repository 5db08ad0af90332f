"""The overview picture: convention, aspect, contours, and what it says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, analytic_result, result_from_masks
from LiverCascadeLib.findings import Finding, Severity
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.report import overview
from LiverCascadeLib.report.overview import PANEL, PLANES, Framing, Rendering, compose, draw_slices
from LiverCascadeLib.result import Result
from LiverCascadeLib.volume import Volume
from PIL import Image, ImageDraw

AXIAL, CORONAL, SAGITTAL = PLANES


def near(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 40) -> np.ndarray:
    return np.abs(picture.astype(int) - color).max(axis=-1) <= tolerance


@pytest.mark.parametrize(
    ("plane", "direction", "edge"),
    [
        (AXIAL, (1, 0, 0), "left"),
        (AXIAL, (0, 1, 0), "top"),
        (CORONAL, (1, 0, 0), "left"),
        (CORONAL, (0, 0, 1), "top"),
        (SAGITTAL, (0, 1, 0), "left"),
        (SAGITTAL, (0, 0, 1), "top"),
    ],
)
def test_directions_follow_the_radiological_convention(plane, direction, edge):
    framing = Framing(np.zeros(3), np.zeros(3), 200.0)
    column, row = framing.pixel(plane, 50 * np.array(direction, float)) - framing.pixel(plane, np.zeros(3))
    assert (column < 0 and row == 0) if edge == "left" else (row < 0 and column == 0)
    letter = "RAS"[int(np.argmax(direction))]
    assert plane.letters[["left", "right", "top", "bottom"].index(edge)] == letter


@pytest.mark.parametrize("name", TEST_GRIDS)
def test_contours_lie_on_the_bodies_on_every_grid(name):
    result = analytic_result(TEST_GRIDS[name])
    framing = Framing.of(result)
    for plane, panel in zip(PLANES, draw_slices(result), strict=True):
        picture = np.asarray(panel)
        for color, body in ((overview.LIVER_LINE, LIVER), (overview.LESION_LINE, LESIONS[0])):
            rows, columns = np.nonzero(near(picture, color))
            keep = (rows > 60) & (rows < PANEL - 60) & (columns > 60) & (columns < PANEL - 60)
            assert keep.sum() > 100, f"{name}, {plane.name}: no contour"
            steps = (np.stack([columns[keep], rows[keep]], axis=-1) - (PANEL - 1) / 2) / PANEL * framing.width_mm
            center = framing.center.copy()
            center[plane.normal] = framing.focus[plane.normal]
            ras = center + steps @ np.array([plane.right, plane.down])
            own = (ras - np.array(body.center_ras)) @ body.rotation
            radius = np.linalg.norm(own / np.array(body.radii), axis=-1)
            away = np.abs(radius - 1) * min(body.radii)
            assert np.median(away) < 0.75 * result.volume.grid.spacing.max(), f"{name}, {plane.name}"


def test_focus_is_inside_the_largest_lesion_even_of_a_crescent():
    grid = Grid((60, 60, 9), np.diag([1.0, 1.0, 1.0, 1.0]))
    j, i = np.mgrid[:60, :60]
    ring = np.hypot(j - 30, i - 30)
    crescent = np.broadcast_to((ring > 15) & (ring < 20), grid.shape).copy()
    result = result_from_masks(grid, np.ones(grid.shape, bool), [crescent])
    k, j, i = np.rint(grid.to_ijk(Framing.of(result).focus)).astype(int)[::-1]
    assert result.labels[k, j, i] == 2


def test_aspect_is_that_of_the_patient_and_not_of_the_voxels():
    grid = TEST_GRIDS["thick slices"]
    result = result_from_masks(grid, analytic_result(grid).labels > 0, [])
    panel = np.asarray(draw_slices(result)[1])
    rows, columns = np.nonzero(near(panel, overview.LIVER_LINE))
    scale = Framing.of(result).width_mm / PANEL
    spread = np.argwhere(result.labels > 0)
    k_extent = (spread[:, 0].max() - spread[:, 0].min() + 1) * grid.spacing[2]
    assert (rows.max() - rows.min()) * scale == pytest.approx(k_extent, abs=2 * grid.spacing[2])
    assert (columns.max() - columns.min()) * scale < 2 * max(LIVER.radii) + 4


def test_contours_differ_in_grayscale():
    def luma(color):
        return float(np.dot(color, (0.299, 0.587, 0.114)))

    assert luma(overview.LESION_LINE) - luma(overview.LIVER_LINE) > 25
    assert overview.LESION_WIDTH >= 2 * overview.LIVER_WIDTH


def empty_result() -> Result:
    grid = TEST_GRIDS["oblique"]
    return Result(Volume(np.zeros(grid.shape, np.int16), grid, "phantom"), np.zeros(grid.shape, np.uint8), (), 0.0)


def written(monkeypatch) -> list[str]:
    """Collects every text that is drawn from now on."""
    texts = []
    draw_text = ImageDraw.ImageDraw.text

    def collect(self, xy, text, *args, **kwargs):
        texts.append(text)
        return draw_text(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", collect)
    return texts


def test_title_says_what_was_found_and_what_it_is_for(monkeypatch):
    texts = written(monkeypatch)
    result = analytic_result(TEST_GRIDS["LPS"])
    page = compose(result, draw_slices(result), Rendering(np.full((50, 60, 3), 90, np.uint8)))
    assert page.size[0] > 2 * PANEL
    assert result.summary in texts
    assert "Research use only" in texts
    assert {"R", "L", "A", "P", "S", "I", "1"} <= set(texts)
    assert not any("tumor" in text.lower() for text in texts)


def test_a_missing_3d_view_says_why(monkeypatch):
    texts = written(monkeypatch)
    result = analytic_result(TEST_GRIDS["RAS"])
    compose(result, draw_slices(result), Rendering(None, "no OpenGL driver"))
    assert "3D view not available" in texts
    assert "no OpenGL driver" in texts


def test_without_a_liver_the_middle_of_the_volume_is_shown(monkeypatch):
    texts = written(monkeypatch)
    result = empty_result()
    page = compose(result, draw_slices(result), Rendering(None, "nothing was segmented"))
    assert isinstance(page, Image.Image)
    assert "No liver was found." in texts
    assert any("slices through the volume" in text for text in texts)


def test_the_gravest_finding_is_shown_and_the_others_counted(monkeypatch):
    texts = written(monkeypatch)
    findings = (
        Finding("a", Severity.INFO, "fine"),
        Finding("b", Severity.WARNING, "look"),
        Finding("c", Severity.ERROR, "wrong " * 80),
    )
    result = dataclasses.replace(empty_result(), findings=findings)
    compose(result, draw_slices(result), Rendering(None, ""))
    note = next(text for text in texts if text.startswith("Note"))
    assert "(+1 in result.json): wrong" in note
    assert note.endswith("...")
