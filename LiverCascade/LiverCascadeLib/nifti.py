"""Voxels of NIfTI files, by way of nibabel.

SimpleITK decides where the voxels lie, so that the engine and Slicer agree. It is not asked for the voxels: NIfTI's
own library silently fills a truncated file with zeros, replaces a spacing of zero by one, and makes float32 of a file
with a rescale slope.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from .errors import InputError
from .geometry_checks import check_directions, check_spacing
from .pixels import check_one_volume

if TYPE_CHECKING:
    from nibabel import Nifti1Header

_SLAB_BYTES = 1 << 21
_PIECE_BYTES = 1 << 20
_GZIP = 31  # zlib's name for: with gzip's header and checksum


def read_header(path: Path) -> Nifti1Header:
    """Reads the header of ``path`` and refuses what can be no CT volume and no label map.

    Raises:
        InputError: not NIfTI-1, truncated, not 3D, not one real number per voxel, or a broken geometry.
    """
    from nibabel import Nifti1Header, Nifti2Header

    with _content(path) as stream:
        block = stream.read(Nifti2Header.sizeof_hdr)
    if Nifti2Header.may_contain_header(block):
        raise InputError(f"{path} is a NIfTI-2 file, which is not supported. Save it as NIfTI-1 or NRRD.")
    if not Nifti1Header.may_contain_header(block):
        raise InputError(f"{path} is no NIfTI file, or its header is truncated. Copy or export it again.")
    # nibabel's own check would mend a spacing of zero instead of naming it.
    header = Nifti1Header(block[: Nifti1Header.sizeof_hdr], check=False)
    _check_voxel_type(path, header)
    check_one_volume(path, header.get_data_shape())
    check_spacing(str(path), header["pixdim"][1:4])
    if header["sform_code"] > 0:
        check_directions(str(path), header.get_sform()[:3, :3])
    return header


def _check_voxel_type(path: Path, header: Nifti1Header) -> None:
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        dtype = np.dtype(np.void)
    if dtype.kind not in "iuf":
        unknown = f"voxels of an unknown type (code {header['datatype']})"
        kind = "complex numbers" if dtype.kind == "c" else "colors" if dtype.fields else unknown
        raise InputError(f"{path} holds {kind}; a CT volume has one real number per voxel.")


def iter_slabs(path: Path, header: Nifti1Header) -> Iterator[tuple[int, np.ndarray]]:
    """The rescaled voxels in pieces of about two megabytes: (index of the first slice, array [n, j, i]).

    Raises:
        InputError: the file is truncated or altered, which may show only after the last slab.
    """
    from nibabel.volumeutils import apply_read_scaling

    size, stored = header.get_data_shape()[:3], header.get_data_dtype()
    count = max(1, _SLAB_BYTES // (size[0] * size[1] * stored.itemsize))
    with _content(path) as stream:
        scaling, offset = header.get_slope_inter(), max(header.single_vox_offset, header.get_data_offset())
        _read_exactly(stream, offset)
        for start in range(0, size[2], count):
            shape = (min(count, size[2] - start), size[1], size[0])
            voxels = np.frombuffer(_read_exactly(stream, math.prod(shape) * stored.itemsize), stored).reshape(shape)
            yield start, apply_read_scaling(voxels, *scaling)
        # Reading to the end makes the decompressor verify its checksum.
        while stream.read(_SLAB_BYTES):
            pass


class _Gunzip:
    """The content of a gzip file.

    Python's own reader takes pieces of a few kilobytes, after each of which a thread may wait for the interpreter.

    Args:
        raw: the file, at its beginning.
    """

    def __init__(self, raw: BinaryIO):
        self._raw = raw
        self._member = zlib.decompressobj(_GZIP)

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end.

        Raises:
            EOFError: the file ends early.
            zlib.error: it is damaged.
        """
        parts = []
        while size > 0:
            piece = self._piece()
            if not piece:
                break
            part = self._member.decompress(piece, size)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _piece(self) -> bytes:
        """Compressed bytes, all of one member; none at the end of the file."""
        if not self._member.eof:
            piece = self._member.unconsumed_tail or self._raw.read(_PIECE_BYTES)
            if not piece:
                raise EOFError
            return piece
        # Another member may follow, and zeros pad some files.
        piece = self._member.unused_data.lstrip(b"\0")
        while not piece and (more := self._raw.read(_PIECE_BYTES)):
            piece = more.lstrip(b"\0")
        if piece:
            self._member = zlib.decompressobj(_GZIP)
        return piece


def _read_exactly(stream: BinaryIO | _Gunzip, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


@contextmanager
def _content(path: Path) -> Iterator[BinaryIO | _Gunzip]:
    """The uncompressed content of ``path``, with damage told in words."""
    from nibabel.spatialimages import HeaderDataError

    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            yield _Gunzip(raw) if compressed else raw
        # nibabel raises value errors about sizes and offsets that cannot be.
        except (EOFError, ValueError, OverflowError, HeaderDataError, zlib.error) as error:
            raise InputError(
                f"{path} is damaged: it is truncated, or its content was altered. Copy or download it again."
            ) from error
