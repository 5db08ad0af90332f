"""Which networks exist and where their weights come from."""

from .calibration import Calibration
from .manifest import Manifest, load_manifest
from .networks import ARCHITECTURES, build_network
from .weights import load_network, save_weights, sha256_of

__all__ = [
    "ARCHITECTURES",
    "Calibration",
    "Manifest",
    "build_network",
    "load_manifest",
    "load_network",
    "save_weights",
    "sha256_of",
]
