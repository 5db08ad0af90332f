"""The Python packages that the computation needs: which are missing, and their installation after consent."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import slicer
from slicer.i18n import tr as _

from ..errors import MissingPackageError
from ..resources import RESOURCES

# Downloads in MB, rounded up; with what they bring along. Shown before anything is downloaded.
SIZES_MB = {
    "torch": 200,
    "monai": 2,
    "nibabel": 4,
    "safetensors": 1,
    "pillow": 7,
    "psutil": 1,
    "highdicom": 4,
    "jinja2": 1,
    "jsonschema": 2,
    "reportlab": 2,
}
TORCH_WITH_CUDA_GB = 3


class Dialogs(Protocol):
    """What the installer asks the user with."""

    def confirm(self, text: str) -> bool: ...  # noqa: D102


class Installer:
    """Finds out what is missing and installs it when the user agrees.

    Call :meth:`install` on the main thread, from a user's action: pip in a thread has crashed Slicer.

    Args:
        torchRange: versions of PyTorch that work, such as ``>=2.8``.
        dialogs: asks for consent.
        requirements: the file that lists the other packages.
    """

    def __init__(self, torchRange: str, dialogs: Dialogs, requirements: Path | None = None) -> None:
        self._torchRange, self._dialogs = torchRange, dialogs
        self._path = requirements or RESOURCES / "requirements.txt"

    def requirements(self) -> list[str]:
        """PyTorch and the lines of ``requirements.txt``, as ``name>=version``."""
        lines = (line.strip() for line in self._path.read_text(encoding="utf-8").splitlines())
        return [f"torch{self._torchRange}", *(line for line in lines if line and not line.startswith("#"))]

    def missing(self) -> list[str]:
        """Requirements that are not installed, or not at a version that is known to work."""
        from importlib.metadata import PackageNotFoundError, version

        from packaging.requirements import Requirement

        missing = []
        for line in self.requirements():
            requirement = Requirement(line)
            try:
                # A local build such as 2.8.0+cpu counts as its public version.
                if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                    missing.append(line)
            except PackageNotFoundError:
                missing.append(line)
        return missing

    def describe(self, missing: list[str]) -> str:
        """``missing`` in words, with sizes."""
        return ", ".join(_withSize(line) for line in missing)

    def notice(self) -> str:
        """One sentence for the panel about what will be asked for; empty where nothing is missing."""
        missing = self.missing()
        if not missing:
            return ""
        text = _("Needed once, and installed when you press the button and agree: {packages}.")
        return text.format(packages=self.describe(missing))

    def ensure(self) -> None:
        """Installs what is missing, after the user has agreed.

        Raises:
            MissingPackageError: declined, failed, or Slicer runs in testing mode; the text says what to do.
        """
        missing = self.missing()
        if not missing:
            return
        if slicer.app.testingEnabled():
            raise MissingPackageError(self.explain(missing))
        question = _(
            "Liver Cascade needs Python packages that are not installed yet: {packages}.\n\nThey are downloaded from"
            " the internet and installed into this Slicer. Slicer does not respond while that is going on, which may"
            " take several minutes. Install them now?"
        )
        if not self._dialogs.confirm(question.format(packages=self.describe(missing))):
            raise MissingPackageError(
                _("Nothing was installed. Press the button again when you want to install: {packages}.").format(
                    packages=self.describe(missing)
                )
            )
        try:
            if any(_name(line) == "torch" for line in missing):
                self._installTorch()
            self._installOthers([line for line in missing if _name(line) != "torch"])
        except MissingPackageError:
            raise
        except Exception as error:
            logging.warning("LiverCascade: installing packages failed", exc_info=True)
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise MissingPackageError(
                _("The installation failed: {reason}. {explanation}").format(
                    reason=reason[0].rstrip("."), explanation=self.explain(self.missing())
                )
            ) from error
        still = self.missing()
        if still:
            raise MissingPackageError(self.explain(still))

    def explain(self, missing: list[str]) -> str:
        """What is missing, and what to do with and without the internet."""
        return _(
            "These Python packages are missing: {packages}. Press the button again to install them. Behind a proxy,"
            " set HTTPS_PROXY before Slicer starts; without the internet, install them from files as the user guide"
            " says, in its part on offline hospitals."
        ).format(packages=self.describe(missing))

    def _installTorch(self) -> None:
        try:
            import PyTorchUtils
        except ModuleNotFoundError:
            raise MissingPackageError(
                _(
                    "PyTorch is missing, and so is the extension that installs it. Install the extension 'PyTorch' in"
                    " the Extensions Manager, restart Slicer and press the button again."
                )
            ) from None
        logic = PyTorchUtils.PyTorchUtilsLogic()
        # It names the build that fits this computer's GPU, and asks a second time for that.
        if logic.installTorch(askConfirmation=True, torchVersionRequirement=self._torchRange) is None:
            raise MissingPackageError(_("PyTorch was not installed. Press the button again when you want to."))

    @staticmethod
    def _installOthers(requirements: list[str]) -> None:
        if not requirements:
            return
        try:
            from slicer import packaging
        except ImportError:  # Slicer 5.10
            slicer.util.pip_install(requirements)
        else:
            packaging.pip_ensure(requirements, requester="LiverCascade", prompt_install=False)


def _name(line: str) -> str:
    from packaging.requirements import Requirement

    return Requirement(line).name.lower()


def _withSize(line: str) -> str:
    name = _name(line)
    if name == "torch":
        text = _("PyTorch (about {cpu} MB, with GPU support about {gpu} GB)")
        return text.format(cpu=SIZES_MB[name], gpu=TORCH_WITH_CUDA_GB)
    if name not in SIZES_MB:
        return name
    return _("{name} (about {size} MB)").format(name=name, size=SIZES_MB[name])
