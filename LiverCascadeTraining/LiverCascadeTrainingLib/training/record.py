"""The run's folder: everything that is needed to repeat it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from LiverCascadeLib import __version__
from LiverCascadeLib.errors import InputError

from .config import RunConfig, config_from, read_yaml
from .pictures import write_bytes
from .sources import DataPlaces, Sources

CONFIG, RECORD, PATCH = "config.yaml", "run.json", "changes.patch"
PACKAGES = ("torch", "lightning", "monai", "numpy", "scipy", "SimpleITK", "tensorboard", "safetensors", "pillow")


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"livercascade": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """The machine, as far as it decides results."""
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    names = ("OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "WORLD_SIZE", "NODE_RANK", "PYTHONHASHSEED")
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "variables": {name: os.environ[name] for name in names if name in os.environ},
    }


def git_state() -> tuple[dict[str, Any], str]:
    """Commit, branch and whether files were changed, of the code's checkout; and the changes themselves."""
    folder = Path(__file__).resolve().parent

    def ask(*arguments: str) -> str:
        answer = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20, errors="replace"
        )
        return answer.stdout

    try:
        commit = ask("rev-parse", "HEAD").strip()
        branch = ask("rev-parse", "--abbrev-ref", "HEAD").strip()
        changed = ask("status", "--porcelain", "--untracked-files=no").splitlines()
        patch = ask("diff", "HEAD") if changed else ""
    except (OSError, subprocess.SubprocessError):
        return {"commit": None}, ""
    return {"commit": commit, "branch": branch, "changed_files": len(changed)}, patch


class RunFolder:
    """The folder of one run.

    Args:
        path: made where needed.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def last(self) -> Path:
        """The checkpoint with which the run goes on."""
        return self.path / "checkpoints" / "last.ckpt"

    def config(self) -> RunConfig:
        """The configuration that the run was begun with.

        Raises:
            InputError: there is no run here.
        """
        if not (self.path / CONFIG).is_file():
            raise InputError(f"There is no run in {self.path}: {CONFIG} is missing.")
        return config_from(read_yaml(self.path / CONFIG))

    def record(self) -> dict[str, Any]:
        """The content of ``run.json``; nothing where it is not there."""
        try:
            return json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InputError(f"{self.path / RECORD} cannot be read as JSON: {error}.") from None

    def begin(self, config: RunConfig, places: DataPlaces, sources: Sources, origin: Path | None = None) -> None:
        """Writes what is needed to repeat the run, or compares it with what is there.

        Args:
            config: the run's.
            places: where the data are.
            sources: the data.
            origin: the run whose weights this one began with.

        Raises:
            InputError: the folder holds a run with another configuration or other data.
        """
        record = self.record()
        if record and self.last.is_file():
            self._compare(config, sources, record)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            config.save(self.path / CONFIG)
            git, patch = git_state()
            if patch:
                write_bytes(self.path / PATCH, patch.encode())
            record = {
                "format": "livercascade-run",
                "role": config.role,
                "data": {**places.as_dict(), "fingerprint": sources.fingerprint, "cases": sources.names},
                "start_from": None if origin is None else str(Path(origin).resolve()),
                "git": git,
                "sessions": [],
            }
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        session = {
            "started": now,
            "command": sys.argv,
            "folder": str(Path.cwd()),
            "versions": versions(),
            "environment": environment(),
        }
        self.write({**record, "sessions": [*record["sessions"], session]})

    def _compare(self, config: RunConfig, sources: Sources, record: dict[str, Any]) -> None:
        ours, theirs = flat(config.as_dict()), flat(self.config().as_dict())
        other = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        if other:
            shown = ", ".join(f"{key} {theirs.get(key)!r} → {ours.get(key)!r}" for key in other[:5])
            raise InputError(
                f"{self.path} holds a run with another configuration ({shown}). Choose another run folder, or go on "
                f"with {self.path / CONFIG}."
            )
        if record["data"]["fingerprint"] != sources.fingerprint:
            raise InputError(
                f"{self.path} holds a run with other data (other cases, split or preparation). Choose another run "
                "folder, or bring the data back."
            )

    def write(self, record: dict[str, Any]) -> None:
        """Writes ``run.json``, under a temporary name first."""
        write_bytes(self.path / RECORD, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    if not isinstance(content, dict):
        return {prefix: content}
    found = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
