"""A comparison as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

from .comparison import FollowUp
from .tables import CSV_COLUMNS, as_record, csv_rows

JSON_FILE, CSV_FILE = "followup.json", "followup.csv"


def write_files(followup: FollowUp, folder: Path, safe_cell: Callable[[str], str]) -> None:
    """Writes followup.json and followup.csv into a folder that exists.

    Args:
        followup: what is written.
        folder: such as the staging folder of an output.
        safe_cell: makes a text one that no spreadsheet takes for a formula.

    Raises:
        OSError: a file cannot be written.
    """
    content = json.dumps(as_record(followup), indent=2, allow_nan=False)
    (folder / JSON_FILE).write_text(content + "\n", encoding="utf-8")
    with (folder / CSV_FILE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(CSV_COLUMNS)
        texts = {CSV_COLUMNS.index(name) for name in ("study", "lesions", "tracking_uids")}
        for row in csv_rows(followup):
            writer.writerow([safe_cell(cell) if n in texts else cell for n, cell in enumerate(row)])
