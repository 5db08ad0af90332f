"""Pictures of the panel in its main states, for the README and the user guide: ``make screenshots``.

Real widgets and real MRML through the stand-in, the embedded example, and the embedded models.
"""

from __future__ import annotations

import sys
from pathlib import Path

import slicer_standin
from panel_user import ROOT, User

FOLDER = ROOT / "Resources" / "Screenshots"
EXAMPLE = ROOT / "LiverCascade" / "Resources" / "SampleData" / "synthetic_abdomen.nii.gz"
WIDTH = 460


def picture(user: User, name: str, folder: Path, height: int) -> None:
    """Writes panel-NAME.png."""
    import slicer

    slicer.util.mainWindow().resize(WIDTH, height)
    user.standin.process(seconds=0.2)
    user.standin.screenshot(user.widget, folder / f"panel-{name}.png")
    print(f"panel-{name}.png")


def good_times(folder: Path, behavior: str | None) -> None:
    """Fresh, findings, running, results."""
    import slicer

    standin = slicer_standin.install()
    try:
        user = User(standin, behavior)
        picture(user, "fresh", folder, 420)
        node = slicer.util.loadVolume(str(EXAMPLE))
        node.SetName("Synthetic abdomen")
        user.ui.inputSelector.setCurrentNode(node)
        user.wait(lambda: user.sees(user.ui.findingsLabel))
        shifted = slicer.util.loadVolume(str(EXAMPLE))
        shifted.SetName("Wrong rescale intercept")
        slicer.util.updateVolumeFromArray(shifted, slicer.util.arrayFromVolume(shifted) + 1024)
        user.ui.inputSelector.setCurrentNode(shifted)
        user.wait(lambda: "intercept" in user.ui.findingsLabel.text)
        picture(user, "findings", folder, 460)
        user.ui.inputSelector.setCurrentNode(node)
        user.wait(lambda: "intercept" not in user.ui.findingsLabel.text)
        user.click(user.ui.segmentButton)
        user.wait(lambda: "Outlining" in user.ui.progressLabel.text and user.ui.progressBar.value > 250, 900)
        picture(user, "running", folder, 460)
        user.wait(lambda: not user.panel.isBusy, 900)
        segmentation = user.parameters.resultSegmentation
        if segmentation is not None:
            user.wait(lambda: bool(user.ui.show3DButton.checked and segmentation.GetDisplayNode().GetVisibility3D()))
            rows = user.panel.table.rows()
            for row, review, comment in zip(rows, ("accepted", "unsure"), ("", "compare with MR"), strict=False):
                user.panel.table.setReview(row.segmentId, review)
                user.panel.table.setComment(row.segmentId, comment)
            standin.process(seconds=0.6)
        picture(user, "results", folder, 680)
        user.panel.close()
    finally:
        standin.uninstall()


def bad_times(folder: Path) -> None:
    """Error."""
    import slicer

    standin = slicer_standin.install()
    try:
        user = User(standin, "crashes")
        node = slicer.util.loadVolume(str(EXAMPLE))
        node.SetName("Synthetic abdomen")
        user.ui.inputSelector.setCurrentNode(node)
        user.wait(lambda: user.sees(user.ui.findingsLabel))
        user.run()
        picture(user, "error", folder, 520)
    finally:
        standin.uninstall()


def main() -> None:
    """Writes all pictures into Resources/Screenshots, or into the folder that is the first argument."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    bad_times(folder)
    good_times(folder, None)


if __name__ == "__main__":
    main()
