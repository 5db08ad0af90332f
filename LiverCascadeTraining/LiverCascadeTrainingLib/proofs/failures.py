"""Which cases are the worst, and their pictures: the networks are run on them once more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from LiverCascadeLib.cascade import Cascade, Options, load_cascade, segment
from LiverCascadeLib.volume import Volume

from ..measure import reference
from . import held_out_set, robustness
from .pictures import FailurePicture, draw_failure

LIVER_FILE, LESION_FILE = "failure-held-out-liver.png", "failure-held-out-lesions.png"
REAL_FILE, CHANGED_FILE = "failure-real-liver.png", "failure-changed-scan.png"


def failures_of_held_out(request: held_out_set.Request, say: Callable[[str], None] = print) -> list[FailurePicture]:
    """The synthetic scan with the lowest Dice of the liver, and that with most lesions missed and false.

    The set must have been run.
    """
    options = Options(device=request.device, overlap=request.config.overlap)
    cascade = load_cascade(request.models, options)
    records = held_out_set.records_of(request, cascade)
    cases = [records.get(held_out_set.name_of(number)) for number in request.numbers]
    worst_liver = min(cases, key=lambda case: (case["liver_dice"], case["number"]))
    worst_lesions = max(cases, key=lambda case: (_wrong(case), -case["number"]))
    pictures = []
    for case, file, value in ((worst_liver, LIVER_FILE, 1), (worst_lesions, LESION_FILE, 2)):
        scan = held_out_set.scan_of(request, case["number"])
        what = f"Synthetic scan {case['number']}, {held_out_set.told(case)}"
        say(f"{file}: {what}")
        labels = segment(scan.volume, cascade, options).labels
        pictures.append(draw_failure(file, what, labels, scan.truth, scan.volume.array, scan.volume.grid, value))
    return pictures


def _wrong(case: dict) -> int:
    """Lesions missed and false ones."""
    return len(case["true"]) - held_out_set.found_count(case) + held_out_set.false_count(case)


def failures_of_robustness(
    request: robustness.Request, table: dict, say: Callable[[str], None] = print
) -> list[FailurePicture]:
    """The real case with the lowest Dice as it is, and the changed scan with the largest drop that nothing explains;
    where everything is explained, that with the largest drop.

    Real CTs belong to others: contours are shown without the scan.
    """
    cascade = load_cascade(request.models, Options(device=request.device))
    case = min(table["cases"], key=lambda name: table["cases"][name]["liver_dice"])
    figure = table["cases"][case]["liver_dice"]
    chosen = [(REAL_FILE, case, None, f"{case} as it is, liver Dice {figure:.3f}")]
    cells = [(row["name"], name, cell) for row in table["rows"] for name, cell in row["cases"].items()]
    if cells:
        failing = [entry for entry in cells if entry[2]["verdict"] == robustness.FAILS]
        row, name, cell = max(failing or cells, key=lambda entry: entry[2]["drop"])
        text = robustness.BY_NAME[row].text
        chosen.append((CHANGED_FILE, name, row, f"{name}, {text}: liver Dice lower by {cell['drop']:.3f}"))
    pictures = []
    for file, name, row, what in chosen:
        say(f"{file}: {what}")
        pictures.append(_contours(file, name, row, what, request.data, cascade, request.device))
    return pictures


def _contours(
    file: str, case: str, row: str | None, what: str, data: Path, cascade: Cascade, device: str
) -> FailurePicture:
    scan = reference(data, case)
    volume, liver = robustness.changed(scan, None if row is None else robustness.BY_NAME[row])
    labels = _liver_of(volume, cascade, device)
    return draw_failure(file, what, labels, liver.astype(np.uint8), None, volume.grid, 1)


def _liver_of(volume: Volume, cascade: Cascade, device: str) -> np.ndarray:
    return (segment(volume, cascade, Options(device=device)).labels > 0).astype(np.uint8)
