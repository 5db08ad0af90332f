"""What ``dataset.json`` and ``plans.json`` of an nnU-Net v2 model say, as far as it is needed to run it.

Whatever this project does not reproduce is refused with the reason: a plan that is run half rightly looks right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..models.json_files import read_json

DATASET_FILE, PLANS_FILE = "dataset.json", "plans.json"
NORMALIZATIONS = ("CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization")
_RESAMPLING = "resample_data_or_seg_to_shape"
_NETWORKS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
_NORMS = {"InstanceNorm2d": "instance", "InstanceNorm3d": "instance", "BatchNorm2d": "batch", "BatchNorm3d": "batch"}
_ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}
# Where an option of a network is not one of these, the network computes something else than ours.
_HARMLESS = {
    "nonlin_first": (False,),
    "bottleneck_channels": (None,),
    "deep_supervision": (False, True, None),
    "squeeze_excitation": (False,),
    "stochastic_depth_p": (0, 0.0),
}


@dataclass(frozen=True)
class Resampling:
    """How nnU-Net resamples: splines of ``order``, and of ``order_z`` along a much coarser axis.

    Attributes:
        order: of the spline, 0 … 5.
        order_z: along the coarser axis where it is treated apart; 0 takes the nearest slice.
        separate_z: whether it is; None decides by the spacings.
    """

    order: int
    order_z: int
    separate_z: bool | None


@dataclass(frozen=True)
class Normalization:
    """What happens to the values before resampling.

    Attributes:
        scheme: one of :data:`NORMALIZATIONS`.
        low, high, mean, std: CTNormalization: clip to low … high, subtract the mean, divide by the deviation.
        only_nonzero: ZScoreNormalization: mean and deviation are those of the voxels that are not 0.
    """

    scheme: str
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    only_nonzero: bool = False


@dataclass(frozen=True)
class Plan:
    """One configuration of an nnU-Net model. Axes are those of the array [k, j, i] after ``transpose``.

    Attributes:
        configuration: such as '3d_fullres'.
        spacing: of the network's grid in mm.
        patch_size: of the sliding window in voxels.
        transpose: order of the array's axes that the network sees, such as (0, 1, 2).
        normalization: of the one channel.
        image_resampling, logits_resampling: towards the network's grid and back.
        architecture, arguments: of the network, see :mod:`..models.networks`.
        labels: name and value of every label but the background; a region has several values.
        class_order: for models of regions the value that each output channel writes, in this order; empty for others.
        outputs: channels of the network's output.
    """

    configuration: str
    spacing: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    transpose: tuple[int, int, int]
    normalization: Normalization
    image_resampling: Resampling
    logits_resampling: Resampling
    architecture: str
    arguments: dict[str, Any]
    labels: dict[str, tuple[int, ...]]
    class_order: tuple[int, ...]
    outputs: int

    @property
    def has_regions(self) -> bool:
        """Whether the outputs are overlapping regions (sigmoid) instead of labels (softmax)."""
        return bool(self.class_order)


def read_plan(folder: Path, configuration: str) -> Plan:
    """Reads one configuration of the model in ``folder``.

    Raises:
        ModelError: a file is missing or damaged, or the model is of a kind that is not run here; the message says why.
    """
    dataset, plans = _read(folder / DATASET_FILE), _read(folder / PLANS_FILE)
    try:
        return _plan(dataset, plans, configuration)
    except ModelError as error:
        raise ModelError(f"The nnU-Net model in {folder} cannot be run here: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(
            f"The nnU-Net model in {folder} cannot be run here: its {PLANS_FILE} or {DATASET_FILE} is not as nnU-Net "
            f"v2 writes it ({type(error).__name__}: {error}). Export the model again."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path, f"{path.parent} is no nnU-Net model: {path.name} is missing.")
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}, expected a JSON object.")
    return content


def _plan(dataset: Mapping[str, Any], plans: Mapping[str, Any], name: str) -> Plan:
    settings = _configuration(plans, name)
    _check_kind(dataset, settings, name)
    labels, order = _labels(dataset)
    outputs = len(order) if order else 1 + len(labels)
    architecture, arguments = _network(settings, outputs)
    return Plan(
        configuration=name,
        spacing=tuple(float(s) for s in settings["spacing"]),
        patch_size=tuple(int(n) for n in settings["patch_size"]),
        transpose=_transpose(plans),
        normalization=_normalization(plans, settings),
        image_resampling=_resampling(settings, "data"),
        logits_resampling=_resampling(settings, "probabilities"),
        architecture=architecture,
        arguments=arguments,
        labels=labels,
        class_order=order,
        outputs=outputs,
    )


def _configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of a configuration, with those that it inherits."""
    known, chain = plans["configurations"], []
    while name is not None:
        if name not in known:
            raise ModelError(f"its plans have no configuration '{name}'; they have {', '.join(known)}.")
        if name in chain:
            raise ModelError(f"its configuration '{name}' inherits from itself.")
        chain.append(name)
        name = known[name].get("inherits_from")
    settings: dict[str, Any] = {}
    for name in reversed(chain):
        settings.update(known[name])
    return settings


def _check_kind(dataset: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> None:
    if settings.get("previous_stage"):
        raise ModelError(
            f"its configuration '{name}' is the second step of nnU-Net's own cascade and wants the labels of "
            f"'{settings['previous_stage']}' as input. Use the model's 3d_fullres or 3d_lowres configuration."
        )
    if len(settings["patch_size"]) != 3:
        raise ModelError(f"its configuration '{name}' works on single slices. Use a 3d configuration.")
    channels = dataset.get("channel_names", dataset.get("modality", {}))
    if len(channels) != 1:
        raise ModelError(f"it wants {len(channels)} input channels ({', '.join(channels.values())}), and a CT is one.")
    preprocessor = settings.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise ModelError(f"it was preprocessed by '{preprocessor}', and only DefaultPreprocessor is known here.")


def _transpose(plans: Mapping[str, Any]) -> tuple[int, int, int]:
    order = tuple(int(axis) for axis in plans["transpose_forward"])
    if sorted(order) != [0, 1, 2]:
        raise ModelError(f"its transpose_forward is {list(order)}, expected the numbers 0, 1 and 2 in some order.")
    return order


def _normalization(plans: Mapping[str, Any], settings: Mapping[str, Any]) -> Normalization:
    scheme = settings["normalization_schemes"][0]
    if scheme not in NORMALIZATIONS:
        raise ModelError(f"its values are normalized by '{scheme}'; known are {', '.join(NORMALIZATIONS)}.")
    if scheme != "CTNormalization":
        return Normalization(scheme, only_nonzero=bool(settings["use_mask_for_norm"][0]))
    key = "foreground_intensity_properties_per_channel"
    found = plans.get(key) or plans["foreground_intensity_properties_by_modality"]
    values = found["0"]
    low, high = float(values["percentile_00_5"]), float(values["percentile_99_5"])
    return Normalization(scheme, low, high, float(values["mean"]), float(values["std"]))


def _resampling(settings: Mapping[str, Any], what: str) -> Resampling:
    function = settings.get(f"resampling_fn_{what}", _RESAMPLING)
    if function != _RESAMPLING:
        raise ModelError(f"its {what} is resampled by '{function}', and only {_RESAMPLING} is known here.")
    options = settings.get(f"resampling_fn_{what}_kwargs", {})
    return Resampling(int(options["order"]), int(options.get("order_z", 0)), options.get("force_separate_z", False))


def _labels(dataset: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Values by the names of the labels, and for regions the order in which they are written."""
    given = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    values = {
        name: tuple(int(v) for v in (value if isinstance(value, list) else [value])) for name, value in given.items()
    }
    foreground = {name: value for name, value in values.items() if set(value) != {0}}
    if any(len(value) > 1 for value in values.values()):
        order = tuple(int(v) for v in dataset.get("regions_class_order") or ())
        if len(order) != len(foreground):
            raise ModelError(f"it has {len(foreground)} regions, but its regions_class_order names {len(order)}.")
        return foreground, order
    expected = list(range(1, len(foreground) + 1))
    if sorted(value[0] for value in foreground.values()) != expected:
        raise ModelError(
            f"its label values are {sorted(v[0] for v in foreground.values())}, expected 1, 2, … in a row."
        )
    return foreground, ()


def _network(settings: Mapping[str, Any], outputs: int) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments, from the present form of the plans or from the one before 2024."""
    if "architecture" in settings:
        path, options = settings["architecture"]["network_class_name"], dict(settings["architecture"]["arch_kwargs"])
    else:
        path, options = settings["UNet_class_name"], _old_options(settings)
    name = path.rpartition(".")[2]
    if name not in _NETWORKS:
        raise ModelError(f"its network is '{name}'; known are {', '.join(_NETWORKS)}.")
    blocks, stages = _NETWORKS[name], int(options["n_stages"])
    features = options["features_per_stage"]
    for option, harmless in _HARMLESS.items():
        if options.get(option, harmless[0]) not in harmless:
            raise ModelError(f"its network has {option} = {options[option]!r}, which is not known here.")
    if options.get("block") not in (None, "BasicBlockD") and not str(options["block"]).endswith(".BasicBlockD"):
        raise ModelError(f"its network is made of '{options['block']}', and only BasicBlockD is known here.")
    if options.get("stem_channels") not in (None, _per_stage(features, stages)[0]):
        raise ModelError("its network's stem has another number of channels than its first stage.")
    norm, norm_options = _last_name(options["norm_op"]), options.get("norm_op_kwargs") or {}
    activation, slope = _last_name(options["nonlin"]), (options.get("nonlin_kwargs") or {}).get("negative_slope", 0.01)
    if norm not in _NORMS or not norm_options.get("affine", norm.startswith("Batch")):
        raise ModelError(f"its network is normalized by {norm} with {norm_options}, which is not known here.")
    if activation not in _ACTIVATIONS or slope != 0.01:
        raise ModelError(f"its network's activation is {activation} with slope {slope}, which is not known here.")
    return name, {
        "input_channels": 1,
        "num_classes": outputs,
        "features_per_stage": _per_stage(features, stages),
        "kernel_sizes": [_along_axes(k) for k in _per_stage(options["kernel_sizes"], stages)],
        "strides": [_along_axes(s) for s in _per_stage(options["strides"], stages)],
        blocks: _per_stage(options[blocks], stages),
        "n_conv_per_stage_decoder": _per_stage(options["n_conv_per_stage_decoder"], stages - 1),
        "conv_bias": bool(options.get("conv_bias", False)),
        "norm": _NORMS[norm],
        "norm_eps": float(norm_options.get("eps", 1e-5)),
        "activation": _ACTIVATIONS[activation],
    }


def _old_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options that nnU-Net itself reads into plans that have no 'architecture'."""
    encoder = settings["n_conv_per_stage_encoder"]
    first, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
    blocks = _NETWORKS.get(settings["UNet_class_name"], "n_conv_per_stage")
    return {
        "n_stages": len(encoder),
        "features_per_stage": [min(first * 2**stage, most) for stage in range(len(encoder))],
        "kernel_sizes": settings["conv_kernel_sizes"],
        "strides": settings["pool_op_kernel_sizes"],
        blocks: encoder,
        "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "LeakyReLU",
    }


def _per_stage(value: Any, stages: int) -> list[Any]:
    values = list(value) if isinstance(value, Sequence) else [value] * stages
    if len(values) != stages:
        raise ModelError(f"its network has {stages} stages, but one of its lists has {len(values)} entries.")
    return values


def _along_axes(value: Any) -> list[int]:
    return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)] * 3


def _last_name(path: Any) -> str:
    return str(path).rpartition(".")[2]
