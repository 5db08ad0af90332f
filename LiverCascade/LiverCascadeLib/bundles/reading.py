"""A MONAI bundle, ``configs/inference.json`` and ``configs/metadata.json``, as a plan.

The ids ``network_def``, ``preprocessing``, ``inferer``, ``postprocessing``, ``evaluator`` are those that MONAI's
specification of bundles names. What is not needed to run the network, such as data lists, is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..models.networks import ARCHITECTURES
from .config import Component, Config
from .options import Options
from .plan import Described, Network, Plan
from .transforms import read_inferer, read_postprocessing, read_preprocessing

CONFIGS, METADATA, CONFIG = "configs", "metadata.json", "inference.json"
_YAML = (".yaml", ".yml")
USUAL_WEIGHTS, SCRIPTED = "models/model.pt", "models/model.ts"
# Networks of MONAI that give one output per voxel, and old arguments that today's classes no longer take or need.
NETWORKS = {
    name: module
    for name, (module, _) in ARCHITECTURES.items()
    if module.startswith("monai.networks.nets.") and name != "ResNet"
}
_OUTDATED = {"SwinUNETR": ("img_size",)}
# How the network of a bundle reaches its device: the only things that a configuration may do with it.
_MOVED = ("$@network_def.to(@device)", "@network_def", "$@network_def")


def read_metadata(root: Path) -> dict[str, Any]:
    """The content of ``configs/metadata.json`` of the bundle at ``root``.

    Raises:
        ModelError: missing or damaged.
    """
    return _json(root / CONFIGS / METADATA)


def read_bundle(root: Path, overrides: Mapping[str, Any] | None = None) -> Described:
    """Reads the bundle at ``root``.

    Args:
        root: the folder that holds ``configs`` and ``models``.
        overrides: values by id, see :class:`.config.Config`.

    Raises:
        ModelError: a file is missing or damaged, or the bundle does something that is not covered; the message says
            what and why.
    """
    metadata, content = read_metadata(root), _configuration(root)
    try:
        return _described(Config(content, overrides), metadata, root)
    except ModelError as error:
        raise ModelError(f"The MONAI bundle in {root} cannot be run here: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(
            f"The MONAI bundle in {root} cannot be run here: its configuration or {METADATA} is not as MONAI writes "
            f"it ({type(error).__name__}: {error}). Get the bundle again."
        ) from error


def _described(config: Config, metadata: Mapping[str, Any], root: Path) -> Described:
    outputs, names = _outputs(metadata)
    weights, key = _weights(config)
    scripted = weights.endswith(".ts") or (not (root / weights).is_file() and (root / SCRIPTED).is_file())
    if scripted:
        network = Network(weights if weights.endswith(".ts") else SCRIPTED)
    else:
        network = _network(config, weights, key, outputs)
    half = _evaluator(config)
    before, after, inferer = read_preprocessing(config), read_postprocessing(config), read_inferer(config)
    # MONAI's arrays run along i, j, k; ours along k, j, i.
    plan = Plan(
        orientation=before.orientation,
        transpose=(2, 1, 0),
        spacing=before.spacing,
        before=tuple(before.before),
        after=tuple(before.after),
        crop_above_zero=before.crop_above_zero,
        patch_size=inferer.patch_size,
        overlap=inferer.overlap,
        gaussian=inferer.gaussian,
        sigma=inferer.sigma,
        padding=inferer.padding,
        padding_value=inferer.padding_value,
        softmax=after.argmax,
        threshold=0.5 if after.threshold is None else after.threshold,
        outputs=outputs,
        half=half,
    )
    if plan.softmax and outputs < 2:
        raise ModelError("it has one output and decides by argmax, so that everything would be background.")
    first = 0 if plan.softmax else 1
    return Described(plan, network, {channel + first: name for channel, name in names.items()})


def _outputs(metadata: Mapping[str, Any]) -> tuple[int, dict[int, str]]:
    """Channels of the output and their names, from the metadata, which must also speak of one CT."""
    data = metadata["network_data_format"]
    inputs, outputs = data["inputs"], data["outputs"]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"it has {len(inputs)} inputs and {len(outputs)} outputs, expected one CT and one answer.")
    (given,), (answer,) = inputs.values(), outputs.values()
    if given.get("num_channels") != 1:
        raise ModelError(f"it wants {given.get('num_channels')} input channels, and a CT is one.")
    modality = str(given.get("modality", "CT"))
    if "CT" not in modality.upper() and modality.lower() not in ("n/a", "any", ""):
        raise ModelError(f"it is for {modality}, and not for CT.")
    if len(given.get("spatial_shape", (0, 0, 0))) != 3:
        raise ModelError("it works on single slices, and only networks for volumes are covered here.")
    names = {int(channel): str(name) for channel, name in (answer.get("channel_def") or {}).items()}
    return int(answer["num_channels"]), names


def _network(config: Config, weights: str, key: str, outputs: int) -> Network:
    component = config.component("@network_def", "network_def")
    module = component.path.rpartition(".")[0]
    if module and not module.startswith("monai.networks.nets"):
        raise ModelError(
            f"its network is '{component.path}': code of the bundle's own or of another package, which is never run. "
            f"Networks of MONAI that are known here are {', '.join(NETWORKS)}."
        )
    if component.name not in NETWORKS:
        raise ModelError(f"its network is '{component.path}'; known are {', '.join(NETWORKS)}.")
    arguments = {
        name: config.plain(value, f"network_def#{name}")
        for name, value in component.arguments.items()
        if name not in _OUTDATED.get(component.name, ())
    }
    for name, expected in (("spatial_dims", 3), ("in_channels", 1), ("out_channels", outputs)):
        if arguments.get(name, expected) != expected:
            raise ModelError(f"its network has {name} = {arguments[name]!r}, expected {expected}.")
    return Network(weights, component.name, arguments, key)


def _evaluator(config: Config) -> bool:
    """Whether the bundle computes in half precision; what joins the parts must be MONAI's own and plain.

    Raises:
        ModelError: it does something else with the network.
    """
    if config.has("network") and config.raw("network") not in _MOVED:
        raise ModelError(f"its network is {config.raw('network')!r}: a program that may change it, and is never run.")
    if not config.has("evaluator"):
        return False
    component = config.component("@evaluator", "evaluator")
    if component.name != "SupervisedEvaluator" or component.path not in (
        "SupervisedEvaluator",
        "monai.engines.SupervisedEvaluator",
    ):
        raise ModelError(f"its evaluator is '{component.path}', and only SupervisedEvaluator is covered here.")
    options = Options(config, component)
    for name, usual in (("network", "@network"), ("inferer", "@inferer"), ("postprocessing", "@postprocessing")):
        if component.arguments.get(name, usual) != usual:
            raise ModelError(f"its evaluator has {name} = {component.arguments[name]!r}, expected '{usual}'.")
    options.ignore("network", "inferer", "postprocessing", "device", "val_data_loader", "val_handlers", "non_blocking")
    options.ignore("key_val_metric", "additional_metrics", "metric_cmp_fn", "epoch_length", "decollate")
    options.only("mode", "eval")
    options.ignore("event_names", "event_to_attr")
    half = options.switch("amp", False)
    options.finish()
    return half


def _weights(config: Config) -> tuple[str, str]:
    """Path of the weights below the bundle, and the key under which they may lie in the file.

    Raises:
        ModelError: the path leads out of the bundle.
    """
    loader = _checkpoint_loader(config)
    if loader is None:
        return USUAL_WEIGHTS, "model"
    path = config.path(loader.arguments.get("load_path"), f"{loader.place}#load_path")
    if not path or "\\" in path or ":" in path or ".." in Path(path).parts or Path(path).is_absolute():
        raise ModelError(f"its weights are at '{path}', which is not a path below the bundle.")
    load_dict = loader.arguments.get("load_dict")
    keys = list(load_dict) if isinstance(load_dict, Mapping) else ["model"]
    return path, str(keys[0])


def _checkpoint_loader(config: Config) -> Component | None:
    places = ["checkpointloader"]
    if config.has("handlers"):
        places += [f"handlers#{n}" for n in range(len(config.items("@handlers", "handlers")))]
    for place in places:
        if config.has(place):
            component = config.component(f"@{place}", place)
            if component.name == "CheckpointLoader":
                return component
    return None


def _configuration(root: Path) -> dict[str, Any]:
    path = root / CONFIGS / CONFIG
    other = next((path.with_suffix(suffix) for suffix in _YAML if path.with_suffix(suffix).is_file()), None)
    if other is not None and not path.is_file():
        raise ModelError(f"{other} is written in YAML, and only JSON is read here. Write the same content as {path}.")
    return _json(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent.parent} is no MONAI bundle: {path.parent.name}/{path.name} is missing."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}, expected a JSON object.")
    return content
