"""``livercascade followup`` on folders of results, as the user runs it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from assessments import make_pictures_small
from followup_studies import result_of, small_pair
from LiverCascadeLib.commands import followup
from LiverCascadeLib.errors import EXIT_DONE, InputError
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.report.files import OutputFolder, write_results
from LiverCascadeLib.volume import Volume


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch, own_signals):
    make_pictures_small(monkeypatch)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """The results of two runs."""
    import nibabel

    root, found = tmp_path_factory.mktemp("studies"), []
    pair = small_pair()
    for name, case in (("january", pair.earlier), ("march", pair.later)):
        path = root / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(case.volume.array.T, case.volume.grid.ijk_to_ras), path)
        result = result_of(case)
        volume = Volume(case.volume.array, case.volume.grid, name, {"path": str(path), "format": "nifti"})
        with OutputFolder(root / name) as output:
            write_results(type(result)(**{**vars(result), "volume": volume}), output, Progress())
        found.append(root / name)
    return found


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    followup.add_parser(parser.add_subparsers())
    options = parser.parse_args(["followup", *(str(argument) for argument in arguments)])
    return options.run(options)


def test_two_results_give_a_comparison_and_the_report_of_the_last_one(folders, tmp_path, capsys):
    out = tmp_path / "comparison"
    assert run(*folders, "-o", out, "--dates", "2026-01-05", "2026-03-09") == EXIT_DONE
    assert {"followup.json", "followup.csv", "report.html", "report.pdf", "report.json"} <= {
        path.name for path in out.iterdir()
    }
    record = json.loads((out / "followup.json").read_text())
    assert [study["date"] for study in record["studies"]] == ["2026-01-05", "2026-03-09"]
    assert record["response"]["studies"][1]["category"] == "progressive disease"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Comparison with earlier studies" in page and "a new lesion" in page
    assert "By RECIST 1.1" in capsys.readouterr().out


def test_dates_decide_what_is_the_baseline_and_targets_are_the_readers(folders, tmp_path, capsys):
    out = tmp_path / "comparison"
    options = "--dates", "2026-03-09", "2026-01-05", "--targets", "1", "--no-report", "--json", "--quiet"
    assert run(folders[1], folders[0], "-o", out, *options) == EXIT_DONE
    record = json.loads(capsys.readouterr().out)
    assert record["studies"][0]["name"] == "january" and record["findings"][0]["code"] == "studies-sorted"
    assert record["response"]["targets"] == [1] and record["response"]["targets_are"] == "chosen by the reader"
    assert not (out / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{0}"], "two studies at least"),
        (["{0}", "{0}"], "same series"),
        (["{0}", "{1}", "--dates", "2026-01-05"], "1 dates"),
        (["{0}", "{1}", "--dates", "yesterday", "2026-01-05"], "is no date"),
        (["{0}", "{1}", "--targets", "77"], "no lesion 77"),
        (["{0}", "{0}/nowhere"], "no folder"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(folders, tmp_path, arguments, words):
    out = tmp_path / "comparison"
    with pytest.raises(InputError, match=words):
        run(*(text.format(*folders) for text in arguments), "-o", out, "--quiet")
    assert not out.exists() and not list(tmp_path.iterdir())


def test_earlier_results_stay_when_a_comparison_fails(folders, tmp_path):
    out = tmp_path / "comparison"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError):
        run(folders[0], folders[0], "-o", out, "--quiet")
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert np.all([(folder / "result.json").exists() for folder in folders])
