"""Pictures of the panel in its main states, for the README and the user guide: ``make screenshots``.

Real widgets and real MRML through the stand-in, the embedded example, and the embedded models.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import datetime
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
    """Fresh, findings, running, results, sections."""
    import slicer

    standin = slicer_standin.install()
    try:
        import qt

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
        picture(user, "results", folder, 760)
        for section in (user.ui.inputCollapsibleButton, user.ui.optionsCollapsibleButton):
            section.collapsed = True
        user.ui.couinaudCollapsibleButton.collapsed = False
        user.click(slicer.util.findChild(user.widget.parent, "makeSegmentsButton"))
        user.wait(lambda: bool(user.cells()) and all(cells[1] for cells in user.cells()))
        kept = slicer.util.findChild(user.widget.parent, "segmentTable")
        for row in range(1, 4):
            kept.item(row, 0).setCheckState(qt.Qt.Checked)
        picture(user, "segments", folder, 860)
        user.ui.couinaudCollapsibleButton.collapsed = True
        user.ui.reportCollapsibleButton.collapsed = user.ui.dicomCollapsibleButton.collapsed = False
        picture(user, "report", folder, 860)
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


def report(folder: Path) -> None:
    """The report on the embedded example, as PDF and as HTML page.

    The page needs Qt's web engine (PySide6-Addons): WEB_PYTHON names an interpreter that has it.
    """
    from LiverCascadeLib.cascade import Options, load_cascade, segment
    from LiverCascadeLib.lesions.assess import assess_result
    from LiverCascadeLib.lesions.couinaud_planes import couinaud_for
    from LiverCascadeLib.report.document import ReaderText
    from LiverCascadeLib.report.identity import StudyIdentity
    from LiverCascadeLib.report.writing import ReportRequest, write_report
    from LiverCascadeLib.volume import read_volume
    from pypdfium2 import PdfDocument

    options = Options(device="cpu")
    result = segment(read_volume(EXAMPLE), load_cascade(None, options), options)
    assessment = assess_result(result, couinaud_for(result.volume.grid, result.labels))
    identity = StudyIdentity(
        patient_name="Nobody, Example", patient_id="synthetic", study_description="Synthetic CT of the abdomen"
    )
    text = ReaderText("Invented, for this picture.", "The lesions are synthetic.", "No patient, no disease.")
    with tempfile.TemporaryDirectory() as place:
        write_report(assessment, place, ReportRequest(datetime(2026, 11, 21, 9, 30), identity, text))
        document = PdfDocument(Path(place) / "report.pdf")
        for number in range(2):
            document[number].render(scale=1.5).to_pil().save(folder / f"report-pdf-{number + 1}.png", optimize=True)
            print(f"report-pdf-{number + 1}.png")
        document.close()
        picture = str(Path(__file__).with_name("html_picture.py"))
        page = [os.environ.get("WEB_PYTHON", sys.executable), picture, f"{place}/report.html"]
        taken = subprocess.run([*page, str(folder / "report-html.png")], capture_output=True, check=False)
        print("report-html.png" + ("" if taken.returncode == 0 else " is left out: WEB_PYTHON has no web engine"))


def main() -> None:
    """Writes all pictures into Resources/Screenshots, or into the folder that is the first argument.

    A second argument chooses 'panel' or 'report'.
    """
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    wanted = sys.argv[2] if len(sys.argv) > 2 else "panel report"
    folder.mkdir(parents=True, exist_ok=True)
    if "panel" in wanted:
        bad_times(folder)
        good_times(folder, None)
    if "report" in wanted:
        report(folder)


if __name__ == "__main__":
    main()
