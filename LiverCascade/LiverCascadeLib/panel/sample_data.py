"""The embedded example in the Sample Data module."""

from __future__ import annotations

import hashlib
from pathlib import Path

from slicer.i18n import tr as _

from ..resources import RESOURCES

CATEGORY = "LiverCascade"
# Shown below the picture, and the name for SampleData.downloadSample.
SAMPLE_NAME = "SyntheticAbdomen"
FILE = RESOURCES / "SampleData" / "synthetic_abdomen.nii.gz"
TRUTH_FILE = RESOURCES / "SampleData" / "synthetic_abdomen_truth.nii.gz"


def register(icon: Path) -> None:
    """Registers the example; it is read from this extension, so no network is needed.

    Args:
        icon: picture for the button.
    """
    from SampleData import SampleDataLogic

    # Titles of categories are newer than Slicer 5.10.
    if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):
        SampleDataLogic.registerCustomSampleDataCategory(CATEGORY, title=_("Liver Cascade"))
    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        thumbnailFileName=str(icon),
        uris=FILE.as_uri(),
        fileNames=FILE.name,
        checksums=f"SHA256:{hashlib.sha256(FILE.read_bytes()).hexdigest()}",
        nodeNames="Synthetic abdomen",
    )
