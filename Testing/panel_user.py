"""A user in front of the panel: opens it, clicks, types, waits, and looks at what is visible."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from analytic_bodies import TEST_GRIDS, analytic_result
from LiverCascadeLib.errors import MissingPackageError
from LiverCascadeLib.jobs import PREFIX
from LiverCascadeLib.volume import Volume

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "LiverCascade" / "LiverCascade.py"
PYTHONPATH = os.pathsep.join([str(ROOT / "LiverCascade"), str(ROOT / "Testing")])


def fake_command(behavior: str) -> Callable[[], tuple[str, list[str], dict[str, str]]]:
    """How to start ``fake_worker.py``."""
    script = str(ROOT / "Testing" / "fake_worker.py")
    return lambda: (sys.executable, [script, behavior], {"PYTHONPATH": PYTHONPATH, "PYTHONUTF8": "1"})


@dataclass
class FakeInstaller:
    """Says what is missing, and installs when asked to, or refuses with ``refusal``."""

    lacking: list[str] = field(default_factory=list)
    refusal: str = ""
    installed: int = 0

    def missing(self) -> list[str]:
        return self.lacking

    def notice(self) -> str:
        return f"Needed once: {', '.join(self.lacking)}." if self.lacking else ""

    def ensure(self) -> None:
        if self.lacking and self.refusal:
            raise MissingPackageError(self.refusal)
        self.installed += len(self.lacking)
        self.lacking = []


def body_volume(name: str = "LPS") -> Volume:
    """The analytic body with air around it, so that it looks like a CT."""
    result = analytic_result(TEST_GRIDS[name])
    array = result.volume.array.copy()
    array[array == 0] = 20
    array[:, :6] = array[:, -6:] = -1000
    array[:, :, :6] = array[:, :, -6:] = -1000
    return Volume(array, result.volume.grid, "body")


class User:
    """Somebody with the panel open.

    Args:
        standin: of Slicer's Qt half.
        behavior: of the fake worker; None takes the real worker.
        installer: the fake installer.
    """

    def __init__(self, standin, behavior: str | None = "finds", installer: FakeInstaller | None = None):
        from LiverCascadeLib.panel.dialogs import Dialogs
        from LiverCascadeLib.panel.services import Services
        from LiverCascadeLib.panel.worker_process import WorkerProcess

        self.standin = standin
        self.installer = installer or FakeInstaller()
        self.worker = WorkerProcess(fake_command(behavior)) if behavior else WorkerProcess()
        self.widget = standin.openModule(MODULE, services=Services(self.installer, Dialogs(), self.worker))
        self.ui, self.panel = self.widget.ui, self.widget.panel

    @property
    def parameters(self):
        return self.widget.logic.getParameterNode()

    def load(self, volume: Volume | None = None):
        """Puts a CT into the scene and chooses it."""
        import slicer
        from LiverCascadeLib.scene import nodeFromVolume

        node = nodeFromVolume(volume or body_volume(), slicer.mrmlScene)
        self.ui.inputSelector.setCurrentNode(node)
        self.wait(lambda: self.sees(self.ui.findingsLabel))
        return node

    def click(self, button) -> None:
        self.standin.click(button)

    def wait(self, until: Callable[[], bool], seconds: float = 60) -> None:
        self.standin.process(seconds=seconds, until=until)
        assert until(), "the user waited in vain"

    def sees(self, widget) -> bool:
        return bool(widget.isVisible())

    def run(self) -> None:
        """Presses the button and waits for the end."""
        self.click(self.ui.segmentButton)
        self.wait(lambda: not self.panel.isBusy)

    def begin(self) -> None:
        """Presses the button and waits until the networks are at work."""
        self.click(self.ui.segmentButton)
        self.wait(lambda: "Outlining" in self.ui.progressLabel.text)

    def status(self) -> str:
        return self.ui.statusLabel.text if self.sees(self.ui.statusLabel) else ""

    def cells(self) -> list[list[str]]:
        table = self.ui.lesionTable
        return [
            [table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)
        ]

    def click_row(self, row: int) -> None:
        self.standin.clickCell(self.ui.lesionTable, row, 0)


class ViewUser:
    """Uses one view of the panel by itself, with a result.

    Attributes:
        said: sentences that the view showed, with their kinds.
    """

    def __init__(self, standin, viewClass: type):
        import slicer
        from LiverCascadeLib.panel.dialogs import Dialogs

        self.standin, self.scene = standin, slicer.mrmlScene
        self.said: list[tuple[str, str]] = []
        self.view = viewClass(Dialogs(), lambda text, kind: self.said.append((text, kind)))
        self.ui = slicer.util.childWidgetVariables(self.view.widget)
        self.view.widget.show()

    def add_result(self, grid: str = "LPS"):
        """Adds a result to the scene and shows it; returns its table."""
        from LiverCascadeLib.scene import LesionTable, nodeFromVolume, segmentationFromResult

        result = analytic_result(TEST_GRIDS[grid])
        volumeNode = nodeFromVolume(result.volume, self.scene)
        node = segmentationFromResult(result, self.scene, volumeNode)
        table = LesionTable.create(node, volumeNode, self.scene)
        self.view.setTable(table)
        return table


def leftovers() -> list[Path]:
    """Job folders in the temporary folder."""
    return list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def children() -> list[psutil.Process]:
    """Living child processes of this one, of any depth; not Python's own helper, which stays once it was needed."""
    return [process for process in psutil.Process().children(recursive=True) if _counts(process)]


def _counts(process: psutil.Process) -> bool:
    try:
        helper = any("multiprocessing.resource_tracker" in word for word in process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and not helper
    except psutil.NoSuchProcess:
        return False


def paint_ball(segmentation_node, segment_id: str, center_ras, radius: float) -> None:
    """Adds a ball to a segment, as a brush does: the labelmap is written anew and the segment tells."""
    import slicer
    from LiverCascadeLib.scene.volumes import arrayFromMatrix
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    segmentation = segmentation_node.GetSegmentation()
    segmentation.SeparateSegmentLabelmap(segment_id)
    image = segmentation.GetSegment(segment_id).GetRepresentation("Binary labelmap")
    value = segmentation.GetSegment(segment_id).GetLabelValue()
    wide = slicer.vtkOrientedImageData()
    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    to_ijk = np.linalg.inv(arrayFromMatrix(matrix))
    center = to_ijk[:3, :3] @ np.asarray(center_ras) + to_ijk[:3, 3]
    reach = radius * np.linalg.norm(to_ijk[:3, :3], axis=1) + 1
    extent = np.array(image.GetExtent()).reshape(3, 2)
    low = np.minimum(extent[:, 0], np.floor(center - reach)).astype(int)
    high = np.maximum(extent[:, 1], np.ceil(center + reach)).astype(int)
    array = np.zeros((high - low + 1)[::-1], np.uint8)
    old = vtk_to_numpy(image.GetPointData().GetScalars()).reshape((extent[:, 1] - extent[:, 0] + 1)[::-1])
    start = extent[:, 0] - low
    inner = tuple(slice(a, a + n) for a, n in zip(start[::-1], old.shape, strict=True))
    array[inner] = old
    k, j, i = np.meshgrid(*[np.arange(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True)], indexing="ij")
    ras = np.stack([i, j, k], -1) @ arrayFromMatrix(matrix)[:3, :3].T + arrayFromMatrix(matrix)[:3, 3]
    array[((ras - np.asarray(center_ras)) ** 2).sum(-1) <= radius**2] = value
    wide.SetExtent(*[int(n) for pair in zip(low, high, strict=True) for n in pair])
    wide.SetImageToWorldMatrix(matrix)
    wide.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    image.DeepCopy(wide)
    image.Modified()
    segmentation.GetSegment(segment_id).Modified()
    segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified, segment_id)
