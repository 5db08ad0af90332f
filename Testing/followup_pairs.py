"""Pairs of studies whose truth is known: a liver, a smooth deformation, and lesions that grow, vanish, split, merge.

A pair is made from one CT with its liver mask. Lesions are planted into it (the baseline); a random smooth deformation
of at most some millimeters, and a rigid shift as between two positions on the table, carry it to the later study. That
one has its own voxels, its own noise and its own contrast. The planted lesions are painted there anew, at the place to
which their tissue moved, with a size that is chosen and not deformed: what was planted is what must be measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from analytic_bodies import rotation
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.volume import Volume
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

# What may happen to a lesion, and by how much its volume changes.
FATES = ("stable", "grown", "shrunk", "resolved", "new", "split", "merged")
VOLUME_FACTOR = {"stable": (0.85, 1.2), "grown": (1.8, 3.0), "shrunk": (0.2, 0.5)}


@dataclass(frozen=True, eq=False)
class Case:
    """A CT with its liver, [k, j, i] on one grid; lesions that it has already are 2 and above in ``labels``."""

    volume: Volume
    labels: np.ndarray


@dataclass(frozen=True)
class Recipe:
    """What a pair is made of.

    Attributes:
        seed: of everything that is drawn.
        fates: what happens to each planted lesion.
        amplitude_mm: the largest displacement of the smooth deformation inside the liver.
        knots_mm: width of its bumps.
        turn_degrees, shift_mm: of the rigid part.
        spacing_mm: of the later study, along R, A, S.
        tilt_degrees: how oblique the later study is.
        flips: whether its axes run against R, A, S.
        hu_shift: of the liver in the later study.
        vessel_gain: how strong vessels are in the later study, against the earlier one.
        noise_hu: fresh noise of both studies.
        radius_mm: of planted lesions.
    """

    seed: int
    fates: tuple[str, ...] = (
        "stable",
        "stable",
        "stable",
        "grown",
        "grown",
        "grown",
        "shrunk",
        "shrunk",
        "resolved",
        "resolved",
        "new",
        "new",
        "split",
        "merged",
    )
    amplitude_mm: float = 20.0
    knots_mm: float = 60.0
    turn_degrees: float = 8.0
    shift_mm: float = 60.0
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 3.0)
    tilt_degrees: float = 6.0
    flips: tuple[bool, bool, bool] = (True, True, False)
    hu_shift: float = 15.0
    vessel_gain: float = 0.7
    noise_hu: float = 12.0
    radius_mm: tuple[float, float] = (4.0, 14.0)


@dataclass(frozen=True, eq=False)
class Ball:
    """An ellipsoid in one study."""

    center: np.ndarray
    radii: np.ndarray
    turn: np.ndarray

    def mask(self, grid: Grid) -> tuple[Box, np.ndarray]:
        """Its voxels in a box of ``grid``; at least the voxel at its center."""
        reach = self.radii.max() + grid.spacing.max()
        corners = self.center + reach * (np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T)
        ijk = grid.to_ijk(corners)
        low = np.clip(np.floor(ijk.min(axis=0)).astype(int), 0, np.array(grid.size) - 1)
        high = np.clip(np.ceil(ijk.max(axis=0)).astype(int) + 1, low + 1, grid.size)
        box = Box(tuple(low.tolist()), tuple(high.tolist()))
        k, j, i = np.meshgrid(*[np.arange(a, b) for a, b in zip(low[::-1], high[::-1], strict=True)], indexing="ij")
        own = (grid.to_ras(np.stack([i, j, k], axis=-1)) - self.center) @ self.turn / self.radii
        return box, (own**2).sum(axis=-1) <= 1


@dataclass(eq=False)
class Link:
    """The truth about one planted lesion, or about one that the case had.

    Attributes:
        fate: one of :data:`FATES`, or 'native'.
        before, after: label values in the two studies.
    """

    fate: str
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(eq=False)
class Pair:
    """Two studies and the truth.

    Attributes:
        earlier, later: the studies.
        links: the truth about each lesion.
        points: (n, 3) positions inside the liver of the earlier study, RAS mm.
        images: where they are in the later study.
    """

    earlier: Case
    later: Case
    links: list[Link] = field(default_factory=list)
    points: np.ndarray | None = None
    images: np.ndarray | None = None


class Warp:
    """From positions in the later study back to the earlier one: a rigid map, then smooth bumps."""

    def __init__(self, recipe: Recipe, grid: Grid, liver: np.ndarray):
        rng = np.random.default_rng(recipe.seed)
        inside = grid.to_ras(np.argwhere(liver)[:: max(1, int(liver.sum()) // 4000), ::-1])
        self.middle = inside.mean(axis=0)
        turn = rotation(tuple(rng.normal(size=3)), float(rng.uniform(-1, 1) * recipe.turn_degrees))
        self.matrix, self.shift = turn, rng.uniform(-1, 1, 3) * recipe.shift_mm
        low, high = inside.min(axis=0) - 80, inside.max(axis=0) + 80
        self.grid = Grid(np.ceil((high - low) / 10).astype(int) + 1, _affine(np.eye(3) * 10, low))
        noise = rng.normal(size=(3, *self.grid.shape))
        smooth = np.stack([gaussian_filter(part, recipe.knots_mm / 10 / 2, mode="reflect") for part in noise], axis=-1)
        self.field = np.zeros_like(smooth)
        moved = np.stack([self._sample(smooth, inside)], axis=0)[0]
        smooth -= moved.mean(axis=0)
        moved = moved - moved.mean(axis=0)
        self.field = smooth * (recipe.amplitude_mm / np.linalg.norm(moved, axis=1).max())

    def _sample(self, values: np.ndarray, ras: np.ndarray) -> np.ndarray:
        ijk = self.grid.to_ijk(ras)
        flat = ijk.reshape(-1, 3)[:, ::-1].T
        parts = [map_coordinates(values[..., axis], flat, order=1, mode="nearest") for axis in range(3)]
        return np.stack(parts, axis=-1).reshape(ras.shape)

    def back(self, ras: np.ndarray) -> np.ndarray:
        """Positions of the later study in the earlier one."""
        rigid = (ras - self.middle - self.shift) @ self.matrix + self.middle
        return rigid + self._sample(self.field, rigid)

    def forth(self, ras: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`back`."""
        rigid = np.array(ras, dtype=float)
        for _ in range(60):
            rigid = ras - self._sample(self.field, rigid)
        return (rigid - self.middle) @ self.matrix.T + self.middle + self.shift

    def folds(self, grid: Grid, liver: np.ndarray) -> float:
        """The smallest local change of volume inside the liver."""
        slopes = [np.gradient(self.field[..., axis], 10.0) for axis in range(3)]
        jacobian = np.stack([np.stack(part[::-1], axis=-1) for part in slopes], axis=-2) + np.eye(3)
        inside = grid.to_ras(np.argwhere(liver)[:: max(1, int(liver.sum()) // 4000), ::-1])
        ijk = self.grid.to_ijk(inside)[:, ::-1].T
        return float(map_coordinates(np.linalg.det(jacobian), ijk, order=1, mode="nearest").min())


def _affine(linear: np.ndarray, origin: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, origin
    return matrix


def make_pair(case: Case, recipe: Recipe) -> Pair:
    """Two studies of ``case`` with lesions planted into both."""
    rng = np.random.default_rng([recipe.seed, 1])
    grid, liver = case.volume.grid, case.labels > 0
    warp = Warp(recipe, grid, liver)
    assert warp.folds(grid, liver) > 0.3, f"the deformation of seed {recipe.seed} is not one that a liver undergoes"
    links, first, second = _plan(case, recipe, warp, rng)
    later_grid = _later_grid(recipe, warp, grid, liver)
    base, structure = without_noise(case)
    back = warp.back(later_grid.to_ras(_indices(later_grid)))
    ijk = grid.to_ijk(back.reshape(-1, 3)).astype(np.float32)[:, ::-1].T
    shape = later_grid.shape
    weaker = base - (1 - recipe.vessel_gain) * structure
    hu = map_coordinates(weaker, ijk, order=1, mode="constant", cval=-1000).reshape(shape)
    native = map_coordinates(case.labels, ijk, order=0, mode="constant", cval=0).reshape(shape)
    hu = hu + recipe.hu_shift * gaussian_filter((native > 0).astype(np.float32), 1.0)
    earlier = _painted(base, case.labels, grid, first, links, "before", recipe, rng)
    later = _painted(hu, native, later_grid, second, links, "after", recipe, rng)
    points = grid.to_ras(np.argwhere(liver)[:: max(1, int(liver.sum()) // 1500), ::-1])
    source = {"path": f"pair {recipe.seed}", "format": "nifti"}
    return Pair(
        Case(Volume(earlier[0], grid, f"{case.volume.name} earlier", dict(source)), earlier[1]),
        Case(Volume(later[0], later_grid, f"{case.volume.name} later", dict(source)), later[1]),
        links,
        points,
        warp.forth(points),
    )


def without_noise(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(HU, structure): the CT with a liver of parenchyma and what stands out of it by more than 12 HU.

    The noise of the original would otherwise be carried along with the tissue, and lead the registration as no second
    scan's noise can.
    """
    grid, liver = case.volume.grid, case.labels > 0
    hu = case.volume.array.astype(np.float32)
    sigma = (1.5 / grid.spacing)[::-1]
    weight = gaussian_filter(liver.astype(np.float32), sigma)
    smooth = gaussian_filter(np.where(liver, hu, 0), sigma) / np.maximum(weight, 1e-3)
    level = float(np.median(hu[case.labels == 1]))
    structure = np.where(liver, np.sign(smooth - level) * np.maximum(np.abs(smooth - level) - 12.0, 0), 0)
    return np.where(liver, level + structure, hu), structure.astype(np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise of standard deviation 1 whose neighbors resemble each other, as those of a reconstruction do."""
    noise = gaussian_filter(rng.normal(size=shape).astype(np.float32), 0.6)
    return noise / noise.std()


def _indices(grid: Grid) -> np.ndarray:
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    return np.stack([i, j, k], axis=-1)


def _later_grid(recipe: Recipe, warp: Warp, grid: Grid, liver: np.ndarray) -> Grid:
    """A grid of its own spacing and direction around the liver, with 35 mm around it."""
    inside = warp.forth(grid.to_ras(np.argwhere(liver)[:: max(1, int(liver.sum()) // 4000), ::-1]))
    turn = rotation((1.0, 0.4, 0.2), recipe.tilt_degrees) @ np.diag(np.where(recipe.flips, -1.0, 1.0))
    own = inside @ turn
    low, high = own.min(axis=0) - 35, own.max(axis=0) + 35
    spacing = np.array(recipe.spacing_mm)
    return Grid(np.ceil((high - low) / spacing).astype(int) + 1, _affine(turn * spacing, turn @ low))


def _plan(case: Case, recipe: Recipe, warp: Warp, rng: np.random.Generator):
    """Where lesions lie in both studies: links, balls of the earlier and of the later one, each with its link."""
    grid = case.volume.grid
    depth = distance_transform_edt(case.labels == 1, sampling=grid.spacing[::-1])
    sites = np.argwhere(depth > recipe.radius_mm[0] + 1.0)
    links, first, second, taken = [], [], [], []
    for fate in recipe.fates:
        placed = None
        for _ in range(3000):
            site = sites[rng.integers(len(sites))]
            center = grid.to_ras(site[::-1])
            radius = float(np.exp(rng.uniform(*np.log(recipe.radius_mm))))
            if fate in ("split", "merged"):
                radius = max(radius, 9.0)
            factor = float(rng.uniform(*VOLUME_FACTOR[fate])) if fate in VOLUME_FACTOR else 1.0
            room = radius * max(1.0, factor ** (1 / 3)) * (1.35 if fate == "merged" else 1.1)
            if depth[tuple(site)] < room + 1.0:
                continue
            if all(np.linalg.norm(center - c) > room + r + 6.0 for c, r in taken):
                placed = center, radius, factor, room
                break
        if placed is None:
            continue  # a liver without room for one more
        center, radius, factor, room = placed
        taken.append((center, room))
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        radii = radius * np.exp(rng.normal(0, 0.1, 3))
        radii = radii * radius / np.cbrt(radii.prod())
        link = Link(fate)
        links.append(link)
        image = warp.forth(center)
        if fate in VOLUME_FACTOR or fate == "resolved":
            first.append((link, Ball(center, radii, turn)))
        if fate in VOLUME_FACTOR or fate == "new":
            second.append((link, Ball(image, radii * factor ** (1 / 3), np.linalg.qr(rng.normal(size=(3, 3)))[0])))
        if fate in ("split", "merged"):
            along = turn[:, 0]
            halves = [center + side * along * radius * 0.75 for side in (-1, 1)]
            small = np.full(3, radius * 0.52)
            if fate == "split":
                first.append((link, Ball(center, np.full(3, radius), turn)))
                second += [(link, Ball(warp.forth(half), small, turn)) for half in halves]
            else:
                first += [(link, Ball(half, small, turn)) for half in halves]
                second.append((link, Ball(image, radius * np.array([1.3, 0.8, 0.8]), _turned(warp, center, turn))))
    return links, first, second


def _turned(warp: Warp, center: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The axes of a body that is carried along with the tissue around it."""
    along = warp.forth(center + 5 * turn[:, 0]) - warp.forth(center - 5 * turn[:, 0])
    return np.linalg.qr(np.column_stack([along, turn[:, 1], turn[:, 2]]))[0]


def _painted(hu: np.ndarray, native: np.ndarray, grid: Grid, balls: list, links: list[Link], side: str, recipe, rng):
    """int16 voxels and labels with the balls painted; the links learn their label values."""
    hu = hu + recipe.noise_hu * _noise(hu.shape, rng)
    labels = native.astype(np.uint8)
    number = int(labels.max(initial=1)) + 1
    level = float(np.median(hu[labels == 1])) - 45.0
    for link, ball in balls:
        box, mask = ball.mask(grid)
        mask &= labels[box.slices] > 0
        labels[box.slices][mask] = number
        soft = gaussian_filter(mask.astype(np.float32), 0.5)
        part = hu[box.slices]
        part += soft * (level + rng.normal(0, 8, mask.shape).astype(np.float32) - part)
        setattr(link, side, (*getattr(link, side), number))
        number += 1
    for value in np.unique(native[native > 1]).tolist():
        known = next((link for link in links if link.fate == "native" and value in (*link.before, *link.after)), None)
        if known is None:
            known = Link("native")
            links.append(known)
        setattr(known, side, (value,))
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), labels


def cropped(case: Case, margin_mm: float = 35.0) -> Case:
    """The part of a case around its liver."""
    grid = case.volume.grid
    box = Box.around(case.labels > 0)
    room = np.ceil(margin_mm / grid.spacing).astype(int)
    start = tuple(np.maximum(0, np.array(box.start) - room).tolist())
    stop = tuple(np.minimum(grid.size, np.array(box.stop) + room).tolist())
    box = Box(start, stop)
    volume = Volume(
        np.ascontiguousarray(case.volume.array[box.slices]), grid.crop(box), case.volume.name, case.volume.source
    )
    return Case(volume, np.ascontiguousarray(case.labels[box.slices]))
