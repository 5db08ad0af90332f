"""Which lesion of the earlier study is which of the later one.

The registration carries the earlier lesions into the later study, up to an error that is smooth in space. The lesions
themselves tell that error: pairs that are surely the same are found first, the error between them follows by Gaussian
process regression (Rasmussen and Williams, 'Gaussian Processes for Machine Learning', 2006, ch. 2), and with it the
next pairs become sure. A pair may be as far apart as the uncertainty at that place allows, and no farther.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from ..geometry import Grid
from ..lesions.assessment import Assessment
from .deformation import Deformation

# The error of a registration along each axis, and how far it stays alike.
ERROR_MM, ERROR_REACH_MM = 5.0, 45.0
# How well the middle of a lesion is known: masks differ, and one that grows does so to one side.
MIDDLE_MM, MIDDLE_PER_GROWTH = 1.5, 0.4
# Natural logarithm of a ratio of volumes that is nothing special.
VOLUME_SPREAD = 1.2
# Two lesions are rather two than one from here on: half a squared distance in standard deviations.
UNMATCHED_COST = 5.5
# A pair is unsure beyond this cost, or where another pair would cost hardly more.
SURE_COST, SURE_MARGIN = 4.0, 2.0
# Part of a lesion that must lie where the other one is, for pieces and for lesions that grew together.
PIECE_SHARE, PIECE_REACH_MM = 0.6, 2.0
# Parts together may be this much larger than the whole that they come from.
MOST_TOGETHER = 1.6
COVERED_SHARE = 0.5
ROUNDS = 8
MOST_POINTS = 600


@dataclass(frozen=True, eq=False)
class Body:
    """A lesion as a cloud of points.

    Attributes:
        label: its value in the labels of its study.
        volume_ml: of the lesion.
        points: (n, 3) RAS mm, evenly taken from its voxels.
        reach_mm: how far each point stands for the lesion around it.
    """

    label: int
    volume_ml: float
    points: np.ndarray
    reach_mm: float

    @property
    def middle(self) -> np.ndarray:
        """Mean of the points."""
        return self.points.mean(axis=0)

    @property
    def radius_mm(self) -> float:
        """Of the sphere of the same volume."""
        return float(np.cbrt(3 * self.volume_ml * 1000 / (4 * np.pi)))


@dataclass(frozen=True)
class Group:
    """Lesions that are the same disease in both studies.

    Attributes:
        before, after: label values; one each for a plain pair, several after where a lesion split, several before
            where lesions merged, none where it is new or gone.
        covered: whether the other study shows the place at all; true wherever there are lesions on both sides.
        sure: whether no other reading comes near.
        distance_mm: between the middles after registration; 0 where there is no other side.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    covered: bool = True
    sure: bool = True
    distance_mm: float = 0.0


@dataclass(frozen=True, eq=False)
class Matching:
    """What :func:`match` found.

    Attributes:
        groups: all lesions of both studies, each in one group; those of the earlier study first, in their order.
        deformation: the registration, corrected by the lesions that were matched.
        correction_mm: the largest correction at a matched lesion.
    """

    groups: tuple[Group, ...]
    deformation: Deformation
    correction_mm: float


def body_steps(assessment: Assessment) -> Generator[None, None, list[Body]]:
    """The lesions of a study, in short steps; those without a voxel are left out."""
    grid = assessment.volume.grid
    found = []
    for lesion in assessment.lesions:
        yield
        voxels = np.argwhere(assessment.labels[lesion.box.slices] == lesion.label)[:, ::-1]
        if not len(voxels):
            continue
        step = max(1, -(-len(voxels) // MOST_POINTS))
        chosen = voxels[::step] + np.array(lesion.box.start)
        volume = len(voxels) * grid.voxel_volume_mm3
        reach = float(np.cbrt(volume / len(chosen))) * 0.75
        found.append(Body(lesion.label, volume / 1000, grid.to_ras(chosen), max(reach, 0.5 * grid.spacing.max())))
    return found


def match(
    before: Sequence[Body], after: Sequence[Body], deformation: Deformation, before_grid: Grid, after_grid: Grid
) -> Matching:
    """Finds which lesions belong together.

    Args:
        before, after: the lesions of the earlier and of the later study.
        deformation: from the earlier to the later study.
        before_grid, after_grid: of the whole volumes; beyond them nothing is known.
    """
    carried = [deformation.apply(body.points) for body in before]
    error = _Error(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    pairs: list[tuple[int, int]] = []
    costs = np.zeros((len(before), len(after)))
    if before and after:
        middles = np.array([points.mean(axis=0) for points in carried])
        targets = np.array([body.middle for body in after])
        blur = _blur(before, after)
        ratio = np.log(np.maximum(_volumes(before), 1e-4))[:, None] - np.log(np.maximum(_volumes(after), 1e-4))[None]
        for _ in range(ROUNDS):
            costs = _costs(middles, targets, blur, pairs) + 0.5 * (ratio / VOLUME_SPREAD) ** 2
            new = _assigned(costs)
            if new == pairs:
                break
            pairs = new
        error = _error_of(middles, targets, blur, pairs)
    corrected = [points + error.mean(points) for points in carried]
    groups = _groups(before, after, carried, error, pairs, costs)
    refined = _refined(deformation, error)
    covered = _Cover(before, after, corrected, refined, before_grid, after_grid)
    most = max((float(np.linalg.norm(step)) for step in error.mean(error.places)), default=0.0)
    return Matching(tuple(covered.told(group) for group in groups), refined, most)


def _volumes(those: Sequence[Body]) -> np.ndarray:
    return np.array([body.volume_ml for body in those])


def _blur(before: Sequence[Body], after: Sequence[Body]) -> np.ndarray:
    """Standard deviation, in mm per axis, with which the middles of a pair (i, j) may differ if they are the same."""
    one = np.array([body.radius_mm for body in before])[:, None]
    other = np.array([body.radius_mm for body in after])[None]
    return MIDDLE_MM + MIDDLE_PER_GROWTH * np.abs(one - other) + 0.05 * np.minimum(one, other)


class _Error:
    """The smooth error of a registration, known at some places: a Gaussian process, the same for each axis."""

    def __init__(self, places: np.ndarray, errors: np.ndarray, blur: np.ndarray):
        self.places = places
        kernel = _kernel(places, places) + np.diag(blur**2)
        self.blur = blur
        self._inverse = np.linalg.inv(kernel) if len(places) else np.zeros((0, 0))
        self._weights = self._inverse @ errors
        self._errors = errors

    def mean(self, ras: np.ndarray) -> np.ndarray:
        """Expected error at (n, 3) positions, mm."""
        return _kernel(ras, self.places) @ self._weights if len(self.places) else np.zeros((len(ras), 3))

    def spread(self, ras: np.ndarray) -> np.ndarray:
        """Its standard deviation, mm per axis."""
        variance = np.full(len(ras), ERROR_MM**2)
        if len(self.places):
            cross = _kernel(ras, self.places)
            variance = variance - np.einsum("ij,jk,ik->i", cross, self._inverse, cross)
        return np.sqrt(np.maximum(variance, 0.0))

    def without(self, index: int) -> tuple[np.ndarray, float]:
        """What the other places say about the place ``index``: mean and standard deviation.

        Source: Rasmussen and Williams, equation 5.12.
        """
        own = self._inverse[index, index]
        return self._errors[index] - self._weights[index] / own, float(np.sqrt(1 / own))


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    square = ((one[:, None] - other[None]) ** 2).sum(axis=-1)
    return ERROR_MM**2 * np.exp(-0.5 * square / ERROR_REACH_MM**2)


def _error_of(middles: np.ndarray, targets: np.ndarray, blur: np.ndarray, pairs: list[tuple[int, int]]) -> _Error:
    i, j = np.array(pairs, dtype=int).reshape(-1, 2).T
    return _Error(middles[i], targets[j] - middles[i], blur[i, j])


def _costs(middles: np.ndarray, targets: np.ndarray, blur: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Half the squared distance of each (i, j) in standard deviations; a lesion's own pair says nothing about it."""
    error = _error_of(middles, targets, blur, pairs)
    expected, spread = error.mean(middles), error.spread(middles)
    for index, (i, j) in enumerate(pairs):
        mean, total = error.without(index)
        expected[i], spread[i] = mean, np.sqrt(max(total**2 - blur[i, j] ** 2, 0.0))
    way = targets[None] - (middles + expected)[:, None]
    return 0.5 * (way**2).sum(axis=-1) / (spread[:, None] ** 2 + blur**2)


def _assigned(costs: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j) of the cheapest assignment in which a lesion may also stay alone."""
    rows, columns = costs.shape
    wide = np.full((rows + columns, rows + columns), 0.0)
    wide[:rows, :columns] = costs
    wide[:rows, columns:] = np.where(np.eye(rows, dtype=bool), UNMATCHED_COST / 2, 1e6)
    wide[rows:, :columns] = np.where(np.eye(columns, dtype=bool), UNMATCHED_COST / 2, 1e6)
    found = zip(*linear_sum_assignment(wide), strict=True)
    return [(int(i), int(j)) for i, j in found if i < rows and j < columns]


def _groups(
    before: Sequence[Body],
    after: Sequence[Body],
    carried: Sequence[np.ndarray],
    error: _Error,
    pairs: list[tuple[int, int]],
    costs: np.ndarray,
) -> list[Group]:
    """Pairs, with pieces and merged lesions joined to them."""
    expected = [_without_own(points, error, pairs, i) for i, points in enumerate(carried)]
    clouds = [points + mean for points, (mean, _) in zip(carried, expected, strict=True)]
    loose = np.array([spread for _, spread in expected])
    ours, theirs = {i for i, _ in pairs}, {j for _, j in pairs}
    links = set(pairs)
    here = [_Cloud(points, body, spread) for points, body, spread in zip(clouds, before, loose, strict=True)]
    there = [_Cloud(body.points, body, 0.0) for body in after]
    links |= _joined(here, there, dict(pairs), set(range(len(after))) - theirs)
    backward = _joined(there, here, {j: i for i, j in pairs}, set(range(len(before))) - ours)
    links |= {(i, j) for j, i in backward}
    groups = []
    for members, others in _connected(links, len(before), len(after)):
        sure, distance = True, 0.0
        if members and others:
            one = _common_middle([here[i] for i in members])
            distance = float(np.linalg.norm(one - _common_middle([there[j] for j in others])))
        if len(members) == 1 and len(others) == 1:
            sure = _is_sure(members[0], others[0], costs)
        labels = tuple(before[i].label for i in members), tuple(after[j].label for j in others)
        groups.append(Group(*labels, sure=sure, distance_mm=distance))
    return groups


def _without_own(
    points: np.ndarray, error: _Error, pairs: list[tuple[int, int]], lesion: int
) -> tuple[np.ndarray, float]:
    """The error at a lesion, (3,), and its standard deviation, as the other lesions tell it."""
    own = next((index for index, (i, _) in enumerate(pairs) if i == lesion), None)
    if own is None:
        middle = points.mean(axis=0)[None]
        return error.mean(middle)[0], float(error.spread(middle)[0])
    mean, total = error.without(own)
    return mean, float(np.sqrt(max(total**2 - error.blur[own] ** 2, 0.0)))


@dataclass(frozen=True, eq=False)
class _Cloud:
    """A lesion in the later study: its points, and how far they may be off, in mm per axis."""

    points: np.ndarray
    body: Body
    spread_mm: float

    @property
    def middle(self) -> np.ndarray:
        return self.points.mean(axis=0)


def _common_middle(clouds: Sequence[_Cloud]) -> np.ndarray:
    return np.average([c.middle for c in clouds], axis=0, weights=[c.body.volume_ml for c in clouds])


def _is_sure(i: int, j: int, costs: np.ndarray) -> bool:
    if costs[i, j] > SURE_COST:
        return False
    rivals = np.concatenate([np.delete(costs[i], j), np.delete(costs[:, j], i)])
    return not rivals.size or bool(rivals.min() > costs[i, j] + SURE_MARGIN)


def _joined(
    wholes: Sequence[_Cloud], parts: Sequence[_Cloud], partner: dict[int, int], free: set[int]
) -> set[tuple[int, int]]:
    """(whole, part) for every part that has no partner and lies where a whole of the other study was or is.

    Args:
        wholes: lesions that may be made of several of the other study.
        parts: lesions of the other study.
        partner: the part that each whole is paired with, where there is one.
        free: parts without a partner.
    """
    offers = []
    for index, whole in enumerate(wholes):
        near = [n for n in sorted(free) if _is_near(whole, parts[n])]
        own = [partner[index]] if index in partner else []
        for share, n in _parts_of(whole, parts, own, near):
            offers.append((-share, n, index))
    found, given = set(), set()
    for _, n, index in sorted(offers):
        if n not in given:
            given.add(n)
            found.add((index, n))
    return found


def _is_near(whole: _Cloud, part: _Cloud) -> bool:
    reach = whole.body.radius_mm + part.body.radius_mm + 3 * (whole.spread_mm + part.spread_mm) + 5
    return bool(np.linalg.norm(whole.middle - part.middle) < 1.5 * reach)


def _parts_of(whole: _Cloud, parts: Sequence[_Cloud], own: list[int], near: list[int]) -> list[tuple[float, int]]:
    """(share, part) of those in ``near`` that lie inside the whole, together with its own partner.

    Where they belong together, their common middle is that of the whole: it is moved there, as far as its uncertainty
    allows, before one looks what lies inside it.
    """
    tree = cKDTree(whole.points)
    members, found = list(own), []
    while near:
        best = (0.0, -1)
        for n in near:
            together = [parts[m] for m in (*members, n)]
            if sum(c.body.volume_ml for c in together) > MOST_TOGETHER * whole.body.volume_ml:
                continue
            way = _common_middle(together) - whole.middle
            blur = np.hypot(whole.spread_mm, max(c.spread_mm for c in together)) ** 2
            blur = blur + (MIDDLE_MM + 0.15 * whole.body.radius_mm) ** 2
            if 0.5 * (way @ way) / blur > UNMATCHED_COST:
                continue
            shares = [_share_inside(tree, c.points - way, whole.body.reach_mm) for c in together]
            if min(shares) > best[0]:
                best = (min(shares), n)
        if best[0] < PIECE_SHARE:
            break
        found.append(best)
        members.append(best[1])
        near = [n for n in near if n != best[1]]
    return found


def _share_inside(tree: cKDTree, points: np.ndarray, reach_mm: float) -> float:
    return float((tree.query(points)[0] <= reach_mm + PIECE_REACH_MM).mean())


def _connected(links: set[tuple[int, int]], rows: int, columns: int) -> list[tuple[list[int], list[int]]]:
    """Connected parts of the graph of links, those with earlier lesions first."""
    parts, seen = [], set()
    for start in [(0, i) for i in range(rows)] + [(1, j) for j in range(columns)]:
        if start in seen:
            continue
        waiting, part = [start], {start}
        while waiting:
            side, index = waiting.pop()
            near = {(1 - side, link[1 - side]) for link in links if link[side] == index} - part
            part |= near
            waiting += near
        seen |= part
        parts.append((sorted(n for side, n in part if side == 0), sorted(n for side, n in part if side == 1)))
    return parts


def _refined(deformation: Deformation, error: _Error) -> Deformation:
    """The deformation with the expected error added."""
    if not len(error.places):
        return deformation
    grid = deformation.grid
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    moved = grid.to_ras(np.stack([i, j, k], axis=-1)) + deformation.displacement
    flat = moved.reshape(-1, 3)
    added = np.concatenate([error.mean(flat[n : n + 20000]) for n in range(0, len(flat), 20000)])
    return Deformation(grid, (deformation.displacement + added.reshape(moved.shape)).astype(np.float32))


class _Cover:
    """Whether the other study shows the place of a lesion."""

    def __init__(self, before, after, corrected, deformation: Deformation, before_grid: Grid, after_grid: Grid):
        self._before = {body.label: points for body, points in zip(before, corrected, strict=True)}
        self._after = {body.label: body.points for body in after}
        self._deformation = deformation
        self._grids = before_grid, after_grid

    def told(self, group: Group) -> Group:
        """``group``, which knows whether it is covered."""
        if group.before and group.after:
            return group
        if group.before:
            shares = [_share_in(self._grids[1], self._before[label]) for label in group.before]
        else:
            shares = [
                _share_in(self._grids[0], self._deformation.invert(self._after[label][::4])) for label in group.after
            ]
        return Group(group.before, group.after, min(shares) >= COVERED_SHARE, group.sure, group.distance_mm)


def _share_in(grid: Grid, ras: np.ndarray) -> float:
    ijk = grid.to_ijk(ras)
    inside = (ijk >= -0.5) & (ijk <= np.array(grid.size) - 0.5)
    return float(inside.all(axis=-1).mean())
