"""Which studies lie under a folder: volume files and DICOM folders, but neither label maps nor earlier results."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import nifti
from .dicom_headers import looks_like_dicom, scan_files
from .errors import InputError, LiverCascadeError
from .pixels import quiet_itk
from .report.files import LABELS_FILE, RESULT_FILE, RESULT_FORMAT
from .volume import SUFFIXES

SEGMENTATION_SUFFIXES = (".seg.nrrd", ".seg.nhdr")
_VOLUME_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
# Where this share of neighbors has the same value, an image is painted, not measured.
_PAINTED = 0.5


@dataclass(frozen=True)
class Study:
    """One CT to segment.

    Attributes:
        name: where it lies below the folder that was searched, without its suffix, with forward slashes; unique.
        path: what :func:`~.volume.read_volume` takes.
    """

    name: str
    path: Path


def find_studies(folder: Path | str, left_out: list[Path] | None = None) -> list[Study]:
    """The CT studies in a folder and its subfolders, sorted by name.

    A study is a NIfTI, NRRD or MetaImage file, or a folder that holds DICOM CT slices itself. Label maps, Slicer
    segmentations, earlier results and whatever is hidden are none.

    Args:
        folder: where to search; a single file is one study.
        left_out: gets the image files that were taken for label maps.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        return [Study(_without_suffix(folder.name), folder)]
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Check the path.")
    found: list[tuple[Path, bool]] = []
    for place, files in _folders_below(folder):
        for path in files:
            if not path.name.lower().endswith(_VOLUME_SUFFIXES) or _is_earlier_result(path):
                continue
            if not is_label_map(path):
                found.append((path, False))
            elif left_out is not None:
                left_out.append(path)
        if _holds_ct(files):
            found.append((place, True))
    return _named(folder, found)


def _folders_below(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """``folder`` and those below it with their files, sorted; links are followed, but nothing is visited twice."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(root), [Path(root, name) for name in sorted(names) if not name.startswith(".")]


def _is_earlier_result(path: Path) -> bool:
    """True for what LiverCascade or Slicer wrote: a segmentation, or the label map beside a result's record."""
    if path.name.lower().endswith(SEGMENTATION_SUFFIXES):
        return True
    return path.name == LABELS_FILE and record_in(path.parent) is not None


def record_in(folder: Path) -> dict | None:
    """The content of result.json of a finished run in ``folder``; None where there is none."""
    try:
        content = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("format") == RESULT_FORMAT else None


def is_label_map(path: Path) -> bool:
    """True where an image file holds labels: whole numbers, none below 0, in patches of the same value.

    What cannot be read is no label map: it is a study that will fail and say why. The first voxels of a CT, which
    are air and below 0, settle the question, so that only label maps are read to their end.
    """
    same = pairs = 0
    try:
        for values in _pieces(path):
            if values.dtype.kind not in "iuf" or values.min() < 0 or not np.isfinite(values).all():
                return False
            if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
                return False
            inside = values[..., :-1] > 0
            pairs += np.count_nonzero(inside)
            same += np.count_nonzero(inside & (values[..., 1:] == values[..., :-1]))
    except (LiverCascadeError, OSError, RuntimeError, ValueError, MemoryError):
        return False
    return same >= _PAINTED * pairs


def _pieces(path: Path) -> Iterator[np.ndarray]:
    """The voxels of an image file, [k, j, i] piece by piece."""
    if path.name.lower().endswith(SUFFIXES["nifti"]):
        for _, slab in nifti.iter_slabs(path, nifti.read_header(path)):
            yield slab
        return

    import SimpleITK as sitk

    with quiet_itk():
        image = sitk.ReadImage(str(path))
    array = sitk.GetArrayViewFromImage(image)
    yield from (array[k : k + 1] for k in range(len(array)))


def _holds_ct(files: Sequence[Path]) -> bool:
    """True where one of ``files`` is a DICOM slice of a CT."""
    for path in files:
        try:
            with path.open("rb") as stream:
                if not looks_like_dicom(stream.read(132)):
                    continue
            slices = scan_files([path]).slices
        except OSError:
            continue
        if slices and slices[0].modality == "CT" and not slices[0].is_localizer:
            return True
    return False


def _named(folder: Path, found: Sequence[tuple[Path, bool]]) -> list[Study]:
    """Studies with names that are unique, also where upper and lower case are the same."""
    places = [path for path, is_folder in found if is_folder]
    short: dict[Path, str] = {}
    for path, is_folder in found:
        name = path.relative_to(folder).as_posix()
        name = folder.resolve().name or "study" if name == "." else name
        short[path] = name if is_folder else _without_suffix(name)
    counts = Counter(name.casefold() for name in short.values())
    studies = []
    for path, is_folder in found:
        unique = counts[short[path].casefold()] == 1 or is_folder
        name = short[path] if unique else path.relative_to(folder).as_posix()
        # Reading a folder goes into its subfolders, which here are studies of their own: one of its files will do.
        mixed = is_folder and any(path in other.parents for other in places)
        studies.append(Study(name, _ct_file_of(path) if mixed else path))
    return sorted(studies, key=lambda study: study.name.casefold())


def _ct_file_of(folder: Path) -> Path:
    return next(path for path in sorted(folder.iterdir()) if path.is_file() and _holds_ct([path]))


def _without_suffix(name: str) -> str:
    suffix = next((s for s in _VOLUME_SUFFIXES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)] or name
