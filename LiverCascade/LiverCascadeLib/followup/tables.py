"""A comparison as plain values: rows, a section of a report, JSON, lines of CSV."""

from __future__ import annotations

import math
from typing import Any

from ..lesions.assessment import AssessedLesion
from .comparison import CHANGE_WORDS, Change, FollowUp, Track
from .response import ONLY_LIVER, long_axis_mm

FORMAT, FORMAT_VERSION = "LiverCascade follow-up", 1
NOTICE = "Research use only. Not for diagnosis or treatment."
CSV_COLUMNS = (
    "site",
    "study",
    "date",
    "lesions",
    "tracking_uids",
    "is_target",
    "long_axis_mm",
    "volume_ml",
    "change",
    "long_axis_change_mm",
    "long_axis_change_percent",
    "volume_change_ml",
    "volume_change_percent",
    "match_is_sure",
)


def csv_rows(followup: FollowUp) -> list[list[str]]:
    """One line per site and study, for :data:`CSV_COLUMNS`; texts are as the reader typed them."""
    rows = []
    for track in followup.tracks:
        for index, study in enumerate(followup.studies):
            lesions = track.lesions[index]
            change = track.changes[index]
            figures = _changes(track, index)
            rows.append(
                [
                    str(track.number),
                    study.name,
                    study.date,
                    " + ".join(lesion.name for lesion in lesions),
                    " ".join(lesion.tracking_uid for lesion in lesions),
                    "yes" if is_target(followup, track) else "no",
                    f"{track.diameter_mm(index):.2f}" if lesions else "",
                    f"{track.volume_ml(index):.4f}" if lesions else "",
                    change.value if change else "",
                    *(f"{value:.2f}" if value is not None else "" for value in figures),
                    "yes" if track.sure else "no",
                ]
            )
    return rows


def _changes(track: Track, index: int) -> tuple[float | None, float | None, float | None, float | None]:
    """Since the study before: long axis in mm and %, volume in mL and %; None where there is no comparison."""
    if index == 0 or not track.lesions[index - 1] or not track.lesions[index]:
        return None, None, None, None
    found: list[float | None] = []
    for of in (track.diameter_mm, track.volume_ml):
        before, after = of(index - 1), of(index)
        found += [after - before, 100 * (after / before - 1) if before else None]
    return tuple(found)


def is_target(followup: FollowUp, track: Track) -> bool:
    """Whether a target lesion of the baseline belongs to the track."""
    return any(lesion.label in followup.targets for lesion in track.lesions[0])


def as_record(followup: FollowUp) -> dict[str, Any]:
    """The content of followup.json; holds no identity beyond dates."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "notice": NOTICE,
        "summary": summary(followup),
        "studies": [
            {
                "name": study.name,
                "date": study.date,
                "lesion_count": len(study.assessment.lesions),
                "liver": {key: _plain(value) for key, value in study.assessment.liver.items()},
            }
            for study in followup.studies
        ],
        "registrations": [step.registration.quality.as_dict() for step in followup.steps],
        "sites": [_site(followup, track) for track in followup.tracks],
        "response": {
            "criterion": "RECIST 1.1, liver only",
            "targets": [label - 1 for label in followup.targets],
            "targets_are": "chosen by the reader" if followup.chosen else "candidates",
            "studies": [
                {
                    "sum_mm": _plain(judged.sum_mm),
                    "nadir_mm": _plain(judged.nadir_mm),
                    "category": judged.category,
                    "rule": judged.rule,
                    "cautions": list(judged.cautions),
                }
                for judged in followup.judged
            ],
        },
        "change_words": {change.value: words for change, words in CHANGE_WORDS.items()},
        "findings": [finding.as_dict() for finding in followup.findings],
    }


def _site(followup: FollowUp, track: Track) -> dict[str, Any]:
    keys = "long_axis_change_mm", "long_axis_change_percent", "volume_change_ml", "volume_change_percent"
    return {
        "site": track.number,
        "is_target": is_target(followup, track),
        "match_is_sure": track.sure,
        "studies": [
            {
                "lesions": [_lesion(lesion) for lesion in track.lesions[index]],
                "long_axis_mm": _plain(track.diameter_mm(index)) if track.lesions[index] else None,
                "volume_ml": _plain(track.volume_ml(index)) if track.lesions[index] else None,
                "change": track.changes[index].value if track.changes[index] else None,
                **{key: _plain(value) for key, value in zip(keys, _changes(track, index), strict=True)},
            }
            for index in range(len(followup.studies))
        ],
    }


def _lesion(lesion: AssessedLesion) -> dict[str, Any]:
    return {
        "id": lesion.label - 1,
        "name": lesion.name,
        "tracking_uid": lesion.tracking_uid,
        "review": lesion.review,
        "long_axis_mm": _plain(long_axis_mm(lesion)),
        "volume_ml": _plain(lesion.values.get("volume_ml")),
    }


def _plain(value: object) -> object:
    """A value that JSON knows; null for what is no number."""
    if isinstance(value, bool | str) or value is None:
        return value
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None


def summary(followup: FollowUp) -> str:
    """One sentence: what happened since the study before the last one."""
    changes = [track.changes[-1] for track in followup.tracks]
    counts = [(change, changes.count(change)) for change in Change if change in changes]
    told = ", ".join(f"{count} {change.value}" for change, count in counts)
    text = f"Since {followup.studies[-2].label}: {told or 'no lesion in either study'}."
    last = followup.last
    return f"{text} {_category(followup)}" if last.category else text


def _category(followup: FollowUp) -> str:
    last = followup.last
    kind = "target lesions chosen by the reader" if followup.chosen else "candidate target lesions"
    if not followup.targets:
        kind = "no target lesion"
    return f"By RECIST 1.1 ({kind}): {last.category}."


def target_names(followup: FollowUp) -> str:
    """The targets as the baseline calls them; empty where there are none."""
    names = {lesion.label: lesion.name for lesion in followup.studies[0].assessment.lesions}
    return ", ".join(names[label] for label in followup.targets)


def sentences(followup: FollowUp) -> list[str]:
    """What a report says beside the table."""
    told = [summary(followup)]
    if followup.targets:
        kind = "Target lesions, chosen by the reader" if followup.chosen else "Candidate target lesions"
        sums = ", ".join(
            f"{study.label}: {judged.sum_mm:.1f} mm" if judged.sum_mm is not None else f"{study.label}: not known"
            for study, judged in zip(followup.studies, followup.judged, strict=True)
        )
        told.append(f"{kind}: {target_names(followup)}. Sum of diameters: {sums}.")
    told.append(followup.last.rule)
    told += followup.last.cautions
    told.append(ONLY_LIVER)
    told.append(
        "Grown and shrunk mean a volume at least 55 % larger or 35 % smaller than in the study before; smaller "
        "differences can come from measuring."
    )
    told += [finding.message for finding in followup.findings]
    return told


def as_section(followup: FollowUp) -> dict[str, Any]:
    """The section of a report: 'title', 'sentences', 'columns', 'rows' and 'pictures'."""
    columns = ["Lesion"]
    for study in followup.studies:
        columns += [f"{study.label} (mm)", f"{study.label} (mL)"]
    columns += ["Change (mm)", "Change (volume)", "Since the study before"]
    return {
        "title": "Comparison with earlier studies",
        "sentences": sentences(followup),
        "columns": columns,
        "rows": [_row(followup, track) for track in followup.tracks],
        "pictures": [],
    }


def _row(followup: FollowUp, track: Track) -> list[str]:
    last = len(followup.studies) - 1
    cells = [row_name(followup, track)]
    for index in range(last + 1):
        there = bool(track.lesions[index])
        cells += [f"{track.diameter_mm(index):.1f}", f"{track.volume_ml(index):.2f}"] if there else ["–", "–"]
    length, _, _, volume = _changes(track, last)
    cells.append("" if length is None else f"{length:+.1f}")
    cells.append("" if volume is None else f"{volume:+.0f} %")
    change = track.changes[last]
    cells.append("" if change is None else change.value)
    return cells


def row_name(followup: FollowUp, track: Track) -> str:
    """The track's name; of several names through time, the first and the last; targets are marked."""
    names = [" + ".join(lesion.name for lesion in lesions) for lesions in track.lesions if lesions]
    name = names[0] if names[0] == names[-1] else f"{names[0]} → {names[-1]}"
    marks = [] if track.sure else ["match not sure"]
    if is_target(followup, track):
        marks.insert(0, "target")
    return f"{name} ({', '.join(marks)})" if marks else name
