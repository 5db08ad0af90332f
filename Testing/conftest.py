"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Several processes that each compute with all cores are slower than one; set before PyTorch and ITK are imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ.setdefault(name, "1")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary folder for this process and its children, so that no test sees what another process leaves for a
    moment. Its name is short, because sockets in it may have a path of some hundred characters only.
    """
    tmp_path_factory.getbasetemp()  # the folders of single tests stay where pytest keeps them
    before = os.environ.get("TMPDIR")
    folder = Path(tempfile.mkdtemp(prefix="lct-"))
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    yield folder
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before
    tempfile.tempdir = None
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Gives the path of real data beside the project, such as ``shared_data("ts_example/ct.nii.gz")``.

    The test is skipped, by name, where the data is absent.
    """

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"real data '{name}' is not in ../shared/data")
        return path

    return find


@pytest.fixture(scope="session")
def unzipped(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a folder with the unpacked content of a zip file of the real data; each is unpacked once."""
    folders: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        archive = shared_data(name)
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(archive.stem)
            with zipfile.ZipFile(archive) as content:
                content.extractall(folders[name])
        return folders[name]

    return unpack


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Puts the signal handlers back that a run in this process replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def no_models_of_this_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see none of the models that whoever runs them has installed."""
    monkeypatch.setenv("LIVERCASCADE_MODELS", str(tmp_path_factory.getbasetemp() / "no-models"))
    monkeypatch.delenv("LIVERCASCADE_MIRROR", raising=False)
