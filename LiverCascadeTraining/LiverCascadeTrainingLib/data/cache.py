"""Cases prepared once for a configuration: resampled, memory-mapped, verified, and safe against a stop at any time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from LiverCascadeLib.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError, OutputError
from LiverCascadeLib.geometry import Box, Grid, axis_maps, resample
from LiverCascadeLib.postprocess import components
from LiverCascadeLib.preflight import PADDING_BELOW
from LiverCascadeLib.volume import Volume

from .checks import content_key, each_in_turn, twins_among
from .layouts import GROUPS, LESION, LIVER, Study, find_studies
from .reading import StudyError, files_of
from .repairs import LoadedStudy, load_study

# Changes whenever the same settings would prepare other voxels.
VERSION = 1
AIR_HU = -1024
SETTINGS_FILE, CASE_FILE = "settings.json", "case.json"
IMAGE, LABELS, COUINAUD, POSITIONS, PRIOR = "image.npy", "labels.npy", "couinaud.npy", "positions.npy", "prior.npy"
_PART, _OLD = ".part-", ".old-"


@dataclass(frozen=True)
class PrepareSettings:
    """What decides the prepared voxels; its digest names the folder.

    Attributes:
        spacing_mm: along (R, A, S).
        around_liver_mm: only the liver with this much around it is kept; None keeps the whole scan. Scans without
            labels are always kept whole.
        hu: values are clipped to this range.
        positions: at most so many voxels of each class are listed for sampling.
        lesion_positions: at most so many of each lesion.
        unknown_size: see :func:`.repairs.load_study`.
    """

    spacing_mm: tuple[float, float, float]
    around_liver_mm: float | None = None
    hu: tuple[int, int] = (AIR_HU, 3071)
    positions: int = 4096
    lesion_positions: int = 128
    unknown_size: bool = False

    def __post_init__(self) -> None:
        if len(self.spacing_mm) != 3 or not all(0.1 <= s <= 20 for s in self.spacing_mm):
            raise InputError(f"spacing_mm is {self.spacing_mm!r}; expected three numbers from 0.1 to 20 mm.")
        if self.around_liver_mm is not None and self.around_liver_mm < 0:
            raise InputError(f"around_liver_mm is {self.around_liver_mm!r}; expected a number that is not negative.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        content = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {"format": "livercascade-cache", "version": VERSION, **content}

    @property
    def key(self) -> str:
        """Digest of the settings, 12 hexadecimal digits."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class PrepareReport:
    """What :func:`prepare` did.

    Attributes:
        folder: the cache of these settings.
        made, kept: names of cases.
        failed: name → why a case could not be prepared.
    """

    folder: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or 2 where a case failed."""
        return EXIT_BAD_INPUT if self.failed else EXIT_DONE

    def as_text(self) -> str:
        """A few lines for a reader."""
        lines = [f"{len(self.made)} prepared, {len(self.kept)} were there, {len(self.failed)} failed: {self.folder}"]
        return "\n".join([*lines, *(f"  {name}: {why}" for name, why in self.failed.items())]) + "\n"


def prepare(
    data: Path | str | Sequence[Study],
    cache: Path | str,
    settings: PrepareSettings,
    layout: str = "auto",
    only: Iterable[str] | None = None,
    processes: int = 1,
    unlabeled: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> PrepareReport:
    """Prepares cases that are not prepared yet; may be stopped at any moment and started again.

    Args:
        data: a folder as for :func:`.layouts.find_studies`, or studies.
        cache: where caches are; this one becomes the folder ``cache/<key of the settings>``.
        settings: what is prepared.
        layout: of the folder.
        only: names of the studies that are wanted; None takes all.
        processes: cases that are prepared at once.
        unlabeled: also prepare scans without labels.
        progress: called with (done, all, name).

    Raises:
        InputError: no studies, or ``only`` names one that is not there. What is wrong with single studies is in the
            report.
        OutputError: the cache cannot be written.
    """
    studies = find_studies(data, layout, unlabeled) if isinstance(data, Path | str) else list(data)
    twins = twins_among(studies)
    if only is not None:
        wanted = set(only)
        absent = sorted(wanted - {study.name for study in studies})
        if absent:
            raise InputError(f"There are no studies named {', '.join(absent)}.")
        studies = [study for study in studies if study.name in wanted]
    folder = Path(cache).expanduser() / settings.key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / SETTINGS_FILE, settings.as_dict())
        _tidy(folder)
    except OSError as error:
        raise OutputError(f"The cache {folder} cannot be written: {error.strerror or error}.") from error
    made, kept, failed = [], [], {}
    jobs = [(study, twins, str(folder), settings) for study in studies]
    for number, (name, state, why) in enumerate(each_in_turn(_prepared, jobs, processes), start=1):
        if state == "failed":
            failed[name] = why
        else:
            (made if state == "made" else kept).append(name)
        if progress is not None:
            progress(number, len(studies), name)
    return PrepareReport(folder, tuple(made), tuple(kept), failed)


def _tidy(folder: Path) -> None:
    """Removes what processes that no longer run have left."""
    for path in folder.iterdir():
        for mark in (_PART, _OLD):
            if path.name.startswith(mark):
                digits = path.name.rsplit("-", 1)[-1]
                if not (digits.isdigit() and _runs(int(digits))):
                    shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    if process == os.getpid():
        return False
    import psutil

    return psutil.pid_exists(process)


def _prepared(study: Study, twins: dict[int, Study], folder: str, settings: PrepareSettings) -> tuple[str, str, str]:
    """Prepares one study; (name, 'made' | 'kept' | 'failed', why)."""
    place = Path(folder)
    try:
        identity = _identity(study)
        if _is_there(place / study.name, identity):
            return study.name, "kept", ""
        loaded = load_study(study, twins, settings.unknown_size)
        if loaded.out_of_range:
            raise StudyError("label-out-of-range", f"{study.name}: values without a meaning: {loaded.out_of_range}.")
        if "liver" in study.known and not loaded.labels.any():
            raise StudyError("label-empty", f"{study.name}: no voxel is liver.")
        arrays, facts = _arrays(loaded, settings)
        _save(place, study.name, arrays, {**facts, "source": identity})
    except (InputError, OutputError) as error:
        return study.name, "failed", str(error)
    except MemoryError:
        return study.name, "failed", f"{study.name}: memory ran out. Prepare with fewer processes."
    return study.name, "made", ""


def _identity(study: Study) -> dict[str, Any]:
    """What tells whether a study's files are still those that were prepared, without opening them."""
    files = []
    for path in files_of(study):
        try:
            state = path.stat()
        except OSError as error:
            raise StudyError("unreadable", f"{study.name}: {path} cannot be read: {error.strerror}.") from error
        files.append([path.name, state.st_size, state.st_mtime_ns])
    text = json.dumps([files, study.label_kind, sorted(study.meanings.items()), sorted(study.known)])
    return {
        "name": study.name,
        "layout": study.source,
        "patient": study.patient,
        "group": study.group,
        "image": str(study.image),
        "label": None if study.label is None else str(study.label),
        "files": len(files),
        "digest": hashlib.sha256(text.encode()).hexdigest()[:24],
    }


def _is_there(place: Path, identity: Mapping[str, Any]) -> bool:
    try:
        facts = json.loads((place / CASE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if facts.get("version") != VERSION or facts.get("source", {}).get("digest") != identity["digest"]:
        return False
    return all((place / name).is_file() for name in facts["files"]) and not _changed(place, facts, deep=False)


def _arrays(loaded: LoadedStudy, settings: PrepareSettings) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a case, and the facts about it."""
    volume, study = loaded.volume, loaded.study
    labels = loaded.labels if "liver" in study.known or "lesion" in study.known else None
    target = volume.grid.canonical(settings.spacing_mm)
    box = _kept_box(volume, labels, target, settings)
    grid = target.crop(box)
    # Scanners fill what they did not see with values below any air; it must not bleed into the edge when resampled.
    array = np.maximum(volume.array, AIR_HU) if volume.array.min() < PADDING_BELOW else volume.array
    low, high = settings.hu
    hu = resample(array, volume.grid, grid, AIR_HU).round_().clamp_(low, high).short().numpy()
    arrays = {IMAGE: hu}
    facts: dict[str, Any] = {
        "version": VERSION,
        "name": study.name,
        "shape": list(hu.shape),
        "spacing_mm": list(settings.spacing_mm),
        "ijk_to_ras": grid.ijk_to_ras.tolist(),
        "known": {group: group in study.known for group in GROUPS},
        "content": content_key(volume),
        "original": {"size": list(volume.grid.size), "ijk_to_ras": volume.grid.ijk_to_ras.tolist()},
        "repairs": [repair.as_dict() for repair in loaded.repairs],
        "notes": list(loaded.notes),
    }
    if labels is not None:
        arrays[LABELS] = _resampled_labels(labels, volume.grid, grid)
        rng = np.random.default_rng(int(hashlib.sha256(study.name.encode()).hexdigest()[:8], 16))
        facts["liver_voxels"] = int(np.count_nonzero(arrays[LABELS] == LIVER))
        arrays[POSITIONS], facts["positions"], facts["lesions"] = _positions(arrays[LABELS], grid, settings, rng)
    if loaded.couinaud is not None:
        arrays[COUINAUD] = _nearest(loaded.couinaud, volume.grid, grid)
    return arrays, facts


def _kept_box(volume: Volume, labels: np.ndarray | None, target: Grid, settings: PrepareSettings) -> Box:
    whole = Box((0, 0, 0), target.size)
    if settings.around_liver_mm is None or labels is None:
        return whole
    box = Box.around(labels > 0)
    return whole if box is None else target.box_covering(box, volume.grid, settings.around_liver_mm)


def _resampled_labels(labels: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """0, 1, 2 on another grid: each class where it fills half of a voxel."""
    liver = resample((labels > 0).view(np.uint8), source, target, 0).gt_(0.5).byte()
    lesion = resample((labels == LESION).view(np.uint8), source, target, 0).gt_(0.5).byte()
    return (liver | lesion).add_(lesion).numpy()


def _nearest(labels: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Values of the nearest voxels, for labels that have no order."""
    maps = axis_maps(source, target)
    view = labels.transpose([2 - maps[axis].source_axis for axis in (2, 1, 0)])
    places, inside = [], []
    for axis in (2, 1, 0):
        position = np.rint(maps[axis].scale * np.arange(target.size[axis]) + maps[axis].offset).astype(int)
        size = view.shape[2 - axis]
        inside.append((position >= 0) & (position < size))
        places.append(np.clip(position, 0, size - 1))
    taken = view[np.ix_(*places)]
    return np.where(inside[0][:, None, None] & inside[1][:, None] & inside[2], taken, 0).astype(np.uint8)


def _positions(
    labels: np.ndarray, grid: Grid, settings: PrepareSettings, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, list[int]], list[dict[str, Any]]]:
    """Voxels (k, j, i) of each class and each lesion, uint16 [n, 3], and where in that list they are."""
    parts: list[np.ndarray] = []
    ranges: dict[str, list[int]] = {}
    count = 0

    def add(places: np.ndarray) -> list[int]:
        nonlocal count
        parts.append(places.astype(np.uint16))
        count += len(places)
        return [count - len(places), count]

    for name, value in (("background", 0), ("liver", LIVER), ("lesion", LESION)):
        ranges[name] = add(_some(labels, labels == value, settings.positions, rng))
    numbers, sizes = components(labels == LESION)
    ml = grid.voxel_volume_mm3 / 1000
    lesions = []
    # All lesions' voxels, sorted by lesion, in one go: a liver may have hundreds.
    flat = np.flatnonzero(numbers)
    flat = flat[np.argsort(numbers.ravel()[flat], kind="stable")]
    for size, voxels in zip(sizes, np.split(flat, np.cumsum(sizes)[:-1]) if len(sizes) else [], strict=True):
        chosen = voxels if size <= settings.lesion_positions else rng.choice(voxels, settings.lesion_positions, False)
        where = add(np.stack(np.unravel_index(np.sort(chosen), labels.shape), axis=1))
        lesions.append({"voxels": int(size), "volume_ml": round(float(size) * ml, 4), "positions": where})
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.uint16), ranges, lesions


def _some(labels: np.ndarray, mask: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``most`` voxels of a mask, (k, j, i), drawn without repetition, in the order of memory."""
    flat = np.flatnonzero(mask)
    if len(flat) > most:
        flat = np.sort(flat[rng.choice(len(flat), most, replace=False)])
    return np.stack(np.unravel_index(flat, labels.shape), axis=1)


def _save(folder: Path, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Writes a case under a hidden name and moves it: it is whole or not there."""
    part = folder / f"{_PART}{name}-{os.getpid()}"
    old = folder / f"{_OLD}{name}-{os.getpid()}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        files = {file: _write_array(part / file, array) for file, array in arrays.items()}
        _write_json(part / CASE_FILE, {**facts, "files": files})
        if (folder / name).exists():
            os.replace(folder / name, old)
        os.replace(part, folder / name)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"{folder / name} cannot be written: {error.strerror or error}.") from error


def _write_array(path: Path, array: np.ndarray) -> dict[str, Any]:
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
    state = path.stat()
    return {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": _sha256(path)}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}-{os.getpid()}")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _changed(place: Path, facts: Mapping[str, Any], deep: bool) -> list[str]:
    """Files of a case that are not what was written; by size and time, by digest where these differ or ``deep``."""
    wrong = []
    for name, stored in facts["files"].items():
        try:
            state = (place / name).stat()
        except OSError:
            wrong.append(f"{name} is missing")
            continue
        if state.st_size != stored["bytes"]:
            wrong.append(f"{name} has {state.st_size} bytes instead of {stored['bytes']}")
        elif (deep or state.st_mtime_ns != stored["mtime_ns"]) and _sha256(place / name) != stored["sha256"]:
            wrong.append(f"{name} was altered")
    return wrong


class CachedCase:
    """A prepared case. Arrays are mapped into memory when first asked for, in each process anew.

    Attributes:
        name: of the study.
        facts: the content of ``case.json``.
        shape: (k, j, i).
        known: of each label group, whether the case knows it.
    """

    def __init__(self, place: Path):
        self.place = place
        self.facts: dict[str, Any] = json.loads((place / CASE_FILE).read_text(encoding="utf-8"))
        self.name: str = self.facts["name"]
        self.shape: tuple[int, int, int] = tuple(self.facts["shape"])
        self.known: dict[str, bool] = self.facts["known"]
        self._arrays: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would travel to a worker as a copy of the volume.
        return {**self.__dict__, "_arrays": {}}

    @property
    def grid(self) -> Grid:
        """Where the voxels lie; axes along (R, A, S)."""
        return Grid(self.shape[::-1], np.array(self.facts["ijk_to_ras"]))

    @property
    def patient(self) -> str:
        """Who it is."""
        return self.facts["source"]["patient"]

    def has(self, file: str) -> bool:
        """Whether the case has an array of this name."""
        return file in self.facts["files"] or (self.place / file).is_file()

    def array(self, file: str) -> np.ndarray:
        """An array of the case, read-only, mapped into memory.

        Raises:
            InputError: the case has no such array, or its file is damaged.
        """
        if file not in self._arrays:
            try:
                self._arrays[file] = np.load(self.place / file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise InputError(
                    f"The prepared {file} of {self.name} cannot be read: {error}. Prepare again."
                ) from error
        return self._arrays[file]

    @property
    def image(self) -> np.ndarray:
        """HU, int16 [k, j, i]."""
        return self.array(IMAGE)

    @property
    def labels(self) -> np.ndarray | None:
        """0, 1, 2, uint8 [k, j, i]; None without labels."""
        return self.array(LABELS) if self.has(LABELS) else None

    @property
    def couinaud(self) -> np.ndarray | None:
        """0–10, uint8 [k, j, i]; None without segments."""
        return self.array(COUINAUD) if self.has(COUINAUD) else None

    @property
    def prior(self) -> np.ndarray | None:
        """Located liver probability, uint8 [k, j, i] in 1/255; None where :func:`add_priors` did not run."""
        return self.array(PRIOR) if (self.place / PRIOR).is_file() else None

    @property
    def lesions(self) -> list[dict[str, Any]]:
        """Voxels, volume in mL and range of positions of each lesion, the largest first."""
        return self.facts.get("lesions", [])

    def positions(self, where: str | Sequence[int]) -> np.ndarray:
        """Listed voxels (k, j, i), uint16 [n, 3], of a class by name, or of a range of a lesion."""
        start, stop = self.facts.get("positions", {}).get(where, (0, 0)) if isinstance(where, str) else where
        return self.array(POSITIONS)[start:stop] if stop > start else np.zeros((0, 3), np.uint16)


class Cache:
    """The prepared cases of one configuration.

    Args:
        folder: what :func:`prepare` reported as its folder.

    Raises:
        InputError: it is no cache, or one of another version.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        try:
            content = json.loads((self.folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(
                f"{self.folder} is no prepared cache: {SETTINGS_FILE} is missing. Prepare first."
            ) from None
        if content.get("version") != VERSION:
            raise InputError(
                f"The cache {self.folder} is of version {content.get('version')}, this program makes version "
                f"{VERSION}. Prepare again, into another folder."
            )
        known = {f.name for f in dataclasses.fields(PrepareSettings)}
        self.settings = PrepareSettings(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in content.items() if k in known}
        )
        self._cases: dict[str, CachedCase] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cases that are there, sorted."""
        places = (path for path in self.folder.iterdir() if not path.name.startswith("."))
        return tuple(sorted(path.name for path in places if (path / CASE_FILE).is_file()))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of all cases, along (R, A, S)."""
        return self.settings.spacing_mm

    def case(self, name: str) -> CachedCase:
        """A case by name.

        Raises:
            InputError: it was not prepared.
        """
        if name not in self._cases:
            if not (self.folder / name / CASE_FILE).is_file():
                raise InputError(f"{name} is not in the cache {self.folder}. Prepare it first.")
            self._cases[name] = CachedCase(self.folder / name)
        return self._cases[name]

    def verify(self, names: Iterable[str] | None = None, deep: bool = False) -> dict[str, list[str]]:
        """What is wrong with the files of cases, by name; nothing where all is well.

        Args:
            names: cases to look at; None looks at all.
            deep: compare digests; otherwise sizes and times, and digests only where a time is another.
        """
        wrong = {name: _changed(self.folder / name, self.case(name).facts, deep) for name in names or self.names}
        return {name: texts for name, texts in wrong.items() if texts}

    @property
    def contents(self) -> dict[str, str]:
        """Keys of the original CTs' voxels by name, for :func:`.splits.make_split`."""
        return {name: self.case(name).facts["content"] for name in self.names}

    def fingerprint(self, names: Iterable[str] | None = None) -> str:
        """A digest of settings and voxels: two runs with the same one saw the same data."""
        digest = hashlib.sha256(self.settings.key.encode())
        for name in sorted(names or self.names):
            files = self.case(name).facts["files"]
            digest.update(json.dumps([name, {k: v["sha256"] for k, v in sorted(files.items())}]).encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cases": {}}


def add_priors(
    cache: Cache,
    names: Iterable[str],
    locate: Callable[[Volume], np.ndarray],
    whole: Mapping[str, Study] | None = None,
    remake: bool = False,
) -> list[str]:
    """Adds a located liver probability to cases, as the second input of refine networks.

    Args:
        cache: where the cases are.
        names: which.
        locate: gives the probability of a volume on its own grid: float [k, j, i] in 0…1.
        whole: studies by name, whose whole CT is located instead of the prepared one, which may be cut to the liver.
        remake: also where there is one.

    Returns:
        Names of the cases that got one.

    Raises:
        ValueError: ``locate`` gave another shape.
    """
    added = []
    for name in names:
        case = cache.case(name)
        place = case.place / PRIOR
        if place.is_file() and not remake:
            continue
        if whole is not None and name in whole:
            volume = load_study(whole[name], unknown_size=cache.settings.unknown_size).volume
        else:
            volume = Volume(np.array(case.image), case.grid, name)
        probability = np.asarray(locate(volume), dtype=np.float32)
        if probability.shape != volume.grid.shape:
            raise ValueError(f"The located probability of {name} is {probability.shape}, not {volume.grid.shape}.")
        probability = resample(probability, volume.grid, case.grid, 0).numpy()
        part = case.place / f".{PRIOR}-{os.getpid()}"
        _write_array(part, np.rint(np.clip(probability, 0, 1) * 255).astype(np.uint8))
        os.replace(part, place)
        case._arrays.pop(PRIOR, None)
        added.append(name)
    return added
