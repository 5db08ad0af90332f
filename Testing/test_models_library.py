"""The catalogue, zips of unknown origin, imported models, cascades, and the command for all of them."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fault_server import serving
from foreign_models import bundle_files, files_of, nnunet_files, served_catalogue, written, zipped
from LiverCascadeLib import cli
from LiverCascadeLib.errors import ModelError
from LiverCascadeLib.models import archive, catalogue
from LiverCascadeLib.models.archive import unpack
from LiverCascadeLib.models.cascade_file import read_cascade
from LiverCascadeLib.models.catalogue import load_catalogue, problems, read_catalogue
from LiverCascadeLib.models.install import Description, import_model, license_text
from LiverCascadeLib.models.label_names import structure_of
from LiverCascadeLib.models.library import Library, checked_id, models_argument, models_folder
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.resources import EMBEDDED_MODELS
from tiny_models import save_pair

ROOT = Path(__file__).resolve().parent.parent
LIVER_SET = "totalsegmentator-liver"
TRAINER = "Dataset003_Liver/nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """An empty library, which the command finds as well."""
    monkeypatch.setenv("LIVERCASCADE_MODELS", str(tmp_path / "models"))
    return Library()


def bring(library: Library, path: Path, **said: object):
    return import_model(path, library, Description(**said), Progress())


def content_of(model) -> dict:
    """What is in the model's stage.json."""
    return json.loads((model.folder / "stage.json").read_text(encoding="utf-8"))


def traces(library: Library) -> list[str]:
    return sorted(path.name for path in library.stages.iterdir()) if library.stages.is_dir() else []


# The catalogue.


def test_the_catalogue_follows_its_schema_and_its_cascades_fit():
    assert problems(read_catalogue()) == []
    assert all(cascade.members for cascade in load_catalogue().cascades)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["models"][0].update(url="http://x"), "Additional properties"),
        (lambda c: c["models"][0].update(base_url="http://unsafe"), "models/0/base_url"),
        (lambda c: c["models"][0].update(file="../x.zip"), "models/0/file"),
        (lambda c: c["models"][0].update(model="/etc"), "models/0/model"),
        (lambda c: c["models"][0].update(sha256="abc"), "models/0/sha256"),
        (lambda c: c["models"][0].update(structures={"spleen": [1]}), "models/0/structures"),
        (lambda c: c["models"][0].update(folds=None), "models/0/folds"),
        (lambda c: c["models"][0].pop("license"), "'license' is a required property"),
        (lambda c: c["models"].append(c["models"][0]), "there twice"),
        (lambda c: c["cascades"][0].update(locate=c["cascades"][0]["refine"][0]), "no model for the role locate"),
        (lambda c: c["cascades"][0]["refine"].append("unknown"), "no model for the role refine"),
    ],
)
def test_a_wrong_catalogue_is_noticed(change, words):
    content = read_catalogue()
    change(content)
    assert words in "; ".join(problems(content))


def test_entries_of_totalsegmentator_are_what_its_sources_say():
    by_id = {model.id: model for model in load_catalogue().models}
    total, lesions = by_id["totalsegmentator-total-3mm"], by_id["totalsegmentator-liver-lesions"]
    assert total.url == (
        "https://github.com/wasserth/TotalSegmentator/releases/download/v2.0.0-weights/"
        "Dataset297_TotalSegmentator_total_3mm_1559subj.zip"
    )
    assert total.structures == {"liver": [5]} and total.role == "locate"
    assert lesions.spacing_mm == (0.75, 0.75, 1.0) and lesions.model.endswith("__3d_fullres_high")
    assert by_id["totalsegmentator-liver-segments"].structures["couinaud_4"] == [4]
    assert by_id["totalsegmentator-liver-vessels"].structures == {"vessel": [1], "lesion": [2]}
    for model in by_id.values():
        assert model.license == "Apache-2.0" and model.mirror is False and "Checked against" in model.comment


def test_a_damaged_catalogue_is_a_sentence(tmp_path):
    path = tmp_path / "catalogue.json"
    for text in ("{", "[]", '{"format_version": 9}', '{"format_version": 1, "models": [{}], "cascades": []}'):
        path.write_text(text)
        load_catalogue.cache_clear()
        with pytest.raises(ModelError, match="atalogue"):
            load_catalogue(path)


def test_the_license_text_says_what_somebody_agrees_to():
    entry = load_catalogue().model("totalsegmentator-liver-lesions")
    text = license_text(entry)
    for word in (entry.title, "231 MB", entry.license_url, "allows commercial use", "Wasserthal", "Research use only"):
        assert word in text
    assert "does not allow commercial use" in license_text(replace(entry, commercial_use=False))


# Zips of unknown origin.


def odd_zip(path: Path, *members: tuple[str, bytes, int]) -> Path:
    """A zip with such names, contents and Unix modes."""
    with zipfile.ZipFile(path, "w") as content:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            content.writestr(info, data)
    return path


LINK, FIFO = stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644
DANGERS = {
    "upward": (("../evil", b"x", 0),),
    "upward inside": (("a/../../evil", b"x", 0),),
    "absolute": (("/etc/evil", b"x", 0),),
    "drive": (("C:/evil", b"x", 0),),
    "backslash": (("..\\evil", b"x", 0),),
    "empty part": (("a//evil", b"x", 0),),
    "link": (("a/link", b"/etc/passwd", LINK),),
    "pipe": (("a/pipe", b"", FIFO),),
    "device name": (("a/con.txt", b"x", 0),),
    "dot at the end": (("a/file.", b"x", 0),),
    "same name in capitals": (("a/file", b"x", 0), ("A/FILE", b"y", 0)),
}


@pytest.mark.parametrize("name", DANGERS)
def test_dangerous_members_are_refused_before_anything_is_unpacked(library, tmp_path, name):
    path = odd_zip(tmp_path / "odd.zip", ("first", b"x", 0), *DANGERS[name])
    folder = tmp_path / "inside" / "target"
    folder.mkdir(parents=True)
    with pytest.raises(ModelError, match="was not unpacked"):
        unpack(path, folder, Progress())
    assert not list(folder.iterdir()) and not list(tmp_path.rglob("evil"))
    with pytest.raises(ModelError, match="was not unpacked"):
        bring(library, path)
    assert not traces(library)


def test_an_encrypted_zip_is_refused(tmp_path):
    path = odd_zip(tmp_path / "odd.zip", ("first", b"x", 0))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="encrypted"):
        unpack(path, tmp_path, Progress())


def test_a_zip_bomb_is_refused(library, tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for number in range(3):
            content.writestr(f"zeros{number}", bytes(30 << 20))
    with pytest.raises(ModelError, match="would grow from"):
        bring(library, path)
    assert not traces(library)


def test_a_zip_that_lies_about_its_sizes_cannot_grow(tmp_path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("zeros", bytes(10 << 20))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(signature) + offset
        data[place : place + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    (tmp_path / "target").mkdir()
    with pytest.raises(ModelError, match="damaged"):
        unpack(path, tmp_path / "target", Progress())
    assert sum(p.stat().st_size for p in (tmp_path / "target").iterdir()) <= 1000


def test_too_many_files_and_too_many_bytes_are_refused(tmp_path, monkeypatch):
    path = odd_zip(tmp_path / "many.zip", *((f"file{n}", b"12345", 0) for n in range(20)))
    monkeypatch.setattr(archive, "MOST_MEMBERS", 19)
    with pytest.raises(ModelError, match="holds 20 files"):
        unpack(path, tmp_path, Progress())
    monkeypatch.setattr(archive, "MOST_MEMBERS", 20)
    monkeypatch.setattr(archive, "MOST_BYTES", 99)
    with pytest.raises(ModelError, match="more than"):
        unpack(path, tmp_path, Progress())


def test_damaged_zips_are_a_sentence(library, tmp_path):
    good = zipped(nnunet_files(TRAINER))
    altered = bytearray(good)
    altered[len(good) // 2] ^= 0xFF
    for content in (b"", b"PK", good[: len(good) // 2], bytes(altered)):
        (tmp_path / "model.zip").write_bytes(content)
        with pytest.raises(ModelError, match="damaged"):
            bring(library, tmp_path / "model.zip")
        assert not traces(library)


# Imported models.


def test_a_zip_of_nnunet_is_described_by_its_own_files_and_says_what_is_guessed(library, tmp_path):
    (tmp_path / "export.zip").write_bytes(zipped(nnunet_files(TRAINER, folds=("fold_0", "fold_1"))))
    imported = bring(library, tmp_path / "export.zip")
    stage = content_of(imported.model)
    assert stage["id"] == "dataset003-liver" and stage["role"] == "refine" and stage["format"] == "nnunet"
    assert stage["structures"] == {"liver": [1], "lesion": [2]} and stage["folds"] == [0, 1]
    assert stage["configuration"] == "3d_fullres" and stage["model"] == TRAINER and stage["mirror"] is True
    assert stage["orientation"] == "stored" and stage["margin_mm"] == 10
    assert "liver = 1, lesion = 2" in imported.notes[0] and "role is refine" in imported.notes[1]
    assert any("license is not known" in note for note in imported.notes)
    assert not library.problems(imported.model) and not list(imported.model.folder.rglob("*.nii.gz"))


def test_what_is_said_comes_before_what_is_guessed(library, tmp_path):
    folder = written(nnunet_files(TRAINER, {"background": 0, "A": 1, "B": 2}), tmp_path / "mine")
    said = {"id": "mine", "role": "locate", "structures": {"liver": [1, 2]}, "mirror": False, "license": "MIT"}
    imported = bring(library, folder, **said, title="Mine")
    assert {name: content_of(imported.model)[name] for name in said} == said and imported.notes == ()
    assert imported.model.title == "Mine" and (folder / TRAINER / "plans.json").is_file()


def test_the_trainer_folder_itself_can_be_imported(library, tmp_path):
    folder = written(nnunet_files(TRAINER), tmp_path) / TRAINER
    model = bring(library, folder, id="mine").model
    assert content_of(model)["model"] == "." and content_of(model)["configuration"] == "3d_fullres"
    assert "fold_0/checkpoint_final.pth" in content_of(model)["files_sha256"]


def test_a_trainer_without_mirroring_is_run_without(library, tmp_path):
    trainer = "Dataset003_Liver/nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
    folder = written(nnunet_files(trainer, {"background": 0, "liver": 1}), tmp_path)
    stage = content_of(bring(library, folder).model)
    assert stage["mirror"] is False and stage["role"] == "locate" and stage["margin_mm"] == 0


def test_the_lesions_inside_a_region_liver_are_lesions(library, tmp_path):
    folder = written(nnunet_files(TRAINER, {"background": 0, "whole liver": [1, 2], "tumor": [2]}), tmp_path)
    assert content_of(bring(library, folder).model)["structures"] == {"liver": [1], "lesion": [2]}


def test_a_zip_of_the_catalogue_is_known_by_its_folders(library, tmp_path):
    entry = load_catalogue().model("totalsegmentator-liver-segments")
    (tmp_path / "any.zip").write_bytes(zipped(files_of(entry)))
    imported = bring(library, tmp_path / "any.zip")
    assert imported.model.id == entry.id and content_of(imported.model)["license"] == "Apache-2.0"
    assert "of the catalogue" in imported.notes[0] and "Nobody has published" in imported.notes[1]
    with pytest.raises(ModelError, match="installed already"):
        bring(library, tmp_path / "any.zip")
    assert traces(library) == [entry.id]


def test_a_zip_that_only_looks_like_the_catalogues_is_named(library, tmp_path):
    entry = load_catalogue().model("totalsegmentator-total-3mm")
    (tmp_path / "any.zip").write_bytes(zipped(files_of(entry)))
    assert "is not the one of the catalogue" in bring(library, tmp_path / "any.zip").notes[1]


def test_a_bundle_is_described_by_its_metadata(library, tmp_path):
    model = bring(library, written(bundle_files("my_bundle"), tmp_path), id="bundle").model
    assert content_of(model)["format"] == "monai-bundle" and content_of(model)["structures"] == {"liver": [5]}
    assert content_of(model)["version"] == "0.2.5" and content_of(model)["model"] == "my_bundle"


def test_a_folder_with_its_own_description_is_taken_as_it_is(library, tmp_path):
    first = bring(library, written(nnunet_files(TRAINER), tmp_path / "a"), license="MIT").model
    library_two = Library(tmp_path / "other")
    second = bring(library_two, first.folder).model
    assert content_of(second) == content_of(first)
    (second.folder / "stage.json").write_text(json.dumps({**content_of(second), "role": "guess"}))
    with pytest.raises(ModelError, match="role is 'guess', expected one of locate, refine"):
        bring(Library(tmp_path / "third"), second.folder)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"readme.txt": b""}, "No model was found"),
        ({**nnunet_files("a/x__y__2d"), **nnunet_files("b/x__y__3d")}, "holds 2 models"),
        (nnunet_files("a/nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"), "nnU-Net's own cascade"),
        (nnunet_files(TRAINER, {"background": 0, "spleen": 1}), "--structure"),
        ({k: v for k, v in nnunet_files(TRAINER).items() if "checkpoint" not in k}, "no fold"),
        ({**nnunet_files(TRAINER), f"{TRAINER}/dataset.json": b"{"}, "cannot be read"),
        ({**nnunet_files(TRAINER), f"{TRAINER}/dataset.json": b"[]"}, "no JSON object"),
        ({**nnunet_files(TRAINER), f"{TRAINER}/dataset.json": b"{}"}, "no labels"),
        ({**nnunet_files(TRAINER), f"{TRAINER}/dataset.json": b'{"labels": {"liver": "1"}}'}, "expected a number"),
        ({"manifest.json": b"{}"}, "needs no import"),
        ({"stage.json": b'{"model": "gone"}'}, "not beside it"),
        ({"b/configs/metadata.json": b"{}"}, "--structure"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_the_reason(library, tmp_path, files, words):
    with pytest.raises(ModelError, match=words):
        bring(library, written(files, tmp_path / "model"))
    assert not traces(library)


def test_links_in_a_folder_are_refused(library, tmp_path):
    folder = written(nnunet_files(TRAINER), tmp_path / "model")
    (folder / "secret").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="is a link"):
        bring(library, folder)


def test_a_path_that_does_not_exist_is_a_sentence(library, tmp_path):
    with pytest.raises(ModelError, match="There is no file"):
        bring(library, tmp_path / "gone.zip")


@pytest.mark.parametrize(
    ("name", "structure"),
    [
        ("liver", "liver"),
        ("Liver", "liver"),
        ("liver_tumor", "lesion"),
        ("liver tumours", "lesion"),
        ("cancer", "lesion"),
        ("Lesions", "lesion"),
        ("hepatic_vessel", "vessel"),
        ("liver_vessels", "vessel"),
        ("liver_segment_4", "couinaud_4"),
        ("couinaud 8", "couinaud_8"),
        ("kidney_tumor", None),
        ("lung vessels", None),
        ("spleen", None),
        ("of the", None),
        ("whole liver", "liver"),
        ("tumor_vessel", None),
        ("segment_9", None),
    ],
)
def test_labels_are_recognized_by_their_names_and_others_are_not(name, structure):
    assert structure_of(name) == structure


# The library.


@pytest.fixture
def stocked(library, tmp_path):
    """The library with all models of the 'liver set'."""
    entry = load_catalogue().cascade(LIVER_SET)
    for name in entry.members:
        bring(library, written(files_of(load_catalogue().model(name)), tmp_path / "source" / name))
    return library


def test_a_cascade_leads_to_installed_stages(stocked):
    path = stocked.cascade_path(LIVER_SET)
    content = json.loads(path.read_text())
    assert content["id"] == LIVER_SET and content["classify"] is None
    folders = read_cascade(path).folders
    assert [folder.name for folder in folders] == list(load_catalogue().cascade(LIVER_SET).members)
    assert all((folder / "stage.json").is_file() for folder in folders)
    assert not Path(content["locate"]).is_absolute(), "the folder can be moved"


def test_a_cascade_that_lacks_a_model_says_which_and_how_to_get_it(stocked):
    stocked.remove("totalsegmentator-liver-vessels")
    with pytest.raises(ModelError, match=r"lacks totalsegmentator-liver-vessels.*models install") as error:
        stocked.cascade_path(LIVER_SET)
    assert "models import" in str(error.value)
    with pytest.raises(ModelError, match="There is no cascade 'x'"):
        stocked.cascade_path("x")


def test_removing_a_cascade_leaves_no_trace_and_keeps_what_others_need(stocked, tmp_path):
    stocked.cascade_path(LIVER_SET)
    segments = "totalsegmentator-liver-segments"
    light = "totalsegmentator-total-6mm"
    bring(stocked, written(files_of(load_catalogue().model(light)), tmp_path / "light"))
    stocked.downloads.mkdir()
    part = stocked.downloads / "Dataset008_HepaticVessel.zip.part"
    part.write_bytes(b"half")
    removed = stocked.remove(LIVER_SET)
    assert "totalsegmentator-liver-vessels" in removed and segments not in removed
    assert traces(stocked) == ["totalsegmentator-liver-lesions", segments, light]
    assert not part.exists() and not (stocked.root / "cascades" / LIVER_SET).exists()
    stocked.remove("totalsegmentator-liver-light")
    assert not traces(stocked)
    with pytest.raises(ModelError, match="not installed"):
        stocked.remove(LIVER_SET)


def test_a_model_that_the_users_cascade_needs_stays(stocked, tmp_path):
    lesions = "totalsegmentator-liver-lesions"
    path = stocked.combine("mine", "My own", "embedded", [lesions])
    assert read_cascade(path).locate == EMBEDDED_MODELS / "locate"
    both = stocked.combine("both", "Both", "embedded", ["embedded", lesions])
    assert [folder.name for folder in read_cascade(both).refine] == ["refine", "context", lesions]
    assert next(c for c in stocked.cascades() if c.id == "both").members == ("embedded", "embedded", lesions)
    stocked.remove("both")
    mine = stocked.cascades()[-1]
    assert mine.id == "mine" and mine.title == "My own" and mine.members == ("embedded", lesions)
    assert stocked.cascade_path("mine") == path
    with pytest.raises(ModelError, match="needed by mine"):
        stocked.remove(lesions)
    assert stocked.remove("mine") == ["mine"] and lesions in stocked.remove(lesions)


@pytest.mark.parametrize(
    ("name", "locate", "refine", "words"),
    [
        ("mine", "totalsegmentator-liver-lesions", ["embedded"], "has the role refine, expected locate"),
        ("mine", "embedded", ["gone"], "not installed"),
        (LIVER_SET, "embedded", ["embedded"], "already the id"),
        ("Not An Id", "embedded", ["embedded"], "is no id"),
    ],
)
def test_what_does_not_fit_together_is_not_combined(stocked, name, locate, refine, words):
    with pytest.raises(ModelError, match=words):
        stocked.combine(name, "x", locate, refine)


def test_altered_and_missing_files_are_found(stocked):
    lesions = stocked.find("totalsegmentator-liver-lesions")
    assert stocked.problems(lesions) == []
    next(lesions.folder.rglob("plans.json")).unlink()
    next(lesions.folder.rglob("dataset.json")).write_text("{}")
    found = "; ".join(stocked.problems(lesions))
    assert "plans.json is missing" in found and "dataset.json has changed" in found


def test_a_damaged_cascade_of_the_user_is_shown_as_lacking(stocked):
    path = stocked.combine("mine", "x", "embedded", ["embedded"])
    path.write_text('{"schema_version": 1, "locate": "a"}')
    assert stocked.cascades()[-1].missing
    with pytest.raises(ModelError, match="lacks"):
        stocked.cascade_path("mine")


@pytest.mark.parametrize("text", ["", "..", "a/b", "A", "con", "embedded", ".hidden", "x" * 61])
def test_ids_that_are_no_folder_names_are_refused(text):
    with pytest.raises(ModelError, match="is no id"):
        checked_id(text)


def test_checksums_that_cannot_be_read_are_a_sentence(library):
    library.record_sha256("a", "0" * 64)
    (library.root / "checksums.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        library.recorded_sha256("a")


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [
        ("linux", "XDG_DATA_HOME", "LiverCascade/models"),
        ("win32", "LOCALAPPDATA", "LiverCascade/models"),
        ("darwin", "", "Library/Application Support/LiverCascade/models"),
    ],
)
def test_models_lie_where_the_system_keeps_such_things(monkeypatch, tmp_path, platform, variable, tail):
    monkeypatch.delenv("LIVERCASCADE_MODELS", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
        assert models_folder() == tmp_path / tail
        monkeypatch.delenv(variable)
    assert models_folder().as_posix().endswith("LiverCascade/models") and models_folder().is_relative_to(Path.home())


# --model


def test_model_takes_folders_and_cascades(stocked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert models_argument(None) is None
    assert models_argument(tmp_path) == tmp_path
    assert models_argument(Path("nowhere/models")) == Path("nowhere/models")
    with pytest.raises(ModelError, match=f"no cascade of that name. Installed cascades: {LIVER_SET}"):
        models_argument(Path("nowhere"))
    assert models_argument(Path(LIVER_SET)) == stocked.cascade_path(LIVER_SET)
    with pytest.raises(ModelError, match=f"is one model, expected a cascade. Choose {LIVER_SET}"):
        models_argument(Path("totalsegmentator-total-3mm"))
    with pytest.raises(ModelError, match="lacks"):
        models_argument(Path("totalsegmentator-liver-light"))
    (tmp_path / LIVER_SET).mkdir()
    assert models_argument(Path(LIVER_SET)) == Path(LIVER_SET), "a folder that is there comes first"


@pytest.mark.parametrize("command", ["segment", "batch"])
def test_segment_and_batch_hand_on_the_cascade_that_an_id_names(stocked, tmp_path, monkeypatch, own_signals, command):
    from LiverCascadeLib import batch, cascade

    asked = []

    def note(models, *_):
        asked.append(models)
        raise ModelError("That was all.")

    monkeypatch.setattr(cascade, "load_cascade", note)
    monkeypatch.setattr(batch, "run_batch", lambda *args: note(args[2].models))
    (tmp_path / "ct.nii.gz").write_bytes(b"")
    names = ["-i", str(tmp_path)] if command == "batch" else [str(tmp_path / "ct.nii.gz")]
    assert cli.main([command, *names, "-o", str(tmp_path / "out"), "--model", LIVER_SET]) != 0
    assert cli.main([command, *names, "-o", str(tmp_path / "out"), "--model", "totalsegmentator-liver-light"]) == 2
    if command == "batch":
        assert asked == [stocked.cascade_path(LIVER_SET)]


def test_an_installed_pair_of_own_models_still_runs_by_its_folder(library, tmp_path):
    assert models_argument(save_pair(tmp_path / "pair")) == tmp_path / "pair"


# The command.


def said(capsys, *arguments: object, code: int = 0) -> str:
    assert cli.main(["models", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_the_list_names_embedded_installed_and_available_models(library, tmp_path, capsys, own_signals):
    text = said(capsys)
    assert "Nothing is installed" in text and "commercial use allowed; 231 MB" in text
    assert f"{LIVER_SET} (TotalSegmentator liver set; lacks" in text
    folder = written(nnunet_files(TRAINER), tmp_path / "source")
    text = said(capsys, "import", folder, "--structure", "liver=1,2", "--structure", "lesion=2", "--quiet")
    assert text == ""
    assert "dataset003-liver (nnUNetTrainer" in said(capsys, "list")
    record = json.loads(said(capsys, "list", "--json"))
    assert record["installed"][0]["structures"] == {"liver": [1, 2], "lesion": [2]}
    assert len(record["embedded"]) == 3 and len(record["available"]) == len(load_catalogue().models)


def test_models_are_imported_combined_verified_and_removed(library, tmp_path, capsys, own_signals):
    folder = written(nnunet_files(TRAINER), tmp_path / "source")
    assert "Guessed" in said(capsys, "import", folder, "--id", "mine", "--margin", "15", "--no-mirror-test-time")
    stage = content_of(library.find("mine"))
    assert stage["margin_mm"] == 15 and stage["mirror"] is False
    assert "--model pair" in said(capsys, "combine", "pair", "--locate", "embedded", "--refine", "mine")
    assert "Everything is as it was" in said(capsys, "verify")
    assert json.loads(said(capsys, "verify", "mine", "--json")) == {"problems": []}
    next(library.stages.rglob("checkpoint_final.pth")).write_bytes(b"")
    assert "has changed" in said(capsys, "verify", code=2)
    assert "not installed" in said(capsys, "verify", "other", code=2)
    assert "needed by pair" in said(capsys, "remove", "mine", code=2)
    assert "Removed: pair" in said(capsys, "remove", "pair")
    assert json.loads(said(capsys, "remove", "mine", "--json")) == {"removed": ["mine"]}
    assert not traces(library)


def test_a_damaged_model_is_named(library, capsys):
    (library.stages / "broken").mkdir(parents=True)
    assert "damaged  broken" in said(capsys)
    assert "broken: its stage.json" in said(capsys, "verify", code=2)
    assert "Removed: broken" in said(capsys, "remove", "broken")


@pytest.mark.parametrize("structure", ["spleen=1", "liver", "liver=x", "liver=0"])
def test_a_wrong_structure_is_a_wrong_argument(library, tmp_path, structure, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["models", "import", str(tmp_path), "--structure", structure])
    assert ended.value.code == 2 and "Traceback" not in capsys.readouterr().err


@pytest.fixture
def served(monkeypatch, library):
    """A server with small zips in place of the real ones; --mirror leads there."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving({}) as server:
        small, server.files = served_catalogue(server.base)
        monkeypatch.setattr("LiverCascadeLib.models.library.load_catalogue", lambda: small)
        yield server


def test_a_cascade_is_installed_from_a_mirror_after_the_license_was_accepted(served, library, capsys, own_signals):
    text = said(capsys, "install", LIVER_SET, "--mirror", served.base, code=2)
    assert "license" in text and not served.requests
    text = said(capsys, "install", LIVER_SET, "--accept-license", "--mirror", served.base)
    assert text.count("Installed:") == 4 and f"--model {LIVER_SET}" in text
    assert len(Library().installed()) == 4
    assert "Installed" in said(capsys, "install", LIVER_SET), "what is there needs no consent"


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("no", 2), ("", 2)])
def test_somebody_at_a_terminal_is_asked(served, library, capsys, monkeypatch, own_signals, answer, code):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer + "\n"))
    assert cli.main(["models", "install", "totalsegmentator-total-6mm"]) == code
    shown = capsys.readouterr().out
    assert "License: Apache-2.0" in shown and "Do you accept" in shown
    assert bool(served.requests) == (code == 0)


def test_an_unknown_id_names_what_there_is(library, capsys, own_signals):
    assert "It has: totalsegmentator-liver," in said(capsys, "install", "x", "--accept-license", code=2)


def test_progress_for_a_program_is_json_on_every_line(served, library, capsys, own_signals):
    lines = said(capsys, "install", "totalsegmentator-total-6mm", "--accept-license", "--json-progress").splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["event"] for event in events} == {"progress", "done"} and events[-1]["event"] == "done"
    assert {"download", "verify", "unpack", "record"} <= {event.get("stage") for event in events}
    cli.main(["models", "install", "x", "--accept-license", "--json-progress"])
    error = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert error["event"] == "error" and error["exit_code"] == 2 and "It has:" in error["message"]


def test_the_program_itself_installs_offline_from_a_mirror_folder(tmp_path):
    entry = load_catalogue().model("totalsegmentator-total-6mm")
    written({entry.file: zipped(files_of(entry))}, tmp_path / "mirror")
    environment = {**os.environ, "LIVERCASCADE_MODELS": str(tmp_path / "m"), "PYTHONPATH": str(ROOT / "LiverCascade")}
    command = [sys.executable, "-m", "LiverCascadeLib", "models", "install", entry.id, "--accept-license", "--json"]
    command += ["--mirror", (tmp_path / "mirror").as_uri()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"installed": [entry.id]}
    assert (tmp_path / "m" / "stages" / entry.id / "stage.json").is_file()


def test_the_table_of_the_documentation_is_the_catalogues():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert catalogue.markdown_table(load_catalogue()) in text
