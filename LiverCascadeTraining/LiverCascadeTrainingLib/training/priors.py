"""Located priors for prepared cases: what a locate model says on the whole CT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from LiverCascadeLib.cascade import Options, locate_liver
from LiverCascadeLib.geometry import resample
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.predictor import NetworkPredictor, choose_device
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.volume import Volume


def locating(model: Path, device: str = "auto") -> Callable[[Volume], np.ndarray]:
    """A function that gives the located liver's probability of a volume on its own grid.

    Args:
        model: folder of a locate model.
        device: where to compute.

    Raises:
        ModelError: it is no model.
    """
    stage = NetworkPredictor(load_manifest(model), choose_device(device))

    def locate(volume: Volume) -> np.ndarray:
        located = locate_liver(volume, stage, Options(), Progress())
        if located is None:
            return np.zeros(volume.grid.shape, np.float32)
        return np.asarray(resample(located.probability, located.grid, volume.grid, 0.0))

    return locate
