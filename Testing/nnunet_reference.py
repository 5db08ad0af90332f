"""nnU-Net's own software, in a Python of its own: builds and saves models, and says what they answer.

``make setup`` gives it an environment, ``.venv-nnunet``, because its dependencies do not get along with the project's.
The tests and the benchmark call it as a program:

    .venv-nnunet/bin/python Testing/nnunet_reference.py build FOLDER IMAGE
    .venv-nnunet/bin/python Testing/nnunet_reference.py convert MODEL FOLDER
    .venv-nnunet/bin/python Testing/nnunet_reference.py random FOLDER
    .venv-nnunet/bin/python Testing/nnunet_reference.py predict IMAGE OUTPUT=MODEL …
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# nnU-Net's names of its folders, in its own spelling.
PREPARED = "nnUNet_preprocessed"
SPACING, PATCH = [2.0, 1.5, 1.5], [24, 32, 32]
LABELS = {"background": 0, "liver": 1, "tumor": 2}


@dataclass(frozen=True)
class Kind:
    """One kind of model that is built.

    Attributes:
        network: 'PlainConvUNet' or 'ResidualEncoderUNet'.
        spacing, patch: along the axes that the network sees.
        kernels, strides: of the three stages.
        transpose: order of the array's axes.
        regions: overlapping regions instead of labels.
        folds: how many networks.
        mirror_axes: along which mirroring is allowed.
        old_plans: plans as they were written before 2024.
        normalization: scheme.
        first, channels: features.
    """

    network: str = "PlainConvUNet"
    spacing: list[float] = field(default_factory=lambda: SPACING)
    patch: list[int] = field(default_factory=lambda: PATCH)
    kernels: list[list[int]] = field(default_factory=lambda: [[3, 3, 3]] * 3)
    strides: list[list[int]] = field(default_factory=lambda: [[1, 1, 1], [2, 2, 2], [2, 2, 2]])
    transpose: list[int] = field(default_factory=lambda: [0, 1, 2])
    regions: bool = False
    folds: int = 1
    mirror_axes: list[int] = field(default_factory=list)
    old_plans: bool = False
    normalization: str = "CTNormalization"


KINDS = {
    "plain": Kind(),
    "residual": Kind(network="ResidualEncoderUNet"),
    "folds": Kind(folds=2),
    "mirrored": Kind(mirror_axes=[0, 1, 2]),
    "anisotropic": Kind(
        spacing=[5.0, 1.2, 1.2],
        patch=[8, 48, 48],
        kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    ),
    "transposed": Kind(transpose=[2, 0, 1], spacing=[1.5, 2.0, 1.5], patch=[32, 24, 32]),
    "regions": Kind(regions=True),
    "old plans": Kind(old_plans=True),
    "z-score": Kind(normalization="ZScoreNormalization"),
}


def plans_of(kind: Kind) -> dict[str, Any]:
    """``plans.json``."""
    features = [8, 16, 32]
    blocks = "n_conv_per_stage" if kind.network == "PlainConvUNet" else "n_blocks_per_stage"
    configuration: dict[str, Any] = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": kind.patch,
        "median_image_size_in_voxels": [64, 128, 128],
        "spacing": kind.spacing,
        "normalization_schemes": [kind.normalization],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "batch_dice": False,
    }
    if kind.old_plans:
        configuration |= {
            "UNet_class_name": kind.network,
            "UNet_base_num_features": features[0],
            "unet_max_num_features": 320,
            "n_conv_per_stage_encoder": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "num_pool_per_axis": [2, 2, 2],
            "pool_op_kernel_sizes": kind.strides,
            "conv_kernel_sizes": kind.kernels,
        }
    else:
        configuration["architecture"] = _architecture(kind.network, features, kind.kernels, kind.strides, blocks)
    values = {"mean": 50.0, "std": 80.0, "percentile_00_5": -150.0, "percentile_99_5": 250.0}
    return _plans(configuration, values, kind.transpose)


def _architecture(network: str, features: list[int], kernels: list, strides: list, blocks: str) -> dict[str, Any]:
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
        "arch_kwargs": {
            "n_stages": len(features),
            "features_per_stage": features,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": kernels,
            "strides": strides,
            blocks: [2] * len(features),
            "n_conv_per_stage_decoder": [2] * (len(features) - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _plans(configuration: dict[str, Any], values: dict[str, float], transpose: list[int]) -> dict[str, Any]:
    backward = [transpose.index(axis) for axis in range(3)]
    return {
        "dataset_name": "Dataset900_Test",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": configuration["spacing"],
        "original_median_shape_after_transp": [64, 128, 128],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": transpose,
        "transpose_backward": backward,
        "configurations": {"base": configuration, "3d_fullres": {"inherits_from": "base"}},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": values},
    }


def dataset_of(kind: Kind) -> dict[str, Any]:
    """``dataset.json``."""
    dataset = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 1, "file_ending": ".nii.gz"}
    if kind.regions:
        dataset |= {"labels": {"background": 0, "whole liver": [1, 2], "tumor": 2}, "regions_class_order": [1, 2]}
    return dataset


def trainer_for(plans: dict[str, Any], dataset: dict[str, Any], fold: int) -> Any:
    """nnU-Net's trainer with its network, on the CPU."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    # The trainer looks at the ending of prepared cases before it builds its network; one empty file is enough.
    prepared = Path(os.environ[PREPARED]) / plans["dataset_name"] / "nnUNetPlans_3d_fullres"
    prepared.mkdir(parents=True, exist_ok=True)
    (prepared / "case.b2nd").touch()
    trainer = nnUNetTrainer(
        {**plans, "continue_training": False}, "3d_fullres", fold, dataset, device=torch.device("cpu")
    )
    trainer.initialize()
    return trainer


def build(folder: Path, image: Path) -> None:
    """Builds every kind of model below ``folder``, taught for a moment what is bright in ``image``."""
    import torch

    for number, (name, kind) in enumerate(KINDS.items()):
        target = folder / name
        plans, dataset = plans_of(kind), dataset_of(kind)
        _write_descriptions(target, plans, dataset)
        for fold in range(kind.folds):
            torch.manual_seed(10 * number + fold)
            trainer = trainer_for(json.loads(json.dumps(plans)), dataset, fold)
            _teach(trainer, image, kind)
            _save(trainer, target, fold, kind.mirror_axes)


def _write_descriptions(target: Path, plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    target.mkdir(parents=True)
    (target / "plans.json").write_text(json.dumps(plans))
    (target / "dataset.json").write_text(json.dumps(dataset))


def _save(trainer: Any, target: Path, fold: int, mirror_axes: list[int]) -> None:
    trainer.inference_allowed_mirroring_axes = tuple(mirror_axes) or None
    (target / f"fold_{fold}").mkdir()
    trainer.save_checkpoint(str(target / f"fold_{fold}" / "checkpoint_final.pth"))


def _teach(trainer: Any, image: Path, kind: Kind, steps: int = 50) -> None:
    """A network that has learned something decides; one of random weights leaves every voxel a tie."""
    import torch

    reader = trainer.plans_manager.image_reader_writer_class()
    array, properties = reader.read_images([str(image)])
    processor = trainer.configuration_manager.preprocessor_class(verbose=False)
    data, _, _ = processor.run_case_npy(
        array, None, properties, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
    )
    scan = torch.from_numpy(data)[None].float()
    missing = [max(0, p - n) for n, p in zip(scan.shape[2:], kind.patch, strict=True)]
    scan = torch.nn.functional.pad(scan, [side for more in reversed(missing) for side in (0, more)])
    smooth = torch.nn.functional.avg_pool3d(scan, 7, 1, 3)
    low, high = smooth.quantile(0.5), smooth.quantile(0.8)
    truth = (smooth > low).long() + (smooth > high).long()
    network, optimizer = trainer.network.train(), torch.optim.Adam(trainer.network.parameters(), 6e-3)
    for _ in range(steps):
        starts = [int(torch.randint(0, n - p + 1, ())) for n, p in zip(scan.shape[2:], kind.patch, strict=True)]
        where = (slice(None), slice(None), *(slice(s, s + p) for s, p in zip(starts, kind.patch, strict=True)))
        logits, target = network(scan[where]), truth[where]
        logits = logits[0] if isinstance(logits, list | tuple) else logits
        if kind.regions:
            wanted = torch.cat([target > 0, target > 1], dim=1).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        else:
            loss = torch.nn.functional.cross_entropy(logits, target[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def convert(model: Path, target: Path) -> None:
    """Saves one of the project's own models, a PlainConvUNet with one channel, in nnU-Net's folder format."""
    from safetensors.torch import load_file

    manifest = json.loads((model / "manifest.json").read_text())
    arguments = manifest["arguments"]
    low, high = manifest["window_hu"]
    kind = Kind(spacing=manifest["spacing_mm"][::-1], patch=manifest["patch_size"][::-1])
    plans = plans_of(kind)
    configuration = plans["configurations"]["base"]
    configuration["architecture"] = _architecture(
        "PlainConvUNet", arguments["features_per_stage"], arguments["kernel_sizes"], arguments["strides"],
        "n_conv_per_stage",
    )  # fmt: skip
    for name in ("n_conv_per_stage", "n_conv_per_stage_decoder", "conv_bias"):
        configuration["architecture"]["arch_kwargs"][name] = arguments.get(name, True)
    # Windowed to 0…1: minus the lower end, over the width.
    values = {"mean": low, "std": high - low, "percentile_00_5": low, "percentile_99_5": high}
    plans["foreground_intensity_properties_per_channel"]["0"] = values
    dataset = {**dataset_of(kind), "labels": manifest["labels"]}
    _write_descriptions(target, plans, dataset)
    trainer = trainer_for(json.loads(json.dumps(plans)), dataset, 0)
    state = {name: tensor.float() for name, tensor in load_file(model / manifest["weights_file"]).items()}
    left = trainer.network.load_state_dict(state, strict=False)
    assert not left.unexpected_keys, left.unexpected_keys
    _save(trainer, target, 0, [])


def random(target: Path) -> None:
    """The plain U-Net that nnU-Net plans for a liver data set at 0.75 × 0.75 × 1.0 mm, with fixed random weights."""
    import torch

    torch.manual_seed(0)
    kind = Kind(spacing=[1.0, 0.75, 0.75], patch=[128, 128, 128])
    plans = plans_of(kind)
    plans["configurations"]["base"]["architecture"] = _architecture(
        "PlainConvUNet", [32, 64, 128, 256, 320, 320], [[3, 3, 3]] * 6, [[1, 1, 1]] + [[2, 2, 2]] * 5,
        "n_conv_per_stage",
    )  # fmt: skip
    dataset = dataset_of(kind)
    _write_descriptions(target, plans, dataset)
    trainer = trainer_for(json.loads(json.dumps(plans)), dataset, 0)
    # Everything is liver: speckle would cost whoever draws surfaces of it, and no trained network gives any.
    with torch.no_grad():
        trainer.network.decoder.seg_layers[-1].bias[1] += 100
    _save(trainer, target, 0, [])


def predict(image: Path, output: Path, model: Path, mirror: bool, workers: bool) -> None:
    """``nnUNetPredictor`` from file to file; prints the seconds that it took, the model being loaded.

    Args:
        workers: reading and writing in processes of their own, as its command line does.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = nnUNetPredictor(use_mirroring=mirror, device=device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), None)
    started = time.perf_counter()
    files = [[str(image)]], [str(output)]
    if workers:
        predictor.predict_from_files(*files, num_processes_preprocessing=1, num_processes_segmentation_export=1)
    else:
        predictor.predict_from_files_sequential(*files)
    print(json.dumps({"model": str(model), "seconds": time.perf_counter() - started}), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, paths in (("build", ["folder", "image"]), ("convert", ["model", "folder"]), ("random", ["folder"])):
        command = commands.add_parser(name)
        for path in paths:
            command.add_argument(path, type=Path)
    command = commands.add_parser("predict")
    command.add_argument("image", type=Path)
    command.add_argument("jobs", nargs="+", help="OUTPUT=MODEL or OUTPUT=MODEL=mirror")
    command.add_argument("--workers", action="store_true", help="read and write in processes of their own")
    options = parser.parse_args()
    if options.command == "build":
        build(options.folder, options.image)
    elif options.command == "convert":
        convert(options.model, options.folder)
    elif options.command == "random":
        random(options.folder)
    else:
        for job in options.jobs:
            output, model, *mirror = job.split("=")
            predict(options.image, Path(output), Path(model), bool(mirror), options.workers)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        # nnU-Net asks for them when it is imported.
        for variable in ("nnUNet_raw", PREPARED, "nnUNet_results"):
            os.environ.setdefault(variable, place)
        os.environ.setdefault("nnUNet_compile", "f")
        main()
