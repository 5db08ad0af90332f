"""A results folder, opened again: its labels may have been edited since, and its CT may have moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..findings import Finding, Severity
from ..geometry import Grid
from ..lesions.assess import HIGHEST_LABEL, LesionNote, assess
from ..lesions.assessment import Assessment
from ..lesions.couinaud import BY_VALUE, CouinaudMap
from ..result import FIRST_LESION_LABEL
from ..steps import exhausted
from ..volume import Volume, read_labels, read_volume
from .files import COUINAUD_FILE, LABELS_FILE, RESULT_FILE, RESULT_FORMAT, RESULT_FORMAT_VERSION

# NIfTI keeps positions as float32.
GRID_TOLERANCE_MM = 0.01


def reopen(folder: Path | str, ct: Path | str | None = None) -> Assessment:
    """Measures the results in a folder anew.

    Names, reviews, comments and tracking UIDs of lesions come from result.json. A label that it does not know is a
    lesion that somebody added; one whose voxels are gone is left out. Confidence is that of the run, for lesions that
    have as many voxels as then.

    Args:
        folder: results of ``livercascade segment``, or exported from the panel.
        ct: where the CT is; None looks where it was at the run.

    Raises:
        InputError: files are missing or damaged, or labels and CT have different voxels.
    """
    folder = Path(folder).expanduser()
    record = _record(folder)
    labels, grid = _labels(folder / LABELS_FILE)
    volume = _volume(folder, record, ct)
    if not grid.is_close(volume.grid, GRID_TOLERANCE_MM):
        raise InputError(
            f"{folder / LABELS_FILE} and the CT have different voxels: {grid} against {volume.grid}. Give the CT that "
            "the labels were made on, or resample the labels onto it."
        )
    counts = np.bincount(labels.ravel()[labels.ravel() >= FIRST_LESION_LABEL])
    lesions = _lesions(record)
    confidences = {
        label - 1: float(lesion["confidence"])
        for label, lesion in lesions.items()
        if isinstance(lesion.get("confidence"), float) and _count(counts, label) == lesion.get("voxel_count")
    }
    return assess(
        volume,
        labels,
        lesions=[_note(label, lesion) for label, lesion in lesions.items()],
        couinaud=_couinaud(folder, record, volume.grid),
        confidences=confidences,
        findings=_findings(record, volume),
        provenance=_mapping(record.get("provenance")),
        rejected=record["rejected"] if isinstance(record.get("rejected"), int) else 0,
    )


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RESULT_FILE
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Give the folder that 'livercascade segment' wrote.")
    if not path.is_file():
        raise InputError(f"{folder} has no {RESULT_FILE}. Give a folder that 'livercascade segment' wrote.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check its rights.") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is not JSON. Segment the CT again.") from error
    if not isinstance(record, dict) or record.get("format") != RESULT_FORMAT:
        raise InputError(f"{path} was not written by LiverCascade. Give a folder that 'livercascade segment' wrote.")
    version = record.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= RESULT_FORMAT_VERSION:
        raise InputError(
            f"{path} has the format version {version}; this LiverCascade reads versions 1 to {RESULT_FORMAT_VERSION}. "
            "Update LiverCascade."
        )
    return record


def _labels(path: Path) -> tuple[np.ndarray, Grid]:
    if not path.is_file():
        raise InputError(f"{path} is missing. Without labels there is nothing to measure; segment the CT again.")
    labels, grid = read_labels(path)
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > HIGHEST_LABEL:
        raise InputError(
            f"{path} holds labels from {low} to {high}. Expected: 0 background, 1 liver, 2 and above one per "
            f"lesion, up to {HIGHEST_LABEL}."
        )
    return labels.astype(np.uint8 if high <= 255 else np.uint16), grid


def _volume(folder: Path, record: dict[str, Any], ct: Path | str | None) -> Volume:
    if ct is not None:
        return read_volume(ct)
    path = str(_mapping(_mapping(record.get("input")).get("source")).get("path") or "")
    if not path:
        raise InputError(f"{folder / RESULT_FILE} does not say where the CT is. Say it (--ct).")
    if not Path(path).exists():
        raise InputError(f"The CT {path} is no longer there. Say where it is (--ct).")
    return read_volume(path)


def _count(counts: np.ndarray, label: int) -> int:
    return int(counts[label]) if 0 <= label < len(counts) else 0


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _lesions(record: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What the record says of lesions, by their labels; what makes no sense is passed over."""
    listed = record.get("lesions") if isinstance(record.get("lesions"), list) else []
    return {one["label"]: one for one in listed if isinstance(one, dict) and isinstance(one.get("label"), int)}


def _note(label: int, lesion: dict[str, Any]) -> LesionNote:
    texts = {key: str(lesion.get(key) or "") for key in ("name", "review", "comment", "tracking_uid")}
    return LesionNote(label, **texts)


def _couinaud(folder: Path, record: dict[str, Any], grid: Grid) -> CouinaudMap | None:
    known, path = _mapping(record.get("couinaud")), folder / COUINAUD_FILE
    if not known:
        return None
    if not path.is_file():
        raise InputError(f"{path} is missing, which {RESULT_FILE} names. Copy it too, or segment the CT again.")
    labels, own = read_labels(path)
    if not own.is_close(grid, GRID_TOLERANCE_MM):
        raise InputError(f"{path} and the CT have different voxels: {own} against {grid}.")
    unknown = sorted(set(np.unique(labels).tolist()) - {0} - BY_VALUE.keys())
    if unknown:
        raise InputError(f"{path} holds {unknown}, which are no segments of the liver (1 to {max(BY_VALUE)}).")
    limitations = tuple(str(text) for text in known.get("limitations") or ())
    return CouinaudMap(
        labels.astype(np.uint8), str(known.get("provider") or "reader"), str(known.get("method") or ""), limitations
    )


def _findings(record: dict[str, Any], volume: Volume) -> list[Finding]:
    """Those of the run, and whether the CT is the same."""
    found = []
    for finding in record.get("findings") if isinstance(record.get("findings"), list) else ():
        try:
            severity = Severity(finding["severity"])
            found.append(Finding(str(finding["code"]), severity, str(finding["message"])))
        except (KeyError, TypeError, ValueError):
            continue
    said = _mapping(_mapping(record.get("provenance")).get("input")).get("voxels_sha256")
    if said and said != exhausted(volume.sha256_steps()):
        text = "The CT has other voxels than at the run. Check that it is the same scan: figures in HU come from it."
        found.append(Finding("other-voxels", Severity.WARNING, text))
    return found
