"""Volumes and results in real MRML: alignment, names, terminology, files, the 3D view, and the child process."""

from __future__ import annotations

import gc
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")

from analytic_bodies import (  # noqa: E402
    LESIONS,
    LIVER,
    TEST_GRIDS,
    analytic_result,
    overlap,
    rasterize,
    result_from_masks,
    rotation,
)
from LiverCascadeLib.errors import Cancelled, InputError, OutputError  # noqa: E402
from LiverCascadeLib.geometry import Grid  # noqa: E402
from LiverCascadeLib.progress import Progress  # noqa: E402
from LiverCascadeLib.report.files import OutputFolder  # noqa: E402
from LiverCascadeLib.result import Result  # noqa: E402
from LiverCascadeLib.scene import (  # noqa: E402
    SceneProcess,
    createClosedSurface,
    createScene,
    nodeFromVolume,
    render3D,
    resultLabelsFromSegmentation,
    segmentationFromResult,
    terminology,
    volumeFromNode,
    volumes,
    worldGrid,
    writeSceneFiles,
)
from LiverCascadeLib.scene import rendering as scene_rendering  # noqa: E402
from LiverCascadeLib.volume import Volume, write_labels  # noqa: E402
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy  # noqa: E402
from vtkmodules.vtkCommonCore import reference  # noqa: E402
from vtkmodules.vtkCommonDataModel import vtkImageData  # noqa: E402
from vtkmodules.vtkCommonMath import vtkMatrix4x4  # noqa: E402

TERMINOLOGY = Path(terminology.__file__).parents[2] / "Resources" / "LiverCascade.term.json"
BODIES = {"Liver": LIVER, "Lesion 1": LESIONS[0], "Lesion 2": LESIONS[1]}


@pytest.fixture
def scene():
    return createScene()


def load_segmentation(path: Path):
    scene = createScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return scene, node


def load_bundle(path: Path, folder: Path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    folder.mkdir()
    scene = createScene()
    # Unpacked by MRML's own reader, as the application does.
    scene.SetURL(scene.UnpackSlicerDataBundle(str(path), str(folder)))
    assert scene.Import()
    return (
        scene,
        scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode"),
        scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"),
    )


def segment_mask(node, name: str, grid: Grid) -> np.ndarray:
    """The voxels of ``grid`` whose RAS centers the segment ``name`` covers, by its own geometry and nothing else."""
    segmentation = node.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(name))
    image, matrix = segment.GetRepresentation("Binary labelmap"), vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    extent = np.array(image.GetExtent()).reshape(3, 2)
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape((extent[:, 1] - extent[:, 0] + 1)[::-1])
    own = np.argwhere(values == segment.GetLabelValue())[:, ::-1] + extent[:, 0]
    own_to_ras = volumes.worldFromLocal(node) @ volumes.arrayFromMatrix(matrix)
    ijk = grid.to_ijk(own @ own_to_ras[:3, :3].T + own_to_ras[:3, 3])
    assert np.abs(ijk - np.rint(ijk)).max() < 0.01, "segment voxels do not lie on the volume's"
    mask = np.zeros(grid.shape, bool)
    mask[tuple(np.rint(ijk).astype(int).T[::-1])] = True
    return mask


def assert_covers_bodies(node, grid: Grid) -> None:
    for name, body in BODIES.items():
        dice, distance = overlap(segment_mask(node, name, grid), body, grid)
        assert dice >= 0.99, f"{name}: Dice {dice:.4f}"
        assert distance <= 0.25, f"{name}: centroid off by {distance:.3f} voxel"


@pytest.mark.parametrize("name", TEST_GRIDS)
def test_segments_cover_the_bodies_in_the_patient(name, scene, tmp_path):
    grid = TEST_GRIDS[name]
    result = analytic_result(grid)
    volume_node = nodeFromVolume(result.volume, scene)
    node = segmentationFromResult(result, scene, volume_node)
    writeSceneFiles(scene, volume_node, node, tmp_path)
    _, from_file = load_segmentation(tmp_path / "segmentation.seg.nrrd")
    _, volume_again, from_bundle = load_bundle(tmp_path / "scene.mrb", tmp_path / "bundle")
    assert worldGrid(volume_again).is_close(grid)
    assert (volumeFromNode(volume_again).array == result.volume.array).all()
    for segmentation in (node, from_file, from_bundle):
        assert_covers_bodies(segmentation, grid)
        assert (resultLabelsFromSegmentation(segmentation, grid) == result.labels).all()


@pytest.mark.parametrize("name", TEST_GRIDS)
def test_labels_open_on_the_same_grid_in_simpleitk_and_nibabel(name, tmp_path):
    sitk, nibabel = pytest.importorskip("SimpleITK"), pytest.importorskip("nibabel")
    grid = TEST_GRIDS[name]
    result = analytic_result(grid)
    write_labels(tmp_path / "labels.nii.gz", result.labels, grid)
    image = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    lps = Grid.from_lps(image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    assert lps.is_close(grid, tolerance_mm=2e-3)
    assert (sitk.GetArrayFromImage(image) == result.labels).all()
    nifti = nibabel.load(tmp_path / "labels.nii.gz")
    assert Grid(nifti.shape, nifti.affine).is_close(grid, tolerance_mm=2e-3)
    assert np.array_equal(np.asarray(nifti.dataobj).T, result.labels)


def test_liver_includes_its_lesions_and_both_survive_the_file(scene, tmp_path):
    result = analytic_result(TEST_GRIDS["LPS"])
    volume_node = nodeFromVolume(result.volume, scene)
    writeSceneFiles(scene, volume_node, segmentationFromResult(result, scene, volume_node), tmp_path)
    _, node = load_segmentation(tmp_path / "segmentation.seg.nrrd")
    liver = segment_mask(node, "Liver", result.volume.grid)
    assert (liver == (result.labels >= 1)).all()
    assert (segment_mask(node, "Lesion 1", result.volume.grid) == (result.labels == 2)).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.mrb", "segmentation.seg.nrrd"]


def test_file_is_small_but_keeps_the_reference_geometry(scene, tmp_path):
    result = analytic_result(TEST_GRIDS["oblique"])
    volume_node = nodeFromVolume(result.volume, scene)
    writeSceneFiles(scene, volume_node, segmentationFromResult(result, scene, volume_node), tmp_path)
    _, node = load_segmentation(tmp_path / "segmentation.seg.nrrd")
    geometry = slicer.vtkOrientedImageData()
    converter = slicer.vtkSegmentationConverter
    text = node.GetSegmentation().GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    converter.DeserializeImageGeometry(text, geometry, False)
    assert geometry.GetDimensions() == result.volume.grid.size
    image = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    assert np.prod(image.GetDimensions()) < np.prod(result.volume.grid.size)


def test_names_colors_and_terminology_are_set_and_kept(scene, tmp_path):
    result = analytic_result(TEST_GRIDS["RAS"])
    volume_node = nodeFromVolume(result.volume, scene)
    node = segmentationFromResult(result, scene, volume_node)
    createClosedSurface(node)
    writeSceneFiles(scene, volume_node, node, tmp_path)
    assert node.GetName() == "body liver"
    for segmentation_node in (node, load_segmentation(tmp_path / "segmentation.seg.nrrd")[1]):
        segmentation = segmentation_node.GetSegmentation()
        segments = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
        assert [segment.GetName() for segment in segments] == ["Liver", "Lesion 1", "Lesion 2"]
        assert segmentation.ContainsRepresentation("Closed surface")
        expected = [
            (terminology.LIVER_COLOR, "10200004", "Liver"),
            (terminology.LESION_COLOR, "52988006", "Lesion"),
        ]
        for segment, (color, code, meaning) in zip(segments, [*expected, expected[1]], strict=True):
            assert np.allclose(segment.GetColor(), np.array(color) / 255, atol=1e-5)
            tag, entry = reference(""), slicer.vtkSlicerTerminologyEntry()
            assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
            assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(str(tag), entry)
            kind = entry.GetTypeObject()
            assert (kind.GetCodingSchemeDesignator(), kind.GetCodeValue()) == ("SCT", code)
            assert kind.GetCodeMeaning() == meaning
            assert "tumor" not in (segment.GetName() + str(tag)).lower()


def test_terminology_file_is_read_by_slicer_and_agrees_with_the_segments():
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    assert logic.LoadTerminologyFromFile(str(TERMINOLOGY)) == terminology.TERMINOLOGY_CONTEXT
    content = json.loads(TERMINOLOGY.read_text(encoding="utf-8"))["SegmentationCodes"]["Category"]
    entries = {
        f"SCT^{kind['CodeValue']}^{kind['CodeMeaning']}": (f"SCT^{group['CodeValue']}^{group['CodeMeaning']}", kind)
        for group in content
        for kind in group["Type"]
    }
    for text, color in (
        (terminology.LIVER_TERMINOLOGY, terminology.LIVER_COLOR),
        (terminology.LESION_TERMINOLOGY, terminology.LESION_COLOR),
    ):
        context, category, kind = text.split("~")[:3]
        assert context == terminology.TERMINOLOGY_CONTEXT
        assert entries[kind][0] == category
        assert tuple(entries[kind][1]["recommendedDisplayRGBValue"]) == color
    assert sum("Couinaud" in kind for kind in entries) == 8
    assert "SCT^4147007^Mass" in entries
    colors = [tuple(kind["recommendedDisplayRGBValue"]) for _, kind in entries.values()]
    assert len(set(colors)) == len(colors)


def test_without_a_liver_there_are_no_segments_and_files_still_load(scene, tmp_path):
    grid = TEST_GRIDS["RAS"]
    result = Result(Volume(np.zeros(grid.shape, np.int16), grid, "head"), np.zeros(grid.shape, np.uint8), (), 0.0)
    volume_node = nodeFromVolume(result.volume, scene)
    node = segmentationFromResult(result, scene, volume_node)
    assert node.GetSegmentation().GetNumberOfSegments() == 0
    writeSceneFiles(scene, volume_node, node, tmp_path)
    _, _, again = load_bundle(tmp_path / "scene.mrb", tmp_path / "bundle")
    assert not resultLabelsFromSegmentation(again, grid).any()
    picture = render3D(scene, node)
    assert picture.image is None
    assert picture.reason


def test_300_lesions_keep_their_numbers(scene, tmp_path):
    grid = Grid((60, 40, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    liver = np.ones(grid.shape, bool)
    lesions = []
    for number in range(300):
        mask = np.zeros(grid.shape, bool)
        k, rest = divmod(number, 100)
        mask[5 * k + 1, 4 * (rest // 10) + 1, 5 * (rest % 10) + 1 : 5 * (rest % 10) + 3] = True
        lesions.append(mask)
    result = result_from_masks(grid, liver, lesions)
    assert result.labels.dtype == np.uint16
    volume_node = nodeFromVolume(result.volume, scene)
    node = segmentationFromResult(result, scene, volume_node)
    assert node.GetSegmentation().GetNumberOfSegments() == 301
    writeSceneFiles(scene, volume_node, node, tmp_path)
    _, again = load_segmentation(tmp_path / "segmentation.seg.nrrd")
    labels = resultLabelsFromSegmentation(again, grid)
    assert labels.dtype == np.uint16
    assert (labels == result.labels).all()


def add_linear_transform(scene, matrix: np.ndarray):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(volumes.matrixFromArray(matrix))
    return node


def test_a_linear_transform_moves_volume_and_segmentation_together(scene, tmp_path):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((0, 1, 1), 17), (9.0, -4.0, 6.0)
    grid = TEST_GRIDS["LPS"]
    local = grid.transformed(np.linalg.inv(matrix))
    node = nodeFromVolume(Volume(np.zeros(grid.shape, np.int16), local, "body"), scene)
    node.SetAndObserveTransformNodeID(add_linear_transform(scene, matrix).GetID())
    volume = volumeFromNode(node)
    assert volume.grid.is_close(grid)
    result = result_from_masks(volume.grid, rasterize(LIVER, grid), [rasterize(lesion, grid) for lesion in LESIONS])
    segmentation = segmentationFromResult(result, scene, node)
    assert segmentation.GetTransformNodeID() == node.GetTransformNodeID()
    assert_covers_bodies(segmentation, grid)
    assert (resultLabelsFromSegmentation(segmentation, worldGrid(node)) == result.labels).all()


def test_a_non_linear_transform_is_refused_in_words(scene):
    node = nodeFromVolume(Volume(np.zeros((4, 4, 4), np.int16), Grid((4, 4, 4), np.eye(4)), "warped"), scene)
    transform = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match="'warped' stands under the non-linear transform 'warp'"):
        volumeFromNode(node)


def test_int16_voxels_are_shared_and_outlive_the_array_that_made_them(scene):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    node = nodeFromVolume(Volume(array, Grid((5, 4, 3), np.eye(4))), scene)
    assert np.shares_memory(volumeFromNode(node).array, array)
    del array
    gc.collect()
    assert (volumeFromNode(node).array.ravel() == np.arange(60)).all()


def test_a_flipped_view_of_an_array_is_copied_in_order(scene):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)[:, ::-1]
    node = nodeFromVolume(Volume(array, Grid((5, 4, 3), np.eye(4))), scene)
    assert (volumeFromNode(node).array == array).all()


def volume_node_of(array: np.ndarray, scene, class_name: str = "vtkMRMLScalarVolumeNode"):
    node = scene.AddNewNodeByClass(class_name, "odd")
    image = vtkImageData()
    image.SetDimensions(*array.shape[2::-1])
    flat = array.reshape(-1, array.shape[3]) if array.ndim == 4 else array.ravel()
    image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True))
    node.SetAndObserveImageData(image)
    return node


def test_other_types_are_rounded_and_clipped(scene):
    node = volume_node_of(np.array([[[1e6, -1e6, 1.6, -1.6]]], np.float32), scene)
    volume = volumeFromNode(node)
    assert volume.array.dtype == np.int16
    assert volume.array.ravel().tolist() == [32767, -32768, 2, -2]
    assert volume.source["format"] == "MRML node"


@pytest.mark.parametrize(
    ("array", "class_name", "message"),
    [
        (np.full((2, 2, 2), np.nan, np.float32), "vtkMRMLScalarVolumeNode", "not numbers"),
        (np.zeros((2, 2, 2, 3), np.uint8), "vtkMRMLVectorVolumeNode", "color or vector"),
        (np.zeros((2, 2, 2), np.int16), "vtkMRMLLabelMapVolumeNode", "is a label map"),
    ],
)
def test_nodes_that_are_no_ct_are_refused(array, class_name, message, scene):
    with pytest.raises(InputError, match=message):
        volumeFromNode(volume_node_of(array, scene, class_name))


def test_an_empty_or_broken_node_is_refused(scene):
    with pytest.raises(InputError, match="holds no voxels"):
        volumeFromNode(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    node = volume_node_of(np.zeros((2, 2, 2), np.int16), scene)
    node.SetIJKToRASMatrix(volumes.matrixFromArray(np.diag([1.0, 1.0, 0.0, 1.0])))
    with pytest.raises(InputError, match="geometry of the volume 'odd' is broken"):
        volumeFromNode(node)


def test_identity_names_the_file_and_the_dicom_instances(scene, tmp_path):
    node = volume_node_of(np.zeros((2, 2, 2), np.int16), scene)
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(tmp_path / "ct.nrrd"))
    assert volumeFromNode(node).source["dicom_instance_uids"] == ["1.2.3", "1.2.4"]
    assert volumeFromNode(node).source["path"] == str(tmp_path / "ct.nrrd")


def test_a_result_on_another_grid_is_refused(scene):
    result = analytic_result(TEST_GRIDS["RAS"])
    other = nodeFromVolume(analytic_result(TEST_GRIDS["LPS"]).volume, scene)
    with pytest.raises(ValueError, match="another grid"):
        segmentationFromResult(result, scene, other)


def test_without_a_volume_node_the_geometry_comes_from_the_result(scene):
    result = analytic_result(TEST_GRIDS["oblique"])
    node = segmentationFromResult(result, scene)
    assert_covers_bodies(node, result.volume.grid)
    assert (resultLabelsFromSegmentation(node, result.volume.grid) == result.labels).all()


def test_segmentation_stands_beside_its_volume_in_the_subject_hierarchy(scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    result = analytic_result(TEST_GRIDS["RAS"])
    volume_node = nodeFromVolume(result.volume, scene)
    hierarchy.CreateItem(study, volume_node)
    node = segmentationFromResult(result, scene, volume_node)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_edited_segments_are_read_by_terminology_and_order(scene):
    result = analytic_result(TEST_GRIDS["RAS"])
    node = segmentationFromResult(result, scene)
    segmentation = node.GetSegmentation()
    segmentation.RemoveSegment("Lesion_1")
    segmentation.GetSegment("Liver").SetName("Foie")
    segmentation.SetSegmentIndex("Liver", 1)
    labels = resultLabelsFromSegmentation(node, result.volume.grid)
    assert ((labels == 2) == (result.labels == 3)).all()
    assert ((labels >= 1) == (result.labels >= 1)).all()


def test_segments_on_other_voxels_are_brought_to_the_grid(scene):
    node = segmentationFromResult(analytic_result(TEST_GRIDS["oblique"]), scene)
    grid = TEST_GRIDS["RAS"]
    labels = resultLabelsFromSegmentation(node, grid)
    dice, distance = overlap(labels >= 1, LIVER, grid)
    assert dice > 0.96
    assert distance < 0.25


def test_labels_outside_the_grid_are_left_out(scene):
    result = analytic_result(TEST_GRIDS["RAS"])
    node = segmentationFromResult(result, scene)
    corner = Grid((5, 5, 5), result.volume.grid.ijk_to_ras)
    assert not resultLabelsFromSegmentation(node, corner).any()


def test_the_3d_view_shows_a_lesion_inside_the_liver(scene):
    result = analytic_result(TEST_GRIDS["RAS"])
    node = segmentationFromResult(result, scene)
    picture = render3D(scene, node, (240, 200))
    if picture.image is None:
        pytest.skip(f"no 3D view here: {picture.reason}")
    assert picture.image.shape == (200, 240, 3)
    pixels = picture.image.reshape(-1, 3).astype(int)
    background = pixels[0]
    assert (np.abs(pixels - background).sum(axis=1) > 30).mean() > 0.2
    assert (pixels[:, 1] - pixels[:, 2] > 60).sum() > 100  # the lesions' yellow
    for left_over in ("vtkMRMLViewNode", "vtkMRMLCameraNode"):
        assert scene.GetNumberOfNodesByClass(left_over) == 0


def test_without_opengl_there_is_a_reason_instead_of_a_crash(scene, monkeypatch):
    node = segmentationFromResult(analytic_result(TEST_GRIDS["RAS"]), scene)
    monkeypatch.setattr(scene_rendering, "_offscreenWindow", lambda size: None)
    assert "OpenGL" in render3D(scene, node).reason


@pytest.fixture
def output(tmp_path):
    with OutputFolder(tmp_path / "output") as folder:
        yield folder


@pytest.fixture
def result():
    return analytic_result(TEST_GRIDS["oblique left-handed"])


def test_the_process_writes_the_same_files(output, result, tmp_path):
    with SceneProcess(output.scratch) as process:
        process.prepare(result.volume)
        process.start(result, output.staging)
        picture = process.finish(Progress())
    assert (picture.image is None) == bool(picture.reason)
    output.commit()
    assert sorted(path.name for path in output.path.iterdir()) == ["scene.mrb", "segmentation.seg.nrrd"]
    _scene, volume_node, node = load_bundle(output.path / "scene.mrb", tmp_path / "bundle")
    assert (volumeFromNode(volume_node).array == result.volume.array).all()
    assert (resultLabelsFromSegmentation(node, worldGrid(volume_node)) == result.labels).all()
    red = volume_node.GetScene().GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    assert red.GetBackgroundVolumeID() == volume_node.GetID()


def test_the_process_writes_an_empty_result(output, result):
    nothing = Result(result.volume, np.zeros_like(result.labels), (), 0.0)
    with SceneProcess(output.scratch) as process:
        process.prepare(nothing.volume)
        process.start(nothing, output.staging)
        assert process.finish(Progress()).reason == "nothing was segmented"
    assert (output.staging / "scene.mrb").exists()


def test_the_process_ends_when_the_user_cancels(output, result):
    process = SceneProcess(output.scratch)
    with process, pytest.raises(Cancelled):
        process.prepare(result.volume)
        process.start(result, output.staging)
        process.finish(Progress(is_cancelled=lambda: True))
    assert process._child.poll() is not None


def test_a_process_that_dies_while_drawing_leaves_files_and_a_reason(output, result, monkeypatch):
    # An OpenGL driver that crashes is imitated by one that ends the process in the middle of drawing.
    (output.scratch / "sitecustomize.py").write_text(
        "import os, threading, vtkmodules.vtkRenderingCore as core\ncore.vtkRenderWindow = lambda: os._exit(139)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{output.scratch}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with SceneProcess(output.scratch) as process:
        process.prepare(result.volume)
        process.start(result, output.staging)
        picture = process.finish(Progress())
    assert picture.image is None
    assert "OpenGL" in picture.reason
    assert {"scene.mrb", "segmentation.seg.nrrd"} <= {path.name for path in output.staging.iterdir()}


def test_a_process_that_dies_early_is_an_error_in_words(output, result):
    with SceneProcess(output.scratch) as process:
        process.prepare(result.volume)
        process._child.kill()
        process._child.wait()
        process.start(result, output.staging)
        with pytest.raises(OutputError, match="ended early"):
            process.finish(Progress())


def test_missing_mrml_is_told_with_what_to_install(output, result, monkeypatch):
    (output.scratch / "slicer.py").write_text("raise ModuleNotFoundError('no slicer')\n")
    monkeypatch.setenv("PYTHONPATH", f"{output.scratch}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with SceneProcess(output.scratch) as process:
        process.prepare(result.volume)
        process.start(result, output.staging)
        with pytest.raises(OutputError, match="pip install slicer-core"):
            process.finish(Progress())


def test_a_folder_that_vanished_is_told_with_its_cause(output, result, tmp_path):
    with SceneProcess(output.scratch) as process:
        process.prepare(result.volume)
        process.start(result, tmp_path / "nowhere")
        with pytest.raises(OSError, match="No such file"):
            process.finish(Progress())
