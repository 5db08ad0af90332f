"""Assessments for tests: the bodies that are known exactly, or masks, with everything measured that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, rasterize, result_from_masks
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.lesions.assess import LesionNote, assess
from LiverCascadeLib.lesions.assessment import Assessment
from LiverCascadeLib.lesions.couinaud import CouinaudMap
from LiverCascadeLib.report import key_images, relief
from LiverCascadeLib.report.identity import StudyIdentity
from LiverCascadeLib.volume import Volume

IDENTITY = StudyIdentity(
    patient_name="Example, Erika",
    patient_id="PID-0815",
    patient_sex="F",
    birth_date="1958-03-07",
    study_date="2026-10-02",
    accession_number="A123456",
    study_description="CT abdomen",
    series_description="portal venous 1.5 mm",
    institution="Example Hospital",
    study_instance_uid="1.2.826.0.1.3680043.8.498.1",
    series_instance_uid="1.2.826.0.1.3680043.8.498.2",
)


def assessment_from_masks(
    grid: Grid,
    liver: np.ndarray,
    lesions: Sequence[np.ndarray],
    *,
    names: Sequence[str] = (),
    reviews: Sequence[str] = (),
    comments: Sequence[str] = (),
    name: str = "body",
    **more: object,
) -> Assessment:
    """An assessment of masks [k, j, i].

    Args:
        names, reviews, comments: of the lesions, in order; what is left out is 'Lesion N', 'unreviewed' and empty.
        more: for :func:`~LiverCascadeLib.lesions.assess.assess`.
    """
    result = result_from_masks(grid, liver, list(lesions), name)
    columns = zip_longest(result.lesions, names, reviews, comments, fillvalue="")
    notes = [
        LesionNote(lesion.label, title, review, comment, f"2.25.{1000 + lesion.id}")
        for lesion, title, review, comment in columns
    ]
    return assess(result.volume, result.labels, lesions=notes, **more)


def halves(grid: Grid, liver: np.ndarray) -> CouinaudMap:
    """A map that has segment VIII on the right of the liver's middle and IV on the left."""
    k, j, i = np.indices(grid.shape)
    right = grid.to_ras(np.stack([i, j, k], axis=-1))[..., 0]
    labels = np.where(right > LIVER.center_ras[0], 8, 4).astype(np.uint8) * liver
    return CouinaudMap(
        labels.astype(np.uint8), "estimate", "Estimated from the liver's shape; no vessels.", ("Not exact.",)
    )


def example_assessment(grid_name: str = "LPS", segments: bool = True, **more: object) -> Assessment:
    """The analytic liver with its two lesions, the first one accepted and the second unsure."""
    grid = TEST_GRIDS[grid_name]
    liver = rasterize(LIVER, grid)
    more = {"reviews": ("accepted", "unsure"), "comments": ("", "compare with MR"), **more}
    return assessment_from_masks(
        grid,
        liver,
        [rasterize(lesion, grid) for lesion in LESIONS],
        couinaud=halves(grid, liver) if segments else None,
        **more,
    )


def empty_assessment(**more: object) -> Assessment:
    """A scan without a liver."""
    grid = TEST_GRIDS["oblique"]
    volume = Volume(np.full(grid.shape, -50, np.int16), grid, "nothing")
    return assess(volume, np.zeros(grid.shape, np.uint8), **more)


def many_lesions(count: int, size: tuple[int, int, int] = (120, 96, 40), spacing: float = 2.0) -> Assessment:
    """A large box of liver with ``count`` small lesions on a lattice."""
    grid = Grid(size, np.diag([-spacing, -spacing, spacing, 1.0]))
    liver = np.zeros(grid.shape, bool)
    liver[2:-2, 2:-2, 2:-2] = True
    masks = []
    for n in range(count):
        k, j, i = 4 + 4 * (n // 400), 4 + 4 * (n // 25 % 16), 4 + 4 * (n % 25)
        mask = np.zeros(grid.shape, bool)
        mask[k : k + 2 + n % 2, j : j + 2, i : i + 2 + n % 2] = True
        masks.append(mask)
    return assessment_from_masks(grid, liver, masks)


def renamed(assessment: Assessment, names: Sequence[str], comments: Sequence[str] = ()) -> Assessment:
    """The same with other names and comments of lesions."""
    lesions = [
        replace(lesion, name=name, comment=comments[n] if n < len(comments) else lesion.comment)
        for n, (lesion, name) in enumerate(zip(assessment.lesions, names, strict=True))
    ]
    return replace(assessment, lesions=tuple(lesions))


def make_pictures_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at texts: pictures are there, and cost little."""
    monkeypatch.setattr(key_images, "PIXELS", 160)
    monkeypatch.setattr(key_images, "SAMPLES", 60)
    monkeypatch.setattr(relief, "MOST_POINTS", 40)
