"""Who writes the objects: device, algorithm, series numbers, notes; the same in segmentation and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import MissingPackageError
from ..lesions.assessment import Assessment
from ..report.files import RESEARCH_USE
from .text import fitting

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from .instances import Instances

MANUFACTURER = "LiverCascade"
RESEARCH = "RESEARCH"
# Text of the objects in any script, whatever the original series is written in.
CHARACTER_SET = "ISO_IR 192"
_HIGHEST_SERIES_NUMBER = 2**31 - 1
KINDS = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")
_BY_HAND = ("MANUAL", "", "", {})


@dataclass(frozen=True)
class Algorithm:
    """What drew the segments.

    Attributes:
        kind: 'AUTOMATIC', 'SEMIAUTOMATIC' (edited since) or 'MANUAL', as DICOM says it.
        parameters: texts such as checksums, by their names.
    """

    kind: str
    name: str
    version: str
    parameters: dict[str, str]


def algorithm_of(provenance: Mapping[str, Any]) -> Algorithm:
    """What drew liver and lesions; by hand where there is no provenance."""
    imported = provenance.get("imported")
    if imported:
        kind, _, name = str(imported.get("algorithm") or "").partition(" ")
        return Algorithm(kind, fitting(name, "LO"), "unknown", {}) if kind in KINDS and name else Algorithm(*_BY_HAND)
    models = {str(model.get("role", "")): model for model in provenance.get("models") or ()}
    main = models.get("refine") or next(iter(models.values()), None)
    if main is None:
        return Algorithm(*_BY_HAND)
    parameters = {}
    for role, model in models.items():
        parameters[role] = f"{model.get('id', '')} {model.get('version', '')} {str(model.get('sha256', ''))[:16]}"
    return Algorithm(
        "SEMIAUTOMATIC" if provenance.get("edited") else "AUTOMATIC",
        fitting(f"LiverCascade {main.get('id', '')}", "LO"),
        fitting(str(main.get("version") or __version__), "LO"),
        {fitting(name, "LO"): fitting(value, "LO") for name, value in parameters.items()},
    )


def serial_number(provenance: Mapping[str, Any]) -> str:
    """Stands in for the serial number that software has not: its version and the checksums of the models."""
    sums = [str(model.get("sha256", ""))[:12] for model in provenance.get("models") or ()]
    return fitting("-".join([__version__, *filter(None, sums)]), "LO")


def notes(instances: Instances) -> str:
    """The remark in the objects' series: research use, and identifiers that were made up."""
    text = RESEARCH_USE
    if instances.generated:
        text += (
            f" The original series lacks {', '.join(instances.generated)}; the identifiers here were generated and "
            "refer to nothing that an archive knows."
        )
    return fitting(text, "ST")


def description(what: str, instances: Instances) -> str:
    """The series description of an object."""
    return fitting(f"LiverCascade {what}, research use{', generated UIDs' if instances.generated else ''}", "LO")


def series_number(original: Dataset, offset: int) -> int:
    """A number behind that of the original series, such as 301 for series 3."""
    number = int(original.get("SeriesNumber") or 0) * 100 + offset
    return number if 0 < number <= _HIGHEST_SERIES_NUMBER else 9000 + offset


def common_arguments(assessment: Assessment, instances: Instances, what: str, offset: int) -> dict[str, Any]:
    """What highdicom wants to know for any object.

    Raises:
        MissingPackageError: highdicom is not installed.
    """
    highdicom = required()
    original = instances.headers[0]
    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": series_number(original, offset),
        "sop_instance_uid": highdicom.UID(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "LiverCascade",
        "software_versions": __version__,
        "device_serial_number": serial_number(assessment.provenance),
        "series_description": description(what, instances),
        "content_qualification": RESEARCH,
        "specific_character_set": CHARACTER_SET,
    }


def required() -> Any:
    """The package highdicom.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise MissingPackageError(
            "DICOM objects are written with the Python package highdicom, which is not installed. Install it "
            "(pip install highdicom), then try again."
        ) from error
    return highdicom
