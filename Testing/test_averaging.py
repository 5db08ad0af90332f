"""The mean of several models' weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from LiverCascadeLib.errors import ModelError
from LiverCascadeLib.models import load_manifest, load_network
from LiverCascadeTrainingLib.cli import main
from LiverCascadeTrainingLib.training.averaging import average_models
from tiny_models import save_model


def weights(folder):
    return load_network(load_manifest(folder)).state_dict()


def test_the_mean_of_three_models_is_that_of_every_weight_and_names_them(tmp_path, capsys):
    folders = [tmp_path / name for name in ("first", "second", "third")]
    manifests = [save_model(folder, "refine", seed) for seed, folder in enumerate(folders)]
    figures = {"training_steps": 30, "cascade": {"ircadb_17": {"liver_dice": 0.9}}}
    dataclasses.replace(load_manifest(folders[2]), version="3", measured=figures).save(folders[2])
    assert main(["average", *map(str, folders), "--to", str(tmp_path / "mean")]) == 0
    assert "The mean of 3 models" in capsys.readouterr().out
    mean, parts = weights(tmp_path / "mean"), [weights(folder) for folder in folders]
    for name, tensor in mean.items():
        expected = torch.stack([part[name].float() for part in parts]).mean(dim=0)
        # Half precision has 11 bits.
        assert torch.allclose(tensor.float(), expected, rtol=1e-3, atol=1e-6)
    made = load_manifest(tmp_path / "mean")
    digests = [manifest.weights_sha256 for manifest in manifests]
    # Figures of other weights are not its own.
    assert made.version == "3" and made.measured == {"training_steps": 30, "mean_of": digests}
    card = (tmp_path / "mean" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"30 steps; the mean of the weights `{digests[0][:12]}`" in card


def test_models_that_differ_in_more_than_weights_are_refused(tmp_path, capsys):
    save_model(tmp_path / "one", "refine")
    save_model(tmp_path / "coarse", "refine", spacing_mm=(2.0, 2.0, 3.0))
    save_model(tmp_path / "other", "locate")
    with pytest.raises(ModelError, match=r"spacing_mm is .* in .*coarse"):
        average_models([tmp_path / "coarse", tmp_path / "one"], tmp_path / "mean")
    with pytest.raises(ModelError, match=r"role is 'refine' in .*one and 'locate'"):
        average_models([tmp_path / "one", tmp_path / "other"], tmp_path / "mean")
    with pytest.raises(ModelError, match="two models or more; 1 was named"):
        average_models([tmp_path / "one"], tmp_path / "mean")
    assert main(["average", str(tmp_path / "one"), str(tmp_path / "nowhere"), "--to", str(tmp_path / "mean")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()


def test_the_mean_does_not_replace_what_it_is_made_of(tmp_path):
    before = save_model(tmp_path / "one", "refine").weights_sha256
    save_model(tmp_path / "two", "refine", seed=1)
    with pytest.raises(ModelError, match="Choose another folder"):
        average_models([tmp_path / "one", tmp_path / "two"], tmp_path / "one")
    assert load_manifest(tmp_path / "one").weights_sha256 == before
