"""The cascade from end to end, with an oracle in the networks' place: what is left is geometry."""

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, Ellipsoid, analytic_result, overlap
from LiverCascadeLib.cascade import Cascade, Options, load_cascade, segment
from LiverCascadeLib.errors import Cancelled, ModelError
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.postprocess import CleanUp
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.result import Result
from LiverCascadeLib.volume import write_labels
from tiny_models import Oracle, manifest, save_model


def oracle_cascade(bodies=((LIVER,), LESIONS), **changes) -> Cascade:
    """A cascade whose stages know where the bodies are."""
    liver, lesions = (list(group) for group in bodies)
    fine = {"spacing_mm": (1.5, 1.5, 2.0), **changes}
    return Cascade(
        Oracle(manifest("locate", spacing_mm=(3.0, 3.0, 3.0)), [liver]),
        Oracle(manifest("refine", **fine), [liver, lesions]),
    )


# The analytic bodies lie in water without any air, which preflight rightly takes for no CT.
FORCED = Options(force=True)


def run(grid: Grid, cascade: Cascade | None = None, options: Options = FORCED) -> Result:
    return segment(analytic_result(grid).volume, cascade or oracle_cascade(), options)


@pytest.fixture(scope="module")
def results():
    """One run per test grid; the tests below look at them from different sides."""
    return {name: run(grid) for name, grid in TEST_GRIDS.items()}


@pytest.mark.parametrize("name", TEST_GRIDS)
def test_segments_read_back_from_mrml_cover_the_bodies(results, name):
    from LiverCascadeLib import scene as mrml

    result, grid = results[name], TEST_GRIDS[name]
    scene = mrml.createScene()
    node = mrml.segmentationFromResult(result, scene, mrml.nodeFromVolume(result.volume, scene))
    labels = mrml.resultLabelsFromSegmentation(node, grid)
    dice, off = overlap(labels > 0, LIVER, grid)
    assert dice >= 0.99
    assert off <= 0.25
    expected = analytic_result(grid)
    assert len(result.lesions) == len(expected.lesions)
    for found, true in zip(result.lesions, expected.lesions, strict=True):
        # A sphere of 12 mm radius on voxels of 5 mm has a coarse surface: its centroid is the sharper judge.
        step = np.abs(grid.to_ijk(found.centroid_ras) - grid.to_ijk(true.centroid_ras)).max()
        assert step <= 0.25
        assert (
            2
            * ((labels == found.label) & (expected.labels == true.label)).sum()
            / (found.voxel_count + true.voxel_count)
            >= 0.95
        )


@pytest.mark.parametrize("name", TEST_GRIDS)
def test_label_files_open_on_the_same_grid_everywhere(results, name, tmp_path):
    result, grid = results[name], TEST_GRIDS[name]
    path = tmp_path / "labels.nii.gz"
    write_labels(path, result.labels, grid)
    image = sitk.ReadImage(str(path))
    read = Grid.from_lps(image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    assert read.is_close(grid)
    assert np.array_equal(sitk.GetArrayFromImage(image), result.labels)
    assert Grid(grid.size, nibabel.load(path).affine).is_close(grid)


def test_the_refine_stage_sees_the_box_with_its_margin_and_a_soft_prior(results):
    cascade = oracle_cascade()
    run(TEST_GRIDS["RAS"], cascade)
    fine, prior = cascade.refine.asked[0]
    assert np.allclose(fine.spacing, (1.5, 1.5, 2.0))
    corners = np.array([fine.to_ras((0, 0, 0)), fine.to_ras(np.array(fine.size) - 1)])
    k, j, i = np.nonzero(analytic_result(TEST_GRIDS["RAS"]).labels)
    body = TEST_GRIDS["RAS"].to_ras(np.stack([i, j, k], axis=-1))
    margin = np.minimum(body.min(axis=0) - corners[0], corners[1] - body.max(axis=0))
    assert (margin >= 6).all()  # 10 mm asked; the volume itself may end before
    assert 0.2 < float(((prior > 0.05) & (prior < 0.95)).float().sum() / (prior > 0.5).float().sum()) < 5


def test_the_prior_can_be_handed_over_as_a_mask():
    cascade = oracle_cascade()
    result = run(TEST_GRIDS["RAS"], cascade, Options(force=True, binary_prior=True))
    assert set(torch.unique(cascade.refine.asked[0][1]).tolist()) == {0.0, 1.0}
    assert result.provenance["parameters"]["binary_prior"] is True


def test_the_margin_can_be_set():
    small, large = oracle_cascade(), oracle_cascade()
    run(TEST_GRIDS["LPS"], small, Options(force=True, margin_mm=0))
    run(TEST_GRIDS["LPS"], large, Options(force=True, margin_mm=25))
    assert np.prod(small.refine.asked[0][0].extent_mm) < np.prod(large.refine.asked[0][0].extent_mm)


def test_only_the_component_with_most_probability_is_taken_for_the_liver():
    spleen = Ellipsoid((-60.0, -6.0, 11.0), (22.0, 20.0, 20.0))
    grid = Grid((150, 60, 50), np.array([[2.0, 0, 0, -120], [0, 2, 0, -60], [0, 0, 2, -40], [0, 0, 0, 1]]))
    cascade = oracle_cascade(bodies=((LIVER, spleen), LESIONS))
    result = run(grid, cascade)
    assert overlap(result.labels > 0, LIVER, grid)[0] >= 0.99


def test_nothing_that_looks_like_a_liver_gives_an_empty_result_and_says_so():
    speck = Ellipsoid((32.0, -6.0, 11.0), (12.0, 12.0, 12.0))  # 7 mL
    result = run(TEST_GRIDS["RAS"], oracle_cascade(bodies=((speck,), ())))
    assert not result.labels.any()
    assert result.lesions == ()
    assert result.summary == "No liver was found."
    assert "no-liver" in [finding.code for finding in result.findings]


def test_values_that_are_no_ct_are_not_segmented_unless_forced():
    cascade = oracle_cascade()
    result = run(TEST_GRIDS["RAS"], cascade, Options())
    assert not result.labels.any()
    assert "not-segmented" in [finding.code for finding in result.findings]
    assert cascade.locate.asked == []
    assert run(TEST_GRIDS["RAS"], cascade, Options(force=True)).labels.any()


def test_a_liver_that_the_refine_stage_does_not_confirm_is_no_liver():
    cascade = oracle_cascade()
    cascade.refine.bodies = [[], []]
    cascade.refine.bodies[0] = [Ellipsoid((1e4, 0, 0), (1.0, 1.0, 1.0))]
    cascade.refine.bodies[1] = [Ellipsoid((1e4, 0, 0), (1.0, 1.0, 1.0))]
    result = run(TEST_GRIDS["RAS"], cascade)
    assert not result.labels.any()
    assert "no-liver" in [finding.code for finding in result.findings]


def test_a_liver_without_lesions_says_plainly_that_there_are_none():
    cascade = oracle_cascade()
    cascade.refine.bodies[1] = [Ellipsoid((1e4, 0, 0), (1.0, 1.0, 1.0))]
    assert run(TEST_GRIDS["RAS"], cascade).summary.endswith("no lesion found.")


def test_a_refine_model_without_a_lesion_label_gives_a_liver():
    cascade = oracle_cascade(labels={"background": 0, "liver": 1})
    cascade.refine.bodies = [[LIVER]]
    result = run(TEST_GRIDS["RAS"], cascade)
    assert overlap(result.labels > 0, LIVER, TEST_GRIDS["RAS"])[0] >= 0.99
    assert result.lesions == ()


def test_small_lesions_are_dropped_only_when_asked_for():
    everything = run(TEST_GRIDS["RAS"], options=Options(force=True, clean_up=CleanUp(10**6, 1e9)))
    assert everything.lesions == ()


def test_cancelling_works_in_every_stage():
    stages = []
    run_through = Progress(lambda stage, fraction: stages.append(stage))
    segment(analytic_result(TEST_GRIDS["RAS"]).volume, oracle_cascade(), FORCED, progress=run_through)
    for name in dict.fromkeys(stages):
        current = []
        progress = Progress(lambda stage, fraction, c=current: c.append(stage), lambda c=current, n=name: n in c)
        with pytest.raises(Cancelled):
            segment(analytic_result(TEST_GRIDS["RAS"]).volume, oracle_cascade(), FORCED, progress=progress)
            progress.update(1.0)  # the last stage has no update after its end


def test_the_result_names_models_software_parameters_and_input():
    result = run(TEST_GRIDS["oblique"])
    provenance = json.loads(json.dumps(result.provenance))
    assert [model["id"] for model in provenance["models"]] == ["tiny-locate", "tiny-refine"]
    assert {"LiverCascade", "torch", "monai", "SimpleITK", "numpy", "Python"} <= set(provenance["software"])
    assert len(provenance["input"]["voxels_sha256"]) == 64
    assert {"check", "locate", "refine", "fuse", "clean"} <= set(result.timings)


def test_models_are_loaded_from_a_folder_and_their_roles_are_checked(tmp_path):
    for role in ("locate", "refine"):
        save_model(tmp_path / role, role)
    cascade = load_cascade(tmp_path, Options(device="cpu", overlap=0.25))
    assert cascade.refine.overlap == 0.25
    result = segment(
        analytic_result(TEST_GRIDS["thick slices"]).volume, cascade, Options(force=True, min_liver_ml=0.001)
    )
    assert result.labels.shape == TEST_GRIDS["thick slices"].shape
    save_model(tmp_path / "locate", "refine")
    with pytest.raises(ModelError, match="expected 'locate'"):
        load_cascade(tmp_path, Options(device="cpu"))


def test_the_engine_starts_without_slicer_and_without_torch_at_import():
    heavy = "{'torch', 'monai', 'slicer', 'vtk'}"
    code = f"import sys, LiverCascadeLib.cascade, LiverCascadeLib.cli; print({heavy} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
