"""DICOM behind volume nodes: the instances in Slicer's database, who was examined, objects out and segmentations in.

Slicer's DICOM plugins write the identifiers of a volume's slices into the node's attribute ``DICOM.instanceUIDs``,
separated by blanks; the database knows their files. Without the application there is no database: pass one.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Protocol

import numpy as np
import slicer

from ..dicom.export import Exported, export_steps
from ..dicom.identity import identity_of
from ..dicom.segmentation_reader import ImportedLabels, import_segmentation
from ..errors import InputError
from ..postprocess import measure_lesions
from ..report.identity import StudyIdentity
from ..result import LIVER_LABEL, Result
from ..steps import exhausted
from ..volume import Volume
from .assessment import assessmentSteps
from .couinaud import setCouinaudSegments
from .lesion_table import LesionTable
from .segmentations import segmentationFromResult
from .volumes import volumeFromNode

INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"


class Database(Protocol):
    """What is needed of ctkDICOMDatabase."""

    def fileForInstance(self, sopInstanceUID: str) -> str:
        """The path of an instance's file; empty where there is none."""


def instanceFiles(volumeNode: slicer.vtkMRMLVolumeNode, database: Database | None = None) -> list[Path]:
    """The DICOM files that a volume was loaded from; none where it was not, or the database lost one of them.

    Args:
        database: None takes Slicer's own.
    """
    database = database or getattr(slicer, "dicomDatabase", None)
    uids = (volumeNode.GetAttribute(INSTANCES_ATTRIBUTE) or "").split()
    if database is None or not uids:
        return []
    files = [Path(database.fileForInstance(uid) or "") for uid in uids]
    return files if all(file.is_file() for file in files) else []


def identityOfVolumeNode(
    volumeNode: slicer.vtkMRMLVolumeNode | None, database: Database | None = None
) -> StudyIdentity | None:
    """Patient and study of a volume from the DICOM database; None where it does not come from there."""
    files = instanceFiles(volumeNode, database) if volumeNode is not None else []
    return identity_of(files[0]) if files else None


def exportDicom(
    table: LesionTable, folder: Path | str, generateUids: bool = False, database: Database | None = None
) -> Exported:
    """Writes segmentation.dcm and report.dcm about a table's segmentation; see :func:`~..dicom.export.export_dicom`.

    Raises:
        InputError: the CT does not come from the DICOM database, or its slices cannot honestly be referred to.
        MissingPackageError: highdicom is not installed.
        OutputError: the files cannot be written.
        ResourceError: the disk or the memory is full.
    """
    return exhausted(exportDicomSteps(table, folder, generateUids, database))


def exportDicomSteps(
    table: LesionTable, folder: Path | str, generateUids: bool = False, database: Database | None = None
) -> Generator[None, None, Exported]:
    """:func:`exportDicom` in steps; closing the generator before its end leaves the folder as it was."""
    volumeNode = table.volumeNode
    if volumeNode is None:
        raise InputError("The CT is no longer in the scene, and DICOM objects refer to its slices. Load it again.")
    files = instanceFiles(volumeNode, database)
    if not files:
        raise InputError(
            f"'{volumeNode.GetName()}' does not come from Slicer's DICOM database, or its files are gone, so that "
            "DICOM objects have no slices to refer to. Import the series with the module DICOM and load it from there."
        )
    yield
    assessment = yield from assessmentSteps(table)
    yield
    return (yield from export_steps(assessment, files, folder, generateUids))


def importDicomSegmentation(
    path: Path | str, volumeNode: slicer.vtkMRMLScalarVolumeNode, database: Database | None = None
) -> tuple[LesionTable, ImportedLabels]:
    """Adds a DICOM segmentation that was drawn on a volume as a segmentation node with its table of lesions.

    Raises:
        InputError: no segmentation, one on other voxels, one of another patient, or one without liver and lesions.
    """
    volume = volumeFromNode(volumeNode)
    imported = import_segmentation(path, _named(volume, volumeNode, database))
    scene = volumeNode.GetScene()
    lesions = measure_lesions(imported.labels, volume.grid)
    liver = float(np.count_nonzero(imported.labels >= LIVER_LABEL)) * volume.grid.voxel_volume_mm3 / 1000
    result = Result(volume, imported.labels, lesions, liver)
    segmentationNode = segmentationFromResult(result, scene, volumeNode)
    try:
        segmentation = segmentationNode.GetSegmentation()
        for note in imported.notes:
            # A segment of which nothing is left, because later ones lie on it, is not there.
            segment = segmentation.GetSegment(_segmentId(note.label))
            if segment is not None and note.name:
                segment.SetName(note.name)
        if imported.couinaud is not None:
            setCouinaudSegments(segmentationNode, imported.couinaud, volume.grid)
        table = LesionTable.create(segmentationNode, volumeNode, scene, result)
        for note in imported.notes:
            segmentId = _segmentId(note.label)
            if segmentation.GetSegment(segmentId) is None:
                continue
            if note.comment:
                table.setComment(segmentId, note.comment)
            if note.tracking_uid:
                table.setTrackingUid(segmentId, note.tracking_uid)
    except BaseException:
        scene.RemoveNode(segmentationNode)
        raise
    return table, imported


def _named(volume: Volume, volumeNode: slicer.vtkMRMLScalarVolumeNode, database: Database | None) -> Volume:
    """The volume with what its files say about patient and series, against which a segmentation is checked."""
    identity = identityOfVolumeNode(volumeNode, database)
    if identity is None:
        return volume
    source = {
        **volume.source,
        "patient_id": identity.patient_id,
        "series_instance_uid": identity.series_instance_uid,
    }
    return Volume(volume.array, volume.grid, volume.name, source, volume.findings)


def _segmentId(label: int) -> str:
    """The id that :func:`segmentationFromResult` gives a lesion."""
    return f"Lesion_{label - LIVER_LABEL}"
