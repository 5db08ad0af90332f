"""A result as DICOM objects: segmentation.dcm and report.dcm, both or none."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..findings import Finding
from ..lesions.assessment import Assessment
from ..report.files import OutputFolder, explained
from ..steps import exhausted
from .identity import quiet
from .instances import Instances, find_instances
from .segmentation_writer import segmentation, segments_of
from .structured_report import report

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SEGMENTATION_FILE, REPORT_FILE = "segmentation.dcm", "report.dcm"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: segmentation first.
        segments: how many there are in the segmentation.
        findings: what a reader should know about the objects.
    """

    files: tuple[Path, ...]
    segments: int
    findings: tuple[Finding, ...]


def export_dicom(
    assessment: Assessment, source: Path | str | Sequence[Path], folder: Path | str, generate_uids: bool = False
) -> Exported:
    """Writes segmentation.dcm and report.dcm into ``folder``; files of these names are replaced, others are kept.

    Args:
        source: the DICOM series that the CT was read from: a folder, one file of it, or all files.
        generate_uids: see :func:`.instances.find_instances`.

    Raises:
        InputError: the objects cannot honestly refer to the series, or nothing is segmented.
        MissingPackageError: highdicom is not installed.
        OutputError: the files cannot be written.
        ResourceError: the disk or the memory is full.
    """
    return exhausted(export_steps(assessment, source, folder, generate_uids))


def export_steps(
    assessment: Assessment, source: Path | str | Sequence[Path], folder: Path | str, generate_uids: bool = False
) -> Generator[None, None, Exported]:
    """:func:`export_dicom` in steps; closing the generator before its end leaves the folder as it was."""
    instances = find_instances(source, assessment.volume, generate_uids)
    yield
    with OutputFolder(folder) as output:
        count = yield from file_steps(assessment, instances, output.staging)
        output.commit()
    files = tuple(output.path / name for name in (SEGMENTATION_FILE, REPORT_FILE))
    return Exported(files, count, instances.findings)


def file_steps(assessment: Assessment, instances: Instances, folder: Path) -> Generator[None, None, int]:
    """Writes both objects into a folder that exists, such as the staging folder of a run.

    Returns:
        the number of segments.

    Raises:
        LiverCascadeError: as :func:`export_dicom`.
    """
    segments = segments_of(assessment, instances)
    yield
    with quiet():  # highdicom warns of person names in one piece, as anonymized series have them
        image = segmentation(assessment, instances, segments)
    yield
    with quiet():
        document = report(assessment, instances, segments, image)
    yield
    with explained(folder), quiet():
        _write(image, folder / SEGMENTATION_FILE)
        _write(document, folder / REPORT_FILE)
    return len(segments)


def _write(data: Dataset, path: Path) -> None:
    import pydicom

    pydicom.dcmwrite(path, data, enforce_file_format=True)
