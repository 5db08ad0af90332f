"""Who was examined, and when, as DICOM files say."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..dicom_headers import ct_stacks, looks_like_dicom, scan_files
from ..dicom_series import files_around
from ..errors import InputError
from ..report.identity import StudyIdentity
from .text import fitting, iso_date, person_name, repaired

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TAGS = (
    "SpecificCharacterSet PatientName PatientID PatientSex PatientBirthDate StudyDate AccessionNumber "
    "StudyDescription SeriesDescription InstitutionName StudyInstanceUID SeriesInstanceUID"
)
_NAMES = ("PatientName", "ReferringPhysicianName")


def identity_of(path: Path | str) -> StudyIdentity:
    """The identity that a DICOM file says, or that of the CT series with the most slices in a folder.

    Whatever is missing or cannot be read stays empty; so does everything where ``path`` holds no DICOM.

    Raises:
        InputError: there is no such file or folder, or the system refuses to read it.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"There is no file or folder {path}. Check the path.")
    try:
        file = _first_of_series(path) if path.is_dir() else path
        if file is None or not _is_dicom(file):
            return StudyIdentity()
        return identity_of_header(read_header(file, _TAGS.split()))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its rights."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the warnings of pydicom and highdicom about other people's values off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(path: Path, tags: list[str] | None = None) -> Dataset:
    """The header of a DICOM file without its pixels; an empty one where it is damaged.

    Args:
        tags: keywords that are wanted; None reads all.

    Raises:
        OSError: the file cannot be read.
    """
    import pydicom

    try:
        with quiet():
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
    except OSError:
        raise
    except Exception:  # whatever the parser stumbles over, the file says nothing
        return pydicom.Dataset()


def identity_of_header(header: Dataset) -> StudyIdentity:
    """The identity that a DICOM header says."""
    with quiet():
        return _identity(header)


def _identity(header: Dataset) -> StudyIdentity:
    return StudyIdentity(
        patient_name=person_name(text_of(header, "PatientName")),
        patient_id=fitting(text_of(header, "PatientID"), "UT"),
        patient_sex=fitting(text_of(header, "PatientSex"), "UT"),
        birth_date=iso_date(text_of(header, "PatientBirthDate")),
        study_date=iso_date(text_of(header, "StudyDate")),
        accession_number=fitting(text_of(header, "AccessionNumber"), "UT"),
        study_description=fitting(text_of(header, "StudyDescription"), "UT"),
        series_description=fitting(text_of(header, "SeriesDescription"), "UT"),
        institution=fitting(text_of(header, "InstitutionName"), "UT"),
        study_instance_uid=text_of(header, "StudyInstanceUID"),
        series_instance_uid=text_of(header, "SeriesInstanceUID"),
    )


def text_of(header: Dataset, keyword: str) -> str:
    """The value of ``keyword`` as one text; empty where it is missing or cannot be understood."""
    try:
        value = header.get(keyword)
        if value is None:
            return ""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        is_several = not isinstance(value, str) and hasattr(value, "__iter__") and keyword not in _NAMES
        text = "/".join(str(one) for one in value) if is_several else str(value)
    except Exception:  # an odd value representation, an unknown character set
        return ""
    text = text.strip(" \0")
    return text if header.get("SpecificCharacterSet") else repaired(text)


def _first_of_series(folder: Path) -> Path | None:
    """A file of the series that :func:`~..volume.read_volume` would take; any DICOM image where it would take none."""
    slices = scan_files(files_around(folder)).slices
    try:
        stacks, _ = ct_stacks(folder, slices)
        return stacks[0][0].path
    except InputError:
        patients = {item.patient for item in slices}
        return slices[0].path if len(patients) == 1 else None


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return looks_like_dicom(stream.read(132))
