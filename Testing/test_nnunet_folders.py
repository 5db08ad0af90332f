"""How nnU-Net's folders are read: what is understood, and what is refused with which words."""

import json
import shutil

import numpy as np
import pytest
import torch
from LiverCascadeLib.cascade import Options, load_cascade
from LiverCascadeLib.errors import ModelError
from LiverCascadeLib.loading import StageOptions, load_stage
from LiverCascadeLib.models.stage_file import read_stage_file, sha256_of
from LiverCascadeLib.nnunet.checkpoint import folds_in, read_checkpoint
from LiverCascadeLib.nnunet.folder import guessed_structures, stage_file_for
from LiverCascadeLib.nnunet.plans import Resampling, read_plan
from LiverCascadeLib.nnunet.preprocessing import coarse_axis, resample_image, resampling_matrices
from LiverCascadeLib.nnunet.stage import NnUnetStage
from nnunet_folders import change, network_of, save_checkpoint, stage_of, write_model
from nnunet_reference import Kind
from scipy import ndimage

BASE = "configurations.base"
LAYERS = f"{BASE}.architecture.arch_kwargs"


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "Dataset901_Livers" / "nnUNetTrainer__nnUNetPlans__3d_fullres")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{BASE}.previous_stage": "3d_lowres"}, "second step of nnU-Net's own cascade"),
        ({f"{BASE}.patch_size": [64, 64]}, "single slices"),
        ({f"{BASE}.preprocessor_name": "ResEncPreprocessor"}, "ResEncPreprocessor"),
        ({f"{BASE}.normalization_schemes": ["RGBTo01Normalization"]}, "RGBTo01Normalization"),
        ({f"{BASE}.resampling_fn_data": "resample_torch_fornnunet"}, "resample_torch_fornnunet"),
        ({f"{BASE}.resampling_fn_probabilities": "no_resampling_hack"}, "no_resampling_hack"),
        ({f"{BASE}.architecture.network_class_name": "somewhere.Primus"}, "Primus"),
        ({f"{LAYERS}.norm_op": "torch.nn.modules.normalization.GroupNorm"}, "GroupNorm"),
        ({f"{LAYERS}.nonlin": "torch.nn.GELU"}, "GELU"),
        ({f"{LAYERS}.nonlin_kwargs": {"negative_slope": 0.2}}, "slope 0.2"),
        ({f"{LAYERS}.nonlin_first": True}, "nonlin_first"),
        ({f"{LAYERS}.strides": [[1, 1, 1], [2, 2, 2]]}, "3 stages"),
        ({"transpose_forward": [0, 0, 1]}, "transpose_forward"),
        ({"configurations.3d_fullres.inherits_from": "3d_fullres"}, "inherits from itself"),
        ({"configurations.3d_fullres.inherits_from": "3d_lost"}, "no configuration '3d_lost'"),
        ({f"{BASE}.spacing": None}, "not as nnU-Net v2 writes it"),
    ],
)
def test_a_plan_that_is_not_run_here_is_refused_with_the_reason(model, changes, words):
    change(model / "plans.json", **changes)
    with pytest.raises(ModelError, match=words) as caught:
        read_plan(model, "3d_fullres")
    assert str(model) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_names": {"0": "CT", "1": "PET"}}, "2 input channels"),
        ({"labels": {"background": 0, "liver": 1, "tumor": 3}}, "expected 1, 2"),
        ({"labels": {"background": 0, "liver": [1, 2], "tumor": 2}}, "regions_class_order"),
    ],
)
def test_a_data_set_that_is_not_understood_is_refused_with_the_reason(model, changes, words):
    change(model / "dataset.json", **changes)
    with pytest.raises(ModelError, match=words):
        read_plan(model, "3d_fullres")


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_missing_and_damaged_descriptions_are_sentences(model, name):
    (model / name).write_text("{")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        read_plan(model, "3d_fullres")
    (model / name).write_text("[]")
    with pytest.raises(ModelError, match="expected a JSON object"):
        read_plan(model, "3d_fullres")
    (model / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        read_plan(model, "3d_fullres")


class Harmful:
    """Would run something when it is unpickled."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_a_checkpoint_that_would_run_something_is_not_opened(model, capsys):
    path = save_checkpoint(model, {"network_weights": {}, "logging": Harmful()})
    with pytest.raises(ModelError, match="can run programs"):
        read_checkpoint(path)
    assert "never" not in capsys.readouterr().out


def test_numbers_of_numpy_in_a_checkpoint_are_let_in(model):
    weights = network_of(model).state_dict()
    more = {"_best_ema": np.float64(0.9), "logging": {"losses": [np.float32(1), np.int64(3)], "on": np.bool_(True)}}
    read = read_checkpoint(save_checkpoint(model, {"network_weights": weights, **more}))
    assert read.weights.keys() == weights.keys()
    assert read.configuration == "3d_fullres"


def test_damaged_and_foreign_checkpoints_are_sentences(model):
    path = model / "fold_0" / "checkpoint_final.pth"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is damaged"):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ModelError, match="no checkpoint of nnU-Net"):
        read_checkpoint(path)
    path.unlink()
    with pytest.raises(ModelError, match="is missing"):
        read_checkpoint(path)
    with pytest.raises(ModelError, match="holds no fold"):
        folds_in(model, "checkpoint_final.pth")


def test_weights_of_another_network_are_refused(model):
    change(model / "plans.json", **{f"{LAYERS}.features_per_stage": [8, 16, 48]})
    with pytest.raises(ModelError, match="not those of the network that its plans describe"):
        NnUnetStage(stage_file_for(model, "refine"))


def test_names_that_compiled_networks_and_decoders_add_are_understood(model):
    weights = network_of(model).state_dict()
    noisy = {f"_orig_mod.{name}": tensor for name, tensor in weights.items()}
    noisy |= {f"_orig_mod.decoder.{name}": t for name, t in weights.items() if name.startswith("encoder.")}
    noisy["_orig_mod.decoder.seg_layers.0.weight"] = torch.zeros(3, 16, 1, 1, 1)
    save_checkpoint(model, {"network_weights": noisy})
    stage = NnUnetStage(stage_file_for(model, "refine"))
    assert all(torch.equal(weights[name], tensor) for name, tensor in stage._network.state_dict().items())


def test_folds_are_all_numbered_ones_or_those_that_are_wanted(model):
    for fold in (1, "all"):
        save_checkpoint(model, {"network_weights": network_of(model).state_dict()}, fold)
    name = "checkpoint_final.pth"
    assert [path.parent.name for path in folds_in(model, name)] == ["fold_0", "fold_1"]
    assert [path.parent.name for path in folds_in(model, name, ["all"])] == ["fold_all"]
    with pytest.raises(ModelError, match="fold 7; there is 0, 1, all"):
        folds_in(model, name, [7])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"background": 0, "liver": 1, "tumor": 2}, {"liver": (1,), "lesion": (2,)}),
        ({"background": 0, "spleen": 1, "Liver": 2}, {"liver": (2,)}),
        ({"background": 0, "liver_vessels": 1, "liver_tumor": 2}, {"vessel": (1,), "lesion": (2,)}),
        ({"background": 0, "liver_segment_1": 1, "liver_segment_2": 2}, {"couinaud_1": (1,), "couinaud_2": (2,)}),
        ({"background": 0, "whole liver": [1, 2], "cancer": 2}, {"liver": (1,), "lesion": (2,)}),
    ],
)
def test_structures_are_guessed_from_the_names_of_the_labels(model, labels, expected):
    change(model / "dataset.json", labels=labels)
    assert guessed_structures(model) == expected


def test_labels_without_a_liver_are_refused_and_what_to_do_is_said(model):
    change(model / "dataset.json", labels={"background": 0, "kidney": 1, "spleen": 2})
    with pytest.raises(ModelError, match=r"kidney, spleen.*--structure liver=1"):
        stage_file_for(model, "refine")


def test_a_label_that_the_model_does_not_have_is_refused(model):
    with pytest.raises(ModelError, match="no label 9 for 'liver'"):
        NnUnetStage(stage_of(model, {"liver": (9,)}))


def test_an_installed_model_whose_file_was_exchanged_is_not_loaded(model):
    name = "fold_0/checkpoint_final.pth"
    stage = stage_of(model, {"liver": (1,)}, files_sha256={name: sha256_of(model / name)})
    stage.save()
    assert read_stage_file(model) == stage
    NnUnetStage(read_stage_file(model))
    save_checkpoint(model, {"network_weights": {}})
    with pytest.raises(ModelError, match="damaged or was exchanged"):
        NnUnetStage(read_stage_file(model))
    (model / name).unlink()
    with pytest.raises(ModelError, match="is not whole"):
        NnUnetStage(read_stage_file(model))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 9}, "schema_version is 9"),
        ({"format": "pickle"}, "format is 'pickle'"),
        ({"model": "../elsewhere"}, "a path below this folder"),
        ({"structures": {"kidney": [1]}}, "structures"),
        ({"structures": {"liver": [True]}}, "structures"),
        ({"orientation": "SAR"}, "one of RAS, LPS, stored"),
        ({"margin_mm": -1}, "margin_mm is -1"),
        ({"folds": []}, "folds"),
        ({"files_sha256": {"/etc/passwd": "0" * 64}}, "files_sha256"),
        ({"surprise": 1}, "surprise is not a known field"),
    ],
)
def test_a_stage_file_that_is_not_valid_is_refused_by_field(model, changes, words):
    stage_of(model, {"liver": (1,)}).save()
    change(model / "stage.json", **changes)
    with pytest.raises(ModelError, match=words):
        read_stage_file(model)


def test_an_exported_folder_is_a_stage_without_a_word_about_it(model):
    stage = load_stage(model.parent, "refine", StageOptions())
    assert isinstance(stage, NnUnetStage)
    assert stage.manifest.id == "Dataset901_Livers"
    with pytest.raises(ModelError, match="There is no model at"):
        load_stage(model.parent.parent / "nowhere", "refine", StageOptions())


def test_a_cascade_file_names_one_locate_and_several_refine_models(model, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(model, tmp_path / name)
    names = {"schema_version": 1, "title": "Both", "locate": "one", "refine": ["two", str(model)]}
    (tmp_path / "cascade.json").write_text(json.dumps(names))
    cascade = load_cascade(tmp_path, Options(device="cpu", faithful=True))
    assert len(cascade.stages) == 3 and all(stage.faithful for stage in cascade.stages)
    assert load_cascade(tmp_path / "cascade.json", Options(device="cpu")).margin_mm == 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected a JSON object"),
        ('{"schema_version": 1, "refine": []}', "locate is None.*refine is"),
        ('{"schema_version": 2, "locate": "a", "refine": ["b"]}', "schema_version is 2"),
    ],
)
def test_a_cascade_file_that_is_not_valid_is_a_sentence(tmp_path, content, words):
    (tmp_path / "cascade.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        load_cascade(tmp_path, Options(device="cpu"))


@pytest.mark.parametrize("wanted", [(30, 25, 40), (11, 25, 17), (20, 25, 30)])
def test_matrices_resample_as_scipys_zoom_does(wanted):
    image = np.random.default_rng(0).normal(size=(20, 25, 30)).astype(np.float32)
    spacing, new = (1.0, 1.0, 1.0), tuple(n / m for n, m in zip(image.shape, wanted, strict=True))
    matrices = resampling_matrices(image.shape, wanted, spacing, new, Resampling(3, 0, False))
    zoom = [m / n for n, m in zip(image.shape, wanted, strict=True)]
    expected = ndimage.zoom(image.astype(float), zoom, order=3, mode="nearest", grid_mode=True)
    found = resample_image(torch.from_numpy(image), matrices).numpy()
    assert np.allclose(found, expected.clip(image.min(), image.max()), atol=1e-5)


@pytest.mark.parametrize(
    ("spacing", "wanted", "separate", "axis"),
    [
        ((5.0, 1.0, 1.0), (5.0, 1.0, 1.0), None, 0),
        ((1.0, 1.0, 5.0), (1.0, 1.0, 1.0), None, 2),
        ((1.0, 1.0, 1.0), (4.0, 1.0, 1.0), None, 0),
        ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None, None),
        ((5.0, 5.0, 1.0), (1.0, 1.0, 1.0), None, None),
        ((5.0, 1.0, 1.0), (1.0, 1.0, 1.0), False, None),
        ((2.0, 1.0, 1.0), (1.0, 1.0, 1.0), True, 0),
    ],
)
def test_one_much_coarser_axis_is_resampled_apart(spacing, wanted, separate, axis):
    assert coarse_axis(spacing, wanted, separate) == axis


def test_a_kind_of_plans_from_before_2024_gives_the_same_network(tmp_path):
    new, old = (write_model(tmp_path / str(k), Kind(old_plans=k)) for k in (False, True))
    assert read_plan(new, "3d_fullres").arguments == read_plan(old, "3d_fullres").arguments
