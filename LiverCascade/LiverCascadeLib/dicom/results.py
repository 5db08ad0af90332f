"""DICOM segmentations as results: measured, and written as a run would."""

from __future__ import annotations

from pathlib import Path

from ..lesions.assess import assess
from ..lesions.assessment import Assessment
from ..report.files import (
    LABELS_FILE,
    LESIONS_FILE,
    RESULT_FILE,
    OutputFolder,
    explained,
    write_couinaud,
    write_lesions,
    write_record,
)
from ..volume import Volume, write_labels
from .segmentation_reader import import_segmentation


def assessment_from_segmentation(path: Path | str, volume: Volume) -> Assessment:
    """A SEG that was drawn on ``volume``, measured.

    Raises:
        InputError: see :func:`.segmentation_reader.import_segmentation`.
    """
    imported = import_segmentation(path, volume)
    return assess(
        volume,
        imported.labels,
        lesions=imported.notes,
        couinaud=imported.couinaud,
        findings=(*volume.findings, *imported.findings),
        provenance={"imported": {"path": str(path), **imported.origin}},
    )


def write_assessment(assessment: Assessment, folder: Path | str) -> None:
    """Writes labels.nii.gz, lesions.csv and result.json, and couinaud.nii.gz where there are segments; all or none.

    Raises:
        OutputError: the files cannot be written.
        ResourceError: the disk or the memory is full.
    """
    with OutputFolder(folder) as output:
        with explained(output.path):
            write_labels(output.staging / LABELS_FILE, assessment.labels, assessment.volume.grid)
            write_couinaud(output.staging, assessment)
            write_lesions(output.staging / LESIONS_FILE, assessment)
            write_record(output.staging / RESULT_FILE, assessment)
        output.commit()
