"""What the scene keeps about lesions: records in an attribute of the table node, and columns for the eye.

The columns are a view, rewritten as a whole. Slicer's table files lose quotes, empty cells, line breaks and all but
six digits of a number, so nothing is ever read back from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import slicer
from vtkmodules.vtkCommonCore import vtkDoubleArray, vtkStringArray
from vtkmodules.vtkCommonDataModel import vtkTable

from ..lesions.assessment import Axis, Value, couinaud_text
from ..lesions.couinaud import Share
from ..lesions.measurements import MEASUREMENTS, is_known, unknown_values

RECORDS_ATTRIBUTE = "LiverCascade.Lesions"
FORMAT_VERSION = 2
# Version 1 knew volume, diameter and centroid; its lesions are measured again, reviews and comments are kept.
_OLDER_VERSIONS = (1,)


@dataclass
class LesionRecord:
    """One lesion as it was last measured, and what the reader thinks of it.

    Attributes:
        fingerprint: of the voxels that were measured.
        values: by the keys of :data:`~..lesions.measurements.MEASUREMENTS`; positions in the world (RAS mm).
        long_axis, short_axis: both ends, RAS mm in the world.
        box: first and last (i, j, k) in voxels of the CT.
        couinaud: the liver's segments that it touches.
        tracking_uid: stays with the lesion whatever becomes of its voxels.
    """

    fingerprint: str
    values: dict[str, Value]
    review: str
    comment: str = ""
    long_axis: Axis | None = None
    short_axis: Axis | None = None
    box: list[list[int]] | None = None
    couinaud: tuple[Share, ...] = ()
    tracking_uid: str = ""


@dataclass
class TableState:
    """Everything that the table node remembers.

    Attributes:
        lesions: by segment id, in the order of the segments.
        inherited: ids of segments that Slicer's editor gave a lesion's terminology without anybody's wish.
        world: 16 numbers, the matrix from the segmentation's coordinates to the world as lesions were measured.
        highest_number: of all lesions that ever had one; numbers are not used twice.
        surroundings: tells what the lesions lay in when they were measured.
        ct: tells the CT that they were measured on; empty without one.
        confidences: of the run, by the fingerprint of the voxels that it found.
        findings: of the run, as plain texts.
        provenance: of the run.
    """

    lesions: dict[str, LesionRecord] = field(default_factory=dict)
    inherited: list[str] = field(default_factory=list)
    world: list[float] = field(default_factory=lambda: np.eye(4).ravel().tolist())
    highest_number: int = 0
    surroundings: str = ""
    ct: str = ""
    confidences: dict[str, float] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


def readState(tableNode: slicer.vtkMRMLTableNode) -> TableState | None:
    """The state that a table node carries; None where it carries none that can be read."""
    try:
        content = json.loads(tableNode.GetAttribute(RECORDS_ATTRIBUTE) or "")
        version = content.pop("version")
        if version not in (FORMAT_VERSION, *_OLDER_VERSIONS):
            return None
        lesions = {segmentId: _record(**kept) for segmentId, kept in content.pop("lesions").items()}
        return TableState(lesions=lesions, **content)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _record(values: Mapping[str, Value], **kept: Any) -> LesionRecord:
    """A record from its JSON; of one that was measured otherwise than today, so that it is measured again."""
    kept["long_axis"], kept["short_axis"] = (_axis(kept.get(name)) for name in ("long_axis", "short_axis"))
    kept["couinaud"] = tuple(Share(int(value), float(part)) for value, part in kept.get("couinaud", ()))
    record = LesionRecord(values=unknown_values(), **kept)
    # What JSON has no number for is null there: the one object that stands for it keeps rows equal to themselves.
    record.values |= {key: value for key, value in values.items() if key in record.values and is_known(value)}
    if values.keys() != record.values.keys():
        record.fingerprint = ""
    return record


def _axis(ends: list[list[float]] | None) -> Axis | None:
    return None if ends is None else Axis(*(tuple(end) for end in ends))


def _text(state: TableState) -> str:
    """The state as JSON."""
    content: dict[str, Any] = {"version": FORMAT_VERSION, **{**vars(state), "lesions": {}}}
    for segmentId, record in state.lesions.items():
        kept = asdict(record)
        kept["values"] = {key: value if is_known(value) else None for key, value in record.values.items()}
        for name in ("long_axis", "short_axis"):
            axis = getattr(record, name)
            kept[name] = None if axis is None else [axis.start, axis.end]
        kept["couinaud"] = [[share.value, share.fraction] for share in record.couinaud]
        content["lesions"][segmentId] = kept
    return json.dumps(content, default=str)


def writeState(tableNode: slicer.vtkMRMLTableNode, state: TableState, names: dict[str, str]) -> None:
    """Writes the state and the columns with one event, or with none where nothing changed.

    Args:
        names: of the segments, by their ids.
    """
    text = _text(state)
    shown = [names.get(segmentId, segmentId) for segmentId in state.lesions]
    table = tableNode.GetTable()
    if tableNode.GetAttribute(RECORDS_ATTRIBUTE) == text and _columnTexts(table, "name") == shown:
        return
    wasModifying = tableNode.StartModify()
    try:
        tableNode.SetAttribute(RECORDS_ATTRIBUTE, text)
        tableNode.SetAndObserveTable(_view(state, shown))
        tableNode.SetUseColumnTitleAsColumnHeader(True)
        for measurement in MEASUREMENTS:
            tableNode.SetColumnTitle(measurement.key, measurement.header)
            tableNode.SetColumnUnitLabel(measurement.key, measurement.unit)
        for key, title in _MORE_COLUMNS.items():
            tableNode.SetColumnTitle(key, title)
        tableNode.SetLocked(True)
    finally:
        tableNode.EndModify(wasModifying)


_MORE_COLUMNS = {"name": "Lesion", "couinaud": "Segments", "review": "Review", "comment": "Comment"}


def _view(state: TableState, names: list[str]) -> vtkTable:
    records = state.lesions.values()
    table = vtkTable()
    table.AddColumn(_texts("name", names))
    table.AddColumn(_texts("couinaud", [couinaud_text(record.couinaud) for record in records]))
    for measurement in MEASUREMENTS:
        values = [record.values[measurement.key] for record in records]
        if measurement.kind != "number":
            table.AddColumn(_texts(measurement.key, [measurement.text(value) for value in values]))
            continue
        column = vtkDoubleArray()
        column.SetName(measurement.key)
        for value in values:
            column.InsertNextValue(round(float(value), measurement.digits) if is_known(value) else float("nan"))
        table.AddColumn(column)
    table.AddColumn(_texts("review", [record.review for record in records]))
    table.AddColumn(_texts("comment", [record.comment for record in records]))
    return table


def _texts(name: str, values: list[str]) -> vtkStringArray:
    column = vtkStringArray()
    column.SetName(name)
    for value in values:
        # An empty cell or a quotation mark would shift the columns of a table file.
        column.InsertNextValue(" ".join(value.replace('"', "'").split()) or "-")
    return column


def _columnTexts(table: vtkTable | None, name: str) -> list[str] | None:
    column = table.GetColumnByName(name) if table is not None else None
    return None if column is None else [column.GetValue(n) for n in range(column.GetNumberOfValues())]
