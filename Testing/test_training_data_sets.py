"""Data sets as they are downloaded: found, repaired, checked and split."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil

import numpy as np
import pytest
from dataset_layouts import LAY_OUT, LabeledScan, _as_lps, invented, lay_out_ircadb, lay_out_lits, without_header
from dataset_layouts import write_nifti as write
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.geometry import Grid
from LiverCascadeTrainingLib.data.checks import CHECKS, check_data, content_key
from LiverCascadeTrainingLib.data.layouts import Study, find_studies
from LiverCascadeTrainingLib.data.patients import IRCADB_VOXELS, LITS_OF_IRCADB, Linked, ircadb_number, known_links
from LiverCascadeTrainingLib.data.reading import StudyError, placed_on, read_image
from LiverCascadeTrainingLib.data.repairs import load_study, spine_behind
from LiverCascadeTrainingLib.data.splits import PARTS, TEST, TRAIN, VALIDATION, load_split, make_split


@pytest.fixture(scope="module")
def scans():
    """Three bodies, 6 mm; the third has a healthy liver."""
    return [invented(seed, 3, seed != 2) for seed in range(3)]


@pytest.fixture(scope="module")
def fine(scans):
    """One body with the number of slices and about the voxels of 3D-IRCADb 18 = LiTS 45: 74 slices."""
    item = scans[0]
    k = np.linspace(0, len(item.array) - 1, 74).round().astype(int)
    array, labels = (values[k].repeat(8, axis=1).repeat(8, axis=2) for values in (item.array, item.labels))
    return LabeledScan("fine", array, labels, Grid(array.shape[::-1], np.diag([-0.74, 0.74, 2.5, 1])))


def checks_of(report):
    return {problem.check for problem in report.problems}


@pytest.mark.parametrize("layout", ["lits", "msd", "csv"])
def test_every_layout_of_files_is_known_by_itself_and_gives_back_what_was_put_in(layout, scans, tmp_path):
    LAY_OUT[layout](tmp_path, scans)
    studies = find_studies(tmp_path)
    assert [study.source for study in studies] == [layout] * 3
    assert [study.name for study in find_studies(tmp_path, layout)] == [study.name for study in studies]
    for study, item in zip(studies, scans, strict=True):
        loaded = load_study(study)
        assert np.array_equal(loaded.volume.array, item.array)
        assert np.array_equal(loaded.labels, item.labels)
        assert loaded.volume.grid.is_close(item.grid, 1e-3)
        assert study.known >= {"liver", "lesion"} and not loaded.repairs
    assert [("couinaud" in study.known) for study in studies] == (
        [True, False, True] if layout == "csv" else [False] * 3
    )


@pytest.mark.parametrize("zipped", [False, True], ids=["folders", "zip files"])
def test_masks_of_3d_ircadb_become_labels(zipped, scans, tmp_path):
    item = LabeledScan("low", scans[0].array[10:30], scans[0].labels[10:30], scans[0].grid)
    item = dataclasses.replace(item, grid=Grid(item.array.shape[::-1], item.grid.ijk_to_ras))
    lay_out_ircadb(tmp_path, [item], first=7, zipped=zipped)
    (study,) = find_studies(tmp_path)
    assert (study.name, study.patient, study.source) == ("ircadb_7", "ircadb:7", "ircadb")
    loaded = load_study(study)
    assert np.array_equal(placed_on(loaded.labels, loaded.volume.grid, item.grid), item.labels)
    assert np.array_equal(placed_on(loaded.volume.array, loaded.volume.grid, item.grid), item.array)
    assert any("livertumor01" in note for note in loaded.notes)


def test_only_tumors_and_cysts_of_the_liver_are_lesions_in_3d_ircadb():
    from LiverCascadeTrainingLib.data.layouts import lesion_structures

    names = [
        "liver",
        "livertumor01",
        "livertumor2",
        "livertumors",
        "liverkyst",
        "livercyst",
        "rightsurrenaltumor",
        "bone",
    ]
    assert lesion_structures(names) == ["livertumor01", "livertumor2", "livertumors", "liverkyst", "livercyst"]


def test_pictures_of_chaos_lie_on_the_slices_of_their_files(scans, tmp_path):
    item = LabeledScan(
        "low", scans[0].array[10:30], scans[0].labels[10:30], Grid((77, 60, 20), scans[0].grid.ijk_to_ras)
    )
    assert item.array.shape == (20, 60, 77)
    LAY_OUT["chaos"](tmp_path, [item])
    (study,) = find_studies(tmp_path)
    assert (study.name, study.known) == ("chaos_1", {"liver", "lesion"})
    # Its files have a series each, and begin with the highest slice.
    loaded = load_study(study)
    assert np.array_equal(placed_on(loaded.labels, loaded.volume.grid, item.grid), item.labels > 0)
    next(study.label.iterdir()).unlink()
    with pytest.raises(StudyError, match="19 pictures of the liver for 20 DICOM files"):
        load_study(study)


def test_pictures_in_the_opposite_order_are_turned_round_and_it_is_told(scans, tmp_path):
    item = LabeledScan(
        "low", scans[0].array[8:36], scans[0].labels[8:36], Grid((77, 60, 28), scans[0].grid.ijk_to_ras)
    )
    LAY_OUT["chaos"](tmp_path, [item])
    (study,) = find_studies(tmp_path)
    pictures = sorted(study.label.iterdir())
    for number, path in enumerate(pictures):
        path.rename(path.with_name(f"turned_{len(pictures) - number:03d}.png"))
    loaded = load_study(study)
    assert any("order opposite" in note for note in loaded.notes)
    assert np.array_equal(placed_on(loaded.labels, loaded.volume.grid, item.grid), item.labels > 0)


def test_several_data_sets_in_one_folder_are_found_together(scans, tmp_path):
    LAY_OUT["lits"](tmp_path / "LiTS", scans[:1])
    LAY_OUT["msd"](tmp_path / "MSD", scans[1:2])
    (tmp_path / "MSD" / "Task03_Liver" / "imagesTr" / "._liver_9.nii.gz").write_bytes(b"left by macOS")
    assert [study.name for study in find_studies(tmp_path)] == ["lits_200", "msd_liver_200"]


def test_names_are_sorted_as_people_count_and_test_sets_are_only_found_when_wanted(tmp_path):
    for number in (10, 9, 100):
        (tmp_path / f"volume-{number}.nii").touch()
        (tmp_path / f"segmentation-{number}.nii").touch()
    (tmp_path / "test-volume-3.nii").touch()
    assert [study.name for study in find_studies(tmp_path)] == ["lits_9", "lits_10", "lits_100"]
    extra = find_studies(tmp_path, unlabeled=True)[-1]
    assert extra.name == "lits_test_3" and not extra.known and not extra.missing


def test_a_description_as_nnunet_writes_it_is_understood(scans, tmp_path):
    item = scans[0]
    write(tmp_path / "imagesTr" / "liver_1_0000.nii.gz", item.array, item.grid)
    write(tmp_path / "labelsTr" / "liver_1.nii.gz", item.labels * 3, item.grid)
    labels = {"background": 0, "liver": 3, "tumor": 6, "spleen": 9}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "name": "Own"}))
    (study,) = find_studies(tmp_path)
    assert study.name == "own_liver_1" and study.meanings == {0: 0, 3: 1, 6: 2, 9: 0}
    assert np.array_equal(load_study(study).labels, item.labels)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ('{"labels": {"0": "background", "1": "spleen"}}', "no label for liver or lesions"),
        ('{"name": "x"}', "cannot be read"),
    ],
)
def test_a_broken_description_is_told_in_words(content, words, tmp_path):
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=words):
        find_studies(tmp_path)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("image,label,patien\na,b,c\n", "Did you mean 'patient'"),
        ("image,label\na,b\n", "no column 'patient'"),
        ("image,label,patient\na,b,\n", "line 2: image and patient"),
        ("image,label,patient,lesions_known\na,b,c,perhaps\n", "expected yes or no"),
    ],
)
def test_a_broken_table_is_told_in_words(table, words, tmp_path):
    (tmp_path / "pairs.csv").write_text(table)
    with pytest.raises(InputError, match=words):
        find_studies(tmp_path)


def test_a_folder_without_any_layout_says_what_was_expected(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(InputError, match=r"Found: holiday\.jpg\. Expected one of.*imagesTr and labelsTr"):
        find_studies(tmp_path)
    with pytest.raises(InputError, match="There is no folder"):
        find_studies(tmp_path / "nowhere")
    with pytest.raises(InputError, match="Did you mean 'lits'"):
        find_studies(tmp_path, "list")


def test_the_identity_headers_of_lits_get_voxel_size_and_sides_back(fine, tmp_path):
    lay_out_lits(tmp_path, [dataclasses.replace(fine, grid=without_header(fine.grid))], first=45)
    (study,) = find_studies(tmp_path)
    loaded = load_study(study)
    assert [repair.kind for repair in loaded.repairs] == ["voxel-size", "orientation"]
    # Patient 18: 0.74 mm within slices, 2.5 mm between; the first axis grows to the left.
    assert np.allclose(loaded.volume.grid.spacing, (0.74, 0.74, 2.5))
    assert loaded.volume.grid.axes == "LAS"
    assert "LEFT" in loaded.repairs[1].text and loaded.repairs[1].before == "RAS"
    assert np.array_equal(loaded.volume.array, fine.array)


@pytest.mark.parametrize("flip", ["front", "head"])
def test_an_identity_header_is_turned_by_spine_and_lungs_too(flip, scans, tmp_path):
    item = scans[0]
    axis = 1 if flip == "front" else 0
    chest = item.array.copy()
    # More of the chest than the phantom has: large lungs above the liver.
    chest[44:, 22:34, 24:50] = -800
    item = dataclasses.replace(item, array=np.where(item.labels > 0, item.array, chest))
    array, labels = np.flip(item.array, axis).copy(), np.flip(item.labels, axis).copy()
    assert spine_behind(read_image(write(tmp_path / "straight.nii", item.array, item.grid))) > 0.05
    lay_out_lits(tmp_path, [LabeledScan("x", array, labels, without_header(item.grid))])
    (study,) = find_studies(tmp_path)
    # The phantom at its own 6 mm: judged at the size that the twin's header has.
    twin = write(tmp_path / "twin.nii.gz", array, Grid(item.grid.size, np.diag([6.0, 6, 6, 1])))
    study = dataclasses.replace(study, patient="lits:28")
    loaded = load_study(study, {1: Study("twin", "ircadb", "ircadb:1", twin)})
    assert loaded.volume.grid.axes == ("LPS" if flip == "front" else "LAI")
    assert "DICOM headers of twin" in loaded.repairs[0].text


def test_a_voxel_size_that_nobody_knows_is_refused_and_not_guessed(scans, tmp_path):
    lay_out_lits(tmp_path, [dataclasses.replace(scans[0], grid=without_header(scans[0].grid))], first=45)
    (study,) = find_studies(tmp_path)
    with pytest.raises(StudyError, match="voxel size was lost") as caught:
        load_study(study)
    assert caught.value.check == "identity-affine"
    assert load_study(study, unknown_size=True).volume.grid.spacing.tolist() == [1, 1, 1]


def test_labels_with_another_header_are_placed_by_their_voxels_where_the_densities_say_so(scans, tmp_path):
    item = scans[0]
    shifted = item.grid.ijk_to_ras.copy()
    shifted[:3, 3] += (0, 120, 0)
    write(tmp_path / "volume-201.nii", item.array, item.grid)
    write(tmp_path / "segmentation-201.nii", item.labels, Grid(item.grid.size, shifted))
    loaded = load_study(find_studies(tmp_path)[0])
    assert [repair.kind for repair in loaded.repairs] == ["label-grid"]
    assert np.array_equal(loaded.labels, item.labels)


def test_labels_on_a_flipped_or_cut_grid_are_placed_exactly(scans):
    item = scans[0]
    flipped = item.grid.canonical()
    turned = placed_on(item.labels, item.grid, flipped)
    assert np.array_equal(turned, item.labels[:, :, ::-1])
    assert np.array_equal(placed_on(turned, flipped, item.grid), item.labels)
    moved = item.grid.ijk_to_ras.copy()
    moved[:3, 3] = item.grid.to_ras(np.array([0, 0, 5]))
    part = Grid((*item.grid.size[:2], item.grid.size[2] - 9), moved)
    cut = placed_on(item.labels, item.grid, part)
    assert np.array_equal(cut, item.labels[5:-4])
    back = placed_on(cut, part, item.grid)
    assert np.array_equal(back[5:-4], cut) and not back[:5].any() and not back[-4:].any()
    coarser = Grid(item.grid.size, item.grid.ijk_to_ras @ np.diag([1.1, 1, 1, 1]))
    assert placed_on(item.labels, item.grid, coarser) is None


def test_the_known_patients_agree_with_one_another():
    assert {n: n + 27 for n in range(1, 21)} == LITS_OF_IRCADB and set(IRCADB_VOXELS) == set(LITS_OF_IRCADB)
    assert [ircadb_number(p) for p in ("lits:28", "lits:47", "msd:liver_44", "ircadb:3")] == [1, 20, 17, 3]
    assert [ircadb_number(p) for p in ("lits:27", "lits:48", "ircadb:21", "chaos:3", "me")] == [None] * 5
    linked = Linked(["lits:44", "ircadb:17", "msd:liver_44", "lits:47", "lits:48", "lits:1"])
    for first, second, reason in known_links():
        linked.add(first, second, reason)
    assert [members for members, _ in linked.groups()] == [
        ["ircadb:17", "lits:44", "msd:liver_44"],
        ["lits:1"],
        ["lits:47"],
        ["lits:48"],
    ]


@pytest.mark.slow
def test_the_twins_that_lie_beside_the_project_are_the_same_voxels(shared_data, tmp_path):
    from LiverCascadeLib.volume import read_labels

    for archive in ("MASKS_DICOM.zip", "PATIENT_DICOM.zip"):
        (tmp_path / "3Dircadb1.17").mkdir(exist_ok=True)
        (tmp_path / "3Dircadb1.17" / archive).symlink_to(shared_data(f"ircadb_17/{archive}"))
    (study,) = find_studies(tmp_path)
    loaded = load_study(study)
    assert study.patient == "ircadb:17" and loaded.volume.grid.size[2] == IRCADB_VOXELS[17][2]
    assert np.allclose(loaded.volume.grid.spacing, (*IRCADB_VOXELS[17][:1] * 2, IRCADB_VOXELS[17][1]), atol=0.005)
    assert (loaded.labels == 2).any()
    lits, grid = read_labels(shared_data("labels_lits_liver/segmentation-44.nii.gz"))
    assert np.allclose(grid.ijk_to_ras, np.eye(4), atol=1e-6)
    # LiTS 44 has the identity for a header, but grows to the left, the front and the head as all of LiTS.
    truth = placed_on(loaded.labels > 0, loaded.volume.grid, loaded.volume.grid.canonical())
    assert np.array_equal(lits[:, :, ::-1] > 0, truth)
    # As LiTS has it: the same voxels, first axis to the left, and no header.
    upright = placed_on(loaded.volume.array, loaded.volume.grid, loaded.volume.grid.canonical())
    write(tmp_path / "LiTS" / "volume-44.nii", upright[:, :, ::-1].copy(), grid)
    write(tmp_path / "LiTS" / "segmentation-44.nii", (lits > 0).astype(np.uint8), grid)
    (twin,) = find_studies(tmp_path / "LiTS")
    for twins, spacing in (({}, (0.74, 0.74, 1.6)), ({17: study}, loaded.volume.grid.spacing)):
        repaired = load_study(twin, twins)
        assert [repair.kind for repair in repaired.repairs] == ["voxel-size", "orientation"]
        assert np.allclose(repaired.volume.grid.spacing, spacing, atol=1e-5)
        assert repaired.volume.grid.axes == "LAS"
    assert content_key(repaired.volume) == content_key(loaded.volume)


def test_a_good_data_set_has_no_errors_and_says_what_it_holds(scans, tmp_path):
    LAY_OUT["lits"](tmp_path, scans)
    report = check_data(tmp_path)
    assert report.exit_code == 0 and not report.unusable and len(report.usable) == 3
    assert [case.lesions for case in report.cases][2] == 0 and report.cases[0].lesions >= 1
    assert "no-lesion" in checks_of(report)
    assert "3 usable" in report.as_text()


@pytest.fixture(scope="module")
def broken(scans, tmp_path_factory):
    """A data set in which every case has a trouble of its own, and its report."""
    folder = tmp_path_factory.mktemp("broken")
    a, b, healthy = scans

    def pair(number, array=a.array, labels=a.labels, grid=a.grid, label_grid=None):
        write(folder / f"volume-{number}.nii.gz", array, grid)
        write(folder / f"segmentation-{number}.nii.gz", labels, label_grid or grid)

    pair(200)
    write(folder / "volume-201.nii.gz", b.array, b.grid)
    write(folder / "segmentation-202.nii.gz", b.labels, b.grid)
    pair(203)
    content = gzip.decompress((folder / "volume-203.nii.gz").read_bytes())
    (folder / "volume-203.nii.gz").write_bytes(gzip.compress(content[: len(content) // 2]))
    small = Grid((20, 20, 20), np.diag([-3.3, 3.3, 3.3, 1]))
    pair(204, b.array, np.ones((20, 20, 20), np.uint8), b.grid, small)
    pair(205, b.array + np.int16(1), np.zeros_like(b.labels), b.grid)
    pair(206, b.array + np.int16(2), b.labels * 3, b.grid)
    pair(207, np.roll(b.array, 9, axis=2), np.flip(b.labels, (1, 2)).copy(), b.grid)
    pair(208, np.abs(b.array // 8), b.labels, b.grid)
    pair(209, a.array[:9], a.labels[20:29], Grid((*a.grid.size[:2], 9), a.grid.ijk_to_ras))
    pair(210, grid=without_header(a.grid))
    mirrored = a.grid.ijk_to_ras @ np.diag([-1, 1, 1, 1])
    less = a.labels.copy()
    less[tuple(np.argwhere(less == 1)[0])] = 0
    pair(211, a.array + np.int16(1), less, Grid(a.grid.size, mirrored))
    pair(212, np.flip(a.array, 2).copy(), np.flip(a.labels, 2).copy(), a.grid.canonical())
    pair(213, healthy.array, np.flip(healthy.labels, 0).copy(), healthy.grid)
    pair(217, healthy.array + np.int16(9), np.flip(healthy.labels, 0).copy(), healthy.grid)
    tiny = np.where(healthy.labels > 0, 0, 0).astype(np.uint8)
    tiny[20:24, 30:34, 50:54] = 1
    pair(214, healthy.array + np.int16(1), tiny, healthy.grid)
    two = healthy.labels.copy()
    middle = int(np.argwhere(two > 0)[:, 0].mean())
    two[middle - 2 : middle + 2] = 0
    pair(215, healthy.array + np.int16(2), two, healthy.grid)
    away = healthy.labels.copy()
    away[2:5, 30:33, 20:23] = 2
    pair(216, healthy.array + np.int16(3), away, healthy.grid)
    write(folder / "couinaud-216.nii.gz", np.flip(healthy.labels, 2).copy(), healthy.grid)
    (folder / "notes.nii.txt").write_text("beside")
    return folder, check_data(folder)


@pytest.mark.parametrize(
    ("check", "case"),
    [
        ("missing-label", "lits_201"),
        ("missing-image", "lits_202"),
        ("unreadable", "lits_203"),
        ("grid-mismatch", "lits_204"),
        ("label-empty", "lits_205"),
        ("label-out-of-range", "lits_206"),
        ("label-elsewhere", "lits_207"),
        ("not-ct", "lits_208"),
        ("few-slices", "lits_209"),
        ("identity-affine", "lits_210"),
        ("orientation", "lits_211"),
        ("duplicate-content", "lits_212"),
        ("duplicate-label", "lits_213"),
        ("liver-volume", "lits_214"),
        ("liver-pieces", "lits_215"),
        ("lesion-outside-liver", "lits_216"),
        ("couinaud-off-liver", "lits_216"),
        ("spacing-odd", "lits_200"),
        ("no-lesion", "lits_215"),
    ],
)
def test_each_trouble_is_named_for_the_case_that_has_it(check, case, broken):
    report = broken[1]
    found = [problem for problem in report.problems if problem.check == check]
    assert case in {name for problem in found for name in problem.cases}, sorted(checks_of(report))


def test_one_report_tells_all_troubles_and_ends_with_an_error(broken):
    folder, report = broken
    assert report.exit_code == 2
    assert {"lits_201", "lits_202", "lits_203", "lits_204", "lits_205", "lits_206"} <= set(report.unusable)
    # A warning or a remark is no reason to leave a case out.
    assert {"lits_200", "lits_212", "lits_215", "lits_216"} <= set(report.usable)
    text = report.as_text()
    assert "Traceback" not in text and all(f"lits_{n}" in text for n in range(200, 218))
    assert text.index("Errors") < text.index("Warnings") < text.index("Remarks")
    report.save(folder.parent / "report")
    content = json.loads((folder.parent / "report" / "data-check.json").read_text())
    assert content["unusable"] == list(report.unusable)
    assert {problem["check"] for problem in content["problems"]} <= set(CHECKS)


def test_two_scans_with_one_label_map_are_an_error(scans, tmp_path):
    a = scans[0]
    LAY_OUT["lits"](tmp_path, [a, dataclasses.replace(a, array=a.array + np.int16(1))])
    report = check_data(tmp_path)
    assert report.unusable == ("lits_200", "lits_201") and "duplicate-label" in checks_of(report)


def test_a_table_that_names_files_that_are_not_there_is_reported(scans, tmp_path):
    LAY_OUT["csv"](tmp_path, scans[:2])
    shutil.rmtree(tmp_path / "couinaud")
    (tmp_path / "images" / "p201.nii.gz").unlink()
    assert {"missing-image", "missing-couinaud"} <= checks_of(check_data(tmp_path))


def test_a_scan_is_known_again_flipped_and_with_another_header(scans):
    from LiverCascadeLib.volume import Volume

    a, b, _ = (Volume(s.array, s.grid) for s in scans)
    turned = Volume(np.flip(a.array, (0, 2)).copy(), a.grid.canonical((3, 3, 3)).canonical(a.grid.spacing))
    assert content_key(turned) == content_key(a) != content_key(b)


def patients(count, source="lits", first=200):
    return [Study(f"{source}_{n}", source, f"{source}:{n}", None, None) for n in range(first, first + count)]


@pytest.mark.parametrize(
    ("scheme", "counts"), [("70/10/20", (91, 13, 26)), ("90/10", (117, 13)), ("50/25/25", (65, 33, 32))]
)
def test_shares_are_as_near_as_whole_patients_allow(scheme, counts):
    split = make_split(patients(130), scheme)
    found = [len(split.names(part)) for part in PARTS[: len(counts)]]
    assert sum(found) == 130 and all(abs(a - b) <= 1 for a, b in zip(found, counts, strict=True))
    assert not set(split.names(TRAIN)) & set(split.names(VALIDATION))
    assert bool(split.names(TEST)) == (len(counts) == 3)


def test_a_split_depends_on_seed_and_names_not_on_their_order():
    studies = patients(40)
    first = make_split(studies, seed=7)
    assert make_split(studies[::-1], seed=7).folds == first.folds
    assert make_split(studies, seed=8).folds != first.folds
    assert make_split(studies, seed=7).sha256 == first.sha256


def test_each_data_set_is_in_every_part_by_its_share():
    studies = patients(100) + patients(20, "chaos", 1)
    split = make_split(studies, "70/10/20")
    counts = [sum(name.startswith("chaos") for name in split.names(part)) for part in PARTS]
    assert sum(counts) == 20 and abs(counts[0] - 14) <= 2 and abs(counts[1] - 2) <= 1 and abs(counts[2] - 4) <= 1


def test_folds_take_every_patient_for_validation_once():
    split = make_split(patients(23), "5-fold")
    held = [name for fold in range(5) for name in split.names(VALIDATION, fold)]
    assert sorted(held) == sorted(study.name for study in patients(23))
    for fold in range(5):
        assert not set(split.names(TRAIN, fold)) & set(split.names(VALIDATION, fold))
        assert len(split.names(TRAIN, fold)) + len(split.names(VALIDATION, fold)) == 23


@pytest.mark.parametrize("scheme", ["70/10/20", "90/10", "4-fold"])
def test_patients_that_are_in_two_data_sets_are_never_separated(scheme):
    lits = [Study(f"lits_{n}", "lits", f"lits:{n}", None) for n in range(0, 60)]
    ircadb = [Study(f"ircadb_{n}", "ircadb", f"ircadb:{n}", None) for n in range(1, 21)]
    msd = [Study(f"msd_liver_{n}", "msd", f"msd:liver_{n}", None) for n in range(0, 60)]
    scans_of_one = [Study(f"own_{n}", "csv", f"own {n // 3}", None) for n in range(30)]
    for seed in range(5):
        split = make_split(lits + ircadb + msd + scans_of_one, scheme, seed, contents={"own_0": "x", "lits_3": "x"})
        for fold in range(len(split.folds)):
            where = {name: part for part in PARTS for name in split.names(part, fold)}
            for number in range(1, 21):
                assert where[f"ircadb_{number}"] == where[f"lits_{number + 27}"] == where[f"msd_liver_{number + 27}"]
            # Whichever count of the last three is right.
            assert len({where[f"lits_{n}"] for n in (45, 46, 47, 48)}) == 1
            assert all(where[f"own_{n}"] == where[f"own_{n // 3 * 3}"] for n in range(30))
            assert where["own_0"] == where["lits_3"]
    assert any("disputed" in reason for _, reason in split.kept_together)


def test_evaluation_cases_and_their_twins_stay_out_of_training():
    studies = [Study(f"lits_{n}", "lits", f"lits:{n}", None) for n in range(40, 60)]
    studies.append(Study("ircadb_17", "ircadb", "ircadb:17", None))
    for scheme in ("90/10", "70/10/20", "3-fold"):
        split = make_split(studies, scheme, only_test=["ircadb:17"])
        for fold in range(len(split.folds)):
            assert {"ircadb_17", "lits_44"} <= set(split.names(TEST, fold))
    with pytest.raises(InputError, match="only_test names ircadb_99"):
        make_split(studies, only_test=["ircadb_99"])


def test_a_saved_split_comes_back_and_an_altered_one_is_refused(tmp_path):
    split = make_split(patients(20))
    split.save(tmp_path / "split.json")
    assert load_split(tmp_path / "split.json") == split
    text = (tmp_path / "split.json").read_text()
    assert '"counts"' in text and split.sha256 in text
    content = json.loads(text)
    content["folds"][0]["train"].append(content["folds"][0]["test"][0])
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="altered by hand"):
        load_split(tmp_path / "split.json")
    with pytest.raises(InputError, match="cannot be read"):
        load_split(tmp_path / "none.json")


def test_fixed_lists_are_taken_as_they_are_or_refused_with_all_reasons(tmp_path):
    studies = [*patients(4), Study("ircadb_1", "ircadb", "ircadb:1", None), Study("lits_28", "lits", "lits:28", None)]
    lists = {"train": ["lits_200", "lits:201", "lits_28", "ircadb_1"], "val": ["lits_202"]}
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    split = make_split(studies, "fixed", lists=tmp_path / "lists.json")
    assert split.names(TRAIN) == ("ircadb_1", "lits_200", "lits_201", "lits_28") and split.names(TEST) == ()
    wrong = {"train": ["lits_200", "lits_201", "ircadb_1"], "test": ["lits_201", "lits_28"]}
    with pytest.raises(InputError, match=r"lits_201 in train and test.*ircadb_1, lits_28 are one patient"):
        make_split(studies, "fixed", lists=wrong)
    with pytest.raises(InputError, match="names nobody"):
        make_split(studies, "fixed", lists={"train": ["nobody"]})


@pytest.mark.parametrize("scheme", ["70/20", "abc", "0/100", "1-fold", "99-fold", "fixed"])
def test_a_scheme_that_cannot_be_is_told_in_words(scheme):
    with pytest.raises(InputError):
        make_split(patients(5), scheme)
    with pytest.raises(InputError, match="independent patients"):
        make_split(patients(2), "70/10/20")


def test_the_axes_helper_of_these_tests_keeps_the_patient(scans):
    item = _as_lps(scans[0])
    assert item.grid.axes == "LPS"
    inside = item.grid.to_ras(np.argwhere(item.labels == 2)[:, ::-1].mean(axis=0))
    assert np.allclose(inside, scans[0].grid.to_ras(np.argwhere(scans[0].labels == 2)[:, ::-1].mean(axis=0)))
