"""Proofs: robustness on real scans, the synthetic held-out set, pictures of failures, and the card that shows them."""

import dataclasses
import json
from io import BytesIO

import numpy as np
import pytest
import torch
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, Ellipsoid, analytic_result, rasterize
from LiverCascadeLib.cascade import Cascade, Options
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.volume import Volume
from LiverCascadeTrainingLib import cli, held_out, livers, measure
from LiverCascadeTrainingLib.anatomy import Tissue
from LiverCascadeTrainingLib.card_proofs import proof_sections
from LiverCascadeTrainingLib.cards import card_text
from LiverCascadeTrainingLib.held_out import HeldOutScan
from LiverCascadeTrainingLib.lesions import LesionRanges
from LiverCascadeTrainingLib.looks import sample_tissues
from LiverCascadeTrainingLib.measure import Reference, reference
from LiverCascadeTrainingLib.names import SettingError
from LiverCascadeTrainingLib.proofs import failures, held_out_set, robustness
from LiverCascadeTrainingLib.proofs.perturbations import Perturbation
from LiverCascadeTrainingLib.proofs.pictures import MOST_BYTES, shrunk
from LiverCascadeTrainingLib.proofs.records import Records
from PIL import Image
from test_house import ROOT
from tiny_models import Oracle, manifest, save_pair

GRID = TEST_GRIDS["RAS"]
CONFIG = ROOT / "LiverCascadeTraining" / "Resources" / "Evaluation" / "held-out.yaml"
# Found where there is no lesion.
FALSE = Ellipsoid((70.0, -20.0, -5.0), (8.0, 8.0, 8.0))


def body_scan(lesions: bool = True) -> HeldOutScan:
    """The analytic bodies as a scan: soft tissue around the liver, air around that, noise everywhere."""
    truth = analytic_result(GRID)
    array = np.where(rasterize(Ellipsoid(LIVER.center_ras, (85.0, 62.0, 200.0)), GRID), 40, -1000)
    array = np.where(truth.labels > 0, truth.volume.array, array) + np.random.default_rng(0).normal(0, 9, GRID.shape)
    labels = truth.labels if lesions else np.minimum(truth.labels, 1)
    return HeldOutScan(Volume(array.astype(np.int16), GRID, "body"), labels, {"liver": "an ellipsoid"})


def knowing(*lesions: Ellipsoid) -> Cascade:
    """Networks that know the liver, and take some places for lesions."""
    nowhere = Ellipsoid((1e4, 0, 0), (1.0, 1.0, 1.0))
    return Cascade(
        Oracle(manifest("locate"), [[LIVER]]), Oracle(manifest("refine"), [[LIVER], list(lesions) or [nowhere]])
    )


@pytest.fixture
def models(tmp_path):
    return save_pair(tmp_path / "models")


# --- what is kept -----------------------------------------------------------------------------------------------


def test_a_result_is_taken_up_only_where_everything_behind_it_is_the_same(tmp_path):
    records = Records(tmp_path / "runs", {"weights": ["a", "b"]})
    assert records.get("a case--flip i") is None
    records.put("a case--flip i", {"liver_dice": 0.5})
    assert records.get("a case--flip i") == {"liver_dice": 0.5}
    assert Records(tmp_path / "runs", {"weights": ["a", "c"]}).get("a case--flip i") is None
    assert records.get("a case--flip-i") is None, "another name that gives the same file is another result"
    assert [path.name for path in records.folder.iterdir()] == ["a-case--flip-i.json"]
    records.path("a case--flip i").write_text("{")
    with pytest.raises(InputError, match="Delete it"):
        records.get("a case--flip i")


# --- robustness -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "findings", "verdict"),
    [
        (0.96, [], "holds"),
        (0.94, [], "holds"),
        (0.93, [], "FAILS"),
        (0.93, ["metal"], "FAILS"),
        (0.93, ["thick-slices"], "explained"),
        (0.99, ["thick-slices"], "holds"),
    ],
)
def test_a_drop_needs_a_finding_that_says_why(after, findings, verdict):
    before = {"liver_dice": 0.96, "findings": {"liver-cut-top": "cut"}}
    said = {code: "so" for code in findings}
    cell = robustness.judged(before, {"liver_dice": after, "findings": said}, ("thick-slices",))
    assert cell == {"drop": round(0.96 - after, 4), "findings": findings, "verdict": verdict}


def test_findings_of_the_scan_itself_are_not_those_of_the_change_and_explain_nothing():
    before = {"liver_dice": 0.96, "findings": {"liver-cut-top": "by 20 cm²", "thick-slices": "6 mm"}}
    cell = robustness.judged(before, {**before, "liver_dice": 0.9}, ("thick-slices",))
    assert cell["findings"] == [] and cell["verdict"] == "FAILS"


def test_a_finding_of_the_scan_that_now_says_something_else_explains_a_drop():
    before = {"liver_dice": 0.96, "findings": {"liver-cut-top": "by 20 cm²"}}
    after = {"liver_dice": 0.9, "findings": {"liver-cut-top": "by 90 cm²"}}
    cell = robustness.judged(before, after, ("liver-cut-top",))
    assert cell["findings"] == ["liver-cut-top"] and cell["verdict"] == "explained"
    assert robustness.judged(before, after, ("liver-cut-bottom",))["verdict"] == "FAILS"
    assert robustness.judged(before, {**after, "liver_dice": 0.95}, ("liver-cut-top",))["findings"] == []


@pytest.fixture
def known_cases(monkeypatch):
    """Cases that the networks know; counts how often they were asked."""
    asked = []

    def segment(volume, cascade, options):
        asked.append(volume)
        return real(volume, cascade, dataclasses.replace(options, force=True))

    real = robustness.segment
    scan = body_scan()
    case = Reference(scan.volume, scan.truth.astype(np.uint8), "made up", True, True)
    for module in (robustness, failures):
        monkeypatch.setattr(module, "segment", segment)
        monkeypatch.setattr(module, "load_cascade", lambda models, options: knowing(*LESIONS))
        monkeypatch.setattr(module, "reference", lambda data, name: case)
    moved = Perturbation("moved", "wrong liver", lambda v, liver, rng: (v, np.roll(liver, 8, axis=2)))
    told = Perturbation("told", "wrong liver, told", moved.change, ("no-orientation", "identity-affine"))
    monkeypatch.setattr(robustness, "BY_NAME", {**robustness.BY_NAME, "moved": moved, "told": told})
    return asked


def test_the_table_says_what_holds_and_what_fails_and_what_was_run_is_not_run_again(known_cases, tmp_path, models):
    names = ("flip-j", "rotate-k", "slices-3mm", "moved")
    request = robustness.Request(models, tmp_path, tmp_path / "out", ("one", "two"), names)
    lines = []
    table = robustness.run_robustness(request, lines.append)
    assert len(known_cases) == len(lines) == 10
    assert [row["verdict"] for row in table["rows"]] == ["holds", "holds", "holds", "FAILS"]
    assert all(abs(row["cases"]["two"]["drop"]) < 0.005 for row in table["rows"][:2])
    assert table["cases"]["one"]["liver_dice"] > 0.97 and table["cases"]["one"]["note"] == "made up"
    assert json.loads((tmp_path / "out" / "robustness.json").read_text())["rows"] == table["rows"]
    text = (tmp_path / "out" / "robustness.md").read_text(encoding="utf-8")
    assert "| wrong liver | **−" in text and text.count("holds") == 3
    more = dataclasses.replace(request, perturbations=(*names, "shift-plus"))
    robustness.run_robustness(more, lines.append)
    assert len(known_cases) == 12, "the new one only, once for each case"


def test_the_card_shows_the_table_and_the_pictures_of_failures(known_cases, tmp_path, models):
    names = ("flip-j", "moved")
    request = robustness.Request(models, tmp_path, tmp_path / "out", ("one",), names)
    table = robustness.run_robustness(request, lambda text: None)
    pictures = failures.failures_of_robustness(request, table, lambda text: None)
    assert [picture.file for picture in pictures] == [failures.REAL_FILE, failures.CHANGED_FILE]
    assert "wrong liver" in pictures[1].text
    from LiverCascadeTrainingLib.proofs.pictures import into_model

    robustness.apply_robustness(models, table)
    into_model(models, pictures)
    card = (models / "refine" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card == card_text(load_manifest(models / "refine"))
    for title in ("## Robustness", "## Failures", "## What it must not be used for", "## Limits"):
        assert title in card
    assert "made up" in card and "FAILS" in card and "Synthetic held-out set" not in card
    for picture in pictures:
        data = (models / "refine" / picture.file).read_bytes()
        assert f"({picture.file})" in card and len(data) <= MOST_BYTES
        assert Image.open(BytesIO(data)).width > 300
    assert max(map(len, (line for line in card.splitlines() if not line.startswith(("|", "!"))))) < 140


def test_a_card_without_proofs_has_none_of_their_sections():
    text = card_text(manifest("refine"))
    assert "Robustness" not in text and "must not be used" not in text


def test_unknown_names_are_refused_before_anything_is_run(tmp_path, models, capsys):
    start = ["robustness", "--models", str(models), "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    assert cli.main([*start, "--only", "flip-x"]) == SettingError.exit_code
    assert "flip-i" in capsys.readouterr().err
    assert cli.main([*start, "--cases", "lits_001"]) == SettingError.exit_code
    assert "lits_000" in capsys.readouterr().err
    assert cli.main([*start, "--cases", "chaos_03"]) == InputError.exit_code
    assert "chaos_03" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_case_kept_for_the_last_look_is_not_among_the_default_ones():
    assert measure.HELD_OUT not in robustness.DEFAULT_CASES and measure.EXAMPLE not in robustness.DEFAULT_CASES
    with pytest.raises(SettingError):
        reference(ROOT, "nothing")


def test_the_command_runs_the_embedded_example_and_writes_the_card(tmp_path, capsys):
    models = tmp_path / "models"
    from tiny_models import save_model

    # With a context model, as the embedded cascade has one: the card names the weights of all three.
    for name, role in (("locate", "locate"), ("context", "refine"), ("refine", "refine")):
        save_model(models / name, role, spacing_mm=(12.0, 12.0, 12.0))
    arguments = ["robustness", "--models", str(models), "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    assert cli.main([*arguments, "--cases", "embedded example", "--only", "flip-i", "--apply", "--threads", "1"]) == 0
    assert "1 perturbations of 1 cases" in capsys.readouterr().out
    card = (models / "refine" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "## Robustness" in card
    assert all(load_manifest(models / name).weights_sha256[:12] in card for name in ("locate", "context", "refine"))


# --- the synthetic held-out set ---------------------------------------------------------------------------------


def test_the_committed_set_has_two_hundred_scans_of_its_own():
    config = held_out_set.load_config(CONFIG)
    assert config.cases == 200 and config.seed not in held_out_set.OTHER_SEEDS
    healthy = [number for number in range(200) if config.is_healthy(number)]
    assert len(healthy) == 50 and healthy[0] == 3
    assert config.ranges(3).chance == 0 and config.ranges(4).chance == 1


@pytest.mark.parametrize("seed", [2026, 2029, 4711])
def test_a_set_drawn_with_a_seed_of_something_else_is_refused(seed):
    with pytest.raises(SettingError, match="training or calibration"):
        held_out_set.HeldOutConfig(seed=seed)


def test_no_committed_training_uses_the_seed_of_the_set():
    config = held_out_set.load_config(CONFIG)
    configurations = (ROOT / "LiverCascadeTraining" / "Resources").glob("C*/*.yaml")
    texts = [path.read_text(encoding="utf-8") for path in configurations]
    assert len(texts) > 5 and not any(str(config.seed) in text for text in texts)


def test_scans_are_known_by_what_they_are_drawn_from_and_not_by_how_many_there_are():
    config = held_out_set.HeldOutConfig(seed=7)
    same = held_out_set.HeldOutConfig(seed=7, cases=9, overlap=0.1)
    other = held_out_set.HeldOutConfig(seed=7, lesions=LesionRanges(mean_count=9.0))
    assert held_out_set.identity_of(config) == held_out_set.identity_of(same)
    assert held_out_set.identity_of(config) != held_out_set.identity_of(other)


def test_lesions_found_and_false_ones_are_counted_on_a_scan():
    options = Options(device="cpu", force=True)
    case = held_out_set.judged(body_scan(), knowing(LESIONS[0], FALSE), options)
    assert case["liver_dice"] > 0.97 and not case["healthy"]
    assert [lesion["bin"] for lesion in case["true"]] == [">20", ">20"]
    assert held_out_set.found_count(case) == 1 and held_out_set.found_count(case, "<10") == 0
    assert held_out_set.false_count(case) == 1 and len(case["predicted"]) == 2
    scan = body_scan()
    liver = scan.volume.array[scan.truth == 1]
    first = (scan.volume.array[scan.truth == 2].mean() - liver.mean()) / liver.std()
    assert case["true"][0]["contrast"] == pytest.approx(first, abs=0.02)
    assert case["crumbs"] == 0
    crumbs = body_scan(lesions=False)
    crumbs.truth[tuple(np.argwhere(crumbs.truth == 1)[5000])] = 2
    crumbs = held_out_set.judged(crumbs, knowing(FALSE), options)
    assert crumbs["true"] == [] and crumbs["crumbs"] == 1 and not crumbs["healthy"]
    healthy = held_out_set.judged(body_scan(lesions=False), knowing(FALSE), options)
    assert healthy["healthy"] and held_out_set.false_count(healthy) == 1


def case_of(ious: dict[str, list[float]], false: int = 0, dice: float = 0.95) -> dict:
    """A made-up case: IoU of its true lesions by size."""
    true = [
        {"size_mm": 9.0, "bin": size, "iou": iou, "contrast": -0.5 if iou < 0.1 else -3.0}
        for size, values in ious.items()
        for iou in values
    ]
    predicted = [{"size_mm": 9.0, "bin": "<10", "iou": 0.05}] * false
    return {"healthy": not true, "liver_dice": dice, "true": true, "predicted": predicted}


def test_the_figures_of_the_set_are_what_a_hand_counts():
    cases = [
        case_of({"<10": [0.2, 0.1], ">20": [0.9]}, false=3),
        case_of({"<10": [0.5]}, dice=0.85),
        case_of({}, false=1, dice=0.99),
        case_of({}),
    ]
    summary = held_out_set.summarized(cases)
    small = {
        name: summary["recall"]["<10"][name] for name in ("value", "found", "lesions", "median_contrast", "faint")
    }
    assert small == {"value": 0.6667, "found": 2, "lesions": 3, "median_contrast": 3.0, "faint": 0}
    assert summary["recall"]["10–20"]["value"] is None and summary["recall"]["10–20"]["lesions"] == 0
    assert summary["recall"][">20"]["value"] == 1
    assert (summary["cases"], summary["healthy"], summary["healthy_with_false"]) == (4, 2, 1)
    assert summary["false_per_case"]["value"] == 1
    assert summary["false_per_case_with_lesions"]["value"] == 1.5
    assert summary["false_per_healthy_case"]["value"] == 0.5
    assert summary["liver_dice"]["value"] == pytest.approx(0.935)
    assert (summary["liver_dice"]["lowest"], summary["liver_dice"]["below_0.9"]) == (0.85, 1)
    lines = held_out_set.table_lines({**summary, "whole_set": 200})
    assert "| 10–20 mm | 0 of 0 | – | 0.85 | – |" in lines
    assert any("4 of 200, 2 of them healthy" in line for line in lines)


@pytest.fixture
def made_scans(monkeypatch):
    """Scans from formulas instead of label maps; a list of those that were made."""
    made = []

    def make(data, seed, number, ranges):
        made.append(number)
        return body_scan(lesions=ranges.chance > 0)

    monkeypatch.setattr(held_out_set, "make_scan", make)
    for module in (held_out_set, failures):
        real = module.segment
        monkeypatch.setattr(
            module, "segment", lambda v, c, o, r=real: r(v, c, dataclasses.replace(o, force=True, min_liver_ml=40.0))
        )
        monkeypatch.setattr(module, "load_cascade", lambda models, options: knowing(LESIONS[0], FALSE))
    return made


def test_the_set_is_run_in_pieces_and_ends_up_in_the_card(made_scans, tmp_path, models, capsys):
    scans = tmp_path / "scans"
    arguments = ["held-out", str(CONFIG), "--data", str(tmp_path), "--scans", str(scans)]
    assert cli.main([*arguments, "--only-scans", "--count", "2"]) == 0
    assert made_scans == [0, 1] and "scan 1" in capsys.readouterr().out
    arguments += ["--models", str(models), "-o", str(tmp_path / "out"), "--threads", "1"]
    assert cli.main([*arguments, "--count", "3"]) == 0
    assert made_scans == [0, 1, 2]
    capsys.readouterr()
    assert cli.main([*arguments, "--count", "4", "--apply"]) == 0
    said = capsys.readouterr().out
    assert "case 3: healthy, 2 false" in said and "case 2:" not in said
    assert made_scans == [0, 1, 2, 3], "kept scans are not made again, not even for the pictures"
    summary = json.loads((tmp_path / "out" / "held-out.json").read_text(encoding="utf-8"))
    assert summary["recall"][">20"]["value"] == 0.5 and summary["false_per_case"]["value"] == 1.25
    assert summary["settings"]["seed"] == summary["seed"]
    folder = models / "refine"
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "first 4 of 200 synthetic scans" in card.replace("\n", " ") and "3 of 6" in card
    assert "What the set shares with the training" in card and "must not be used" in card
    for name in (failures.LIVER_FILE, failures.LESION_FILE):
        assert f"({name})" in card and (folder / name).stat().st_size <= MOST_BYTES
    measured = load_manifest(folder).measured
    assert measured["held_out"]["cases"] == 4
    whole = {**measured, "held_out": {**summary, "whole_set": 4}}
    assert "on all 4 synthetic scans" in proof_sections(whole).replace("\n", " ")
    again = {**summary}
    assert cli.main([*arguments, "--count", "4"]) == 0
    assert json.loads((tmp_path / "out" / "held-out.json").read_text(encoding="utf-8")) == again


def test_other_weights_are_measured_anew(made_scans, tmp_path, models, monkeypatch):
    request = held_out_set.Request(models, tmp_path, tmp_path / "out", held_out_set.load_config(CONFIG), 1)
    said = []
    held_out_set.run_held_out(request, said.append)
    held_out_set.run_held_out(request, said.append)
    assert len(said) == 1
    other = knowing(*LESIONS)
    other.refine.manifest = dataclasses.replace(other.refine.manifest, weights_sha256="1" * 64)
    monkeypatch.setattr(held_out_set, "load_cascade", lambda models, options: other)
    assert held_out_set.run_held_out(request, said.append)["recall"][">20"]["value"] == 1
    assert len(said) == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--only-scans"], "--scans"),
        (["-o", "out"], "--models"),
    ],
)
def test_what_is_missing_on_the_command_line_is_named(arguments, word, tmp_path, capsys):
    assert cli.main(["held-out", str(CONFIG), "--data", str(tmp_path), *arguments]) == SettingError.exit_code
    assert word in capsys.readouterr().err


def test_a_configuration_with_an_unknown_setting_is_refused_with_its_name(tmp_path, capsys):
    path = tmp_path / "set.yaml"
    path.write_text("seed: 5\nhealty_every: 3\n")
    assert cli.main(["held-out", str(path), "--data", str(tmp_path), "--only-scans"]) == SettingError.exit_code
    assert "healthy_every" in capsys.readouterr().err


def test_a_healthy_scan_of_the_set_has_no_lesion_and_others_do(shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "PAINTED_MM", (3.0, 3.0, 3.0))
    monkeypatch.setattr(held_out, "SLICES_MM", {5.0: 1.0})
    data = shared_data("labels_btcv").parent
    shared_data("labels_lits_liver")
    request = held_out_set.Request(None, data, tmp_path, held_out_set.load_config(CONFIG))
    assert held_out_set.scan_of(request, 3).truth.max() == 1
    assert held_out_set.scan_of(request, 4).truth.max() > 1


def test_tissues_between_voxels_are_those_that_most_neighbors_have():
    rng = np.random.default_rng(5)
    tissue = np.kron(rng.integers(0, 24, (3, 4, 5)), np.ones((4, 4, 4))).astype(np.uint8)
    painted = Grid((44, 33, 27), np.diag([0.9, 0.93, 0.87, 1.0]))
    refined = held_out._refined(tissue, painted)
    axes = [torch.arange(n) * s / livers.BODY_MM for n, s in zip(painted.shape, (0.87, 0.93, 0.9), strict=True)]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).float()
    # Where two tissues have as many votes, either may win.
    assert (refined == sample_tissues(tissue, position)).float().mean() > 0.98
    assert refined.max() <= Tissue.TABLE


# --- pictures ---------------------------------------------------------------------------------------------------


def test_pictures_are_made_small_enough_and_stay_pictures():
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(noise).save(stream, format="png")
    small = shrunk(stream.getvalue(), 60_000)
    assert len(small) <= 60_000 < stream.tell() and Image.open(BytesIO(small)).size == (300, 300)
    with pytest.raises(ValueError, match="does not fit"):
        shrunk(stream.getvalue(), 1000)
