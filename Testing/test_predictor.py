"""The sliding window, its blending, and the ladder."""

import itertools

import numpy as np
import pytest
import torch
from LiverCascadeLib import predictor
from LiverCascadeLib.errors import Cancelled, ResourceError
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.predictor import NetworkPredictor, choose_device, gaussian_profile, window_starts
from LiverCascadeLib.progress import Progress
from tiny_models import save_model


def grid_of(shape, spacing=2.0):
    return Grid(shape[::-1], np.diag([spacing, spacing, spacing, 1.0]))


@pytest.fixture
def locate(tmp_path):
    save_model(tmp_path, "locate")
    return NetworkPredictor(load_manifest(tmp_path))


class Copying(torch.nn.Module):
    """A network whose liver probability is the windowed CT itself."""

    def forward(self, x):
        p = x[:, :1].float().clamp(0.02, 0.98)
        return torch.cat([torch.log(1 - p), torch.log(p)], dim=1)


@pytest.mark.parametrize(("size", "patch", "overlap"), [(10, 16, 0.5), (16, 16, 0.5), (17, 16, 0.5), (100, 16, 0.25)])
def test_windows_cover_every_voxel_and_stay_inside(size, patch, overlap):
    starts = window_starts(size, patch, overlap)
    covered = np.zeros(max(size, patch), int)
    for start in starts:
        assert 0 <= start <= max(0, size - patch)
        covered[start : start + patch] += 1
    assert covered.min() >= 1
    assert all(b - a <= patch * (1 - overlap) + 1 for a, b in itertools.pairwise(starts))


def test_the_profile_is_symmetric_and_highest_in_the_middle():
    profile = gaussian_profile(32)
    assert np.allclose(profile, profile[::-1])
    assert profile.argmax() in (15, 16)
    assert profile.min() > 0


@pytest.mark.parametrize("shape", [(16, 16, 16), (9, 40, 23), (50, 17, 16), (5, 5, 5)])
def test_blending_gives_back_what_every_window_agrees_on(locate, shape):
    locate._network = Copying()
    values = 0.2 + 0.6 * torch.rand(shape)
    low, high = locate.manifest.window_hu
    result = locate.predict(values * (high - low) + low, None, grid_of(shape), Progress())
    assert result.shape == (1, *shape)
    assert torch.allclose(result[0], values, atol=0.01)


def test_windows_of_air_are_skipped_and_count_as_background(locate):
    calls = []
    network = Copying()
    locate._network = lambda x: calls.append(x.shape[0]) or network(x)
    ct = torch.full((16, 16, 80), -1000.0)
    ct[..., :16] = 100.0
    result = locate.predict(ct, None, grid_of((16, 16, 80)), Progress())
    assert sum(calls) == 2  # of nine windows, two see the body
    assert float(result[..., 40:].max()) == 0


def test_windows_far_from_the_located_liver_are_skipped(tmp_path):
    save_model(tmp_path, "refine")
    refine = NetworkPredictor(load_manifest(tmp_path))
    seen = []
    refine._network = lambda x: seen.append(x) or torch.zeros(x.shape[0], 3, *x.shape[2:])
    prior = torch.zeros(16, 16, 80)
    prior[..., 70:] = 1.0
    refine.predict(torch.full((16, 16, 80), 100.0), prior, grid_of((16, 16, 80)), Progress())
    # Two of nine windows reach the liver; the last but one sees only what the last sees much better.
    assert len(seen) == 1
    assert all(x.shape[1] == 2 and float(x[:, 1].max()) == 1 for x in seen)


def test_passing_over_windows_that_have_no_say_hardly_changes_the_blend(tmp_path, monkeypatch):
    save_model(tmp_path, "refine")
    refine = NetworkPredictor(load_manifest(tmp_path))
    count, shape = [], (24, 40, 80)

    def probable(x):
        count.append(1)
        logits = torch.full((x.shape[0], 3, *x.shape[2:]), -9.0)
        logits[:, 1] = 9.0 * (x[:, 1] > 0) - 4
        return logits

    refine._network = probable
    prior = torch.zeros(shape)
    prior[:, 14:30, 14:70] = 1.0
    ct = torch.full(shape, 100.0)
    quick, quick_count = refine.predict(ct, prior, grid_of(shape), Progress()), len(count)
    monkeypatch.setattr(predictor, "LEAST_SAY", 0.0)
    whole = refine.predict(ct, prior, grid_of(shape), Progress())
    assert quick_count < len(count) - quick_count
    assert torch.allclose(quick[:, prior > 0], whole[:, prior > 0], atol=0.02)


def test_a_batch_gives_the_same_as_single_windows(tmp_path):
    save_model(tmp_path, "locate")
    ct = torch.rand(20, 30, 40) * 400 - 150
    single, batched = (NetworkPredictor(load_manifest(tmp_path), batch=b) for b in (1, 4))
    a = single.predict(ct, None, grid_of((20, 30, 40)), Progress())
    b = batched.predict(ct, None, grid_of((20, 30, 40)), Progress())
    assert torch.allclose(a, b, atol=0.02)  # reduced precision may round differently


def test_progress_rises_to_one_and_cancelling_stops_in_the_middle(locate):
    fractions = []
    progress = Progress(lambda stage, fraction: fractions.append(fraction))
    locate.predict(torch.full((16, 16, 64), 50.0), None, grid_of((16, 16, 64)), progress)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) > 4
    seen = []
    stopping = Progress(lambda stage, fraction: seen.append(fraction), lambda: len(seen) >= 3)
    with pytest.raises(Cancelled):
        locate.predict(torch.full((16, 16, 64), 50.0), None, grid_of((16, 16, 64)), stopping)
    assert len(seen) == 3


def test_out_of_memory_steps_down_and_gives_the_same_answer(tmp_path):
    save_model(tmp_path, "locate")
    ct = torch.rand(16, 16, 64) * 400 - 150
    grid = grid_of((16, 16, 64))
    expected = NetworkPredictor(load_manifest(tmp_path)).predict(ct, None, grid, Progress())
    tight = NetworkPredictor(load_manifest(tmp_path), batch=8)
    network, attempts = tight._network, []

    def limited(x):
        attempts.append(x.shape[0])
        if x.shape[0] > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return network(x)

    tight._network = limited
    result = tight.predict(ct, None, grid, Progress())
    assert torch.allclose(result, expected, atol=0.02)
    assert attempts[0] == 7 and set(attempts[1:]) == {1}
    assert "one window at a time" in tight.findings[0].message


def test_out_of_memory_on_the_last_rung_is_a_resource_error(locate):
    def hopeless(x):
        raise MemoryError("cannot allocate")

    locate._network = hopeless
    with pytest.raises(ResourceError, match="Memory ran out"):
        locate.predict(torch.full((16, 16, 16), 50.0), None, grid_of((16, 16, 16)), Progress())


def test_the_ladder_goes_from_the_gpu_to_stitching_on_the_cpu_to_the_cpu(locate):
    ladder = locate.ladder
    ladder.device = ladder.store = "cuda"
    seen = []

    def work():
        seen.append((ladder.store, ladder.device))
        if seen[-1] != ("cpu", "cpu"):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "done"

    assert ladder.run(work) == "done"
    assert seen == [("cuda", "cuda"), ("cpu", "cuda"), ("cpu", "cpu")]


def test_other_errors_are_not_taken_for_a_lack_of_memory(locate):
    def broken(x):
        raise RuntimeError("shape mismatch")

    locate._network = broken
    with pytest.raises(RuntimeError, match="shape mismatch"):
        locate.predict(torch.full((16, 16, 16), 50.0), None, grid_of((16, 16, 16)), Progress())


def test_devices_are_chosen_by_wish(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    assert choose_device("cpu") == "cpu"
    with pytest.raises(ResourceError, match="GPU"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:1") == "cuda:1"


def test_reduced_precision_is_used_only_where_it_is_native(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert predictor.autocast_dtype("cpu") == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert predictor.autocast_dtype("cpu") is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert predictor.autocast_dtype("cuda") == torch.float16


@pytest.mark.parametrize(("axes", "dims"), [(("R",), (2,)), (("A", "S"), (1, 0))])
def test_thorough_gives_a_mirrored_scan_the_mirrored_answer_along_the_axes_of_the_manifest(tmp_path, axes, dims):
    save_model(tmp_path, "locate", mirror_axes=axes)
    image = 100 * torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(0))
    grid = grid_of(image.shape)
    plain, thorough = (NetworkPredictor(load_manifest(tmp_path), overlap=0.5, thorough=t) for t in (False, True))
    answer = thorough.predict(image, None, grid, Progress())
    for dim in dims:
        mirrored = thorough.predict(image.flip(dim), None, grid, Progress()).flip(dim + 1)
        assert torch.allclose(answer, mirrored, atol=1e-2)
    other = next(dim for dim in range(3) if dim not in dims)
    assert not torch.allclose(
        answer, thorough.predict(image.flip(other), None, grid, Progress()).flip(other + 1), atol=0.02
    )
    assert not torch.allclose(answer, plain.predict(image, None, grid, Progress()), atol=0.02)


def test_thorough_lets_windows_overlap_more_and_mirrors_nothing_that_the_model_does_not_know(tmp_path):
    save_model(tmp_path, "locate", overlap=0.5)
    manifest = load_manifest(tmp_path)
    assert NetworkPredictor(manifest).overlap == 0.5
    assert NetworkPredictor(manifest, thorough=True).overlap == pytest.approx(0.625)
    assert NetworkPredictor(manifest, overlap=0.1, thorough=True).overlap == 0.1
    image, grid = torch.randn(16, 16, 16) * 100, grid_of((16, 16, 16))
    answers = [
        NetworkPredictor(manifest, overlap=0.5, thorough=thorough).predict(image, None, grid, Progress())
        for thorough in (False, True)
    ]
    assert torch.equal(*answers)


def test_the_spread_over_mirrored_copies_is_their_standard_deviation_and_costs_the_answer_nothing(tmp_path):
    save_model(tmp_path, "refine", mirror_axes=("R", "S"))
    thorough = NetworkPredictor(load_manifest(tmp_path), thorough=True)
    image = 100 * torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(1))
    prior, grid = torch.ones(16, 16, 16), grid_of(image.shape)
    plain = thorough.predict(image, prior, grid, Progress())
    assert thorough.spread is None, "nobody asked for it"
    thorough.keep_spread = True
    answer = thorough.predict(image, prior, grid, Progress())
    assert torch.allclose(answer, plain, atol=1e-6) and answer.shape == (2, 16, 16, 16)
    # Without its own mirroring, the same network on four turned copies.
    single = NetworkPredictor(load_manifest(tmp_path))
    copies = [
        single.predict(image.flip(dims), prior, grid, Progress()).flip([d + 1 for d in dims])[-1]
        for dims in ((), (0,), (2,), (0, 2))
    ]
    expected = torch.stack(copies).std(dim=0, unbiased=False)
    assert torch.allclose(thorough.spread, expected, atol=0.01)
    assert float(expected.max()) > 0.03
    thorough.forget()
    assert thorough.spread is None


def test_without_mirrored_copies_there_is_no_spread(tmp_path):
    save_model(tmp_path, "refine")
    thorough = NetworkPredictor(load_manifest(tmp_path), thorough=True)
    thorough.keep_spread = True
    image = torch.full((16, 16, 16), 50.0)
    assert thorough.predict(image, torch.ones(16, 16, 16), grid_of(image.shape), Progress()).shape[0] == 2
    assert thorough.spread is None


def test_the_spread_is_blended_over_windows_and_survives_a_lack_of_memory(tmp_path):
    save_model(tmp_path, "refine", mirror_axes=("A",))
    predictors = [NetworkPredictor(load_manifest(tmp_path), thorough=True, batch=batch) for batch in (1, 4)]
    image = 100 * torch.randn(20, 24, 40, generator=torch.Generator().manual_seed(2))
    prior, grid = torch.ones(20, 24, 40), grid_of(image.shape)
    network = predictors[1]._network

    def limited(windows):
        if windows.shape[0] > 1:
            raise RuntimeError("out of memory")
        return network(windows)

    predictors[1]._network = limited
    for one in predictors:
        one.keep_spread = True
        one.predict(image, prior, grid, Progress())
    assert predictors[0].spread.shape == (20, 24, 40)
    assert torch.allclose(predictors[0].spread, predictors[1].spread, atol=0.02)
