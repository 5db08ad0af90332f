"""Diameters and distances against bodies that are known exactly, at five spacings, along the patient and askew."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from analytic_bodies import Ellipsoid, rasterize, rotation
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.lesions.assess import assess
from LiverCascadeLib.lesions.diameters import axial_diameters, largest_diameter_mm, slice_axis
from LiverCascadeLib.lesions.measurements import measure
from LiverCascadeLib.volume import Volume

SPACINGS = ((1.0, 1.0, 1.0), (0.75, 0.75, 2.0), (0.7, 0.7, 5.0), (2.0, 2.0, 2.0), (0.9, 1.3, 2.7))
SHEAR = np.array([[1.0, 0, 0], [0, 1, 0.3], [0, 0, 1]])
DIRECTIONS = {
    "axial": np.diag([-1.0, -1, 1]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "oblique": rotation((1, 1, 0.3), 21) @ np.diag([-1.0, -1, 1]),
    "turned far": rotation((0.2, 1, 0.8), -33),
    "tilted gantry": SHEAR @ np.diag([-1.0, -1, 1]),
}
CENTER = (3.3, -7.1, 12.7)
BODY = 17.0


@dataclass(frozen=True, eq=False)
class BoxBody:
    """A cuboid with the half edges ``half``; ``turn`` holds its axes in columns."""

    half: tuple[float, float, float]
    turn: np.ndarray
    center_ras: tuple[float, float, float] = CENTER

    def contains(self, ras: np.ndarray) -> np.ndarray:
        return (np.abs((ras - np.array(self.center_ras)) @ self.turn) <= np.array(self.half)).all(axis=-1)


@dataclass(frozen=True, eq=False)
class Torus:
    """A ring of radius ``ring`` and thickness 2 ``tube`` around the unit vector ``axis``."""

    ring: float
    tube: float
    axis: tuple[float, float, float]
    center_ras: tuple[float, float, float] = CENTER

    def contains(self, ras: np.ndarray) -> np.ndarray:
        away = ras - np.array(self.center_ras)
        height = away @ np.array(self.axis)
        beside = np.sqrt(np.maximum(0, (away**2).sum(axis=-1) - height**2))
        return (beside - self.ring) ** 2 + height**2 <= self.tube**2


def grid_around(spacing: tuple[float, float, float], direction: np.ndarray, reach: float = 26.0) -> Grid:
    """A grid whose voxels cover ``reach`` mm around the center, which lies between voxels."""
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.array(spacing)
    size = np.ceil(2 * reach * np.linalg.norm(np.linalg.inv(matrix[:3, :3]), axis=1)).astype(int) + 1
    matrix[:3, 3] = np.array(CENTER) + 0.2 - matrix[:3, :3] @ ((size - 1) / 2)
    return Grid(size.tolist(), matrix)


def in_plane(ellipsoid: Ellipsoid) -> tuple[float, float]:
    """Axes of the axial section through the center: the eigenvalues of the ellipsoid's form in that plane."""
    form = ellipsoid.rotation @ np.diag(1 / np.square(ellipsoid.radii)) @ ellipsoid.rotation.T
    low, high = np.linalg.eigvalsh(form[:2, :2])
    return 2 / np.sqrt(low), 2 / np.sqrt(high)


TILTED = Ellipsoid(CENTER, (20.0, 9.0, 13.0), rotation((1, 0.5, 2), 40))
FLAT = BoxBody((14.0, 9.0, 11.0), rotation((0, 0, 1), 25))
DIAGONAL = float(np.hypot(28, 18))
# Body; long and short axis, largest 3D diameter; height to which an axial section stays about the same, in mm: the
# nearest slice may lie half a step off the best plane.
BODIES = {
    "ball": (Ellipsoid(CENTER, (BODY,) * 3), 2 * BODY, 2 * BODY, 2 * BODY, BODY),
    "ellipsoid": (TILTED, *in_plane(TILTED), 40.0, 9.0),
    "box": (FLAT, DIAGONAL, 28 * 18 / DIAGONAL * (1 + (18 / 28) ** 2), float(np.hypot(DIAGONAL, 22)), np.inf),
    "lying torus": (Torus(15.0, 6.0, (0.0, 0.0, 1.0)), 42.0, 42.0, 42.0, 6.0),
}
# All five spacings along the patient's axes and on one oblique grid, and every other direction at two.
CASES = [
    *((spacing, name) for spacing in SPACINGS for name in ("axial", "oblique")),
    *((spacing, name) for spacing in SPACINGS[1:3] for name in ("sagittal", "turned far", "tilted gantry")),
]


@pytest.mark.parametrize(("spacing", "direction"), CASES, ids=[f"{name} {spacing}" for spacing, name in CASES])
@pytest.mark.parametrize("name", BODIES)
def test_diameters_are_those_of_the_body_within_a_voxel(name, spacing, direction):
    body, long, short, largest, height = BODIES[name]
    grid = grid_around(spacing, DIRECTIONS[direction])
    mask = rasterize(body, grid)
    found = axial_diameters(mask, grid)
    steps = grid.ijk_to_ras[:3, :3]
    # Each end may be off by half a voxel, and the best plane by half a step between slices.
    across = float(np.linalg.norm(np.abs(steps[:2]).max(axis=1)))
    lost = 1 - np.sqrt(max(0.0, 1 - (abs(steps[2, slice_axis(grid)]) / 2 / height) ** 2))
    assert -across - lost * long <= found.long.length_mm - long <= across
    assert -across - lost * short <= found.short.length_mm - short <= across
    voxel = max(float(np.linalg.norm(steps @ signs)) for signs in product((1, -1), repeat=3))
    assert abs(largest_diameter_mm(mask, grid) - largest) <= voxel
    assert found.long.length_mm <= measure(mask, grid)["diameter_3d_mm"]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_axes_lie_in_one_axial_plane_at_right_angles_and_end_on_the_outline(direction):
    grid = grid_around((0.8, 0.8, 2.5), DIRECTIONS[direction])
    mask = rasterize(TILTED, grid)
    found = axial_diameters(mask, grid, (5, 6, 7))
    ends = np.array([found.long.start, found.long.end, found.short.start, found.short.end])
    assert np.ptp(ends[:, 2]) < 1e-6
    long, short = ends[1] - ends[0], ends[3] - ends[2]
    assert abs(long @ short) < 1e-6 * np.linalg.norm(long) * np.linalg.norm(short)
    assert found.short.length_mm <= found.long.length_mm
    # Half-way between a voxel inside and one outside: one is within a voxel on either side of every end.
    for end in grid.to_ijk(ends) - (5, 6, 7):
        low = np.floor(end - 0.5).astype(int)
        near = mask[tuple(slice(n, n + 3) for n in low[::-1])]
        assert near.any() and not near.all()


def test_between_two_pieces_of_a_slice_no_line_is_drawn():
    # A ring that stands upright: in most axial planes it is two pieces, 42 mm from side to side.
    grid = grid_around((1.0, 1.0, 1.0), DIRECTIONS["axial"])
    ring = Torus(15.0, 6.0, (1.0, 0.0, 0.0))
    mask = rasterize(ring, grid)
    found = axial_diameters(mask, grid)
    # Where the two meet, at ring - tube above the center: 4 √(ring · tube).
    assert found.long.length_mm == pytest.approx(4 * np.sqrt(15 * 6), abs=2.5)
    assert largest_diameter_mm(mask, grid) == pytest.approx(42, abs=1.8)


@pytest.mark.parametrize(
    ("voxels", "long", "short", "largest"),
    [
        ((1, 1, 1), 3.0, 2.0, 5.0),
        ((4, 1, 1), 8.0, 3.0, 8.0),
        ((1, 4, 1), 12.0, 2.0, 12.0),
        # Ends (±4, ±1.5) and (±3, ±3) around the middle: the first two are farther apart.
        ((4, 2, 1), np.hypot(8, 3), None, None),
        ((1, 1, 3), 3.0, 2.0, 15.0),
    ],
)
def test_blocks_of_voxels_are_measured_as_by_hand(voxels, long, short, largest):
    grid = Grid((9, 9, 9), np.array([[-2.0, 0, 0, 0], [0, -3.0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 1]]))
    mask = np.ones(voxels[::-1], bool)
    found = axial_diameters(mask, grid)
    assert found.long.length_mm == pytest.approx(long)
    if short is not None:
        assert found.short.length_mm == pytest.approx(short)
        assert largest_diameter_mm(mask, grid) == pytest.approx(largest)


def test_the_short_axis_of_a_notched_body_runs_from_side_to_side():
    # A bar of 20 × 6 voxels with a notch in the middle of one side: across the notch it is thinner.
    mask = np.ones((1, 6, 20), bool)
    mask[0, 4:, 8:12] = False
    mask[0, 0, :3] = False
    found = axial_diameters(mask, Grid((1, 1, 1), np.diag([-1.0, -1, 5, 1])))
    assert found.long.length_mm == pytest.approx(np.hypot(20, 4), abs=0.6)
    assert found.short.length_mm == pytest.approx(6.2, abs=0.5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_smallest_lesion_has_the_size_of_a_voxel(direction):
    grid = grid_around((0.7, 0.7, 5.0), DIRECTIONS[direction])
    found = axial_diameters(np.ones((1, 1, 1), bool), grid, (3, 3, 3))
    assert 0.4 <= found.short.length_mm <= found.long.length_mm <= 5.0 + 1e-6
    values = measure(np.ones((1, 1, 1), bool), grid, (3, 3, 3))
    assert values["diameter_3d_mm"] >= values["long_axis_mm"] and values["diameter_3d_mm"] <= 8


def test_nothing_has_no_diameter():
    found = axial_diameters(np.zeros((2, 3, 4), bool), grid_around(SPACINGS[0], DIRECTIONS["axial"]))
    assert found.long is None and found.short is None
    assert np.isnan(largest_diameter_mm(np.zeros((2, 3, 4), bool), grid_around(SPACINGS[0], DIRECTIONS["axial"])))


@pytest.mark.parametrize(("spacing", "direction"), [(SPACINGS[1], "axial"), (SPACINGS[1], "oblique")])
def test_the_distance_to_the_capsule_is_that_of_the_bodies(spacing, direction):
    grid = grid_around(spacing, DIRECTIONS[direction], reach=34.0)
    liver = Ellipsoid(CENTER, (30.0, 26.0, 28.0))
    shift = np.array([9.0, 0, 0])
    for lesion, distance in (
        (Ellipsoid(tuple(CENTER + shift), (8.0,) * 3), 13.0),
        (Ellipsoid(tuple(CENTER + 2.6 * shift), (8.0,) * 3), 0.0),
    ):
        labels = rasterize(liver, grid).astype(np.uint8)
        labels[rasterize(lesion, grid)] = 2
        volume = Volume(np.zeros(grid.shape, np.int16), grid)
        (found,) = assess(volume, labels).lesions
        # Both surfaces are off by half a voxel at most.
        assert found.values["capsule_distance_mm"] == pytest.approx(distance, abs=float(grid.spacing.max()))
