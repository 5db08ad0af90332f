"""Which labeled studies lie in a folder: LiTS, MSD, 3D-IRCADb, CHAOS, or a table of pairs."""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from LiverCascadeLib.errors import InputError

BACKGROUND, LIVER, LESION = 0, 1, 2
# What a data set can know about its voxels.
GROUPS = ("liver", "lesion", "couinaud")
_NIFTI = (".nii.gz", ".nii")

# Names of labels, in any case, by what they mean here.
_LIVER_NAMES = {"liver"}
_LESION_NAMES = {"cancer", "tumor", "tumour", "tumors", "tumours", "lesion", "lesions", "liver tumor", "liver tumour"}
# Structures of 3D-IRCADb that are focal lesions of the liver; tumors of other organs have other names.
_IRCADB_LESION = re.compile(r"^liver(tumou?r|cyst|kyst|metasta)", re.IGNORECASE)


@dataclass(frozen=True)
class Study:
    """One CT with what is known about it; nothing of it has been opened yet.

    Attributes:
        name: unique within a collection, fit for a file name.
        source: the layout that it was found in.
        patient: who it is; studies of one patient never come into different parts of a split.
        image: NIfTI, NRRD or MetaImage file, DICOM folder, or zip file with DICOM; None where it is missing.
        label: a label map ('map'), a folder or zip file with one mask series per structure ('structures'), or a folder
            of pictures, one per slice ('pictures'); None where there is none.
        label_kind: how ``label`` is read.
        meanings: value of a label map → 0 background, 1 liver, 2 lesion. A value that is not named is out of range.
        couinaud: label map of the Couinaud segments, 1–8, 9 = IVa, 10 = IVb.
        known: of :data:`GROUPS`, what the labels tell. Without 'lesion', lesions may hide in the liver.
        group: for tables and stratified splits, such as a hospital.
        missing: 'image' or 'label', where a pair is incomplete.
        notes: what was decided about the study while looking for it.
    """

    name: str
    source: str
    patient: str
    image: Path | None
    label: Path | None = None
    label_kind: str = "map"
    meanings: Mapping[int, int] = field(default_factory=lambda: {0: 0, 1: 1, 2: 2})
    couinaud: Path | None = None
    known: frozenset[str] = frozenset()
    group: str = ""
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_studies(folder: Path | str, layout: str = "auto", unlabeled: bool = False) -> list[Study]:
    """The studies in a folder, sorted by name in the order people count.

    Args:
        folder: where a data set was unpacked, with any folders between; for a table, the CSV file or its folder.
        layout: one of :data:`LAYOUTS`, or 'auto' for every layout that is met.
        unlabeled: also return CTs that are meant to have no labels (test sets), with nothing known.

    Returns:
        studies, incomplete pairs included: :func:`.checks.check_data` reports these, :func:`.cache.prepare` refuses
        them.

    Raises:
        InputError: there is no such folder, no known layout in it, or a table or ``dataset.json`` that cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.exists():
        raise InputError(f"There is no folder {folder}. Check the path.")
    if layout != "auto" and layout not in LAYOUTS:
        near = difflib.get_close_matches(layout, LAYOUTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"There is no layout {layout!r}.{hint} Known are: auto, {', '.join(LAYOUTS)}.")
    tree = _Tree.of(folder)
    wanted = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
    studies = [study for find in wanted.values() for study in find(tree)]
    if not studies:
        raise InputError(_nothing_found(folder, layout, tree))
    if not unlabeled:
        studies = [study for study in studies if study.known or study.missing]
    return _named_apart(sorted(studies, key=lambda study: (study.source, _counting(study.name))))


def _nothing_found(folder: Path, layout: str, tree: _Tree) -> str:
    shown = ", ".join(sorted({path.name for path in tree.files})[:4]) or "nothing"
    what = "no known layout" if layout == "auto" else f"no data set laid out as {layout!r}"
    expected = "; ".join(f"{name}: {text}" for name, text in DESCRIPTIONS.items())
    return f"{folder} holds {what}. Found: {shown}. Expected one of – {expected}."


@dataclass(frozen=True)
class _Tree:
    """All files and folders below a folder."""

    root: Path
    files: tuple[Path, ...]
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, root: Path) -> _Tree:
        if root.is_file():
            return cls(root.parent, (root,), ())
        files, folders, seen = [], [], set()
        for place, names, entries in os.walk(root, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:
                names.clear()
                continue
            seen.add(real)
            # macOS leaves '._' twins in the archives of MSD; prepared caches are hidden or marked.
            names[:] = sorted(name for name in names if not name.startswith("."))
            folders.append(Path(place))
            files += [Path(place, name) for name in sorted(entries) if not name.startswith(".")]
        return cls(root, tuple(files), tuple(folders))


def _counting(name: str) -> list[tuple[int, str]]:
    """A sort key by which 'case 10' comes after 'case 9'."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name.casefold())]


def _named_apart(studies: Iterable[Study]) -> list[Study]:
    """Studies with names that are unique and fit for files."""
    taken: dict[str, int] = {}
    result = []
    for study in studies:
        name = re.sub(r"[^\w.-]+", "_", study.name).strip(".") or "case"
        number = taken[name.casefold()] = taken.get(name.casefold(), 0) + 1
        result.append(replace(study, name=name if number == 1 else f"{name}__{number}"))
    return result


def _stem(path: Path) -> str:
    suffix = next((s for s in (*_NIFTI, ".nrrd", ".mha", ".mhd", ".nhdr") if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


def _find_lits(tree: _Tree) -> Iterator[Study]:
    """LiTS: ``volume-N.nii``, ``segmentation-N.nii``; segments, where there are any, as ``couinaud-N.nii``."""
    found: dict[str, dict[int, list[Path]]] = {"volume": {}, "segmentation": {}, "couinaud": {}, "test-volume": {}}
    for path in tree.files:
        match = re.fullmatch(r"(test-volume|volume|segmentation|couinaud)-(\d+)\.nii(\.gz)?", path.name, re.IGNORECASE)
        if match:
            found[match[1].lower()].setdefault(int(match[2]), []).append(path)
    for number in sorted(found["volume"].keys() | found["segmentation"].keys()):
        images, labels = found["volume"].get(number, []), found["segmentation"].get(number, [])
        couinaud = found["couinaud"].get(number, [None])[0]
        missing = (("image",) if not images else ()) + (("label",) if not labels else ())
        notes = tuple(f"{len(p)} files {p[0].name}; {p[0]} was taken." for p in (images, labels) if len(p) > 1)
        yield Study(
            f"lits_{number}",
            "lits",
            f"lits:{number}",
            images[0] if images else None,
            labels[0] if labels else None,
            couinaud=couinaud,
            known=_known(bool(labels), True, couinaud),
            missing=missing,
            notes=notes,
        )
    for number, paths in sorted(found["test-volume"].items()):
        yield Study(f"lits_test_{number}", "lits", f"lits-test:{number}", paths[0])


def _known(labeled: bool, lesions: bool, couinaud: Path | None) -> frozenset[str]:
    groups = (["liver"] if labeled else []) + (["lesion"] if labeled and lesions else [])
    return frozenset(groups + (["couinaud"] if couinaud else []))


def _find_msd(tree: _Tree) -> Iterator[Study]:
    """Medical Segmentation Decathlon and nnU-Net: ``imagesTr``, ``labelsTr``, usually with ``dataset.json``."""
    for folder in tree.folders:
        if folder.name != "imagesTr":
            continue
        root = folder.parent
        meanings, known, task, pairs = _described(root)
        images = {_msd_stem(p): p for p in _nifti_in(root / "imagesTr")}
        labels = {_stem(p): p for p in _nifti_in(root / "labelsTr")}
        couinaud = {_stem(p): p for p in _nifti_in(root / "couinaudTr")}
        for stem in sorted(images.keys() | labels.keys() | pairs):
            image, label = images.get(stem), labels.get(stem)
            missing = (("image",) if image is None else ()) + (("label",) if label is None else ())
            yield Study(
                f"{task}_{stem}",
                "msd",
                f"{task}:{stem}",
                image,
                label,
                meanings=meanings,
                couinaud=couinaud.get(stem),
                known=known | {"couinaud"} if stem in couinaud else known,
                missing=missing,
            )
        for path in _nifti_in(root / "imagesTs"):
            stem = _msd_stem(path)
            yield Study(f"{task}_test_{stem}", "msd", f"{task}-test:{stem}", path)


def _nifti_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(_NIFTI) and not p.name.startswith("."))


def _msd_stem(path: Path) -> str:
    # nnU-Net numbers the channels of an image: 'liver_1_0000.nii.gz'.
    return re.sub(r"_0000$", "", _stem(path))


def _described(root: Path) -> tuple[dict[int, int], frozenset[str], str, set[str]]:
    """What ``dataset.json`` says: meanings of values, what is known, a short name, stems that must be there."""
    path = root / "dataset.json"
    if not path.is_file():
        return {0: 0, 1: 1, 2: 2}, frozenset({"liver", "lesion"}), "msd", set()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = content["labels"]
        # MSD writes {"1": "liver"}, nnU-Net {"liver": 1}.
        named = {int(k): str(v) for k, v in labels.items()} if _is_number(next(iter(labels))) else None
        named = named or {v: str(k) for k, v in labels.items() if isinstance(v, int)}
        training = content.get("training", [])
        stems = {_msd_stem(Path(item["image"])) for item in training if isinstance(item, dict) and "image" in item}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(
            f"{path} cannot be read as the description of a data set ({type(error).__name__}: {error}). Expected JSON "
            'with "labels" such as {"0": "background", "1": "liver", "2": "cancer"}.'
        ) from None
    meanings = {value: _meaning(name) for value, name in named.items()}
    known = {group for group, value in (("liver", LIVER), ("lesion", LESION)) if value in meanings.values()}
    if not known:
        raise InputError(f"{path} names no label for liver or lesions; its labels are {', '.join(named.values())}.")
    name = str(content.get("name", "msd")).strip().lower()
    return meanings, frozenset(known), "msd" if name == "liver" else re.sub(r"\W+", "-", name) or "msd", stems


def _is_number(text: object) -> bool:
    return isinstance(text, str) and text.strip().isdigit()


def _meaning(name: str) -> int:
    name = name.strip().casefold()
    return LIVER if name in _LIVER_NAMES else LESION if name in _LESION_NAMES else BACKGROUND


def _find_ircadb(tree: _Tree) -> Iterator[Study]:
    """3D-IRCADb-01: ``PATIENT_DICOM`` and ``MASKS_DICOM/<structure>``, as folders or zip files."""
    places = {p.parent for p in (*tree.files, *tree.folders) if p.name in ("PATIENT_DICOM", "PATIENT_DICOM.zip")}
    places |= {p.parent for p in (*tree.files, *tree.folders) if p.name in ("MASKS_DICOM", "MASKS_DICOM.zip")}
    # A folder within its own archive's folder, as some tools unpack it.
    places = {p for p in places if p.name not in ("PATIENT_DICOM", "MASKS_DICOM")}
    for place in sorted(places):
        match = re.search(r"3d-?ircadb-?0?1[._-](\d+)$", place.name, re.IGNORECASE) or re.search(r"(\d+)$", place.name)
        number = str(int(match[1])) if match else place.name
        image, masks = _folder_or_zip(place, "PATIENT_DICOM"), _folder_or_zip(place, "MASKS_DICOM")
        names = structures_in(masks) if masks else []
        lesions = [name for name in names if _IRCADB_LESION.match(name)]
        found = masks is not None and "liver" in (name.lower() for name in names)
        notes = (f"Lesions are: {', '.join(lesions)}.",) if lesions else ()
        yield Study(
            f"ircadb_{number}",
            "ircadb",
            f"ircadb:{number}",
            image,
            masks if found else None,
            "structures",
            {},
            known=_known(found, True, None),
            missing=(("image",) if image is None else ()) + (() if found else ("label",)),
            notes=notes,
        )


def _folder_or_zip(place: Path, name: str) -> Path | None:
    return next((p for p in (place / name, place / f"{name}.zip") if p.exists()), None)


def structures_in(masks: Path) -> list[str]:
    """Names of the mask series of a 3D-IRCADb case, from a folder or a zip file; none where it cannot be opened."""
    if masks.is_dir():
        inner = masks / masks.name
        return sorted(p.name for p in (inner if inner.is_dir() else masks).iterdir() if p.is_dir())
    try:
        with zipfile.ZipFile(masks) as archive:
            parts = [Path(member).parts for member in archive.namelist() if not member.endswith("/")]
    except (OSError, zipfile.BadZipFile):
        return []
    return sorted({part[-2] for part in parts if len(part) >= 2})


def lesion_structures(names: Iterable[str]) -> list[str]:
    """Those structures of 3D-IRCADb that are lesions of the liver: tumors, cysts, metastases."""
    return [name for name in names if _IRCADB_LESION.match(name)]


def _find_chaos(tree: _Tree) -> Iterator[Study]:
    """CHAOS CT: ``N/DICOM_anon`` and ``N/Ground/*.png``. The MR series have folders of other names between."""
    for folder in tree.folders:
        if folder.name != "DICOM_anon" or not any(p.is_file() for p in folder.iterdir()):
            continue
        if folder.parent.name.upper() in ("T1DUAL", "T2SPIR"):
            continue
        number, ground = folder.parent.name, folder.parent / "Ground"
        labeled = ground.is_dir() and any(p.suffix.lower() == ".png" for p in ground.iterdir())
        # The test sets have no folder 'Ground' at all.
        missing = ("label",) if ground.is_dir() and not labeled else ()
        yield Study(
            f"chaos_{number}",
            "chaos",
            f"chaos:{number}",
            folder,
            ground if labeled else None,
            "pictures",
            {},
            # Donors of livers: healthy, so that there is no lesion rather than no label.
            known=_known(labeled, True, None),
            missing=missing,
        )


_COLUMNS = ("image", "label", "patient", "name", "group", "couinaud", "lesions_known")
_YES = {"1": True, "yes": True, "true": True, "": True, "0": False, "no": False, "false": False}


def _find_table(tree: _Tree) -> Iterator[Study]:
    """A CSV file with the columns image, label, patient, and by choice name, group, couinaud, lesions_known."""
    for path in tree.files:
        if path.suffix.lower() != ".csv":
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        rows = csv.DictReader(text.splitlines())
        columns = [column.strip() for column in rows.fieldnames or ()]
        # Other tables may lie beside a data set.
        if "image" in columns and ("label" in columns or len(tree.files) == 1):
            rows.fieldnames = columns
            yield from _rows(path, rows, columns)


def _rows(path: Path, rows: csv.DictReader, columns: list[str]) -> Iterator[Study]:
    for column in columns:
        if column not in _COLUMNS:
            near = difflib.get_close_matches(column, _COLUMNS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{path}: unknown column {column!r}.{hint} Known are {', '.join(_COLUMNS)}.")
    for column in ("image", "label", "patient"):
        if column not in columns:
            raise InputError(f"{path} has no column {column!r}; needed are image, label and patient.")
    for number, row in enumerate(rows, start=2):
        cells = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
        if not any(cells.values()):
            continue
        if not cells["image"] or not cells["patient"]:
            raise InputError(f"{path}, line {number}: image and patient must not be empty.")
        lesions = _YES.get(cells.get("lesions_known", "").lower())
        if lesions is None:
            raise InputError(
                f"{path}, line {number}: lesions_known is {cells['lesions_known']!r}, expected yes or no."
            )
        image, label, couinaud = (_place(path.parent, cells.get(key, "")) for key in ("image", "label", "couinaud"))
        missing = tuple(key for key, p in (("image", image), ("label", label)) if p is not None and not p.exists())
        if couinaud is not None and not couinaud.exists():
            missing += ("couinaud",)
        yield Study(
            cells.get("name") or _stem(Path(cells["image"])),
            "csv",
            cells["patient"],
            image if "image" not in missing else None,
            label if "label" not in missing else None,
            couinaud=couinaud if "couinaud" not in missing else None,
            known=_known(label is not None, lesions, couinaud),
            group=cells.get("group", ""),
            missing=missing,
        )


def _place(folder: Path, cell: str) -> Path | None:
    return folder / Path(cell).expanduser() if cell else None


LAYOUTS: dict[str, Callable[[_Tree], Iterator[Study]]] = {
    "lits": _find_lits,
    "msd": _find_msd,
    "ircadb": _find_ircadb,
    "chaos": _find_chaos,
    "csv": _find_table,
}
DESCRIPTIONS = {
    "lits": "volume-N.nii and segmentation-N.nii",
    "msd": "imagesTr and labelsTr, with dataset.json",
    "ircadb": "PATIENT_DICOM and MASKS_DICOM/<structure>, as folders or zip files",
    "chaos": "N/DICOM_anon and N/Ground/*.png",
    "csv": "a table with the columns image, label, patient",
}
