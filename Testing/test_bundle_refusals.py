"""Bundles and TorchScript models that are not run, each with the reason; nothing of them is run to find out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_models import FORMS, configuration, metadata
from LiverCascadeLib.bundles.deducing import deduced_stage
from LiverCascadeLib.bundles.reading import read_bundle
from LiverCascadeLib.bundles.settings import read_settings
from LiverCascadeLib.bundles.stage import BundleStage
from LiverCascadeLib.errors import LiverCascadeError, ModelError
from LiverCascadeLib.loading import StageOptions, load_stage
from LiverCascadeLib.models import build_network, sha256_of
from LiverCascadeLib.models.stage_file import StageFile

Change = Callable[[dict[str, Any]], object]


def write(folder: Path, config: dict[str, Any], data: dict[str, Any] | None = None, form: str = "organ") -> Path:
    """A bundle without weights."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata(FORMS[form]) if data is None else data))
    return folder


def transform(config: dict[str, Any], name: str, place: str = "preprocessing") -> dict[str, Any]:
    return next(step for step in config[place]["transforms"] if step["_target_"] == name)


def put(place: str, **values: Any) -> Change:
    """Sets arguments of a component: of a transform by its class, else by id."""

    def change(config: dict[str, Any]) -> None:
        if place in config:
            config[place].update(values)
        else:
            where = (
                "preprocessing" if any(s["_target_"] == place for s in config["preprocessing"]["transforms"]) else ""
            )
            transform(config, place, where or "postprocessing").update(values)

    return change


def insert(step: dict[str, Any], place: str = "preprocessing", at: int = 99) -> Change:
    return lambda config: config[place]["transforms"].insert(at, {"keys": "image", **step})


def without(name: str, place: str) -> Change:
    return lambda config: config[place]["transforms"].remove(transform(config, name, place))


REFUSED: dict[str, tuple[Change, str]] = {
    "an expression where a spacing is needed": (
        put("Spacingd", pixdim="$[float(s) for s in (1.5, 1.5, 2)]"),
        r"preprocessing#transforms#4#pixdim is '\$\[float.*a program, not a value",
    ),
    "an expression as an argument of the network": (
        put("network_def", channels="$__import__('os').getcwd()"),
        "network_def#channels is .*a program",
    ),
    "an expression that is a reference": (put("inferer", overlap="$@share"), "inferer#overlap is .*a program"),
    "a macro": (put("inferer", overlap="%share"), "inferer#overlap is .*a program"),
    "a reference to nothing": (put("inferer", overlap="@share"), "refers to 'share', which it does not have"),
    "a reference that goes round": (
        lambda c: (c.update(one="@two", two="@one"), put("inferer", overlap="@one")(c)),
        "inferer#overlap refers to itself",
    ),
    "a choice by something that is no switch": (
        put("Spacingd", pixdim="$[1, 1, 1] if @image_key else [2, 2, 2]"),
        "depends on 'image_key', which is 'image', expected true or false",
    ),
    "an unknown transform": (insert({"_target_": "RandFlipd"}), "'RandFlipd'.*which is not covered here; known are"),
    "a transform of a program": (insert({"_target_": "Lambdad", "func": "$lambda x: x"}), "'Lambdad'.*not covered"),
    "a transform of the bundle's own": (
        insert({"_target_": "scripts.transforms.Spacingd", "pixdim": [1, 1, 1]}),
        "'scripts.transforms.Spacingd': code of the bundle's own or of another package, which is never run",
    ),
    "an unknown argument of a transform": (put("Spacingd", spline=3), r"'spline' = 3, which is not covered here"),
    "a spline": (put("Spacingd", mode=3), "mode = 3, and only 'bilinear'"),
    "a diagonal grid": (put("Spacingd", diagonal=True), "diagonal = True, and only False"),
    "another orientation": (put("Orientationd", axcodes="PLI"), "axcodes = 'PLI', and only 'RAS' or 'LPS'"),
    "turning after resampling": (
        insert({"_target_": "Orientationd", "axcodes": "RAS"}), "Orientationd comes after its Spacingd",
    ),
    "a coarse type of numbers": (
        insert({"_target_": "CastToTyped", "dtype": "$torch.uint8"}), r"dtype = '\$torch.uint8', and only float32",
    ),
    "a range the wrong way round": (put("ScaleIntensityRanged", a_min=300), "goes from 300 to 164"),
    "a box by another rule": (
        insert({"_target_": "CropForegroundd", "source_key": "image", "margin": 5}), "margin = 5, and only 0",
    ),
    "values changed after a box": (
        lambda c: (
            insert({"_target_": "CropForegroundd", "source_key": "image"}, at=5)(c)
        ),
        "CropForegroundd comes before the values are changed",
    ),
    "no image": (without("LoadImaged", "preprocessing"), "has no LoadImaged"),
    "an unknown network": (put("network_def", _target_="UNesT"), "its network is 'UNesT'; known are"),
    "a network for classes": (put("network_def", _target_="ResNet"), "its network is 'ResNet'; known are"),
    "a network of the bundle's own": (
        put("network_def", _target_="scripts.unest.UNet"), "'scripts.unest.UNet': code of the bundle's own",
    ),
    "a network that a program changes": (
        lambda c: c.update(network="$change(@network_def)"), "its network is .*a program that may change it",
    ),
    "two input channels of the network": (put("network_def", in_channels=2), "in_channels = 2, expected 1"),
    "other output channels of the network": (put("network_def", out_channels=5), "out_channels = 5, expected 3"),
    "a network for slices": (put("network_def", spatial_dims=2), "spatial_dims = 2, expected 3"),
    "an unknown inferer": (put("inferer", _target_="SimpleInferer"), "'SimpleInferer', and only SlidingWindowInferer"),
    "an inferer of the bundle's own": (put("inferer", _target_="scripts.SlidingWindowInferer"), "code of the bundle"),
    "an unknown argument of the inferer": (put("inferer", extra=1), "'extra' = 1"),
    "an overlap of everything": (put("inferer", overlap=1.0), r"overlap is \[1.0, 1.0, 1.0\]"),
    "a window of no size": (put("inferer", roi_size=[32, 32, -1]), "roi_size is"),
    "another padding": (put("inferer", padding_mode="circular"), "padding_mode = 'circular', and only 'constant'"),
    "an unknown step afterwards": (
        insert({"_target_": "KeepLargestConnectedComponentd"}, "postprocessing"), "may change the labels",
    ),
    "a program afterwards": (put("Invertd", post_func="$lambda x: x"), "post_func is .*a program"),
    "no decision": (without("AsDiscreted", "postprocessing"), "does not say whether labels are an argmax"),
    "a softmax with a threshold": (
        put("AsDiscreted", argmax=False, threshold=0.5), "joins softmax with a threshold of 0.5",
    ),
    "another evaluator": (put("evaluator", _target_="scripts.Evaluator"), "only SupervisedEvaluator is covered"),
    "an evaluator with another network": (put("evaluator", network="@other"), "'@other', expected '@network'"),
    "an evaluator with a step of its own": (put("evaluator", iteration_update="$f"), "'iteration_update'"),
    "weights outside the bundle": (
        put("checkpointloader", load_path="$@bundle_root + '/../../secret.pt'"), "not a path below the bundle",
    ),
    "weights at an absolute path": (put("checkpointloader", load_path="C:/model.pt"), "not a path below the bundle"),
    "weights at a path that a program makes": (
        put("checkpointloader", load_path="$os.path.join(@bundle_root, 'm.pt')"), "load_path is .*a program",
    ),
    "no preprocessing": (lambda c: c.pop("preprocessing"), "has no 'preprocessing'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_is_refused_with_the_reason(name, tmp_path):
    change, reason = REFUSED[name]
    config = configuration(FORMS["organ"])
    change(config)
    with pytest.raises(ModelError, match=reason) as caught:
        read_bundle(write(tmp_path, config))
    assert "cannot be run here" in str(caught.value)


def test_the_same_bundles_unchanged_are_read(tmp_path):
    for number, form in enumerate(FORMS.values()):
        config = configuration(form)
        folder = write(tmp_path / str(number), config, metadata(form))
        described = read_bundle(folder)
        assert described.plan.outputs == len(form.names) and described.network.weights == "models/model.pt"


def test_what_is_not_needed_to_run_the_network_is_not_looked_at(tmp_path):
    marker = tmp_path / "ran"
    program = f"$open({str(marker)!r}, 'w')"
    config = {**configuration(FORMS["organ"]), "imports": [program], "initialize": [program], "datalist": program}
    config["postprocessing"]["transforms"][-1]["output_dir"] = program
    read_bundle(write(tmp_path, config))
    assert not marker.exists()


def test_a_step_that_is_switched_off_is_passed_over(tmp_path):
    config = configuration(FORMS["organ"])
    insert({"_target_": "RandFlipd", "_disabled_": True})(config)
    assert read_bundle(write(tmp_path, config)).plan.after


def test_a_step_for_something_else_than_the_image_is_passed_over(tmp_path):
    config = configuration(FORMS["organ"])
    config["preprocessing"]["transforms"].append({**transform(config, "Spacingd"), "keys": "label"})
    assert read_bundle(write(tmp_path, config)).plan.spacing == (2.5, 2.5, 3.0)


def changed_metadata(*path: str, value: Any) -> dict[str, Any]:
    data = metadata(FORMS["organ"])
    node = data["network_data_format"]
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (changed_metadata("inputs", "image", "num_channels", value=4), "wants 4 input channels"),
        (changed_metadata("inputs", "image", "modality", value="MR"), "it is for MR, and not for CT"),
        (changed_metadata("inputs", "image", "spatial_shape", value=[96, 96]), "single slices"),
        (changed_metadata("inputs", "second", value={}), "2 inputs and 1 outputs"),
        ({"version": "1"}, "not as MONAI writes it"),
    ],
)
def test_metadata_of_another_kind_of_network_is_refused(data, reason, tmp_path):
    with pytest.raises(ModelError, match=reason):
        read_bundle(write(tmp_path, configuration(FORMS["organ"]), data))


@pytest.mark.parametrize("name", ["metadata.json", "inference.json"])
def test_a_file_that_is_missing_or_damaged_is_named(name, tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    path = folder / "configs" / name
    for damage in ("{", "[]", b"\xff"):
        path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
        with pytest.raises(ModelError, match=name):
            read_bundle(folder)
    path.unlink()
    with pytest.raises(ModelError, match=f"configs/{name} is missing"):
        read_bundle(folder)


def test_a_configuration_in_yaml_asks_for_json(tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    (folder / "configs" / "inference.json").rename(folder / "configs" / "inference.yaml")
    with pytest.raises(ModelError, match=r"inference.yaml is written in YAML.*Write the same content as"):
        read_bundle(folder)


def stage_of(folder: Path) -> BundleStage:
    return load_stage(folder, "refine", StageOptions())


def test_weights_that_are_missing_are_named(tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    with pytest.raises(ModelError, match=r"weights of the model .* are missing: expected .*model.pt"):
        stage_of(folder)


class Program:
    """What a hostile checkpoint holds."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("old_format", [False, True])
def test_weights_that_would_run_a_program_are_not_opened(old_format, tmp_path):
    folder, marker = write(tmp_path, configuration(FORMS["organ"])), tmp_path / "ran"
    path = folder / "models" / "model.pt"
    torch.save({"model": Program(marker)}, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(ModelError, match="holds more than numbers and texts, and is not opened"):
        stage_of(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is damaged"), (b"PK\x03\x04 and no more", "is damaged")],
)
def test_weights_that_are_cut_off_are_damaged(content, reason, tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    (folder / "models" / "model.pt").write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        stage_of(folder)


def test_weights_of_another_network_are_refused(tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    path = folder / "models" / "model.pt"
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    with pytest.raises(ModelError, match="are not those of the UNet that the bundle describes"):
        stage_of(folder)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds no weights"):
        stage_of(folder)


def organ_network() -> torch.nn.Module:
    arguments = {name: value for name, value in FORMS["organ"].network.items() if name != "_target_"}
    return build_network("UNet", arguments)


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_are_found_alone_and_under_their_key(wrapped, tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    weights = organ_network().state_dict()
    torch.save({"model": weights} if wrapped else weights, folder / "models" / "model.pt")
    assert stage_of(folder).manifest.architecture == "UNet"


def test_weights_that_a_link_leads_elsewhere_are_refused(tmp_path):
    folder = write(tmp_path / "bundle", configuration(FORMS["organ"]))
    torch.save(organ_network().state_dict(), tmp_path / "elsewhere.pt")
    (folder / "models" / "model.pt").symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(ModelError, match="lie outside its folder"):
        stage_of(folder)


def test_weights_that_were_exchanged_are_refused(tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    path = folder / "models" / "model.pt"
    torch.save(organ_network().state_dict(), path)
    dataclasses.replace(deduced_stage(folder, "refine"), files_sha256={"models/model.pt": sha256_of(path)}).save()
    stage_of(folder)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ModelError, match="not the one that was installed"):
        stage_of(folder)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"overrides": {"nothing": 1}}, "overrides 'nothing', which its configuration does not have"),
        ({"overrides": {"image_key": "$evil()"}}, "only plain values are taken"),
        ({"spacing_mm": [1, 1, 1]}, "may hold 'overrides', values by id, and nothing else"),
    ],
)
def test_overrides_are_plain_values_of_what_there_is(settings, reason, tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    dataclasses.replace(deduced_stage(folder, "refine"), settings=settings).save()
    with pytest.raises(ModelError, match=reason):
        stage_of(folder)


def test_a_label_that_the_model_does_not_have_is_refused_with_those_that_it_has(tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    dataclasses.replace(deduced_stage(folder, "refine"), structures={"liver": (7,)}).save()
    torch.save(organ_network().state_dict(), folder / "models" / "model.pt")
    with pytest.raises(ModelError, match=r"no label 7 for 'liver'; its last is 2. It has .*liver = 1, tumor = 2"):
        stage_of(folder)


def test_a_bundle_of_other_organs_asks_for_a_stage_file(tmp_path):
    data = metadata(FORMS["organ"])
    data["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "background", "1": "spleen", "2": "tumor"}
    with pytest.raises(ModelError, match=r"does not say which label is the liver.*spleen.*Write a stage.json"):
        deduced_stage(write(tmp_path, configuration(FORMS["organ"]), data), "refine")


SETTINGS = {
    "spacing_mm": [2.5, 2.5, 3.0],
    "patch_size": [16, 16, 16],
    "intensity": {"clip": [-200, 300], "mean": 50.0, "std": 80.0},
    "outputs": ["background", "liver", "tumor"],
    "activation": "softmax",
}


def scripted(folder: Path, module: torch.nn.Module, **changes: Any) -> Path:
    """A folder with a TorchScript file and its ``stage.json``."""
    folder.mkdir(exist_ok=True)
    torch.jit.script(module).save(str(folder / "model.ts"))
    values = {
        "format": "torchscript", "id": "scripted", "role": "refine", "title": "scripted", "model": "model.ts",
        "structures": {"liver": (1,)}, "orientation": "RAS", "settings": SETTINGS,
        "files_sha256": {"model.ts": sha256_of(folder / "model.ts")}, "folder": folder,
    }  # fmt: skip
    StageFile(**{**values, **changes}).save()
    return folder


class Bright(torch.nn.Module):
    """Three outputs, by nothing but the values."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.cat([-windows, windows, windows * 2 - 3], dim=1)


class Small(torch.nn.Module):
    """Answers at half the resolution."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, :, ::2]


class Two(torch.nn.Module):
    """Gives a list."""

    def forward(self, windows: torch.Tensor) -> list[torch.Tensor]:
        return [windows, windows]


def test_torchscript_without_a_digest_is_not_opened(tmp_path):
    folder = scripted(tmp_path, Bright(), files_sha256={})
    with pytest.raises(ModelError, match=r"is TorchScript, which is a program.*names the file in files_sha256"):
        stage_of(folder)


def test_torchscript_in_a_bundle_without_a_digest_is_not_opened(tmp_path):
    folder = write(tmp_path, configuration(FORMS["organ"]))
    torch.jit.script(Bright()).save(str(folder / "models" / "model.ts"))
    with pytest.raises(ModelError, match="is TorchScript, which is a program"):
        stage_of(folder)


def test_what_is_no_torchscript_is_damaged(tmp_path):
    folder = scripted(tmp_path, Bright())
    (folder / "model.ts").write_bytes(b"no program")
    content = json.loads((folder / "stage.json").read_text())
    content["files_sha256"]["model.ts"] = sha256_of(folder / "model.ts")
    (folder / "stage.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="cannot be opened as TorchScript"):
        stage_of(folder)


@pytest.mark.parametrize("module", [Small, Two])
def test_a_network_that_answers_otherwise_than_it_says_is_named(module, tmp_path):
    import numpy as np
    from LiverCascadeLib.geometry import Grid
    from LiverCascadeLib.volume import Volume

    stage = stage_of(scripted(tmp_path, module()))
    volume = Volume(np.zeros((20, 20, 20), np.int16), Grid((20, 20, 20), np.diag([2.5, 2.5, 3.0, 1.0])))
    with pytest.raises(ModelError, match=r"answers windows of shape .*expected"):
        stage.labels(volume)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spacing_mm": [1, 0, 1]}, "spacing_mm is .*three numbers of mm above 0"),
        ({"patch_size": [96, 96]}, "patch_size is .*three numbers of voxels"),
        ({"intensity": {"window": [300, -200]}}, "intensity is"),
        ({"intensity": {"clip": [-200, 300], "mean": 1, "std": 0}}, "intensity is"),
        ({"intensity": "$lambda x: x"}, "intensity is"),
        ({"outputs": []}, "outputs is .*a list of names"),
        ({"outputs": ["liver"]}, "a softmax needs two at least"),
        ({"activation": "relu"}, "activation is 'relu', expected 'softmax' or 'sigmoid'"),
        ({"overlap": 1}, "overlap is 1"),
        ({"mode": "linear"}, "mode is 'linear'"),
        ({"padding": "circular"}, "padding is 'circular'"),
        ({"padding_value": "air"}, "padding_value is 'air'"),
        ({"threshold": 2}, "threshold is 2"),
        ({"axis_order": "kij"}, "axis_order is 'kij'"),
        ({"half": 1}, "half is 1"),
        ({"extra": 1}, "extra is not a known field"),
    ],
)
def test_settings_that_are_not_possible_are_named(changes, reason, tmp_path):
    model = StageFile("torchscript", "x", "refine", "x", "x.ts", {"liver": (1,)}, settings={**SETTINGS, **changes})
    with pytest.raises(ModelError, match=reason):
        read_settings(model)


def test_settings_that_are_missing_are_named():
    with pytest.raises(ModelError, match=r"spacing_mm is missing; patch_size is missing; .*activation is missing"):
        read_settings(StageFile("torchscript", "x", "refine", "x", "x.ts", {"liver": (1,)}))


def test_a_model_of_another_role_is_refused(tmp_path):
    with pytest.raises(LiverCascadeError, match="role 'refine', expected 'locate'"):
        load_stage(scripted(tmp_path, Bright()), "locate", StageOptions())
