"""An edited and reviewed result as files."""

from __future__ import annotations

from pathlib import Path

import slicer
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..errors import InputError
from ..geometry import Grid
from ..report.files import (
    LABELS_FILE,
    LESIONS_FILE,
    RESULT_FILE,
    OutputFolder,
    explained,
    write_couinaud,
    write_record,
)
from ..volume import write_labels
from .assessment import assessmentFromTable
from .bundle import SEGMENTATION_FILE, writeNode
from .lesion_table import LesionTable
from .segmentations import resultLabelsFromSegmentation
from .volumes import arrayFromMatrix, worldFromLocal, worldGrid


def exportResult(table: LesionTable, folder: Path | str) -> None:
    """Writes labels.nii.gz, segmentation.seg.nrrd, lesions.csv and result.json into ``folder``, all of them or none.

    Files of these names are replaced, others are kept. With result.json, which needs the CT, the folder can be opened
    again like that of a run. A rejected lesion is liver in the labels and is left out of the
    segmentation; the table names it. Lesion n of the table has the label n + 1. Labels lie on the grid of the CT, or,
    where that is gone, on the grid that the segmentation remembers.

    Raises:
        InputError: the segmentation is gone, or stands under a non-linear transform.
        OutputError: the files cannot be written.
        ResourceError: the disk or the memory is full.
    """
    segmentationNode = table.segmentationNode
    if segmentationNode is None:
        raise InputError("The segmentation is no longer in the scene, so there is nothing to export.")
    table.update()
    grid = worldGrid(table.volumeNode) if table.volumeNode is not None else _rememberedGrid(segmentationNode)
    assessment = assessmentFromTable(table) if table.volumeNode is not None else None
    if assessment is None:
        labels = resultLabelsFromSegmentation(segmentationNode, grid, table.countedIds())
    else:
        labels = assessment.labels
    with OutputFolder(folder) as output:
        with explained(output.path):
            write_labels(output.staging / LABELS_FILE, labels, grid)
            table.writeCsv(output.staging / LESIONS_FILE)
            _writeSegmentation(table, output.staging / SEGMENTATION_FILE)
            if assessment is not None:
                write_couinaud(output.staging, assessment)
                write_record(output.staging / RESULT_FILE, assessment)
        output.commit()


def _rememberedGrid(segmentationNode: slicer.vtkMRMLSegmentationNode) -> Grid:
    converter = slicer.vtkSegmentationConverter
    text = segmentationNode.GetSegmentation().GetConversionParameter(
        converter.GetReferenceImageGeometryParameterName()
    )
    image = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, image, False):
        raise InputError(
            f"The CT of '{segmentationNode.GetName()}' is gone, and the segmentation does not say on which voxels it "
            "was made. Load the CT and choose it in the panel."
        )
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return Grid(image.GetDimensions(), worldFromLocal(segmentationNode) @ arrayFromMatrix(matrix))


def _writeSegmentation(table: LesionTable, path: Path) -> None:
    """Writes the segmentation without rejected lesions; the node keeps its own file."""
    source = table.segmentationNode
    rejected = {row.segmentId for row in table.rows() if row.isRejected}
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(source.GetName())
    node.GetSegmentation().DeepCopy(source.GetSegmentation())
    for segmentId in rejected:
        node.GetSegmentation().RemoveSegment(segmentId)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetCropToMinimumExtent(True)
    writeNode(storage, node, path)
