"""What the scene keeps about lesions: records in an attribute of the table node, and columns for the eye.

The columns are a view, rewritten as a whole. Slicer's table files lose quotes, empty cells, line breaks and all but
six digits of a number, so nothing is ever read back from them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import numpy as np
import slicer
from vtkmodules.vtkCommonCore import vtkDoubleArray, vtkStringArray
from vtkmodules.vtkCommonDataModel import vtkTable

from ..lesions.measurements import MEASUREMENTS

RECORDS_ATTRIBUTE = "LiverCascade.Lesions"
FORMAT_VERSION = 1


@dataclass
class LesionRecord:
    """One lesion as it was last measured, and what the reader thinks of it.

    Attributes:
        fingerprint: of the voxels that were measured.
        values: by the keys of :data:`~..lesions.measurements.MEASUREMENTS`; positions in the world (RAS mm).
    """

    fingerprint: str
    values: dict[str, float]
    review: str
    comment: str = ""


@dataclass
class TableState:
    """Everything that the table node remembers.

    Attributes:
        lesions: by segment id, in the order of the segments.
        inherited: ids of segments that Slicer's editor gave a lesion's terminology without anybody's wish.
        world: 16 numbers, the matrix from the segmentation's coordinates to the world as lesions were measured.
        highest_number: of all lesions that ever had one; numbers are not used twice.
    """

    lesions: dict[str, LesionRecord] = field(default_factory=dict)
    inherited: list[str] = field(default_factory=list)
    world: list[float] = field(default_factory=lambda: np.eye(4).ravel().tolist())
    highest_number: int = 0


def readState(tableNode: slicer.vtkMRMLTableNode) -> TableState | None:
    """The state that a table node carries; None where it carries none that can be read."""
    try:
        content = json.loads(tableNode.GetAttribute(RECORDS_ATTRIBUTE) or "")
        if content.pop("version") != FORMAT_VERSION:
            return None
        lesions = {segmentId: LesionRecord(**record) for segmentId, record in content.pop("lesions").items()}
        # A measurement that is newer than the scene is made again with the next update.
        for record in lesions.values():
            if record.values.keys() != {measurement.key for measurement in MEASUREMENTS}:
                record.fingerprint = ""
                record.values = {m.key: record.values.get(m.key, float("nan")) for m in MEASUREMENTS}
        return TableState(lesions=lesions, **content)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def writeState(tableNode: slicer.vtkMRMLTableNode, state: TableState, names: dict[str, str]) -> None:
    """Writes the state and the columns with one event, or with none where nothing changed.

    Args:
        names: of the segments, by their ids.
    """
    text = json.dumps({"version": FORMAT_VERSION, **asdict(state)})
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
            title = f"{measurement.title} ({measurement.unit})" if measurement.unit else measurement.title
            tableNode.SetColumnTitle(measurement.key, title)
            tableNode.SetColumnUnitLabel(measurement.key, measurement.unit)
        for key, title in (("name", "Lesion"), ("review", "Review"), ("comment", "Comment")):
            tableNode.SetColumnTitle(key, title)
        tableNode.SetLocked(True)
    finally:
        tableNode.EndModify(wasModifying)


def _view(state: TableState, names: list[str]) -> vtkTable:
    records = state.lesions
    table = vtkTable()
    table.AddColumn(_texts("name", names))
    for measurement in MEASUREMENTS:
        column = vtkDoubleArray()
        column.SetName(measurement.key)
        for record in records.values():
            column.InsertNextValue(round(record.values[measurement.key], measurement.digits))
        table.AddColumn(column)
    table.AddColumn(_texts("review", [record.review for record in records.values()]))
    table.AddColumn(_texts("comment", [record.comment for record in records.values()]))
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
