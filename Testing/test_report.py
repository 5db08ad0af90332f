"""What a report says: the document, the HTML page, report.json and the table."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from analytic_bodies import LESIONS, LIVER, TEST_GRIDS, rasterize
from assessments import (
    IDENTITY,
    assessment_from_masks,
    empty_assessment,
    example_assessment,
    make_pictures_small,
    many_lesions,
    renamed,
)
from LiverCascadeLib.errors import InputError, OutputError
from LiverCascadeLib.findings import Finding, Severity
from LiverCascadeLib.lesions.measurements import LIVER_MEASUREMENTS, MEASUREMENTS
from LiverCascadeLib.lesions.remnant import future_liver_remnant
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.models.cascade_file import read_cascade
from LiverCascadeLib.report.document import ReaderText
from LiverCascadeLib.report.html import Pictures, render_html
from LiverCascadeLib.report.identity import StudyIdentity
from LiverCascadeLib.report.record import read_record, report_record, validate
from LiverCascadeLib.report.texts import Texts, paragraphs, plain
from LiverCascadeLib.report.wording import MOST_KEY_IMAGES, build_document, detection_sentence
from LiverCascadeLib.report.writing import (
    CSV_FILE,
    HTML_FILE,
    JSON_FILE,
    PDF_FILE,
    REPORT_FILES,
    ReportRequest,
    file_steps,
    report_steps,
    write_report,
)
from LiverCascadeLib.resources import EMBEDDED_MODELS

DATE = datetime(2026, 11, 21, 9, 30)
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> javascript:alert(3) {{ 7*7 }}"


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    make_pictures_small(monkeypatch)


def request(**more) -> ReportRequest:
    return ReportRequest(**{"date": DATE, "identity": IDENTITY, "with_pdf": False, **more})


def document(assessment, identity=IDENTITY, text=None, **more):
    return build_document(assessment, identity, text or ReaderText(), date=DATE, **more)


def page(assessment, identity=IDENTITY, text=None, **more) -> str:
    """The HTML page without pictures."""
    doc = document(assessment, identity, text, **more)
    return render_html(replace(doc, key_lesions=()), Pictures({}, {}))


def provenance() -> dict:
    manifests = [load_manifest(folder) for folder in read_cascade(EMBEDDED_MODELS).folders]
    models = [
        {"id": m.id, "role": m.role, "version": m.version, "sha256": m.weights_sha256, "device": "cpu"}
        for m in manifests
    ]
    return {
        "models": models,
        "software": {"LiverCascade": "0.1.0"},
        "parameters": {"overlap": None, "clean_up": {"min_lesion_mm3": 65.0}},
    }


class Elements(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, content: str):
        super().__init__()
        self.tags, self.attributes, self.texts, self.inside = [], [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in ("meta", "img"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if data.strip() and self.inside[-1] != "style":
            self.texts.append(data.strip())


def test_a_report_says_who_was_examined_and_what_was_found():
    text = ReaderText("Rising CEA.", "Two lesions.", "Metastases.")
    content = " ".join(Elements(page(example_assessment(), text=text)).texts)
    for said in ("Example, Erika", "PID-0815", "2026-10-02", "A123456", "Rising CEA.", "Two lesions.", "Metastases."):
        assert said in content
    assert "Research use only. Not for diagnosis or treatment." in content
    assert "tumor" not in content.lower()


def test_summary_has_number_volume_share_and_the_largest_lesion():
    assessment = example_assessment()
    first = assessment.lesions[0].values
    said = " ".join(document(assessment).summary)
    assert f"Liver {assessment.liver['volume_ml']:.0f} mL, lesions included. 2 lesions" in said
    assert f"{assessment.liver['burden_percent']:.1f} % of the liver" in said
    assert f"Lesion 1, {first['long_axis_mm']:.1f} × {first['short_axis_mm']:.1f} mm" in said
    assert "in segment VIII" in said and "this is not a stage" in said


def test_a_share_that_rounds_to_nothing_is_not_called_nothing():
    grid = TEST_GRIDS["LPS"]
    speck = np.zeros(grid.shape, bool)
    speck[16, 40, 45] = True
    assessment = assessment_from_masks(grid, rasterize(LIVER, grid), [speck])
    assert 0 < assessment.liver["burden_percent"] < 0.05
    assert "< 0.1 % of the liver" in document(assessment).summary[0]


def test_unsure_lesions_are_marked_and_rejected_ones_are_only_counted():
    grid = TEST_GRIDS["LPS"]
    masks = [rasterize(lesion, grid) for lesion in LESIONS]
    assessment = assessment_from_masks(
        grid, rasterize(LIVER, grid), masks, names=("Mine", "Gone"), reviews=("unsure", "rejected")
    )
    doc = document(assessment)
    content = page(assessment)
    assert [row[0] for row in doc.lesions.rows] == ["Mine ?"]
    assert "Gone" not in content and "1 more was rejected by the reader." in content
    assert any("? marks" in note for note in doc.lesion_notes)


def test_lesions_that_nobody_reviewed_are_said_to_be_so():
    assert "No lesion was reviewed by a reader." in page(example_assessment(reviews=(), comments=()))
    assert "1 of 2 lesions were not reviewed" in page(example_assessment(reviews=("accepted",)))
    assert "not reviewed" not in page(example_assessment())


def test_no_lesion_is_said_plainly_with_what_the_model_was_shown_to_find():
    grid = TEST_GRIDS["RAS"]
    assessment = assessment_from_masks(grid, rasterize(LIVER, grid), [], provenance=provenance())
    doc = document(assessment)
    assert "No lesion was found." in doc.summary[0]
    assert "lesions of 10 mm or more" in " ".join(doc.summary)
    assert doc.lesions is None and doc.key_lesions == ()


def test_figures_of_detection_come_from_scans_that_were_not_trained_on():
    cases = load_manifest(EMBEDDED_MODELS / "refine").measured["cascade"].values()
    unseen = [case for case in cases if case["independent"]]
    assert not any("TRAINED ON" in case["note"] or "CHOSEN" in case["note"] for case in unseen)
    assert 0 < len(unseen) < len(cases)
    hit, n = (sum(case[key] for case in unseen) for key in ("hit_ge10", "lesions_ge10"))
    assert f"find {hit} of {n} lesions" in detection_sentence(provenance(), Texts())


def test_figures_of_small_lesions_are_told_where_there_are_any(monkeypatch):
    from LiverCascadeLib.report import wording

    unseen = {"independent": True, "lesions": 9, "hit": 5, "lesions_ge10": 6, "hit_ge10": 4}
    seen = {"independent": False, "lesions": 90, "hit": 90, "lesions_ge10": 60, "hit_ge10": 60}
    unsaid = {"lesions": 3, "hit": 3, "lesions_ge10": 3, "hit_ge10": 3}
    monkeypatch.setattr(wording, "_measured", lambda provenance: [unseen, seen, unsaid])
    said = detection_sentence({}, Texts())
    assert "find 4 of 6 lesions of 10 mm or more. Of smaller ones it found 1 of 3." in said


def test_without_measured_figures_none_are_invented():
    other = {"models": [{"id": "somebody's", "role": "refine", "version": "1", "sha256": "0" * 64}]}
    assert "No figures are known" in detection_sentence(other, Texts())
    assert not re.search(r"\d", detection_sentence(other, Texts()))


def test_a_scan_without_a_liver_gives_a_report_without_figures(tmp_path):
    write_report(empty_assessment(), tmp_path / "out", request())
    content = (tmp_path / "out" / HTML_FILE).read_text(encoding="utf-8")
    assert "No liver was found." in content and "<img" not in content
    assert read_record(tmp_path / "out" / JSON_FILE)["liver"]["volume_ml"] == 0


def test_an_unknown_patient_is_said_to_be_unknown():
    doc = document(example_assessment(), StudyIdentity())
    assert "not known" in doc.patient[0].value
    assert doc.running_title.endswith("body")


def test_technique_names_models_hashes_software_and_parameters():
    content = page(example_assessment(provenance=provenance()))
    for model in provenance()["models"]:
        assert model["id"] in content and model["sha256"] in content
    assert "clean_up.min_lesion_mm3 65.0" in content and "overlap" not in content
    assert "neural networks" in content


def test_outlines_by_hand_are_not_said_to_be_a_models():
    content = page(example_assessment())
    assert "neural networks" not in content and "outlined or taken over by hand" in content


def test_findings_are_told_in_words_and_estimates_of_time_are_not():
    findings = (
        Finding("cost-estimate", Severity.INFO, "About 30 s on the CPU."),
        Finding("dome", Severity.WARNING, "The dome of the liver is cut."),
    )
    doc = document(example_assessment(findings=findings))
    assert [(entry.label, entry.value) for entry in doc.findings] == [("Warning", "The dome of the liver is cut.")]


def test_segments_are_listed_with_volumes_method_and_limits():
    assessment = example_assessment()
    doc = document(assessment)
    names = [row[0] for row in doc.segments.rows]
    assert names == ["IV", "VIII"]
    volumes = [float(row[1]) for row in doc.segments.rows]
    assert sum(volumes) == pytest.approx(assessment.liver["volume_ml"], abs=1)
    assert doc.segment_notes == ("Estimated from the liver's shape; no vessels.", "Not exact.")
    assert document(example_assessment(segments=False)).segments is None


def test_a_remnant_says_its_denominator_and_the_usual_minimums():
    assessment = example_assessment()
    said = " ".join(document(assessment, remnant=future_liver_remnant(assessment, {4}, "liver")).remnant)
    assert "If segments IV remain" in said and "the liver with its lesions" in said
    assert all(limit in said for limit in ("20 %", "30 %", "40 %"))


def test_follow_up_becomes_a_section_and_takes_the_place_of_its_limitation():
    followup = {
        "title": "Follow-up since 2026-01-05",
        "sentences": ["Stable disease."],
        "columns": ["Lesion", "mm"],
        "rows": [["Lesion 1", 23.1], ["<b>Lesion 2</b>", "12.0"]],
        "pictures": [],
    }
    content = page(example_assessment(), followup=followup)
    assert "Stable disease." in content and "23.1" in content and "&lt;b&gt;Lesion 2" in content
    assert "needs more than one examination" not in content
    assert "needs more than one examination" in page(example_assessment())


def test_pictures_are_for_the_twelve_largest_lesions_and_the_table_is_for_all():
    doc = document(many_lesions(40))
    assert len(doc.lesions.rows) == 40 and len(doc.key_lesions) == MOST_KEY_IMAGES == 12
    assert any("12 largest" in note for note in doc.lesion_notes)


@pytest.mark.parametrize("where", ["identity", "reader", "name", "comment", "scan", "finding", "followup"])
def test_markup_in_texts_is_shown_and_not_obeyed(where):
    assessment, identity, text, followup = example_assessment(), IDENTITY, ReaderText(), None
    if where == "identity":
        identity = replace(IDENTITY, patient_name=ATTACK, institution=ATTACK)
    elif where == "reader":
        text = ReaderText(ATTACK, ATTACK, ATTACK)
    elif where == "name":
        assessment = renamed(assessment, [ATTACK, ATTACK])
    elif where == "comment":
        assessment = renamed(assessment, ["a", "b"], [ATTACK, ATTACK])
    elif where == "scan":
        assessment = replace(assessment, volume=replace(assessment.volume, name=ATTACK))
        identity = StudyIdentity()
    elif where == "finding":
        assessment = replace(assessment, findings=(Finding("x", Severity.ERROR, ATTACK),))
    else:
        followup = {"title": ATTACK, "sentences": [ATTACK], "columns": [ATTACK], "rows": [[ATTACK]], "pictures": []}
    elements = Elements(page(assessment, identity, text, followup=followup))
    assert not set(elements.tags) & {"script", "img", "iframe", "a", "object", "form"}
    assert not [name for _, name, _ in elements.attributes if name.startswith("on")]
    # The text arrives as it was written: not as a template either.
    assert any("<script>alert(1)</script>" in said and "{{ 7*7 }}" in said for said in elements.texts)


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path):
    write_report(example_assessment(), tmp_path, request())
    elements = Elements((tmp_path / HTML_FILE).read_text(encoding="utf-8"))
    assert "script" not in elements.tags and "link" not in elements.tags
    sources = [value for tag, name, value in elements.attributes if name in ("src", "href")]
    assert sources and all(value.startswith("data:image/") for value in sources)
    policy = next(v for t, n, v in elements.attributes if t == "meta" and n == "content" and "default-src" in v)
    assert "default-src 'none'" in policy
    assert "url(" not in (tmp_path / HTML_FILE).read_text(encoding="utf-8")
    assert not [v for t, n, v in elements.attributes if t == "img" and n == "alt" and not v]
    assert not elements.inside


def test_every_text_of_the_page_can_be_translated():
    """A made-up language that has every text the report asks for; what stays bare was forgotten."""

    class Marked(Texts):
        def __init__(self):
            super().__init__("xx", {})

        def __call__(self, text, **values):
            return "«" + super().__call__(text, **values) + "»"

    grid = TEST_GRIDS["LPS"]
    assessment = example_assessment(findings=(Finding("x", Severity.INFO, "Said."),), provenance=provenance())
    followup = {"title": "T", "sentences": ["S"], "columns": ["C"], "rows": [["«»"]], "pictures": []}
    remnant = future_liver_remnant(assessment, {8})
    content = page(assessment, remnant=remnant, followup=followup, language=Marked())
    own = {*vars(IDENTITY).values(), assessment.volume.name, "LiverCascade 0.1.0", "cpu", "compare with MR"}
    bare = [
        text
        for text in Elements(content).texts
        if "«" not in text and text not in own and re.search(r"[A-Za-z]{2}", text) and not text.startswith("Lesion")
    ]
    allowed = re.compile(r"[IVab, ]+|[\d. ]+ (mL|HU|%|mm)|clean_up.*")
    assert [text for text in bare if not allowed.fullmatch(text)] == [], grid


def test_a_language_without_a_file_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match=r"not available in 'tlh'\. Choose one of: en"):
        document(example_assessment(), language="tlh")
    with pytest.raises(InputError, match="not available"):
        Texts("../../secret")


def test_a_translation_with_a_wrong_place_falls_back_to_english():
    assert Texts("xx", {"{n} lesions": "{m} Herde"})("{n} lesions", n=3) == "3 lesions"
    assert Texts("xx", {"{n} lesions": "{n} Herde"})("{n} lesions", n=3) == "3 Herde"


def test_control_characters_and_those_that_turn_text_around_are_left_out():
    assert plain("a\u202eb\x00c\r\nd\ud800") == "ab c d"
    assert paragraphs("one\r\n\r\n two\u2028 three\n") == ("one", "two three")
    assert plain("x" * 50, 10) == "x" * 9 + "…"


def test_report_json_is_valid_and_holds_every_figure(tmp_path):
    assessment = example_assessment(provenance=provenance(), rejected=2)
    write_report(assessment, tmp_path, request(remnant=future_liver_remnant(assessment, {8})))
    record = read_record(tmp_path / JSON_FILE)
    validate(record)
    assert list(record["liver"]) == [m.key for m in LIVER_MEASUREMENTS]
    for lesion, said in zip(assessment.lesions, record["lesions"], strict=True):
        assert list(said["values"]) == [m.key for m in MEASUREMENTS]
        assert said["values"]["long_axis_mm"] == pytest.approx(lesion.values["long_axis_mm"], abs=1e-5)
        assert said["values"]["confidence"] is None
        assert said["long_axis"]["length_mm"] == pytest.approx(lesion.long_axis.length_mm, abs=1e-3)
        assert said["tracking_uid"] == lesion.tracking_uid
    assert record["rejected"] == 2 and record["remnant"]["kept"] == ["VIII"]
    assert record["input"]["voxels_sha256"] == hashlib.sha256(assessment.volume.array.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (lambda r: r.pop("notice"), "its top"),
        (lambda r: r["lesions"][0].update(review="rejected"), "lesions/0/review"),
        (lambda r: r["liver"].update(volume_ml=[1]), "liver/volume_ml"),
        (lambda r: r.update(format_version=2), "format_version"),
        (lambda r: r["identity"].update(secret="x"), "identity"),
    ],
)
def test_the_schema_refuses_what_does_not_belong(spoil, place):
    assessment = example_assessment()
    record = report_record(assessment, document(assessment), IDENTITY, ReaderText(), "0" * 64)
    validate(record)
    spoil(record)
    with pytest.raises(InputError, match=place):
        validate(record)


def test_numpy_values_in_provenance_become_plain_json():
    assessment = example_assessment(provenance={"input": {"size": np.array([1, 2]), "x": np.float32(0.5)}})
    record = report_record(assessment, document(assessment), IDENTITY, ReaderText(), "0" * 64)
    assert record["provenance"] == {"input": {"size": [1, 2], "x": 0.5}}


def test_the_table_has_no_formulas(tmp_path):
    names = ['=HYPERLINK("http://x")', "@SUM(A1)"]
    comments = ["+1\n=2", "＝cmd"]
    assessment = renamed(example_assessment(), names, comments)
    assessment = replace(assessment, volume=replace(assessment.volume, name="-2+3"))
    write_report(assessment, tmp_path, request())
    with (tmp_path / CSV_FILE).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    for row in rows:
        for cell in row.values():
            number = re.fullmatch(r"-?[\d.]+", cell)
            assert number or not cell.startswith(tuple("=+-@\t\r＝＋－＠")), cell
    assert rows[0]["name"] == "'" + names[0] and float(rows[0]["long_axis_mm"]) > 0


def test_what_the_reader_wrote_is_kept_when_the_report_is_made_again(tmp_path):
    assessment = example_assessment()
    write_report(assessment, tmp_path, request(text=ReaderText("Fever.", None, "Abscess.")))
    second = write_report(assessment, tmp_path, request(identity=StudyIdentity(), text=ReaderText(findings="Two.")))
    assert second.text == ReaderText("Fever.", "Two.", "Abscess.")
    assert second.identity.patient_name == "Example, Erika"
    content = (tmp_path / HTML_FILE).read_text(encoding="utf-8")
    assert "Fever." in content and "Two." in content and "Abscess." in content


def test_an_emptied_text_stays_empty_and_an_edited_file_counts(tmp_path):
    assessment = example_assessment()
    write_report(assessment, tmp_path, request(text=ReaderText("Fever.", "", "Abscess.")))
    record = read_record(tmp_path / JSON_FILE)
    record["reader_text"]["findings"] = "Written by hand."
    (tmp_path / JSON_FILE).write_text(json.dumps(record), encoding="utf-8")
    written = write_report(assessment, tmp_path, request(text=ReaderText(impression="")))
    assert written.text == ReaderText("Fever.", "Written by hand.", "")


def test_the_report_of_another_scan_is_never_overwritten(tmp_path):
    write_report(example_assessment(), tmp_path, request(text=ReaderText(impression="Mine.")))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"another scan \('body'\)"):
        write_report(empty_assessment(), tmp_path, request())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "LiverCascade report", "format_version": 99}', "\xff"])
def test_a_report_that_cannot_be_read_is_not_overwritten(tmp_path, content):
    (tmp_path / JSON_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(OutputError, match="may hold what a reader wrote"):
        write_report(example_assessment(), tmp_path, request())
    assert (tmp_path / JSON_FILE).read_text(encoding="latin-1") == content


def test_all_files_are_written_or_none(tmp_path, monkeypatch):
    from LiverCascadeLib.report import writing

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "pdf_steps", fails)
    with pytest.raises(Exception, match="full"):
        write_report(example_assessment(), tmp_path / "new", request(with_pdf=True))
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_is_given_up_leaves_nothing_behind(tmp_path):
    steps = report_steps(example_assessment(), tmp_path / "new", request(with_pdf=True))
    for _ in range(40):
        next(steps)
    steps.close()
    assert list(tmp_path.iterdir()) == []


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_report(example_assessment(), tmp_path / name, request(with_pdf=True))
    for file in REPORT_FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_another_date_changes_the_date_only(tmp_path):
    write_report(example_assessment(), tmp_path / "one", request())
    write_report(example_assessment(), tmp_path / "two", request(date=datetime(2027, 1, 2, 3, 4)))
    pages = [(tmp_path / name / HTML_FILE).read_text(encoding="utf-8") for name in ("one", "two")]
    assert pages[0].replace("2026-11-21 09:30", "2027-01-02 03:04") == pages[1]


def test_files_can_be_written_into_the_folder_of_a_run(tmp_path):
    for _ in file_steps(example_assessment(), tmp_path, request(with_pdf=True)):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(REPORT_FILES)


def test_no_file_name_and_no_title_holds_the_patient(tmp_path):
    write_report(example_assessment(), tmp_path, request(with_pdf=True))
    assert {path.name for path in tmp_path.iterdir()} == set(REPORT_FILES)
    title = re.search(r"<title>(.*)</title>", (tmp_path / HTML_FILE).read_text(encoding="utf-8"))[1]
    assert title == "Liver report"
    from pypdfium2 import PdfDocument

    assert PdfDocument(tmp_path / PDF_FILE).get_metadata_dict()["Title"] == "Liver report"


def test_halves_of_characters_do_not_keep_a_report_from_being_written(tmp_path):
    identity = replace(IDENTITY, patient_name="Broken \udcff name")
    assessment = renamed(example_assessment(), ["\ud800", "b"], ["\udfff", ""])
    write_report(assessment, tmp_path, request(identity=identity, text=ReaderText("\ud83d"), with_pdf=True))
    assert read_record(tmp_path / JSON_FILE)["identity"]["patient_name"] == "Broken ? name"


def test_a_path_in_an_identity_is_not_followed(tmp_path):
    identity = replace(IDENTITY, patient_name="../../etc/passwd", patient_id="file:///etc/passwd")
    write_report(example_assessment(), tmp_path / "out", request(identity=identity))
    assert "../../etc/passwd" in (tmp_path / "out" / HTML_FILE).read_text(encoding="utf-8")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["out"]
