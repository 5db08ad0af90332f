"""A segmentation of a scene, with its reviews, as an :class:`~..lesions.assessment.Assessment`."""

from __future__ import annotations

from collections.abc import Generator

from ..errors import InputError
from ..findings import Finding, Severity
from ..lesions.assess import LesionNote, assess_steps
from ..lesions.assessment import Assessment
from ..lesions.measurements import is_known
from ..result import FIRST_LESION_LABEL
from ..steps import exhausted
from .couinaud import couinaudFromSegmentation
from .lesion_table import LesionTable
from .segmentations import resultLabelsFromSegmentation
from .volumes import volumeSteps


def assessmentFromTable(table: LesionTable) -> Assessment:
    """:func:`assessmentSteps` at once."""
    return exhausted(assessmentSteps(table))


def assessmentSteps(table: LesionTable) -> Generator[None, None, Assessment]:
    """Measures what a reader made of a result: rejected lesions are liver, names, reviews and comments are kept.

    Labels are those of exported files: the n-th lesion that counts has the label n + 1, and where segments overlap the
    later one wins. Pauses between short pieces.

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
    yield from table.updateSteps()
    volume = yield from volumeSteps(volumeNode)
    rows = [row for row in table.rows() if row.isCounted]
    labels = resultLabelsFromSegmentation(segmentationNode, volume.grid, [row.segmentId for row in rows])
    notes = [
        LesionNote(label, row.name, row.review, row.comment, row.trackingUid)
        for label, row in enumerate(rows, start=FIRST_LESION_LABEL)
    ]
    yield
    couinaud = couinaudFromSegmentation(segmentationNode, volume.grid)
    yield
    provenance = {**table.provenance, "edited": True} if table.isEdited() else table.provenance
    return (
        yield from assess_steps(
            volume,
            labels,
            lesions=notes,
            couinaud=couinaud,
            confidences={n: row.confidence for n, row in enumerate(rows, start=1) if is_known(row.confidence)},
            findings=[_finding(texts) for texts in table.runFindings],
            provenance=provenance,
            rejected=sum(row.isRejected for row in table.rows()),
        )
    )


def _finding(texts: dict[str, str]) -> Finding:
    return Finding(texts["code"], Severity(texts["severity"]), texts["message"])
