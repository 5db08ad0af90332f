"""What networks are shown is the same in training and in use, and shows lesions against their liver."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from LiverCascadeLib.channels import (
    CONTRAST_HU,
    USUAL_LIVER_HU,
    blur,
    liver_contrast,
    liver_density,
    network_channels,
)
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models import load_manifest, load_network
from LiverCascadeLib.predictor import NetworkPredictor
from LiverCascadeLib.progress import Progress
from LiverCascadeTrainingLib.names import SettingError
from LiverCascadeTrainingLib.priors import density_in_patch
from LiverCascadeTrainingLib.training.config import load_run_config
from LiverCascadeTrainingLib.training.fit import load_average, widened
from LiverCascadeTrainingLib.training.module import SegmentationModule
from scipy import ndimage
from tiny_models import TINY_UNET, save_model

ALL = ("ct", "liver_probability", "liver_contrast")
WINDOW = (-175.0, 250.0)
SPACING = (2.0, 2.0, 2.0)


def scan(liver_hu: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A cube of liver in fat, with a darker lesion, and where the liver is."""
    ct = torch.full((24, 24, 24), -90.0)
    ct[4:20, 4:20, 4:20] = liver_hu
    ct[7:14, 7:14, 7:14] = liver_hu - 20
    prior = torch.zeros_like(ct)
    prior[4:20, 4:20, 4:20] = 0.9
    return ct, prior


@pytest.mark.parametrize("liver_hu", [5.0, 55.0, 120.0])
def test_a_lesion_looks_the_same_in_every_liver(liver_hu):
    ct, prior = scan(liver_hu)
    given, located, contrast = network_channels(ALL, WINDOW, ct, prior, SPACING)
    assert torch.equal(located, prior)
    assert float(given[5, 5, 5]) == pytest.approx((liver_hu + 175) / 425, abs=1e-6)
    assert float(contrast[17, 17, 17]) == pytest.approx(0.5, abs=0.01)
    assert float(contrast[10, 10, 10]) == pytest.approx(0.5 - 20 / CONTRAST_HU, abs=0.002)
    assert float(contrast[0, 0, 0]) == max(0.0, 0.5 + (-90 - liver_hu) / CONTRAST_HU)
    assert float(network_channels(ALL, WINDOW, torch.full((9, 9, 9), -1024.0), None, SPACING)[2].max()) == 0


def test_the_contrast_is_what_noise_leaves_of_it():
    """Smoothed by the same millimeters on any grid; a lesion of 10 HU stands out of noise of 20."""
    noise = np.random.default_rng(0).normal(0, 20, (40, 40, 40)).astype(np.float32)
    ct = torch.from_numpy(100 + noise)
    ct[15:25, 15:25, 15:25] -= 10
    for spacing, kept in (((2.0, 2.0, 2.0), 0.35), ((4.0, 1.0, 1.0), 0.25)):
        contrast = liver_contrast(ct, 100.0, spacing).numpy() * CONTRAST_HU
        assert contrast[:10].std() < kept * 20
        assert contrast[18:22, 18:22, 18:22].mean() - contrast[:10].mean() == pytest.approx(-10, abs=2.5)
    impulse = torch.zeros(31, 31, 31)
    impulse[15, 15, 15] = 1
    got = blur(impulse, (2.0, 1.0, 0.0))
    assert torch.equal(got, got * (torch.arange(31) == 15))
    wanted = ndimage.gaussian_filter(impulse.numpy(), (2.0, 1.0, 0.0), truncate=2.5, mode="nearest")
    assert np.allclose(got.numpy(), wanted, atol=1e-3)


def test_channels_come_in_the_order_of_the_manifest():
    ct, prior = scan(60.0)
    turned = network_channels(("ct", "liver_contrast", "liver_probability"), WINDOW, ct, prior, SPACING)
    assert torch.equal(turned[[0, 2, 1]], network_channels(ALL, WINDOW, ct, prior, SPACING))


def test_the_density_is_the_parenchyma_s_and_a_usual_one_without_a_liver():
    ct, prior = scan(100.0)
    assert liver_density(ct, prior > 0.5) == 100
    assert liver_density(ct, prior > 0.95) == USUAL_LIVER_HU
    # A patch that a lesion fills still shows how dense the liver is.
    target = torch.zeros(ct.shape, dtype=torch.uint8)
    target[4:20, 4:20, 4:20] = 2
    target[4:10, 4:20, 4:20] = 1
    ct[10:20, 4:20, 4:20] = 40
    found = [density_in_patch(ct, target, prior, np.random.default_rng(seed)) for seed in range(30)]
    assert np.mean(found) == pytest.approx(100, abs=4) and 2 < np.std(found) < 9
    assert liver_density(ct, prior > 0.5) == 40


def test_a_network_with_the_contrast_is_fed_what_it_was_trained_on(tmp_path):
    """The engine's windows show what the training's samples show: the network's answer to either is the same."""
    arguments = {**TINY_UNET, "in_channels": 3, "out_channels": 3}
    save_model(tmp_path, "refine", arguments=arguments, inputs=ALL, patch_size=(24, 24, 24))
    model = load_manifest(tmp_path)
    ct, prior = scan(80.0)
    answer = NetworkPredictor(model, "cpu").predict(ct, prior, Grid((24, 24, 24), np.diag([2, 2, 2, 1.0])), Progress())
    network = load_network(model).eval()
    with torch.inference_mode():
        wanted = network(network_channels(ALL, WINDOW, ct, prior, SPACING)[None]).softmax(1)[0, 1:]
    assert torch.allclose(answer, wanted, atol=0.03)
    other = network_channels(ALL, WINDOW, ct, prior, SPACING)
    other[2] = 0
    with torch.inference_mode():
        assert not torch.allclose(network(other[None]).softmax(1)[0, 1:], wanted, atol=0.03)


def small(tmp_path, contrast: bool = True):
    """A configuration of a tiny network with the third channel."""
    path = tmp_path / "run.yaml"
    arguments = {**TINY_UNET, "in_channels": 2 + contrast, "out_channels": 3}
    path.write_text(
        "role: refine\nmodel: {id: tiny-refine, title: tiny}\n"
        f"network: {{architecture: UNet, arguments: {arguments}}}\n"
        f"grid: {{spacing_mm: [2, 2, 2], patch_size: [16, 16, 16], liver_contrast: {str(contrast).lower()}}}\n"
        "training: {steps: 100}\nvalidation: {every: 100}\n"
    )
    return load_run_config(path)


def test_a_model_learns_another_channel(tmp_path):
    save_model(tmp_path / "two", "refine")
    config = small(tmp_path)
    assert config.inputs == ALL and config.sample_spec().inputs == ALL and config.patch_spec().channels == 3
    module = SegmentationModule(config)
    fresh = {name: value.clone() for name, value in module.network.state_dict().items()}
    load_average(module, tmp_path / "two")
    old = load_network(load_manifest(tmp_path / "two")).state_dict()
    for network in (module.network, module.average):
        for name, value in network.state_dict().items():
            if value.shape == old[name].shape:
                assert torch.equal(value, old[name])
            else:
                assert torch.equal(value[:, :2], old[name]) and torch.equal(value[:, 2:], fresh[name][:, 2:] / 2)
                assert float(value[:, 2:].abs().max()) > 0
    save_model(tmp_path / "wide", "refine", arguments={**TINY_UNET, "in_channels": 3, "out_channels": 3}, inputs=ALL)
    with pytest.raises(InputError, match="same network"):
        load_average(SegmentationModule(small(tmp_path, contrast=False)), tmp_path / "wide")
    same = {"weight": torch.ones(2, 3)}
    assert torch.equal(widened(same, same)["weight"], same["weight"])


def test_a_locate_network_cannot_know_the_liver_s_density(tmp_path):
    path = tmp_path / "locate.yaml"
    small(tmp_path)
    text = (tmp_path / "run.yaml").read_text().replace("role: refine", "role: locate")
    path.write_text(text)
    with pytest.raises(SettingError, match="liver_contrast"):
        load_run_config(path)
    with pytest.raises(InputError, match="liver_probability"):
        dataclasses.replace(small(tmp_path).patch_spec(), inputs=("ct", "liver_contrast"))
