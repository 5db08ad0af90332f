"""A server on this computer that stands in for the internet, with everything that can go wrong there."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultServer:
    """Serves files from memory; ``faults`` say how each of the next requests is answered, and then all goes well.

    Attributes:
        files: content by path.
        faults: called with the handler and the content, one for each request.
        requests: (path, Range header or empty, status) of each request.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files, self.faults, self.requests = files, [], []
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        fault = self.faults.pop(0) if self.faults else good
        content = self.files.get(handler.path.lstrip("/"))
        self.requests.append((handler.path, handler.headers.get("Range", "")))
        try:
            (not_found if content is None else fault)(handler, content)
        except (BrokenPipeError, ConnectionResetError):
            return


Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FaultServer]:
    """A server in a thread of its own."""
    server = FaultServer(files)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join(5)


def etag(content: bytes) -> str:
    """A strong tag."""
    return f'"{hashlib.md5(content).hexdigest()}"'


def good(handler: BaseHTTPRequestHandler, content: bytes, sent: int | None = None, pause: float = 0.0) -> None:
    """What a good server answers, ranges included; ``sent`` cuts it off after so many bytes of this answer."""
    wanted = handler.headers.get("Range", "")
    start = 0
    if wanted and handler.headers.get("If-Range") == etag(content):
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
    if start >= len(content):
        _head(handler, 416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
        return
    headers = {"ETag": etag(content), "Content-Length": str(len(content) - start)}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    _head(handler, 206 if start else 200, headers)
    body = content[start:] if sent is None else content[start : start + sent]
    for first in range(0, len(body), 1 << 14):
        handler.wfile.write(body[first : first + (1 << 14)])
        if pause:
            time.sleep(pause)


def cut_after(sent: int) -> Fault:
    """The connection ends too early."""
    return lambda handler, content: good(handler, content, sent)


def slowly(pause: float) -> Fault:
    """A pause after every 16 kB."""
    return lambda handler, content: good(handler, content, pause=pause)


def silent(seconds: float) -> Fault:
    """Half of the file, and then nothing for a while."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        good(handler, content, len(content) // 2)
        handler.wfile.flush()
        time.sleep(seconds)

    return answer


def without_ranges(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Everything, whatever was asked for."""
    _head(handler, 200, {"Content-Length": str(len(content)), "ETag": etag(content)})
    handler.wfile.write(content)


def without_length(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Everything, until the connection ends; nobody knows how much it is."""
    _head(handler, 200, {})
    handler.wfile.write(content)


def other_bytes(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """As many bytes, but others."""
    without_ranges(handler, bytes(255 - byte for byte in content))


def too_long(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Another file, which is longer."""
    without_ranges(handler, content + b"x" * 1000)


def another_part(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """A part that was not asked for."""
    headers = {"Content-Range": f"bytes 0-9/{len(content)}", "Content-Length": "10", "ETag": etag(content)}
    _head(handler, 206, headers)
    handler.wfile.write(content[:10])


def not_found(handler: BaseHTTPRequestHandler, content: bytes | None) -> None:
    """404."""
    handler.send_error(404)


def broken(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """503."""
    handler.send_error(503)


def around(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Leads to where the question came from."""
    _head(handler, 302, {"Location": handler.path, "Content-Length": "0"})


def away_to(url: str) -> Fault:
    """Leads somewhere else."""
    return lambda handler, content: _head(handler, 302, {"Location": url, "Content-Length": "0"})


def _head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Connection", "close")
    handler.end_headers()
