"""Files that can be no CT volume are refused in one clear sentence, by the reader and by the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_writer import write_series
from LiverCascadeLib import cli
from LiverCascadeLib.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from LiverCascadeLib.pixels import Int16Sink
from LiverCascadeLib.volume import read_labels, read_volume

VALUES = np.random.default_rng(1).integers(-1000, 1000, (12, 10, 8)).astype(np.int16)


def refusal(path: Path) -> str:
    """The text of the refusal, after the checks that hold for each: it names the input and shows no C++."""
    with pytest.raises(InputError) as caught:
        read_volume(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text and not re.search(r"itk|\.cxx|sitk|exception|0x", text.replace(str(path), ""), re.I)
    assert text.endswith(".") and (". " in text or ";" in text)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    return text


def save(path: Path, array: np.ndarray = VALUES, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path), useCompression=False)
    return path


def save_nifti(path: Path, array: np.ndarray = VALUES.T, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def altered(path: Path, offset: int, form: str, *values: float) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(data)
    return path


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def test_a_path_that_does_not_exist(tmp_path):
    assert "no file or folder" in refusal(tmp_path / "nothing.nii.gz")


def test_an_empty_folder(tmp_path):
    assert "is empty" in refusal(tmp_path)


def test_a_folder_without_dicom_names_the_volume_in_it(tmp_path):
    save_nifti(tmp_path / "ct.nii.gz")
    text = refusal(tmp_path)
    assert "1 file but no DICOM" in text and "To read ct.nii.gz, pass that file itself" in text


def test_a_folder_of_damaged_dicom_files(tmp_path):
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\x04\x00junk" + os.urandom(60))
    assert "1 damaged DICOM file, such as IM1" in refusal(tmp_path)


def test_an_empty_file(tmp_path):
    (tmp_path / "ct.nrrd").touch()
    assert "is empty" in refusal(tmp_path / "ct.nrrd")


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha", "ct.dcm", "notes"])
def test_a_file_that_is_no_image(tmp_path, name):
    (tmp_path / name).write_text("The patient came walking.\n" * 40)
    assert "no image that can be read. Expected: NIfTI" in refusal(tmp_path / name)


def test_a_compressed_file_that_is_no_nifti(tmp_path):
    import gzip

    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(b"hello" * 200))
    assert "no NIfTI file" in refusal(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("name", ["ct.gz", "ct", "ct.Nii.Gz"])
def test_a_nifti_with_another_name_is_to_be_renamed(tmp_path, name):
    save_nifti(tmp_path / "right.nii.gz").rename(tmp_path / name)
    assert "rename it" in refusal(tmp_path / name)


def test_other_images_with_another_name_are_to_be_renamed(tmp_path):
    save(tmp_path / "a.nrrd").rename(tmp_path / "a")
    save(tmp_path / "b.mha").rename(tmp_path / "b")
    assert ".nrrd or .nhdr" in refusal(tmp_path / "a")
    assert ".mha or .mhd" in refusal(tmp_path / "b")


def test_a_nifti2_file(tmp_path):
    nibabel.save(nibabel.Nifti2Image(VALUES.T, np.eye(4)), tmp_path / "ct.nii.gz")
    assert "Save it as NIfTI-1" in refusal(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_truncated_nifti_is_not_filled_with_zeros(tmp_path, suffix, share):
    path = save_nifti(tmp_path / f"ct.{suffix}", np.tile(VALUES.T, (4, 4, 4)))
    text = refusal(cut(path, share))
    assert "truncated" in text


def test_a_nifti_cut_within_its_header(tmp_path):
    assert "header is truncated" in refusal(cut(save_nifti(tmp_path / "ct.nii"), 0.1))


def test_a_nifti_whose_rescale_or_voxel_position_is_no_number(tmp_path):
    assert "damaged" in refusal(altered(save_nifti(tmp_path / "a.nii"), 112, "<2f", 1, float("nan")))
    assert "damaged" in refusal(altered(save_nifti(tmp_path / "b.nii"), 108, "<f", float("nan")))
    assert "damaged" in refusal(altered(save_nifti(tmp_path / "c.nii"), 108, "<f", float("inf")))


def test_an_altered_nifti_fails_its_checksum(tmp_path):
    path = save_nifti(tmp_path / "ct.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_a_truncated_nrrd_or_metaimage(tmp_path, suffix):
    assert "damaged or truncated" in refusal(cut(save(tmp_path / f"ct.{suffix}"), 0.7))


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
def test_a_header_without_its_voxel_file(tmp_path, suffix):
    path = save(tmp_path / f"ct.{suffix}")
    (tmp_path / "ct.raw").unlink()
    assert "is missing or truncated" in refusal(path)


def test_4d_files(tmp_path):
    four = np.stack([VALUES, VALUES])
    assert "4D" in refusal(save_nifti(tmp_path / "ct.nii.gz", four.T))
    assert "4D" in refusal(save(tmp_path / "ct.nrrd", four))


def test_color_and_vector_files(tmp_path):
    rgb = np.zeros(VALUES.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "colors" in refusal(save_nifti(tmp_path / "ct.nii", rgb))
    assert "vectors" in refusal(save(tmp_path / "ct.nrrd", np.stack([VALUES] * 3, axis=-1), vector=True))


def test_complex_files(tmp_path):
    assert "complex" in refusal(save_nifti(tmp_path / "ct.nii", VALUES.astype(np.complex64)))
    assert "complex" in refusal(save(tmp_path / "ct.mha", VALUES.astype(np.complex64)))


def test_an_unknown_type_of_voxel(tmp_path):
    assert "code 77" in refusal(altered(save_nifti(tmp_path / "ct.nii"), 70, "<h", 77))


def test_single_slices(tmp_path):
    assert "single slice" in refusal(save_nifti(tmp_path / "a.nii", VALUES[0].T))
    assert "single slice" in refusal(save_nifti(tmp_path / "b.nii", VALUES[:1].T))
    assert "single slice" in refusal(save(tmp_path / "c.nrrd", VALUES[0]))
    assert "single slice" in refusal(save(tmp_path / "d.mha", VALUES[:1]))


@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "nrrd", "mha"])
def test_nan_and_infinity_are_counted(tmp_path, suffix):
    array = VALUES.astype(np.float32)
    array[0, 0, :3] = (np.nan, np.inf, -np.inf)
    array[-1, -1, -1] = np.nan
    path = tmp_path / f"ct.{suffix}"
    text = refusal(save_nifti(path, array.T) if "nii" in suffix else save(path, array))
    assert "4 voxels" in text and "NaN" in text


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_nifti_whose_spacing_is_not_above_zero(tmp_path, value):
    path = altered(save_nifti(tmp_path / "ct.nii"), 80, "<f", value)
    assert "voxel spacing" in refusal(path)


@pytest.mark.parametrize("value", [b"0", b"-1"])
def test_a_metaimage_whose_spacing_is_not_above_zero(tmp_path, value):
    path = replaced(save(tmp_path / "ct.mha"), b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 " + value + b" 1")
    assert "voxel spacing" in refusal(path)


def test_a_nrrd_whose_spacing_is_zero(tmp_path):
    assert "voxel spacing" in refusal(replaced(save(tmp_path / "ct.nrrd"), b"(0,1,0)", b"(0,0,0)"))


def test_singular_direction_matrices(tmp_path):
    rows = (1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0)
    assert "singular" in refusal(altered(save_nifti(tmp_path / "a.nii"), 280, "<12f", *rows))
    rows = (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0)
    assert "singular" in refusal(altered(save_nifti(tmp_path / "b.nii"), 280, "<12f", *rows))
    assert "singular" in refusal(replaced(save(tmp_path / "c.nrrd"), b"(0,1,0)", b"(1,0,0)"))
    path = save(tmp_path / "d.mha")
    assert "singular" in refusal(replaced(path, b"Matrix = 1 0 0 0 1 0", b"Matrix = 1 0 0 1 0 0"))


def test_direction_matrices_that_are_no_numbers(tmp_path):
    rows = (float("nan"), 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    assert "not numbers" in refusal(altered(save_nifti(tmp_path / "a.nii"), 280, "<12f", *rows))


def test_an_origin_that_is_no_number(tmp_path):
    rows = (1, 0, 0, float("nan"), 0, 1, 0, 0, 0, 0, 1, 0)
    assert "cannot be used" in refusal(altered(save_nifti(tmp_path / "a.nii"), 280, "<12f", *rows))


def test_sheared_volumes(tmp_path):
    sheared = np.eye(4)
    sheared[1, 2] = np.tan(np.radians(15))
    assert "right angles (off by 15°)" in refusal(save_nifti(tmp_path / "a.nii.gz", affine=sheared))
    assert "right angles" in refusal(replaced(save(tmp_path / "b.nrrd"), b"(0,1,0)", b"(.4,1,0)"))


def test_a_header_that_claims_more_voxels_than_any_memory_holds(tmp_path):
    path = altered(save_nifti(tmp_path / "ct.nii"), 42, "<3h", 32767, 32767, 32767)
    text = refusal(path)
    assert "memory" in text or "truncated" in text
    with pytest.raises(InputError, match="do not fit into memory"):
        Int16Sink((1 << 40, 1 << 20, 1 << 10), "ct.nii")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the root user may read every file")
def test_a_file_without_permission(tmp_path):
    path = save(tmp_path / "ct.nrrd")
    path.chmod(0)
    assert "cannot be read" in refusal(path)


def test_a_file_that_the_system_cannot_open(tmp_path, monkeypatch):
    path = save(tmp_path / "ct.nrrd")

    def fail(*_args, **_settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)
    assert "cannot be read: Permission denied" in refusal(path)


def text_file(folder: Path) -> Path:
    path = folder / "ct.nii.gz"
    path.write_text("The patient came walking.\n" * 40)
    return path


def empty_folder(folder: Path) -> Path:
    (folder / "series").mkdir()
    return folder / "series"


def two_patients(folder: Path) -> Path:
    write_series(folder / "series" / "a", PatientID="P1", SeriesInstanceUID="1.2.3.1.1")
    write_series(folder / "series" / "b", PatientID="P2", SeriesInstanceUID="1.2.3.2.1")
    return folder / "series"


def with_one(value: float, folder: Path) -> Path:
    array = VALUES.astype(np.float32)
    array[3, 2, 1] = value
    return save_nifti(folder / "ct.nii.gz", array.T)


def singular(folder: Path) -> Path:
    return altered(save_nifti(folder / "ct.nii"), 280, "<12f", 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0)


BAD_INPUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated NIfTI": (lambda folder: cut(save_nifti(folder / "ct.nii.gz")), "truncated"),
    "truncated NRRD": (lambda folder: cut(save(folder / "ct.nrrd")), "truncated"),
    "non-image": (text_file, "no image"),
    "empty folder": (empty_folder, "is empty"),
    "two patients": (two_patients, "2 patients"),
    "NaN": (lambda folder: with_one(float("nan"), folder), "NaN"),
    "infinity": (lambda folder: with_one(float("inf"), folder), "infinite"),
    "zero spacing": (lambda folder: altered(save_nifti(folder / "ct.nii"), 80, "<f", 0), "voxel spacing"),
    "singular direction": (singular, "singular"),
}


@pytest.fixture
def own_signals():
    """Puts the signal handlers back that a run in this process replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("name", BAD_INPUTS)
def test_the_command_refuses_bad_input_in_one_sentence_and_leaves_nothing(tmp_path, capfd, name):
    make, words = BAD_INPUTS[name]
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["segment", str(path), "-o", str(tmp_path / "results" / "deep")]) == EXIT_BAD_INPUT
    assert sorted(tmp_path.rglob("*")) == before
    shown = capfd.readouterr()
    *progress, message = shown.err.splitlines()
    assert message.startswith("livercascade: ") and message.endswith(".")
    assert words in message and str(path) in message
    assert all(re.fullmatch(r" *\d+\.\d s  \w+", line) for line in progress), shown.err
    assert shown.out == ""


def ellipsoid(shape: tuple[int, int, int], spacing: float, radii: tuple[float, float, float]) -> np.ndarray:
    """Squared distance [k, j, i] from the middle of a volume, 1 on the ellipsoid with ``radii`` (mm along k, j, i)."""
    axes = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * spacing for n in shape], indexing="ij")
    return sum((axis / radius) ** 2 for axis, radius in zip(axes, radii, strict=True))


def ct_head() -> np.ndarray:
    """Scalp, skull and brain in air, HU."""
    r = ellipsoid((24, 24, 24), 8, (90, 95, 75))
    head = np.select([r < 0.78, r < 0.88, r < 1], [32, 1100, 40], -1000)
    return head + np.random.default_rng(0).normal(0, 8, r.shape)


def mr_head() -> np.ndarray:
    """Fat, dark bone and brain in an arbitrary unit, with the noise of a magnitude image."""
    r = ellipsoid((24, 24, 24), 8, (90, 95, 75))
    noise = np.random.default_rng(0).normal(0, 15, (2, *r.shape))
    return np.hypot(np.select([r < 0.75, r < 0.85, r < 1], [450, 60, 700], 0) + noise[0], noise[1])


def segmented(folder: Path, values: np.ndarray) -> tuple[dict, np.ndarray]:
    """What the command records for ``values`` [k, j, i] at 8 mm, with the embedded models, and the labels."""
    path = save_nifti(folder / "ct.nii.gz", values.astype(np.int16).T, np.diag([8.0, 8.0, 8.0, 1.0]))
    out = folder / "results"
    assert cli.main(["segment", str(path), "-o", str(out), "--quiet", "--threads", "1"]) == EXIT_DONE
    labels, grid = read_labels(out / "labels.nii.gz")
    assert grid.is_close(read_volume(path).grid)
    return json.loads((out / "result.json").read_text()), labels


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(
    ("make", "codes"),
    [
        (lambda: np.full((24, 24, 24), -1000), {"constant-volume", "not-segmented"}),
        (mr_head, {"mr-like", "not-segmented"}),
        (ct_head, {"no-liver"}),
    ],
    ids=["constant", "mr", "head"],
)
def test_a_readable_volume_without_a_liver_is_an_empty_result_that_says_why(tmp_path, make, codes):
    record, labels = segmented(tmp_path, make())
    assert record["summary"] == "No liver was found."
    assert codes <= {finding["code"] for finding in record["findings"]}
    assert not labels.any()
