"""Volumes in from files, label maps out."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tracemalloc
import warnings
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from LiverCascadeLib.errors import InputError, OutputError
from LiverCascadeLib.findings import Severity
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.volume import Volume, read_labels, read_volume, write_labels

SUFFIXES = ("nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd")


def rotation(a: float, b: float, c: float) -> np.ndarray:
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def oblique_grid(handedness: int = 1) -> Grid:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(0.3, -0.2, 0.5) @ np.diag([0.7, 0.8 * handedness, 3.1])
    matrix[:3, 3] = (-437.51171875, 200.123456, -1766.5)
    return Grid((7, 6, 5), matrix)


def some_values(shape: tuple[int, ...], dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(dtype)


def save(path: Path, array: np.ndarray, grid: Grid | None = None) -> Path:
    image = sitk.GetImageFromArray(array, isVector=False)
    if grid is not None:
        origin, spacing, direction = grid.to_lps()
        image.SetOrigin(origin)
        image.SetSpacing(spacing)
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path), useCompression=not str(path).endswith(("nhdr", "mhd")))
    return path


@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_keeps_values_and_geometry(tmp_path, suffix, handedness):
    grid = oblique_grid(handedness)
    values = some_values(grid.shape)
    volume = read_volume(save(tmp_path / f"ct.{suffix}", values, grid))
    assert np.array_equal(volume.array, values)
    assert volume.grid.is_close(grid)
    assert volume.findings == ()


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64, ">i2", ">f4"]
)
@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd"])
def test_every_numeric_type_becomes_int16(tmp_path, suffix, dtype):
    values = np.arange(20 * 3 * 4).reshape(20, 3, 4) % 120
    path = tmp_path / f"ct.{suffix}"
    if suffix == "nrrd":
        save(path, values.astype(np.dtype(dtype).newbyteorder("=")))
    else:
        array = values.T.astype(dtype)
        header = nibabel.Nifti1Header(endianness=">" if str(dtype).startswith(">") else "<")
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4), header, dtype=np.dtype(dtype)), path)
    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, values)


def test_a_rescaled_nifti_is_read_in_hounsfield_units(tmp_path):
    image = nibabel.Nifti1Image(np.full((3, 4, 5), 1100, np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    with gzip.open(tmp_path / "ct.nii.gz") as stream:
        assert np.frombuffer(stream.read()[112:120], "<f4").tolist() == [0.5, -1024]
    stored = nibabel.load(tmp_path / "ct.nii.gz").dataobj
    assert (read_volume(tmp_path / "ct.nii.gz").array == np.rint(np.asarray(stored).T)).all()


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<i4", ">f4", "<f8"])
def test_every_slab_of_a_rescaled_nifti_is_rescaled(tmp_path, dtype):
    values = np.arange(90 * 160 * 170).reshape(90, 160, 170) % 120
    header = nibabel.Nifti1Header(endianness=">" if ">" in dtype else "<")
    image = nibabel.Nifti1Image(values.T.astype(dtype), np.eye(4), header, dtype=np.dtype(dtype))
    image.header.set_slope_inter(2, -1000)
    nibabel.save(image, tmp_path / "ct.nii")
    stored = np.memmap(tmp_path / "ct.nii", dtype, "r", 352).reshape(values.shape)
    assert np.array_equal(read_volume(tmp_path / "ct.nii").array, np.rint(stored * 2.0 - 1000))


@pytest.mark.parametrize("scaling", [(1, 0), (1, -1024)])
def test_a_nifti_is_read_without_a_second_copy(tmp_path, scaling):
    image = nibabel.Nifti1Image(np.zeros((256, 256, 500), np.int16), np.eye(4))
    image.header.set_slope_inter(*scaling)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    tracemalloc.start()
    try:
        volume = read_volume(tmp_path / "ct.nii.gz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < volume.array.nbytes + 30e6 < 1.5 * volume.array.nbytes


def test_nibabel_is_imported_only_when_a_nifti_is_read():
    code = "import sys, LiverCascadeLib.volume; print('nibabel' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"


def test_a_nifti_counts_as_compressed_by_its_content(tmp_path):
    nibabel.save(nibabel.Nifti1Image(some_values((5, 4, 3)), np.eye(4)), tmp_path / "ct.nii")
    (tmp_path / "ct.nii").rename(tmp_path / "ct.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "ct.nii.gz").array, some_values((5, 4, 3)).T)


def test_int16_files_are_not_copied_and_can_be_given_to_torch(tmp_path):
    torch = pytest.importorskip("torch")
    volume = read_volume(save(tmp_path / "ct.nrrd", some_values((3, 4, 5))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.from_numpy(volume.array).shape == (3, 4, 5)
    assert volume.array.base is not None


def test_pixels_outlive_the_image_that_was_read(tmp_path):
    values = some_values((30, 40, 50))
    path = save(tmp_path / "ct.nrrd", values)
    volumes = [read_volume(path) for _ in range(5)]
    assert all(np.array_equal(volume.array, values) for volume in volumes)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd"])
def test_values_beyond_int16_are_clipped_and_named(tmp_path, suffix):
    values = np.zeros((3, 4, 5), np.float32)
    values[0, 0, :2] = (70000.0, -40000.0)
    volume = read_volume(save(tmp_path / f"ct.{suffix}", values))
    assert volume.array[0, 0, :2].tolist() == [32767, -32768]
    (finding,) = volume.findings
    assert finding.code == "clipped-values" and finding.severity is Severity.INFO
    assert "2 voxels" in finding.message and "70000" in finding.message


def test_floats_are_rounded_to_the_nearest_unit(tmp_path):
    values = np.full((2, 3, 4), -99.6, np.float32)
    assert (read_volume(save(tmp_path / "ct.mha", values)).array == -100).all()


@pytest.mark.parametrize(
    ("file", "name"),
    [("case.7.nii.gz", "case.7"), ("ct.NII", "ct"), ("a b.nrrd", "a b"), ("x.mha", "x")],
)
def test_the_name_is_the_file_name_without_its_format(tmp_path, file, name):
    array = some_values((3, 4, 5))
    if file.lower().endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / file)
    else:
        save(tmp_path / file, array)
    assert read_volume(tmp_path / file).name == name


@pytest.mark.parametrize(("suffix", "format_name"), [("nii.gz", "nifti"), ("nhdr", "nrrd"), ("mha", "metaimage")])
def test_the_source_names_path_and_format(tmp_path, suffix, format_name):
    path = save(tmp_path / f"ct.{suffix}", some_values((3, 4, 5)))
    source = read_volume(str(path)).source
    assert json.loads(json.dumps(source)) == {"path": str(path), "format": format_name}


def test_one_time_point_of_a_4d_file_counts_as_3d(tmp_path):
    values = some_values((3, 4, 5))
    nibabel.save(nibabel.Nifti1Image(values.T[..., None], np.diag([1, 2, 3, 1])), tmp_path / "ct.nii.gz")
    save(tmp_path / "ct.nrrd", values[None])
    for name in ("ct.nii.gz", "ct.nrrd"):
        assert np.array_equal(read_volume(tmp_path / name).array, values)


def test_a_nifti_without_orientation_is_warned_about(tmp_path):
    image = nibabel.Nifti1Image(some_values((5, 4, 3)), None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "ct.nii")
    (finding,) = read_volume(tmp_path / "ct.nii").findings
    assert finding.code == "no-orientation" and finding.severity is Severity.WARNING


@pytest.mark.parametrize("endianness", "<>")
@pytest.mark.parametrize("units", ["mm", "meter", "micron"])
@pytest.mark.parametrize(
    "codes", list(product([0, 1, 2], repeat=2)), ids=lambda codes: "sform{}-qform{}".format(*codes)
)
def test_a_nifti_lies_where_simpleitk_says(tmp_path, codes, units, endianness):
    """Also where sform and qform contradict each other, and where there is none."""
    matrix, other = oblique_grid().ijk_to_ras, oblique_grid(-1).ijk_to_ras + np.eye(4)[3] * [[5], [6], [7], [0]]
    values = some_values((7, 6, 5))
    image = nibabel.Nifti1Image(values, None, nibabel.Nifti1Header(endianness=endianness))
    image.header.set_xyzt_units(units)
    image.header["pixdim"][1:4] = 2
    image.header.set_qform(other, max(codes[1], 1))
    image.header["qform_code"] = codes[1]
    image.header.set_sform(matrix, codes[0])
    path = tmp_path / "ct.nii.gz"
    nibabel.save(image, path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[:348] = image.header.binaryblock[:108] + raw[108:112] + image.header.binaryblock[112:344] + raw[344:348]
    path.write_bytes(gzip.compress(raw))
    reference = sitk.ReadImage(str(path))
    wanted = Grid.from_lps(
        reference.GetSize(), reference.GetOrigin(), reference.GetSpacing(), reference.GetDirection()
    )
    for grid in (read_volume(path).grid, read_labels(path)[1]):
        assert grid.size == wanted.size and np.array_equal(grid.ijk_to_ras, wanted.ijk_to_ras)


def test_a_nrrd_without_orientation_is_warned_about(tmp_path):
    head = "NRRD0004\ntype: int16\ndimension: 3\nsizes: 5 4 3\nspacings: 1 1 2\nendian: little\nencoding: raw\n\n"
    (tmp_path / "ct.nrrd").write_bytes(head.encode() + some_values((3, 4, 5)).tobytes())
    volume = read_volume(tmp_path / "ct.nrrd")
    assert [f.code for f in volume.findings] == ["no-orientation"]
    assert np.allclose(volume.grid.spacing, (1, 1, 2))


def test_a_volume_holds_int16_on_its_own_grid():
    grid = Grid((5, 4, 3), np.eye(4))
    with pytest.raises(TypeError, match="int16"):
        Volume(np.zeros(grid.shape, np.float32), grid)
    with pytest.raises(ValueError, match="grid says"):
        Volume(np.zeros((5, 4, 3), np.int16), grid)


@pytest.mark.parametrize(
    ("signs", "order"),
    list(product([(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, 1, -1)], [(0, 1, 2), (2, 0, 1), (1, 0, 2)])),
)
def test_labels_lie_on_the_same_affine_in_simpleitk_and_nibabel(tmp_path, signs, order):
    matrix = np.eye(4)
    matrix[:3, :3] = (np.diag(signs) @ np.diag([0.703125, 0.8, 5.0]))[:, list(order)]
    matrix[:3, 3] = (172.9, -179.297, -368.123)
    grid = Grid((6, 5, 4), matrix)
    labels = (some_values(grid.shape) % 3).astype(np.uint8)
    write_labels(tmp_path / "labels.nii.gz", labels, grid)
    read, read_grid = read_labels(tmp_path / "labels.nii.gz")
    image = nibabel.load(tmp_path / "labels.nii.gz")
    assert np.array_equal(read, labels) and read.dtype == np.uint8
    assert read_grid.is_close(grid, 1e-3)
    assert np.array_equal(np.asarray(image.dataobj).T, labels)
    assert np.allclose(image.affine, matrix, atol=1e-4)


@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labels_keep_an_oblique_or_left_handed_grid(tmp_path, suffix, handedness):
    grid = oblique_grid(handedness)
    labels = np.arange(np.prod(grid.size)).reshape(grid.shape).astype(np.uint16)
    write_labels(tmp_path / f"labels.{suffix}", labels, grid)
    read, read_grid = read_labels(tmp_path / f"labels.{suffix}")
    assert np.array_equal(read, labels) and read.dtype == np.uint16
    assert read_grid.is_close(grid, 1e-3)


def test_a_boolean_mask_can_be_written(tmp_path):
    grid = oblique_grid()
    mask = some_values(grid.shape) > 0
    write_labels(tmp_path / "mask.nrrd", mask, grid)
    assert np.array_equal(read_labels(tmp_path / "mask.nrrd")[0], mask)


def test_labels_of_another_shape_than_their_grid_are_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="their grid says"):
        write_labels(tmp_path / "x.nrrd", np.zeros((2, 2, 2), np.uint8), oblique_grid())


def test_labels_on_a_sheared_grid_are_refused_instead_of_straightened(tmp_path):
    matrix = np.eye(4)
    matrix[0, 1] = 0.3
    with pytest.raises(OutputError, match="sheared"):
        write_labels(tmp_path / "x.nii.gz", np.zeros((4, 4, 4), np.uint8), Grid((4, 4, 4), matrix))


def test_labels_in_a_folder_that_does_not_exist_are_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_labels(tmp_path / "no" / "x.nrrd", np.zeros(oblique_grid().shape, np.uint8), oblique_grid())


def test_labels_stored_as_whole_floats_are_read_as_integers(tmp_path):
    labels = (some_values((3, 4, 5)) % 4).astype(np.float32)
    array, _ = read_labels(save(tmp_path / "l.nrrd", labels))
    assert array.dtype == np.int32 and np.array_equal(array, labels)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">i2", "<i4", "<i8"])
def test_labels_keep_their_type_in_this_machines_byte_order(tmp_path, dtype):
    labels = some_values((5, 4, 3)) % 100
    header = nibabel.Nifti1Header(endianness=">" if ">" in dtype else "<")
    nibabel.save(nibabel.Nifti1Image(labels.astype(dtype), np.eye(4), header, dtype=dtype), tmp_path / "l.nii.gz")
    array, _ = read_labels(tmp_path / "l.nii.gz")
    assert array.dtype == np.dtype(dtype).newbyteorder("=") and array.dtype.isnative
    assert np.array_equal(array, labels.T)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_truncated_or_altered_nifti_labels_are_not_filled_with_background(tmp_path, suffix):
    path = tmp_path / f"labels.{suffix}"
    write_labels(
        path, np.random.default_rng(0).integers(0, 3, (20, 30, 40)).astype(np.uint8), Grid((40, 30, 20), np.eye(4))
    )
    data = path.read_bytes()
    for share in (0.02, 0.5, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match="truncated"):
            read_labels(path)
    if suffix == "nii.gz":
        path.write_bytes(data[:-6] + bytes([data[-6] ^ 0xFF]) + data[-5:])
        with pytest.raises(InputError, match="damaged"):
            read_labels(path)


def test_labels_that_the_system_cannot_open(tmp_path, monkeypatch):
    write_labels(tmp_path / "l.nii.gz", np.zeros((4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4)))

    def fail(*_args, **_settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read_labels(tmp_path / "l.nii.gz")


def test_what_is_no_label_map_is_refused_as_one(tmp_path):
    with pytest.raises(InputError, match="no label map"):
        read_labels(tmp_path / "missing.nrrd")
    with pytest.raises(InputError, match="whole numbers"):
        read_labels(save(tmp_path / "f.nrrd", np.full((3, 4, 5), 0.5, np.float32)))
    with pytest.raises(InputError, match="3D label map"):
        read_labels(save(tmp_path / "2d.nrrd", np.zeros((4, 5), np.uint8)))
    path = save(tmp_path / "zero.nrrd", np.zeros((3, 4, 5), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(0,1,0)", b"(0,0,0)"))
    with pytest.raises(InputError, match=r"spacing of .* is zero"):
        read_labels(path)
    path.write_bytes(data.replace(b"(0,1,0)", b"(1,0,0)"))
    with pytest.raises(InputError, match="singular"):
        read_labels(path)
    (tmp_path / "x.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    with pytest.raises(InputError, match="damaged"):
        read_labels(tmp_path / "x.nrrd")


@pytest.mark.parametrize(
    ("ct", "labels"),
    [
        ("ts_example/ct.nii.gz", "ts_example/seg_104_classes.nii.gz"),
        ("chaos_03/ct.nii.gz", "chaos_03/liver.nii.gz"),
    ],
)
def test_real_nifti_lies_on_the_grid_of_its_labels(shared_data, ct, labels):
    volume = read_volume(shared_data(ct))
    assert volume.grid.is_close(read_labels(shared_data(labels))[1])
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data(ct))))
    assert np.array_equal(volume.array, reference)


def test_real_nrrd_labels_are_read(shared_data):
    labels, grid = read_labels(shared_data("dcmqi_liver/liver_seg.nrrd"))
    assert labels.shape == grid.shape and labels.max() > 0
