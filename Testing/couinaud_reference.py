"""What is known about Couinaud's landmarks in real cases: from organ label maps, and from masks of vessels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.lesions.couinaud_landmarks import FISSURE, GALLBLADDER, IVC, MHV, PORTAL, RHV, Point
from LiverCascadeLib.lesions.couinaud_planes import LiverDivider, Plane, Planes, Voxels
from LiverCascadeLib.volume import read_volume
from LiverCascadeTrainingLib.cases import unpacked
from scipy import ndimage, sparse, spatial

GALLBLADDER_LABEL, LIVER_LABEL, CAVA_LABEL, PORTAL_LABEL = 4, 6, 9, 10
SPACING_MM = 2.0
_THIN_MM = 1.5
_RIGHT, _ANTERIOR, _UP = np.eye(3)


@dataclass(frozen=True, eq=False)
class OrganCase:
    """A liver with landmarks from the organs around it.

    Attributes:
        liver: bool [k, j, i].
        landmarks: by the keys of the landmark kinds, RAS mm; what the labels do not show is missing.
    """

    name: str
    grid: Grid
    liver: np.ndarray
    landmarks: dict[str, Point]

    @property
    def center(self) -> np.ndarray:
        """Centroid of the liver, RAS mm."""
        return _ras(self.liver, self.grid).mean(axis=0)


def organ_cases(folder: Path) -> list[OrganCase]:
    """The label maps of BTCV (2 mm; the header's affine lacks the flip of the first axis)."""
    cases = []
    for path in sorted(folder.glob("*.nii.gz")):
        labels = np.asanyarray(nibabel.load(path).dataobj).astype(np.uint8).transpose(2, 1, 0)
        grid = Grid(labels.shape[::-1], np.diag([-SPACING_MM, SPACING_MM, SPACING_MM, 1.0]))
        parts, _ = ndimage.label(labels == LIVER_LABEL)
        liver = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
        around = Box.around(liver).grown(15, grid.size)
        labels, liver, grid = labels[around.slices], np.ascontiguousarray(liver[around.slices]), grid.crop(around)
        cases.append(OrganCase(path.name[:4], grid, liver, _landmarks(labels, liver, grid)))
    return cases


def _landmarks(labels: np.ndarray, liver: np.ndarray, grid: Grid) -> dict[str, Point]:
    found: dict[str, np.ndarray] = {}
    distance = ndimage.distance_transform_edt(~liver, sampling=grid.spacing[::-1])
    cava_mask = labels == CAVA_LABEL
    cava, beside = _ras(cava_mask, grid), _ras(cava_mask & (distance < 5), grid)
    # The mouth of the hepatic veins: a centimeter below where the vena cava leaves the liver.
    mouth = beside[:, 2].max() - 10
    found[IVC] = cava[np.abs(cava[:, 2] - mouth) < 5].mean(axis=0)
    gallbladder = labels == GALLBLADDER_LABEL
    bed = liver & ndimage.binary_dilation(gallbladder, iterations=3)
    if np.count_nonzero(bed) > 20:
        found[GALLBLADDER] = _ras(bed, grid).mean(axis=0)
    portal = labels == PORTAL_LABEL
    near = _ras(portal & (distance < 10), grid)
    # The umbilical portion is the highest end of the portal system, in front of the vena cava. Some maps end before.
    top = near[near[:, 2] >= np.quantile(near[:, 2], 0.9)].mean(axis=0)
    if top[1] > found[IVC][1] + 30:
        found[FISSURE] = top
    # The trunk is thick; it divides where it is highest.
    width = ndimage.distance_transform_edt(portal, sampling=grid.spacing[::-1])
    trunk = portal & (distance < 15)
    trunk &= width >= 0.6 * width[trunk].max()
    trunk = _ras(trunk, grid)
    trunk = trunk[trunk[:, 0] > found[IVC][0] - 5]
    found[PORTAL] = trunk[trunk[:, 2] >= np.quantile(trunk[:, 2], 0.7)].mean(axis=0)
    return {key: tuple(float(n) for n in place) for key, place in found.items()}


def _ras(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Positions (n, 3) of the voxels of a mask, mm."""
    return grid.to_ras(np.argwhere(mask)[:, ::-1])


@dataclass(frozen=True, eq=False)
class VesselCase:
    """A liver with planes through its segmented vessels.

    Attributes:
        liver: bool [k, j, i], lesions included.
        lesions: bool [k, j, i] each.
        planes: the textbook planes, each through all points of its vessels.
        strict: the same with one portal plane, at the height of the bifurcation, for the left liver too.
        landmark_sets: what a reader might place, by a title.
    """

    grid: Grid
    liver: np.ndarray
    lesions: list[np.ndarray]
    planes: Planes
    strict: Planes
    landmark_sets: dict[str, dict[str, list[Point]]]

    def divided(self, planes: Planes) -> np.ndarray:
        """Segments [k, j, i] by given planes, IVa and IVb told apart."""
        values = np.zeros(self.grid.shape, np.uint8)
        values[self.liver] = Voxels.of(self.liver, self.grid).divided(planes, True)
        return values


def vessel_case(folder: Path) -> VesselCase:
    """The case of 3D-IRCADb in ``folder``.

    * Hepatic veins are 'venoussystem' near the liver without the vena cava, which is what an opening by 6 mm leaves.
      Of the two largest parts the one farther to the right is the right hepatic vein, the other one the common trunk
      of the middle and the left one.
    * A vein's main stem is the cheapest way through its middle, from where it is closest to the vena cava to its
      lowest tip: the middle hepatic vein runs down toward the gallbladder, the right one toward the liver's tip.
    * Of 'portalvein', the ways from the trunk to the rightmost and to the leftmost tip within the liver part at the
      bifurcation. The umbilical portion is the highest place on the left way where the vein is still 8 mm wide.
    """
    with unpacked(folder / "PATIENT_DICOM.zip") as path:
        grid = read_volume(path).grid
    masks = {}
    with unpacked(folder / "MASKS_DICOM.zip") as path:
        for mask in path.rglob("*"):
            if mask.is_dir() and not any(inner.is_dir() for inner in mask.iterdir()):
                masks[mask.name] = read_volume(mask).array > 0
    lesions = [mask for name, mask in sorted(masks.items()) if name.startswith("livertumor")]
    liver = np.logical_or.reduce([masks["liver"], *lesions])
    vessels = _Vessels.of(liver, grid)
    cava = vessels.opened(vessels.thinned(masks["venoussystem"]), 6.0)
    beside = cava & (vessels.distance < 8)
    veins = vessels.thinned(masks["venoussystem"]) & ~vessels.grown(cava, 4.5) & (vessels.distance < 8)
    parts, count = ndimage.label(veins, np.ones((3, 3, 3)))
    largest = 1 + np.argsort(-np.bincount(parts.ravel(), minlength=count + 1)[1:])[:2]
    right, common = sorted((parts == n for n in largest), key=lambda tree: -vessels.ras(tree)[:, 0].mean())
    cava_points = vessels.ras(beside)
    right, common = (vessels.tree(tree, cava_points).way(-_UP) for tree in (right, common))
    mouth = max(right[0][2], common[0][2])
    middle_of_cava = cava_points[np.abs(cava_points[:, 2] - mouth) < 4].mean(axis=0)
    axis = cava_points[(cava_points[:, 2] < mouth + 4) & (cava_points[:, 2] > mouth - 60)]

    portal = vessels.thinned(masks["portalvein"]) & (vessels.distance < 25)
    width = ndimage.distance_transform_edt(portal, sampling=_THIN_MM)
    wide = vessels.ras(portal & (width > 0.8 * width.max()))
    trunk = wide[wide[:, 2].argmin()][None]
    tree = vessels.tree(portal, trunk)
    rightward, leftward = tree.way(_RIGHT), tree.way(-_RIGHT)
    shared = min(len(rightward), len(leftward))
    bifurcation = leftward[:shared][(leftward[:shared] == rightward[:shared]).all(axis=1)][-1]
    wide_left = leftward[tree.widths(leftward) >= 4.0]
    umbilical = wide_left[wide_left[:, 2].argmax()]

    middle = _through(np.vstack([common, axis[:: len(axis) // len(common) + 1]]), _UP)
    planes = LiverDivider(grid, liver).planes({IVC: [middle_of_cava], PORTAL: [bifurcation], FISSURE: [umbilical]})
    level = Plane(_UP, float(bifurcation[2]))
    exact = Planes(
        middle=middle,
        right=_through(np.vstack([right, axis[:: len(axis) // len(right) + 1]]), _UP),
        left=_through(np.vstack([umbilical, axis[:: max(1, len(axis) // 40)]]), _UP),
        portal=level,
        left_portal=Plane(_UP, float(umbilical[2])),
        caudate=planes.caudate,
    )
    sets = _landmark_sets(middle_of_cava, common, right, bifurcation, umbilical)
    return VesselCase(grid, liver, lesions, exact, replace(exact, left_portal=level), sets)


def _landmark_sets(cava, common, right, bifurcation, umbilical) -> dict[str, dict[str, list[Point]]]:
    """What a reader might place: one point in each vein 35 mm from its mouth, or three from 15 to 55 mm."""

    def along(way: np.ndarray, *lengths: float) -> list[Point]:
        walked = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
        return [tuple(way[np.abs(walked - length).argmin()]) for length in lengths]

    fixed = {IVC: [tuple(cava)], PORTAL: [tuple(bifurcation)], FISSURE: [tuple(umbilical)]}
    return {
        "middle hepatic vein only": {MHV: along(common, 35)},
        "vena cava and portal bifurcation": {key: fixed[key] for key in (IVC, PORTAL)},
        "one point each": {**fixed, MHV: along(common, 35), RHV: along(right, 35)},
        "three points in each vein": {**fixed, MHV: along(common, 15, 35, 55), RHV: along(right, 15, 35, 55)},
    }


def _through(points: np.ndarray, upright: np.ndarray) -> Plane:
    """The plane with the least squared distances, positive toward the patient's left or front."""
    center = points.mean(axis=0)
    normal = np.linalg.svd(points - center, full_matrices=False)[2][2]
    outward = np.cross(normal, upright)
    # The liver's veins run to the front or to the right of the vena cava.
    normal *= np.sign(outward @ (_RIGHT + _ANTERIOR)) or 1.0
    return Plane(normal, float(normal @ center))


@dataclass(frozen=True, eq=False)
class _Tree:
    """A vessel as a graph of voxels; ways keep to its middle, where it is wide."""

    ras: np.ndarray
    width: np.ndarray
    before: np.ndarray
    start: int
    reached: np.ndarray

    def way(self, toward: np.ndarray) -> np.ndarray:
        """Positions (n, 3) from the start to the voxel that lies farthest in a direction."""
        heights = np.where(self.reached, self.ras @ toward, -np.inf)
        steps = [int(heights.argmax())]
        while steps[-1] != self.start:
            steps.append(int(self.before[steps[-1]]))
        return self.ras[steps[::-1]]

    def widths(self, way: np.ndarray) -> np.ndarray:
        """Distance to the wall, mm, at positions of a way."""
        return self.width[[int(np.abs(self.ras - place).sum(axis=1).argmin()) for place in way]]


@dataclass(frozen=True, eq=False)
class _Vessels:
    """Masks around a liver on voxels of 1.5 mm: the distance to the liver, and morphology in mm."""

    source: Grid
    grid: Grid
    distance: np.ndarray

    @classmethod
    def of(cls, liver: np.ndarray, source: Grid) -> _Vessels:
        box = Box.around(liver)
        size = np.ceil(np.array(box.size) * source.spacing / _THIN_MM + 40).astype(int)
        matrix = source.ijk_to_ras.copy()
        matrix[:3, :3] *= _THIN_MM / source.spacing
        matrix[:3, 3] = source.to_ras(box.start) - matrix[:3, :3] @ np.full(3, 20.0)
        vessels = cls(source, Grid(size, matrix), np.zeros(0))
        return replace(vessels, distance=ndimage.distance_transform_edt(~vessels.thinned(liver), sampling=_THIN_MM))

    def thinned(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the source at the nearest voxels."""
        matrix = np.linalg.inv(self.source.ijk_to_ras) @ self.grid.ijk_to_ras
        order = [2, 1, 0]
        return (
            ndimage.affine_transform(
                mask.astype(np.uint8),
                matrix[:3, :3][np.ix_(order, order)],
                matrix[:3, 3][order],
                self.grid.shape,
                order=0,
            )
            > 0
        )

    def grown(self, mask: np.ndarray, mm: float) -> np.ndarray:
        return ndimage.distance_transform_edt(~mask, sampling=_THIN_MM) <= mm

    def opened(self, mask: np.ndarray, mm: float) -> np.ndarray:
        return self.grown(ndimage.distance_transform_edt(mask, sampling=_THIN_MM) > mm, mm) & mask

    def ras(self, mask: np.ndarray) -> np.ndarray:
        return _ras(mask, self.grid)

    def tree(self, mask: np.ndarray, start: np.ndarray) -> _Tree:
        """The part of ``mask`` that hangs together with its voxel nearest to the points ``start``."""
        voxels = np.argwhere(mask)
        ras = self.grid.to_ras(voxels[:, ::-1])
        width = ndimage.distance_transform_edt(mask, sampling=_THIN_MM)[tuple(voxels.T)]
        numbers = np.full(mask.shape, -1)
        numbers[tuple(voxels.T)] = np.arange(len(voxels))
        steps = [s for s in np.ndindex(3, 3, 3) if s > (1, 1, 1)]
        rows, columns, costs = [], [], []
        padded = np.pad(numbers, 1, constant_values=-1)
        for step in steps:
            neighbor = padded[tuple((voxels + np.array(step)).T)]
            one = np.flatnonzero(neighbor >= 0)
            other = neighbor[one]
            rows.append(one)
            columns.append(other)
            length = np.linalg.norm(np.array(step) - 1) * _THIN_MM
            costs.append(length / np.minimum(width[one], width[other]) ** 2)
        values = np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))
        graph = sparse.csr_matrix(values, shape=(len(voxels),) * 2)
        first = int(spatial.cKDTree(start).query(ras)[0].argmin())
        reach, before = sparse.csgraph.dijkstra(graph, directed=False, indices=first, return_predecessors=True)
        return _Tree(ras, width, before, first, np.isfinite(reach))
