"""Volume nodes ↔ :class:`Volume`, and a scene for use without the application."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import slicer
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..errors import InputError
from ..geometry import Grid
from ..steps import exhausted
from ..volume import Volume

WINDOW_HU, LEVEL_HU = 400.0, 40.0


def createScene() -> slicer.vtkMRMLScene:
    """A scene in which volumes and segmentations can be made, saved and loaded without the Slicer application."""
    scene = slicer.vtkMRMLScene()
    # The logics register the node classes that their modules own; the scene keeps the classes, not the logics.
    for logicClass in (
        slicer.vtkSlicerVolumesLogic,
        slicer.vtkSlicerSegmentationsModuleLogic,
        slicer.vtkSlicerSequencesLogic,
    ):
        logicClass().SetMRMLScene(scene)
    # The logic of Markups, which would register this one, cannot do without the application's selection node.
    scene.RegisterNodeClass(slicer.vtkMRMLMarkupsJsonStorageNode())
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return scene


def matrixFromArray(array: np.ndarray) -> vtkMatrix4x4:
    """A VTK matrix from a 4×4 array."""
    matrix = vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=np.float64).ravel().tolist())
    return matrix


def arrayFromMatrix(matrix: vtkMatrix4x4) -> np.ndarray:
    """A 4×4 array from a VTK matrix."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def worldFromLocal(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    """The 4×4 RAS-to-RAS matrix of all transforms above ``node``.

    Raises:
        InputError: one of them is not linear.
    """
    matrix = vtkMatrix4x4()
    transform = node.GetParentTransformNode()
    if transform is not None:
        if not transform.IsTransformToWorldLinear():
            raise InputError(
                f"'{node.GetName()}' stands under the non-linear transform '{transform.GetName()}', which cannot be "
                "described by a voxel grid. Harden the transform or take the node out of it, then run again."
            )
        transform.GetMatrixTransformToWorld(matrix)
    return arrayFromMatrix(matrix)


def worldGrid(volumeNode: slicer.vtkMRMLVolumeNode) -> Grid:
    """Where the voxels of a volume node lie in the patient, linear parent transforms included.

    Raises:
        InputError: no voxels, a broken geometry, or a non-linear transform above the node.
    """
    image = volumeNode.GetImageData()
    if image is None or 0 in image.GetDimensions():
        raise InputError(f"The volume '{volumeNode.GetName()}' holds no voxels.")
    matrix = vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    try:
        return Grid(image.GetDimensions(), worldFromLocal(volumeNode) @ arrayFromMatrix(matrix))
    except ValueError as error:
        raise InputError(f"The geometry of the volume '{volumeNode.GetName()}' is broken. {error}") from error


def voxelsOfNode(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> tuple[np.ndarray, Grid]:
    """The voxels [k, j, i] of a scalar volume node as they are, shared with it, and their grid in the world (RAS mm).

    Raises:
        InputError: not a scalar CT volume, or a geometry that cannot be used.
    """
    name = volumeNode.GetName() or "CT"
    grid = worldGrid(volumeNode)
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    if scalars is None or scalars.GetNumberOfComponents() != 1:
        raise InputError(f"'{name}' is not a volume with one value per voxel: a color or vector image is no CT.")
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f"'{name}' is a label map. Choose the CT volume that it was drawn on.")
    return vtk_to_numpy(scalars).reshape(grid.shape), grid


def volumeFromNode(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> Volume:
    """The :class:`Volume` of a scalar volume node, on its grid in the world (RAS mm).

    int16 voxels are shared with the node, not copied: the node must not be edited while the volume is in use. Other
    types are rounded and clipped to int16, slice by slice.

    Raises:
        InputError: not a scalar CT volume, values that are not numbers, or a geometry that cannot be used.
    """
    return exhausted(volumeSteps(volumeNode))


def volumeSteps(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> Generator[None, None, Volume]:
    """:func:`volumeFromNode` in short steps."""
    array, grid = voxelsOfNode(volumeNode)
    name = volumeNode.GetName() or "CT"
    identity = _identity(volumeNode)
    if array.dtype != np.int16:
        result = np.empty(array.shape, np.int16)
        for source, target in zip(array, result, strict=True):
            if not np.isfinite(source).all():
                raise InputError(f"The volume '{name}' holds values that are not numbers (NaN or infinite).")
            target[:] = np.clip(np.rint(source), -32768, 32767)
            yield
        array = result
    return Volume(array, grid, name, identity)


def _identity(volumeNode: slicer.vtkMRMLScalarVolumeNode) -> dict[str, object]:
    """What the provenance tells about a volume that came from a scene."""
    storage = volumeNode.GetStorageNode()
    path = storage.GetFullNameFromFileName() if storage is not None and storage.GetFileName() else ""
    identity: dict[str, object] = {"path": path, "format": "MRML node", "node": volumeNode.GetID() or ""}
    instances = volumeNode.GetAttribute("DICOM.instanceUIDs")
    if instances:
        identity["dicom_instance_uids"] = instances.split()
    return identity


def nodeFromVolume(volume: Volume, scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLScalarVolumeNode:
    """Adds a scalar volume node that shares the volume's int16 voxels; shown with a soft-tissue window."""
    array = np.ascontiguousarray(volume.array)
    image = vtkImageData()
    image.SetDimensions(*volume.grid.size)
    # numpy_to_vtk keeps the array alive for as long as the VTK array lives.
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=False))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", volume.name)
    node.SetIJKToRASMatrix(matrixFromArray(volume.grid.ijk_to_ras))
    node.SetAndObserveImageData(image)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(WINDOW_HU, LEVEL_HU)
    return node


def showInSliceViews(volumeNode: slicer.vtkMRMLScalarVolumeNode, scene: slicer.vtkMRMLScene) -> None:
    """Puts the volume into the background of the three slice views, here and wherever the scene is opened."""
    for layout in ("Red", "Green", "Yellow"):
        composite = scene.GetSingletonNode(layout, "vtkMRMLSliceCompositeNode")
        if composite is None:
            composite = slicer.vtkMRMLSliceCompositeNode()
            composite.SetSingletonTag(layout)
            composite.SetLayoutName(layout)
            composite = scene.AddNode(composite)
        composite.SetBackgroundVolumeID(volumeNode.GetID())


def placeBeside(neighbor: slicer.vtkMRMLNode, node: slicer.vtkMRMLNode, scene: slicer.vtkMRMLScene) -> None:
    """Puts a node where its neighbor is in the subject hierarchy: in its study, if it has one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    # The application makes an item for every node by itself; without it there is nobody to do so.
    neighborItem, item = (
        hierarchy.GetItemByDataNode(one) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), one)
        for one in (neighbor, node)
    )
    hierarchy.SetItemParent(item, hierarchy.GetItemParent(neighborItem))
