"""NIfTI headers and pixels.

SimpleITK decides where the voxels lie, so that the engine and Slicer agree. The pixels are read here: NIfTI's own
library silently fills a truncated file with zeros, replaces a spacing of zero by one, and makes float32 of a file
with a rescale slope.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import InputError
from .findings import Finding
from .geometry_checks import check_directions, check_spacing
from .pixels import Int16Sink

_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_REFUSED_TYPES = {
    1: "single bits",
    32: "complex numbers",
    128: "colors (RGB)",
    1536: "128-bit floats",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "colors (RGBA)",
}
_CHUNK = 1 << 22


@dataclass(frozen=True)
class NiftiHeader:
    """What the reader needs from the header of a NIfTI-1 file.

    Attributes:
        dimensions: as stored: (i, j, k, time, …).
        dtype: type of a stored voxel, with its byte order.
        offset: position of the first voxel in the uncompressed file, in bytes.
        slope, intercept: value = stored · slope + intercept.
        spacing: pixdim of the first three axes, in the file's unit.
        sform: 3×4 voxel-to-patient matrix, or None where the file declares none.
        has_orientation: false where the file declares neither sform nor qform.
    """

    dimensions: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    spacing: tuple[float, float, float]
    sform: np.ndarray | None
    has_orientation: bool

    @property
    def size(self) -> tuple[int, int, int]:
        """Number of voxels along (i, j, k)."""
        return self.dimensions[:3]


@contextmanager
def _opened(path: Path):
    """The uncompressed content of ``path``, with damage told in words."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            if compressed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream
            else:
                yield raw
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{path} is damaged: its compressed data is truncated or altered. Copy or download it again."
            ) from error


def read_header(path: Path) -> NiftiHeader:
    """Reads the header and refuses what can be no CT volume.

    Raises:
        InputError: not NIfTI, truncated, not 3D, not one real number per voxel, or a broken geometry.
    """
    with _opened(path) as stream:
        data = stream.read(348)
    for order in "<>":
        size = struct.unpack_from(order + "i", data)[0] if len(data) == 348 else 0
        if size == 348:
            return _checked(path, _parse(path, data, order))
        if size == 540:
            raise InputError(f"{path} is a NIfTI-2 file, which is not supported. Save it as NIfTI-1 or NRRD.")
    raise InputError(f"{path} is no NIfTI file, or its header is truncated. Copy or export it again.")


def _parse(path: Path, data: bytes, order: str) -> NiftiHeader:
    dim = struct.unpack_from(order + "8h", data, 40)
    datatype = struct.unpack_from(order + "h", data, 70)[0]
    pixdim = struct.unpack_from(order + "8f", data, 76)
    offset, slope, intercept = struct.unpack_from(order + "3f", data, 108)
    qform, sform = struct.unpack_from(order + "2h", data, 252)
    rows = np.array(struct.unpack_from(order + "12f", data, 280)).reshape(3, 4)
    if datatype not in _TYPES:
        kind = _REFUSED_TYPES.get(datatype, f"an unknown type of voxel (code {datatype})")
        raise InputError(f"{path} holds {kind}; a CT volume has one real number per voxel.")
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        slope, intercept = 1.0, 0.0
    return NiftiHeader(
        dimensions=tuple(int(n) for n in dim[1 : 1 + min(max(dim[0], 0), 7)]),
        dtype=np.dtype(order + _TYPES[datatype]),
        offset=max(352, int(offset)) if np.isfinite(offset) else 352,
        slope=float(slope),
        intercept=float(intercept),
        spacing=tuple(float(s) for s in pixdim[1:4]),
        sform=rows if sform > 0 else None,
        has_orientation=sform > 0 or qform > 0,
    )


def _checked(path: Path, header: NiftiHeader) -> NiftiHeader:
    dims = header.dimensions
    if any(n > 1 for n in dims[3:]):
        raise InputError(
            f"{path} is {len(dims)}D ({'×'.join(map(str, dims))}), a series of volumes or a vector image; one 3D CT "
            "volume is expected. Extract one volume and pass that."
        )
    if len(dims) < 3 or min(dims[:3]) < 2:
        raise InputError(f"{path} is a single slice ({'×'.join(map(str, dims))}); a 3D CT volume is expected.")
    check_spacing(str(path), header.spacing)
    if header.sform is not None:
        check_directions(str(path), header.sform[:, :3])
    return header


def read_pixels(path: Path, header: NiftiHeader) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """The voxels as int16 [k, j, i], rescaled, and what was noticed.

    Raises:
        InputError: truncated, altered, or values that are not numbers.
    """
    shape = header.size[::-1]
    sink = Int16Sink(shape, str(path))
    plain = header.slope == 1 and header.intercept == 0
    with _opened(path) as stream:
        _skip(path, stream, header.offset)
        if plain and header.dtype.kind == "i" and header.dtype.itemsize == 2:
            _read_exactly(path, stream, memoryview(sink.array).cast("B"))
            if not header.dtype.isnative:
                sink.array.byteswap(inplace=True)
        else:
            _read_slabs(path, stream, header, sink)
        # Reading to the end makes the decompressor verify its checksum.
        while stream.read(_CHUNK):
            pass
    return sink.finish()


def _read_slabs(path: Path, stream: BinaryIO, header: NiftiHeader, sink: Int16Sink, slab: int = 8) -> None:
    shape = header.size[::-1]
    buffer = np.empty((slab, *shape[1:]), dtype=header.dtype)
    exact = header.dtype.itemsize <= 2 or header.dtype.str[1:] == "f4"
    work = np.float32 if exact else np.float64
    for start in range(0, shape[0], slab):
        block = buffer[: min(slab, shape[0] - start)]
        _read_exactly(path, stream, memoryview(block).cast("B"))
        native = block.astype(block.dtype.newbyteorder("="), copy=False)
        if header.slope != 1 or header.intercept != 0:
            native = native.astype(work) * work(header.slope) + work(header.intercept)
        sink.put(start, native)


def _skip(path: Path, stream: BinaryIO, count: int) -> None:
    spare = memoryview(bytearray(min(count, _CHUNK)))
    while count:
        _read_exactly(path, stream, spare[:count])
        count -= len(spare[:count])


def _read_exactly(path: Path, stream: BinaryIO, target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = stream.readinto(target[done : done + _CHUNK])
        if not count:
            raise InputError(f"{path} is truncated: it ends before its last voxel. Copy or download the file again.")
        done += count
