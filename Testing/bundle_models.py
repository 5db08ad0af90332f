"""MONAI bundles as their owners publish them, with small networks, and what MONAI's own pipeline makes of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = {"bundle_root": ".", "image_key": "image"}
DEVICE = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"
LOAD = [
    {"_target_": "LoadImaged", "keys": "@image_key"},
    {"_target_": "EnsureTyped", "keys": "@image_key"},
    {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
    {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
]
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}


@dataclass(frozen=True)
class Form:
    """One way in which bundles are written.

    Attributes:
        network: of ``network_def``.
        spacing: of Spacingd; an expression where real bundles have one.
        values: transforms of the values, after Spacingd.
        inferer: arguments of SlidingWindowInferer.
        nearest: of Invertd, which then comes after the decision.
        names: of the outputs.
        more: ids beside the usual ones.
        load_path: where the weights are.
        in_handlers: the checkpoint loader stands among the handlers.
        sigmoid: outputs may overlap.
    """

    network: dict[str, Any]
    spacing: Any
    values: list[dict[str, Any]]
    inferer: dict[str, Any]
    nearest: bool = False
    names: tuple[str, ...] = ("background", "liver", "tumor")
    more: Mapping[str, Any] = field(default_factory=dict)
    load_path: str = "$@bundle_root + '/models/model.pt'"
    in_handlers: bool = False
    sigmoid: bool = False


def scaled(low: float, high: float) -> dict[str, Any]:
    """ScaleIntensityRanged to 0…1."""
    return {
        "_target_": "ScaleIntensityRanged", "keys": "@image_key", "a_min": low, "a_max": high, "b_min": 0.0,
        "b_max": 1.0, "clip": True,
    }  # fmt: skip


WHOLE_BODY = tuple({0: "background", 1: "spleen", 5: "liver", 7: "aorta"}.get(n, f"structure_{n}") for n in range(18))
FORMS = {
    "whole body": Form(
        network={
            "_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 18, "init_filters": 8,
            "blocks_down": [1, 1, 1], "blocks_up": [1, 1], "dropout_prob": 0.2,
        },
        spacing="@pixdim",
        values=[
            {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": -1.0, "maxv": 1.0},
        ],
        inferer={
            "roi_size": [32, 32, 32], "sw_batch_size": "@displayable_configs#sw_batch_size",
            "overlap": "@displayable_configs#sw_overlap", "padding_mode": "replicate", "mode": "gaussian",
            "device": DEVICE,
        },
        nearest=True,
        names=WHOLE_BODY,
        more={
            "displayable_configs": {"highres": True, "sw_overlap": 0.25, "sw_batch_size": 1},
            "pixdim": "$[4.0, 4.0, 4.0] if @displayable_configs#highres else [6.0, 6.0, 6.0]",
            "modelname": "$'model.pt' if @displayable_configs#highres else 'model_lowres.pt'",
        },
        load_path="$@bundle_root + '/models/' + @modelname",
    ),
    "organ": Form(
        network={
            "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [8, 16, 32],
            "strides": [2, 2], "num_res_units": 2, "norm": "batch",
        },
        spacing=[2.5, 2.5, 3.0],
        values=[scaled(-57, 164)],
        inferer={"roi_size": [32, 32, 24], "sw_batch_size": 4, "overlap": 0.5},
    ),
    "transformer": Form(
        network={
            "_target_": "SwinUNETR", "spatial_dims": 3, "img_size": 64, "in_channels": 1, "out_channels": 3,
            "feature_size": 12, "use_checkpoint": False,
        },
        spacing=[5.0, 5.0, 5.0],
        values=[scaled(-175, 250)],
        inferer={"roi_size": [64, 64, 64], "sw_batch_size": 4, "overlap": 0.5},
        more={"checkpoint": "$@bundle_root + '/models/model.pt'"},
        load_path="$@checkpoint",
    ),
    "cropped": Form(
        network={
            "_target_": "monai.networks.nets.DynUNet", "spatial_dims": "@spatial_dims", "in_channels": "@channels",
            "out_channels": 3, "kernel_size": [3, 3, 3], "strides": [1, 2, [2, 2, 1]],
            "upsample_kernel_size": [2, [2, 2, 1]], "filters": [8, 16, 32], "norm_name": "instance",
            "deep_supervision": False, "res_block": True,
        },
        spacing=[3.0, 3.0, 5.0],
        values=[
            scaled(-250, 400),
            {"_target_": "CropForegroundd", "keys": ["@image_key"], "source_key": "@image_key", "mode": ["minimum"]},
            {"_target_": "CastToTyped", "keys": "@image_key", "dtype": "$torch.float32"},
        ],
        inferer={"roi_size": [32, 32, 16], "sw_batch_size": 4, "overlap": 0.6},
        more={"spatial_size": [32, 32, 16], "spatial_dims": "$len(@spatial_size)", "channels": 1},
        in_handlers=True,
    ),
    "overlapping": Form(
        network={
            "_target_": "BasicUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
            "features": [8, 8, 16, 16, 32, 8],
        },
        spacing=[3.0, 3.0, 4.0],
        values=[
            {"_target_": "NormalizeIntensityd", "keys": "@image_key", "subtrahend": 50.0, "divisor": 120.0},
        ],
        # Wider than the scan along one axis.
        inferer={"roi_size": [32, 32, 96], "sw_batch_size": 1, "overlap": 0.25, "mode": "gaussian", "cval": -2.0},
        names=("liver", "tumor"),
        sigmoid=True,
    ),
}  # fmt: skip


def configuration(form: Form) -> dict[str, Any]:
    """``inference.json`` with all that real ones hold."""
    invert = {
        "_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "@image_key",
        "nearest_interp": form.nearest, "to_tensor": True,
    }  # fmt: skip
    save = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_dtype": "$numpy.float32"}
    activation = {**SOFTMAX, "softmax": not form.sigmoid, "sigmoid": form.sigmoid}
    decision = {**ARGMAX, "argmax": False, "threshold": 0.5} if form.sigmoid else ARGMAX
    spacing = {"_target_": "Spacingd", "keys": "@image_key", "pixdim": form.spacing, "mode": "bilinear"}
    loader = {"_target_": "CheckpointLoader", "load_path": form.load_path, "load_dict": {"model": "@network"}}
    statistics = {"_target_": "StatsHandler", "iteration_log": False}
    config = {
        "imports": ["$import glob", "$import numpy", "$import os"],
        **HERE,
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/workspace/data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": DEVICE,
        **form.more,
        "network_def": form.network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": [*LOAD, spacing, *form.values]},
        "dataset": {
            "_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 1},
        "inferer": {"_target_": "SlidingWindowInferer", **form.inferer},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [activation, *((decision, invert) if form.nearest else (invert, decision)), save],
        },
        "handlers": [loader, statistics] if form.in_handlers else [statistics],
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
            "network": "@network", "inferer": "@inferer", "postprocessing": "@postprocessing",
            "val_handlers": "@handlers", "amp": True,
        },
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
        "run": ["$@evaluator.run()"],
    }  # fmt: skip
    if not form.in_handlers:
        config["checkpointloader"] = loader
    return copy.deepcopy(config)


def metadata(form: Form) -> dict[str, Any]:
    """``metadata.json``."""
    patch = list(form.inferer["roi_size"])
    image = {"type": "image", "modality": "CT", "num_channels": 1, "spatial_shape": patch}
    answer = {
        "type": "image", "num_channels": len(form.names), "spatial_shape": patch,
        "channel_def": {str(n): name for n, name in enumerate(form.names)},
    }  # fmt: skip
    return {
        "version": "0.2.5",
        "name": "Test CT segmentation",
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "references": ["Somebody et al., 2024."],
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": answer}},
    }


def save_bundle(folder: Path, form: Form, image: Path | None = None, steps: int = 20) -> Path:
    """Writes a bundle into ``folder``, which it returns; with an image, its network is taught for a few steps."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(configuration(form)))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata(form)))
    network = monai_parts(configuration(form)).network
    if image is not None:
        teach(network, monai_parts(configuration(form)).preprocessing({"image": str(image)})["image"], form, steps)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


@dataclass
class MonaiParts:
    """What MONAI's own parser makes of a configuration."""

    preprocessing: Any
    inferer: Any
    postprocessing: Any
    network: Any


def monai_parts(config: dict[str, Any]) -> MonaiParts:
    """The parts as MONAI makes them, without what saves files."""
    from monai.bundle import ConfigParser

    config = copy.deepcopy(config)
    steps = config["postprocessing"]["transforms"]
    config["postprocessing"]["transforms"] = [step for step in steps if step["_target_"] != "SaveImaged"]
    # Classes of today no longer take it.
    config["network_def"].pop("img_size", None)
    parser = ConfigParser(config)
    torch.manual_seed(3)
    names = ("preprocessing", "inferer", "postprocessing", "network_def")
    return MonaiParts(*(parser.get_parsed_content(name) for name in names))


def teach(network: torch.nn.Module, image: torch.Tensor, form: Form, steps: int) -> None:
    """What is bright becomes liver, what is brightest tumor: a network of random weights leaves every voxel a tie."""
    scan = torch.as_tensor(image.numpy())[None]
    patch = [min(n, 32) for n in form.inferer["roi_size"]]
    missing = [max(0, p - n) for n, p in zip(scan.shape[2:], patch, strict=True)]
    scan = torch.nn.functional.pad(scan, [side for more in reversed(missing) for side in (0, more)])
    smooth = torch.nn.functional.avg_pool3d(scan, 3, 1, 1)
    low, high = np.quantile(smooth.numpy(), [0.6, 0.85])
    liver, tumor = smooth > low, smooth > high
    values = [form.names.index("liver"), form.names.index("tumor") if "tumor" in form.names else 1]
    truth = liver.long() * values[0]
    truth[tumor] = values[1]
    optimizer = torch.optim.Adam(network.train().parameters(), 1e-2)
    for _ in range(steps):
        starts = [int(torch.randint(0, n - p + 1, ())) for n, p in zip(scan.shape[2:], patch, strict=True)]
        where = (slice(None), slice(None), *(slice(s, s + p) for s, p in zip(starts, patch, strict=True)))
        logits = network(scan[where])
        if form.sigmoid:
            wanted = torch.cat([liver[where], tumor[where]], dim=1).float()
            more = torch.tensor([1.0, 6.0]).reshape(2, 1, 1, 1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=more)
        else:
            loss = torch.nn.functional.cross_entropy(logits, truth[where][:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


@dataclass(frozen=True)
class Reference:
    """MONAI's own answer.

    Attributes:
        image: what the network sees, [i, j, k] on its own grid.
        affine: of that grid.
        logits: [c, i, j, k] on it.
        labels: on the input's voxels, [i, j, k], or [c, i, j, k] where outputs overlap.
    """

    image: np.ndarray
    affine: np.ndarray
    logits: torch.Tensor
    labels: np.ndarray


def monai_answer(root: Path, image: Path) -> Reference:
    """Runs the bundle with MONAI's own transforms, inferer and network, on the CPU."""
    from monai.data import MetaTensor

    parts = monai_parts(json.loads((root / "configs" / "inference.json").read_text()))
    parts.network.load_state_dict(torch.load(root / "models" / "model.pt", weights_only=True))
    parts.network.eval()
    parts.inferer.device = None
    data = parts.preprocessing({"image": str(image)})
    seen = data["image"]
    with torch.inference_mode():
        logits = parts.inferer(inputs=seen.as_tensor()[None], network=parts.network)[0]
    data["pred"] = MetaTensor(logits.clone(), meta=seen.meta)
    labels = np.asarray(parts.postprocessing(data)["pred"])
    return Reference(
        seen.as_tensor().numpy()[0], np.asarray(seen.affine), logits, labels if len(labels) > 1 else labels[0]
    )
