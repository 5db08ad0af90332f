"""MRML nodes ↔ Volume and Result: the only folder that touches MRML.

Works in the Slicer application and with ``slicer-core`` from PyPI alike, which is why every function takes the scene
or a node as an argument and none asks for ``slicer.mrmlScene`` or ``slicer.app``. Functions that touch MRML are in
camelCase, as Slicer's own are. The names below are imported on first use: whoever only starts a
:class:`SceneProcess` never loads MRML.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "CouinaudFollower": "couinaud",
    "LesionRow": "lesion_table",
    "LesionTable": "lesion_table",
    "REVIEWS": "lesion_table",
    "ReportNotes": "report_notes",
    "SegmentationSequence": "sequences",
    "assessmentFromTable": "assessment",
    "assessmentSteps": "assessment",
    "centerOn": "views",
    "areCouinaudSegmentsShown": "couinaud",
    "couinaudFromSegmentation": "couinaud",
    "couinaudSegments": "couinaud",
    "couinaudMethod": "couinaud",
    "createLandmarks": "landmarks",
    "createScene": "volumes",
    "exportResult": "export",
    "frames": "sequences",
    "exportDicomSteps": "dicom",
    "identityOfVolumeNode": "dicom",
    "importDicomSegmentation": "dicom",
    "landmarksFromNode": "landmarks",
    "landmarksNode": "landmarks",
    "largestLesion": "views",
    "liverOfSegmentation": "couinaud",
    "readReportNotes": "report_notes",
    "segmentVolumes": "couinaud",
    "sequenceOf": "sequences",
    "setCouinaudSegments": "couinaud",
    "showCouinaudSegments": "couinaud",
    "showResult": "views",
    "uncertaintyNode": "uncertainty",
    "surfaceSteps": "surfaces",
    "nodeFromVolume": "volumes",
    "showInSliceViews": "volumes",
    "volumeFromNode": "volumes",
    "volumeSteps": "volumes",
    "voxelsOfNode": "volumes",
    "worldGrid": "volumes",
    "createClosedSurface": "segmentations",
    "resultLabelsFromSegmentation": "segmentations",
    "segmentationFromResult": "segmentations",
    "segmentationSteps": "segmentations",
    "SceneBundle": "bundle",
    "writeReportNotes": "report_notes",
    "writeSceneFiles": "bundle",
    "render3D": "rendering",
    "SceneProcess": "process",
    "CompareViews": "followup",
    "colorByChange": "followup",
    "followUpTableNode": "followup",
    "lesionTables": "followup",
    "ownColors": "followup",
    "placesOf": "followup",
    "studySteps": "followup",
    "transformNodeFromDeformation": "followup",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
