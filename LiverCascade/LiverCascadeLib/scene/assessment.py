"""A segmentation of a scene, with its reviews, as an :class:`~..lesions.assessment.Assessment`."""

from __future__ import annotations

from ..errors import InputError
from ..findings import Finding, Severity
from ..lesions.assess import LesionNote, assess
from ..lesions.assessment import Assessment
from ..lesions.measurements import is_known
from ..result import FIRST_LESION_LABEL
from .couinaud import couinaudFromSegmentation
from .lesion_table import LesionTable
from .segmentations import resultLabelsFromSegmentation
from .volumes import volumeFromNode


def assessmentFromTable(table: LesionTable) -> Assessment:
    """Measures what a reader made of a result: rejected lesions are liver, names, reviews and comments are kept.

    Labels are those of exported files: the n-th lesion that counts has the label n + 1, and where segments overlap the
    later one wins.

    Raises:
        InputError: the segmentation or the CT is gone, or one stands under a non-linear transform.
    """
    segmentationNode, volumeNode = table.segmentationNode, table.volumeNode
    if segmentationNode is None:
        raise InputError("The segmentation is no longer in the scene, so there is nothing to measure.")
    if volumeNode is None:
        raise InputError(
            f"The CT of '{segmentationNode.GetName()}' is no longer in the scene. Load it, choose it in the panel and "
            "try again."
        )
    table.update()
    volume = volumeFromNode(volumeNode)
    rows = [row for row in table.rows() if row.isCounted]
    labels = resultLabelsFromSegmentation(segmentationNode, volume.grid, [row.segmentId for row in rows])
    notes = [
        LesionNote(label, row.name, row.review, row.comment, row.trackingUid)
        for label, row in enumerate(rows, start=FIRST_LESION_LABEL)
    ]
    return assess(
        volume,
        labels,
        lesions=notes,
        couinaud=couinaudFromSegmentation(segmentationNode, volume.grid),
        confidences={n: row.confidence for n, row in enumerate(rows, start=1) if is_known(row.confidence)},
        findings=[_finding(texts) for texts in table.runFindings],
        provenance=table.provenance,
        rejected=sum(row.isRejected for row in table.rows()),
    )


def _finding(texts: dict[str, str]) -> Finding:
    return Finding(texts["code"], Severity(texts["severity"]), texts["message"])
