"""Manifests, networks and weights."""

import json

import pytest
import torch
from LiverCascadeLib.errors import MissingPackageError, ModelError
from LiverCascadeLib.models import ARCHITECTURES, build_network, load_manifest, load_network
from tiny_models import manifest, save_model


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path, "refine")
    return tmp_path


def rewrite(folder, **changes):
    content = json.loads((folder / "manifest.json").read_text())
    content.update(changes)
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_a_saved_manifest_reads_back_the_same(folder):
    read = load_manifest(folder)
    assert read == manifest("refine", weights_sha256=read.weights_sha256)
    assert load_manifest(folder / "manifest.json") == read


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"role": "guess"}, "role is 'guess', expected one of locate, refine"),
        ({"spacing_mm": [1, 1]}, "spacing_mm is"),
        ({"spacing_mm": [1, 0, 1]}, "three positive numbers"),
        ({"patch_size": [96, 96, 4]}, "at least 8 voxels"),
        ({"patch_size": [96.0, 96, 32]}, "whole numbers"),
        ({"window_hu": [250, -175]}, "two rising numbers"),
        ({"architecture": "os.system"}, "expected one of DynUNet"),
        ({"weights_file": "../weights.safetensors"}, "same folder"),
        ({"weights_file": "weights.pt"}, ".safetensors"),
        ({"weights_sha256": "abc"}, "64 hexadecimal digits"),
        ({"labels": {"background": 0, "liver": 2}}, "consecutive"),
        ({"labels": {"background": 0, "spleen": 1}}, "liver"),
        ({"inputs": ["liver_probability"]}, "begins with 'ct'"),
        ({"overlap": 1}, "overlap is 1"),
        ({"title": " "}, "a text"),
        ({"title": None}, "title is missing"),
        ({"colour": "red"}, "colour is not a known field"),
        ({"schema_version": 99}, "schema_version is 99"),
    ],
)
def test_an_invalid_manifest_is_refused_with_field_finding_and_expectation(folder, changes, words):
    rewrite(folder, **changes)
    with pytest.raises(ModelError, match="not valid") as error:
        load_manifest(folder)
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\x00\x01"])
def test_a_manifest_that_is_no_json_object_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelError):
        load_manifest(folder)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="no model at"):
        load_manifest(tmp_path / "nowhere" / "manifest.json")


def test_weights_read_back_the_same(folder):
    first, second = load_network(load_manifest(folder)), load_network(load_manifest(folder))
    x = torch.rand(1, 2, 16, 16, 16)
    assert torch.equal(first(x), second(x))
    assert not any(p.requires_grad for p in first.parameters())


def test_altered_weights_are_refused_before_they_are_used(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256"):
        load_network(load_manifest(folder))


def test_missing_weights_are_named(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match="missing"):
        load_network(load_manifest(folder))


def test_weights_of_another_architecture_are_refused(folder):
    content = json.loads((folder / "manifest.json").read_text())
    rewrite(folder, arguments={**content["arguments"], "channels": [8, 8]})
    with pytest.raises(ModelError, match="do not fit"):
        load_network(load_manifest(folder))


def test_unknown_architectures_and_arguments_are_refused():
    with pytest.raises(ModelError, match="allow-list"):
        build_network("Linear", {})
    with pytest.raises(ModelError, match="does not take depth"):
        build_network("UNet", {"depth": 3})
    with pytest.raises(ModelError, match="cannot be built"):
        build_network(
            "UNet", {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4], "strides": [2]}
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_listed_architecture_is_a_network(architecture):
    import importlib

    module, name = ARCHITECTURES[architecture]
    try:
        found = getattr(importlib.import_module(module), name)
    except MissingPackageError as error:
        pytest.skip(str(error))
    assert issubclass(found, torch.nn.Module)


def test_a_network_that_lists_its_tensors_twice_is_stored_once_and_reads_back_whole(tmp_path):
    arguments = {
        "spatial_dims": 3, "in_channels": 2, "out_channels": 3, "kernel_size": [3, 3, 3], "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2], "filters": [4, 8, 8],
    }  # fmt: skip
    saved = save_model(tmp_path, "refine", architecture="DynUNet", arguments=arguments)
    network = load_network(saved_manifest := load_manifest(tmp_path))
    torch.manual_seed(0)
    original = build_network("DynUNet", arguments)
    assert saved_manifest == saved
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), original.parameters(), strict=True))
    stored = (tmp_path / "weights.safetensors").stat().st_size
    assert stored < 4 * sum(p.numel() for p in original.parameters()) + 10_000
