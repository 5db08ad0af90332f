"""What models draw beside liver and lesions, as segments of the result's segmentation."""

from __future__ import annotations

import numpy as np
import slicer

from ..geometry import Grid
from ..lesions.couinaud_network import couinaud_of
from ..result import Result
from .couinaud import setCouinaudSegments
from .segment_content import LABELMAP
from .segmentations import orientedImage
from .terminology import setVessels
from .volumes import worldFromLocal

VESSELS_ID = "Liver_vessels"


def addStructures(segmentationNode: slicer.vtkMRMLSegmentationNode, result: Result) -> None:
    """Adds Couinaud's segments and the liver's vessels, each in a layer of their own; nothing where there are none."""
    couinaud = couinaud_of(result)
    if couinaud is not None:
        setCouinaudSegments(segmentationNode, couinaud, result.volume.grid)
    if result.structures is not None and result.structures.vessels is not None and result.structures.vessels.any():
        _addVessels(segmentationNode, result)


def _addVessels(segmentationNode: slicer.vtkMRMLSegmentationNode, result: Result) -> None:
    structures = result.structures
    local = Grid(
        result.volume.grid.size, np.linalg.inv(worldFromLocal(segmentationNode)) @ result.volume.grid.ijk_to_ras
    )
    segment = slicer.vtkSegment()
    setVessels(segment)
    segment.SetLabelValue(1)
    segment.AddRepresentation(LABELMAP, orientedImage(structures.vessels, structures.box, local))
    segmentationNode.GetSegmentation().AddSegment(segment, VESSELS_ID)
