"""How long the panel keeps Qt waiting: the longest gap between two ticks of a 20 ms timer, by what was going on."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from analytic_bodies import result_from_masks
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.volume import Volume


def large_volume(slices: int = 119, lesions: int = 10) -> Volume:
    """A CT of 512 × 512 × ``slices`` voxels with a liver of 2 L and ``lesions`` lesions in it."""
    grid = Grid(
        (512, 512, slices), np.array([[-0.78, 0, 0, 200], [0, -0.78, 0, 200], [0, 0, 2.5, -150], [0, 0, 0, 1]])
    )
    middle = slices // 2
    k, j, i = np.ogrid[:slices, :512, :512]

    def ball(center: tuple[int, int, int], radii: tuple[float, float, float]) -> np.ndarray:
        return sum(((a - c) / r) ** 2 for a, c, r in zip((k, j, i), center, radii, strict=True)) <= 1

    liver = ball((middle, 256, 180), (36, 100, 110))
    places = [(middle + 12 * (n % 3 - 1), 200 + 40 * (n % 4), 110 + 45 * (n // 4)) for n in range(lesions)]
    masks = [ball(place, (3 + n % 3, 10 + n, 10 + n)) for n, place in enumerate(places)]
    array = result_from_masks(grid, liver, masks).volume.array.copy()
    array[array == 0] = 20
    array[:, :60] = array[:, -60:] = -1000
    array[:, :, :40] = array[:, :, -40:] = -1000
    return Volume(array, grid, "large")


class GapMeter:
    """Notes the longest wait between two ticks of a 20 ms timer."""

    def __init__(self) -> None:
        import qt

        self.longest = 0.0
        self._last = time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setInterval(20)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def take(self) -> float:
        """The longest gap since the last call, in milliseconds."""
        self._tick()
        longest, self.longest = self.longest, 0.0
        return 1000 * longest

    def stop(self) -> None:
        """Stops ticking."""
        self._timer.stop()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now


def measure(slices: int = 119, behavior: str | None = "finds") -> dict[str, float]:
    """Milliseconds of the longest gap while a volume is judged, segmented, and shown in 3D, and while it is edited."""
    import slicer
    import slicer_standin
    from panel_user import User, paint_ball

    standin = slicer_standin.install()
    try:
        user = User(standin, behavior)
        volume, gaps = large_volume(slices), {}
        meter = GapMeter()
        from LiverCascadeLib.scene import nodeFromVolume

        node = nodeFromVolume(volume, slicer.mrmlScene)
        meter.take()
        user.ui.inputSelector.setCurrentNode(node)
        user.wait(lambda: user.sees(user.ui.findingsLabel))
        gaps["preflight"] = meter.take()
        started = time.perf_counter()
        user.ui.segmentButton.click()
        user.wait(lambda: "Outlining" in user.ui.progressLabel.text)
        gaps["handing over"] = meter.take()
        user.wait(lambda: "scene" in user.ui.progressLabel.text or not user.panel.isBusy)
        gaps["computing"] = meter.take()
        user.wait(lambda: not user.panel.isBusy)
        gaps["result"] = meter.take()
        gaps["click to table, in all"] = 1000 * (time.perf_counter() - started)
        user.wait(lambda: bool(user.parameters.resultSegmentation.GetDisplayNode().GetVisibility3D()))
        user.standin.process(seconds=1.0, until=lambda: not user.panel._results._surfaces.isActive)
        gaps["surfaces"] = meter.take()
        row = user.panel.table.rows()[3]
        before = row.volumeMl
        paint_ball(user.parameters.resultSegmentation, row.segmentId, row.centroidRas, 14.0)
        meter.take()
        user.wait(lambda: user.panel.table.rows()[3].volumeMl != before)
        gaps["edit measured"] = meter.take()
        meter.stop()
        return gaps
    finally:
        standin.uninstall()


def measure_scan(scan: Path, runs: int) -> list[dict[str, float]]:
    """Click to table on a real scan with the real, warm worker.

    Args:
        scan: file or DICOM folder.
        runs: how many measured runs, after one that warms the worker.

    Returns:
        for each run ``seconds`` from the click to the filled table, and ``gap_ms``, the longest wait meanwhile.
    """
    import slicer
    import slicer_standin
    from LiverCascadeLib.scene import nodeFromVolume
    from LiverCascadeLib.volume import read_volume
    from panel_user import User

    standin = slicer_standin.install()
    try:
        user = User(standin, None)
        node = nodeFromVolume(read_volume(scan), slicer.mrmlScene)
        user.ui.inputSelector.setCurrentNode(node)
        user.wait(lambda: user.sees(user.ui.findingsLabel))
        measured = []
        for number in range(runs + 1):
            meter = GapMeter()
            started = time.perf_counter()
            user.ui.segmentButton.click()
            user.wait(lambda: not user.panel.isBusy, 900)
            figures = {"seconds": time.perf_counter() - started, "gap_ms": meter.take()}
            meter.stop()
            assert user.parameters.resultSegmentation is not None, user.ui.statusLabel.text
            if number:
                measured.append(figures)
            user.standin.process(seconds=600, until=lambda: not user.panel._results._surfaces.isActive)
        return measured
    finally:
        standin.uninstall()


def main() -> None:
    """Prints the gaps by what was going on, or with a scan the runs as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=119, help="size of the made-up volume")
    parser.add_argument("--scan", type=Path, help="a real scan, with the real worker")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if options.scan:
        print(json.dumps(measure_scan(options.scan, options.runs)))
        return
    for name, milliseconds in measure(options.slices).items():
        print(f"{name:24} {milliseconds:8.1f} ms")


if __name__ == "__main__":
    main()
