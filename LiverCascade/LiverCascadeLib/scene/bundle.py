"""segmentation.seg.nrrd and scene.mrb, written by MRML's own storage nodes.

The slow part of a scene bundle is its volume, which is known long before the result: :class:`SceneBundle` therefore
takes the two one after the other.
"""

from __future__ import annotations

import errno
import shutil
import zipfile
from pathlib import Path

import slicer

from ..errors import OutputError

SEGMENTATION_FILE = "segmentation.seg.nrrd"
SCENE_FILE = "scene.mrb"


class SceneBundle:
    """A scene.mrb in the making.

    Every file inside has been compressed by its storage node, so the archive itself only stores.

    Args:
        scene: the scene to save. Its URL and root directory are put back after saving.
        scratch: a folder for unfinished files, best on the file system of the output. The caller removes it.
    """

    def __init__(self, scene: slicer.vtkMRMLScene, scratch: Path):
        self.scene = scene
        self.folder = Path(scratch).resolve() / "scene"
        self.data = self.folder / "Data"
        self.data.mkdir(parents=True)
        self.path = self.folder.parent / SCENE_FILE
        self._archive = zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED)

    def addVolume(self, volumeNode: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Compresses the volume into the bundle.

        Raises:
            OutputError: MRML could not write it.
            OSError: the disk is full or not writable.
        """
        storage = _storageNode(volumeNode, "vtkMRMLNRRDStorageNode", self.scene)
        # CT noise hardly compresses: the fastest level costs a tenth in size and saves most of the time.
        storage.SetUseCompression(True)
        storage.SetCompressionParameter(storage.GetCompressionParameterFastest())
        storage.SetDefaultWriteFileExtension("nrrd")
        path = self.data / "volume.nrrd"
        writeNode(storage, volumeNode, path)
        self._archive.write(path, f"scene/Data/{path.name}")
        path.unlink()

    def finish(self, segmentationNode: slicer.vtkMRMLSegmentationNode, output: Path) -> None:
        """Writes both files into the folder ``output``.

        Raises:
            OutputError: MRML could not write them.
            OSError: the disk is full or not writable.
        """
        storage = _storageNode(segmentationNode, "vtkMRMLSegmentationStorageNode", self.scene)
        # The liver's box instead of the whole volume; the reference geometry is stored beside it.
        storage.SetCropToMinimumExtent(True)
        path = self.data / SEGMENTATION_FILE
        writeNode(storage, segmentationNode, path)
        self._archive.write(path, f"scene/Data/{path.name}")
        self._archive.write(self._saveSceneFile(), "scene/scene.mrml", zipfile.ZIP_DEFLATED)
        self._archive.close()
        shutil.move(path, Path(output) / SEGMENTATION_FILE)
        shutil.move(self.path, Path(output) / SCENE_FILE)

    def _saveSceneFile(self) -> Path:
        url, root = self.scene.GetURL(), self.scene.GetRootDirectory()
        path = self.folder / "scene.mrml"
        # The names of data files are written relative to the root directory.
        self.scene.SetRootDirectory(str(self.folder))
        self.scene.SetURL(str(path))
        try:
            saved = self.scene.Commit()
        finally:
            self.scene.SetURL(url)
            self.scene.SetRootDirectory(root)
        if not saved or not path.exists():
            raise OutputError("The scene could not be saved.")
        return path


def writeSceneFiles(
    scene: slicer.vtkMRMLScene,
    volumeNode: slicer.vtkMRMLScalarVolumeNode,
    segmentationNode: slicer.vtkMRMLSegmentationNode,
    folder: Path,
) -> None:
    """Writes segmentation.seg.nrrd and scene.mrb (the volume and the segmentation) into ``folder``.

    Raises:
        OutputError: MRML could not write them.
        OSError: the disk is full or not writable.
    """
    scratch = Path(folder) / ".scene"
    try:
        bundle = SceneBundle(scene, scratch)
        bundle.addVolume(volumeNode)
        bundle.finish(segmentationNode, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _storageNode(node, className: str, scene):
    storage = node.GetStorageNode()
    if storage is None or not storage.IsA(className):
        storage = scene.AddNewNodeByClass(className)
        node.SetAndObserveStorageNodeID(storage.GetID())
    return storage


def writeNode(storage: slicer.vtkMRMLStorageNode, node: slicer.vtkMRMLStorableNode, path: Path) -> None:
    """Writes ``node`` to ``path``.

    Raises:
        OutputError: MRML could not write it.
        OSError: the disk is full.
    """
    storage.SetFileName(str(path))
    if storage.WriteData(node) and path.exists():
        return
    # MRML does not say why; a full disk is by far the commonest reason and has its own exit code.
    if shutil.disk_usage(path.parent).free < 1 << 20:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    raise OutputError(f"'{node.GetName()}' could not be written to {path.name}.")
