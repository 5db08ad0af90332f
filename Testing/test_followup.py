"""Studies compared: registration, order, refusals, lesions followed through time, files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from analytic_bodies import TEST_GRIDS, Ellipsoid, analytic_result
from followup_bench import verdict
from followup_pairs import Case, Pair, Recipe, make_pair
from followup_studies import body, small_pair
from LiverCascadeLib.errors import Cancelled, InputError
from LiverCascadeLib.followup import (
    Change,
    PoorRegistration,
    as_record,
    as_section,
    check_comparable,
    follow_up,
    liver_sample,
    ordered,
    register,
    study_of,
)
from LiverCascadeLib.followup.comparison import side_steps
from LiverCascadeLib.followup.deformation import Deformation
from LiverCascadeLib.followup.files import write_files
from LiverCascadeLib.followup.remote import (
    compare_message,
    comparison_command,
    side_as_dict,
    side_from_dict,
    step_as_dict,
    step_from_dict,
)
from LiverCascadeLib.followup.study import iso_date
from LiverCascadeLib.geometry import Box, Grid
from LiverCascadeLib.jobs import LineDecoder, encode
from LiverCascadeLib.lesions.assess import LesionNote, assess
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.report.files import safe_cell
from LiverCascadeLib.steps import exhausted
from LiverCascadeLib.volume import Volume


def study(case: Case, name: str, date: str = "", **source: str):
    """A time point of a case."""
    volume = replace(case.volume, name=name, source={**case.volume.source, "study_date": date, **source})
    return study_of(assess(volume, case.labels))


@pytest.fixture(scope="module")
def pair() -> Pair:
    return small_pair()


@pytest.fixture(scope="module")
def found(pair):
    return follow_up([study(pair.earlier, "first", "20260105"), study(pair.later, "second", "20260309")])


def test_every_lesion_of_a_pair_is_matched_and_named_rightly(pair, found):
    right, total, matches, changes = verdict(pair, found)
    assert (right, matches, changes) == (total, [], []) and total == 5


def test_registration_brings_livers_onto_each_other_without_folding(pair, found):
    quality = found.steps[0].registration.quality
    assert quality.dice > 0.97 and quality.dice > quality.rigid_dice + 0.01
    assert quality.surface_mm < 2.0 and quality.smallest_jacobian > 0
    deformation = found.steps[0].registration.deformation
    error = np.linalg.norm(deformation.apply(pair.points) - pair.images, axis=1)
    # This liver is smooth and round, without a vessel: only its surface and the lesions tell where tissue is.
    assert error.mean() < 5.0
    assert deformation.jacobian().min() > 0


def test_same_input_gives_the_same_registration(pair, found):
    again = follow_up(list(found.studies))
    one, other = (f.steps[0].registration.deformation.displacement for f in (found, again))
    assert np.array_equal(one, other)


def test_real_liver_with_vessels_is_followed_through_a_deformation(shared_data):
    from followup_bench import compared, read_case
    from followup_pairs import cropped

    shared_data("chaos_03/ct.nii.gz")
    pair = make_pair(cropped(read_case("chaos_03")), Recipe(3, amplitude_mm=15.0))
    right, total, _, changes = verdict(pair, compared(pair))
    assert right >= 0.95 * total and not changes


def test_volumes_and_diameters_are_those_of_each_study_and_not_of_the_deformation(pair, found):
    for link in pair.links:
        if link.fate not in ("grown", "shrunk", "stable"):
            continue
        track = found.track_of(0, link.before[0])
        for index, case, labels in ((0, pair.earlier, link.before), (1, pair.later, link.after)):
            true_ml = (case.labels == labels[0]).sum() * case.volume.grid.voxel_volume_mm3 / 1000
            assert track.volume_ml(index) == pytest.approx(true_ml)


def test_studies_in_the_wrong_order_are_sorted_by_date_and_that_is_said(pair):
    one, other = study(pair.earlier, "first", "20260105"), study(pair.later, "second", "20260309")
    sorted_studies, findings = ordered([other, one])
    assert [s.date for s in sorted_studies] == ["2026-01-05", "2026-03-09"]
    assert [f.code for f in findings] == ["studies-sorted"] and "2026-01-05" in findings[0].message


def test_without_dates_the_first_is_the_baseline_and_that_is_said(pair):
    one, other = study(pair.earlier, "a"), study(pair.later, "a", "20260309")
    studies, findings = ordered([one, other])
    assert studies[0].assessment is one.assessment
    assert [f.code for f in findings] == ["studies-without-date"]
    assert len({s.label for s in studies}) == 2


@pytest.mark.parametrize(
    ("text", "date"),
    [("20260131", "2026-01-31"), ("2026-01-31", "2026-01-31"), ("31.1.2026", ""), ("20261301", ""), ("", "")],
)
def test_dates_are_understood_or_left_out(text, date):
    assert iso_date(text) == date


def test_another_patient_is_refused_unless_forced(pair):
    studies = [study(pair.earlier, "a", patient_id="P1"), study(pair.later, "b", patient_id="P2")]
    with pytest.raises(InputError, match="different patient IDs"):
        check_comparable(studies)
    assert [f.code for f in check_comparable(studies, force=True)] == ["other-patient"]
    assert not check_comparable([study(pair.earlier, "a", patient_id="P1"), study(pair.later, "b")])


def test_same_series_twice_is_refused_even_if_forced(pair):
    uid = {"series_instance_uid": "1.2.3"}
    for twice in (
        [study(pair.earlier, "a"), study(pair.earlier, "b")],
        [study(pair.earlier, "a", **uid), study(pair.later, "b", **uid)],
    ):
        with pytest.raises(InputError, match="same series"):
            check_comparable(twice, force=True)


def test_study_without_a_liver_and_livers_of_another_size_are_refused(pair):
    empty = Case(pair.later.volume, np.zeros_like(pair.later.labels))
    with pytest.raises(InputError, match="no liver"):
        check_comparable([study(pair.earlier, "a"), study(empty, "b")], force=True)
    labels = pair.later.labels.copy()
    labels[:, : labels.shape[1] // 2] = 0
    labels[: labels.shape[0] // 2] = 0
    with pytest.raises(InputError, match="differ too much in size"):
        check_comparable([study(pair.earlier, "a"), study(Case(pair.later.volume, labels), "b")])


def test_liver_of_another_person_is_refused_by_its_shape_unless_the_patient_is_known_to_be_the_same():
    grid = TEST_GRIDS["LPS"]
    one, other = (
        analytic_result(grid, Ellipsoid((32.0, -6.0, 11.0), radii), ())
        for radii in ((64.0, 48.0, 36.0), (40.0, 52.0, 44.0))
    )
    cases = [Case(result.volume, result.labels) for result in (one, other)]
    unknown = [study(case, name) for case, name in zip(cases, "ab", strict=True)]
    with pytest.raises(InputError, match="differ more in shape"):
        follow_up(unknown)
    known = [study(case, name, patient_id="P1") for case, name in zip(cases, "ab", strict=True)]
    assert "liver-shapes-differ" in {finding.code for finding in follow_up(known).findings}


def test_one_study_is_no_comparison(pair):
    with pytest.raises(InputError, match="2 to"):
        follow_up([study(pair.earlier, "a")])


def cut_out(case: Case, low: float, high: float) -> Case:
    """The slices of a case from a share of its height to another."""
    size = case.volume.grid.size
    box = Box((0, 0, int(low * size[2])), (size[0], size[1], int(high * size[2])))
    array = np.ascontiguousarray(case.volume.array[box.slices])
    return Case(Volume(array, case.volume.grid.crop(box), case.volume.name), case.labels[box.slices].copy())


def test_livers_without_a_common_part_are_refused():
    case = body()
    lower, upper = cut_out(case, 0.0, 0.42), cut_out(case, 0.58, 1.0)
    with pytest.raises(PoorRegistration, match=r"too little of the liver|could not be brought"):
        register(*(liver_sample(c.volume, c.labels) for c in (lower, upper)))


def test_shapes_that_do_not_fit_are_refused():
    case = body()
    labels = np.zeros_like(case.labels)
    rng = np.random.default_rng(1)
    for _ in range(40):  # scattered crumbs where a liver should be
        k, j, i = (int(rng.integers(3, n - 3)) for n in labels.shape)
        labels[k - 1 : k + 2, j - 3 : j + 3, i - 3 : i + 3] = 1
    with pytest.raises(PoorRegistration, match="could not be brought"):
        register(liver_sample(case.volume, case.labels), liver_sample(case.volume, labels))


def test_lesion_beyond_the_other_volume_is_neither_new_nor_resolved(pair):
    fresh = next(link for link in pair.links if link.fate == "new").after[0]
    place = np.mean(np.argwhere(pair.later.labels == fresh)[:, ::-1], axis=0)
    nearest = np.linalg.norm(pair.images - pair.later.volume.grid.to_ras(place), axis=1).argmin()
    share = (pair.earlier.volume.grid.to_ijk(pair.points[nearest])[2] + 0.5) / pair.earlier.volume.grid.size[2]
    part = (0.0, share - 0.16) if share > 0.5 else (share + 0.16, 1.0)
    result = follow_up([study(cut_out(pair.earlier, *part), "first"), study(pair.later, "second")])
    assert any(finding.code == "liver-partly-covered" for finding in result.findings)
    assert result.track_of(1, fresh).changes[1] is Change.NOT_COVERED
    assert not any("new" in judged.rule.split() and judged.category for judged in result.judged)


def test_three_time_points_have_a_nadir_and_a_lesion_keeps_its_site(pair):
    labels = pair.later.labels.copy()
    gone = next(link for link in pair.links if link.fate == "stable").after[0]
    labels[labels == gone] = 1
    third_volume = replace(pair.later.volume, array=pair.later.volume.array + np.int16(1))
    studies = [
        study(pair.earlier, "first", "20260105"),
        study(pair.later, "second", "20260309"),
        study(Case(third_volume, labels), "third", "20260501"),
    ]
    result = follow_up([studies[2], studies[0], studies[1]])
    assert len(result.judged) == 3 and result.judged[2].nadir_mm == min(j.sum_mm for j in result.judged[:2])
    site = result.track_of(1, gone)
    assert site.lesions[0] and site.lesions[1] and not site.lesions[2] and site.changes[2] is Change.RESOLVED
    others = [track for track in result.tracks if track.lesions[1] and track is not site]
    assert all(track.changes[2] is Change.STABLE for track in others)
    fresh = next(link for link in pair.links if link.fate == "new").after[0]
    assert result.track_of(1, fresh).changes[:2] == (None, Change.NEW)
    assert result.judged[2].category == "progressive disease", "a lesion that is new since the baseline stays new"
    section = as_section(result)
    assert {len(row) for row in section["rows"]} == {len(section["columns"])}


def test_reader_chooses_targets_and_wrong_ones_are_refused(pair, found):
    assert not found.chosen and 1 <= len(found.targets) <= 2
    shrunk = next(link for link in pair.links if link.fate == "shrunk").before[0]
    chosen = found.with_targets([shrunk])
    assert chosen.targets == (shrunk,) and chosen.chosen
    assert chosen.judged[0].sum_mm == pytest.approx(found.track_of(0, shrunk).diameter_mm(0))
    assert chosen.with_targets(None).targets == found.targets
    with pytest.raises(InputError, match="no lesion 99"):
        found.with_targets([100])
    every = [lesion.label for lesion in found.studies[0].assessment.lesions]
    with pytest.raises(InputError, match="at most 2"):
        found.with_targets(every)


def test_files_say_the_same_as_the_comparison(found, tmp_path):
    write_files(found, tmp_path, safe_cell)
    record = json.loads((tmp_path / "followup.json").read_text())
    assert record["format"] == "LiverCascade follow-up" and record["format_version"] == 1
    assert record == json.loads(json.dumps(as_record(found)))
    assert len(record["sites"]) == len(found.tracks)
    with (tmp_path / "followup.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * len(found.tracks)
    new = [row for row in rows if row["change"] == "new"]
    assert len(new) == 1 and new[0]["long_axis_change_mm"] == ""


def test_formulas_in_names_are_harmless_in_csv(pair, tmp_path):
    first = assess(pair.earlier.volume, pair.earlier.labels, lesions=[LesionNote(2, "=HYPERLINK(1)")])
    result = follow_up([study_of(first, name="+first"), study(pair.later, "@later")])
    write_files(result, tmp_path, safe_cell)
    with (tmp_path / "followup.csv").open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    texts = [cell for cell in cells if not cell.lstrip("-").replace(".", "").isdigit()]
    assert any("HYPERLINK" in cell for cell in cells) and not [c for c in texts if c[:1] in ("=", "+", "@")]


def test_report_gets_plain_values_only(found):
    section = as_section(found)
    assert set(section) == {"title", "sentences", "columns", "rows", "pictures"}
    assert all(isinstance(cell, str) for row in section["rows"] for cell in row)
    assert any("Only the liver is judged" in sentence for sentence in section["sentences"])
    json.dumps(section)


def test_cancelling_ends_the_registration(pair):
    asked = []

    def is_cancelled() -> bool:
        asked.append(1)
        return len(asked) > 6

    with pytest.raises(Cancelled):
        follow_up([study(pair.earlier, "a"), study(pair.later, "b")], progress=Progress(is_cancelled=is_cancelled))


def test_deformation_is_undone_by_its_inverse(found):
    deformation = found.steps[0].registration.deformation
    points = np.random.default_rng(3).uniform(-30, 60, (200, 3))
    assert np.abs(deformation.invert(deformation.apply(points)) - points).max() < 0.2
    assert deformation.apply(points[0]).shape == (3,)


def test_jacobian_of_a_scaling_is_its_volume_factor():
    grid = Grid((9, 8, 7), np.array([[0, -2.0, 0, 5], [3.0, 0, 0, 1], [0, 0, 4.0, 2], [0, 0, 0, 1]]))
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    ras = grid.to_ras(np.stack([i, j, k], axis=-1))
    stretched = Deformation(grid, (ras * (0.1, 0.2, -0.3)).astype(np.float32))
    assert stretched.jacobian() == pytest.approx(1.1 * 1.2 * 0.7, rel=1e-4)
    assert stretched.affine()[:3, :3] == pytest.approx(np.diag([1.1, 1.2, 0.7]), abs=1e-4)


def test_sides_and_steps_survive_the_pipe(found):
    side = exhausted(side_steps(found.studies[0]))
    back = side_from_dict(json.loads(encode(side_as_dict(side))))
    one, other = side.sample, back.sample
    assert np.array_equal(one.hu, other.hu) and np.array_equal(one.liver, other.liver) and one.cut == other.cut
    assert all(np.array_equal(a.points, b.points) for a, b in zip(side.bodies, back.bodies, strict=True))
    step = found.steps[0]
    again = step_from_dict(json.loads(encode(step_as_dict(step))))
    assert again.groups == step.groups and again.registration.quality == step.registration.quality
    displacements = (s.registration.deformation.displacement for s in (step, again))
    assert np.array_equal(*displacements)


def test_liver_that_the_volume_cuts_is_known_to_go_on(pair):
    case = cut_out(pair.earlier, 0.3, 1.0)
    sample = liver_sample(case.volume, case.labels)
    assert sample.cut[2][0] and sample.mask[0].any(), "slices were taken away at the feet"
    assert sample.grid.spacing == pytest.approx(3.0)
    volume = sample.liver.sum() / 255 * sample.grid.voxel_volume_mm3
    assert volume == pytest.approx((case.labels > 0).sum() * case.volume.grid.voxel_volume_mm3, rel=0.03)


def test_process_compares_answers_in_words_and_ends_with_its_parent(found):
    program, arguments, additions = comparison_command()
    child = subprocess.Popen(
        [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **additions}
    )
    try:
        sides = [exhausted(side_steps(study)) for study in found.studies]
        child.stdin.write(encode({"command": "compare", "id": "broken"}))
        child.stdin.write(encode(compare_message("good", *sides)))
        child.stdin.flush()
        decoder, events = LineDecoder(), []
        while not any(event["event"] == "done" for event in events):
            data = child.stdout.read1(1 << 16)
            assert data, "the process ended early"
            events += decoder.feed(data)
        assert events[0]["event"] == "ready"
        assert any(e["event"] == "error" and e["id"] == "broken" and e["message"] for e in events)
        assert any(e["event"] == "progress" and e["id"] == "good" for e in events)
        assert step_from_dict(events[-1]["step"]).groups == found.steps[0].groups
        child.stdin.close()
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
