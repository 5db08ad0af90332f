"""Diameters of a set of voxels, in the patient's axial plane and in space.

The boundary runs half-way between the center of a voxel inside and that of its neighbor outside. Where the slices of
the grid are axial, an outline is read from them; elsewhere (oblique, or tilted without being straightened) the mask is
interpolated linearly between voxel centers, and axial planes cut it where it is one half. A row of n voxels is thus n
voxels long in both cases, and a single voxel has the size of a voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import cdist

from ..geometry import Grid
from .assessment import Axis

# Slices whose axes rise by less than this, per mm along them, are axial: 0.1 mm over a lesion of 10 cm.
AXIAL_TOLERANCE = 1e-3
HALF = 0.5
# Along a lesion, in planes that do not follow the grid.
SAMPLES = 64
_IN_SLICE = np.ones((3, 3), int)


@dataclass(frozen=True)
class AxialDiameters:
    """The longest line in an axial plane, and the longest one across it; None where there is no voxel.

    Attributes:
        long: between the two points of the outline that are farthest apart, of all axial planes. Pieces that are not
            connected in their plane (8 neighbors) are measured one by one: no line crosses what lies between them.
        short: in the same plane, perpendicular to ``long``: of all lines from the outermost point of the outline on
            one side to that on the other, the longest.
    """

    long: Axis | None = None
    short: Axis | None = None


@dataclass(frozen=True, eq=False)
class _Piece:
    """One connected piece of an axial plane.

    Attributes:
        field: [v, u], above one half inside, with a rim of voxels that are not.
        origin: RAS of field[0, 0].
        u, v: RAS steps between samples.
    """

    field: np.ndarray
    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray

    @property
    def most_mm(self) -> float:
        """No line in the piece is longer."""
        rows, columns = (n - 1 for n in self.field.shape)
        diagonals = [columns * self.u + sign * rows * self.v for sign in (1, -1)]
        return float(np.linalg.norm(diagonals, axis=1).max())

    def to_ras(self, points: np.ndarray) -> np.ndarray:
        """RAS of (u, v) positions (n, 2) in samples."""
        return self.origin + points[:, :1] * self.u + points[:, 1:] * self.v


def axial_diameters(mask: np.ndarray, grid: Grid, offset: Sequence[int] = (0, 0, 0)) -> AxialDiameters:
    """Long and short axis of a lesion, as RECIST 1.1 wants them: in the axial plane.

    Args:
        mask: bool [k, j, i].
        grid: where voxels lie in the patient.
        offset: (i, j, k) of the first voxel of ``mask`` on ``grid``.
    """
    if not mask.any():
        return AxialDiameters()
    pieces = list(_sliced(mask, grid, offset) if _slices_are_axial(grid) else _cut(mask, grid, offset))
    pieces.sort(key=lambda piece: -piece.most_mm)
    best, longest = None, -1.0
    for piece in pieces:
        if piece.most_mm <= longest:
            break
        ends, length = _farthest(piece.to_ras(_outermost(piece.field)))
        if length > longest:
            best, longest = (piece, ends), length
    piece, ends = best
    return AxialDiameters(_axis(*ends), _across(piece, ends))


def largest_diameter_mm(mask: np.ndarray, grid: Grid) -> float:
    """Largest distance of any two points of the boundary, in mm; not a number where there is no voxel.

    Source: IBSI L0JK, maximum 3D diameter; the boundary's points are the vertices of a surface at one half.
    """
    if not mask.any():
        return float("nan")
    points = grid.to_ras(_crossings_in_lines(mask))
    with suppress(QhullError):
        points = points[ConvexHull(points).vertices]
    return _farthest(points)[1]


def slice_axis(grid: Grid) -> int:
    """The axis (0 i, 1 j, 2 k) along which slices follow each other from feet to head or back."""
    return next(n for n, letter in enumerate(grid.axes) if letter in "SI")


def _axis(start: np.ndarray, end: np.ndarray) -> Axis:
    return Axis(tuple(float(n) for n in start), tuple(float(n) for n in end))


def _slices_are_axial(grid: Grid) -> bool:
    rise = np.abs(grid.ijk_to_ras[2, :3] / grid.spacing)
    return bool(np.delete(rise, slice_axis(grid)).max() <= AXIAL_TOLERANCE)


def _sliced(mask: np.ndarray, grid: Grid, offset: Sequence[int]) -> Iterator[_Piece]:
    """The pieces of slices that are axial."""
    axis = slice_axis(grid)
    first, second = (n for n in range(3) if n != axis)
    # [slice, v, u]: i before j before k, so that u is the axis with the lower number.
    slices = np.moveaxis(mask, 2 - axis, 0)
    steps = grid.ijk_to_ras[:3, :3]
    structure = np.zeros((3, 3, 3), int)
    structure[1] = 1
    numbers, _ = ndimage.label(slices, structure)
    for number, (n, rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
        field = np.pad(numbers[n.start, rows, columns] == number, 1).astype(np.float32)
        index = np.array(offset, float)
        index[axis] += n.start
        index[first] += columns.start - 1
        index[second] += rows.start - 1
        yield _Piece(field, grid.to_ras(index), steps[:, first], steps[:, second])


def _cut(mask: np.ndarray, grid: Grid, offset: Sequence[int]) -> Iterator[_Piece]:
    """The pieces of axial planes through voxels that lie askew.

    Planes follow each other at the step of the slices; one goes through the centroid, and one through the voxel that
    is nearest to it, so that the smallest lesion is met.
    """
    padded = np.pad(mask, 1).astype(np.float32)
    voxels = np.argwhere(mask)[:, ::-1]
    local = grid.ijk_to_ras.copy()
    local[:3, 3] = grid.to_ras(np.array(offset) - 1.0)  # of the padded array
    ras = (voxels + 1) @ local[:3, :3].T + local[:3, 3]
    middle = ras.mean(axis=0)
    nearest = ras[((ras - middle) ** 2).sum(axis=1).argmin()]
    reach = np.abs(local[:3, :3]).sum(axis=1)  # a voxel's own reach along R, A, S
    low, high = ras.min(axis=0) - reach, ras.max(axis=0) + reach
    between_planes = abs(grid.ijk_to_ras[2, slice_axis(grid)])
    below, above = np.ceil((low[2] - middle[2]) / between_planes), np.floor((high[2] - middle[2]) / between_planes)
    heights = {float(middle[2] + n * between_planes) for n in np.arange(below, above + 1)} | {float(nearest[2])}
    # Small lesions are sampled finer: where few samples are inside, a line between them is a poor outline.
    voxel = float(grid.spacing.min())
    step = float(np.clip((high - low)[:2].max() / SAMPLES, voxel / 4, voxel))
    r, a = (np.arange(low[n], high[n] + step, step) for n in range(2))
    inverse = np.linalg.inv(local)
    for height in sorted(heights):
        # RAS of a plane [v, u, 3] → indices of the padded array.
        plane = np.stack([*np.meshgrid(r, a), np.full((len(a), len(r)), height)], axis=-1)
        ijk = plane @ inverse[:3, :3].T + inverse[:3, 3]
        field = ndimage.map_coordinates(padded, np.moveaxis(ijk, -1, 0)[::-1], order=1, mode="constant", cval=0.0)
        numbers, _ = ndimage.label(field > HALF, _IN_SLICE)
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
            rows, columns = slice(rows.start - 1, rows.stop + 1), slice(columns.start - 1, columns.stop + 1)
            part, mine = field[rows, columns], numbers[rows, columns] == number
            part = np.where(mine, part, np.minimum(part, HALF))
            origin = np.array([r[columns.start], a[rows.start], height])
            yield _Piece(part, origin, np.array([step, 0.0, 0.0]), np.array([0.0, step, 0.0]))


def _crossing(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Where between two samples (0…1) the value one half is met."""
    return (inner - HALF) / (inner - outer)


def _outermost(field: np.ndarray) -> np.ndarray:
    """(u, v) of the first and the last crossing of each row and each column: the farthest two are among them."""
    found = []
    for turned in (False, True):
        rows = field.T if turned else field
        inside = rows > HALF
        hit = np.flatnonzero(inside.any(axis=1))
        first = inside[hit].argmax(axis=1)
        last = inside.shape[1] - 1 - inside[hit, ::-1].argmax(axis=1)
        low = first - _crossing(rows[hit, first], rows[hit, first - 1])
        high = last + _crossing(rows[hit, last], rows[hit, last + 1])
        along, at = np.concatenate([low, high]), np.concatenate([hit, hit])
        found.append(np.column_stack([at, along] if turned else [along, at]))
    return np.concatenate(found)


def _farthest(points: np.ndarray, at_once: int = 512) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """The two points that are farthest apart, and their distance."""
    best, ends = -1.0, (points[0], points[0])
    for start in range(0, len(points), at_once):
        distances = cdist(points[start : start + at_once], points[start:])
        row, column = np.unravel_index(int(distances.argmax()), distances.shape)
        if distances[row, column] > best:
            best, ends = float(distances[row, column]), (points[start + row], points[start + column])
    return ends, best


def _across(piece: _Piece, ends: tuple[np.ndarray, np.ndarray]) -> Axis:
    """The longest line perpendicular to the one between ``ends`` in the plane of the piece."""
    start, end = ends
    along = (end - start) / np.linalg.norm(end - start)
    normal = np.cross(piece.u, piece.v)
    across = np.cross(normal / np.linalg.norm(normal), along)
    segments = _outline(piece.field)
    ras = piece.to_ras(segments.reshape(-1, 2)) - start
    t, p = (ras @ along).reshape(-1, 2), (ras @ across).reshape(-1, 2)
    swap = t[:, 0] > t[:, 1]
    t[swap], p[swap] = t[swap, ::-1], p[swap, ::-1]
    width, at, low, high = -1.0, 0.0, 0.0, 0.0
    places = np.unique(t)
    for group in np.array_split(places, 1 + len(places) * len(t) // 2_000_000):
        met = (t[:, 0] <= group[:, None]) & (group[:, None] <= t[:, 1])
        run = t[:, 1] - t[:, 0]
        flat = run <= 0
        share = (group[:, None] - t[:, 0]) / np.where(flat, 1, run)
        here = p[:, 0] + share * (p[:, 1] - p[:, 0])
        lowest = np.where(met, np.where(flat, p.min(axis=1), here), np.inf).min(axis=1)
        highest = np.where(met, np.where(flat, p.max(axis=1), here), -np.inf).max(axis=1)
        n = int((highest - lowest).argmax())
        if highest[n] - lowest[n] > width:
            width, at, low, high = highest[n] - lowest[n], group[n], lowest[n], highest[n]
    return _axis(start + at * along + low * across, start + at * along + high * across)


def _outline(field: np.ndarray) -> np.ndarray:
    """The outline at one half as line segments (n, 2, 2), each two (u, v) points (marching squares)."""
    inside = field > HALF
    corners = [(0, 0), (0, 1), (1, 1), (1, 0)]  # (v, u), around a cell
    rows, columns = (n - 1 for n in field.shape)
    values = [field[v : v + rows, u : u + columns] for v, u in corners]
    flags = [inside[v : v + rows, u : u + columns] for v, u in corners]
    mixed = np.flatnonzero((np.logical_or.reduce(flags) & ~np.logical_and.reduce(flags)).ravel())
    values = np.stack([value.ravel()[mixed] for value in values], axis=1)
    flags = np.stack([flag.ravel()[mixed] for flag in flags], axis=1)
    base = np.column_stack([mixed % columns, mixed // columns]).astype(float)
    places = np.array([(u, v) for v, u in corners], float)
    crossed, points = [], []
    for n in range(4):
        one, other = n, (n + 1) % 4
        crossed.append(flags[:, one] != flags[:, other])
        gap = values[:, one] - values[:, other]
        share = (values[:, one] - HALF) / np.where(gap == 0, 1, gap)
        points.append(base + places[one] + share[:, None] * (places[other] - places[one]))
    crossed, points = np.stack(crossed, axis=1), np.stack(points, axis=1)
    segments = []
    for pair in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]:
        only = crossed[:, pair[0]] & crossed[:, pair[1]] & (crossed.sum(axis=1) == 2)
        segments.append(points[only][:, pair])
    # Where inside touches inside at a corner only, the two stay connected, as pieces are.
    saddle = crossed.all(axis=1)
    first = saddle & flags[:, 0]
    second = saddle & ~flags[:, 0]
    for chosen, pairs in ((first, ((0, 1), (2, 3))), (second, ((0, 3), (1, 2)))):
        segments += [points[chosen][:, pair] for pair in pairs]
    return np.concatenate(segments)


def _crossings_in_lines(mask: np.ndarray) -> np.ndarray:
    """(i, j, k), from the first voxel of the array: ends of the first and last voxel of each line along each axis."""
    found = []
    for axis in range(3):
        lines = np.moveaxis(mask, axis, -1)
        hit = np.argwhere(lines.any(axis=-1))
        rows = lines[tuple(hit.T)]
        first = rows.argmax(axis=-1) - HALF
        last = rows.shape[-1] - 1 - rows[:, ::-1].argmax(axis=-1) + HALF
        for ends in (first, last):
            points = np.insert(hit.astype(float), axis, ends, axis=1)
            found.append(points[:, ::-1])
    return np.concatenate(found)
