"""DICOM headers: which files of a folder hold CT slices, and which of them belong together."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .findings import Finding, Severity

_TAGS = (
    "SpecificCharacterSet SOPClassUID Modality ImageType PatientID PatientName StudyInstanceUID SeriesInstanceUID "
    "StudyDate SeriesNumber SeriesDescription SliceThickness AcquisitionNumber ImagePositionPatient "
    "ImageOrientationPatient PixelSpacing Rows Columns SamplesPerPixel NumberOfFrames"
)


@dataclass(frozen=True)
class Slice:
    """The header of one DICOM file that holds an image.

    ``position``, ``orientation`` (row direction, then column direction) and ``spacing`` (between columns, between
    rows) are in LPS mm; they are None where the file lacks them.
    """

    path: Path
    modality: str
    image_type: tuple[str, ...]
    patient_id: str
    patient_name: str
    study_uid: str
    series_uid: str
    study_date: str
    series_number: str
    description: str
    thickness: str
    acquisition: str
    samples: int
    frames: int
    size: tuple[int, int]
    position: np.ndarray | None
    orientation: np.ndarray | None
    spacing: np.ndarray | None

    @property
    def is_localizer(self) -> bool:
        """True for the overview image by which a scan is planned."""
        return any(word in kind for kind in self.image_type for word in ("LOCALIZER", "SCOUT", "TOPOGRAM"))

    @property
    def has_place(self) -> bool:
        """True where the file says where its image lies."""
        return self.position is not None and self.orientation is not None and self.spacing is not None

    @property
    def patient(self) -> tuple[str, str]:
        """Tells patients apart; the name is compared only where there is no PatientID, and is never shown."""
        return (self.patient_id, "" if self.patient_id else self.patient_name)

    @property
    def series(self) -> tuple[str, ...]:
        """Tells series apart, also where anonymisation emptied their identifiers."""
        if self.series_uid:
            return (self.study_uid, self.series_uid)
        return (self.study_uid, "", self.series_number, self.description, str(self.path.parent))

    def shares_plane(self, other: Slice) -> bool:
        """True where both can be slices of one volume: same matrix, pixel spacing and orientation."""
        return (
            self.size == other.size
            and np.allclose(self.spacing, other.spacing, rtol=1e-3)
            and np.allclose(self.orientation, other.orientation, atol=1e-3)
        )


@dataclass(frozen=True)
class Scan:
    """What a folder holds: DICOM images, other files, and DICOM files that cannot be used."""

    slices: tuple[Slice, ...]
    others: tuple[Path, ...]
    damaged: tuple[Path, ...]
    not_images: Counter


def looks_like_dicom(head: bytes) -> bool:
    """True where the first 132 bytes of a file are those of a DICOM file, with or without its preamble."""
    if head[128:132] == b"DICM":
        return True
    # Old files begin with their first element: group 0002 or 0008, an even element number below 0100.
    return len(head) > 8 and head[0] in (2, 8) and head[1] == 0 and head[2] % 2 == 0 and head[3] == 0


def scan_files(files: Sequence[Path]) -> Scan:
    """Reads the headers of all DICOM files among ``files``."""
    slices, others, damaged, not_images = [], [], [], Counter()
    for file in files:
        with file.open("rb") as stream:
            head = stream.read(132)
        if not looks_like_dicom(head):
            others.append(file)
            continue
        header = _header(file)
        if header is None:
            damaged.append(file)
        elif isinstance(header, str):
            not_images[header] += 1
        else:
            slices.append(header)
    return Scan(tuple(slices), tuple(others), tuple(damaged), not_images)


def _header(path: Path) -> Slice | str | None:
    """The image header in ``path``; the modality of a file that holds no image; None for a damaged file."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS.split(), force=True)
            modality = _text(data, "Modality")
            if not data.get("Rows") or not data.get("Columns"):
                # A directory or a report has a class of its own; an image without a size was cut off.
                is_image = modality == "CT" or (not modality and not _text(data, "SOPClassUID"))
                is_directory = "DICOMDIR" in path.name.upper()
                return None if is_image and not is_directory else modality or "DICOMDIR"
            return _slice(path, data, modality)
    except OSError:
        raise
    except Exception:  # whatever the parser stumbles over, the file is not usable
        return None


def _slice(path: Path, data, modality: str) -> Slice:
    spacing = _numbers(data, "PixelSpacing", 2)
    return Slice(
        path=path,
        modality=modality,
        image_type=tuple(str(v).upper() for v in (data.get("ImageType") or ())),
        patient_id=_text(data, "PatientID"),
        patient_name=_text(data, "PatientName"),
        study_uid=_text(data, "StudyInstanceUID"),
        series_uid=_text(data, "SeriesInstanceUID"),
        study_date=_text(data, "StudyDate"),
        series_number=_text(data, "SeriesNumber"),
        description=_text(data, "SeriesDescription"),
        thickness=_text(data, "SliceThickness"),
        acquisition=_text(data, "AcquisitionNumber"),
        samples=int(data.get("SamplesPerPixel") or 1),
        frames=int(data.get("NumberOfFrames") or 1),
        size=(int(data.Columns), int(data.Rows)),
        position=_numbers(data, "ImagePositionPatient", 3),
        orientation=_numbers(data, "ImageOrientationPatient", 6),
        spacing=None if spacing is None else spacing[::-1],
    )


def _text(data, keyword: str) -> str:
    value = data.get(keyword)
    return "" if value is None else str(value).strip()


def _numbers(data, keyword: str, count: int) -> np.ndarray | None:
    value = data.get(keyword)
    if value is None or len(value) != count:
        return None
    numbers = np.array([float(v) for v in value])
    return numbers if np.isfinite(numbers).all() else None


def check_found(path: Path, scan: Scan) -> None:
    """Checks that ``path`` holds DICOM images.

    Raises:
        InputError: it holds none; says what it holds instead.
    """
    if scan.slices:
        return
    if scan.damaged:
        damaged = f"{count_of(len(scan.damaged), 'damaged DICOM file')}, such as {scan.damaged[0].name}"
        raise InputError(f"{path} holds no image that can be read, but {damaged}. Copy the series again.")
    if scan.not_images:
        kinds = ", ".join(sorted(scan.not_images))
        raise InputError(f"{path} holds DICOM without images ({kinds}); a CT series is expected.")
    if not scan.others:
        raise InputError(f"The folder {path} is empty; a folder with a DICOM CT series is expected.")
    volumes = [p.name for p in scan.others if p.name.lower().endswith((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"))]
    hint = f" To read {volumes[0]}, pass that file itself." if volumes else ""
    raise InputError(
        f"The folder {path} holds {count_of(len(scan.others), 'file')} but no DICOM image; a CT series is expected."
        + hint
    )


def ct_stacks(path: Path, slices: Sequence[Slice]) -> tuple[list[list[Slice]], list[Finding]]:
    """The CT slices among ``slices``, one list per series and plane, the longest first; and what was left out.

    Raises:
        InputError: no usable CT slices, or those of several patients.
    """
    usable = [s for s in slices if s.modality == "CT" and not s.is_localizer]
    if not usable:
        kinds = Counter("CT localizer" if s.modality == "CT" else s.modality or "no modality" for s in slices)
        found = ", ".join(f"{kind} ({count_of(n, 'image')})" for kind, n in kinds.most_common())
        raise InputError(f"{path} holds no CT slices but {found}. Pass the folder of a CT series.")
    _refuse_several_patients(path, usable)
    plain = [s for s in usable if s.samples == 1 and s.frames == 1 and s.has_place]
    if not plain:
        raise InputError(_why_unusable(path, usable))
    findings = []
    localizers = sum(s.modality == "CT" and s.is_localizer for s in slices)
    if localizers:
        text = f"{count_of(localizers, 'localizer image')} in {path.name} left out: they show no slices."
        findings.append(Finding("localizer-left-out", Severity.INFO, text))
    if len(plain) < len(usable):
        text = (
            f"{count_of(len(usable) - len(plain), 'CT image')} left out: in color, of several frames, or without a "
            "position in the patient."
        )
        findings.append(Finding("images-left-out", Severity.INFO, text))
    stacks: list[list[Slice]] = []
    for item in plain:
        stack = next((s for s in stacks if s[0].series == item.series and s[0].shares_plane(item)), None)
        if stack is None:
            stacks.append([item])
        else:
            stack.append(item)
    stacks.sort(key=len, reverse=True)
    return stacks, findings


def _why_unusable(path: Path, slices: Sequence[Slice]) -> str:
    if any(s.frames > 1 for s in slices):
        frames = max(s.frames for s in slices)
        return (
            f"{path} holds an enhanced DICOM object with {frames} frames in one file, which is not supported. Export "
            "the series with one file per slice, or as NIfTI or NRRD."
        )
    if any(s.samples > 1 for s in slices):
        return f"{path} holds color images; CT slices have one value per pixel. Pass the original CT series."
    return (
        f"{path} holds CT images without a position in the patient (ImagePositionPatient, ImageOrientationPatient or "
        "PixelSpacing is missing), so that they make no volume. Export the original series."
    )


def _refuse_several_patients(path: Path, slices: Sequence[Slice]) -> None:
    patients = sorted({s.patient for s in slices})
    if len(patients) > 1:
        names = " and ".join(f"'{pid}'" if pid else "one without PatientID" for pid, _ in patients)
        raise InputError(
            f"{path} holds CT series of {len(patients)} patients (PatientID {names}). Pass the folder of one patient."
        )


def chosen_note(stack: Sequence[Slice], left_out: Sequence[Sequence[Slice]]) -> Finding:
    """Says which series was taken, and which were not."""
    shown = "; ".join(title(s) for s in left_out[:5])
    if len(left_out) > 5:
        shown += f"; and {len(left_out) - 5} more"
    text = f"Taken: {title(stack)}, the CT series with the most slices. Left out: {shown}."
    return Finding("series-chosen", Severity.INFO, text)


def title(stack: Sequence[Slice]) -> str:
    """How a series is called in messages."""
    first = stack[0]
    words = [f"series {first.series_number}"] if first.series_number else []
    words += [f"'{first.description}'"] if first.description else []
    return f"{' '.join(words) or 'a series without name'} ({count_of(len(stack), 'slice')})"


def damaged_note(files: Sequence[Path]) -> Finding:
    """Says which DICOM files could not be read."""
    names = ", ".join(f.name for f in files[:3]) + (", …" if len(files) > 3 else "")
    text = (
        f"{count_of(len(files), 'DICOM file')} could not be read: {names}. If any belongs to this series, the volume "
        "is incomplete; copy it again."
    )
    return Finding("damaged-files", Severity.WARNING, text)


def count_of(number: int, noun: str) -> str:
    """Such as '1 slice' or '2 slices'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
