"""LiverCascade beside nnU-Net's own predictor and MONAI's sliding window: same weights, same scans, same machine.

``make bench`` runs it and writes ``docs/benchmarks-nnunet.md``. The network is the plain U-Net that nnU-Net plans for
128³ voxels, 31 million parameters, at 0.75 × 0.75 × 1.0 mm, with fixed random weights. Whole processes from file to
file, start-up included. Each measurement is kept in ``--keep``, so that a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from bench import ROOT, SHARED, machine, unzipped, watched

REFERENCE = ROOT / ".venv-nnunet" / "bin" / "python"
REPORT = ROOT / "docs" / "benchmarks-nnunet.md"
TESTING = Path(__file__).resolve().parent
SPACING, PATCH = (0.75, 0.75, 1.0), (128, 128, 128)


@dataclass(frozen=True)
class Bench:
    """Where things lie.

    Attributes:
        place: for scans and models that are made.
        keep: for what was measured.
        threads: of every program.
    """

    place: Path
    keep: Path
    threads: int

    def once(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``measure`` says, or what it said the last time."""
        path = self.keep / f"{name}.json"
        if not path.exists():
            found = measure()
            path.write_text(json.dumps(found))
            print(name, json.dumps(found), flush=True)
        return json.loads(path.read_text())

    def run(self, command: list[str]) -> dict[str, Any]:
        """Wall clock and memory of a program."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "nnUNet_def_n_proc": str(self.threads)}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "LiverCascade"), str(TESTING)])
        wall, largest, together = watched(command, environment)
        return {"seconds": wall, "largest_gb": largest / 1e9, "all_gb": together / 1e9}


def model(bench: Bench) -> Path:
    """The network in nnU-Net's format, and a cascade that has it work in the box of the embedded locate model."""
    folder = bench.place / "network"
    if not folder.exists():
        subprocess.run([str(REFERENCE), str(TESTING / "nnunet_reference.py"), "random", str(folder)], check=True)
        stage = {
            "schema_version": 1, "format": "nnunet", "id": "random-31m", "role": "refine", "title": "random U-Net",
            "model": ".", "structures": {"liver": [1, 2]}, "margin_mm": 10,
        }  # fmt: skip
        (folder / "stage.json").write_text(json.dumps(stage))
    locate = ROOT / "LiverCascade" / "Resources" / "Models" / "locate"
    cascade = {"schema_version": 1, "title": "bench", "locate": str(locate), "refine": [str(folder)]}
    (bench.place / "cascade.json").write_text(json.dumps(cascade))
    return folder


def scans(bench: Bench) -> dict[str, Path]:
    """NIfTI files by number of slices: lits_000, ircadb_17, and ircadb_17 within longer scans."""
    from LiverCascadeLib.volume import read_volume, write_labels

    found = {"75": bench.place / "75.nii.gz", "119": bench.place / "119.nii.gz"}
    sources = {"75": SHARED / "lits_000" / "series.zip", "119": SHARED / "ircadb_17" / "PATIENT_DICOM.zip"}
    for name, path in found.items():
        if not path.exists():
            volume = read_volume(unzipped(sources[name], bench.place / f"series{name}"))
            write_labels(path, volume.array, volume.grid)
    for slices in (300, 800):
        path = bench.place / f"{slices}.nii.gz"
        found[str(slices)] = path
        if not path.exists():
            _longer(found["119"], slices, path)
    return found


def _longer(source: Path, slices: int, path: Path) -> None:
    """The same slices in the middle of a long scan: what is added is a body of water with noise, without a liver."""
    from LiverCascadeLib.geometry import Grid
    from LiverCascadeLib.volume import read_volume, write_labels

    volume = read_volume(source)
    size, spacing = volume.grid.size, volume.grid.spacing
    below = (slices - size[2]) // 2
    matrix = volume.grid.ijk_to_ras.copy()
    matrix[:3, 3] = volume.grid.to_ras(np.array([0, 0, -below]))
    grid = Grid((*size[:2], slices), matrix)
    j, i = np.meshgrid(*[np.arange(n) for n in size[1::-1]], indexing="ij")
    across, deep = (i - size[0] / 2) * spacing[0] / 150, (j - size[1] / 2) * spacing[1] / 100
    water = np.where(across**2 + deep**2 < 1, 0, -1000)
    noise = np.random.default_rng(0).normal(0, 15, (slices, *water.shape)).astype(np.float32)
    array = np.clip(water + noise, -1024, 3071).astype(np.int16)
    array[below : below + size[2]] = volume.array
    write_labels(path, array, grid)


def ours(bench: Bench, scan: Path, faithful: bool) -> dict[str, Any]:
    """The command line with that cascade."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "LiverCascadeLib", "segment", str(scan), "-o", str(out), "--quiet"]
        command += ["--device", "cpu", "--threads", str(bench.threads), "--model", str(bench.place / "cascade.json")]
        found = bench.run([*command, "--faithful"] if faithful else command)
        record = json.loads((out / "result.json").read_text())
    models = record["provenance"]["models"]
    return {
        **found,
        "stages": record["timings_s"],
        "forward": sum(one["forward_seconds"] for one in models),
        "windows": models[1]["windows"],
    }


def theirs(bench: Bench, scan: Path) -> dict[str, Any]:
    """nnUNetPredictor, from file to file, with its own processes for reading and writing."""
    with tempfile.TemporaryDirectory() as folder:
        job = f"{folder}/answer={bench.place / 'network'}"
        command = [str(REFERENCE), str(TESTING / "nnunet_reference.py"), "predict", "--workers", str(scan), job]
        return bench.run(command)


def monai(bench: Bench, scan: Path) -> dict[str, Any]:
    """MONAI's SlidingWindowInferer on the whole volume."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--monai", str(scan), f"{folder}/answer.nii.gz"]
        return bench.run([*command, "--place", str(bench.place), "--threads", str(bench.threads)])


def network(place: Path) -> Any:
    """The benchmark's network."""
    from LiverCascadeLib.models.stage_file import read_stage_file
    from LiverCascadeLib.nnunet.stage import NnUnetStage

    return NnUnetStage(read_stage_file(place / "network"), faithful=True)._network


def run_monai(place: Path, scan: Path, output: Path) -> None:
    """What a user of MONAI would write: spacing, window, sliding window, the way back."""
    import torch
    from LiverCascadeLib.volume import read_volume, write_labels
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, ScaleIntensityRange, Spacing

    prepare = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            ScaleIntensityRange(-150, 250, -2.5, 2.5, clip=True),
            Spacing(SPACING, mode="bilinear"),
        ]
    )
    image = prepare(str(scan))
    inferer = SlidingWindowInferer(PATCH, sw_batch_size=1, overlap=0.5, mode="gaussian")
    with torch.inference_mode():
        logits = inferer(image[None], network(place))[0]
    volume = read_volume(scan)
    # From MONAI's [i, j, k] at the network's spacing back to the voxels of the scan.
    labels = torch.nn.functional.interpolate(
        logits.argmax(dim=0)[None, None].float(), size=volume.grid.size, mode="nearest"
    )[0, 0]
    write_labels(output, labels.permute(2, 1, 0).numpy().astype(np.uint8), volume.grid)


def bare(bench: Bench) -> dict[str, Any]:
    """Seconds of one forward pass of one window, the best of three, in float32 and as the fast mode computes."""
    command = [sys.executable, __file__, "--bare", "--place", str(bench.place), "--threads", str(bench.threads)]
    path = os.pathsep.join([str(ROOT / "LiverCascade"), str(TESTING)])
    answer = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def run_bare(place: Path) -> None:
    """See :func:`bare`."""
    import torch
    from LiverCascadeLib.allocator import keep_freed_memory
    from LiverCascadeLib.predictor import autocast_dtype

    keep_freed_memory()
    net, window = network(place), torch.randn(1, 1, *PATCH)
    found = {}
    for name, dtype in (("float32", None), ("fast", autocast_dtype("cpu"))):
        seconds = []
        for _ in range(4):
            with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
                started = time.perf_counter()
                net(window)
                seconds.append(time.perf_counter() - started)
        found[name] = min(seconds[1:])
    print(json.dumps(found))


def report(found: dict[str, dict[str, Any]], single: dict[str, float]) -> str:
    """The page."""
    base = found["119 nnU-Net"]
    lines = [
        "| scan | program | seconds | times faster | largest process | all processes | windows | in the network |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        slices, program = name.split(" ", 1)
        ratio = f"{base['seconds'] / one['seconds']:.1f}" if slices == "119" else ""
        inside = f"{one['forward']:.1f} s" if "forward" in one else ""
        lines.append(
            f"| 512×512×{slices} | {program} | {one['seconds']:.1f} | {ratio} | {one['largest_gb']:.2f} GB | "
            f"{one['all_gb']:.2f} GB | {one.get('windows', '')} | {inside} |"
        )
    text = (
        "# Benchmarks against nnU-Net and MONAI\n\nMade by `make bench` (`Testing/nnunet_bench.py`), one run each. "
        "The network is the plain U-Net that nnU-Net plans for 128³ voxels, 31 million parameters, at 0.75 × 0.75 × "
        "1.0 mm, with fixed random weights and a last layer that calls everything liver: the labels mean nothing, the "
        "time is the same. Whole processes from file to file, start-up included. 119 slices are ircadb_17, 75 "
        "lits_000; 300 and 800 are ircadb_17's slices in the middle of a longer scan of a body of water: the same "
        "liver.\n\n"
        f"Machine: {machine()}.\n\n" + "\n".join(lines) + "\n\n"
    )
    text += (
        f"One bare forward pass of a window of 128³ takes {single['float32']:.2f} s in float32 and "
        f"{single['fast']:.2f} s as the fast mode computes.\n\n"
    )
    lines = ["| scan | program | total over the bare passes of its windows |", "|---|---|---|"]
    for name, one in found.items():
        if "windows" in one:
            slices, program = name.split(" ", 1)
            limit = one["windows"] * single["float32" if "faithful" in program else "fast"]
            lines.append(f"| 512×512×{slices} | {program} | {one['seconds'] / limit:.2f} ({limit:.1f} s) |")
    return text + "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, default=ROOT / ".cache" / "nnunet-bench")
    parser.add_argument("--place", type=Path, help="where scans and models are made (default: in --keep)")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count())
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--monai", type=Path, nargs=2, metavar=("SCAN", "OUTPUT"), help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    place = options.place or options.keep / "made"
    if options.monai or options.bare:
        import torch

        torch.set_num_threads(options.threads)
        run_monai(place, *options.monai) if options.monai else run_bare(place)
        return
    if not (SHARED / "ircadb_17").exists() or not REFERENCE.exists():
        raise SystemExit("This benchmark needs ../shared/data and nnU-Net's own software (make setup).")
    place.mkdir(parents=True, exist_ok=True)
    bench = Bench(place, options.keep, options.threads)
    model(bench)
    files = scans(bench)
    single = bench.once("bare", lambda: bare(bench))
    found = {}
    for slices in ("119", "75", "300", "800"):
        name = f"{slices} LiverCascade, fast"
        found[name] = bench.once(name, lambda s=slices: ours(bench, files[s], False))
    found["119 LiverCascade, faithful"] = bench.once(
        "119 LiverCascade, faithful", lambda: ours(bench, files["119"], True)
    )
    found["119 nnU-Net"] = bench.once("119 nnU-Net", lambda: theirs(bench, files["119"]))
    found["119 MONAI"] = bench.once("119 MONAI", lambda: monai(bench, files["119"]))
    options.report.write_text(report(found, single), encoding="utf-8")


if __name__ == "__main__":
    main()
