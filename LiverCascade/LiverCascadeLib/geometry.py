"""Grids, boxes, and resampling between grids that share their axes.

Conventions, everywhere in the engine:

* Positions are RAS millimetres. LPS appears only where SimpleITK or DICOM is spoken to.
* Voxel indices are written (i, j, k); arrays are indexed ``array[k, j, i]`` as in SimpleITK, VTK and Slicer.
* A voxel index names the voxel's *centre*; the volume extends half a voxel beyond its outer centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """A block of voxels of some grid: ``start`` inclusive, ``stop`` exclusive, both (i, j, k)."""

    start: Triple
    stop: Triple

    @property
    def size(self) -> Triple:
        """Number of voxels along (i, j, k)."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index for an array ``[k, j, i]``."""
        return tuple(slice(a, b) for a, b in zip(self.start[::-1], self.stop[::-1], strict=True))

    def grown(self, voxels: int, size: Triple) -> Box:
        """This box with ``voxels`` more on each side, as far as an array of ``size`` (i, j, k) goes."""
        start = tuple(max(0, n - voxels) for n in self.start)
        return Box(start, tuple(min(n + voxels, most) for n, most in zip(self.stop, size, strict=True)))

    @staticmethod
    def around(mask: np.ndarray) -> Box | None:
        """The smallest box that holds all true voxels of ``mask`` [k, j, i], or None where there are none."""
        ranges = []
        for axis in (2, 1, 0):
            others = tuple(a for a in range(3) if a != axis)
            hits = np.flatnonzero(mask.any(axis=others))
            if hits.size == 0:
                return None
            ranges.append((int(hits[0]), int(hits[-1]) + 1))
        return Box(tuple(r[0] for r in ranges), tuple(r[1] for r in ranges))


class Grid:
    """Where the voxels of a volume lie in the patient.

    Args:
        size: number of voxels along (i, j, k), each at least 1.
        ijk_to_ras: 4×4 affine from homogeneous voxel indices to RAS millimetres.

    Raises:
        ValueError: the size is not positive, or the matrix is not a finite, invertible affine.
    """

    __slots__ = ("ijk_to_ras", "size")

    def __init__(self, size: Sequence[int], ijk_to_ras: np.ndarray):
        self.size: Triple = tuple(int(n) for n in size)
        matrix = np.array(ijk_to_ras, dtype=np.float64)
        if len(self.size) != 3 or min(self.size) < 1:
            raise ValueError(f"A grid needs three positive sizes, found {tuple(size)}.")
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
            raise ValueError("The voxel-to-patient matrix is not a finite 4×4 affine matrix.")
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if (lengths == 0).any():
            raise ValueError(f"The voxel spacing is zero along an axis: {tuple(lengths.round(4))} mm.")
        if abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-3:
            raise ValueError("The direction matrix is singular: two of the volume's axes point the same way.")
        matrix.setflags(write=False)
        self.ijk_to_ras = matrix

    @classmethod
    def from_lps(
        cls, size: Sequence[int], origin: Sequence[float], spacing: Sequence[float], direction: Sequence[float]
    ) -> Grid:
        """The grid of a SimpleITK or DICOM image: LPS ``origin`` in mm, row-major 3×3 ``direction``."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(direction, dtype=np.float64).reshape(3, 3) * np.asarray(spacing, dtype=np.float64)
        matrix[:3, 3] = origin
        return cls(size, LPS_RAS @ matrix)

    def to_lps(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """(origin, spacing, row-major direction) in LPS, as SimpleITK wants them."""
        matrix = LPS_RAS @ self.ijk_to_ras
        direction = matrix[:3, :3] / self.spacing
        return tuple(matrix[:3, 3]), tuple(float(s) for s in self.spacing), tuple(direction.ravel())

    def __repr__(self) -> str:
        return (
            f"Grid(size={self.size}, spacing={tuple(round(float(s), 4) for s in self.spacing)} mm, axes={self.axes})"
        )

    @property
    def shape(self) -> Triple:
        """The shape of an array on this grid: (k, j, i)."""
        return self.size[::-1]

    @property
    def spacing(self) -> np.ndarray:
        """Voxel spacing in mm along (i, j, k)."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3])))

    @property
    def extent_mm(self) -> np.ndarray:
        """Outer edge-to-edge lengths in mm along (i, j, k)."""
        return self.spacing * self.size

    @property
    def axes(self) -> str:
        """Nearest anatomical direction in which i, j and k grow, such as ``'LPS'``."""
        order, signs = self._nearest_axes()
        letters = ("RAS", "LPI")
        return "".join(letters[0 if s > 0 else 1][a] for a, s in zip(order, signs, strict=True))

    def is_close(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """True where both grids have the same size and all corners lie within ``tolerance_mm`` of each other."""
        if self.size != other.size:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.size])).reshape(3, -1).T
        return bool(np.abs(self.to_ras(corners) - other.to_ras(corners)).max() <= tolerance_mm)

    def to_ras(self, ijk: np.ndarray) -> np.ndarray:
        """RAS positions (…, 3) in mm of voxel indices (…, 3), which may be fractional."""
        return np.asarray(ijk, dtype=np.float64) @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]

    def to_ijk(self, ras: np.ndarray) -> np.ndarray:
        """Fractional voxel indices (…, 3) of RAS positions (…, 3) in mm."""
        inverse = np.linalg.inv(self.ijk_to_ras)
        return np.asarray(ras, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]

    def transformed(self, ras_to_ras: np.ndarray) -> Grid:
        """This grid carried along by an affine RAS-to-RAS transform (4×4)."""
        return Grid(self.size, np.asarray(ras_to_ras, dtype=np.float64) @ self.ijk_to_ras)

    def crop(self, box: Box) -> Grid:
        """The grid of ``array[box.slices]``."""
        matrix = self.ijk_to_ras.copy()
        matrix[:3, 3] = self.to_ras(np.array(box.start))
        return Grid(box.size, matrix)

    def _nearest_axes(self) -> tuple[list[int], list[int]]:
        """For i, j, k: the RAS axis that lies nearest, each used once, and the sign of the direction along it."""
        cosines = self.ijk_to_ras[:3, :3] / self.spacing
        remaining = np.abs(cosines)
        order, signs = [0, 0, 0], [1, 1, 1]
        for _ in range(3):
            ras, axis = np.unravel_index(int(np.argmax(remaining)), (3, 3))
            order[axis] = int(ras)
            signs[axis] = 1 if cosines[ras, axis] >= 0 else -1
            remaining[ras, :] = -1
            remaining[:, axis] = -1
        return order, signs

    def canonical(self, spacing: Sequence[float] | None = None) -> Grid:
        """The same block of the patient with axes reordered and flipped to lie nearest to R, A and S.

        Obliquity is kept: only whole axes are swapped or flipped, so that resampling stays separable.

        Args:
            spacing: wanted spacing in mm along (R, A, S). The grid then shares its centre with this one and covers
                its extent to within half a voxel. None keeps the voxels themselves.
        """
        order, signs = self._nearest_axes()
        columns, size, corner = np.zeros((3, 3)), [0, 0, 0], np.zeros(3)
        for axis in range(3):
            ras = order[axis]
            columns[:, ras] = signs[axis] * self.ijk_to_ras[:3, axis]
            size[ras] = self.size[axis]
            corner[axis] = 0 if signs[axis] > 0 else self.size[axis] - 1
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = columns, self.to_ras(corner)
        reordered = Grid(size, matrix)
        if spacing is None:
            return reordered
        old, new = reordered.spacing, np.asarray(spacing, dtype=np.float64)
        size = np.maximum(1, np.round(reordered.extent_mm / new)).astype(int)
        center = reordered.to_ras((np.array(reordered.size) - 1) / 2)
        matrix[:3, :3] = columns / old * new
        matrix[:3, 3] = center - matrix[:3, :3] @ ((size - 1) / 2)
        return Grid(size, matrix)

    def with_size(self, size: Sequence[int]) -> Grid:
        """The same block of the patient, edge to edge, cut into ``size`` voxels along (i, j, k)."""
        matrix = self.ijk_to_ras.copy()
        matrix[:3, :3] *= np.array(self.size) / np.asarray(size)
        matrix[:3, 3] += (matrix[:3, :3] - self.ijk_to_ras[:3, :3]).sum(axis=1) / 2
        return Grid(size, matrix)

    def box_covering(self, box: Box, other: Grid, margin_mm: float = 0.0) -> Box:
        """The box of *this* grid that covers ``box`` of ``other`` with ``margin_mm`` around it, clipped to this grid.

        Raises:
            ValueError: the two do not overlap.
        """
        edges = np.array(np.meshgrid(*zip(np.array(box.start) - 0.5, np.array(box.stop) - 0.5, strict=True)))
        corners = self.to_ijk(other.to_ras(edges.reshape(3, -1).T))
        margin = margin_mm / self.spacing
        # The small slack keeps rounding noise from adding a voxel where the edges of both grids coincide.
        low = np.floor(corners.min(axis=0) - margin + 0.5 + 1e-6).astype(int)
        high = np.ceil(corners.max(axis=0) + margin + 0.5 - 1e-6).astype(int)
        low, high = np.maximum(low, 0), np.minimum(high, self.size)
        if (low >= high).any():
            raise ValueError("The box does not overlap the grid.")
        return Box(tuple(int(n) for n in low), tuple(int(n) for n in high))


@dataclass(frozen=True)
class AxisMap:
    """How one axis of a target grid runs along one axis of a source grid: source = scale · target + offset."""

    source_axis: int
    scale: float
    offset: float

    def weights(self, source_size: int, start: int, stop: int) -> tuple[int, int, np.ndarray]:
        """Interpolation weights for target indices ``start`` … ``stop`` - 1.

        Linear interpolation; where the target is coarser, the triangle is widened to the target's spacing, so that
        every source voxel is averaged in and noise does not alias. Rows of target voxels whose centre lies outside
        the source's extent are zero.

        Returns:
            (first, last, weights): source range [first, last) and a float32 matrix (stop - start, last - first).
        """
        position = self.scale * np.arange(start, stop) + self.offset
        inside = (position >= -0.5 - 1e-6) & (position <= source_size - 0.5 + 1e-6)
        position = np.clip(position, 0, source_size - 1)
        reach = max(1.0, abs(self.scale))
        first = max(0, int(np.floor(position.min() - reach)))
        last = min(source_size, int(np.ceil(position.max() + reach)) + 1)
        distance = np.abs(np.arange(first, last)[None, :] - position[:, None])
        weights = np.clip(1 - distance / reach, 0, None)
        weights /= weights.sum(axis=1, keepdims=True)
        weights[~inside] = 0
        return first, last, weights.astype(np.float32)


def axis_maps(source: Grid, target: Grid) -> tuple[AxisMap, AxisMap, AxisMap]:
    """For the target's i, j and k: the source axis that it runs along, with scale and offset in voxels.

    Raises:
        ValueError: the grids do not share their axes (they differ by more than swaps, flips, scale and shift).
    """
    matrix = np.linalg.inv(source.ijk_to_ras) @ target.ijk_to_ras
    linear = matrix[:3, :3]
    owners = np.abs(linear * source.spacing[:, None] / target.spacing[None, :]).argmax(axis=0)
    aligned = np.zeros_like(linear)
    aligned[owners, range(3)] = linear[owners, range(3)]
    # Judged by how far the axes drift apart over the whole target, in source voxels.
    drift = np.abs((linear - aligned) @ np.array(target.size)).max()
    if len(set(owners.tolist())) != 3 or drift > 0.05:
        raise ValueError("The two grids do not share their axes: resample in two steps or reorient first.")
    return tuple(AxisMap(int(s), float(linear[s, t]), float(matrix[s, 3])) for t, s in enumerate(owners))


def resample(
    array: np.ndarray | torch.Tensor,
    source: Grid,
    target: Grid,
    pad: float,
    device: torch.device | str | None = None,
    slab: int = 16,
) -> torch.Tensor:
    """Resamples ``array`` from ``source`` to ``target``, two grids that share their axes.

    Only slabs of the source become float, so that an int16 volume of any size costs a few slabs of float32.

    Args:
        array: [k, j, i] on ``source``, any real type.
        pad: value outside the source (air for a CT, 0 for a probability).
        device: where to compute; None computes where ``array`` is (the CPU for NumPy).
        slab: target slices that are computed at once.

    Returns:
        float32 tensor [k, j, i] on ``target``.

    Raises:
        ValueError: wrong shape, or grids that do not share their axes.
    """
    import torch

    return torch.cat(list(iter_resampled(array, source, target, pad, device, slab)))


def iter_resampled(
    array: np.ndarray | torch.Tensor,
    source: Grid,
    target: Grid,
    pad: float,
    device: torch.device | str | None = None,
    slab: int = 16,
):
    """Like :func:`resample`, but yields the result as consecutive slabs of at most ``slab`` target slices."""
    import torch

    if tuple(array.shape) != source.shape:
        raise ValueError(f"The array has shape {tuple(array.shape)}, but its grid says {source.shape}.")
    maps = axis_maps(source, target)
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    device = tensor.device if device is None else torch.device(device)
    # View the source along the target's axes: numpy order is [k, j, i], source axis a is dimension 2 - a.
    tensor = tensor.permute(*[2 - maps[axis].source_axis for axis in (2, 1, 0)])
    ranges = [maps[axis].weights(source.size[maps[axis].source_axis], 0, target.size[axis]) for axis in (0, 1)]
    in_plane = [torch.from_numpy(w).to(device) for _, _, w in ranges]
    (i0, i1, _), (j0, j1, _) = ranges
    inside = [w.sum(dim=1) for w in in_plane]
    inside = inside[1][:, None] * inside[0]
    tensor = tensor[:, j0:j1, i0:i1]
    for start in range(0, target.size[2], slab):
        stop = min(start + slab, target.size[2])
        k0, k1, weights = maps[2].weights(source.size[maps[2].source_axis], start, stop)
        weights = torch.from_numpy(weights).to(device)
        if k1 - k0 < stop - start:
            # Slices become more: work within them comes first.
            block = torch.matmul(in_plane[1], tensor[k0:k1].to(device=device, dtype=torch.float32) @ in_plane[0].T)
            block = torch.tensordot(weights, block, dims=1)
        else:
            block = torch.matmul(in_plane[1], _mixed_slices(tensor[k0:k1], weights) @ in_plane[0].T)
        # Rows of weights sum to one inside the source and to zero outside.
        yield block.add_((1 - weights.sum(dim=1)[:, None, None] * inside) * pad) if pad else block


def _mixed_slices(block: torch.Tensor, weights: torch.Tensor, most: int = 8) -> torch.Tensor:
    """``weights`` (n, m) applied to the m slices of ``block``, of which few at a time become float32."""
    import torch

    mixed = torch.zeros((len(weights), block[0].numel()), device=weights.device)
    for start in range(0, len(block), most):
        part = weights[:, start : start + most]
        rows = torch.nonzero(part.any(dim=1))
        if not len(rows):
            continue
        touched = slice(int(rows[0]), int(rows[-1]) + 1)
        slices = block[start : start + most].to(device=weights.device, dtype=torch.float32)
        mixed[touched].addmm_(part[touched], slices.reshape(len(slices), -1))
    return mixed.reshape(-1, *block.shape[1:])
