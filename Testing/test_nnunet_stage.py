"""An nnU-Net model at work in a cascade: the region, memory, several models in one box."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic_bodies import LIVER, TEST_GRIDS, analytic_result, overlap
from LiverCascadeLib.cascade import Cascade, Options, segment
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.nnunet.stage import NnUnetStage
from LiverCascadeLib.orientation import oriented
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.windows import touching, windows_over
from nnunet_folders import stage_of, write_model
from tiny_models import Oracle, manifest

ROOT = Path(__file__).parent.parent
NO_PROGRESS = Progress()


class Thresholds(torch.nn.Module):
    """Labels by HU alone, whatever the window: class n from the n-th threshold on."""

    def __init__(self, plan, thresholds):
        super().__init__()
        rule = plan.normalization
        self.limits = [(hu - rule.mean) / rule.std for hu in thresholds]
        self.calls = []

    def forward(self, x):
        self.calls.append(len(x))
        above = torch.stack([x[:, 0] > limit for limit in self.limits], dim=1)
        label = above.long().sum(dim=1)
        return 20.0 * torch.nn.functional.one_hot(label, len(self.limits) + 1).permute(0, 4, 1, 2, 3).float()


def stage_with(folder: Path, labels, structures, thresholds, **more) -> NnUnetStage:
    """A stage that decides by HU."""
    write_model(folder, labels={"background": 0, **labels})
    options = {name: more.pop(name) for name in ("faithful", "overlap") if name in more}
    stage = NnUnetStage(stage_of(folder, structures, margin_mm=10.0, **more), **options)
    stage._network = Thresholds(stage.plan, thresholds)
    return stage


FORCED = Options(force=True)
# Water is 0 HU, lesions are 50, the liver is 110.
LESION_OR_LIVER = {"lesion": 1, "liver": 2}


def locate_oracle() -> Oracle:
    return Oracle(manifest("locate", spacing_mm=(3.0, 3.0, 3.0)), [[LIVER]])


def run(grid: Grid, *refine: NnUnetStage, options: Options = FORCED):
    cascade = Cascade(locate_oracle(), refine[0], others=tuple(refine[1:]))
    return segment(analytic_result(grid).volume, cascade, options)


def large_lesions(result) -> list:
    """Without slivers of the liver's rim, whose mixed voxels look like lesion to a threshold."""
    return [lesion for lesion in result.lesions if lesion.volume_ml > 5]


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("orientation", ["stored", "RAS", "LPS"])
@pytest.mark.parametrize("name", list(TEST_GRIDS)[::5])
def test_labels_stand_on_the_patient_whatever_axes_the_network_wants(tmp_path, name, orientation, faithful):
    grid = TEST_GRIDS[name]
    structures = {"lesion": (1,), "liver": (2,)}
    stage = stage_with(
        tmp_path / "m", LESION_OR_LIVER, structures, (25, 80), orientation=orientation, faithful=faithful
    )
    result = run(grid, stage)
    expected = analytic_result(grid)
    dice, off = overlap(result.labels > 0, LIVER, grid)
    assert dice >= 0.96 and off <= 0.3
    for found, true in zip(large_lesions(result), expected.lesions, strict=True):
        assert np.linalg.norm(np.subtract(found.centroid_ras, true.centroid_ras)) < 2.0


def test_windows_far_from_the_located_liver_are_not_computed(tmp_path):
    small = TEST_GRIDS["LPS"]
    grid = Grid((3 * small.size[0], *small.size[1:]), small.ijk_to_ras)
    volume = analytic_result(grid).volume
    volume.array[volume.array == 0] = -5  # nnU-Net cuts away what is exactly 0 around a scan
    stage = stage_with(tmp_path / "m", LESION_OR_LIVER, {"liver": (2,)}, (25, 80), faithful=True)
    stage.labels(volume)
    everywhere = stage.windows
    segment(volume, Cascade(locate_oracle(), stage), FORCED)
    assert 0 < stage.windows < everywhere


def test_several_models_share_the_box_and_add_what_they_know(tmp_path):
    grid = TEST_GRIDS["LPS"]
    whole = stage_with(tmp_path / "segments", {"liver_segment_1": 1}, {"couinaud_4": (1,)}, (25,))
    lesions = stage_with(tmp_path / "lesions", LESION_OR_LIVER, {"lesion": (1,), "vessel": (2,)}, (25, 80))
    result = run(grid, whole, lesions)
    assert len(large_lesions(result)) == 2
    assert overlap(result.labels > 0, LIVER, grid)[0] >= 0.96
    drawn = result.structures
    assert set(np.unique(drawn.couinaud)) == {0, 4} and drawn.couinaud_model == "segments"
    assert drawn.vessels.any() and drawn.vessels.shape == drawn.box.size[::-1]
    assert [model["id"] for model in result.provenance["models"]] == ["tiny-locate", "segments", "lesions"]


def test_without_a_model_for_the_liver_the_located_one_counts(tmp_path):
    grid = TEST_GRIDS["LPS"]
    result = run(grid, stage_with(tmp_path / "lesions", LESION_OR_LIVER, {"lesion": (1,)}, (25, 80)))
    assert len(large_lesions(result)) == 2
    assert overlap(result.labels > 0, LIVER, grid)[0] >= 0.95


def test_an_nnunet_model_finds_the_liver_at_low_resolution(tmp_path):
    volume = analytic_result(TEST_GRIDS["LPS"]).volume
    stage = stage_with(tmp_path / "m", LESION_OR_LIVER, {"liver": (1, 2)}, (25, 80), role="locate")
    probability, grid = stage.locate(volume, progress=NO_PROGRESS)
    assert overlap(probability.numpy() > 0.5, LIVER, grid)[0] >= 0.95


class OutOfMemoryAt:
    """A network on a GPU whose allocator fails at the n-th forward pass of a batch, and at every larger batch."""

    def __init__(self, network, fails_at: int):
        self.network, self.fails_at, self.sizes = network, fails_at, []

    def __call__(self, x):
        self.sizes.append(len(x))
        if len(self.sizes) >= self.fails_at and len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.network(x)


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_run_that_is_out_of_memory_goes_on_with_the_same_labels_and_says_so(tmp_path, fails_at, faithful):
    grid = TEST_GRIDS["LPS"]
    stage = stage_with(tmp_path / "m", LESION_OR_LIVER, {"lesion": (1,), "liver": (2,)}, (25, 80), faithful=faithful)
    expected = run(grid, stage)
    stage.ladder.batch, stage._network = 4, OutOfMemoryAt(stage._network, fails_at)
    found = run(grid, stage)
    assert np.array_equal(found.labels, expected.labels)
    said = [finding.message for finding in found.findings if finding.code == "out-of-memory"]
    assert len(said) == 1 and "one window at a time" in said[0]
    assert stage._network.sizes[-1] == 1


CAPPED = """
    import resource, sys
    import numpy as np
    sys.path[:0] = {paths}
    from pathlib import Path
    from LiverCascadeLib.nnunet.stage import NnUnetStage
    from LiverCascadeLib.geometry import Grid
    from LiverCascadeLib.volume import Volume
    from nnunet_folders import stage_of

    rng = np.random.default_rng(0)
    matrix = np.diag([1.5, 1.5, 2.0, 1.0])
    volume = Volume(rng.integers(-200, 300, (96, 96, 96)).astype(np.int16), Grid((96, 96, 96), matrix))
    stage = NnUnetStage(stage_of(Path({folder!r}), {{"liver": (1,)}}), faithful=True)
    expected = stage.labels(volume)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    # A batch of 64 windows wants more than this, a single window does not.
    resource.setrlimit(resource.RLIMIT_AS, (used + 120_000_000, used + 120_000_000))
    stage.ladder.batch = 64
    stage.forget()
    found = stage.labels(volume)
    # Random weights leave ties, and oneDNN rounds otherwise where it finds less room to work in.
    print((found == expected).mean(), stage.findings[0].message)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process's memory is Linux's")
def test_a_process_whose_memory_is_capped_finishes_with_the_same_labels(tmp_path):
    folder = write_model(tmp_path / "m")
    paths = [str(ROOT / "LiverCascade"), str(ROOT / "Testing")]
    program = textwrap.dedent(CAPPED.format(paths=paths, folder=str(folder)))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    agreement, said = done.stdout.split(" ", 1)
    assert float(agreement) >= 0.9999
    assert "one window at a time" in said


@pytest.mark.parametrize("overlap_share", [0.0, 0.25, 0.5])
def test_windows_cover_a_region_and_are_fewer_than_those_of_its_box(overlap_share):
    k, j, i = np.meshgrid(*[np.arange(n) for n in (90, 120, 140)], indexing="ij")
    wedge = (j / 120 + i / 140 + k / 90) < 1.1
    patch = (32, 32, 32)
    corners = windows_over(wedge, patch, overlap_share)
    seen = np.zeros(wedge.shape, bool)
    for corner in corners:
        assert all(0 <= c <= n - p for c, n, p in zip(corner, wedge.shape, patch, strict=True))
        seen[tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))] = True
    assert not (wedge & ~seen).any()
    full = windows_over(np.ones_like(wedge), patch, overlap_share)
    assert len(corners) < len(touching(wedge, full, patch)) < len(full)


def test_no_region_needs_no_window():
    assert windows_over(np.zeros((40, 40, 40), bool), (32, 32, 32), 0.5) == []


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("orientation", ["stored", "RAS", "LPS"])
def test_turned_voxels_lie_where_they_lay(orientation, transpose):
    grid = TEST_GRIDS["LPS"]
    array = np.random.default_rng(0).normal(size=grid.shape)
    view, turned = oriented(array, grid, orientation, transpose)
    assert view.shape == turned.shape and np.shares_memory(view, array)
    for index in [(0, 0, 0), (3, 5, 7), (1, 0, 4)]:
        k, j, i = np.round(grid.to_ijk(turned.to_ras(np.array(index[::-1])))).astype(int)[::-1]
        assert view[index] == array[k, j, i]
