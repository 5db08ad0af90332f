"""Prepared cases and the samples that are cut from them."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_layouts import LabeledScan, invented, lay_out_csv, lay_out_lits
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Grid, resample
from LiverCascadeTrainingLib.data import cache as cache_module
from LiverCascadeTrainingLib.data.augmentation import (
    AugmentationSpec,
    Look,
    change_values,
    draw_look,
    look_up,
    reach,
    sampling_grid,
    windowed,
)
from LiverCascadeTrainingLib.data.cache import Cache, PrepareSettings, add_priors, prepare
from LiverCascadeTrainingLib.data.layouts import find_studies
from LiverCascadeTrainingLib.data.patches import Finisher, PatchDataset, PatchSpec, cut_out
from LiverCascadeTrainingLib.data.sampling import Sampler, SamplingSpec
from LiverCascadeTrainingLib.data.sources import MixedDataset, SyntheticSource
from LiverCascadeTrainingLib.lesions import LesionRanges
from torch.utils.data import DataLoader

SETTINGS = PrepareSettings((6.0, 6.0, 6.0))
STILL = AugmentationSpec.none()


@pytest.fixture(scope="module")
def scans():
    return [invented(seed, 3, seed != 2) for seed in range(3)]


@pytest.fixture(scope="module")
def data(scans, tmp_path_factory):
    """Three cases as a table: the third is healthy, the first and the third have segments."""
    return lay_out_csv(tmp_path_factory.mktemp("data"), scans)


@pytest.fixture(scope="module")
def cache(data, tmp_path_factory):
    report = prepare(data, tmp_path_factory.mktemp("caches"), SETTINGS)
    assert report.exit_code == 0 and len(report.made) == 3
    return Cache(report.folder)


def test_prepared_voxels_are_those_of_the_engines_own_resampling(cache, scans, data):
    case, item = cache.case("p200"), scans[0]
    assert case.grid.axes == "RAS" and np.allclose(case.grid.spacing, 6.0)
    wanted = resample(item.array, item.grid, case.grid, -1024).round().short().numpy()
    # Geometry went through NIfTI's float32.
    assert np.abs(case.image.astype(int) - wanted).max() <= 1
    assert np.array_equal(case.labels, item.labels[:, :, ::-1])
    assert case.image.dtype == np.int16 and isinstance(case.image, np.memmap)
    assert case.known == {"liver": True, "lesion": True, "couinaud": True}
    assert set(np.unique(case.couinaud)) == set(range(9)) and cache.case("p201").couinaud is None
    assert np.array_equal(case.couinaud > 0, case.labels > 0)


def test_listed_positions_lie_in_their_class_and_each_lesion_has_its_own(cache):
    case = cache.case("p200")
    for value, name in enumerate(("background", "liver", "lesion")):
        places = case.positions(name).astype(int)
        assert len(places) and (case.labels[tuple(places.T)] == value).all()
        assert len(np.unique(places, axis=0)) == len(places)
    assert [lesion["voxels"] for lesion in case.lesions] == sorted((n["voxels"] for n in case.lesions), reverse=True)
    assert sum(lesion["voxels"] for lesion in case.lesions) == np.count_nonzero(case.labels == 2)
    from scipy import ndimage

    numbers, count = ndimage.label(case.labels == 2, np.ones((3, 3, 3)))
    owners = [set(numbers[tuple(case.positions(n["positions"]).astype(int).T)].tolist()) for n in case.lesions]
    assert count == len(case.lesions) and all(len(owner) == 1 for owner in owners)
    assert len(set.union(*owners)) == count


def test_cases_can_be_cut_to_the_liver_with_a_margin(data, tmp_path):
    settings = PrepareSettings((6.0, 6.0, 6.0), around_liver_mm=18)
    cut = Cache(prepare(data, tmp_path, settings, only=["p200"]).folder).case("p200")
    for axis in range(3):
        hits = np.flatnonzero(cut.labels.any(axis=tuple(a for a in range(3) if a != axis)))
        assert hits[0] <= 4 and cut.shape[axis] - 1 - hits[-1] <= 4
        assert hits[0] >= 3 or axis == 0


def test_preparing_again_keeps_everything_and_another_setting_has_another_folder(cache, data):
    root = cache.folder.parent
    before = {p: p.stat().st_mtime_ns for p in cache.folder.rglob("*.npy")}
    report = prepare(data, root, SETTINGS)
    assert report.kept == ("p200", "p201", "p202") and not report.made
    assert before == {p: p.stat().st_mtime_ns for p in cache.folder.rglob("*.npy")}
    assert dataclasses.replace(SETTINGS, spacing_mm=(6.0, 6.0, 5.0)).key != SETTINGS.key
    assert cache.settings == SETTINGS


def test_a_case_whose_source_changed_is_prepared_again(scans, tmp_path):
    data = lay_out_csv(tmp_path / "data", scans[:2])
    first = Cache(prepare(data, tmp_path / "cache", SETTINGS).folder)
    fingerprint = first.fingerprint()
    lay_out_csv(tmp_path / "data", [scans[0], dataclasses.replace(scans[1], array=scans[1].array + np.int16(7))])
    os.utime(data / "images" / "p200.nii.gz", ns=(1, 1))
    os.utime(data / "labels" / "p200.nii.gz", ns=(1, 1))
    report = prepare(data, tmp_path / "cache", SETTINGS)
    assert "p201" in report.made
    assert Cache(report.folder).fingerprint() != fingerprint
    assert Cache(report.folder).fingerprint(["p200"]) == first.fingerprint(["p200"])


def test_what_cannot_be_prepared_is_told_and_the_others_are_there(scans, tmp_path):
    data = lay_out_lits(tmp_path / "data", scans)
    (data / "Training Batch 2" / "volume-201.nii").write_bytes(b"nothing")
    (data / "Training Batch 1" / "segmentation-202.nii").unlink()
    report = prepare(data, tmp_path / "cache", SETTINGS)
    assert report.made == ("lits_200",) and set(report.failed) == {"lits_201", "lits_202"} and report.exit_code == 2
    assert "no label" in report.failed["lits_202"] and Cache(report.folder).names == ("lits_200",)
    with pytest.raises(InputError, match="no studies named lits_999"):
        prepare(data, tmp_path / "cache", SETTINGS, only=["lits_999"])


def test_unlabeled_scans_are_prepared_whole(scans, tmp_path):
    lay_out_lits(tmp_path / "data", scans[:1])
    from dataset_layouts import write_nifti

    write_nifti(tmp_path / "data" / "test-volume-1.nii", scans[1].array, scans[1].grid)
    settings = PrepareSettings((6.0, 6.0, 6.0), around_liver_mm=12)
    cache = Cache(prepare(tmp_path / "data", tmp_path / "cache", settings, unlabeled=True).folder)
    case = cache.case("lits_test_1")
    assert case.labels is None and not any(case.known.values()) and case.shape == scans[1].array.shape
    spec = PatchSpec((16, 16, 16), sampling=SamplingSpec("random"))
    item = PatchDataset(cache, ["lits_test_1"], spec, 1)[0]
    assert not any(item["known"].values()) and not item["target"].any()
    with pytest.raises(InputError, match="Take 'random'"):
        PatchDataset(cache, ["lits_test_1"], PatchSpec((16, 16, 16)), 1)


@pytest.mark.slow
def test_several_processes_prepare_the_same_voxels(cache, data, tmp_path):
    report = prepare(data, tmp_path, SETTINGS, processes=2)
    assert report.made == ("p200", "p201", "p202")
    assert Cache(report.folder).fingerprint() == cache.fingerprint()


_PREPARE = """
import sys
from pathlib import Path
from LiverCascadeTrainingLib.data import cache
prepare = cache._save
def slowly(*arguments):
    print("saving", flush=True)
    prepare(*arguments)
cache._save = slowly
write = cache._write_array
def write_slowly(path, array):
    print("writing", path.name, flush=True)
    result = write(path, array)
    print("wrote", path.name, flush=True)
    # Here it waits, so that it is killed at this place and not a little later.
    sys.stdin.readline()
    return result
cache._write_array = write_slowly
cache.prepare(Path(sys.argv[1]), Path(sys.argv[2]), cache.PrepareSettings((6.0, 6.0, 6.0)))
"""


@pytest.mark.parametrize(
    "stop_at",
    ["wrote image.npy", *(pytest.param(f"wrote {n}.npy", marks=pytest.mark.slow) for n in ("labels", "positions"))],
)
def test_killed_while_it_writes_nothing_half_stays_and_the_rest_is_prepared_next_time(stop_at, cache, data, tmp_path):
    roots = [Path(cache_module.__file__).parents[2], Path(sys.modules["LiverCascadeLib"].__file__).parents[1]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _PREPARE, str(data), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
        studies = 0
        for line in process.stdout:
            studies += line.strip() == stop_at
            if studies == 2:
                process.kill()
                break
            if line.startswith("wrote"):
                process.stdin.write("\n")
                process.stdin.flush()
    half = Cache(tmp_path / SETTINGS.key)
    assert half.names == ("p200",) and any(path.name.startswith(".part-p201") for path in half.folder.iterdir())
    assert not half.verify(deep=True)
    report = prepare(data, tmp_path, SETTINGS)
    assert report.kept == ("p200",) and report.made == ("p201", "p202")
    assert not [path for path in half.folder.iterdir() if path.name.startswith(".")]
    assert Cache(report.folder).fingerprint() == cache.fingerprint()


def test_altered_files_are_noticed_fast_by_size_and_time_and_surely_by_digest(data, tmp_path):
    folder = prepare(data, tmp_path, SETTINGS, only=["p200", "p202"]).folder
    cache = Cache(folder)
    assert not cache.verify() and not cache.verify(deep=True)
    path = folder / "p200" / "labels.npy"
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.verify() == {"p200": ["labels.npy was altered"]}
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    # Same size, same time: only the digest can know.
    assert not cache.verify() and cache.verify(deep=True) == {"p200": ["labels.npy was altered"]}
    path.write_bytes(content[:-5])
    with pytest.raises(InputError, match=r"p200: labels\.npy has .* bytes"):
        PatchDataset(cache, ["p200"], PatchSpec((8, 8, 8)), 1)
    copied = folder / "p202" / "image.npy"
    os.utime(copied, ns=(1, 1))
    assert not cache.verify(["p202"])


def test_a_folder_that_is_no_cache_is_refused_in_words(tmp_path, cache):
    with pytest.raises(InputError, match="Prepare first"):
        Cache(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(InputError, match="version 99"):
        Cache(tmp_path)
    with pytest.raises(InputError, match="not in the cache"):
        cache.case("p999")
    for wrong in ({"spacing_mm": (0, 1, 1)}, {"spacing_mm": (1, 1, 1), "around_liver_mm": -1}):
        with pytest.raises(InputError):
            PrepareSettings(**wrong)


def kinds_of(cases, spec, count=4000):
    sampler, rng = Sampler(cases, spec), np.random.default_rng(0)
    return [sampler.draw(rng) for _ in range(count)]


def test_foreground_and_background_are_drawn_one_to_one(cache):
    cases = [cache.case(name) for name in cache.names]
    places = kinds_of(cases, SamplingSpec("foreground"))
    assert abs(np.mean([p.kind == "background" for p in places]) - 0.5) < 0.03
    for place in places[:300]:
        value = cases[place.case].labels[tuple(place.center)]
        assert value == {"background": 0, "liver": 1, "lesion": 2}[place.kind]


def test_label_weights_hold_over_the_whole_data_set(cache):
    cases = [cache.case(name) for name in cache.names]
    counts = [p.kind for p in kinds_of(cases, SamplingSpec("labels"))]
    for kind, share in (("background", 0.2), ("liver", 0.3), ("lesion", 0.5)):
        assert abs(counts.count(kind) / len(counts) - share) < 0.03
    # A healthy liver has no lesion to give.
    only = kinds_of(cases[2:], SamplingSpec("labels"), 300)
    assert {p.kind for p in only} == {"background", "liver"}


def test_each_lesion_is_equally_likely_whatever_its_size(cache):
    cases = [cache.case(name) for name in cache.names]
    owner = {}
    for number, case in enumerate(cases):
        for index, lesion in enumerate(case.lesions):
            for place in case.positions(lesion["positions"]):
                owner[(number, *map(int, place))] = (number, index)
    sizes = {(n, i): lesion["voxels"] for n, case in enumerate(cases) for i, lesion in enumerate(case.lesions)}
    places = kinds_of(cases, SamplingSpec("lesions", lesion_share=1.0))
    counts = {key: 0 for key in sizes}
    for place in places:
        counts[owner[(place.case, *map(int, place.center))]] += 1
    assert max(sizes.values()) > 4 * min(sizes.values())
    expected = len(places) / len(sizes)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_liver_and_random_strategies_do_what_they_say(cache):
    cases = [cache.case(name) for name in cache.names]
    assert all(cases[p.case].labels[tuple(p.center)] == 1 for p in kinds_of(cases, SamplingSpec("liver"), 200))
    where = np.array([p.center / cases[p.case].shape for p in kinds_of(cases, SamplingSpec("random"))])
    assert np.abs(where.mean(axis=0) - 0.5).max() < 0.03


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "by taste"},
        {"label_weights": {"spleen": 1}},
        {"label_weights": {"liver": 0}},
        {"foreground_share": 2},
        {"jitter": 0.7},
    ],
)
def test_a_sampling_that_cannot_be_is_refused(changes):
    with pytest.raises(InputError):
        SamplingSpec(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": (8, 8, 2), "kind": "2d"},
        {"patch_size": (8, 8, 1), "kind": "2.5d", "stack": 4},
        {"patch_size": (8, 8, 8), "kind": "4d"},
        {"patch_size": (8, 8, 8), "inputs": ("mr",)},
        {"patch_size": (8, 8, 8), "prior": "guessed"},
        {"patch_size": (8, 8, 8), "window_hu": (100, 0)},
        {"patch_size": (0, 8, 8)},
        {"patch_size": (8, 8, 8), "synthetic_chance": 3},
    ],
)
def test_a_patch_that_cannot_be_is_refused(changes):
    with pytest.raises(InputError):
        PatchSpec(**changes)


REFINE = PatchSpec(
    (32, 24, 16),
    ("ct", "liver_probability"),
    sampling=SamplingSpec("labels"),
    synthetic_chance=0.5,
    lesions=LesionRanges((8.0, 20.0), 1.0),
    couinaud=True,
    augmentation=AugmentationSpec(flip_chance=0.3, elastic_chance=0.5, low_resolution_chance=0.4, blur_chance=0.4),
)


def test_a_sample_has_the_form_that_networks_and_losses_want(cache):
    samples = PatchDataset(cache, cache.names, REFINE, 3, 40)
    kinds = set()
    for number in range(20):
        item = samples[number]
        assert item["image"].shape == (2, 16, 24, 32) and item["image"].dtype == torch.float32
        assert item["image"].min() >= 0 and item["image"].max() <= 1 and torch.isfinite(item["image"]).all()
        assert item["target"].shape == item["couinaud"].shape == (16, 24, 32)
        assert item["target"].dtype == torch.uint8 and item["target"].max() <= 2 and item["couinaud"].max() <= 10
        assert item["name"] in cache.names and int(item["number"]) == number
        assert bool(item["known"]["couinaud"]) == (item["name"] != "p201") and bool(item["known"]["lesion"])
        kinds |= set(torch.unique(item["target"]).tolist())
    assert kinds == {0, 1, 2} and len(samples) == 40
    with pytest.raises(IndexError):
        samples[40]


def same(first, second):
    for key in ("image", "target", "couinaud"):
        if key in first:
            assert torch.equal(first[key], second[key]), key
    assert first["name"] == second["name"]


def test_a_sample_depends_on_seed_and_number_alone(cache):
    first, again = (PatchDataset(Cache(cache.folder), cache.names, REFINE, 3) for _ in range(2))
    wanted = [first[number] for number in (5, 0, 9)]
    for item, number in zip(wanted, (5, 0, 9), strict=True):
        same(item, again[number])
    assert not torch.equal(PatchDataset(cache, cache.names, REFINE, 4)[5]["image"], wanted[0]["image"])


def test_samples_do_not_depend_on_the_number_of_workers(cache):
    samples = PatchDataset(cache, cache.names, REFINE, 3, 6)
    alone = list(DataLoader(samples, 2))
    helped = list(DataLoader(samples, 2, num_workers=2))
    for a, b in zip(alone, helped, strict=True):
        same(a, b)
        assert all(torch.equal(a["known"][k], b["known"][k]) for k in a["known"])


def test_volumes_do_not_travel_to_workers(cache):
    samples = PatchDataset(cache, cache.names, REFINE, 3)
    samples[0]
    assert len(pickle.dumps(samples)) < 100_000


def test_a_batch_finished_on_the_device_is_what_the_loader_would_have_made(cache):
    raw = PatchDataset(cache, cache.names, REFINE, 3, raw=True)
    done = PatchDataset(cache, cache.names, REFINE, 3)
    numbers = list(range(6))
    batch = Finisher(REFINE, cache.spacing_mm)([raw[number] for number in numbers])
    assert batch["image"].shape == (6, 2, 16, 24, 32)
    for number in numbers:
        item = done[number]
        assert torch.allclose(batch["image"][number], item["image"], atol=1e-3)
        assert (batch["target"][number] != item["target"]).float().mean() < 1e-3
        assert batch["name"][number] == item["name"]


@pytest.mark.parametrize("kind", ["2d", "2.5d"])
def test_flat_patches_have_neighbors_as_channels_and_the_middle_slice_as_target(kind, cache):
    spec = PatchSpec((24, 16, 1), ("ct", "liver_probability"), kind=kind, stack=3, augmentation=STILL)
    samples = PatchDataset(cache, ["p200"], spec, 3)
    assert samples[0]["image"].shape == (spec.channels, 16, 24) and samples[0]["target"].shape == (16, 24)
    for number in range(8):
        raw, item = samples.read(number), samples[number]
        middle = raw.labels.shape[0] // 2
        assert raw.labels.shape[0] == (3 if kind == "2.5d" else 1)
        assert np.array_equal(item["target"].numpy(), raw.labels[middle])
        window = np.clip((raw.image.astype(np.float32) + 175) / 425, 0, 1)
        assert np.allclose(item["image"][: len(window)].numpy(), window, atol=1e-5)
    if kind == "2.5d":
        from LiverCascadeLib.models.slicewise import neighbors

        whole = torch.from_numpy(raw.image.astype(np.float32))[None, None]
        wanted = neighbors(((whole + 175) / 425).clamp(0, 1), 1)[0, 1]
        assert torch.allclose(item["image"][:3], wanted, atol=1e-5)
    bent = dataclasses.replace(
        spec, augmentation=AugmentationSpec(rotation_chance=1, scale_chance=1, elastic_chance=1, cut_chance=1)
    )
    for number in range(5):
        # Nothing moves between slices: no more of them are read.
        assert PatchDataset(cache, ["p200"], bent, 3).read(number).image.shape[0] == (3 if kind == "2.5d" else 1)


def test_without_augmentation_a_patch_is_a_piece_of_the_case(cache):
    spec = PatchSpec((20, 18, 14), sampling=SamplingSpec("liver"), augmentation=STILL)
    samples = PatchDataset(cache, ["p201"], spec, 1)
    case = cache.case("p201")
    for number in range(5):
        raw, item = samples.read(number), samples[number]
        assert raw.image.shape == (14, 18, 20)
        block = tuple(slice(int(a), int(a + n)) for a, n in zip(raw.origin, (14, 18, 20), strict=True))
        assert np.array_equal(item["target"].numpy(), case.labels[block])
        window = np.clip((case.image[block].astype(np.float32) + 175) / 425, 0, 1)
        assert np.allclose(item["image"][0].numpy(), window, atol=1e-6)


def test_a_patch_that_is_larger_than_the_case_is_filled_up_with_air(cache):
    spec = PatchSpec((100, 80, 96), augmentation=STILL)
    item = PatchDataset(cache, ["p200"], spec, 1)[0]
    assert item["target"].sum() == cache.case("p200").labels.sum()
    assert float(item["image"][0, 0].max()) == 0 and float(item["image"][0, -1].max()) == 0


def test_blocks_beyond_a_volume_are_filled_up(cache):
    array = np.arange(24).reshape(2, 3, 4)
    block = cut_out(array, np.array([-1, 1, 3]), np.array([2, 5, 6]), -7)
    assert block.shape == (3, 4, 3) and (block[0] == -7).all()
    assert block[1, 0].tolist() == [7, -7, -7] and (cut_out(array, [5, 5, 5], [6, 7, 8], 3) == 3).all()
    stack = cut_out(array, [-2, 0, 0], [1, 3, 4], -7, flat=True)
    assert np.array_equal(stack, array[[0, 0, 0]])
    whole = cut_out(array, [0, 0, 0], [2, 3, 4], 0)
    assert np.array_equal(whole, array) and whole is not array


def _only(**changes):
    return dataclasses.replace(STILL, **changes)


def ball(shape=(31, 31, 31), center=(15, 15, 15), radius=6.0):
    k, j, i = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return np.sqrt((k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2) <= radius


def moved(spec, mask, spacing=(1.0, 1.0, 1.0), seed=0, size=(31, 31, 31)):
    """A mask as a look of ``spec`` shows it."""
    look = draw_look(spec, size, spacing, np.random.default_rng(seed))
    far = np.ceil(reach(look, size, spacing)).astype(int) + 1
    middle = (np.array(mask.shape) - 1) / 2
    block = cut_out(mask.astype(np.float32), (middle - far).astype(int), (middle + far + 1).astype(int), 0)
    grid = sampling_grid([look], torch.tensor(np.array([far], float)), size, spacing, block.shape, "cpu")
    return look, look_up(torch.from_numpy(block)[None, None], grid)[0, 0].numpy()


def furthest(look, size, spacing):
    """The largest distance from the patch's middle at which a look looks, in voxels (k, j, i)."""
    grid = sampling_grid([look], torch.full((1, 3), 50.0), size, spacing, (101, 101, 101), "cpu")
    return (grid * 50).abs().reshape(-1, 3).max(dim=0).values.numpy()[::-1]


def test_scaling_makes_the_anatomy_larger_or_smaller_by_its_factor():
    for factor in (0.8, 1.25):
        _, seen = moved(_only(scale_chance=1.0, scale=(factor, factor)), ball(radius=8))
        assert abs(seen.sum() / (factor**3 * ball(radius=8).sum()) - 1) < 0.05


def test_turning_about_s_turns_within_slices_by_the_angle_in_mm():
    mask = ball(center=(15, 15, 25), radius=2.5)
    spec = _only(rotation_chance=1.0, rotation_deg=(0.0, 0.0, 40.0))
    look, seen = moved(spec, mask, seed=1)
    at = np.argwhere(seen > 0.5).mean(axis=0) - 15
    angle = np.degrees(np.arccos(look.linear[1, 1]))
    assert angle > 10 and abs(at[0]) < 0.3 and abs(np.hypot(at[1], at[2]) - 10) < 0.4
    assert abs(abs(np.degrees(np.arctan2(at[1], at[2]))) - angle) < 3


def test_flips_mirror_the_axes_that_they_name():
    mask = ball(center=(12, 10, 22), radius=3)
    for axis, place in (("R", 2), ("A", 1), ("S", 0)):
        _, seen = moved(_only(flip_chance=1.0, flip_axes=(axis,)), mask)
        assert np.array_equal(seen > 0.5, np.flip(mask, place))


def test_bending_moves_voxels_by_no_more_than_it_may_and_the_block_holds_all_that_is_needed():
    spec = _only(elastic_chance=1.0, elastic_mm=5.0)
    look, seen = moved(spec, ball(), seed=2)
    assert 0.5 < np.abs(look.knots).max() <= 5.0 and not np.array_equal(seen > 0.5, ball())
    size, spacing = (31, 31, 31), (1.0, 1.0, 1.0)
    assert (furthest(look, size, spacing) <= reach(look, size, spacing) + 1e-3).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_block_of_any_look_holds_all_its_positions(seed):
    spec = AugmentationSpec(rotation_chance=1, scale_chance=1, flip_chance=0.5, elastic_chance=1)
    spacing, size = (2.5, 0.8, 0.8), (16, 40, 40)
    look = draw_look(spec, size, spacing, np.random.default_rng(seed))
    found, far = furthest(look, size, spacing), reach(look, size, spacing)
    assert (found <= far + 1e-3).all() and (found > 0.5 * far).all()


def plain(**changes):
    base = Look(np.eye(3), None, 1.0, 0.0, 1.0, 0.0, 0.0, (1.0, 1.0, 1.0), 0, 5)
    return dataclasses.replace(base, **changes)


def test_values_change_as_their_look_says():
    hu = torch.full((1, 16, 16, 16), 80.0)
    assert torch.allclose(change_values(hu.clone(), [plain(contrast=1.1, brightness=-5.0)], (1, 1, 1)), hu * 1.1 - 5)
    noisy = change_values(hu.clone(), [plain(noise_hu=12.0)], (1, 1, 1)) - hu
    assert abs(float(noisy.std()) - 12) < 0.6 and abs(float(noisy.mean())) < 0.8
    point = torch.zeros(1, 17, 17, 17)
    point[0, 8, 8, 8] = 1
    soft = change_values(point.clone(), [plain(blur_mm=1.5)], (1.5, 1.0, 0.75))
    axis = torch.arange(17) - 8.0
    widths = [
        float((soft.sum(dim=tuple(d for d in (1, 2, 3) if d != n))[0] * axis**2).sum()) ** 0.5 for n in (1, 2, 3)
    ]
    assert np.allclose(widths, [1.0, 1.5, 2.0], atol=0.12)
    stripes = torch.zeros(1, 16, 16, 16)
    stripes[:, ::2] = 100
    coarse = change_values(stripes.clone(), [plain(coarser=(2.0, 1.0, 1.0))], (1, 1, 1))
    assert float(coarse.std()) < 5 < float(stripes.std())
    # Neighbors in the batch are left alone.
    pair = change_values(torch.cat([hu, hu]), [plain(), plain(noise_hu=9.0)], (1, 1, 1))
    assert torch.equal(pair[0], hu[0]) and not torch.equal(pair[1], hu[0])


def test_air_stays_zero_whatever_the_gamma():
    hu = torch.tensor([-1024.0, -175.0, 37.5, 250.0, 900.0]).reshape(1, 1, 1, 5)
    assert torch.allclose(windowed(hu.clone(), (-175, 250), [plain()]).flatten(), torch.tensor([0, 0, 0.5, 1, 1.0]))
    bright = windowed(hu.clone(), (-175, 250), [plain(gamma=0.5)]).flatten()
    assert torch.allclose(bright, torch.tensor([0, 0, 0.5**0.5, 1, 1.0]))


def test_a_scan_that_begins_inside_the_patch_has_air_and_no_labels_there(cache):
    spec = PatchSpec((24, 24, 18), sampling=SamplingSpec("liver"), augmentation=_only(cut_chance=1.0))
    samples, seen = PatchDataset(cache, ["p200"], spec, 1), set()
    for number in range(8):
        cut = samples.read(number).look.cut
        part = slice(0, cut) if cut > 0 else slice(cut, None)
        item = samples[number]
        assert cut and not item["target"][part].any() and float(item["image"][0, part].max()) == 0
        seen.add(cut > 0)
    assert seen == {True, False}


def test_synthetic_lesions_are_put_into_healthy_liver_only(cache):
    still = dataclasses.replace(REFINE, augmentation=STILL, synthetic_chance=1.0, sampling=SamplingSpec("liver"))
    healthy = PatchDataset(cache, ["p202"], still, 1)
    assert sum(bool((healthy[number]["target"] == 2).any()) for number in range(10)) >= 8
    ill = PatchDataset(cache, ["p200"], still, 1)
    for number in range(10):
        raw = ill.read(number)
        truth = dataclasses.replace(still, synthetic_chance=0.0)
        real = PatchDataset(cache, ["p200"], truth, 1).read(number)
        if (real.labels == 2).any():
            assert np.array_equal(raw.labels, real.labels) and np.array_equal(raw.image, real.image)


def test_lesions_are_not_invented_where_nobody_knows_of_lesions(scans, tmp_path):
    unsure = dataclasses.replace(scans[2], lesions_known=False)
    cache = Cache(prepare(lay_out_csv(tmp_path / "d", [unsure]), tmp_path / "c", SETTINGS).folder)
    samples = PatchDataset(cache, cache.names, dataclasses.replace(REFINE, synthetic_chance=1.0), 1)
    for number in range(5):
        assert not bool(samples[number]["known"]["lesion"]) and not (samples[number]["target"] == 2).any()


def test_a_located_probability_travels_with_the_patch(data, tmp_path):
    cache = Cache(prepare(data, tmp_path, SETTINGS, only=["p200", "p202"]).folder)
    spec = dataclasses.replace(REFINE, prior="located", augmentation=STILL, sampling=SamplingSpec("liver"))
    with pytest.raises(InputError, match="No located probability was added to p200, p202"):
        PatchDataset(cache, cache.names, spec, 1)

    def locate(volume):
        return (volume.array > 40) * 0.5

    assert add_priors(cache, cache.names, locate) == ["p200", "p202"] and add_priors(cache, cache.names, locate) == []
    item = PatchDataset(cache, cache.names, dataclasses.replace(spec, synthetic_chance=0.0), 1)[3]
    inside = item["image"][0] * 425 - 175 > 41
    assert torch.allclose(item["image"][1][inside], torch.tensor(0.5), atol=0.01)
    assert float(item["image"][1][item["image"][0] * 425 - 175 < 39].max()) == 0
    whole = {study.name: study for study in find_studies(data)}
    assert add_priors(cache, ["p200"], lambda v: np.full(v.grid.shape, 0.25), whole, remake=True) == ["p200"]
    assert abs(float(cache.case("p200").prior.mean()) - 64) < 1
    with pytest.raises(ValueError, match="not"):
        add_priors(cache, ["p200"], lambda volume: np.zeros((2, 2, 2)), remake=True)


def test_an_imitated_probability_lies_over_the_liver_but_is_not_its_label(cache):
    spec = PatchSpec((48, 48, 40), ("ct", "liver_probability"), sampling=SamplingSpec("liver"), augmentation=STILL)
    inside, outside, exact = [], [], []
    samples = PatchDataset(cache, cache.names, spec, 1)
    for number in range(12):
        item = samples[number]
        liver = item["target"] > 0
        inside.append(float(item["image"][1][liver].mean()))
        outside.append(float(item["image"][1][~liver].mean()))
        exact.append(float(((item["image"][1] > 0.5) == liver).float().mean()))
    assert np.median(inside) > 0.6 and np.median(outside) < 0.25 and max(exact) < 1


def test_synthetic_bodies_are_a_source_among_others(cache, tmp_path):
    from LiverCascadeTrainingLib.anatomy import Tissue
    from LiverCascadeTrainingLib.cases import _save, load_cases
    from LiverCascadeTrainingLib.looks import LIVER_OR_LESION, SampleSpec
    from LiverCascadeTrainingLib.samples import SampleSet

    rng = np.random.default_rng(0)
    tissue = np.full((40, 40, 40), Tissue.MUSCLE, np.uint8)
    tissue[10:30, 10:30, 10:30] = Tissue.LIVER
    _save(tmp_path, "body", "synthetic", tissue, None, (4.0, 4.0, 4.0), True)
    hu = rng.normal(60, 10, tissue.shape).astype(np.int16)
    _save(tmp_path, "real", "real", hu, (tissue == Tissue.LIVER).astype(np.uint8), (4.0, 4.0, 4.0), False)
    like = SampleSpec((6.0, 6.0, 6.0), (16, 16, 16), (-175.0, 250.0), ("ct",), True, real_share=0.5)
    bodies = SyntheticSource(SampleSet(load_cases(tmp_path), like, 1))
    cases = PatchDataset(cache, cache.names, PatchSpec((16, 16, 16)), 1)
    mixed = MixedDataset([cases, bodies], [3, 1], seed=2, length=60)
    batch = next(iter(DataLoader(mixed, 12)))
    assert batch["image"].shape == (12, 1, 16, 16, 16) and int(batch["target"].max()) <= LIVER_OR_LESION
    names = [mixed[number]["name"] for number in range(60)]
    assert 5 <= names.count("synthetic") <= 25
    items = [bodies[number] for number in range(30)]
    assert all(item["known"]["lesion"] for item in items)
    # Liver of which nobody knows whether it is lesion is that of the real case, and says so voxel by voxel.
    unsure = [bool((item["target"] == LIVER_OR_LESION).any()) for item in items]
    assert 5 <= sum(unsure) <= 25
    for item, either in zip(items, unsure, strict=True):
        assert not (either and (item["target"] == 1).any())
    with pytest.raises(InputError, match="one share for each"):
        MixedDataset([cases], [1, 2], 1)


@pytest.mark.alone
def test_reading_a_patch_does_not_read_the_volume(tmp_path):
    """A patch of a large case costs no more memory than itself: pages of the file, not the file."""
    big = np.zeros((200, 256, 256), np.int16)
    labels = np.zeros(big.shape, np.uint8)
    labels[90:110, 100:140, 100:140] = 1
    item = LabeledScan("big", big, labels, Grid(big.shape[::-1], np.diag([1.0, 1.0, 1.01, 1.0])))
    cache = Cache(
        prepare(lay_out_csv(tmp_path / "d", [item]), tmp_path / "c", PrepareSettings((1.0, 1.0, 1.0))).folder
    )
    samples = PatchDataset(cache, cache.names, PatchSpec((32, 32, 32)), 1)
    samples[0]
    started = time.perf_counter()
    for number in range(8):
        samples.read(number)
    assert (time.perf_counter() - started) / 8 < 0.05
    assert isinstance(samples.cases[0].image, np.memmap)
