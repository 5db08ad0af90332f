"""What the list of models offers: the embedded pair, folders of the user, and cascades of models of others."""

from __future__ import annotations

import html
import logging
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from ..errors import LiverCascadeError
from ..models import Manifest, load_manifest
from ..models.cascade_file import read_cascade
from ..models.catalogue import CatalogueModel, in_megabytes
from ..models.library import KnownCascade, Library
from ..resources import EMBEDDED_MODELS


@dataclass(frozen=True)
class ModelChoice:
    """Models that can be chosen, or installed and then chosen.

    Attributes:
        folder: what a run is given: a folder with ``locate`` and ``refine``, or a ``cascade.json``.
        title: one line.
        toolTip: license, intended use and measured figures, as rich text.
        inputSpacing: voxel spacings that the models know, see :attr:`.Manifest.input_spacing_mm`.
        cascade: of the library; None for folders.
    """

    folder: Path
    title: str
    toolTip: str
    inputSpacing: tuple[tuple[float, float], ...] = ()
    cascade: KnownCascade | None = None

    @property
    def isReady(self) -> bool:
        """False where models have to be installed first."""
        return self.cascade is None or not self.cascade.missing

    @classmethod
    def load(cls, folder: Path) -> ModelChoice:
        """Reads the manifests of ``folder``.

        Raises:
            ModelError: there is no pair of valid models.
        """
        found = read_cascade(folder)
        manifests = [load_manifest(model) for model in (found.locate, *reversed(found.refine))]
        title = manifests[-1].title
        if folder == EMBEDDED_MODELS:
            title = _("Embedded ({id})").format(id=manifests[-1].id)
        toolTip = "<p>".join("<br>".join(_described(manifest)) for manifest in manifests)
        return cls(folder, title, toolTip, manifests[-1].input_spacing_mm)

    @classmethod
    def ofCascade(cls, cascade: KnownCascade, library: Library) -> ModelChoice:
        """A cascade of the library."""
        title = cascade.title
        if cascade.missing:
            size = in_megabytes(downloadSize(missingModels(cascade, library)))
            title = _("{title} (to be downloaded, {size})").format(title=title, size=size)
        toolTip = "<br>".join(map(html.escape, [cascade.intended_use, *cascade.members]))
        return cls(library.path_of(cascade.id), title, toolTip, cascade=cascade)


def libraryChoices(library: Library) -> list[ModelChoice]:
    """Cascades that are complete or can be downloaded; one of the user's own that lost a model is left out."""
    return [
        ModelChoice.ofCascade(cascade, library)
        for cascade in library.cascades()
        if not cascade.missing or library.catalogue.cascade(cascade.id) is not None
    ]


def openLibrary() -> Library | None:
    """This user's library; None where it cannot be read, and the log says why."""
    try:
        library = Library()
        library.cascades()
    except (LiverCascadeError, OSError) as error:
        logging.warning("LiverCascade: the installed models cannot be listed: %s", error)
        return None
    return library


def missingModels(cascade: KnownCascade, library: Library) -> list[CatalogueModel]:
    """What would have to be downloaded for a cascade of the catalogue."""
    return [model for model in library.catalogue.models if model.id in cascade.missing]


def downloadSize(models: list[CatalogueModel]) -> int | None:
    """Bytes of all zips; None where one is not known."""
    sizes = [model.size_bytes for model in models]
    return None if None in sizes else sum(sizes)


def consentText(cascade: KnownCascade, models: list[CatalogueModel]) -> str:
    """What the user has to agree to before anything is downloaded."""
    allowed = all(model.commercial_use for model in models)
    licenses = dict.fromkeys(f"{model.license} ({model.license_url})" for model in models)
    citations = dict.fromkeys(citation for model in models for citation in model.citation)
    parts = [
        _(
            "{title} is not installed yet. It is downloaded from the internet ({size}), stays on this computer and can"
            " be removed again."
        ).format(title=cascade.title, size=in_megabytes(downloadSize(models))),
        "\n".join(f"• {model.title} ({in_megabytes(model.size_bytes)})" for model in models),
        _("License: {licenses}. Commercial use is allowed.").format(licenses=", ".join(licenses))
        if allowed
        else _("License: {licenses}. Commercial use is not allowed.").format(licenses=", ".join(licenses)),
        cascade.intended_use,
        _("To be cited:") + "\n" + "\n".join(f"• {citation}" for citation in citations),
        _("Do you accept the license, and shall it be downloaded now?"),
    ]
    return "\n\n".join(parts)


def _described(manifest: Manifest) -> list[str]:
    lines = [f"<b>{html.escape(manifest.title)}</b>"]
    lines.append(_("License: {license}").format(license=html.escape(manifest.license)))
    return [*lines, *_figures(manifest), html.escape(manifest.intended_use)]


def _figures(manifest: Manifest) -> list[str]:
    """Measured figures, one line per case; their keys are the training companion's."""
    lines = []
    for name, case in manifest.measured.get("cascade", {}).items():
        if not isinstance(case, dict) or "liver_dice" not in case:
            continue
        line = f"{name}: liver Dice {case['liver_dice']:.2f}"
        if case.get("lesions"):
            line += f", {case.get('hit', 0)} of {case['lesions']} lesions, {case.get('false', 0)} false"
        if case.get("note"):
            line += f" ({case['note']})"
        lines.append(html.escape(line))
    return lines
