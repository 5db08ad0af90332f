"""The uncertainty of a result as a volume that lies over the CT."""

from __future__ import annotations

import numpy as np
import slicer
from vtkmodules.util.numpy_support import numpy_to_vtk
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..geometry import Grid
from ..result import Result
from .volumes import arrayFromMatrix, matrixFromArray, placeBeside, worldGrid

# From dark to bright, also in greyscale.
COLORS = "vtkMRMLColorTableNodeFileInferno.txt"
# Voxels below this share of the highest entropy are decided; the CT shows through.
SHOWN_FROM = 0.1


def uncertaintyNode(
    result: Result, volumeNode: slicer.vtkMRMLScalarVolumeNode | None, scene: slicer.vtkMRMLScene
) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Adds a volume node named 'NAME uncertainty', on the voxels of the CT inside the liver's box.

    Values are those of :class:`..result.Uncertainty`: 0 where the networks are certain, 255 where all classes are
    equally likely. Made to lie over the CT, in the foreground of the slice views: what is decided is transparent.

    Args:
        result: of a run with :attr:`..cascade.Options.uncertainty`.
        volumeNode: the CT. The node stands under the same transform and beside it in the subject hierarchy.

    Returns:
        None where the result has no uncertainty: it was not asked for, or no liver was found.

    Raises:
        ValueError: the volume node lies on another grid than the result.
        InputError: the volume node stands under a non-linear transform.
    """
    if result.uncertainty is None:
        return None
    grid = result.volume.grid
    if volumeNode is not None:
        if not worldGrid(volumeNode).is_close(grid, tolerance_mm=0.01):
            raise ValueError(f"The volume '{volumeNode.GetName()}' lies on another grid than the result.")
        local = vtkMatrix4x4()
        volumeNode.GetIJKToRASMatrix(local)
        grid = Grid(grid.size, arrayFromMatrix(local))
    grid = grid.crop(result.uncertainty.box)
    image = vtkImageData()
    image.SetDimensions(*grid.size)
    # The VTK array keeps the NumPy array alive.
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(result.uncertainty.entropy).ravel(), deep=False))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"{result.volume.name} uncertainty")
    node.SetIJKToRASMatrix(matrixFromArray(grid.ijk_to_ras))
    node.SetAndObserveImageData(image)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(COLORS)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(255, 127.5)
    display.SetAutoThreshold(False)
    display.SetThreshold(round(255 * SHOWN_FROM), 255)
    display.SetApplyThreshold(True)
    if volumeNode is not None:
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        placeBeside(volumeNode, node, scene)
    return node
