"""The files of an evaluation: CSV and JSON per case, pooled figures, comparison, plots, pictures and the page."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from LiverCascadeLib import __version__
from LiverCascadeLib.report.files import RESEARCH_USE, OutputFolder, safe_cell

from .cases import Case
from .comparison import Difference, compare_models
from .detection import FoundLesion
from .pooled import summary
from .study import Request, Study

CASES_CSV, LESIONS_CSV, CASES_JSON = "cases.csv", "lesions.csv", "cases.json"
POOLED_JSON, COMPARISON_JSON, PAGE = "pooled.json", "comparison.json", "evaluation.html"
FORMAT, FORMAT_VERSION = "LiverCascade evaluation", 1
DIGITS = 6


def write_study(
    study: Study,
    folder: OutputFolder,
    date: datetime,
    worst: int = 3,
    with_pages: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Difference, ...]:
    """Writes all files of an evaluation into the folder's staging; the caller commits them.

    Args:
        study: what was found.
        folder: entered.
        date: of the page.
        worst: how many worst cases of each model get a picture, for the liver and for lesions.
        with_pages: False leaves out plots, pictures and the page.
        say: is told what takes long.

    Returns:
        the differences of each two models.
    """
    differences = compare_models(study.data, study.request.seed) if len(study.data) > 1 else ()
    into = folder.staging
    _write_csv(into / CASES_CSV, _case_columns(study), _case_rows(study))
    if study.request.with_lesions:
        _write_csv(into / LESIONS_CSV, LESION_COLUMNS, _lesion_rows(study))
    _write_json(into / CASES_JSON, "cases", {name: [_case(c) for c in d.cases] for name, d in study.data.items()})
    pooled = {
        "request": _request(study.request),
        "remarks": list(study.remarks),
        "models": {name: summary(data) for name, data in study.data.items()},
    }
    _write_json(into / POOLED_JSON, "pooled figures", pooled)
    if differences:
        _write_json(into / COMPARISON_JSON, "comparison", [d.as_dict() for d in differences])
    if with_pages:
        from .page import write_page

        write_page(study, differences, into, date, worst, say)
    return differences


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    """A cell: empty where a figure is not known."""
    if isinstance(value, str):
        return safe_cell(value)
    value = _plain(value)
    return "" if value is None else value


def _plain(value: Any) -> Any:
    """A value for JSON: rounded, None where it is not a number."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value


def _write_json(path: Path, kind: str, content: Any) -> None:
    record = {
        "format": f"{FORMAT}: {kind}",
        "format_version": FORMAT_VERSION,
        "notice": RESEARCH_USE,
        "livercascade": __version__,
        "content": _rounded(content),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return _plain(value)


def _case_columns(study: Study) -> list[str]:
    first = next(iter(study.data.values())).cases[0]
    lesions = ["reference_lesions", "predicted_lesions", *_COUNTS] if study.request.with_lesions else []
    return ["model", "case", "patient", *first.values, *lesions]


_COUNTS = [f"{what}_{threshold:g}" for threshold in (0.0, 0.1, 0.5) for what in ("detected", "false")]


def _case_rows(study: Study) -> Iterable[list[Any]]:
    for model, data in study.data.items():
        for case in data.cases:
            counts = _counts(case) if study.request.with_lesions else {}
            yield [model, case.name, case.patient, *case.values.values(), *counts.values()]


def _counts(case: Case) -> dict[str, int]:
    counts = {"reference_lesions": len(case.reference_lesions), "predicted_lesions": len(case.predicted_lesions)}
    for threshold in (0.0, 0.1, 0.5):
        counts[f"detected_{threshold:g}"] = sum(n.iou > threshold for n in case.reference_lesions)
        counts[f"false_{threshold:g}"] = sum(n.iou <= threshold for n in case.predicted_lesions)
    return counts


LESION_COLUMNS = (
    *("model", "case", "patient", "side", "number", "size_bin", "long_axis_mm", "equivalent_diameter_mm", "volume_ml"),
    *("center_r_mm", "center_a_mm", "center_s_mm", "iou", "lits_iou", "pair_iou", "confidence"),
)


def _lesion_rows(study: Study) -> Iterable[list[Any]]:
    for model, data in study.data.items():
        for case in data.cases:
            for side, lesions in (("reference", case.reference_lesions), ("predicted", case.predicted_lesions)):
                yield from ([model, case.name, case.patient, side, *_lesion_cells(n)] for n in lesions)


def _lesion_cells(n: FoundLesion) -> list[Any]:
    # A leading '<' or '>' is plain text to a spreadsheet.
    sizes = [n.number, n.size_bin, n.long_axis_mm, n.equivalent_diameter_mm, n.volume_ml]
    return [*sizes, *n.center_ras, n.iou, n.lits_iou, n.pair_iou, n.confidence]


def _case(case: Case) -> dict[str, Any]:
    content: dict[str, Any] = {
        "case": case.name,
        "patient": case.patient,
        "voxels": {structure: vars(overlap) for structure, overlap in case.overlaps.items()},
        "figures": dict(case.values),
    }
    if case.with_lesions:
        content["lesions"] = _counts(case)
        for side in ("reference_lesions", "predicted_lesions"):
            content[side] = [{**vars(n), "size_bin": n.size_bin} for n in getattr(case, side)]
    return content


def _request(request: Request) -> dict[str, Any]:
    return {
        "draws": request.draws,
        "seed": request.seed,
        "reference_labels": meaning_text(request.reference_meaning),
        "models": [
            {
                "name": model.name,
                "labels": meaning_text(model.meaning),
                "post_processing": model.post.name if model.post else None,
            }
            for model in request.models
        ],
    }


def meaning_text(meaning: Any) -> str:
    """What labels mean, as ``--labels`` takes it."""

    def values(ranges: Sequence[tuple[int, int | None]]) -> str:
        return "+".join(f"{first}-" if last is None else str(first) for first, last in ranges)

    lesion = f",lesion={values(meaning.lesion)}" if meaning.lesion else ""
    return f"liver={values(meaning.liver)}{lesion}"
