"""Models of others come to this computer: from the catalogue by download, or from a file or folder.

A model is made ready in a hidden folder beside its place and appears there with one renaming, so that whatever ends
an installation earlier leaves no half of a model. What a dead process left is removed by the next one.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import Cancelled, LiverCascadeError, ModelError, OutputError, ResourceError
from ..progress import Progress
from .archive import unpack
from .cascade_file import write_json
from .catalogue import CatalogueModel, in_megabytes
from .download import Connection, RemoteFile, digest_of, discard, download, require_space
from .label_names import structures_of
from .library import Library, checked_id
from .recognize import Recognized, recognize
from .stage_file import SCHEMA_VERSION, STAGE_NAME, StageFile, read_stage_file

NEW = ".new-"
CONSENT = "--accept-license"
REFINE_MARGIN_MM = 10.0


@dataclass(frozen=True)
class Description:
    """What a user says of a model that is imported; None is guessed from its files.

    Attributes:
        id, title, role, license: see ``stage.json``.
        structures: label values by structure.
        mirror: whether mirrored copies are averaged.
        margin_mm: tissue around the located liver that belongs to the box.
    """

    id: str | None = None
    title: str | None = None
    role: str | None = None
    license: str | None = None
    structures: dict[str, list[int]] | None = None
    mirror: bool | None = None
    margin_mm: float | None = None


@dataclass(frozen=True)
class Imported:
    """An imported model, and sentences about what was guessed."""

    model: StageFile
    notes: tuple[str, ...] = field(default=())


def license_text(entry: CatalogueModel) -> str:
    """What a user has to agree to before a download."""
    commercial = "allows" if entry.commercial_use else "does not allow"
    lines = [
        f"{entry.title} (version {entry.version}, {in_megabytes(entry.size_bytes)})",
        f"from {entry.url}",
        f"License: {entry.license}, {entry.license_url}; it {commercial} commercial use.",
        entry.intended_use,
        "To be cited:",
        *(f"  {citation}" for citation in entry.citation),
    ]
    return "\n".join(lines)


def install(
    entry: CatalogueModel, library: Library, connection: Connection, progress: Progress, license_accepted: bool
) -> StageFile:
    """Downloads and installs a model of the catalogue; one that is installed and whole is left as it is.

    Raises:
        ModelError: the license is not accepted, or the zip is not what it should be.
        DownloadError, ResourceError, OutputError, Cancelled: see :mod:`.download`.
    """
    name = PurePosixPath(entry.file).name
    there = _whole(entry.id, library)
    if there is not None:
        discard(name, library.downloads)  # where a process died before it could
        return there
    if not license_accepted:
        raise ModelError(
            f"The license of {entry.title} has not been accepted, so nothing was downloaded. Read it at "
            f"{entry.license_url} and give {CONSENT} if you agree."
        )
    recorded = library.recorded_sha256(entry.id)
    digests = {"sha256": entry.sha256 or recorded, "sha1": entry.sha1}
    file = RemoteFile(
        connection.url(entry.base_url, entry.file),
        name,
        entry.size_bytes if entry.sha256 else None,
        {algorithm: digest for algorithm, digest in digests.items() if digest},
    )
    archive = download(file, library.downloads, connection, progress)
    with _hidden_folder(entry.id, library) as folder:
        try:
            unpack(archive, folder, progress)
            found = _one(_fitting(recognize(folder, library.catalogue), entry), f"{file.name} as {entry.model}")
        except ModelError:
            discard(file.name, library.downloads)
            raise
        if recorded is None:
            progress.stage("verify")
            library.record_sha256(entry.id, digest_of(archive, "sha256", progress))
        stage = {**entry.stage(), "model": str(found.path)}
        model = _settle(folder, stage, found, library, progress)
    discard(file.name, library.downloads)
    return model


def import_model(path: Path, library: Library, description: Description, progress: Progress) -> Imported:
    """Installs a model from a zip or a folder; what is there stays there.

    Raises:
        ModelError: it holds no model that can be used, or more than one, or one that is installed already.
        ResourceError, OutputError, Cancelled: as for :func:`install`.
    """
    if not path.exists():
        raise ModelError(f"There is no file or folder {path}.")
    if (path / "manifest.json").is_file():
        raise ModelError(f"{path} is a model of LiverCascade's own. It needs no import: give its folder with --model.")
    name = "import" if description.id is None else checked_id(description.id)
    with _hidden_folder(name, library) as folder:
        notes: list[str] = []
        if path.is_dir():
            found = _one(recognize(path.absolute(), library.catalogue), str(path))
            _copy(path, found, folder, progress)
        else:
            unpack(path, folder, progress)
            found = _one(recognize(folder, library.catalogue), path.name)
        stage = _described(path, found, description, notes)
        if not path.is_dir():
            notes += _compared(path, found, library, progress)
        model = _settle(folder, stage, found, library, progress)
    return Imported(model, tuple(notes))


def remove_stale(library: Library) -> None:
    """Removes what processes left in the library that died while they installed or removed something."""
    try:
        import psutil
    except ImportError:
        return  # nobody can be asked who is alive
    for parent in (library.stages, library.root / "cascades"):
        for folder in parent.glob(".*") if parent.is_dir() else ():
            owner = folder.name.split("-")[1] if folder.name.startswith(NEW) else folder.name.rpartition("-")[2]
            if (
                folder.is_dir()
                and owner.isdecimal()
                and int(owner) != os.getpid()
                and not psutil.pid_exists(int(owner))
            ):
                shutil.rmtree(folder, ignore_errors=True)


def _whole(model_id: str, library: Library) -> StageFile | None:
    """The installed model, if nothing of it is missing or altered."""
    try:
        model = library.find(model_id)
    except ModelError:
        return None
    return model if model is not None and not library.problems(model) else None


def _fitting(found: list[Recognized], entry: CatalogueModel) -> list[Recognized]:
    """Those that are the entry's model; a bundle may lie in a zip with or without a folder around it."""
    same = [model for model in found if model.entry is entry]
    return same or [model for model in found if model.format == entry.format == "monai-bundle"]


def _one(found: list[Recognized], where: str) -> Recognized:
    if not found:
        raise ModelError(
            f"No model was found in {where}. Expected nnU-Net's folder with dataset.json, plans.json and fold_*, a "
            "MONAI bundle with configs/metadata.json, or a folder with a stage.json."
        )
    if len(found) > 1:
        names = ", ".join(str(model.path) for model in found[:10])
        raise ModelError(f"{where} holds {len(found)} models: {names}. Import the folder of one of them.")
    return found[0]


def _described(path: Path, found: Recognized, description: Description, notes: list[str]) -> dict[str, Any]:
    """The content of ``stage.json``; what is guessed is said in ``notes``."""
    entry = found.entry
    said = {name: value for name, value in asdict(description).items() if value is not None}
    if found.stage is not None:
        return {**found.stage, **said}
    if entry is not None:
        notes.append(f"It is {entry.title} of the catalogue: license {entry.license}, {entry.license_url}.")
        return {**entry.stage(), "model": str(found.path), **said}
    structures = description.structures or _guessed_structures(found, notes)
    role = description.role or _guessed_role(structures, notes)
    if role == "locate" and "liver" not in structures:
        raise ModelError("A model that locates must know the liver. Say which label it is: --structure liver=1.")
    if description.license is None:
        notes.append("Its license is not known: ask whoever gave it to you, and record it with --license.")
    return {
        "schema_version": SCHEMA_VERSION,
        "format": found.format,
        "id": _id_from(path, found),
        "role": role,
        "title": found.path.name or path.stem,
        "version": "1",
        "license": "not known",
        "citation": "",
        "intended_use": "Research use only, not a medical device. Imported by the user.",
        "model": str(found.path),
        "structures": structures,
        "margin_mm": REFINE_MARGIN_MM if role == "refine" else 0,
        **{key: value for key, value in found.facts.items() if value not in (None, "")},
        **said,
    }


def _guessed_structures(found: Recognized, notes: list[str]) -> dict[str, list[int]]:
    structures = structures_of(found.labels)
    known = ", ".join(f"{name} {values}" for name, values in found.labels.items()) or "none"
    if not structures:
        raise ModelError(
            f"None of the model's labels has a name that is known ({known}). Say which is which: --structure "
            "liver=1 --structure lesion=2."
        )
    guessed = ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in structures.items())
    notes.append(f"Guessed from the names of the labels ({known}): {guessed}. Say otherwise with --structure.")
    return structures


def _guessed_role(structures: dict[str, list[int]], notes: list[str]) -> str:
    role = "locate" if set(structures) == {"liver"} else "refine"
    notes.append(f"Guessed from its structures: the role is {role}. Say otherwise with --role.")
    return role


def _id_from(path: Path, found: Recognized) -> str:
    """An id from the names of file and folders: nnU-Net's data set, rather than its trainer."""
    names = [part for part in found.path.parts if part.startswith("Dataset")] or [path.stem or path.name]
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in names[0].lower())
    return "-".join(filter(None, plain.split("-")))[:60].strip("-") or "imported"


def _compared(path: Path, found: Recognized, library: Library, progress: Progress) -> list[str]:
    """Holds a zip against what is known of the catalogue's."""
    if found.entry is None:
        return []
    progress.stage("verify")
    digest = digest_of(path, "sha256", progress)
    progress.finish()
    expected = found.entry.sha256 or library.recorded_sha256(found.entry.id)
    if expected is None:
        return [f"Nobody has published the SHA-256 of this zip. It is {digest}."]
    if digest != expected:
        return [f"The zip is not the one of the catalogue: its SHA-256 is {digest[:12]}…, expected {expected[:12]}…."]
    return ["The zip is the one of the catalogue: its SHA-256 is right."]


def _copy(source: Path, found: Recognized, folder: Path, progress: Progress) -> None:
    progress.stage("copy")
    sizes = {name: (source / name).stat().st_size for name in found.files}
    require_space(folder, sum(sizes.values()))
    done = 0
    for name, size in sizes.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
        done += size
        progress.update(done / max(1, sum(sizes.values())))
    progress.finish()


def _settle(folder: Path, stage: dict[str, Any], found: Recognized, library: Library, progress: Progress) -> StageFile:
    """Gives the unpacked model its ``stage.json`` and its place."""
    progress.stage("record")
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and PurePosixPath(path.relative_to(folder).as_posix()) not in found.files:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    stage = dict(stage)
    stage["files_sha256"] = {str(name): digest_of(folder / name, "sha256", progress) for name in found.files}
    place = library.stages / checked_id(stage["id"])
    if place.exists() and _whole(stage["id"], library) is not None:
        raise ModelError(f"A model with the id {stage['id']} is installed already. Remove it, or choose another --id.")
    if library.catalogue.cascade(stage["id"]) is not None:
        raise ModelError(f"{stage['id']} is the id of a cascade. Choose another --id.")
    write_json(folder / STAGE_NAME, stage)
    read_stage_file(folder)  # refuses what is not valid
    progress.update(1.0)
    library.clear(stage["id"])  # what is left of a damaged one
    folder.replace(place)
    progress.finish()
    return read_stage_file(place)


@contextmanager
def _hidden_folder(name: str, library: Library) -> Iterator[Path]:
    """An empty folder on the library's file system; it is gone afterwards, unless it was moved to its place."""
    folder = None
    try:
        library.stages.mkdir(parents=True, exist_ok=True)
        remove_stale(library)
        folder = Path(tempfile.mkdtemp(prefix=f"{NEW}{os.getpid()}-{name}-", dir=library.stages))
        os.chmod(folder, 0o755)
        yield folder
    except Cancelled:
        raise Cancelled("The installation was cancelled. Nothing was installed.") from None
    except LiverCascadeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise ResourceError(
                f"The disk of {library.root} is full. Nothing was installed. Free some space and try again."
            ) from None
        reason = error.strerror or str(error)
        raise OutputError(
            f"The model cannot be installed in {library.root}: {reason}. Nothing was installed."
        ) from None
    finally:
        if folder is not None:
            with suppress(OSError):
                shutil.rmtree(folder, ignore_errors=True)
