"""Small DICOM files for tests, written with pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from LiverCascadeLib.geometry import LPS_RAS
from LiverCascadeLib.volume import Volume
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def write_slice(path: Path, pixels: np.ndarray, position: Sequence[float], **elements: object) -> Path:
    """Writes one CT slice.

    Args:
        path: where to.
        pixels: int16 or uint16 [row, column]; [row, column, 3] uint8 for a color image.
        position: ImagePositionPatient, LPS mm.
        elements: DICOM keywords to set; None removes one.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = CT_IMAGE_STORAGE
    data.SOPInstanceUID = generate_uid()
    data.Modality = "CT"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.PatientID = "P1"
    data.PatientName = "Test^Patient"
    data.StudyInstanceUID = "1.2.3.1"
    data.SeriesInstanceUID = "1.2.3.1.1"
    data.FrameOfReferenceUID = "1.2.3.1.2"
    data.StudyDate = "20200102"
    data.SeriesNumber = 3
    data.SeriesDescription = "Abdomen"
    data.SliceThickness = 2
    data.ImagePositionPatient = [float(v) for v in position]
    data.ImageOrientationPatient = list(AXIAL)
    data.PixelSpacing = [0.8, 0.7]
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.PixelData = pixels.tobytes()
    instance = data.SOPInstanceUID
    for keyword, value in elements.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.file_meta.MediaStorageSOPClassUID = data.get("SOPClassUID") or CT_IMAGE_STORAGE
    data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID") or instance
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    heights: Sequence[float] = (0, 2, 4, 6, 8),
    shape: tuple[int, int] = (12, 10),
    shift_per_mm: Sequence[float] = (0, 0),
    prefix: str = "",
    **elements: object,
) -> np.ndarray:
    """Writes an axial series with one file per height (mm); returns its pixels in the order of ``heights``.

    ``shift_per_mm`` moves slices along x and y with their height, as a tilted gantry does. Names begin with
    ``prefix`` and sort in another order than the heights.
    """
    pixels = np.random.default_rng(len(heights)).integers(-1000, 1000, (len(heights), *shape)).astype(np.int16)
    for number, (height, image) in enumerate(zip(heights, pixels, strict=True)):
        position = (-20 + shift_per_mm[0] * height, -30 + shift_per_mm[1] * height, height)
        name = f"{prefix}{number * 7 % (len(heights) + 11):03d}-{number}"
        write_slice(folder / name, image, position, InstanceNumber=number + 1, **elements)
    return pixels


def write_stack(folder: Path, volume: Volume, **elements: object) -> None:
    """Writes ``volume`` as a series with one file per slice; its grid must be right-handed (rows × columns = slices).

    Names sort in another order than the slices. An element may be a function of the slice's number.
    """
    matrix = LPS_RAS @ volume.grid.ijk_to_ras
    spacing = volume.grid.spacing
    direction = matrix[:3, :3] / spacing
    assert np.linalg.det(direction) > 0, "DICOM's slices follow each other along rows × columns"
    for k, pixels in enumerate(volume.array):
        own = {name: value(k) if callable(value) else value for name, value in elements.items()}
        place = {
            "ImageOrientationPatient": [f"{v:.12f}"[:16] for v in (*direction[:, 0], *direction[:, 1])],
            "PixelSpacing": [float(spacing[1]), float(spacing[0])],
            "SliceThickness": float(spacing[2]),
            "InstanceNumber": k + 1,
        }
        position = [f"{v:.10f}"[:16] for v in matrix[:3] @ (0, 0, k, 1)]
        write_slice(folder / f"{k * 7 % 1009:04d}", pixels, position, **{**place, **own})


class FolderDatabase:
    """The files of a folder, known by their instances as ctkDICOMDatabase knows them."""

    isOpen = True

    def __init__(self, folder: Path):
        files = (file for file in folder.iterdir() if file.is_file())
        self.files = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID): str(f) for f in files}
        self.inserted: list[str] = []

    def fileForInstance(self, sopInstanceUID: str) -> str:
        """The path; empty for an instance that nobody knows."""
        return self.files.get(sopInstanceUID, "")

    def insert(self, filePath: str) -> None:
        """Adds a file."""
        self.inserted.append(filePath)
