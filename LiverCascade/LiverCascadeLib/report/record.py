"""report.json: everything that a report says, for programs, and the reader's text, which outlives the pages."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..lesions.assessment import AssessedLesion, Assessment, Axis, Value
from ..lesions.couinaud import BY_VALUE
from ..lesions.measurements import LIVER_MEASUREMENTS, MEASUREMENTS, Measurement
from ..lesions.remnant import Remnant
from ..steps import exhausted
from .document import ReaderText, ReportDocument
from .files import RESEARCH_USE
from .identity import StudyIdentity
from .texts import FOLDER
from .wording import reportable

REPORT_FORMAT = "LiverCascade report"
REPORT_FORMAT_VERSION = 1
SCHEMA_FILE = "report.schema.json"
_LESIONS_AT_ONCE = 40


def report_record(
    assessment: Assessment,
    document: ReportDocument,
    identity: StudyIdentity,
    reader_text: ReaderText,
    voxels_sha256: str,
    *,
    remnant: Remnant | None = None,
    followup: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of report.json; plain JSON values, null where a figure is not known."""
    grid = assessment.volume.grid
    return {
        "format": REPORT_FORMAT,
        "format_version": REPORT_FORMAT_VERSION,
        "notice": RESEARCH_USE,
        "date": document.date.isoformat(timespec="seconds"),
        "language": document.t.language,
        "identity": asdict(identity),
        "reader_text": {f.name: getattr(reader_text, f.name) or "" for f in fields(reader_text)},
        "summary": list(document.summary),
        "input": {
            "name": assessment.volume.name,
            "size_ijk": [int(n) for n in grid.size],
            "spacing_mm": [round(float(n), 6) for n in grid.spacing],
            "ijk_to_ras": grid.ijk_to_ras.tolist(),
            "voxels_sha256": voxels_sha256,
        },
        "measurements": {
            "lesion": [_declaration(measurement) for measurement in MEASUREMENTS],
            "liver": [_declaration(measurement) for measurement in LIVER_MEASUREMENTS],
        },
        "liver": {m.key: plain_value(assessment.liver.get(m.key)) for m in LIVER_MEASUREMENTS},
        "lesions": [_lesion(lesion) for lesion in assessment.lesions],
        "rejected": assessment.rejected,
        "couinaud": _couinaud(assessment),
        "remnant": _remnant(remnant),
        "followup": _followup(followup),
        "findings": [finding.as_dict() for finding in reportable(assessment.findings)],
        "limitations": list(document.limitations),
        "provenance": _json(assessment.provenance),
    }


def plain_value(value: Value) -> Value:
    """A figure as JSON has it: null where it is not known."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value


def validate(record: Mapping[str, Any]) -> None:
    """Holds a record against the schema.

    Raises:
        InputError: what is wrong, and where.
    """
    exhausted(validation_steps(record))


def validation_steps(record: Mapping[str, Any]) -> Generator[None, None, None]:
    """As :func:`validate`, with a pause after every few lesions."""
    lesions = record.get("lesions")
    lesions = lesions if isinstance(lesions, list) else []
    yield from _checked(record if not lesions else {**record, "lesions": lesions[:_LESIONS_AT_ONCE]}, 0)
    for start in range(_LESIONS_AT_ONCE, len(lesions), _LESIONS_AT_ONCE):
        yield from _checked({"lesions": lesions[start : start + _LESIONS_AT_ONCE]}, start)


def _checked(part: Mapping[str, Any], start: int) -> Generator[None, None, None]:
    """Holds a part of a record against the schema; ``start`` is the number of its first lesion."""
    for problem in _validator().iter_errors(part):
        place = list(problem.absolute_path)
        if start and not place:
            continue  # what the other parts have
        if start:
            place[1] += start
        name = "/".join(str(step) for step in place) or "its top"
        raise InputError(f"The report is not valid at {name}: {problem.message[:300]}.")
    yield


def read_record(path: Path) -> dict[str, Any]:
    """Reads a report.json.

    Raises:
        InputError: it is missing, damaged, or of a version that this program does not know.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no report {path}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"The report {path} cannot be read: {error}. Move it away or repair it.") from None
    if not isinstance(record, dict) or record.get("format") != REPORT_FORMAT:
        raise InputError(f"{path} is not a report of LiverCascade. Move it away or choose another folder.")
    if record.get("format_version") != REPORT_FORMAT_VERSION:
        raise InputError(
            f"The report {path} has format version {record.get('format_version')}, this program knows "
            f"{REPORT_FORMAT_VERSION}. Move it away or choose another folder."
        )
    return record


def reader_text_of(content: Mapping[str, Any]) -> ReaderText:
    """The reader's text in a report's record, or in an object with its names alone.

    Raises:
        InputError: a text that is not one.
    """
    texts = content.get("reader_text", content)
    names = [f.name for f in fields(ReaderText)]
    found = {name: texts[name] for name in names if name in texts} if isinstance(texts, Mapping) else None
    if found is None or not all(text is None or isinstance(text, str) for text in found.values()):
        raise InputError(f"The reader's text is an object with the texts {', '.join(names)}.")
    return ReaderText(**found)


def identity_in(record: Mapping[str, Any]) -> StudyIdentity:
    """The identity in a report's record; what is not a text is left out."""
    known = {f.name for f in fields(StudyIdentity)}
    content = record.get("identity")
    content = content if isinstance(content, Mapping) else {}
    return StudyIdentity(**{k: v for k, v in content.items() if k in known and isinstance(v, str)})


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    schema = json.loads((FOLDER / SCHEMA_FILE).read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


def _declaration(measurement: Measurement) -> dict[str, Any]:
    code = measurement.code
    return {
        "key": measurement.key,
        "title": measurement.title,
        "unit": measurement.unit,
        "kind": measurement.kind,
        "source": measurement.source,
        "code": None if code is None else {"value": code.value, "scheme": code.scheme, "meaning": code.meaning},
    }


def _lesion(lesion: AssessedLesion) -> dict[str, Any]:
    return {
        "label": lesion.label,
        "name": lesion.name,
        "review": lesion.review,
        "comment": lesion.comment,
        "tracking_uid": lesion.tracking_uid,
        "values": {m.key: plain_value(lesion.values.get(m.key)) for m in MEASUREMENTS},
        "long_axis": _axis(lesion.long_axis),
        "short_axis": _axis(lesion.short_axis),
        "couinaud": [{"segment": s.name, "fraction": round(s.fraction, 6)} for s in lesion.couinaud],
        "box_ijk": {"first": list(lesion.box.start), "last": [n - 1 for n in lesion.box.stop]},
    }


def _axis(axis: Axis | None) -> dict[str, Any] | None:
    if axis is None:
        return None
    start, end = ([round(float(n), 3) for n in point] for point in (axis.start, axis.end))
    return {"start_ras_mm": start, "end_ras_mm": end, "length_mm": round(axis.length_mm, 3)}


def _couinaud(assessment: Assessment) -> dict[str, Any] | None:
    couinaud = assessment.couinaud
    if couinaud is None:
        return None
    segments = [
        {
            "segment": BY_VALUE[value].name,
            "volume_ml": round(volume, 4),
            "lesion_ml": round(assessment.couinaud_lesion_ml.get(value, 0.0), 4),
        }
        for value, volume in sorted(assessment.couinaud_ml.items())
    ]
    return {
        "provider": couinaud.provider,
        "method": couinaud.method,
        "limitations": list(couinaud.limitations),
        "segments": segments,
    }


def _remnant(remnant: Remnant | None) -> dict[str, Any] | None:
    if remnant is None:
        return None
    return {
        "kept": [BY_VALUE[value].name for value in remnant.kept],
        "volume_ml": plain_value(float(remnant.ml)),
        "percent": plain_value(float(remnant.percent)),
        "denominator": remnant.denominator,
        "denominator_ml": plain_value(float(remnant.denominator_ml)),
    }


def _followup(followup: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if followup is None:
        return None
    return {
        "title": str(followup.get("title", "")),
        "sentences": [str(sentence) for sentence in followup.get("sentences", ())],
        "columns": [str(title) for title in followup.get("columns", ())],
        "rows": [[str(cell) for cell in row] for row in followup.get("rows", ())],
    }


def _json(value: Any) -> Any:
    """``value`` with plain JSON types only."""
    return json.loads(json.dumps(value, default=lambda other: getattr(other, "tolist", lambda: str(other))()))
