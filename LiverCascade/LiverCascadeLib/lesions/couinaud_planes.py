"""Couinaud's segments by textbook planes: through landmarks that a reader placed, or estimated from the liver's shape.

Directions: azimuths run around the inferior vena cava in the patient's axial plane, from right (0) over anterior
(90°) to left (180°). Seen this way the hepatic veins come in the order right, middle, left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import Box, Grid
from .couinaud import CouinaudMap
from .couinaud_landmarks import BY_KEY, FISSURE, GALLBLADDER, IVC, MHV, PORTAL, RHV, Point, check
from .couinaud_prior import LIVERS, OFFSETS, SPREADS

PREVIEW_MM = 3.0
SAMPLE_MM = 4.0
# What a reader's click is worth, against SPREADS; and how far a plane leans from the vertical, as a tangent.
PLACED_MM = 3.0
USUAL_LEAN = 0.36
# VI and VII as a part of the right liver, where the right hepatic vein is not known: a convention. Medians of 107
# livers put VIII (26 % of the liver) before VII, and V before VI (PubMed 24033584).
POSTERIOR_PART = 0.40
LEAST_WEDGE = np.deg2rad(15.0)
# The caudate's borders, from the vena cava's middle and the portal bifurcation: see docs/decisions/0008.
CAUDATE_LEFT_MM, CAUDATE_TOP_MM, CAUDATE_RIGHT_MM, CAUDATE_BELOW_MM = 40.0, 22.0, 8.0, 30.0
CAVA_RADIUS_MM, PORTAL_RADIUS_MM = 11.0, 5.0

_RIGHT, _ANTERIOR, _UP = np.eye(3)


@dataclass(frozen=True, eq=False)
class Plane:
    """Points x with ``normal`` · x = ``offset``, RAS mm; the normal has length 1."""

    normal: np.ndarray
    offset: float

    def distance(self, ras: np.ndarray) -> np.ndarray:
        """Signed distances in mm of points (…, 3); positive where the normal points to."""
        return np.asarray(ras) @ self.normal - self.offset


@dataclass(frozen=True, eq=False)
class Planes:
    """What divides a liver.

    Attributes:
        middle: left and right liver; positive on the left.
        right: V and VIII from VI and VII; positive in front.
        left: II and III from IV; positive on the left.
        portal: VII and VIII from VI and V; positive above.
        left_portal: II and IVa from III and IVb; positive above. Parallel to ``portal``, through the umbilical
            portion, to which the left portal vein climbs.
        caudate: segment I is positive for all of them.
    """

    middle: Plane
    right: Plane
    left: Plane
    portal: Plane
    left_portal: Plane
    caudate: tuple[Plane, ...]


@dataclass(frozen=True, eq=False)
class Points:
    """Points that are known with different certainty.

    Attributes:
        ras: (n, 3), mm, n ≥ 1.
        spreads: (n,), standard deviation of each point in mm.
    """

    ras: np.ndarray
    spreads: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Weighted by certainty."""
        weights = 1 / self.spreads**2
        return weights @ self.ras / weights.sum()


def _fitted(points: Points, normal: np.ndarray, along: tuple[np.ndarray, np.ndarray]) -> Plane:
    """The plane near a usual one that fits points best.

    A linear regression of the height above the usual plane on two directions in it. The slopes are held near zero with
    the weight of :data:`USUAL_LEAN`, so that one point moves the plane, and only well spread points tilt it.

    Args:
        normal, along: an orthonormal frame; ``normal`` is that of the usual plane.
    """
    center = points.mean
    arms = (points.ras - center) @ np.stack(along, axis=1)
    weighted = arms.T / points.spreads**2
    matrix = weighted @ arms + np.eye(2) / USUAL_LEAN**2
    slopes = np.linalg.solve(matrix, weighted @ ((points.ras - center) @ normal))
    tilted = normal - slopes[0] * along[0] - slopes[1] * along[1]
    tilted /= np.linalg.norm(tilted)
    return Plane(tilted, float(tilted @ center))


def _upright(cava: Points, outward: Points) -> Plane:
    """A nearly upright plane from the vena cava outward, positive toward higher azimuths."""
    direction = _azimuth_direction(_azimuth(outward.mean - cava.mean))
    points = Points(np.vstack([cava.ras, outward.ras]), np.concatenate([cava.spreads, outward.spreads]))
    return _fitted(points, np.cross(_UP, direction), (direction, _UP))


def _azimuth(offset: np.ndarray) -> float:
    return float(np.arctan2(offset[1], offset[0]))


def _azimuth_direction(azimuth: float) -> np.ndarray:
    return np.array([np.cos(azimuth), np.sin(azimuth), 0.0])


def _turn(azimuth: float, start: float) -> float:
    """How far ``azimuth`` lies beyond ``start``, in -π…π."""
    return float((azimuth - start + np.pi) % (2 * np.pi) - np.pi)


class LiverDivider:
    """Divides one liver, as often as landmarks move.

    Args:
        grid: where voxels lie in the patient.
        labels: [k, j, i]; everything that is not zero is liver, lesions included.

    Raises:
        InputError: there is no liver.
        ValueError: the labels do not lie on the grid.
    """

    def __init__(self, grid: Grid, labels: np.ndarray):
        if labels.shape != grid.shape:
            raise ValueError(f"The labels have shape {labels.shape}, but their grid says {grid.shape}.")
        liver = labels != 0
        box = Box.around(liver)
        if box is None:
            raise InputError("There is no liver to divide into segments. Segment the liver first.")
        self.grid, self._box = grid, box
        self._liver = liver[box.slices]
        self._voxels = Voxels.of(self._liver, grid.crop(box))
        sample, sample_grid = _thinned(self._liver, grid.crop(box), SAMPLE_MM)
        self._sample = Voxels.of(sample, sample_grid).ras()
        corners = self._sample.min(axis=0), self._sample.max(axis=0)
        self._low, self._high = corners
        self._center = self._sample.mean(axis=0)
        self._is_cut = any(a == 0 or b == n for a, b, n in zip(box.start, box.stop, grid.size, strict=True))

    def estimates(self) -> dict[str, Point]:
        """Where landmarks lie in a mean liver, by their keys, RAS mm: one point for each of them.

        The veins lie on the planes that are estimated for them, halfway to the liver's border.
        """
        places = {key: self._center + np.array(offset) for key, offset in OFFSETS.items()}
        planes = self.planes({})
        cava = places[IVC]
        reach = 0.35 * float(self._high[0] - cava[0])
        for key, plane in ((MHV, planes.middle), (RHV, planes.right)):
            places[key] = cava + max(reach, 20.0) * np.cross(plane.normal, _UP) - 20.0 * _UP
        return {key: tuple(float(n) for n in place) for key, place in places.items()}

    def planes(self, landmarks: Mapping[str, Sequence[Point]]) -> Planes:
        """The planes through landmarks, and through estimates where there are none.

        Raises:
            InputError: see :func:`.couinaud_landmarks.check`; or landmarks are in an impossible order.
        """
        placed = check(landmarks, self._low, self._high)
        points = self._settled(placed)
        cava = points[IVC]
        middle = _upright(cava, self._middle_points(points))
        azimuth = _azimuth(np.cross(middle.normal, _UP))
        portal = _fitted(points[PORTAL], _UP, (_RIGHT, _ANTERIOR))
        caudate = _caudate(cava.ras[cava.ras[:, 2].argmax()], points[PORTAL].mean)
        if FISSURE in placed:
            _check_order(FISSURE, points, azimuth, +1, placed)
            fissure = points[FISSURE]
        else:
            fissure = _giving_way(points[FISSURE], cava.mean, azimuth)
        if RHV in placed:
            _check_order(RHV, points, azimuth, -1, placed)
            right = _upright(cava, points[RHV])
        else:
            right = self._assumed_right(cava.mean, azimuth, middle, caudate)
        left_portal = Plane(portal.normal, self._left_height(portal, points, placed))
        return Planes(middle, right, _upright(cava, fissure), portal, left_portal, caudate)

    def divide(self, landmarks: Mapping[str, Sequence[Point]] | None = None) -> CouinaudMap:
        """The segments on the grid of the labels.

        Args:
            landmarks: points by the keys of :data:`.couinaud_landmarks.KINDS`, RAS mm; each kind may have several.

        Raises:
            InputError: see :meth:`planes`.
        """
        landmarks = landmarks or {}
        values = self._voxels.divided(self.planes(landmarks), self._has(landmarks, PORTAL))
        labels = np.zeros(self.grid.shape, np.uint8)
        labels[self._box.slices][self._liver] = values
        return self._described(labels, landmarks)

    def preview(self, landmarks: Mapping[str, Sequence[Point]] | None = None) -> tuple[CouinaudMap, Grid]:
        """The segments on a grid of about 3 mm, of a part of the voxels: fast enough to follow a mouse.

        Raises:
            InputError: see :meth:`planes`.
        """
        landmarks = landmarks or {}
        liver, grid = _thinned(self._liver, self.grid.crop(self._box), PREVIEW_MM)
        values = Voxels.of(liver, grid).divided(self.planes(landmarks), self._has(landmarks, PORTAL))
        labels = np.zeros(grid.shape, np.uint8)
        labels[liver] = values
        return self._described(labels, landmarks), grid

    def _has(self, landmarks: Mapping[str, Sequence[Point]], key: str) -> bool:
        return len(landmarks.get(key, ())) > 0

    def _settled(self, placed: dict[str, np.ndarray]) -> dict[str, Points]:
        """What was placed, and estimates of the rest."""
        found = {key: Points(ras, np.full(len(ras), PLACED_MM)) for key, ras in placed.items()}
        for key, offset in OFFSETS.items():
            if key not in placed:
                found[key] = Points((self._center + np.array(offset))[None], np.array([SPREADS[key]]))
        return found

    @staticmethod
    def _middle_points(points: dict[str, Points]) -> Points:
        """What Cantlie's plane runs through besides the vena cava."""
        used = [points[key] for key in (MHV, GALLBLADDER) if key in points]
        return Points(np.vstack([p.ras for p in used]), np.concatenate([p.spreads for p in used]))

    @staticmethod
    def _left_height(portal: Plane, points: dict[str, Points], placed: Mapping[str, object]) -> float:
        """The left portal vein climbs before it divides: how high, along the normal of the portal plane."""
        if FISSURE in placed:
            return float((points[FISSURE].ras @ portal.normal).max())
        return portal.offset + float(portal.normal[2]) * (OFFSETS[FISSURE][2] - OFFSETS[PORTAL][2])

    def _assumed_right(self, cava, azimuth: float, middle: Plane, caudate: tuple[Plane, ...]) -> Plane:
        """An upright plane from the vena cava that leaves :data:`POSTERIOR_PART` of the right liver behind it."""
        sample = self._sample
        inside = (middle.distance(sample) <= 0) & ~_all_positive(caudate, sample)
        turn = np.deg2rad(60.0)
        if np.count_nonzero(inside) > 20:
            offset = sample[inside] - cava
            behind = np.mod(azimuth - np.arctan2(offset[:, 1], offset[:, 0]), 2 * np.pi)
            turn = float(np.quantile(behind, 1 - POSTERIOR_PART))
        direction = _azimuth_direction(azimuth - turn)
        normal = np.cross(_UP, direction)
        return Plane(normal, float(normal @ cava))

    def _described(self, labels: np.ndarray, landmarks: Mapping[str, Sequence[Point]]) -> CouinaudMap:
        placed = [key for key in BY_KEY if self._has(landmarks, key)]
        return CouinaudMap(
            labels, "landmarks" if placed else "estimate", _method(placed), _limitations(placed, self._is_cut)
        )


def couinaud_for(
    grid: Grid, labels: np.ndarray, landmarks: Mapping[str, Sequence[Point]] | None = None
) -> CouinaudMap:
    """Couinaud's segments of a liver by textbook planes.

    Args:
        grid: where voxels lie in the patient.
        labels: [k, j, i]; everything that is not zero is liver, lesions included.
        landmarks: points by the keys of :data:`.couinaud_landmarks.KINDS`, RAS mm; what is missing is estimated.

    Raises:
        InputError: there is no liver, or landmarks that cannot be used.
        ValueError: the labels do not lie on the grid.
    """
    return LiverDivider(grid, labels).divide(landmarks)


class Voxels:
    """The voxels of a mask as lists of indices."""

    def __init__(self, indices: tuple[np.ndarray, np.ndarray, np.ndarray], grid: Grid):
        self._kji, self._grid = indices, grid

    @classmethod
    def of(cls, mask: np.ndarray, grid: Grid) -> Voxels:
        """Those that are true in ``mask`` [k, j, i]."""
        return cls(tuple(index.astype(np.float32) for index in np.nonzero(mask)), grid)

    def ras(self) -> np.ndarray:
        """Positions (n, 3), mm."""
        return self._grid.to_ras(np.stack(self._kji[::-1], axis=1))

    def side(self, plane: Plane) -> np.ndarray:
        """Whether each voxel lies on the positive side of ``plane``."""
        i, j, k = plane.normal @ self._grid.ijk_to_ras[:3, :3]
        start = plane.offset - plane.normal @ self._grid.ijk_to_ras[:3, 3]
        height = self._kji[0] * np.float32(k)
        height += self._kji[1] * np.float32(j)
        height += self._kji[2] * np.float32(i)
        return height > np.float32(start)

    def divided(self, planes: Planes, with_halves: bool) -> np.ndarray:
        """Segment values (n,) uint8; IVa and IVb instead of IV where wanted."""
        left = self.side(planes.middle)
        up = np.where(left, self.side(planes.left_portal), self.side(planes.portal))
        front, lateral = self.side(planes.right), self.side(planes.left)
        table = np.empty((2, 2, 2, 2), np.uint8)  # left, lateral, front, up
        table[0, :, 0], table[0, :, 1] = (6, 7), (5, 8)
        table[1, 0], table[1, 1] = (10, 9) if with_halves else (4, 4), (3, 2)
        code = left.view(np.uint8) << 3 | lateral.view(np.uint8) << 2 | front.view(np.uint8) << 1 | up.view(np.uint8)
        values = table.ravel()[code]
        caudate = self.side(planes.caudate[0])
        for plane in planes.caudate[1:]:
            caudate &= self.side(plane)
        values[caudate] = 1
        return values


def _thinned(mask: np.ndarray, grid: Grid, spacing_mm: float) -> tuple[np.ndarray, Grid]:
    """Every n-th voxel of a mask along each axis, so that they lie about ``spacing_mm`` apart."""
    steps = np.maximum(1, np.floor(spacing_mm / grid.spacing + 0.25)).astype(int)
    steps = np.minimum(steps, np.maximum(1, np.array(grid.size) // 4))
    first = (steps - 1) // 2
    thin = mask[tuple(slice(int(a), None, int(n)) for a, n in zip(first[::-1], steps[::-1], strict=True))]
    if not thin.any():
        return mask, grid
    matrix = grid.ijk_to_ras.copy()
    matrix[:3, :3] *= steps
    matrix[:3, 3] = grid.to_ras(first)
    return thin, Grid(thin.shape[::-1], matrix)


def _caudate(cava: np.ndarray, portal: np.ndarray) -> tuple[Plane, ...]:
    """Behind the fissure of the venous ligament, from the vena cava to the left, narrower toward the veins' mouth.

    Args:
        cava: its middle where the hepatic veins join it.
        portal: the bifurcation.
    """
    low = portal - PORTAL_RADIUS_MM * _ANTERIOR
    high = cava + CAVA_RADIUS_MM * _ANTERIOR
    rise = high - low
    rise[2] = max(rise[2], 15.0)
    normal = np.cross(rise, _RIGHT)
    normal *= -np.sign(normal[1]) / np.linalg.norm(normal)
    leftmost = np.array([-CAUDATE_LEFT_MM, 0.0, low[2]]) + cava * (1, 1, 0)
    topmost = np.array([-CAUDATE_TOP_MM, 0.0, high[2]]) + cava * (1, 1, 0)
    climb = topmost - leftmost
    climb[2] = rise[2]
    inward = np.cross(_ANTERIOR, climb)
    inward *= np.sign(inward[0]) / np.linalg.norm(inward)
    oblique = (_ANTERIOR - _RIGHT) / np.sqrt(2.0)
    return (
        Plane(normal, float(normal @ low)),
        Plane(inward, float(inward @ leftmost)),
        Plane(oblique, float(oblique @ cava) - CAUDATE_RIGHT_MM),
        Plane(_UP, float(portal[2]) - CAUDATE_BELOW_MM),
        Plane(-_UP, -float(cava[2])),
    )


def _all_positive(planes: Sequence[Plane], ras: np.ndarray) -> np.ndarray:
    return np.all([plane.distance(ras) > 0 for plane in planes], axis=0)


def _giving_way(fissure: Points, cava: np.ndarray, azimuth: float) -> Points:
    """An estimated fissure, turned to the left where the middle plane was placed too close to it."""
    offset = fissure.mean - cava
    if _turn(_azimuth(offset), azimuth) >= LEAST_WEDGE:
        return fissure
    turned = np.linalg.norm(offset[:2]) * _azimuth_direction(azimuth + LEAST_WEDGE) + offset[2] * _UP
    return Points((cava + turned)[None], fissure.spreads)


def _check_order(key: str, points: dict[str, Points], azimuth: float, side: int, placed: Mapping[str, object]) -> None:
    """Refuses a landmark on the wrong side of the middle plane, whose azimuth is given: +1 is left of it, -1 right."""
    if _turn(_azimuth(points[key].mean - points[IVC].mean), azimuth) * side > 0:
        return
    known = " and ".join(f"'{BY_KEY[k].name}'" for k in (MHV, GALLBLADDER, IVC) if k in placed)
    raise InputError(
        f"The landmark '{BY_KEY[key].name}' does not lie on the {'left' if side > 0 else 'right'} of the plane "
        f"between the left and the right liver, which {f'runs through {known}' if known else 'is estimated'}. Check "
        "whether landmarks were swapped, or place the gallbladder fossa or the middle hepatic vein as well."
    )


def _method(placed: Sequence[str]) -> str:
    names = [BY_KEY[key].name.lower() for key in placed]
    if not names:
        return (
            f"Segments estimated from the liver's position and shape alone, by planes through where landmarks lie on "
            f"average in {LIVERS} other livers; no vessel was used."
        )
    lacking = [kind.name.lower() for key, kind in BY_KEY.items() if key not in placed and key != MHV]
    text = f"Segments divided by textbook planes through landmarks that were placed: {', '.join(names)}"
    return f"{text}; estimated from the liver's shape: {', '.join(lacking)}." if lacking else f"{text}."


def _limitations(placed: Sequence[str], is_cut: bool) -> tuple[str, ...]:
    texts = [
        "Segments are divided by planes; the borders of vessel territories are curved and differ from person to "
        "person, so that a lesion close to a border may belong to the neighboring segment.",
        "Segment I (caudate) is an approximation between vena cava, portal vein and the fissure in front of it.",
    ]
    if MHV not in placed and GALLBLADDER not in placed:
        texts.append("The plane between the left and the right liver is estimated.")
    if RHV not in placed:
        texts.append(
            f"The right hepatic vein is not known: {POSTERIOR_PART:.0%} of the right liver are taken as VI and VII."
        )
    if FISSURE not in placed:
        texts.append("The umbilical fissure, which divides II and III from IV, is estimated.")
    if PORTAL not in placed:
        texts.append(
            "The level of the portal bifurcation is estimated: II and III, V and VIII, VI and VII are divided at an "
            "estimated height, and IVa and IVb are not told apart."
        )
    if is_cut:
        texts.append("The liver reaches the border of the scan; segments that are cut look smaller than they are.")
    return tuple(texts)
