"""One study from disk: its CT, and its labels on the grid of the CT, whatever the layout."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from LiverCascadeLib.dicom_headers import looks_like_dicom, scan_files
from LiverCascadeLib.dicom_series import arrange, slice_pixels
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Grid, axis_maps
from LiverCascadeLib.pixels import Int16Sink, quiet_itk
from LiverCascadeLib.volume import Volume, read_labels, read_volume

from .layouts import LESION, LIVER, Study, lesion_structures, structures_in

# Two grids are the same where no corner is further off than this.
SAME_GRID_MM = 0.5


class StudyError(InputError):
    """A study that cannot be used; ``check`` names the check of :data:`.checks.CHECKS` that it fails."""

    def __init__(self, check: str, message: str):
        super().__init__(message)
        self.check = check


@dataclass(frozen=True, eq=False)
class RawStudy:
    """A study as it lies on disk, before any repair.

    Attributes:
        volume: the CT.
        labels: values as stored [k, j, i], or for masks and pictures 0, 1, 2; None where there are none.
        label_grid: the grid of ``labels``.
        meanings: what the values of ``labels`` mean.
        couinaud: values as stored with their grid, or None.
        notes: what was noticed while reading.
    """

    volume: Volume
    labels: np.ndarray | None
    label_grid: Grid | None
    meanings: Mapping[int, int]
    couinaud: tuple[np.ndarray, Grid] | None = None
    notes: tuple[str, ...] = ()


def read_raw(study: Study) -> RawStudy:
    """Reads a study's files.

    Raises:
        StudyError: a file is missing or unreadable, or masks do not lie on the CT.
    """
    if study.missing:
        raise StudyError(f"missing-{study.missing[0]}", f"{study.name} has no {' and no '.join(study.missing)}.")
    with _as(study, "unreadable"):
        volume = replace(read_image(study.image), name=study.name)
    notes: list[str] = list(study.notes)
    labels = grid = None
    meanings: Mapping[int, int] = study.meanings
    if study.label is not None:
        with _as(study, "unreadable"):
            if study.label_kind == "map":
                labels, grid = read_labels(study.label)
            elif study.label_kind == "structures":
                labels, grid = _read_structures(study, volume), volume.grid
            else:
                labels, grid = _read_pictures(study, volume, notes), volume.grid
        meanings = study.meanings or {0: 0, LIVER: LIVER, LESION: LESION}
    couinaud = None
    if study.couinaud is not None:
        with _as(study, "unreadable"):
            couinaud = read_labels(study.couinaud)
    return RawStudy(volume, labels, grid, meanings, couinaud, tuple(notes))


@contextmanager
def _as(study: Study, check: str) -> Iterator[None]:
    """Errors of reading as errors of the study."""
    try:
        yield
    except StudyError:
        raise
    except (InputError, OSError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise StudyError(check, f"{study.name}: {error}") from error
    except (RuntimeError, ValueError, MemoryError) as error:
        # Whatever a damaged file brings a reader to: one case must not end the report on all others.
        raise StudyError(check, f"{study.name} cannot be read ({type(error).__name__}: {error}).") from error


@contextmanager
def unzipped(path: Path, below: str = "") -> Iterator[Path]:
    """``path``, or a temporary folder with the content of a zip file.

    Args:
        below: only members whose last folder has this name.
    """
    if path.is_dir() or path.suffix.lower() != ".zip":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        for number, member in enumerate(m for m in archive.infolist() if not m.is_dir()):
            parent = Path(member.filename).parent.name
            if not below or parent == below:
                # Only the last folder's name is kept, so that no member can point outside.
                place = Path(folder, parent)
                place.mkdir(exist_ok=True)
                (place / f"{number:06d}_{Path(member.filename).name}").write_bytes(archive.read(member))
        yield Path(folder)


def read_image(path: Path) -> Volume:
    """A CT from a file, a DICOM folder, or a zip file with DICOM.

    Raises:
        InputError: as :func:`LiverCascadeLib.volume.read_volume`.
    """
    with unzipped(path) as place:
        if not place.is_dir():
            return read_volume(place)
        try:
            volume = read_volume(place)
        except InputError:
            volume = _loose_slices(place)
            if volume is None:
                raise
        return replace(volume, source={**volume.source, "path": str(path)})


def _loose_slices(folder: Path) -> Volume | None:
    """Slices that lost the identifier of their series, as CHAOS has them; None where that is not the trouble."""
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    slices = [s for s in scan_files(sorted(files)).slices if s.modality == "CT" and not s.is_localizer]
    if len(slices) < 2 or len({s.series_uid for s in slices}) != len(slices):
        return None
    if len({(s.size, tuple(np.round(s.orientation, 3)), tuple(np.round(s.spacing, 4))) for s in slices}) != 1:
        return None
    arrangement = arrange(slices, str(folder))
    if any(len(group) > 1 for group in arrangement.groups):
        return None
    sink = Int16Sink(arrangement.grid.shape, str(folder))
    with quiet_itk():
        for k, group in enumerate(arrangement.groups):
            sink.put(k, slice_pixels(slices[group[0]])[None])
    array, findings = sink.finish()
    return Volume(array, arrangement.grid, folder.name, {"path": str(folder), "format": "dicom"}, findings)


def _read_structures(study: Study, volume: Volume) -> np.ndarray:
    """Liver and lesions of a 3D-IRCADb case: uint8 [k, j, i] on the grid of the CT."""
    names = structures_in(study.label)
    lesions = lesion_structures(names)
    labels = np.zeros(volume.grid.shape, np.uint8)
    livers = [name for name in names if name.lower() == "liver"]
    for value, wanted in ((LIVER, livers), (LESION, lesions)):
        for name in wanted:
            with unzipped(study.label, name) as place:
                folder = next((p for p in (place / name, place / place.name / name) if p.is_dir()), None)
                if folder is None:
                    raise StudyError("missing-label", f"{study.name}: there is no mask series {name}.")
                mask = read_image(folder)
            placed = placed_on(mask.array > 0, mask.grid, volume.grid)
            if placed is None:
                raise StudyError(
                    "grid-mismatch", f"{study.name}: the masks of {name} lie on {mask.grid}, the CT on {volume.grid}."
                )
            labels[placed > 0] = value
    return labels


def _read_pictures(study: Study, volume: Volume, notes: list[str]) -> np.ndarray:
    """The liver of a CHAOS case: one PNG per DICOM file, in the order of the file names."""
    from PIL import Image

    pictures = sorted((p for p in study.label.iterdir() if p.suffix.lower() == ".png"), key=_numbers)
    files = sorted((p for p in study.image.iterdir() if p.is_file() and _is_dicom(p)), key=_numbers)
    if len(pictures) != len(files) or len(files) != volume.grid.size[2]:
        raise StudyError(
            "grid-mismatch",
            f"{study.name}: {len(pictures)} pictures of the liver for {len(files)} DICOM files that make "
            f"{volume.grid.size[2]} slices. There must be one for each.",
        )
    labels = np.zeros(volume.grid.shape, np.uint8)
    slices = {s.path: s for s in scan_files(files).slices}
    for picture, file in zip(pictures, files, strict=True):
        with Image.open(picture) as image:
            mask = np.asarray(image.convert("L")) > 0
        if mask.shape != volume.grid.shape[1:]:
            raise StudyError("grid-mismatch", f"{picture} is {mask.shape}, the slices are {volume.grid.shape[1:]}.")
        item = slices.get(file)
        if item is None or item.position is None:
            raise StudyError("unreadable", f"{study.name}: {file.name} does not say where its slice lies.")
        ras = np.asarray(item.position) * (-1, -1, 1)
        labels[int(np.clip(round(float(volume.grid.to_ijk(ras)[2])), 0, len(labels) - 1))] = mask
    return _in_order(study, volume, labels, notes)


def _in_order(study: Study, volume: Volume, labels: np.ndarray, notes: list[str]) -> np.ndarray:
    """``labels``, with their slices turned round where the densities under them say so, clearly."""
    straight, turned = (soft_tissue_share(volume.array, mask > 0) for mask in (labels, labels[::-1]))
    if turned > straight + 0.15:
        notes.append(
            f"The pictures come in the order opposite to the DICOM files: turned round, {turned:.0%} of the liver has "
            f"the density of soft tissue, {straight:.0%} as they were."
        )
        return np.ascontiguousarray(labels[::-1])
    return labels


def soft_tissue_share(array: np.ndarray, mask: np.ndarray) -> float:
    """Share of a mask's voxels with the density of a liver, lesions included: -20 to 220 HU."""
    values = array[mask]
    return float(np.mean((values > -20) & (values < 220))) if values.size else 0.0


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return looks_like_dicom(stream.read(132))


def _numbers(path: Path) -> tuple[tuple[int, ...], str]:
    return tuple(int(n) for n in re.findall(r"\d+", path.stem)), path.name


def placed_on(labels: np.ndarray, grid: Grid, target: Grid) -> np.ndarray | None:
    """Labels on another grid that has the same voxels: flipped, reordered, or cut to a part of it.

    Args:
        labels: [k, j, i] on ``grid``, integers or bool.
        grid: where they lie.
        target: where they are wanted.

    Returns:
        [k, j, i] on ``target``, 0 where ``grid`` does not reach; None where the voxels are not the same.
    """
    if grid.is_close(target, SAME_GRID_MM):
        return labels
    try:
        maps = axis_maps(grid, target)
    except ValueError:
        return None
    steps = np.array([m.scale for m in maps])
    offsets = np.array([m.offset for m in maps])
    sizes = np.array(target.size)
    # Whole steps, and a whole number of voxels apart, over the entire target.
    drift = np.abs(np.abs(steps) - 1) * sizes
    if drift.max() > SAME_GRID_MM / grid.spacing.min() or np.abs(offsets - np.round(offsets)).max() > 0.1:
        return None
    view = labels.transpose([2 - maps[axis].source_axis for axis in (2, 1, 0)])
    placed = np.zeros(target.shape, labels.dtype)
    from_slices, to_slices = [], []
    for axis in (2, 1, 0):
        places = np.sign(steps[axis]) * np.arange(sizes[axis]) + round(float(offsets[axis]))
        inside = np.flatnonzero((places >= 0) & (places < view.shape[2 - axis]))
        if not len(inside):
            return None
        to_slices.append(inside)
        from_slices.append(places[inside].astype(int))
    placed[np.ix_(*to_slices)] = view[np.ix_(*from_slices)]
    return placed


def by_meaning(labels: np.ndarray, meanings: Mapping[int, int]) -> tuple[np.ndarray, dict[int, int]]:
    """Labels as 0 background, 1 liver, 2 lesion.

    Returns:
        (uint8 [k, j, i], {value: voxels} of the values that have no meaning).
    """
    values, counts = np.unique(labels, return_counts=True)
    unknown = {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in meanings}
    result = np.zeros(labels.shape, np.uint8)
    for value in values:
        meaning = meanings.get(int(value), 0)
        if meaning:
            result[labels == value] = meaning
    return result, unknown


def files_of(study: Study) -> list[Path]:
    """All files that a study consists of, sorted."""
    places: Sequence[Path | None] = (study.image, study.label, study.couinaud)
    files: list[Path] = []
    for place in places:
        if place is not None and place.is_dir():
            files += [Path(root, name) for root, _, names in os.walk(place) for name in names]
        elif place is not None:
            files.append(place)
    return sorted(files)
