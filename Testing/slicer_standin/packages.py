"""Installing packages: slicer.packaging, slicer.util.pip_install and PyTorchUtils, as the test wants them to end."""

from __future__ import annotations

import threading
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer


@dataclass
class Packages:
    """What was asked for, and how it ends.

    Attributes:
        requested: (function, requirements) of each installation that was begun, oldest first.
        failure: raised by the next installations, such as RuntimeError("no network"); None: they succeed.
        onInstall: called with the requirements when an installation succeeds, for the test to make them importable.
        torch: what PyTorchUtils' installTorch returns; None: the user declined.
        hasTorchExtension: whether ``import PyTorchUtils`` works.
        missing: requirements that pip_ensure and pip_check take for not installed.
    """

    requested: list[tuple[str, list[str]]] = field(default_factory=list)
    failure: Exception | None = None
    onInstall: Any = None
    torch: Any = "torch"
    hasTorchExtension: bool = True
    missing: set[str] | None = None

    def install(self, function: str, requirements: Any) -> None:
        """Keeps the request, and fails or succeeds."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Installing packages from a thread crashed and hung Slicer 5.12")
        names = requirements.split() if isinstance(requirements, str) else [str(known) for known in requirements]
        self.requested.append((function, names))
        if self.failure is not None:
            raise self.failure
        if self.onInstall is not None:
            self.onInstall(names)


def packagingModule(packages: Packages) -> types.ModuleType:
    """slicer.packaging of 5.12: the functions an extension calls."""
    made = types.ModuleType("slicer.packaging", "Stand-in for slicer.packaging.")

    def load_requirements(path: str | Path) -> list[Any]:
        from packaging.requirements import Requirement

        lines = [line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
        return [Requirement(line) for line in lines if line]

    def isMissing(requirement: Any) -> bool:
        from importlib.metadata import PackageNotFoundError, version

        from packaging.requirements import Requirement

        known = Requirement(str(requirement))
        if packages.missing is not None:
            return known.name in packages.missing
        try:
            return not known.specifier.contains(version(known.name), prereleases=True)
        except PackageNotFoundError:
            return True

    def asList(requirements: Any) -> list[Any]:
        return list(requirements) if isinstance(requirements, (list, tuple)) else [requirements]

    def pip_check(req: Any) -> bool:
        return not any(isMissing(known) for known in asList(req))

    def pip_ensure(
        requirements: Any,
        constraints: Any = None,
        skip_packages: list[str] | None = None,
        prompt_install: bool = True,
        prompt_restart: bool = True,
        requester: str | None = None,
        skip_in_testing: bool = True,
        show_progress: bool = True,
    ) -> list[str] | None:
        wanted = [str(known) for known in asList(requirements) if isMissing(known)]
        if not wanted or (slicer.app.testingEnabled() and skip_in_testing):
            return None
        if prompt_install:
            title = f"{requester} - Install Python Packages" if requester else "Install Python Packages"
            text = (
                f"{len(wanted)} Python packages need to be installed.\n\nThis will modify Slicer's Python environment."
            )
            if not slicer.util.confirmOkCancelDisplay(text, title, detailedText="\n".join(wanted)):
                raise RuntimeError("User declined package installation")
        packages.install("pip_ensure", wanted)
        return None

    def pip_install(requirements: Any, **kwargs: Any) -> None:
        packages.install("pip_install", requirements)

    made.load_requirements = load_requirements
    made.pip_check = pip_check
    made.pip_ensure = pip_ensure
    made.pip_install = pip_install
    return made


def torchModule(packages: Packages) -> types.ModuleType:
    """PyTorchUtils of the PyTorch extension."""
    made = types.ModuleType("PyTorchUtils", "Stand-in for the PyTorch extension.")

    class PyTorchUtilsLogic:
        """The logic that other extensions call."""

        def torchInstalled(self) -> bool:
            """Whether torch can be imported."""
            return packages.torch is not None

        def installTorch(
            self,
            askConfirmation: bool = False,
            forceComputationBackend: str | None = None,
            torchVersionRequirement: str | None = None,
            torchvisionVersionRequirement: str | None = None,
        ) -> Any:
            """Returns the module torch, or None if the user declined."""
            if packages.torch is None:
                packages.requested.append(("installTorch", [f"torch{torchVersionRequirement or ''}"]))
                return None
            packages.install("installTorch", [f"torch{torchVersionRequirement or ''}"])
            return packages.torch

    made.PyTorchUtilsLogic = PyTorchUtilsLogic
    return made
