"""Volumes in, label maps out: the one way by which image data enters and leaves the engine."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import dicom_series, nifti
from .dicom_headers import looks_like_dicom
from .errors import InputError, OutputError
from .findings import Finding, Severity
from .geometry import Grid
from .geometry_checks import RIGHT_ANGLE_TOLERANCE, check_directions, check_spacing
from .pixels import Int16Sink, allocated, array_of, check_one_volume, quiet_itk

if TYPE_CHECKING:
    import SimpleITK as sitk

# What lies around a scan.
AIR_HU = -1024
SUFFIXES = {
    "nifti": (".nii.gz", ".nii"),
    "nrrd": (".nrrd", ".nhdr"),
    "metaimage": (".mha", ".mhd"),
}


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume.

    Attributes:
        array: int16 Hounsfield units, [k, j, i].
        grid: where the voxels lie.
        name: short name for segments, files and reports.
        source: identity of the input, serialisable as JSON: at least ``path`` and ``format``; for DICOM also the
            series and study identifiers.
        findings: what was noticed while reading.
    """

    array: np.ndarray
    grid: Grid
    name: str = "CT"
    source: dict[str, object] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if self.array.dtype != np.int16:
            raise TypeError(f"A volume holds int16 Hounsfield units, not {self.array.dtype}.")
        if self.array.shape != self.grid.shape:
            raise ValueError(f"The array has shape {self.array.shape}, but its grid says {self.grid.shape}.")

    def sha256_steps(self) -> Generator[None, None, str]:
        """SHA-256 of the voxels, which tells a scan from all others, with a pause every few slices."""
        digest = hashlib.sha256()
        for number, part in enumerate(self.array):  # slice by slice: a flipped volume is not copied as a whole
            digest.update(np.ascontiguousarray(part).data)
            if number % 16 == 15:
                yield
        return digest.hexdigest()


def read_volume(path: Path | str) -> Volume:
    """Reads a CT volume.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a folder with DICOM files, or one file of a DICOM series, which then
            stands for the whole series.

    Returns:
        The volume as int16. Its ``source`` has ``path`` and ``format`` ('nifti', 'nrrd', 'metaimage' or 'dicom').

    Raises:
        InputError: the input is missing, damaged, not a 3D CT volume, or geometrically unusable.
    """
    path = Path(path).expanduser()
    with _readable(path):
        if not path.exists():
            raise InputError(f"There is no file or folder {path}. Check the path.")
        if path.is_dir():
            return _volume_of_series(path)
        kind = _sniffed_format(path)
        if kind == "dicom":
            return _volume_of_series(path)
        _check_suffix(path, kind)
        if kind == "nifti":
            return _read_nifti(path)
        return _read_with_itk(path, kind)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Tells in words what keeps the system from reading ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its rights."
        ) from error


def _volume_of_series(path: Path) -> Volume:
    series = dicom_series.read_series(path)
    return Volume(series.array, series.grid, series.name, series.source, series.findings)


def _sniffed_format(path: Path) -> str:
    """The format of a file by its content: 'nifti', 'nrrd', 'metaimage' or 'dicom'."""
    with path.open("rb") as stream:
        head = stream.read(1024)
    if not head:
        raise InputError(f"{path} is empty. Copy or export it again.")
    if looks_like_dicom(head):
        return "dicom"
    if head[:4] == b"NRRD":
        return "nrrd"
    if head[:2] == b"\x1f\x8b":
        return "nifti"
    if len(head) >= 4 and {struct.unpack("<i", head[:4])[0], struct.unpack(">i", head[:4])[0]} & {348, 540}:
        return "nifti"
    if b"NDims" in head and b"=" in head:
        return "metaimage"
    raise InputError(
        f"{path} is no image that can be read. Expected: NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage "
        "(.mha, .mhd), a DICOM file, or a folder with a DICOM series."
    )


def _check_suffix(path: Path, kind: str) -> None:
    suffixes = SUFFIXES[kind]
    # The readers go by the name, and NIfTI's knows its suffixes in lower or upper case but not in a mix.
    if path.name.endswith((*suffixes, *(s.upper() for s in suffixes))):
        return
    names = {"nifti": "NIfTI (or another gzip-compressed)", "nrrd": "NRRD", "metaimage": "MetaImage"}
    raise InputError(
        f"{path} looks like a {names[kind]} file, but its name does not end in {' or '.join(suffixes)}. If that is "
        "what it is, rename it."
    )


def _stem(path: Path, kind: str) -> str:
    for suffix in SUFFIXES[kind]:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)] or path.name
    return path.name


def _information(path: Path) -> sitk.ImageFileReader:
    """A SimpleITK reader that has read the header of ``path``."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(_reason(path, error)) from error
    return reader


def _reason(path: Path, error: RuntimeError) -> str:
    """One sentence in place of SimpleITK's C++ text."""
    text = str(error)
    if "orthonormal" in text:
        return (
            f"The direction matrix of {path} is singular, or its axes are not at right angles. Resample it to a "
            "straight grid, or correct the header."
        )
    if "Zero-valued spacing" in text:
        return f"The voxel spacing of {path} is zero along an axis. Export it again, or correct the header."
    if "determinant is 0" in text:
        return f"The direction matrix of {path} is singular: two axes point the same way. Export it again."
    if path.suffix.lower() in (".nhdr", ".mhd"):
        return (
            f"{path} cannot be read: the file with its voxels, which the header names, is missing or truncated. "
            "Keep both files in one folder, or copy them again."
        )
    return f"{path} is damaged or truncated: its header and voxels do not fit. Copy or export the file again."


def _grid_of(path: Path, size: tuple, origin: tuple, spacing: tuple, direction: tuple) -> Grid:
    check_spacing(str(path), spacing)
    check_directions(str(path), np.array(direction).reshape(3, 3))
    try:
        return Grid.from_lps(size, origin, spacing, direction)
    except ValueError as error:
        raise InputError(f"The geometry of {path} cannot be used. {error} Export the volume again.") from error


def _no_orientation(path: Path) -> Finding:
    text = (
        f"{path.name} does not say how the patient lies in it. The first axis was taken to point to the patient's "
        "left, the second to the back, the third to the head: check left and right."
    )
    return Finding("no-orientation", Severity.WARNING, text)


def _read_nifti(path: Path) -> Volume:
    header = nifti.read_header(path)
    grid = _nifti_grid(path)
    sink = Int16Sink(grid.shape, str(path))
    for start, slab in nifti.iter_slabs(path, header):
        sink.put(start, slab)
    array, findings = sink.finish()
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        findings += (_no_orientation(path),)
    return Volume(array, grid, _stem(path, "nifti"), {"path": str(path), "format": "nifti"}, findings)


def _nifti_grid(path: Path) -> Grid:
    with quiet_itk():
        info = _information(path)
    direction = _three_by_three(info.GetDirection())
    return _grid_of(path, info.GetSize()[:3], info.GetOrigin()[:3], info.GetSpacing()[:3], direction)


def _three_by_three(direction: tuple[float, ...]) -> tuple[float, ...]:
    """The first three rows and columns of a row-major direction matrix, as 4D files with one time point need."""
    count = round(len(direction) ** 0.5)
    return tuple(np.array(direction).reshape(count, count)[:3, :3].ravel())


def _check_kind(path: Path, info: sitk.ImageFileReader) -> None:
    """Refuses what can be no CT volume, before its pixels are read."""
    import SimpleITK as sitk

    if info.GetNumberOfComponents() != 1:
        complex_types = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
        kind = "complex numbers" if info.GetPixelID() in complex_types else "colors or vectors"
        raise InputError(f"{path} holds {kind}; a CT volume has one real number per voxel.")
    check_one_volume(path, info.GetSize())


def _read_with_itk(path: Path, kind: str, slab: int = 16) -> Volume:
    """Reads NRRD and MetaImage, whose readers notice a truncated file by themselves."""
    with quiet_itk():
        info = _information(path)
        _check_kind(path, info)
        size = info.GetSize()[:3]
        direction = _three_by_three(info.GetDirection())
        grid = _grid_of(path, size, info.GetOrigin()[:3], info.GetSpacing()[:3], direction)
        if info.GetDimension() > 3:
            info.SetExtractSize([*size, *[0] * (info.GetDimension() - 3)])
        try:
            pixels = array_of(info.Execute())
        except RuntimeError as error:
            raise InputError(_reason(path, error)) from error
    findings: tuple[Finding, ...] = ()
    if pixels.dtype != np.int16:
        sink = Int16Sink(grid.shape, str(path))
        for start in range(0, len(pixels), slab):
            sink.put(start, pixels[start : start + slab])
        pixels, findings = sink.finish()
    if kind == "nrrd" and not info.HasMetaDataKey("NRRD_space"):
        findings += (_no_orientation(path),)
    return Volume(pixels, grid, _stem(path, kind), {"path": str(path), "format": kind}, findings)


def read_labels(path: Path | str) -> tuple[np.ndarray, Grid]:
    """Reads a label map: an integer array [k, j, i] and its grid.

    Raises:
        InputError: missing, unreadable, damaged, not 3D, or not whole numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no label map {path}. Check the path.")
    is_nifti = path.name.lower().endswith(SUFFIXES["nifti"])
    with _readable(path):
        array, grid = _nifti_labels(path) if is_nifti else _itk_labels(path)
    if array.dtype.kind == "f":
        whole = np.rint(array)
        if not np.isfinite(array).all() or not np.array_equal(whole, array):
            raise InputError(f"{path} is not a label map: it holds values that are not whole numbers.")
        array = whole.astype(np.int32)
    return array, grid


def _nifti_labels(path: Path) -> tuple[np.ndarray, Grid]:
    header = nifti.read_header(path)
    grid = _nifti_grid(path)
    array = np.empty(0)
    for start, slab in nifti.iter_slabs(path, header):
        if not start:
            array = allocated(grid.shape, slab.dtype.newbyteorder("="), str(path))
        array[start : start + len(slab)] = slab
    return array, grid


def _itk_labels(path: Path) -> tuple[np.ndarray, Grid]:
    import SimpleITK as sitk

    try:
        with quiet_itk():
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(_reason(path, error)) from error
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        raise InputError(f"{path} is not a 3D label map.")
    grid = _grid_of(path, image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    return array_of(image), grid


def write_labels(path: Path | str, labels: np.ndarray, grid: Grid, compression: int = 1) -> None:
    """Writes ``labels`` [k, j, i] so that size, spacing, origin and direction are exactly those of ``grid``.

    NIfTI stores its geometry as float32, so that positions agree to about 1e-4 mm there. Compression is gzip at its
    fastest level: label maps shrink well at any level, and the higher ones take several times as long.

    Raises:
        ValueError: ``labels`` is not on ``grid``.
        OutputError: the file cannot be written.
    """
    import SimpleITK as sitk

    if labels.shape != grid.shape:
        raise ValueError(f"The labels have shape {labels.shape}, but their grid says {grid.shape}.")
    unit = grid.ijk_to_ras[:3, :3] / grid.spacing
    if np.abs(unit.T @ unit - np.eye(3)).max() > RIGHT_ANGLE_TOLERANCE:
        # NIfTI's writer would silently straighten the axes, and ITK reads no such file back.
        raise OutputError(f"{path} cannot hold labels on a sheared grid, whose axes are not at right angles.")
    image = sitk.GetImageFromArray(labels.view(np.uint8) if labels.dtype == bool else labels)
    origin, spacing, direction = grid.to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    try:
        with quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=compression)
    except RuntimeError as error:
        raise OutputError(
            f"{path} cannot be written. Check that the folder exists, that you may write there, and that the disk is "
            "not full."
        ) from error
