"""What comes behind the segmentation: how long measuring, liver segments, report and DICOM objects take.

One CT of 512 × 512 × 119 voxels with 30 lesions, as a DICOM series; ``python Testing/findings_bench.py --runs 3``
prints one JSON object with the seconds of each run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
from dicom_writer import write_stack
from LiverCascadeLib.dicom.export import export_dicom
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.lesions.assess import assess
from LiverCascadeLib.lesions.couinaud_planes import couinaud_for
from LiverCascadeLib.report.writing import ReportRequest, write_report
from LiverCascadeLib.volume import Volume, read_volume

SIZE, SPACING, LESIONS = (512, 512, 119), (0.75, 0.75, 2.0), 30


def body() -> tuple[Volume, np.ndarray]:
    """A noisy CT with a liver of usual size, and labels with lesions of 8 to 30 mm in it."""
    matrix = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    matrix[:3, 3] = (192, 192, -119)
    grid = Grid(SIZE, matrix)
    k, j, i = np.ogrid[: SIZE[2], : SIZE[1], : SIZE[0]]
    place = [(n - c) * s for n, c, s in zip((i, j, k), (200, 250, 60), SPACING, strict=True)]
    labels = (sum((x / r) ** 2 for x, r in zip(place, (95, 75, 85), strict=True)) < 1).astype(np.uint8)
    rng = np.random.default_rng(1)
    for label in range(2, LESIONS + 2):
        while True:
            center = rng.uniform(-0.55, 0.55, 3) * (95, 75, 85)
            radius = rng.uniform(4, 15)
            ball = sum((x - c) ** 2 for x, c in zip(place, center, strict=True)) < radius**2
            if (labels[ball] == 1).all():
                labels[ball] = label
                break
    array = np.where(labels == 0, -90, np.where(labels == 1, 105, 55)) + rng.integers(-15, 16, grid.shape)
    return Volume(array.astype(np.int16), grid, "body"), labels


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds of wall clock, and what came out."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def run(volume: Volume, labels: np.ndarray, series: Path, folder: Path) -> dict[str, float]:
    """Seconds of each part."""
    measuring, _ = timed(lambda: assess(volume, labels))
    dividing, couinaud = timed(lambda: couinaud_for(volume.grid, labels))
    assessment = assess(volume, labels, couinaud=couinaud)
    reporting, _ = timed(lambda: write_report(assessment, folder / "report", ReportRequest(datetime.now())))
    exporting, _ = timed(lambda: export_dicom(assessment, series, folder / "dicom"))
    return {"measure": measuring, "segments": dividing, "report": reporting, "dicom": exporting}


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volume, labels = body()
        write_stack(folder / "series", volume)
        volume = read_volume(folder / "series")
        print(json.dumps([run(volume, labels, folder / "series", folder) for _ in range(options.runs)]))


if __name__ == "__main__":
    main()
