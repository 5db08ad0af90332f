"""Which volume is meant, where nobody chose one yet."""

from __future__ import annotations

from ..errors import InputError
from ..scene import voxelsOfNode

# Air and lung are far below this in Hounsfield units; other kinds of images rarely go below zero.
AIR_BELOW = -200
LEAST_SIZE = 16


def sensibleVolume(scene: object) -> object:
    """The first CT in the scene: the one in the slice views before others; None where nothing looks like one."""
    candidates = []
    for className in ("vtkMRMLSliceCompositeNode", "vtkMRMLScalarVolumeNode"):
        nodes = scene.GetNodesByClass(className)
        nodes.UnRegister(None)
        for index in range(nodes.GetNumberOfItems()):
            node = nodes.GetItemAsObject(index)
            if className == "vtkMRMLSliceCompositeNode":
                node = scene.GetNodeByID(node.GetBackgroundVolumeID() or "")
            if node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
                candidates.append(node)
    return next((node for node in candidates if looksLikeCt(node)), None)


def looksLikeCt(volumeNode: object) -> bool:
    """A glance at one voxel in several hundred; costs a few milliseconds."""
    try:
        array, _ = voxelsOfNode(volumeNode)
    except InputError:
        return False
    if min(array.shape) < LEAST_SIZE:
        return False
    return bool(array[:: max(1, array.shape[0] // 24), ::8, ::8].min() < AIR_BELOW)
