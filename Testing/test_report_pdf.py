"""The PDF of a report: what it says, on how many pages, in which scripts."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from assessments import IDENTITY, empty_assessment, example_assessment, make_pictures_small, many_lesions, renamed
from LiverCascadeLib.report import pdf
from LiverCascadeLib.report.document import ReaderText
from LiverCascadeLib.report.fonts import MARK, Fonts
from LiverCascadeLib.report.identity import StudyIdentity
from LiverCascadeLib.report.writing import PDF_FILE, ReportRequest, write_report

pypdfium2 = pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed")

DATE = datetime(2026, 11, 21, 9, 30)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    make_pictures_small(monkeypatch)


def pages_of(path: Path) -> list[str]:
    document = pypdfium2.PdfDocument(path)
    return [page.get_textpage().get_text_bounded() for page in document]


def written(folder: Path, assessment=None, **more) -> list[str]:
    """The text of each page of a new report."""
    request = ReportRequest(**{"date": DATE, "identity": IDENTITY, **more})
    write_report(assessment or example_assessment(), folder, request)
    return pages_of(folder / PDF_FILE)


def test_the_pdf_says_what_the_page_says(tmp_path):
    assessment = example_assessment()
    pages = written(tmp_path, text=ReaderText("Fever.", "Two lesions.", "Metastases."))
    content = " ".join(" ".join(pages).split())
    for said in ("Example, Erika", "PID-0815", "Fever.", "Two lesions.", "Metastases.", "VIII", "Lesion 2 ?"):
        assert said in content, said
    long, short = (assessment.lesions[0].values[key] for key in ("long_axis_mm", "short_axis_mm"))
    assert f"{long:.1f} × {short:.1f}" in content


@pytest.fixture(scope="module")
def five_hundred(tmp_path_factory) -> list[str]:
    """The pages of a report on 500 lesions."""
    return written(tmp_path_factory.mktemp("many"), many_lesions(500, size=(106, 70, 24)))


def test_every_page_names_the_patient_the_purpose_and_its_number(five_hundred):
    for number, content in enumerate(five_hundred, start=1):
        assert f"Page {number} of {len(five_hundred)}" in content
        assert "Research use only. Not for diagnosis or treatment." in content
        assert "Example, Erika" in content and "PID-0815" in content


def test_five_hundred_lesions_have_a_table_with_a_head_on_each_page(five_hundred):
    table = [content for content in five_hundred if "Remarks" in content]
    numbers = {int(n) for content in table for n in re.findall(r"Lesion (\d+)\b", content)}
    assert len(table) > 8 and numbers == set(range(1, 501))
    others = [content for content in five_hundred if "Remarks" not in content]
    assert len({n for content in others for n in re.findall(r"Lesion (\d+)\b", content)}) == 12


def test_the_smallest_reports_are_made_too(tmp_path):
    assert "No liver was found." in written(tmp_path / "none", empty_assessment())[0]
    unknown = written(tmp_path / "unknown", identity=StudyIdentity())
    assert "not known" in unknown[0] and "Liver report · body" in unknown[1]


def test_markup_is_shown_and_not_obeyed(tmp_path):
    attack = '<b>bold</b><img src="file:///etc/passwd"/><para>&amp;</font><a href="x">'
    assessment = renamed(example_assessment(), [attack[:30], "b"], [attack, ""])
    pages = written(
        tmp_path, assessment, identity=replace(IDENTITY, patient_name=attack), text=ReaderText(attack, attack, attack)
    )
    content = " ".join(pages)
    assert content.count('<img src="file:///etc/passwd"/>') >= 4 and "</font>" in content


def test_texts_of_any_length_find_room(tmp_path):
    word, sentence = "W" * 3000, "A long sentence about the liver. " * 900
    assessment = renamed(example_assessment(), [word, "b " * 500], [sentence, word])
    identity = replace(IDENTITY, patient_name=word, institution="clinic " * 400)
    pages = written(tmp_path, assessment, identity=identity, text=ReaderText(sentence, word, "x\n" * 300))
    assert len(pages) > 8


def test_a_script_that_the_first_font_lacks_takes_a_font_of_the_system(tmp_path):
    if not Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf").is_file():
        pytest.skip("the font DejaVu Sans is not installed")
    pages = written(tmp_path, identity=replace(IDENTITY, patient_name="Иванова, Мария Ωμέγα"))
    assert "Иванова, Мария Ωμέγα" in pages[0] and MARK not in "".join(pages)
    assert "Иванова" in pages[1]


@pytest.mark.parametrize("name", ["山田太郎", "محمد علي", "פלוני", "สมชาย"])
def test_a_name_without_letters_is_marked_and_the_page_said_to_have_it(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pdf, "Fonts", lambda: Fonts(system_fonts=()))
    pages = written(tmp_path, identity=replace(IDENTITY, patient_name=f"{name} Smith"))
    assert f"{MARK} Smith" in pages[0] and "The HTML page of this report has all of it." in pages[0]
    assert name in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_scripts_that_run_from_right_to_left_are_never_set_letter_by_letter():
    fonts = Fonts()
    assert fonts.markup("محمد علي (M. Ali)") == f"{MARK} (M. Ali)"
    assert fonts.is_incomplete


def test_accents_that_stand_alone_are_joined_with_their_letters():
    fonts = Fonts(system_fonts=())
    assert fonts.markup("Mu\u0308ller") == "Müller" and not fonts.is_incomplete


def test_fonts_that_cannot_be_embedded_are_passed_over(tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"OTTO" + bytes(200))
    fonts = Fonts(system_fonts=(str(tmp_path / "absent.ttf"), str(broken)))
    assert fonts.markup("Ж") == MARK


def test_a_picture_of_the_follow_up_is_shown(tmp_path):
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.new("RGB", (40, 300), "gray").save(stream, "PNG")
    followup = {
        "title": "Since spring",
        "sentences": [],
        "columns": [],
        "rows": [],
        "pictures": [(stream.getvalue(), "Pair 1")],
    }
    pages = written(tmp_path, followup=followup)
    assert "Pair 1" in " ".join(pages) and "Since spring" in " ".join(pages)
    assert 'alt="Pair 1"' in (tmp_path / "report.html").read_text(encoding="utf-8")
