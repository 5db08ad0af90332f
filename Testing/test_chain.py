"""Refine models one after another, coarse to fine, with an oracle in the networks' place."""

import dataclasses

import numpy as np
import pytest
import torch
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, Ellipsoid, analytic_result, overlap
from LiverCascadeLib.cascade import Cascade, Options, load_cascade, segment
from LiverCascadeLib.errors import ModelError
from LiverCascadeLib.fusing import Opinion, fuse
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.loading import check_models
from LiverCascadeLib.models.cascade_file import read_cascade
from LiverCascadeLib.stages import Chain, chained
from tiny_models import Oracle, manifest, save_model

COARSE, FINE = (3.0, 3.0, 4.0), (1.5, 1.5, 2.0)
NOTHING = Ellipsoid((1e4, 0, 0), (1.0, 1.0, 1.0))
FORCED = Options(force=True)


def stage(bodies, spacing, **changes) -> Oracle:
    return Oracle(manifest("refine", spacing_mm=spacing, **changes), [list(group) for group in bodies])


def cascade_of(*refine) -> Cascade:
    locate = Oracle(manifest("locate", spacing_mm=(3.0, 3.0, 3.0)), [[LIVER]])
    return Cascade(locate, Chain(refine))


def run(cascade: Cascade, name: str = "RAS"):
    return segment(analytic_result(TEST_GRIDS[name]).volume, cascade, FORCED)


@pytest.mark.parametrize("name", TEST_GRIDS)
def test_a_chain_of_models_that_are_right_is_right(name):
    coarse, fine = stage(((LIVER,), LESIONS), COARSE), stage(((LIVER,), LESIONS), FINE)
    result, expected = run(cascade_of(coarse, fine), name), analytic_result(TEST_GRIDS[name])
    assert overlap(result.labels > 0, LIVER, TEST_GRIDS[name])[0] >= 0.985
    assert len(result.lesions) == len(expected.lesions)


def test_each_model_is_told_by_the_one_before_where_the_liver_is():
    half = Ellipsoid((60.0, -6.0, 11.0), (15.0, 15.0, 15.0))
    coarse, fine = stage(((half,), (NOTHING,)), COARSE), stage(((LIVER,), LESIONS), FINE)
    run(cascade_of(coarse, fine))
    (grid, prior), first = fine.asked[0], coarse.asked[0][1]
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    inside = half.contains(grid.to_ras(np.stack([i, j, k], axis=-1)))
    both = 2 * ((prior > 0.5).numpy() & inside).sum() / ((prior > 0.5).numpy().sum() + inside.sum())
    assert both > 0.9, "the fine model's prior is what the coarse one answered"
    assert (first > 0.5).sum() * np.prod(COARSE) > 2 * (prior > 0.5).sum() * np.prod(FINE)


def test_the_mean_decides_what_is_liver_and_what_is_lesion():
    grid = Grid((6, 5, 4), np.diag([2.0, 2.0, 2.0, 1.0]))

    def opinion(liver, lesion):
        return Opinion(torch.stack([torch.full(grid.shape, liver), torch.full(grid.shape, lesion)]), grid)

    both = fuse([opinion(0.6, 0.0), opinion(0.2, 0.6)], grid)
    assert np.allclose(both.lesion, 0.3, atol=1e-3)
    assert (both.classes == 1).all(), "0.4 liver, 0.3 lesion"
    assert (fuse([opinion(0.4, 0.1), opinion(0.1, 0.8)], grid).classes == 2).all()
    assert (fuse([opinion(0.1, 0.8), opinion(0.4, 0.1)], grid).classes == 2).all(), "whoever says it"
    outside = fuse([opinion(0.1, 0.0), opinion(0.2, 0.6)], grid)
    assert (outside.classes == 0).all(), "a lesion where together they see no liver is none"
    alone = fuse([Opinion(torch.full((1, *grid.shape), p), grid) for p in (0.9, 0.3)], grid)
    assert (alone.classes == 1).all() and alone.lesion is None


def test_a_model_without_lesions_hands_over_and_has_no_say():
    wrong = stage(
        ((Ellipsoid((60.0, -6.0, 11.0), (15.0, 15.0, 15.0)),),), COARSE, labels={"background": 0, "liver": 1}
    )
    fine = stage(((LIVER,), LESIONS), FINE)
    result = run(cascade_of(wrong, fine))
    assert len(wrong.asked) == len(fine.asked) == 1
    assert overlap(result.labels > 0, LIVER, TEST_GRIDS["RAS"])[0] >= 0.99


def test_disagreement_of_mirrored_copies_is_that_of_the_last():
    coarse, fine = stage(((LIVER,), LESIONS), COARSE), stage(((LIVER,), LESIONS), FINE)
    exact = fine.predict

    def predict(ct, prior, grid, progress):
        fine.spread = torch.full(grid.shape, 0.25)
        return exact(ct, prior, grid, progress)

    fine.predict = predict
    result = run(cascade_of(coarse, fine))
    spreads = [values["mirror_spread"] for values in result.evidence.values()]
    assert spreads == pytest.approx([0.25] * len(result.lesions), abs=1e-4)


def test_own_models_become_a_chain_from_coarse_to_fine_and_others_stay():
    fine, coarse, other = stage(((LIVER,),), FINE), stage(((LIVER,),), COARSE, margin_mm=33.0), object()
    refining = chained([fine, other, coarse])
    assert refining[1] is other and refining[0].members == (coarse, fine)
    assert refining[0].manifest.margin_mm == 33.0
    assert refining[0].manifest.id == fine.manifest.id
    assert chained([other, fine]) == (other, fine)


def test_a_folder_with_a_context_model_is_a_chain_that_names_all_its_weights(tmp_path):
    save_model(tmp_path / "locate", "locate")
    save_model(tmp_path / "refine", "refine", spacing_mm=FINE)
    save_model(tmp_path / "context", "refine", spacing_mm=COARSE, id="tiny-context")
    found = read_cascade(tmp_path)
    check_models(found)
    cascade = load_cascade(tmp_path, Options(device="cpu"))
    assert [member.manifest.spacing_mm for member in cascade.refine.members] == [COARSE, FINE]
    assert len(set(cascade.weights)) >= 2 and len(cascade.weights) == 3
    asked = dataclasses.replace(FORCED, min_liver_ml=0.001)
    result = segment(analytic_result(TEST_GRIDS["thick slices"]).volume, cascade, asked)
    ids = [model["id"] for model in result.provenance["models"]]
    assert ids == ["tiny-locate", "tiny-context", "tiny-refine"]
    save_model(tmp_path / "context", "locate")
    with pytest.raises(ModelError, match="expected 'refine'"):
        check_models(read_cascade(tmp_path))
