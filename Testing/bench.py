"""Measures what a user waits for: whole processes, from files to files, start-up included.

``make bench`` runs it and writes ``docs/benchmarks.md``. Real cases come from ``../shared/data``; without them only
the embedded example is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
EXAMPLE = ROOT / "LiverCascade" / "Resources" / "SampleData" / "synthetic_abdomen.nii.gz"
REPORT = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Run:
    """One measured run: seconds of wall clock, GB of memory, seconds per stage and inside the networks."""

    wall: float
    forward: float
    peak_process_gb: float
    peak_tree_gb: float
    stages: dict[str, float]

    @property
    def outside(self) -> float:
        """Share of the whole time that is not spent in the networks' forward passes."""
        return 1 - self.forward / self.wall


def measure(scan: Path, threads: int) -> Run:
    """Runs the command line once on ``scan`` and watches its processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "LiverCascadeLib", "segment", str(scan), "-o", str(out), "--quiet"]
        command += ["--device", "cpu", "--threads", str(threads)]
        path = os.pathsep.join([str(ROOT / "LiverCascade"), os.environ.get("PYTHONPATH", "")])
        wall, largest, together = watched(command, {**os.environ, "PYTHONPATH": path})
        record = json.loads((out / "result.json").read_text())
    forward = sum(model["forward_seconds"] for model in record["provenance"]["models"])
    return Run(wall, forward, largest / 1e9, together / 1e9, record["timings_s"])


def watched(command: list[str], environment: dict[str, str]) -> tuple[float, int, int]:
    """Runs a program: seconds, and the peak memory in bytes of its largest process and of all its processes."""
    started = time.perf_counter()
    process = psutil.Popen(command, env=environment)
    largest = together = 0
    while process.poll() is None:
        sizes = [_memory(p) for p in [process, *_children(process)]]
        largest, together = max([largest, *sizes]), max(together, sum(sizes))
        time.sleep(0.05)
    wall = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}.")
    return wall, largest, together


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def cases(folder: Path) -> dict[str, Path]:
    """The scans to measure, by name; what has to be unpacked or made goes to ``folder``."""
    found = {"embedded example, 154×122×72": EXAMPLE}
    archive = SHARED / "ircadb_17" / "PATIENT_DICOM.zip"
    if archive.exists():
        found["ircadb_17, DICOM, 512×512×119"] = unzipped(archive, folder / "ircadb_17")
    archive = SHARED / "lits_000" / "series.zip"
    if archive.exists():
        series = unzipped(archive, folder / "lits_000")
        found["lits_000, DICOM, 512×512×75"] = series
        found["lits_000 as thin slices, NIfTI, 512×512×800"] = _thin(series, folder / "thin.nii.gz")
    return found


def unzipped(archive: Path, folder: Path) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(archive) as content:
        for number, member in enumerate(m for m in content.infolist() if not m.is_dir()):
            (folder / f"{number:06d}").write_bytes(content.read(member))
    return folder


def _thin(series: Path, path: Path) -> Path:
    """The same patient as 800 thin slices, with noise as thin slices have it."""
    from LiverCascadeLib.geometry import iter_resampled
    from LiverCascadeLib.volume import read_volume, write_labels

    volume = read_volume(series)
    spacing = volume.grid.canonical().spacing
    grid = volume.grid.canonical((*spacing[:2], spacing[2] * volume.grid.size[2] / 800))
    rng = np.random.default_rng(0)
    array = np.empty(grid.shape, np.int16)
    start = 0
    for slab in iter_resampled(volume.array, volume.grid, grid, -1024):
        noise = rng.normal(0, 15, slab.shape).astype(np.float32)
        array[start : start + len(slab)] = np.clip(slab.numpy() + noise, -1024, 3071)
        start += len(slab)
    write_labels(path, array, grid)
    return path


def table(results: dict[str, list[Run]]) -> str:
    """A Markdown table of medians."""
    lines = [
        "| scan | total | in the networks | outside them | largest process | all processes | stages |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():

        def median(get, runs=runs) -> float:
            return statistics.median(get(run) for run in runs)

        spread = f"{min(run.wall for run in runs):.1f}–{max(run.wall for run in runs):.1f}"
        stages = ", ".join(f"{stage} {median(lambda r, s=stage: r.stages[s]):.1f}" for stage in runs[0].stages)
        lines.append(
            f"| {name} | {median(lambda r: r.wall):.1f} s ({spread}) | {median(lambda r: r.forward):.1f} s | "
            f"{100 * median(lambda r: r.outside):.0f} % | {median(lambda r: r.peak_process_gb):.2f} GB | "
            f"{median(lambda r: r.peak_tree_gb):.2f} GB | {stages} |"
        )
    return "\n".join(lines)


def panel(scan: Path, runs: int, command_line: list[Run]) -> str:
    """Sentences on the panel: click to table, and how long the user interface waits, beside the command line."""
    measured = _measured_by("panel_bench.py", "--scan", str(scan), "--runs", str(runs))
    seconds = [run["seconds"] for run in measured]
    gaps = [run["gap_ms"] for run in measured]
    without_start = statistics.median(sum(run.stages.values()) - run.stages["load"] for run in command_line)
    ratio = statistics.median(seconds) / without_start
    return (
        f"{statistics.median(seconds):.1f} s ({min(seconds):.1f}–{max(seconds):.1f}) from the click to the filled "
        f"table with a warm worker, {ratio:.2f} times the command line's {without_start:.1f} s without start-up and "
        f"loading. Longest gap between two ticks of a 20 ms timer meanwhile, mean of {len(gaps)} runs: "
        f"{statistics.mean(gaps):.0f} ms ({min(gaps):.0f}–{max(gaps):.0f})."
    )


def _measured_by(script: str, *arguments: str) -> list[dict[str, float]]:
    """What a benchmark in a process of its own prints: one dictionary for each run."""
    path = os.pathsep.join([str(ROOT / "LiverCascade"), str(ROOT / "Testing"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, str(ROOT / "Testing" / script), *arguments]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def findings(runs: int) -> str:
    """Sentences on what comes behind the segmentation."""
    command = [sys.executable, str(ROOT / "Testing" / "findings_bench.py"), "--runs", str(runs)]
    path = os.pathsep.join([str(ROOT / "LiverCascade"), str(ROOT / "Testing"), os.environ.get("PYTHONPATH", "")])
    answer = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    measured = json.loads(answer.stdout.splitlines()[-1])
    titles = {
        "measure": "all measurements",
        "segments": "Couinaud segments, estimated",
        "report": "report with 12 key images, HTML and PDF",
        "dicom": "DICOM SEG and SR",
    }
    lines = ["| part | seconds |", "|---|---|"]
    for key, title in titles.items():
        values = [run[key] for run in measured]
        lines.append(f"| {title} | {statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f}) |")
    return "\n".join(lines)


def machine() -> str:
    """The machine in words."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
        flags = Path("/proc/cpuinfo").read_text()
        name += ", with bf16 instructions" if "avx512_bf16" in flags or "amx_bf16" in flags else ", without bf16"
    except OSError:
        name += ", instruction set unknown"
    memory = psutil.virtual_memory().total / 1e9
    versions = subprocess.run(
        [sys.executable, "-c", "import torch, monai; print(torch.__version__, monai.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return (
        f"{name}; {os.cpu_count()} cores, {memory:.0f} GB; {platform.system()}, Python {platform.python_version()}, "
        f"PyTorch {versions[0]}, MONAI {versions[1]}"
    )


def main() -> None:
    """Measures and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    results: dict[str, list[Run]] = {}
    panel_text = ""
    with tempfile.TemporaryDirectory() as folder:
        for name, scan in cases(Path(folder)).items():
            results[name] = [measure(scan, options.threads) for _ in range(options.runs)]
            print(table({name: results[name]}), flush=True)
            if name.startswith("ircadb_17"):
                panel_text = f"\n\n## The panel\n\nThrough the tests' stand-in for Slicer, on {name}: "
                panel_text += panel(scan, options.runs, results[name])
                print(panel_text, flush=True)
    findings_text = "\n\n## Behind the segmentation\n\nA CT of 512×512×119 voxels with 30 lesions.\n\n"
    findings_text += findings(options.runs)
    print(findings_text, flush=True)
    text = (
        "# Benchmarks\n\n"
        "Made by `make bench`. Whole processes from files to files, start-up, import, reading and writing of all "
        f"outputs included; medians of {options.runs} runs (lowest–highest), {options.threads} CPU threads, no GPU. "
        "'Largest process' is the peak resident memory of the biggest process, 'all processes' that of the run "
        "together with the process that writes the scene (shared pages counted twice). Stages in seconds of wall "
        "clock; the rest of the total is start-up and exit.\n\n"
        f"Machine: {machine()}.\n\n{table(results)}{panel_text}{findings_text}\n"
    )
    options.report.write_text(text, encoding="utf-8")
    print(f"The table is in {options.report}.")


if __name__ == "__main__":
    main()
