"""Label maps of any tool on disk: which file belongs to which case, and what its labels mean."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Grid, axis_maps
from LiverCascadeLib.volume import read_labels

LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd")
# What tools and data sets put around the name of a case.
_AROUND = re.compile(
    r"^(segmentation|seg|labels?|mask|volume|vol|image|img|ct|prediction|pred)[-_]|"
    r"[-_](0000|segmentations?|seg|labels?|mask|prediction|pred|ct|truth|gt)$",
    re.IGNORECASE,
)
_LABEL_NAME = re.compile(r"(^|[-_])(segmentations?|seg|labels?|mask|prediction|pred|truth|gt)([-_]|$)", re.IGNORECASE)
_CT_NAME = re.compile(r"(^|[-_])(volume|vol|image|img|ct|0000)([-_]|$)", re.IGNORECASE)
# In a folder of a case, the first that is there: 'labels' is LiverCascade's, 'liver' one of TotalSegmentator's.
_IN_FOLDER = ("labels", "segmentation", "seg", "label", "mask", "prediction", "truth", "liver")
_CT_IN_FOLDER = ("ct", "volume", "image", "imaging")
RESULT_FILE = "result.json"
ANY_MORE = "-"


@dataclass(frozen=True)
class LabelMeaning:
    """Which values of a label map are liver and which are lesion.

    Attributes:
        liver, lesion: values, each a number or an open range (first, None). Lesions are part of the liver.
    """

    liver: tuple[tuple[int, int | None], ...] = ((1, None),)
    lesion: tuple[tuple[int, int | None], ...] = ((2, None),)

    @classmethod
    def parse(cls, text: str) -> LabelMeaning:
        """Reads 'liver=1,lesion=2', 'liver=5', 'liver=1+2,lesion=3-' (3 and above).

        Raises:
            InputError: it is not of that form.
        """
        meaning: dict[str, tuple[tuple[int, int | None], ...]] = {"lesion": ()}
        for part in text.split(","):
            name, _, values = part.partition("=")
            found = re.fullmatch(r"(\d+-?)(\+\d+-?)*", values.strip())
            if name.strip() not in ("liver", "lesion") or not found:
                raise InputError(
                    f"The labels '{text}' are not understood at '{part}'. Expected liver=1,lesion=2, or liver=5, "
                    "or liver=1+2,lesion=3- (3 and above)."
                )
            meaning[name.strip()] = tuple(_range(value) for value in values.strip().split("+"))
        if "liver" not in meaning:
            raise InputError(f"The labels '{text}' do not say which value is the liver, such as liver=1.")
        return cls(meaning["liver"], meaning["lesion"])

    @property
    def tells_lesions(self) -> bool:
        """Whether lesions have a value."""
        return bool(self.lesion)

    def applied(self, labels: np.ndarray) -> np.ndarray:
        """uint8 [k, j, i]: 0 background, 1 liver, 2 lesion."""
        top = max(int(labels.max(initial=0)), 0)
        table = np.zeros(top + 1, np.uint8)
        for value, ranges in ((1, self.liver), (2, self.lesion)):
            for first, last in ranges:
                table[first : top + 1 if last is None else last + 1] = value
        if (labels < 0).any():
            labels = np.maximum(labels, 0)
        # Background stays background whatever a range says.
        table[0] = 0
        return table[labels]


def _range(text: str) -> tuple[int, int | None]:
    first = int(text.rstrip(ANY_MORE))
    return first, None if text.endswith(ANY_MORE) else first


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        name: of the case.
        patient: whose it is.
        reference: label map of the truth.
        predicted: label map by model, None where there is none.
        ct: file or DICOM folder, or None.
    """

    name: str
    patient: str
    reference: Path
    predicted: Mapping[str, Path | None]
    ct: Path | None = None


def case_name(path: Path) -> str:
    """The case in a file's or folder's name: '12' in 'segmentation-12.nii' and in 'volume-12_0000.nii.gz'."""
    name = _stem(path)
    while True:
        shorter = _AROUND.sub("", name)
        if not shorter or shorter == name:
            return name
        name = shorter


def _stem(path: Path) -> str:
    suffix = next((s for s in sorted(LABEL_SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


def label_maps_in(folder: Path) -> dict[str, Path]:
    """Label maps by case: files in ``folder``, and one file in each folder below it (livercascade's results).

    Raises:
        InputError: no such folder, nothing in it, or two files for one case.
    """
    return _found(folder, _IN_FOLDER, "label map")


def scans_in(folder: Path) -> dict[str, Path]:
    """CTs by case: files in ``folder``, files in folders below it, or folders with DICOM slices.

    Raises:
        InputError: no such folder, nothing in it, or two files for one case.
    """
    return _found(folder, _CT_IN_FOLDER, "CT", allow_folder=True)


def _found(folder: Path, in_folder: Sequence[str], what: str, allow_folder: bool = False) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} with {what}s. Check the path.")
    own, other = (_CT_NAME, _LABEL_NAME) if allow_folder else (_LABEL_NAME, _CT_NAME)
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    files = [path for path in entries if path.is_file() and _is_volume(path)]
    # CTs and label maps may lie in one folder, as in LiTS.
    if any(own.search(_stem(path)) for path in files):
        files = [path for path in files if own.search(_stem(path)) or not other.search(_stem(path))]
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(case_name(path), []).append(path)
    for path in entries:
        inside = _in_case_folder(path, in_folder, allow_folder) if path.is_dir() else None
        if inside is not None:
            found.setdefault(case_name(path), []).append(inside)
    doubled = next((paths for paths in found.values() if len(paths) > 1), None)
    if doubled:
        names = " and ".join(str(path) for path in doubled)
        raise InputError(f"{names} look like one case. Keep one of them, or say with --pairs which files to take.")
    if not found:
        raise InputError(
            f"There is no {what} in {folder}. Expected files such as CASE.nii.gz, or folders CASE with one such file; "
            "for anything else, write a CSV for --pairs."
        )
    return {name: paths[0] for name, paths in found.items()}


def _in_case_folder(folder: Path, names: Sequence[str], allow_folder: bool) -> Path | None:
    """The one file in the folder of a case that is meant; the folder itself where it holds DICOM slices."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    volumes = {_stem(path).lower(): path for path in files if _is_volume(path)}
    named = next((volumes[name] for name in names if name in volumes), None)
    if named is not None or len(volumes) == 1:
        return named or next(iter(volumes.values()))
    return folder if files and not volumes and allow_folder else None


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(LABEL_SUFFIXES)


def match_cases(
    references: Mapping[str, Path],
    predictions: Mapping[str, Mapping[str, Path]],
    scans: Mapping[str, Path] | None = None,
    patients: Mapping[str, str] | None = None,
    missing: str = "refuse",
) -> tuple[list[CaseFiles], list[str]]:
    """Brings references, predictions and CTs together by the names of cases.

    Args:
        references: label map by case.
        predictions: by model, label map by case.
        scans: CT by case; cases without one get no picture of the CT.
        patients: by case; a case that is not named is a patient of its own.
        missing: as for :func:`settle_missing`.

    Returns:
        the cases in natural order, and remarks for the reader.

    Raises:
        InputError: a prediction is missing and ``missing`` refuses that, or nothing matches.
    """
    remarks = []
    for model, found in predictions.items():
        if not set(references) & set(found):
            raise InputError(
                f"No label map of {model} belongs to a reference: there are {_some(found)}, and references "
                f"{_some(references)}. Rename the files, or write a CSV for --pairs."
            )
        if extra := set(found) - set(references):
            remarks.append(f"{model} has label maps without a reference, which were passed over: {_some(extra)}.")
    cases = [
        CaseFiles(
            name,
            (patients or {}).get(name, name),
            references[name],
            {model: found.get(name) for model, found in predictions.items()},
            (scans or {}).get(name),
        )
        for name in sorted(references, key=natural)
    ]
    kept, more = settle_missing(cases, missing)
    return kept, remarks + more


def settle_missing(cases: Sequence[CaseFiles], missing: str) -> tuple[list[CaseFiles], list[str]]:
    """Decides about references without a prediction.

    Args:
        cases: all of them.
        missing: 'refuse' to go on, 'leave-out' the case for all models, or take the prediction as 'empty'.

    Returns:
        the cases that are judged, and remarks for the reader.

    Raises:
        InputError: a prediction is missing and ``missing`` refuses that, or no case is left.
    """
    remarks = []
    for model in cases[0].predicted:
        lacking = [case.name for case in cases if case.predicted[model] is None]
        if lacking and missing == "refuse":
            raise InputError(
                f"{model} has no label map for {_some(lacking)}. Add them, or choose --missing empty to count them as "
                "nothing found, or --missing leave-out to judge the rest."
            )
        if lacking:
            meant = "taken as empty" if missing == "empty" else "left out for all models"
            remarks.append(f"{model} has no label map for {_some(lacking)}: {meant}.")
    if missing == "leave-out":
        cases = [case for case in cases if all(path is not None for path in case.predicted.values())]
    if not cases:
        raise InputError("No case has a label map of every model. Choose --missing empty, or evaluate one at a time.")
    return list(cases), remarks


def read_pairs(path: Path) -> tuple[list[CaseFiles], tuple[str, ...]]:
    """Reads a CSV with columns case, reference, and one for each model; patient and ct are optional.

    Relative paths are relative to the CSV. An empty cell of a model is a missing prediction.

    Returns:
        the cases and the names of the models.

    Raises:
        InputError: missing, a column is missing, a case is there twice, or a file is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error
    models = tuple(name for name in columns if name and name not in ("case", "reference", "patient", "ct"))
    if "case" not in columns or "reference" not in columns or not models:
        raise InputError(f"{path} has the columns {', '.join(columns)}; expected case, reference, one for each model.")
    cases: list[CaseFiles] = []
    for number, row in enumerate(rows, start=2):
        name = (row["case"] or "").strip()
        if not name or name in {case.name for case in cases}:
            raise InputError(f"{path}, line {number}: the case '{name}' is empty or there twice.")
        files = {column: (row[column] or "").strip() for column in ("reference", *models)}
        paths = {column: path.parent / text if text else None for column, text in files.items()}
        lost = next((p for p in paths.values() if p is not None and not p.is_file()), None)
        if paths["reference"] is None or lost:
            raise InputError(f"{path}, line {number}: {lost or 'the reference'} is missing.")
        ct = (row.get("ct") or "").strip()
        cases.append(
            CaseFiles(
                name,
                (row.get("patient") or "").strip() or name,
                paths["reference"],
                {model: paths[model] for model in models},
                path.parent / ct if ct else None,
            )
        )
    if not cases:
        raise InputError(f"{path} has no line below its heading.")
    return cases, models


def read_patients(path: Path) -> dict[str, str]:
    """Reads a CSV with the columns case and patient.

    Raises:
        InputError: it is missing or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error
    if not rows or not {"case", "patient"} <= set(rows[0]):
        raise InputError(f"{path} needs the columns case and patient, and at least one line.")
    return {row["case"].strip(): row["patient"].strip() or row["case"].strip() for row in rows}


def read_in_order(path: Path, grid: Grid) -> np.ndarray:
    """Labels of a file in the voxel order of ``grid``.

    Raises:
        InputError: unreadable, or it does not have the voxels of ``grid``.
    """
    labels, own = read_labels(path)
    try:
        return in_order_of(labels, own, grid)
    except ValueError as error:
        raise InputError(
            f"{path} does not have the voxels of its reference. {error} Resample it to the reference's grid with "
            "nearest neighbors, or let the tool write its result on the original grid."
        ) from None


def confidences_beside(path: Path) -> dict[int, float]:
    """Confidence by label from the result.json beside a label map; empty where there is none."""
    record = path.parent / RESULT_FILE
    if not record.is_file() or not path.name.startswith("labels."):
        return {}
    try:
        lesions = json.loads(record.read_text(encoding="utf-8")).get("lesions", [])
        known = {int(lesion["label"]): lesion.get("confidence") for lesion in lesions}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{record} is damaged: {error}. Run the segmentation again, or remove it.") from error
    return {label: float(value) for label, value in known.items() if isinstance(value, int | float)}


def in_order_of(labels: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """Labels on ``grid`` in the voxel order of ``target``, which has the same voxels with other flips or axes.

    Raises:
        ValueError: the two grids do not have the same voxels.
    """
    if not grid.canonical().is_close(target.canonical(), 0.5):
        raise ValueError(f"One is on {grid}, the other on {target}.")
    maps = axis_maps(grid, target)
    turned = labels.transpose([2 - maps[axis].source_axis for axis in (2, 1, 0)])
    return turned[tuple(slice(None, None, -1 if maps[axis].scale < 0 else 1) for axis in (2, 1, 0))]


def natural(text: str) -> list[tuple[int, int | str]]:
    """Sorts 'case 9' before 'case 10'."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", text) if part]


def _some(names: Iterable[str], most: int = 6) -> str:
    names = sorted(names, key=natural)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
