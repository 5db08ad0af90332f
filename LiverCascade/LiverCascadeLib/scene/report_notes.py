"""What a reader typed for the report, kept with the table of lesions, so that it is saved with the scene."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import slicer

from ..errors import InputError
from ..report.document import ReaderText
from ..report.record import reader_text_of

NOTES_ATTRIBUTE = "LiverCascade.Report"
_VERSION = 1


@dataclass
class ReportNotes:
    """Texts of the report.

    Attributes:
        text: of the reader; None where nothing was typed.
        identity: what was typed of patient and study, by the names of
            :class:`~..report.identity.StudyIdentity`; counts more than DICOM.
    """

    text: ReaderText = field(default_factory=ReaderText)
    identity: dict[str, str] = field(default_factory=dict)


def readReportNotes(tableNode: slicer.vtkMRMLTableNode) -> ReportNotes:
    """The notes on a table node; empty ones where there are none that can be read."""
    try:
        content = json.loads(tableNode.GetAttribute(NOTES_ATTRIBUTE) or "{}")
        if content.get("version", _VERSION) != _VERSION:
            return ReportNotes()
        identity = {str(name): str(value) for name, value in content.get("identity", {}).items()}
        return ReportNotes(reader_text_of(content.get("text", {})), identity)
    except (AttributeError, InputError, TypeError, ValueError):
        return ReportNotes()


def writeReportNotes(tableNode: slicer.vtkMRMLTableNode, notes: ReportNotes) -> None:
    """Keeps the notes; nothing happens where they are there already."""
    text = {name: value for name, value in vars(notes.text).items() if value is not None}
    content = json.dumps({"version": _VERSION, "text": text, "identity": notes.identity})
    if tableNode.GetAttribute(NOTES_ATTRIBUTE) != content:
        tableNode.SetAttribute(NOTES_ATTRIBUTE, content)
