"""Downloads over a network that fails in every way: a sentence, nothing half-installed, and a retry that works."""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from fault_server import (
    another_part,
    around,
    away_to,
    broken,
    cut_after,
    not_found,
    other_bytes,
    serving,
    silent,
    slowly,
    too_long,
    without_length,
    without_ranges,
)
from foreign_models import files_of, served_catalogue, zipped
from LiverCascadeLib.errors import Cancelled, DownloadError, LiverCascadeError, ModelError, ResourceError
from LiverCascadeLib.models import download as downloads
from LiverCascadeLib.models.download import Connection, RemoteFile, download
from LiverCascadeLib.models.install import install
from LiverCascadeLib.models.library import Library
from LiverCascadeLib.progress import Progress

CONTENT = random.Random(1).randbytes(400_000)
NAME = "model.zip"
ROOT = Path(__file__).resolve().parent.parent
QUICK = Connection(timeout_s=0.4)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    with serving({NAME: CONTENT}) as server:
        yield server


def remote(server, known: bool = True) -> RemoteFile:
    digests = {"sha256": hashlib.sha256(CONTENT).hexdigest()} if known else {}
    return RemoteFile(f"{server.base}/{NAME}", NAME, len(CONTENT) if known else None, digests)


def fetch(server, folder: Path, connection: Connection = QUICK, known: bool = True, progress: Progress | None = None):
    return download(remote(server, known), folder, connection, progress or Progress())


def test_a_file_arrives_whole_with_progress_that_only_rises(server, tmp_path):
    told = []
    path = fetch(server, tmp_path / "new", progress=Progress(lambda stage, fraction: told.append((stage, fraction))))
    assert path.read_bytes() == CONTENT
    loading = [fraction for stage, fraction in told if stage == "download"]
    assert loading == sorted(loading) and loading[-1] == 1 and len(loading) > 3


FAULTS = {
    "cut off": (cut_after(150_000), "150,000 of 400,000 bytes"),
    "silent": (silent(1.5), "stopped answering"),
    "other bytes": (other_bytes, "is not the file that it should be"),
    "too long": (too_long, "with 401,000 bytes, expected 400,000"),
    "redirect loop": (None, "redirects without an end"),
    "not there": (not_found, "does not exist"),
    "server broken": (broken, "HTTP 503"),
    "leads to a file": (away_to("file:///etc/passwd"), "not safe to follow"),
    "leads to ftp": (away_to("ftp://127.0.0.1/model.zip"), "not safe"),
    "another part": (another_part, "sent a part of it"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_sentence_and_the_next_try_works(server, tmp_path, name):
    fault, words = FAULTS[name]
    server.faults = [around] * 20 if fault is None else [fault, fault]
    with pytest.raises(DownloadError) as error:
        fetch(server, tmp_path)
    assert words in str(error.value) and str(error.value).endswith(".")
    server.faults = []
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_what_has_arrived_is_not_fetched_again(server, tmp_path):
    server.faults = [cut_after(150_000), cut_after(100_000)]
    for _ in range(2):
        with pytest.raises(DownloadError, match="kept"):
            fetch(server, tmp_path, known=False)
    assert fetch(server, tmp_path, known=False).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["", "bytes=150000-", "bytes=250000-"]


def test_a_file_that_was_complete_already_is_not_fetched_again(server, tmp_path):
    fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=400000-"


def test_a_file_that_changed_between_two_parts_is_fetched_anew(server, tmp_path):
    server.faults = [cut_after(150_000)]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, known=False)
    newer = bytes(reversed(CONTENT))
    server.files[NAME] = newer
    assert fetch(server, tmp_path, known=False).read_bytes() == newer


def test_a_server_that_sends_a_range_of_a_changed_file_is_noticed(server, tmp_path):
    server.faults = [cut_after(150_000)]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, known=False)

    def ignores_if_range(handler, content):
        handler.send_response(206)
        for name, value in (("ETag", '"new"'), ("Content-Range", "bytes 150000-399999/400000")):
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"n" * 250_000)

    server.faults = [ignores_if_range]
    assert fetch(server, tmp_path, known=False).read_bytes() == CONTENT


def test_a_file_that_became_shorter_is_fetched_anew(server, tmp_path):
    server.faults = [cut_after(150_000)]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path, known=False)
    server.files[NAME] = b"short"
    server.faults = [lambda handler, content: _range_error(handler, len(content))]
    assert fetch(server, tmp_path, known=False).read_bytes() == b"short"


def _range_error(handler, length: int) -> None:
    handler.send_response(416)
    handler.send_header("Content-Range", f"bytes */{length}")
    handler.end_headers()


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.faults = [cut_after(150_000), without_ranges]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_server_that_does_not_say_how_much_it_sends_is_served_too(server, tmp_path):
    server.faults = [without_length]
    assert fetch(server, tmp_path, known=False).read_bytes() == CONTENT


def test_parts_without_a_note_of_their_version_are_not_built_upon(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"something else")
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / f"{NAME}.part").write_bytes(b"something else")
    (tmp_path / f"{NAME}.part.json").write_text("{")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_redirect_leads_to_the_file(server, tmp_path):
    server.faults = [away_to(f"{server.base}/{NAME}")]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_cancel_in_the_middle_keeps_what_has_arrived(server, tmp_path):
    server.faults = [slowly(0.02)]
    seen = []
    progress = Progress(lambda stage, fraction: seen.append(fraction), lambda: bool(seen) and seen[-1] > 0.3)
    with pytest.raises(Cancelled, match="kept"):
        fetch(server, tmp_path, progress=progress)
    assert 0 < (tmp_path / f"{NAME}.part").stat().st_size < len(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] != ""


Usage = namedtuple("Usage", "total used free")


def test_a_disk_without_room_is_found_before_anything_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9, 10**5))
    with pytest.raises(ResourceError, match="Free some space"):
        fetch(server, tmp_path)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 0
    monkeypatch.undo()
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_disk_that_fills_up_on_the_way_is_a_sentence_and_the_next_try_goes_on(server, tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file, self.room = file, 100_000

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            if len(data) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= len(data)
            return self.file.write(data)

    def full_open(path, mode="r"):
        return Full(builtins.open(path, mode)) if mode == "ab" else builtins.open(path, mode)

    monkeypatch.setattr(downloads, "open", full_open, raising=False)
    monkeypatch.setattr(downloads, "CHUNK", 1 << 14)
    with pytest.raises(ResourceError, match="is full"):
        fetch(server, tmp_path)
    assert (tmp_path / f"{NAME}.part").stat().st_size > 0
    monkeypatch.undo()
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1][1] != ""


def test_a_folder_that_cannot_be_written_is_a_sentence(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(server, tmp_path / "file")


def test_an_unreachable_server_names_proxy_and_offline_way(tmp_path):
    file = RemoteFile(f"http://127.0.0.1:9/{NAME}", NAME, None, {})
    with pytest.raises(DownloadError, match=r"HTTPS_PROXY.*models import"):
        download(file, tmp_path, QUICK, Progress())


def test_the_proxy_that_is_named_is_asked_and_not_the_server(server, tmp_path):
    file = RemoteFile(f"http://far.invalid/{NAME}", NAME, None, {})
    server.files[f"http://far.invalid/{NAME}".lstrip("/")] = CONTENT
    assert download(file, tmp_path, Connection(proxy=server.base), Progress()).read_bytes() == CONTENT
    assert server.requests[0][0] == f"http://far.invalid/{NAME}"


def test_the_proxy_of_the_environment_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.base)
    server.files[f"http://far.invalid/{NAME}"] = CONTENT
    file = RemoteFile(f"http://far.invalid/{NAME}", NAME, None, {})
    assert download(file, tmp_path, QUICK, Progress()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        (Connection(proxy="proxy.hospital:3128"), "proxy"),
        (Connection(ca_file=Path("no such file.pem")), "PEM"),
    ],
)
def test_wrong_settings_are_named(server, tmp_path, connection, words):
    with pytest.raises(DownloadError, match=words):
        fetch(server, tmp_path, connection)


def test_certificates_that_are_none_are_named(server, tmp_path):
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(DownloadError, match="PEM"):
        fetch(server, tmp_path, Connection(ca_file=tmp_path / "ca.pem"))


def test_a_mirror_takes_the_place_of_the_base():
    mirror = Connection(mirror="https://server.hospital/models/")
    assert mirror.url("https://github.com/a", "v1/x.zip") == "https://server.hospital/models/v1/x.zip"
    with pytest.raises(DownloadError, match="no URL"):
        Connection(mirror="server.hospital/models").url("https://github.com/a", "x.zip")


def test_a_folder_can_be_the_mirror(tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / NAME).write_bytes(CONTENT)
    connection = Connection(mirror=tmp_path.as_uri())
    file = RemoteFile(connection.url("https://github.com/a", f"v1/{NAME}"), NAME, len(CONTENT), {})
    assert download(file, tmp_path / "new", connection, Progress()).read_bytes() == CONTENT
    missing = RemoteFile(connection.url("https://github.com/a", "v2/x.zip"), NAME, None, {})
    with pytest.raises(DownloadError, match="The mirror has no file"):
        download(missing, tmp_path / "new", connection, Progress())


# Whole installations over such a network.

ENTRY = "totalsegmentator-liver-lesions"


@pytest.fixture
def shop(tmp_path):
    """A library whose catalogue leads to a server on this computer, and the server."""
    with serving({}) as server:
        catalogue, server.files = served_catalogue(server.base)
        yield Library(tmp_path / "models", catalogue), server


def buy(library: Library, connection: Connection = QUICK, progress: Progress | None = None):
    entry = library.catalogue.model(ENTRY)
    return install(entry, library, connection, progress or Progress(), license_accepted=True)


def traces(library: Library) -> list[str]:
    """What is in the place of installed models, hidden or not."""
    return [path.name for path in library.stages.iterdir()] if library.stages.is_dir() else []


def test_a_model_is_installed_with_its_description_and_checksums(shop):
    library, _ = shop
    model = buy(library)
    assert traces(library) == [ENTRY] and model == library.find(ENTRY)
    content = json.loads((model.folder / "stage.json").read_text())
    entry = library.catalogue.model(ENTRY)
    assert content["model"] == entry.model and content["structures"] == {"lesion": [1]} and content["folds"] == [0]
    weights = f"{entry.model}/fold_0/checkpoint_final.pth"
    assert content["files_sha256"][weights] == hashlib.sha256((model.folder / weights).read_bytes()).hexdigest()
    assert not list(library.downloads.iterdir()), "the zip is not kept"
    assert not list(model.folder.rglob("*.nii.gz")), "nobody's liver is kept"


def test_nothing_is_fetched_before_the_license_is_accepted(shop):
    library, server = shop
    entry = library.catalogue.model(ENTRY)
    with pytest.raises(ModelError, match="license") as error:
        install(entry, library, QUICK, Progress(), license_accepted=False)
    assert entry.license_url in str(error.value) and not server.requests and not library.root.exists()


def test_an_installed_model_is_not_fetched_again_and_a_damaged_one_is_replaced(shop):
    library, server = shop
    model = buy(library)
    buy(library)
    assert len(server.requests) == 1
    next(model.folder.rglob("checkpoint_final.pth")).write_bytes(b"altered")
    assert library.problems(model) and not library.problems(buy(library))
    (model.folder / "stage.json").write_text("{")
    assert library.damaged() == (ENTRY,)
    assert not library.problems(buy(library)) and traces(library) == [ENTRY]


def test_a_second_download_is_held_against_the_first(shop):
    library, server = shop
    buy(library)
    library.remove(ENTRY)
    file = library.catalogue.model(ENTRY).file
    true, server.files[file] = server.files[file], server.files[file] + b" "
    with pytest.raises(DownloadError, match="not the file that it should be"):
        buy(library)
    assert not traces(library)
    server.files[file] = true
    buy(library)
    library.remove(ENTRY, forget=True)
    assert library.recorded_sha256(ENTRY) is None
    server.files[file] = zipped({**files_of(library.catalogue.model(ENTRY)), "note.txt": b"new"})
    assert buy(library).id == ENTRY


@pytest.mark.parametrize("fault", [cut_after(100_000), silent(1.0), not_found, other_bytes, broken])
def test_no_half_of_a_model_is_left_and_the_next_try_works(shop, fault):
    library, server = shop
    server.faults = [fault]
    with pytest.raises(LiverCascadeError):
        buy(library)
    assert not traces(library) and not library.installed()
    server.faults = []
    assert buy(library).id == ENTRY and traces(library) == [ENTRY]


def test_a_page_of_the_proxy_is_no_model(shop):
    library, server = shop
    file = library.catalogue.model(ENTRY).file
    true, server.files[file] = server.files[file], b"<html>Please log in</html>"
    with pytest.raises(ModelError, match="no zip"):
        buy(library)
    assert not traces(library) and library.recorded_sha256(ENTRY) is None
    server.files[file] = true
    assert buy(library).id == ENTRY


def test_a_zip_with_another_model_is_refused(shop):
    library, server = shop
    entries = {model.id: model.file for model in library.catalogue.models}
    server.files[entries[ENTRY]] = server.files[entries["totalsegmentator-liver-segments"]]
    with pytest.raises(ModelError, match="No model was found"):
        buy(library)
    assert not traces(library)


@pytest.mark.parametrize("stage", ["download", "verify", "unpack", "record"])
def test_cancel_in_any_stage_leaves_nothing_installed(shop, stage):
    library, _ = shop
    now = []
    progress = Progress(lambda name, fraction: now.append(name), lambda: stage in now)
    if stage == "verify":
        library.record_sha256(ENTRY, hashlib.sha256(shop[1].files[library.catalogue.model(ENTRY).file]).hexdigest())
    with pytest.raises(Cancelled):
        buy(library, progress=progress)
    assert not traces(library)
    assert buy(library).id == ENTRY


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(shop, monkeypatch):
    from LiverCascadeLib.models import archive

    def full_open(path, mode="r"):
        if mode == "xb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return builtins.open(path, mode)

    library, server = shop
    monkeypatch.setattr(archive, "open", full_open, raising=False)
    with pytest.raises(ResourceError, match="is full"):
        buy(library)
    assert not traces(library)
    monkeypatch.undo()
    assert buy(library).id == ENTRY
    assert server.requests[-1][1] != "", "the zip was not fetched again"


def test_a_disk_without_room_for_the_unpacked_model_leaves_nothing(shop, monkeypatch):
    library, _ = shop
    free = iter([10**12])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 0, next(free, 10**5)))
    with pytest.raises(ResourceError, match="Free some space"):
        buy(library)
    monkeypatch.undo()
    assert not traces(library) and buy(library).id == ENTRY


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from foreign_models import files_of, served_catalogue, zipped
from LiverCascadeLib.models.download import Connection
from LiverCascadeLib.models.install import install
from LiverCascadeLib.models.library import Library
from LiverCascadeLib.progress import Progress

def listener(stage, fraction):
    if stage == sys.argv[3] and fraction > 0.3:
        os.kill(os.getpid(), signal.SIGKILL)

catalogue, _ = served_catalogue(sys.argv[2])
library = Library(Path(sys.argv[1]), catalogue)
install(catalogue.model("totalsegmentator-liver-lesions"), library, Connection(), Progress(listener), True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("stage", ["download", "unpack", "record"])
def test_a_process_that_is_killed_leaves_nothing_installed_and_the_next_cleans_up(shop, stage):
    library, server = shop
    server.faults = [slowly(0.01)]
    path = os.pathsep.join([str(ROOT / "LiverCascade"), str(ROOT / "Testing")])
    command = [sys.executable, "-c", KILLED, str(library.root), server.base, stage, str(ROOT / "Testing")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not library.installed()
    assert buy(library).id == ENTRY and traces(library) == [ENTRY]
    assert server.requests[-1][1] != "", "what had arrived was used"


def test_a_slow_server_can_be_cancelled_in_a_second(shop):
    library, server = shop
    server.faults = [slowly(0.2)]
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        buy(library, Connection(timeout_s=30), Progress(is_cancelled=lambda: time.monotonic() - begun > 0.3))
    assert time.monotonic() - begun < 1.5
