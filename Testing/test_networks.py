"""Networks by name: every preset builds, trains, is plain data, and runs in the engine."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from LiverCascadeLib.errors import MissingPackageError, ModelError
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models import build_network, load_manifest, load_network, planar
from LiverCascadeLib.models.memory_order import InstanceNorm3dOfOne, fastest_order, keep_memory_order
from LiverCascadeLib.models.slicewise import neighbors
from LiverCascadeLib.predictor import NetworkPredictor, autocast_dtype
from LiverCascadeLib.progress import Progress
from LiverCascadeTrainingLib.losses import build_loss
from LiverCascadeTrainingLib.names import SettingError
from LiverCascadeTrainingLib.networks import (
    PRESETS,
    build,
    divisor_of,
    fitting_patch,
    float32_where_thin,
    labels_of,
    outputs_of,
    plan_levels,
    set_answer,
    with_levels,
)
from overfit import FURTHER_PACKAGES, TINY, build_tiny, learn_by_heart, learn_preset, segment_dice, two_cases
from tiny_models import save_model

SPACING = (2.0, 2.0, 4.0)


def needs_packages(name: str) -> None:
    """Skips a test of a network whose packages are not there."""
    if name in FURTHER_PACKAGES:
        try:
            build_tiny(name)
        except MissingPackageError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_plain_data_from_which_the_engine_builds_a_network_that_trains(name):
    needs_packages(name)
    architecture, arguments = build_tiny(name)
    assert json.loads(json.dumps(arguments)) == arguments
    torch.manual_seed(0)
    network = float32_where_thin(build_network(architecture, arguments))
    batch = two_cases(TINY[name].patch_size)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = outputs_of(network.train()(batch["image"]))
    spatial = batch["target"].shape[1:]
    channels = 11 if name == "multi-level" else 3
    assert all(output.shape == (2, channels, *spatial) for output in outputs)
    assert len(outputs) == (2 if name in ("dynunet", "multi-level") else 1)
    loss, _ = build_loss("dice-ce")(outputs, batch)
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    with torch.inference_mode():
        answer = network.eval()(batch["image"][:1])
    assert answer.shape == (1, 3, *spatial)


@pytest.mark.parametrize("name", PRESETS)
def test_a_network_can_be_copied_sent_to_another_process_and_laid_out_for_a_gpu(name):
    needs_packages(name)
    network = build_network(*build_tiny(name)).eval()
    image = two_cases(TINY[name].patch_size)["image"][:1]
    with torch.inference_mode():
        expected = network(image)
        twin = pickle.loads(pickle.dumps(copy.deepcopy(network))).to(memory_format=torch.channels_last_3d)
        found = twin(image.contiguous(memory_format=torch.channels_last_3d))
    assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 5, 5)], ids=str)
@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 2, 8), (3, 1, 4), (4, 4, 1), (6, 8, 8)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_thinner_than_their_kernel_learn_in_bf16_what_they_learn_in_float32(kernel, shape, stride):
    generator = torch.Generator().manual_seed(3)
    usual = torch.nn.Conv3d(16, 16, kernel, stride, [size // 2 for size in kernel])
    network = float32_where_thin(torch.nn.Sequential(copy.deepcopy(usual)))
    assert list(network[0].state_dict()) == list(usual.state_dict())
    image = torch.randn((1, 16, *shape), generator=generator)
    slopes = []
    for reduced in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            answer = network(image)
        assert answer.dtype == torch.float32 or (reduced and min(shape) >= kernel[0])
        pull = torch.linspace(-1, 1, answer.numel()).reshape(answer.shape).to(answer.dtype)
        slopes.append(torch.autograd.grad(answer, network[0].weight, pull)[0])
    assert torch.linalg.norm(slopes[1] - slopes[0]) < 0.02 * torch.linalg.norm(slopes[0])


def test_an_instance_norm_of_one_sample_gives_what_pytorchs_gives_and_keeps_the_order_of_memory():
    generator = torch.Generator().manual_seed(1)
    usual = torch.nn.InstanceNorm3d(5, affine=True)
    torch.nn.init.uniform_(usual.weight, 0.5, 2)
    torch.nn.init.uniform_(usual.bias, -1, 1)
    (keeping,) = keep_memory_order(torch.nn.Sequential(copy.deepcopy(usual)))
    assert type(keeping) is InstanceNorm3dOfOne and list(keeping.state_dict()) == list(usual.state_dict())
    for batch in (1, 2):
        image = 3 + 2 * torch.randn((batch, 5, 6, 7, 8), generator=generator)
        last = image.contiguous(memory_format=torch.channels_last_3d)
        image, last = image.requires_grad_(), last.requires_grad_()
        expected, plain, found = usual(image), keeping(image), keeping(last)
        assert torch.allclose(plain, expected, atol=1e-6) and torch.allclose(found, expected, atol=1e-5)
        slopes = [torch.autograd.grad(answer.square().sum(), source)[0] for answer, source in
                  ((expected, image), (found, last))]  # fmt: skip
        assert torch.allclose(*slopes, atol=1e-4)
    one = last[:1].detach().contiguous(memory_format=torch.channels_last_3d)
    assert keeping(one).is_contiguous(memory_format=torch.channels_last_3d)
    assert not usual(one).is_contiguous(memory_format=torch.channels_last_3d)


def test_other_kinds_of_norms_are_left_alone_and_decide_the_order_of_memory():
    class Other(torch.nn.InstanceNorm3d):
        pass

    convolution = torch.nn.Conv3d(2, 2, 3)
    other = keep_memory_order(torch.nn.Sequential(convolution, Other(2)))
    assert type(other[1]) is Other
    tracking = keep_memory_order(torch.nn.Sequential(torch.nn.InstanceNorm3d(2, track_running_stats=True))).train()
    tracking(torch.rand(1, 2, 4, 4, 4) + 5)
    assert float(tracking[0].running_mean.min()) > 0.1
    keeping = keep_memory_order(torch.nn.Sequential(convolution, torch.nn.InstanceNorm3d(2)))
    mixed = torch.nn.Sequential(*keeping, torch.nn.GroupNorm(1, 2))
    for network, order in (
        (keeping, torch.channels_last_3d), (mixed, torch.contiguous_format), (other, torch.contiguous_format),
        (torch.nn.Sequential(convolution), torch.contiguous_format),
    ):  # fmt: skip
        assert fastest_order(network, "cpu") == order
        assert fastest_order(network, "cuda:0") == torch.channels_last_3d


@pytest.mark.parametrize("name", ["unet", "unet-2.5d", "transunet", "multi-level"])
def test_the_engine_runs_an_exported_preset_over_a_volume(name, tmp_path):
    architecture, arguments = build_tiny(name)
    size = TINY[name].patch_size
    saved = save_model(
        tmp_path, "refine", architecture=architecture, arguments=arguments, inputs=("ct",), patch_size=size,
        spacing_mm=SPACING,
    )  # fmt: skip
    manifest = load_manifest(tmp_path)
    assert manifest == saved
    grid = Grid((size[0] + 7, size[1], size[2] + 5), np.diag([*SPACING, 1.0]))
    ct = torch.linspace(-200, 300, grid.shape[0] * grid.shape[1] * grid.shape[2]).reshape(grid.shape)
    answer = NetworkPredictor(manifest).predict(ct, None, grid, Progress())
    assert answer.shape == (2, *grid.shape)
    assert float(answer.min()) >= 0 and float(answer.sum(dim=0).max()) <= 1 + 1e-5
    # One window: what the predictor gives is the softmax of the network's answer.
    part = Grid(size, grid.ijk_to_ras)
    ct = ct[: size[2], : size[1], : size[0]]
    windowed = ((ct + 175) / 425).clamp(0, 1)[None, None]
    dtype = autocast_dtype("cpu")
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        network = load_network(manifest)
        order = fastest_order(network, "cpu")
        answer = network.to(memory_format=order)(windowed.to(memory_format=order))
        expected = torch.softmax(answer.float(), dim=1)[0, 1:]
    assert torch.allclose(NetworkPredictor(manifest).predict(ct, None, part, Progress()), expected, atol=1e-4)


def test_levels_follow_the_published_plan_for_the_liver():
    # nnU-Net's plan of MSD Task03 at full resolution: 128³, 1.0 × 0.77 × 0.77 mm, five times halved along all axes.
    plan = plan_levels((1.0, 0.767, 0.767), (128, 128, 128))
    assert plan.strides == [[1, 1, 1]] + [[2, 2, 2]] * 5
    assert plan.kernels == [[3, 3, 3]] * 6
    assert plan.features == [32, 64, 128, 256, 320, 320]


def test_thick_slices_are_halved_only_when_pixels_have_grown_to_their_size():
    plan = plan_levels((5.0, 1.0, 1.0), (16, 256, 256))
    one, two = [1, 2, 2], [2, 2, 2]
    assert plan.strides == [[1, 1, 1], one, one, two, two, one, one]
    assert plan.kernels == [[1, 3, 3]] * 2 + [[3, 3, 3]] * 5


def test_a_planned_network_fits_its_patch_and_its_outputs_come_finest_first():
    architecture, arguments = build("dynunet", 1, 3, (96, 96, 32), (0.8, 0.8, 2.5))
    assert architecture == "DynUNet"
    assert arguments["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert arguments["kernel_size"][:2] == [[1, 3, 3], [3, 3, 3]]
    assert arguments["deep_supr_num"] == 2
    assert divisor_of(architecture, arguments) == (16, 16, 8)


@pytest.mark.parametrize(
    ("name", "patch", "fitting"),
    [
        ("unet", (100, 96, 32), "104 × 96 × 32"),
        ("swin-unetr", (96, 96, 48), "96 × 96 × 64"),
        ("swin-unetr", (32, 32, 32), "64 × 32 × 32"),
        ("dynunet", (90, 96, 32), "96 × 96 × 32"),
        ("transunet-2d", (100, 96, 3), "112 × 96 × 3"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_with_the_next_that_fits(name, patch, fitting):
    with pytest.raises(SettingError, match=f"The next that fits is {fitting}"):
        build(name, 1, 3, patch, (1.0, 1.0, 1.0))
    assert build(name, 1, 3, tuple(map(int, fitting.split(" × "))), (1.0, 1.0, 1.0))


def test_the_smallest_fitting_patch_is_not_smaller_along_any_axis():
    assert fitting_patch((100, 96, 1), (16, 16, 8)) == (112, 96, 8)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("swinunetr", {}, "Did you mean 'swin-unetr'"),
        ("unet", {"chanels": [4, 8]}, "Did you mean 'channels'"),
        ("unet", {"context": 1}, "no 2D network"),
        ("unet", {"levels": ("liver", "leson")}, "Did you mean 'lesion'"),
        ("unet", {"levels": ("liver",)}, "has 2 labels, not 3"),
        ("unet", {"levels": ("lesion",)}, "'liver' must be one of them"),
        ("dynunet", {"img_size": [32, 32, 32]}, "no setting of the network 'dynunet' 'img_size'"),
    ],
)
def test_unknown_networks_and_settings_are_refused_with_the_nearest_known(name, settings, text):
    with pytest.raises(SettingError, match=text):
        build(name, 1, 3, (32, 32, 32), SPACING, **settings)


def test_a_planned_network_refuses_a_patch_that_has_no_levels():
    with pytest.raises(SettingError, match="too small for this network"):
        build("dynunet", 1, 3, (8, 8, 8), (1.0, 1.0, 1.0))


def test_neighbors_of_a_slice_become_its_channels_and_the_outermost_slice_is_repeated():
    patch = torch.tensor([[10.0, 11, 12], [20, 21, 22]])[None, :, :, None, None]
    found = neighbors(patch, 1)[0, :, :, 0, 0]
    assert found.tolist() == [[10, 10, 11, 20, 20, 21], [10, 11, 12, 20, 21, 22], [11, 12, 12, 21, 22, 22]]
    assert torch.equal(neighbors(patch, 0), patch.transpose(1, 2))


def test_a_two_and_a_half_dimensional_network_sees_its_neighbors_and_no_more():
    torch.manual_seed(0)
    network = build_network(*build_tiny("unet-2.5d")).eval()
    image = torch.rand(1, 1, 9, 32, 32)
    other = image.clone()
    other[:, :, 4] = 0
    with torch.inference_mode():
        changed = (network(image) - network(other)).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
        assert changed.tolist() == [2 <= n <= 6 for n in range(9)]
        stacked = network(neighbors(image, 2)[0])
    assert torch.allclose(stacked, network(image)[0].transpose(0, 1), atol=1e-5)


def test_thick_patches_go_through_a_planar_network_in_parts_without_a_difference():
    torch.manual_seed(0)
    architecture, arguments = build_tiny("unet-2d")
    network = build_network(architecture, arguments).eval()
    image = torch.rand(1, 1, 10, 32, 32)
    with torch.inference_mode():
        expected = network(image)
        network.slices_at_once = 3
        assert torch.allclose(network(image), expected, atol=1e-5)


def test_planar_networks_with_deep_supervision_give_lists_in_training():
    plan = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "kernel_size": [[3, 3]] * 4, "filters": [4] * 4,
            "strides": [[1, 1]] + [[2, 2]] * 3, "upsample_kernel_size": [[2, 2]] * 3,
            "deep_supervision": True, "deep_supr_num": 1}  # fmt: skip
    network = build_network("SliceWise", {"architecture": "DynUNet", "arguments": plan})
    patch, stack = torch.rand(2, 1, 3, 32, 32), torch.rand(2, 1, 32, 32)
    assert [output.shape for output in outputs_of(network(patch))] == [(2, 2, 3, 32, 32)] * 2
    assert [output.shape for output in outputs_of(network(stack))] == [(2, 2, 32, 32)] * 2
    assert network.eval()(patch).shape == (2, 2, 3, 32, 32)


def test_the_levels_of_a_multi_level_network_make_probabilities_that_sum_to_one():
    torch.manual_seed(0)
    architecture, arguments = build_tiny("multi-level")
    network = build_network(architecture, arguments).eval()
    image = torch.rand(1, 1, 16, 32, 32)
    with torch.inference_mode():
        labels = network(image)
        assert torch.allclose(labels.exp().sum(dim=1), torch.ones(1, 16, 32, 32), atol=1e-5)
        assert torch.allclose(torch.softmax(labels, dim=1), labels.exp(), atol=1e-5)
        set_answer(network, "couinaud")
        segments = network(image).exp()
    names = labels_of(("liver", "lesion", "couinaud"), "couinaud")
    assert list(names.values()) == list(range(segments.shape[1]))
    assert torch.allclose(segments[:, 2:].sum(dim=1), labels[:, 1:].exp().sum(dim=1), atol=1e-5)
    assert torch.allclose(segments[:, 0], labels[:, 0].exp(), atol=1e-6)
    assert labels_of(("liver", "couinaud")) == {"background": 0, "liver": 1}


@pytest.mark.parametrize("name", ["segresnet", "unet-2.5d", "attention-unet"])
def test_any_network_can_carry_several_levels(name):
    architecture, arguments = build_tiny(name, out_channels=2, levels=("liver", "couinaud"), features=4)
    network = build_network(architecture, arguments)
    batch = two_cases(TINY[name].patch_size)
    assert outputs_of(network(batch["image"]))[0].shape[1] == 2 + 8
    assert network.eval()(batch["image"]).shape[1] == 2
    set_answer(network, "couinaud")
    assert network(batch["image"]).shape[1] == 2 + 8
    if architecture == "SliceWise":
        # Slices that have their neighbors already, as 2D samples do.
        assert network(neighbors(batch["image"], 2)[0]).shape[1] == 2 + 8
        architecture, arguments = arguments["architecture"], arguments["arguments"]
    with pytest.raises(ModelError, match="expected 'liver'"):
        build_network(architecture, {**arguments, "levels": ["lesion"]})
    with pytest.raises(ModelError, match="answer is 'segments'"):
        build_network(architecture, {**arguments, "answer": "segments"})


def test_two_dimensional_trunks_can_carry_levels_too():
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 4, "channels": [4, 8]}
    whole = build_network(*with_levels("TrilinearUNet", arguments, ("liver", "lesion")))
    assert whole.eval()(torch.rand(1, 1, 16, 16)).shape == (1, 3, 16, 16)
    with pytest.raises(SettingError, match="Did you mean 'couinaud'"):
        set_answer(whole, "couinau")
    with pytest.raises(SettingError, match="has no levels"):
        set_answer(build_network("TrilinearUNet", arguments), "all")


def test_the_hybrid_takes_other_sizes_than_it_was_made_for():
    torch.manual_seed(0)
    network = build_network(*build_tiny("transunet")).eval()
    assert network(torch.rand(1, 1, 20, 32, 40)).shape == (1, 3, 20, 32, 40)


@pytest.mark.parametrize(
    ("architecture", "arguments", "text"),
    [
        ("TrilinearUNet", {"spatial_dims": 3, "channels": [8]}, "at least two levels"),
        ("TransUNet", {"spatial_dims": 3, "img_size": [30, 32, 32]}, "multiples of 8"),
        ("SliceWise", {"architecture": "Linear", "arguments": {}}, "allow-list"),
        ("SliceWise", {"architecture": "UNet", "arguments": {}, "context": -1}, "context is -1"),
    ],
)
def test_arguments_that_make_no_network_are_refused_in_words(architecture, arguments, text):
    channels = {} if architecture == "SliceWise" else {"in_channels": 1, "out_channels": 2}
    with pytest.raises(ModelError, match=text):
        build_network(architecture, {**arguments, **channels})


def test_no_manifest_can_have_weights_or_encoders_fetched():
    needs_packages("deeplabv3plus")
    channels = {"in_channels": 1, "out_channels": 2}
    with pytest.raises(ModelError, match="does not take encoder_weights"):
        build_network("DeepLabV3Plus", {**channels, "encoder_weights": "imagenet"})
    for architecture, setting in (("DeepLabV3Plus", "encoder"), ("EncoderUNet", "encoder"), ("FCN", "backbone")):
        with pytest.raises(ModelError, match="is not known"):
            build_network(architecture, {**channels, setting: "tu-hf_hub:somebody/something"})


@pytest.mark.parametrize(
    ("architecture", "package", "maker"),
    [("FCN", "torchvision", "_fcn"), ("DeepLabV3Plus", "segmentation_models_pytorch", "_deeplab")],
)
def test_a_missing_package_is_told_in_words(architecture, package, maker, monkeypatch):
    monkeypatch.setattr(planar, "_MAKERS", {architecture: getattr(planar, maker).__wrapped__})
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=f"pip install {package.replace('_', '-')}"):
        build_network("SliceWise", {"architecture": architecture, "arguments": {}})


def test_a_package_that_does_not_fit_the_installed_pytorch_is_told_in_words(monkeypatch):
    def fails(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(planar, "_MAKERS", {"FCN": fails})
    with pytest.raises(MissingPackageError, match=r"nms does not exist.*the one for the installed PyTorch"):
        build_network("FCN", {})


@pytest.mark.slow
def test_the_table_of_networks_is_measured_by_a_script():
    script = Path(__file__).parent / "network_table.py"
    command = [sys.executable, str(script), "unet-2d", "--patch", "32", "32", "4", "--steps", "1"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = [float(cell) for cell in answer.stdout.strip().strip("|").split("|")[-4:]]
    # 9 · (32 + 32² + …) weights: known from the channels alone, to the first digit.
    assert 7 < figures[0] < 9 and figures[1] > 0.03


@pytest.mark.long
@pytest.mark.parametrize("name", PRESETS)
def test_every_network_learns_two_cases_by_heart(name):
    needs_packages(name)
    learned = learn_preset(name)
    assert min(learned.dice) >= 0.9, learned.dice
    assert learned.losses[-1] < 0.8 * learned.losses[0]


@pytest.mark.long
def test_a_multi_level_network_learns_segments_from_the_one_case_that_has_them():
    torch.manual_seed(0)
    batch = two_cases(TINY["multi-level"].patch_size)
    network = build_network(*build_tiny("multi-level"))
    known = {"lesion": torch.tensor([True, True]), "couinaud": torch.tensor([True, False])}
    learned = learn_by_heart(network, {**batch, "known": known}, build_loss("dice-ce", couinaud_weight=2.0))
    assert min(learned.dice) >= 0.9, learned.dice
    set_answer(network, "all")
    with torch.inference_mode():
        answer = network(batch["image"])
    assert segment_dice(answer[:1], batch["couinaud"][:1]) >= 0.8
