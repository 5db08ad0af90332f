"""Fixtures that several test files share."""

from __future__ import annotations

import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


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
