"""DICOM behind volume nodes of real MRML: identity, objects out, segmentations in."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

slicer = pytest.importorskip("slicer", reason="MRML (slicer-core) is not installed")
pytest.importorskip("highdicom", reason="highdicom is not installed")

from analytic_bodies import rotation  # noqa: E402
from dicom_writer import FolderDatabase, write_stack  # noqa: E402
from LiverCascadeLib.dicom.export import SEGMENTATION_FILE, export_dicom  # noqa: E402
from LiverCascadeLib.dicom.segmentation_reader import import_segmentation  # noqa: E402
from LiverCascadeLib.errors import InputError  # noqa: E402
from LiverCascadeLib.geometry import Grid  # noqa: E402
from LiverCascadeLib.lesions.assess import LesionNote, assess  # noqa: E402
from LiverCascadeLib.lesions.couinaud import CouinaudMap  # noqa: E402
from LiverCascadeLib.scene import createScene, nodeFromVolume, resultLabelsFromSegmentation, worldGrid  # noqa: E402
from LiverCascadeLib.scene import dicom as scene_dicom  # noqa: E402
from LiverCascadeLib.scene.volumes import matrixFromArray  # noqa: E402
from LiverCascadeLib.volume import Volume, read_volume  # noqa: E402


@pytest.fixture
def loaded(tmp_path):
    """A series in a scene, as Slicer's plugin loads it: (volume node, database, labels, folder)."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((0.3, 1, -0.2), 15) @ np.diag([-2.0, -2.0, 3.0])
    grid = Grid((20, 22, 16), matrix)
    array = np.random.default_rng(3).integers(0, 150, grid.shape).astype(np.int16)
    write_stack(tmp_path / "series", Volume(array, grid), PatientName="Muster^Eva", PatientID="E-1")
    volume = read_volume(tmp_path / "series")
    scene = createScene()
    node = nodeFromVolume(volume, scene)
    database = FolderDatabase(tmp_path / "series")
    node.SetAttribute("DICOM.instanceUIDs", " ".join(database.files))
    labels = np.zeros(grid.shape, np.uint8)
    labels[3:13, 4:18, 3:16] = 1
    labels[5:8, 6:9, 6:10] = 2
    labels[9:11, 10:14, 8:12] = 3
    yield node, database, labels, tmp_path
    scene.Clear(1)


def imported(loaded, **source: str):
    node, database, labels, folder = loaded
    volume = read_volume(folder / "series")
    notes = [LesionNote(2, "Herd A", comment="unter dem Zwerchfell", tracking_uid="1.2.3.77")]
    export_dicom(assess(volume, labels, lesions=notes), folder / "series", folder / "objects")
    return scene_dicom.importDicomSegmentation(folder / "objects" / SEGMENTATION_FILE, node, database)


def test_identity_of_a_volume_node_comes_from_the_database(loaded):
    node, database, *_ = loaded
    identity = scene_dicom.identityOfVolumeNode(node, database)
    assert (identity.patient_name, identity.patient_id, identity.study_date) == ("Muster, Eva", "E-1", "2020-01-02")


def test_volume_from_elsewhere_has_no_identity(loaded):
    node, database, *_ = loaded
    database.files.popitem()
    assert scene_dicom.identityOfVolumeNode(node, database) is None
    node.RemoveAttribute("DICOM.instanceUIDs")
    assert scene_dicom.identityOfVolumeNode(node, database) is None
    assert scene_dicom.identityOfVolumeNode(node) is None, "no database outside the application"
    assert scene_dicom.identityOfVolumeNode(None) is None


def test_segmentation_is_imported_with_names_comments_and_table(loaded):
    node, _, labels, _ = loaded
    table, read = imported(loaded)
    assert [row.name for row in table.rows()] == ["Herd A", "Lesion 2"]
    assert table.rows()[0].comment == "unter dem Zwerchfell"
    assert table.rows()[0].trackingUid == "1.2.3.77"
    assert np.array_equal(resultLabelsFromSegmentation(table.segmentationNode, worldGrid(node)), labels)
    assert table.volumeNode is node and not table.isEdited()
    assert not read.findings


def test_segments_of_the_liver_come_into_the_scene_and_leave_it_again(loaded):
    node, database, labels, folder = loaded
    values = np.where(labels > 0, np.where(np.arange(20) < 9, 5, 10), 0).astype(np.uint8)
    couinaud = CouinaudMap(values, "landmarks", "From five landmarks.")
    volume = read_volume(folder / "series")
    export_dicom(assess(volume, labels, couinaud=couinaud), folder / "series", folder / "objects")
    table, _ = scene_dicom.importDicomSegmentation(folder / "objects" / SEGMENTATION_FILE, node, database)
    segmentation = table.segmentationNode.GetSegmentation()
    names = [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]
    assert sorted(names) == ["Lesion 1", "Lesion 2", "Liver", "Segment IVb", "Segment V"]
    assert len(table.rows()) == 2 and not table.foreignSegments()
    exported = scene_dicom.exportDicom(table, folder / "again", database=database)
    assert np.array_equal(import_segmentation(exported.files[0], volume).couinaud.labels, values)


def test_segmentation_of_another_patient_is_refused(loaded):
    node, database, labels, folder = loaded
    export_dicom(assess(read_volume(folder / "series"), labels), folder / "series", folder / "objects")
    data = pydicom.dcmread(folder / "objects" / SEGMENTATION_FILE)
    data.PatientID = "somebody else"
    data.save_as(folder / "other.dcm")
    count = node.GetScene().GetNumberOfNodes()
    with pytest.raises(InputError, match="somebody else"):
        scene_dicom.importDicomSegmentation(folder / "other.dcm", node, database)
    assert node.GetScene().GetNumberOfNodes() == count


def test_table_is_exported_as_objects_about_the_files_of_the_database(loaded):
    _, database, labels, folder = loaded
    table, _ = imported(loaded)
    table.setReview(table.rows()[1].segmentId, "rejected")
    exported = scene_dicom.exportDicom(table, folder / "again", database=database)
    back = import_segmentation(exported.files[0], read_volume(folder / "series"))
    assert np.array_equal(back.labels, np.where(labels == 3, 1, labels))
    assert [note.name for note in back.notes] == ["Herd A"]


def test_volume_that_was_moved_in_the_scene_is_refused(loaded):
    node, database, _, folder = loaded
    table, _ = imported(loaded)
    transform = node.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = np.eye(4)
    shift[2, 3] = 5
    transform.SetMatrixTransformToParent(matrixFromArray(shift))
    for moved in (node, table.segmentationNode):
        moved.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match=r"5\.00 mm apart"):
        scene_dicom.exportDicom(table, folder / "moved", database=database)


def test_volume_from_elsewhere_is_not_exported(loaded):
    node, database, _, folder = loaded
    table, _ = imported(loaded)
    node.RemoveAttribute("DICOM.instanceUIDs")
    with pytest.raises(InputError, match="does not come from Slicer's DICOM database"):
        scene_dicom.exportDicom(table, folder / "out", database=database)
