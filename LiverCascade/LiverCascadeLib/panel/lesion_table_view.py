"""The lesions as rows: a click goes there, the last column takes comments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import qt
from slicer.i18n import tr as _

from ..scene import LesionRow

COLUMNS = COLUMN_NAME, COLUMN_SEGMENT, COLUMN_VOLUME, COLUMN_AXES, COLUMN_HU, COLUMN_REVIEW, COLUMN_COMMENT = range(7)
_FIGURES = (COLUMN_VOLUME, COLUMN_AXES, COLUMN_HU)
_SIGNS = {"unreviewed": "", "accepted": "✔", "rejected": "✖", "unsure": "?"}


@dataclass
class TableListener:
    """Who is told what the user did; ids are those of segments."""

    chosen: Callable[[str], None] = lambda segmentId: None
    commented: Callable[[str, str], None] = lambda segmentId, text: None
    selectionChanged: Callable[[], None] = lambda: None


class LesionTableView:
    """Fills a QTableWidget with lesions and tells what the user does with them.

    Args:
        table: the widget.
        listener: is told.
    """

    def __init__(self, table: object, listener: TableListener) -> None:
        self._table, self._listener = table, listener
        self._rows: list[LesionRow] = []
        table.setColumnCount(len(COLUMNS))
        table.setHorizontalHeaderLabels(
            [_("Lesion"), _("Segment"), _("mL"), _("Axial mm"), _("HU"), _("Review"), _("Comment")]
        )
        table.verticalHeader().setVisible(False)
        header = table.horizontalHeader()
        header.setStretchLastSection(True)
        for column in range(COLUMN_COMMENT):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        table.setMinimumHeight(140)
        table.connect("cellClicked(int,int)", self._onClicked)
        table.connect("currentCellChanged(int,int,int,int)", self._onCurrent)
        table.connect("cellChanged(int,int)", self._onChanged)
        table.connect("itemSelectionChanged()", listener.selectionChanged)

    def show(self, rows: Sequence[LesionRow]) -> None:
        """Shows ``rows``; only cells whose content differs are touched, and the selection stays."""
        rows = list(rows)
        if rows == self._rows:
            return
        sameLesions = [row.segmentId for row in rows] == [row.segmentId for row in self._rows]
        selected = set() if sameLesions else set(self.selectedIds())
        blocked = self._table.blockSignals(True)
        self._table.setColumnHidden(COLUMN_SEGMENT, not any(row.couinaud for row in rows))
        before, self._rows = self._rows, rows
        if not sameLesions:
            self._table.clearSelection()
            self._table.setRowCount(len(rows))
        for index, row in enumerate(rows):
            if not sameLesions or row != before[index]:
                self._showRow(index, row)
        for index, row in enumerate(rows):
            if row.segmentId in selected:
                self._table.selectRow(index)
        self._table.blockSignals(blocked)
        self._listener.selectionChanged()

    def selectedIds(self) -> list[str]:
        """Segments of the selected rows, from top to bottom."""
        indexes = self._table.selectionModel().selectedRows()
        numbers = sorted(index.row() for index in indexes)
        return [self._rows[number].segmentId for number in numbers if number < len(self._rows)]

    def select(self, segmentId: str) -> None:
        """Selects the row of ``segmentId`` without telling anybody that it was chosen."""
        blocked = self._table.blockSignals(True)
        for index, row in enumerate(self._rows):
            if row.segmentId == segmentId:
                self._table.selectRow(index)
        self._table.blockSignals(blocked)
        self._listener.selectionChanged()

    def _showRow(self, index: int, row: LesionRow) -> None:
        texts = {
            COLUMN_NAME: row.name,
            COLUMN_SEGMENT: row.couinaud,
            COLUMN_VOLUME: _number(row.volumeMl, 2),
            COLUMN_AXES: _axes(row.longAxisMm, row.shortAxisMm),
            COLUMN_HU: _number(row.values["mean_hu"], 0),
            COLUMN_REVIEW: f"{_SIGNS.get(row.review, '')} {reviewInWords(row.review)}".strip(),
            COLUMN_COMMENT: row.comment,
        }
        for column, text in texts.items():
            item = self._table.item(index, column)
            if item is None:
                item = qt.QTableWidgetItem()
                self._table.setItem(index, column, item)
            item.setText(text)
            if column != COLUMN_COMMENT:
                item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
            if column in _FIGURES:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            font = item.font()
            font.setStrikeOut(row.isRejected and column != COLUMN_COMMENT)
            item.setFont(font)

    def _onClicked(self, row: int, column: int) -> None:
        self._choose(row)

    def _onCurrent(self, row: int, column: int, previousRow: int, previousColumn: int) -> None:
        # A click arrives here too, and then again as a click: going twice to the same place does no harm.
        if row != previousRow:
            self._choose(row)

    def _choose(self, row: int) -> None:
        if 0 <= row < len(self._rows):
            self._listener.chosen(self._rows[row].segmentId)

    def _onChanged(self, row: int, column: int) -> None:
        if column == COLUMN_COMMENT and row < len(self._rows):
            text = self._table.item(row, column).text()
            if text != self._rows[row].comment:
                self._listener.commented(self._rows[row].segmentId, text)


def reviewInWords(review: str) -> str:
    """The review as the user reads it."""
    return {"accepted": _("accepted"), "rejected": _("rejected"), "unsure": _("unsure")}.get(review, "")


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _axes(long: float, short: float) -> str:
    return f"{_number(long, 0)} × {_number(short, 0)}" if math.isfinite(long) else "–"
