"""MONAI bundles and TorchScript models as stages, against MONAI's own pipeline on the same weights and the same CT."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle_models import FORMS, Reference, configuration, monai_answer, save_bundle
from LiverCascadeLib.bundles.deducing import deduced_stage
from LiverCascadeLib.bundles.outputs import MOST_OUTPUTS
from LiverCascadeLib.bundles.stage import BundleStage
from LiverCascadeLib.geometry import Box
from LiverCascadeLib.loading import StageOptions, load_stage
from LiverCascadeLib.located import Located
from LiverCascadeLib.models import sha256_of
from LiverCascadeLib.models.stage_file import StageFile
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.stages import Wishes
from LiverCascadeLib.volume import Volume, read_volume

EXAMPLE = Path(__file__).resolve().parent.parent / "LiverCascade/Resources/SampleData/synthetic_abdomen.nii.gz"


def crop_of(path: Path, folder: Path, box: tuple[slice, slice, slice]) -> Path:
    """A part of a NIfTI file, as a file of its own."""
    folder.mkdir(exist_ok=True)
    nibabel.save(nibabel.load(path).slicer[box], folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    return crop_of(EXAMPLE, tmp_path_factory.mktemp("example"), (slice(40, 104), slice(40, 104), slice(16, 56)))


@pytest.fixture(scope="module", params=[name for name in FORMS if name != "transformer"])
def pair(request, example, tmp_path_factory) -> tuple[BundleStage, Reference, Volume]:
    """A bundle of each form as a stage, MONAI's own answer by way of probabilities, and the CT."""
    # Where labels are brought back by nearest voxels they have steps that probabilities do not have.
    form = dataclasses.replace(FORMS[request.param], nearest=False)
    folder = save_bundle(tmp_path_factory.mktemp("bundle"), form, example)
    stage = load_stage(folder, "refine", StageOptions(faithful=True))
    return stage, monai_answer(folder, example), read_volume(example)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    both = one.sum() + other.sum()
    return 2 * float((one & other).sum()) / float(both) if both else 1.0


def as_values(stage: BundleStage, reference: np.ndarray) -> np.ndarray:
    """MONAI's labels [k, j, i] as the stage writes them: of structures that overlap, the later one."""
    if reference.ndim == 4:
        labels = np.zeros(reference.shape[1:], np.uint8)
        for channel, part in enumerate(reference):
            labels[part > 0] = channel + 1
        reference = labels
    return reference.transpose(2, 1, 0)


def whole(volume: Volume) -> Box:
    return Box((0, 0, 0), volume.grid.size)


def test_the_network_sees_what_it_sees_in_monai(pair):
    stage, reference, volume = pair
    given = stage._input(volume, whole(volume))
    image = given.image.numpy()
    if stage.plan.crop_above_zero:
        found = Box.around(image > 0)
        image, grid = image[found.slices], given.grid.crop(found)
    else:
        grid = given.grid
    assert image.shape == reference.image.shape
    spread = reference.image.max() - reference.image.min()
    assert np.abs(image - reference.image).max() < 1e-4 * spread
    # The array runs along i, j, k, which the grid calls k, j, i.
    assert np.allclose(grid.ijk_to_ras[:3, [2, 1, 0, 3]], reference.affine[:3], atol=1e-3)


def test_labels_on_the_networks_own_grid_are_monais(pair):
    stage, reference, volume = pair
    given = stage._input(volume, whole(volume))
    shares = stage._shares(given.image, None, Progress())
    labels = stage._outputs.decided(shares).numpy()
    if stage.plan.crop_above_zero:
        labels = labels[Box.around((given.image > 0).numpy()).slices]
    if stage.plan.softmax:
        expected = reference.logits.argmax(dim=0).numpy()
    else:
        expected = np.zeros(labels.shape, np.int64)
        for channel, part in enumerate(torch.sigmoid(reference.logits).numpy()):
            expected[part >= 0.5] = channel + 1
    expected = np.where(np.isin(expected, list(stage._outputs.names)), expected, 0)
    labels = np.where(np.isin(labels, list(stage._outputs.names)), labels, 0)
    assert len(np.unique(expected)) > 1
    assert (labels == expected).mean() >= 0.999


def test_labels_on_the_input_are_monais(pair):
    stage, reference, volume = pair
    labels, expected = stage.labels(volume), as_values(stage, reference.labels)
    assert labels.shape == expected.shape == volume.grid.shape
    for value in stage._outputs.names:
        assert (expected == value).any(), value
        assert dice(labels == value, expected == value) >= 0.995, value


def test_a_transformer_of_an_older_monai_gives_what_todays_gives(example, tmp_path):
    folder = save_bundle(tmp_path, FORMS["transformer"])
    stage = load_stage(folder, "refine", StageOptions(faithful=True))
    volume = read_volume(example)
    shares = stage._shares(stage._input(volume, whole(volume)).image, None, Progress())
    expected = torch.softmax(monai_answer(folder, example).logits, dim=0)
    assert float((shares - expected).abs().max()) < 1e-3


def test_of_many_outputs_only_those_asked_for_are_kept(example, tmp_path):
    folder = save_bundle(tmp_path, FORMS["whole body"])
    stage = load_stage(folder, "locate", StageOptions())
    assert stage.plan.outputs == 18 > MOST_OUTPUTS
    volume = read_volume(example)
    shares = stage._shares(stage._input(volume, whole(volume)).image, None, Progress())
    assert len(shares) == 3


def test_overrides_take_the_other_resolution(example, tmp_path):
    folder = save_bundle(tmp_path, FORMS["whole body"])
    (folder / "models" / "model.pt").rename(folder / "models" / "model_lowres.pt")
    model = dataclasses.replace(
        deduced_stage(folder, "locate"), settings={"overrides": {"displayable_configs#highres": False}}
    )
    model.save()
    stage = load_stage(folder, "locate", StageOptions())
    assert stage.manifest.spacing_mm == (6.0, 6.0, 6.0)
    probability, grid = stage.locate(read_volume(example), Progress())
    assert probability.shape == grid.shape and 0 <= float(probability.min()) <= float(probability.max()) <= 1


def located_in(volume: Volume, where: Box) -> Located:
    """A liver that fills a box of the volume's own grid."""
    mask = np.zeros(volume.grid.shape, bool)
    mask[where.slices] = True
    return Located(torch.from_numpy(mask).float(), mask, volume.grid, where)


def test_far_from_the_located_liver_nothing_is_computed_and_nothing_drawn(pair):
    stage, _, volume = pair
    liver = Box((2, 2, 2), (6, 6, 4))
    located = located_in(volume, liver)
    stage.forget()
    labels, everything = stage.labels(volume), stage.windows
    stage.forget()
    answer = stage.refine(volume, whole(volume), located, Wishes(entropy=True), Progress())
    assert 0 < stage.windows < everything
    near = located.near(stage.manifest.margin_mm).numpy()
    assert answer.classes[near].any() == np.isin(labels[near], list(stage._outputs.names)).any()
    assert not answer.classes[~near].any()
    assert answer.classes.shape == answer.entropy.shape == volume.grid.shape
    assert answer.has("lesion") == (answer.lesion is not None)
    if answer.lesion is not None:
        assert len(answer.lesion_doubt) == int(answer.mask_of("lesion").sum())


@pytest.mark.parametrize("pair", ["whole body"], indirect=True)
def test_in_a_box_values_are_scaled_by_the_whole_scan(pair):
    stage, _, volume = pair
    box = Box((12, 10, 6), (50, 60, 36))
    inside = stage._input(volume, box)
    everything = stage._input(volume, whole(volume))
    # The box begins on another voxel, so that both grids differ; the air around them and the mean agree.
    part = everything.grid.box_covering(box, volume.grid)
    assert abs(float(inside.image.mean()) - float(everything.image[part.slices].mean())) < 0.03


@pytest.mark.parametrize("pair", ["whole body", "organ", "overlapping"], indirect=True)
def test_locate_gives_the_probability_that_monai_gives(pair):
    stage, reference, volume = pair
    probability, _ = stage.locate(volume, Progress())
    if stage.plan.softmax:
        expected = torch.softmax(reference.logits, dim=0)[list(stage._outputs.names)].sum(dim=0)
    else:
        expected = torch.sigmoid(reference.logits).amax(dim=0)
    close = (probability - expected).abs()
    assert float(close.mean()) < 0.005 and float((close < 0.05).float().mean()) > 0.98


def test_memory_that_runs_out_does_not_change_the_labels(pair, monkeypatch):
    stage, _, volume = pair
    expected = stage.labels(volume)
    network, calls = stage._network, []

    class Tight(torch.nn.Module):
        def forward(self, windows):
            calls.append(len(windows))
            if len(windows) > 1:
                raise MemoryError("no room")
            return network(windows)

    monkeypatch.setattr(stage, "_network", Tight())
    monkeypatch.setattr(stage.ladder, "batch", 2)
    assert np.array_equal(stage.labels(volume), expected)
    assert calls[0] == 2 and set(calls[1:]) == {1}
    assert [finding.code for finding in stage.findings] == ["out-of-memory"]
    stage.forget()


@pytest.mark.parametrize("form", ["organ", "whole body"])
def test_a_real_ct_gets_monais_labels(form, shared_data, tmp_path):
    image = crop_of(
        shared_data("chaos_03/ct.nii.gz"), tmp_path / "ct", (slice(120, 300), slice(130, 310), slice(20, 60))
    )
    given = dataclasses.replace(FORMS[form], nearest=False)
    folder = save_bundle(tmp_path / "bundle", given, image)
    stage = load_stage(folder, "refine", StageOptions(faithful=True))
    reference, volume = monai_answer(folder, image), read_volume(image)
    inside = stage._outputs.decided(stage._shares(stage._input(volume, whole(volume)).image, None, Progress()))
    expected = reference.logits.argmax(dim=0)
    for value in stage._outputs.names:
        assert float(((inside == value) == (expected == value)).float().mean()) >= 0.999
        labels = stage.labels(volume) == value
        assert dice(labels, reference.labels.transpose(2, 1, 0) == value) >= 0.995


def torchscript(folder: Path, settings: dict, structures: dict, form: str = "organ", **changes) -> StageFile:
    """A traced network of a form's bundle with its ``stage.json``."""
    from bundle_models import monai_parts

    network = monai_parts(configuration(FORMS[form])).network
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    network.load_state_dict(state)
    path = folder / "model.ts"
    example = torch.zeros(1, 1, *FORMS[form].inferer["roi_size"])
    torch.jit.trace(network.eval(), example).save(str(path))
    values = {
        "format": "torchscript", "id": "traced", "role": "refine", "title": "traced", "model": "model.ts",
        "structures": structures, "orientation": "RAS", "margin_mm": 10.0, "settings": settings,
        "files_sha256": {"model.ts": sha256_of(path)}, "folder": folder,
    }  # fmt: skip
    model = StageFile(**{**values, **changes})
    model.save()
    return model


SETTINGS = {
    "spacing_mm": [2.5, 2.5, 3.0],
    "patch_size": [32, 32, 24],
    "intensity": {"window": [-57, 164], "range": [0, 1]},
    "outputs": ["background", "liver", "tumor"],
    "activation": "softmax",
    "overlap": 0.5,
    "mode": "constant",
}


def test_torchscript_with_the_settings_of_a_bundle_gives_the_same_labels(example, tmp_path):
    folder = save_bundle(tmp_path, FORMS["organ"], example)
    expected = load_stage(folder, "refine", StageOptions(faithful=True)).labels(read_volume(example))
    torchscript(folder, SETTINGS, {"liver": [1], "lesion": [2]})
    stage = load_stage(folder, "refine", StageOptions(faithful=True))
    assert stage.manifest.architecture == "TorchScript"
    assert (stage.labels(read_volume(example)) == expected).mean() > 0.9999


def test_a_bundle_with_torchscript_alone_is_run_where_its_digest_is_recorded(example, tmp_path):
    folder = save_bundle(tmp_path, FORMS["organ"], example)
    expected = load_stage(folder, "refine", StageOptions(faithful=True)).labels(read_volume(example))
    torchscript(folder, SETTINGS, {"liver": [1], "lesion": [2]})
    (folder / "model.ts").rename(folder / "models" / "model.ts")
    (folder / "models" / "model.pt").unlink()
    digests = {"models/model.ts": sha256_of(folder / "models" / "model.ts")}
    (folder / "stage.json").unlink()
    dataclasses.replace(deduced_stage(folder, "refine"), files_sha256=digests).save()
    stage = load_stage(folder, "refine", StageOptions(faithful=True))
    assert (stage.labels(read_volume(example)) == expected).mean() > 0.9999


def test_an_array_that_runs_along_k_j_i_is_another_order_of_the_same_settings(tmp_path):
    folder = save_bundle(tmp_path, FORMS["organ"])
    settings = {**SETTINGS, "axis_order": "kji", "spacing_mm": [1, 2, 3], "patch_size": [16, 24, 32]}
    torchscript(folder, settings, {"liver": [1]})
    stage = load_stage(folder, "refine", StageOptions())
    assert stage.plan.patch_size == (32, 24, 16) and stage.plan.spacing == (3.0, 2.0, 1.0)
    assert stage.manifest.patch_size == (16, 24, 32) and stage.manifest.spacing_mm == (1.0, 2.0, 3.0)


def test_what_a_bundle_says_of_itself_becomes_its_stage(tmp_path):
    folder = save_bundle(tmp_path, FORMS["organ"])
    model = deduced_stage(folder, "refine")
    assert model.structures == {"liver": (1,), "lesion": (2,)}
    assert (model.id, model.version, model.citation) == ("test-ct-segmentation", "0.2.5", "Somebody et al., 2024.")
    assert deduced_stage(save_bundle(tmp_path / "2", FORMS["whole body"]), "locate").structures == {"liver": (5,)}
    assert deduced_stage(save_bundle(tmp_path / "3", FORMS["overlapping"]), "refine").structures == {
        "liver": (1,),
        "lesion": (2,),
    }
