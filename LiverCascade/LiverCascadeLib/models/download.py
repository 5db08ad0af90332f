"""One file from the internet or a mirror: resumed where it was cut off, checked before anybody uses it.

What has arrived lies in ``NAME.part``; ``NAME.part.json`` says which version of the file it belongs to, so that parts
of two versions are never put together. Whatever ends a download leaves only these two, and the next try goes on.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import shutil
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .. import __version__
from ..errors import Cancelled, DownloadError, ResourceError
from ..progress import Progress

CHUNK = 1 << 18
REDIRECTS = 5
# Nobody fills a disk to its last byte.
RESERVE_BYTES = 64 << 20
KEPT = "What has arrived is kept, and the next try goes on from there."


@dataclass(frozen=True)
class Connection:
    """How to reach the internet.

    Attributes:
        proxy: such as ``http://proxy.hospital:3128``; None takes what the environment says (HTTPS_PROXY, NO_PROXY).
        ca_file: certificates to trust, PEM; None takes the system's.
        mirror: takes the place of the publisher's base URL; http, https or file.
        timeout_s: how long to wait for a server that says nothing.
    """

    proxy: str | None = None
    ca_file: Path | None = None
    mirror: str | None = None
    timeout_s: float = 30.0

    def url(self, base: str, file: str) -> str:
        """Where a file is.

        Raises:
            DownloadError: the mirror is no URL of a kind that is known.
        """
        if self.mirror is None:
            return f"{base}/{file}"
        parts = urllib.parse.urlsplit(self.mirror)
        if parts.scheme not in ("http", "https", "file") or (parts.scheme != "file" and not parts.hostname):
            raise DownloadError(
                f"The mirror {self.mirror} is no URL. Expected something like https://server/models or "
                "file:///folder/models."
            )
        return f"{self.mirror.rstrip('/')}/{file}"


@dataclass(frozen=True)
class RemoteFile:
    """A file and what is known about it.

    Attributes:
        url: http, https or file.
        name: for people, and of the file on disk.
        size_bytes: exact, or None.
        digests: hexadecimal, by the name of the algorithm that hashlib knows.
    """

    url: str
    name: str
    size_bytes: int | None
    digests: dict[str, str]


def download(file: RemoteFile, folder: Path, connection: Connection, progress: Progress) -> Path:
    """Fetches a file, or the rest of it, and checks it.

    Args:
        file: what to fetch.
        folder: where ``NAME.part`` lies; the finished file is called so as well, because only its checksum or its
            content shows that it is the right one.
        connection: how to get there.
        progress: gets the stages 'download' and 'verify'.

    Returns:
        The complete file.

    Raises:
        DownloadError: it is not there, does not arrive, or is not the right one.
        ResourceError: the disk is full.
        Cancelled: the user cancelled.
    """
    part = _Part(folder / f"{file.name}.part")
    try:
        with _explained(file, folder):
            folder.mkdir(parents=True, exist_ok=True)
            progress.stage("download")
            if urllib.parse.urlsplit(file.url).scheme == "file":
                _copy(file, part, progress)
            else:
                _fetch(file, part, connection, progress)
            progress.stage("verify")
            _verify(file, part, progress)
            progress.finish()
    except Cancelled:
        raise Cancelled(f"The download of {file.name} was cancelled. {KEPT}") from None
    return part.path


def discard(name: str, folder: Path) -> None:
    """Removes what has arrived of a file."""
    _Part(folder / f"{name}.part").remove()


class _Part:
    """What has arrived, and of which version of the file."""

    def __init__(self, path: Path):
        self.path = path
        self.note = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def validator(self, url: str) -> str:
        """The ETag or date of the version that the bytes belong to; empty where nothing can be built upon."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        known = isinstance(note, dict) and note.get("url") == url and isinstance(note.get("validator"), str)
        return note["validator"] if known and self.size else ""

    def begin(self, url: str, validator: str) -> None:
        """The bytes that follow are the first of this version."""
        self.note.unlink(missing_ok=True)
        self.path.write_bytes(b"")
        self.note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def remove(self) -> None:
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _copy(file: RemoteFile, part: _Part, progress: Progress) -> None:
    """A mirror that is a folder; begins anew each time, because a copy is quick."""
    parts = urllib.parse.urlsplit(file.url)
    source = Path(urllib.request.url2pathname(parts.path))
    if parts.netloc not in ("", "localhost"):
        raise DownloadError(f"{file.url} names another computer. Name its shared folder as this computer sees it.")
    if not source.is_file():
        raise DownloadError(f"The mirror has no file {source}. Expected the publisher's folders below the mirror.")
    total = source.stat().st_size
    _check_size(file, total, part)
    require_space(part.path.parent, total)
    part.begin(file.url, "")
    with open(source, "rb") as stream:
        _pour(file, stream, part, total, progress)


def _fetch(file: RemoteFile, part: _Part, connection: Connection, progress: Progress) -> None:
    opener = _opener(connection)
    for _ in range(2):
        validator = part.validator(file.url)
        try:
            response = opener.open(_request(file, part, validator), timeout=connection.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not validator:
                raise
            with error:
                complete = _total_in(error.headers.get("Content-Range", "")) == part.size
            if complete:
                return
        else:
            with response:
                continues = _continues(part, response, validator)
                if continues or response.status == http.HTTPStatus.OK:
                    _receive(file, response, part, continues, progress)
                    return
        part.remove()  # the file has changed, and what is here is of no use
    raise DownloadError(f"The server of {file.name} sent a part of it, though all was asked for. Try again later.")


def _request(file: RemoteFile, part: _Part, validator: str) -> urllib.request.Request:
    """Asks for what is missing, provided that the file is still the same, and for everything otherwise."""
    headers = {"User-Agent": f"LiverCascade/{__version__}", "Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": validator}
    return urllib.request.Request(file.url, headers=headers)


def _receive(
    file: RemoteFile, response: http.client.HTTPResponse, part: _Part, continues: bool, progress: Progress
) -> None:
    if continues:
        total = _total_in(response.headers["Content-Range"])
    else:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
    _check_size(file, total, part)
    if not continues:
        part.begin(file.url, _validator_in(response))
    if total is not None:
        require_space(part.path.parent, total - part.size)
    _pour(file, response, part, total, progress)


def _continues(part: _Part, response: http.client.HTTPResponse, validator: str) -> bool:
    """Whether ``response`` begins where ``part`` ends, in the same version of the file."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT or not validator:
        return False
    same = response.headers.get("ETag", "") == validator or response.headers.get("Last-Modified", "") == validator
    return same and response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")


def _validator_in(response: http.client.HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    # A weak tag does not promise the same bytes.
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _total_in(content_range: str) -> int | None:
    """The length in ``bytes 5-9/10``; None for ``bytes 5-9/*`` and for anything else."""
    total = content_range.rpartition("/")[2]
    return int(total) if total.isdecimal() else None


def _check_size(file: RemoteFile, total: int | None, part: _Part) -> None:
    if total is not None and file.size_bytes is not None and total != file.size_bytes:
        part.remove()
        raise DownloadError(
            f"The server offers {file.name} with {total:,} bytes, expected {file.size_bytes:,}: it is another file, "
            "or its owners have exchanged it. Nothing was installed. Ask for a newer version of this program."
        )


def _pour(file: RemoteFile, stream: IO[bytes], part: _Part, total: int | None, progress: Progress) -> None:
    """Appends to ``part`` what ``stream`` gives."""
    limit = total if total is not None else file.size_bytes
    read = getattr(stream, "read1", stream.read)
    have = part.size
    progress.update(have / limit if limit else 0.0)
    with open(part.path, "ab") as out:
        while chunk := read(CHUNK):
            have += len(chunk)
            if limit is not None and have > limit:
                break
            out.write(chunk)
            progress.update(have / limit if limit else 0.0)
    if limit is not None and have > limit:
        part.remove()
        raise DownloadError(f"The server sent more of {file.name} than the {limit:,} bytes expected. Try again.")
    if limit is not None and have < limit:
        raise DownloadError(
            f"The connection broke off: {have:,} of {limit:,} bytes of {file.name} have arrived. {KEPT}"
        )


def _verify(file: RemoteFile, part: _Part, progress: Progress) -> None:
    for algorithm, expected in file.digests.items():
        found = digest_of(part.path, algorithm, progress)
        if found != expected:
            part.remove()
            raise DownloadError(
                f"{file.name} is not the file that it should be: its {algorithm.upper()} is {found[:12]}…, expected "
                f"{expected[:12]}…. It was damaged on its way, or exchanged. It was thrown away and nothing was "
                "installed; try again, and if that does not help, ask whoever runs the server."
            )


def digest_of(path: Path, algorithm: str, progress: Progress) -> str:
    """Hexadecimal digest of a file, with progress."""
    digest = hashlib.new(algorithm)
    size, done = path.stat().st_size, 0
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            done += len(chunk)
            progress.update(done / size)
    return digest.hexdigest()


def require_space(folder: Path, wanted_bytes: int) -> None:
    """Looks whether ``wanted_bytes`` fit into ``folder``.

    Raises:
        ResourceError: they do not.
    """
    free = shutil.disk_usage(folder).free
    if free < wanted_bytes + RESERVE_BYTES:
        raise ResourceError(
            f"The disk of {folder} has {free / 1e6:,.0f} MB left, and {(wanted_bytes + RESERVE_BYTES) / 1e6:,.0f} MB "
            "are needed. Free some space, or set LIVERCASCADE_MODELS to a folder on another disk."
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows some redirects, and none to a place that is less safe."""

    max_redirections = REDIRECTS
    max_repeats = 2

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and not (scheme == "http" and urllib.parse.urlsplit(req.full_url).scheme == "http"):
            raise DownloadError(
                f"{req.host} wants to lead to {scheme}://…, which is not safe. Nothing was downloaded."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(connection: Connection) -> urllib.request.OpenerDirector:
    proxies = None
    if connection.proxy is not None:
        if urllib.parse.urlsplit(connection.proxy).scheme not in ("http", "https"):
            raise DownloadError(
                f"The proxy {connection.proxy} is no URL. Expected something like http://proxy.hospital:3128."
            )
        proxies = {"http": connection.proxy, "https": connection.proxy}
    try:
        context = ssl.create_default_context(cafile=connection.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise DownloadError(
            f"The certificates {connection.ca_file} cannot be read ({error}). Expected a file in PEM format."
        ) from None
    handlers = (urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context), _Redirects())
    return urllib.request.build_opener(*handlers)


@contextmanager
def _explained(file: RemoteFile, folder: Path) -> Iterator[None]:
    """Turns what the network and the disk say into sentences."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            raise DownloadError(_refusal(file, error)) from None
    except urllib.error.URLError as error:
        raise DownloadError(_unreachable(file, error.reason)) from None
    except TimeoutError:
        raise DownloadError(f"The server of {file.name} has stopped answering. {KEPT}") from None
    except (http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        reason = str(error) or type(error).__name__
        raise DownloadError(f"The connection broke off while {file.name} was loaded ({reason}). {KEPT}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise ResourceError(f"The disk of {folder} is full. Free some space and try again. {KEPT}") from None
        reason = error.strerror or str(error)
        raise DownloadError(f"{file.name} cannot be written to {folder}: {reason}. Choose another folder.") from None


def _refusal(file: RemoteFile, error: urllib.error.HTTPError) -> str:
    if 300 <= error.code < 400:
        return f"The server of {file.name} redirects without an end, or to where it is not safe to follow. Try later."
    if error.code in (404, 410):
        return f"{file.url} does not exist (HTTP {error.code}). The file was moved, or the mirror does not have it."
    if error.code == 407:
        return "The proxy asks for a name and a password. Give them as http://name:password@proxy:port."
    return f"The server of {file.name} answered with HTTP {error.code} ({error.reason}). Try again later."


def _unreachable(file: RemoteFile, reason: object) -> str:
    host = urllib.parse.urlsplit(file.url).hostname
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"The certificate of {host} is not trusted ({reason.verify_message}). Behind a proxy that opens "
            "connections, give the hospital's certificates with --ca FILE."
        )
    if isinstance(reason, socket.timeout | TimeoutError):
        return f"{host} did not answer in time. {KEPT}"
    return (
        f"{host} cannot be reached ({reason}). Check the network; behind a proxy set HTTPS_PROXY or give --proxy; "
        "without the internet, import the file with 'livercascade models import'."
    )
