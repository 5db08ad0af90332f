"""The mean of several models' weights: one network that costs what each of them costs.

Weights that one run reached from the other's lie in the same valley of the loss, where their mean is no worse than
either and mostly a little better on new data (stochastic weight averaging: Izmailov et al., UAI 2018,
arXiv:1803.05407). Of networks that were trained apart the mean is worth nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from LiverCascadeLib.errors import ModelError
from LiverCascadeLib.models import Manifest, load_manifest, load_network

from .delivery import write_model
from .judging import WEIGHTS

# What two models must have in common, for their weights to mean the same.
_SHARED = ("role", "architecture", "arguments", "inputs", "labels", "spacing_mm", "patch_size", "window_hu")


def average_models(folders: Sequence[Path], to: Path) -> Manifest:
    """Writes a model with the mean of several models' weights.

    Args:
        folders: of the models, in the order in which they were trained. All but the weights is the last one's; its
            calibration and its figures are not, since they were measured on other weights.
        to: the new model's folder, not one of ``folders``.

    Returns:
        The manifest as written; ``measured`` names the weights that went in.

    Raises:
        ModelError: there are fewer than two, they differ in more than their weights, or one cannot be loaded.
    """
    manifests = [load_manifest(folder) for folder in folders]
    if len(manifests) < 2:
        raise ModelError(f"A mean of weights needs two models or more; {len(manifests)} was named.")
    if any(to.resolve() == folder.resolve() for folder in folders):
        raise ModelError(f"The mean would replace {to}, which it is made of. Choose another folder.")
    last = manifests[-1]
    for manifest in manifests[:-1]:
        for name in _SHARED:
            found, expected = getattr(manifest, name), getattr(last, name)
            if found != expected:
                raise ModelError(
                    f"The models cannot be averaged: {name} is {found!r} in {manifest.folder} and {expected!r} in "
                    f"{last.folder}. Take models of one family."
                )
    networks = [load_network(manifest) for manifest in manifests]
    states = [network.state_dict() for network in networks]
    mean = {
        name: sum(state[name] for state in states) / len(states) if tensor.is_floating_point() else tensor
        for name, tensor in states[-1].items()
    }
    networks[-1].load_state_dict(mean)
    measured = {"mean_of": [manifest.weights_sha256 for manifest in manifests]}
    if "training_steps" in last.measured:
        measured["training_steps"] = last.measured["training_steps"]
    own = {"weights_file": WEIGHTS, "measured": measured, "calibration": None, "folder": to}
    return write_model(networks[-1], to, lambda digest: dataclasses.replace(last, weights_sha256=digest, **own))
