"""Zips of unknown origin: looked through before anything is unpacked, and never unpacked outside their folder."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from ..progress import Progress
from .download import CHUNK, require_space

MOST_MEMBERS = 10_000
MOST_BYTES = 16 << 30
# Weights can hardly be compressed; a small text can be by this much, which does no harm.
MOST_RATIO, HARMLESS_BYTES = 100, 64 << 20
# What a system leaves in a zip, and what a training may leave of patients: predictions on its validation cases.
_UNWANTED = ("__MACOSX", "validation")
_FORBIDDEN = set('<>:"|?*\\') | {chr(n) for n in range(32)}
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


def unpack(archive: Path, folder: Path, progress: Progress) -> None:
    """Unpacks a zip into an empty folder.

    Args:
        archive: the zip.
        folder: exists and is empty.
        progress: gets the stage 'unpack'.

    Raises:
        ModelError: it is no zip, is damaged, or holds something that a model does not need and an attacker does.
        ResourceError: it does not fit on the disk.
    """
    progress.stage("unpack")
    with _readable(archive), zipfile.ZipFile(archive) as content:
        members = checked_members(content, archive)
        total, done = sum(member.file_size for member in members), 0
        require_space(folder, total)
        for member in members:
            target = folder.joinpath(*PurePosixPath(member.filename).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Reading stops at the size that was checked, and ends with an error where the checksum is wrong.
            with content.open(member) as stream, open(target, "xb") as out:
                while chunk := stream.read(CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    progress.update(done / total)
    progress.finish()


def checked_members(content: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The files of a zip that are to be unpacked.

    Raises:
        ModelError: see :func:`unpack`.
    """
    members = content.infolist()
    if len(members) > MOST_MEMBERS:
        raise _refused(archive, f"it holds {len(members):,} files, and at most {MOST_MEMBERS:,} are accepted")
    total = sum(member.file_size for member in members)
    if total > MOST_BYTES:
        raise _refused(archive, f"unpacked it has {total / 1e9:,.0f} GB, more than {MOST_BYTES / 1e9:,.0f}")
    if total > max(HARMLESS_BYTES, MOST_RATIO * archive.stat().st_size):
        raise _refused(archive, f"it would grow from {archive.stat().st_size:,} to {total:,} bytes")
    seen: set[str] = set()
    wanted = []
    for member in members:
        reason = _danger(member)
        if reason:
            raise _refused(archive, f"{member.filename[:100]!r} {reason}")
        if member.is_dir() or not is_wanted(PurePosixPath(member.filename)):
            continue
        key = str(PurePosixPath(member.filename)).casefold()
        if key in seen:
            raise _refused(archive, f"{member.filename[:100]!r} is there twice")
        seen.add(key)
        wanted.append(member)
    return wanted


def is_wanted(path: PurePosixPath) -> bool:
    """False for what does not belong to a model: hidden files, and a training's predictions on patients."""
    return not any(part in _UNWANTED or part.startswith(".") for part in path.parts)


def _danger(member: zipfile.ZipInfo) -> str:
    """What is wrong with a member; empty where nothing is."""
    # As it stands in the zip: zipfile repairs some names by itself.
    name = member.orig_filename
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "leads out of the folder"
    if any(set(part) & _FORBIDDEN or part[-1] in ". " or part.split(".")[0].lower() in _RESERVED for part in parts):
        return "is no name that every system accepts"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, no file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    return ""


def _refused(archive: Path, reason: str) -> ModelError:
    return ModelError(f"{_shown(archive)} was not unpacked: {reason}. Get it again from a source that you trust.")


def _shown(archive: Path) -> str:
    return archive.name.removesuffix(".part")


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise ModelError(
            f"{_shown(archive)} is no zip, or a damaged one ({error}). It may be a page of the proxy or of a login "
            "instead of the file. Get it again."
        ) from None
