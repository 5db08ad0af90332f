"""Voxels of NIfTI files, by way of nibabel.

SimpleITK decides where the voxels lie, so that the engine and Slicer agree. It is not asked for the voxels: NIfTI's
own library silently fills a truncated file with zeros, replaces a spacing of zero by one, and makes float32 of a file
with a rescale slope.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import InputError
from .geometry_checks import check_directions, check_spacing

_SLAB_BYTES = 1 << 21


@dataclass(frozen=True)
class NiftiFile:
    """A NIfTI-1 file whose header was found to be usable.

    Attributes:
        path: the file.
        size: number of voxels along (i, j, k).
        stored: type of a voxel in the file, with its byte order.
        offset: position of the first voxel in the uncompressed file, in bytes.
        scaling: (slope, intercept): value = stored · slope + intercept.
        has_orientation: false where the file declares neither sform nor qform.
    """

    path: Path
    size: tuple[int, int, int]
    stored: np.dtype
    offset: int
    scaling: tuple[float, float]
    has_orientation: bool

    @property
    def dtype(self) -> np.dtype:
        """Type that holds every value: the stored one, or float64 where values are rescaled."""
        return self.stored.newbyteorder("=") if self.scaling == (1, 0) else np.dtype(np.float64)

    def slabs(self) -> Iterator[tuple[int, np.ndarray]]:
        """The rescaled voxels in pieces of a few megabytes: (index of the first slice, array [n, j, i]).

        Raises:
            InputError: the file is truncated or altered, which may show only after the last slab.
        """
        from nibabel.arrayproxy import ArrayProxy

        count = max(1, _SLAB_BYTES // (self.size[0] * self.size[1] * self.stored.itemsize))
        with _content(self.path) as stream:
            voxels = ArrayProxy(stream, (self.size, self.stored, self.offset, *self.scaling))
            for start in range(0, self.size[2], count):
                yield start, voxels[:, :, start : start + count].T
            # Reading to the end makes the decompressor verify its checksum.
            while stream.read(_SLAB_BYTES):
                pass


@contextmanager
def _content(path: Path) -> Iterator[BinaryIO]:
    """The uncompressed content of ``path``, with damage told in words."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            yield gzip.GzipFile(fileobj=raw) if compressed else raw
        # A value error is nibabel's word for a file that ends before its last voxel.
        except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{path} is damaged: it is truncated, or its content was altered. Copy or download it again."
            ) from error


def open_nifti(path: Path) -> NiftiFile:
    """Reads the header of ``path`` and refuses what can be no CT volume or label map.

    Raises:
        InputError: not NIfTI-1, truncated, not 3D, not one real number per voxel, or a broken geometry.
    """
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    with _content(path) as stream:
        block = stream.read(Nifti2Header.sizeof_hdr)
    if Nifti2Header.may_contain_header(block):
        raise InputError(f"{path} is a NIfTI-2 file, which Slicer does not read either. Save it as NIfTI-1 or NRRD.")
    if not Nifti1Header.may_contain_header(block):
        raise InputError(f"{path} is no NIfTI file, or its header is truncated. Copy or export it again.")
    # nibabel's own check would mend a spacing of zero instead of naming it.
    header = Nifti1Header(block[: Nifti1Header.sizeof_hdr], check=False)
    dimensions = header.get_data_shape()
    _check_dimensions(path, dimensions)
    check_spacing(str(path), header["pixdim"][1:4])
    sform, code = header.get_sform(coded=True)
    if code > 0:
        check_directions(str(path), sform[:3, :3])
    try:
        slope, intercept = header.get_slope_inter()
        offset = max(header.single_vox_offset, header.get_data_offset())
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise InputError(f"The header of {path} is damaged: {error}. Copy or export the file again.") from error
    scaling = (1.0, 0.0) if slope is None else (slope, intercept)
    oriented = code > 0 or int(header["qform_code"]) > 0
    return NiftiFile(path, dimensions[:3], _voxel_type(path, header), offset, scaling, oriented)
