"""A whole evaluation: files of other tools, pooled figures, clean-up, comparison, and what is written."""

from __future__ import annotations

import argparse
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import GRID, ball, prediction, truth, write_folders
from LiverCascadeLib.errors import InputError, LiverCascadeError
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.volume import write_labels
from LiverCascadeTrainingLib.evaluation import command
from LiverCascadeTrainingLib.evaluation.cases import evaluate_case
from LiverCascadeTrainingLib.evaluation.comparison import compare_models, holm, mcnemar, sign_flips, wilcoxon
from LiverCascadeTrainingLib.evaluation.files import (
    LabelMeaning,
    case_name,
    label_maps_in,
    match_cases,
    read_pairs,
    scans_in,
)
from LiverCascadeTrainingLib.evaluation.pooled import DataSet, Resampling, mean
from LiverCascadeTrainingLib.evaluation.postprocessing import PostProcessing


def run(*arguments: object) -> int:
    """The command, as the command line of the companion starts it."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["evaluate", *map(str, arguments)])
    return options.run(options)


def data_of(shift: int, misses: float, count: int = 8, patients: int | None = None) -> DataSet:
    """A model on synthetic cases."""
    cases = [
        evaluate_case(f"c{n}", prediction(n, shift, misses), truth(n), GRID, patient=f"p{n % (patients or count)}")
        for n in range(count)
    ]
    return DataSet(cases, draws=500)


@pytest.fixture(scope="module")
def models() -> dict[str, DataSet]:
    return {"good": data_of(1, 0.2), "poor": data_of(3, 0.6)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The results of an evaluation of two models, one with markup in its name."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_folders(folder)
    arguments = ["--pred", folder / "good", "--name", "A <script>", "--pred", folder / "poor", "--name", "=poor"]
    arguments += ["--ref", folder / "truth", "--ct", folder / "ct", "--worst", 1, "--draws", 200]
    assert run(*arguments, "-o", folder / "out") == 0
    return folder


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("segmentation-12.nii", "12"),
        ("volume-12.nii.gz", "12"),
        ("liver_7_0000.nii.gz", "liver_7"),
        ("liver_7.nii.gz", "liver_7"),
        ("case3_seg.nrrd", "case3"),
        ("seg.nrrd", "seg"),
    ],
)
def test_the_case_is_found_in_the_names_of_tools(name: str, case: str):
    assert case_name(Path(name)) == case


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("liver=1,lesion=2", [0, 1, 2, 0, 0, 0]),
        ("liver=5", [0, 0, 0, 0, 0, 1]),
        ("liver=1-,lesion=2-", [0, 1, 2, 2, 2, 2]),
        ("liver=1+3,lesion=4-", [0, 1, 0, 1, 2, 2]),
        ("lesion=2,liver=1-", [0, 1, 2, 1, 1, 1]),
        ("liver=0-,lesion=2", [0, 1, 2, 1, 1, 1]),
    ],
)
def test_labels_of_other_tools_are_understood(text: str, expected: list[int]):
    assert LabelMeaning.parse(text).applied(np.arange(6)).tolist() == expected


@pytest.mark.parametrize("text", ["", "lesion=2", "liver", "liver=a", "spleen=1,liver=2", "liver=1;lesion=2"])
def test_labels_that_are_not_understood_are_refused(text: str):
    with pytest.raises(InputError, match="liver=1"):
        LabelMeaning.parse(text)


def test_label_maps_and_cts_in_one_folder_are_told_apart(tmp_path):
    for name in ("volume-0.nii", "segmentation-0.nii", "volume-1.nii"):
        (tmp_path / name).touch()
    assert {k: p.name for k, p in label_maps_in(tmp_path).items()} == {"0": "segmentation-0.nii"}
    assert {k: p.name for k, p in scans_in(tmp_path).items()} == {"0": "volume-0.nii", "1": "volume-1.nii"}


def test_results_of_livercascade_are_found_in_their_folders(tmp_path):
    for name in ("a/labels.nii.gz", "a/couinaud.nii.gz", "b/labels.nii.gz", "c/liver.nii.gz", "c/spleen.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert {k: p.name for k, p in label_maps_in(tmp_path).items()} == {
        "a": "labels.nii.gz",
        "b": "labels.nii.gz",
        "c": "liver.nii.gz",
    }


def test_two_files_for_one_case_are_refused(tmp_path):
    for name in ("3.nii", "3_seg.nii.gz", "3_label.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="look like one case"):
        label_maps_in(tmp_path)


def test_a_missing_label_map_is_refused_left_out_or_empty():
    references = {"1": Path("r1"), "2": Path("r2")}
    found = {"A": {"1": Path("a1")}, "B": {"1": Path("b1"), "2": Path("b2"), "9": Path("b9")}}
    with pytest.raises(InputError, match=r"A has no label map for 2\. .*--missing"):
        match_cases(references, found)
    cases, remarks = match_cases(references, found, missing="leave-out")
    assert [case.name for case in cases] == ["1"]
    assert any("left out" in text for text in remarks) and any("passed over: 9" in text for text in remarks)
    cases, _ = match_cases(references, found, missing="empty")
    assert cases[1].predicted == {"A": None, "B": Path("b2")}
    with pytest.raises(InputError, match="belongs to a reference"):
        match_cases(references, {"A": {"x": Path("x")}}, missing="empty")


def test_pairs_come_from_a_csv(tmp_path):
    for name in ("r.nii", "x.nii"):
        (tmp_path / name).touch()
    (tmp_path / "pairs.csv").write_text("case,patient,reference,mine,ct\n7,p1,r.nii,x.nii,\n8,p1,r.nii,,\n")
    cases, models = read_pairs(tmp_path / "pairs.csv")
    assert models == ("mine",) and [case.patient for case in cases] == ["p1", "p1"]
    assert cases[0].predicted["mine"].name == "x.nii" and cases[1].predicted["mine"] is None
    (tmp_path / "pairs.csv").write_text("case,reference,mine\n7,r.nii,gone.nii\n")
    with pytest.raises(InputError, match=r"line 2: .*gone\.nii is missing"):
        read_pairs(tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_text("case,mine\n7,x.nii\n")
    with pytest.raises(InputError, match="expected case, reference"):
        read_pairs(tmp_path / "pairs.csv")


def test_pooled_figures_are_what_the_cases_give(models):
    data = models["good"]
    dices = [case.values["lesion_dice"] for case in data.cases]
    assert data.figures["lesion_dice"].value == pytest.approx(np.mean(dices))
    assert data.figures["lesion_dice"].deviation == pytest.approx(np.std(dices, ddof=1))
    overlaps = [case.overlaps["lesion"] for case in data.cases]
    both, total = sum(o.both for o in overlaps), sum(o.predicted + o.reference for o in overlaps)
    assert data.overall["lesion_dice_global"].value == pytest.approx(2 * both / total)
    errors = np.array([case.values["burden_error"] for case in data.cases])
    assert data.overall["burden_rmse"].value == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert data.overall["burden_max"].value == pytest.approx(np.abs(errors).max())
    healthy = [case for case in data.cases if not case.has_lesion]
    assert data.overall["healthy_false_lesions"].count == len(healthy) == 2
    false = np.mean([len(case.predicted_lesions) for case in healthy])
    assert data.overall["healthy_false_lesions"].value == pytest.approx(false)
    undefined = data.figures["lesion_hd95_mm"]
    assert undefined.undefined + undefined.count == len(data.cases) and undefined.undefined > 0


def test_detection_counts_add_up_over_sizes(models):
    data = models["poor"]
    for threshold in (0.0, 0.1, 0.5):
        whole, *parts = (data.detection("touching", size, threshold) for size in ("all", "<10", "10–20", ">20"))
        for name in ("references", "detected", "predicted", "false"):
            assert getattr(whole, name) == sum(getattr(part, name) for part in parts), name
        assert whole.false_per_patient.value == pytest.approx(whole.false / 8)
        assert whole.recall.value == pytest.approx(whole.detected / whole.references)
        recall, precision = whole.recall.value, whole.precision.value
        f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        assert whole.f1.value == pytest.approx(f1)
    assert data.detection("touching", "all", 0.0).detected > data.detection("touching", "all", 0.5).detected


def test_intervals_draw_patients_and_repeat_with_their_seed():
    values = np.arange(12.0)
    one = Resampling([str(n) for n in range(12)], seed=1).interval(mean(values))
    assert one == Resampling([str(n) for n in range(12)], seed=1).interval(mean(values))
    assert one != Resampling([str(n) for n in range(12)], seed=2).interval(mean(values))
    value, low, high = one
    # The standard error of the mean is 0.995.
    assert value == 5.5 and abs((high - low) / 2 - 1.96 * values.std() / np.sqrt(12)) < 0.15
    # Three cases of each of four patients tell less than twelve patients.
    _, low_4, high_4 = Resampling([str(n // 3) for n in range(12)], seed=1).interval(mean(values))
    assert high_4 - low_4 > 1.4 * (high - low)
    assert np.isnan(Resampling(["a"] * 12).interval(mean(values))[1])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        _, low, high = Resampling([str(n) for n in range(30)], 400, seed).interval(mean(rng.normal(3, 1, 30)))
        held += low <= 3 <= high
    assert 0.89 <= held / 200 <= 0.98


def test_several_cases_of_a_patient_count_as_one_patient():
    data = data_of(1, 0.2, count=8, patients=4)
    row = data.detection("touching", "all", 0.5)
    assert data.resampling.patients == 4 and row.false_per_patient.value == pytest.approx(row.false / 4)


def test_holm_corrects_as_in_its_textbook_example():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert np.isnan(holm([0.02, float("nan")])[1]) and holm([0.02, float("nan")])[0] == 0.02


def test_paired_tests_give_the_exact_small_sample_values():
    # Six of six patients in one direction: 2 of 2⁶ sign patterns are as extreme.
    assert wilcoxon(np.arange(1.0, 7)) == pytest.approx(2 / 64)
    assert sign_flips(np.arange(1.0, 7), 0) == pytest.approx(2 / 64)
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert (wilcoxon(np.zeros(5)), sign_flips(np.zeros(5), 0), mcnemar(0, 0)) == (1, 1, 1)
    assert sign_flips(np.ones(20), 0) == pytest.approx(1 / 10001, rel=3)


def test_a_model_against_itself_does_not_differ(models):
    differences = compare_models({"a": models["good"], "b": models["good"]}, 0)
    assert {d.difference for d in differences} == {0.0}
    assert {d.p_holm for d in differences} == {1.0}


def test_a_worse_model_is_found_worse(models):
    found = {d.key: d for d in compare_models(models, 0)}
    liver = found["liver_dice"]
    dices = [models[name].values("liver_dice") for name in ("good", "poor")]
    assert liver.difference == pytest.approx((dices[1] - dices[0]).mean()) and liver.high < 0
    assert (liver.first_better, liver.second_better, liver.p) == (8, 0, pytest.approx(2 / 256))
    assert liver.p < liver.p_holm
    distance = found["liver_hd95_mm"]
    assert distance.difference > 0 and (distance.first_better, distance.second_better) == (8, 0)
    recall = found["recall_0.5"]
    assert recall.difference == pytest.approx(recall.value_second - recall.value_first) and recall.difference < 0
    assert recall.p_mcnemar == mcnemar(recall.first_better, recall.second_better)
    assert found["false_per_patient_0.1"].better == "low"


def test_models_with_other_cases_are_not_compared(models):
    with pytest.raises(ValueError, match="different cases"):
        compare_models({"a": models["good"], "b": data_of(1, 0.2, count=7)}, 0)


def test_clean_up_does_what_its_name_says():
    labels = truth(0, lesions=0)
    labels[1:3, 1:3, 1:3] = 1
    labels[12, 24, 28] = 0
    labels[12, 20, 28] = 2
    labels[ball((12, 26, 20), 7)] = 2
    largest = PostProcessing.parse("largest").apply(labels, GRID)
    assert not largest[1:3, 1:3, 1:3].any() and largest[12, 20, 28] == 2
    assert PostProcessing.parse("fill").apply(labels, GRID)[12, 24, 28] == 1
    cleaned = PostProcessing.parse("largest+fill+min5").apply(labels, GRID)
    assert cleaned[12, 20, 28] == 1 and cleaned[12, 26, 20] == 2 and cleaned[12, 24, 28] == 1
    smooth = PostProcessing.parse("smooth2").apply(labels, GRID)
    assert smooth[12, 20, 28] == 1 and smooth[12, 26, 20] == 2
    engine = PostProcessing.parse("engine").apply(labels, GRID)
    assert engine.max() == 2 and not engine[1:3, 1:3, 1:3].any()
    assert not PostProcessing.parse("min5").apply(np.zeros_like(labels), GRID).any()


def test_the_guided_filter_moves_a_border_to_the_edge_of_the_ct():
    reference = truth(0, lesions=0)
    ct = np.where(reference > 0, 110, -60) + np.random.default_rng(0).normal(0, 10, reference.shape)
    predicted = np.roll(reference, 1, axis=2)
    before = evaluate_case("a", predicted, reference, GRID).values["liver_dice"]
    guided = PostProcessing.parse("guided4").apply(predicted, GRID, ct.astype(np.int16))
    assert evaluate_case("a", guided, reference, GRID).values["liver_dice"] > before + 0.03


@pytest.mark.parametrize(
    ("name", "words"),
    [("larges", "Did you mean 'largest'"), ("largest2", "no such number"), ("min0", "no such number")],
)
def test_clean_up_that_is_not_known_is_refused(name: str, words: str):
    with pytest.raises(LiverCascadeError, match=words):
        PostProcessing.parse(name)


def test_guided_clean_up_without_a_ct_is_refused():
    with pytest.raises(InputError, match="--ct"):
        PostProcessing.parse("guided").apply(truth(0), GRID)


def test_an_evaluation_writes_all_its_files(finished):
    names = {path.name for path in (finished / "out").iterdir()}
    expected = {"cases.csv", "cases.json", "lesions.csv", "pooled.json", "comparison.json", "evaluation.html"}
    expected |= {"plot_boxes.svg", "plot_recall.svg", "plot_volume.svg"}
    assert expected <= names and len([name for name in names if name.endswith(".png")]) == 4


def test_csv_and_json_say_the_same(finished):
    with (finished / "out" / "cases.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12 and rows[6]["model"] == "'=poor"
    content = json.loads((finished / "out" / "cases.json").read_text(encoding="utf-8"))["content"]
    case = content["A <script>"][2]
    assert float(rows[2]["lesion_dice"]) == case["figures"]["lesion_dice"]
    assert int(rows[2]["detected_0.1"]) == case["lesions"]["detected_0.1"]
    undefined = [row["lesion_hd95_mm"] for row in rows]
    assert "" in undefined and "nan" not in undefined
    pooled = json.loads((finished / "out" / "pooled.json").read_text(encoding="utf-8"))["content"]
    mean_dice = np.mean([float(row["liver_dice"]) for row in rows[:6]])
    assert pooled["models"]["A <script>"]["per_case_means"]["liver_dice"]["value"] == pytest.approx(
        mean_dice, abs=1e-5
    )
    with (finished / "out" / "lesions.csv").open(encoding="utf-8") as stream:
        lesions = [
            row for row in csv.DictReader(stream) if row["model"] == "A <script>" and row["side"] == "reference"
        ]
    assert len(lesions) == sum(len(case["reference_lesions"]) for case in content["A <script>"])


class Checker(HTMLParser):
    """Collects tags and where they lead, and counts what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.sources, self.open = set(), [], 0

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "data")]
        self.open += tag not in ("meta", "img", "br")

    def handle_endtag(self, tag):
        self.open -= 1


def test_the_page_needs_nothing_else_and_shows_names_as_text(finished):
    text = (finished / "out" / "evaluation.html").read_text(encoding="utf-8")
    page = Checker()
    page.feed(text)
    assert "script" not in page.tags and "A &lt;script&gt;" in text and page.open == 0
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert "Research use only" in text and "permutation" in text and "tumor" not in text.lower()
    assert not re.search(r"\bnan\b", text)


def test_the_same_evaluation_gives_the_same_figures(finished, tmp_path):
    arguments = ["--pred", finished / "good", "--name", "A <script>", "--pred", finished / "poor", "--name", "=poor"]
    arguments += ["--ref", finished / "truth", "--draws", 200, "--no-page"]
    assert run(*arguments, "-o", tmp_path) == 0
    for name in ("cases.csv", "lesions.csv", "pooled.json", "comparison.json"):
        assert (tmp_path / name).read_bytes() == (finished / "out" / name).read_bytes(), name
    assert not (tmp_path / "evaluation.html").exists()


@pytest.mark.slow
def test_processes_side_by_side_give_the_same_figures(finished, tmp_path):
    arguments = ["--pred", finished / "good", "--ref", finished / "truth", "--draws", 200, "--no-page"]
    assert run(*arguments, "-o", tmp_path / "one") == run(*arguments, "--jobs", 2, "-o", tmp_path / "two") == 0
    for name in ("cases.csv", "pooled.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_label_maps_of_another_order_and_of_other_labels_are_judged(tmp_path, capsys):
    reference = truth(0, lesions=0)
    turned = GRID.canonical()
    for name in ("pred", "ref"):
        (tmp_path / name).mkdir()
    write_labels(tmp_path / "ref" / "a.nii.gz", reference, GRID)
    write_labels(tmp_path / "pred" / "a.nrrd", np.ascontiguousarray(reference[:, ::-1, ::-1] * 5), turned)
    arguments = ["--pred", tmp_path / "pred", "--ref", tmp_path / "ref", "-o", tmp_path / "out", "--no-page"]
    assert run(*arguments, "--labels", "liver=5") == 0
    assert "liver Dice 1.000" in capsys.readouterr().out
    pooled = json.loads((tmp_path / "out" / "pooled.json").read_text(encoding="utf-8"))["content"]
    assert not pooled["models"]["pred"]["with_lesions"]
    assert any("Lesions were not judged" in text for text in pooled["remarks"])
    assert any("one patient" in text for text in pooled["remarks"])


def test_a_prediction_on_another_grid_is_refused_by_name_and_nothing_is_written(tmp_path):
    for name in ("pred", "ref"):
        (tmp_path / name).mkdir()
    other = Grid((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
    write_labels(tmp_path / "ref" / "a.nii.gz", truth(0), GRID)
    write_labels(tmp_path / "pred" / "a.nii.gz", np.ones(other.shape, np.uint8), other)
    with pytest.raises(InputError, match=r"a\.nii\.gz does not have the voxels of its reference.*nearest"):
        run("--pred", tmp_path / "pred", "--ref", tmp_path / "ref", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_reference_without_a_liver_is_refused(tmp_path):
    for name in ("pred", "ref"):
        (tmp_path / name).mkdir()
        write_labels(tmp_path / name / "a.nii.gz", truth(0), GRID)
    with pytest.raises(InputError, match="its values are 0, 1, 2"):
        run("--pred", tmp_path / "pred", "--ref", tmp_path / "ref", "--ref-labels", "liver=7", "-o", tmp_path / "out")


def test_confidences_of_livercascade_are_judged(tmp_path):
    (tmp_path / "ref").mkdir()
    for number in range(4):
        write_labels(tmp_path / "ref" / f"{number}.nii.gz", truth(number, 1), GRID)
        labels = truth(number, 1)
        labels[ball((12, 34, 24), 5)] = 3
        folder = tmp_path / "pred" / str(number)
        folder.mkdir(parents=True)
        write_labels(folder / "labels.nii.gz", labels, GRID)
        lesions = [{"label": 2, "confidence": 0.9}, {"label": 3, "confidence": 0.2}]
        (folder / "result.json").write_text(json.dumps({"lesions": lesions}))
    assert run("--pred", tmp_path / "pred", "--ref", tmp_path / "ref", "--worst", 0, "-o", tmp_path / "out") == 0
    pooled = json.loads((tmp_path / "out" / "pooled.json").read_text(encoding="utf-8"))["content"]["models"]["pred"]
    assert {round(row["mean"], 3) for row in pooled["reliability"]} <= {0.2, 0.55, 0.9}
    assert sum(row["count"] for row in pooled["reliability"]) == 8
    assert 0.05 < pooled["calibration_error"] < 0.35
    assert (tmp_path / "out" / "plot_reliability.svg").is_file()
    (folder / "result.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        run("--pred", tmp_path / "pred", "--ref", tmp_path / "ref", "-o", tmp_path / "again")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--pred and the references with --ref"),
        (["--pred", "a", "--pred", "b/a", "--ref", "r"], "different names"),
        (["--pred", "a", "--name", "x", "--name", "y", "--ref", "r"], "give a name to each"),
        (["--pairs", "p.csv", "--ref", "r"], "leave --pred and --ref out"),
        (["one.nii"], "a label map and its reference"),
        (["--pred", "nowhere", "--ref", "r"], "There is no folder nowhere"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], words: str):
    with pytest.raises(InputError, match=words):
        run(*arguments)


def test_two_files_print_the_figures_of_a_model_card(tmp_path, capsys):
    write_labels(tmp_path / "a.nii.gz", prediction(1, 1, 0.0), GRID)
    write_labels(tmp_path / "b.nii.gz", truth(1), GRID)
    assert run(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz") == 0
    assert json.loads(capsys.readouterr().out)["lesions"] > 0
