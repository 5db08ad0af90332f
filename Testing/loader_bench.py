"""How long a sample takes to make, against how long a network takes to learn from it; CPU time of one thread.

``python Testing/loader_bench.py --data FOLDER --cache CACHE [--device cuda]`` with any data set that can be prepared.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from LiverCascadeLib.models import build_network
from LiverCascadeTrainingLib.data.augmentation import AugmentationSpec
from LiverCascadeTrainingLib.data.cache import Cache, PrepareSettings, prepare
from LiverCascadeTrainingLib.data.patches import Finisher, PatchDataset, PatchSpec
from LiverCascadeTrainingLib.data.sampling import SamplingSpec
from LiverCascadeTrainingLib.losses import cascade_loss

SIZES = ((96, 96, 32), (96, 96, 96), (128, 128, 128))
SMALL = {"spatial_dims": 3, "out_channels": 3, "channels": [16, 32, 64, 128], "strides": [2, 2, 2], "num_res_units": 1}


def seconds(work: Callable[[int], object], count: int, clock: Callable[[], float] = time.process_time) -> np.ndarray:
    """Seconds of each of ``count`` calls, after one that does not count."""
    work(0)
    found = []
    for number in range(1, count + 1):
        started = clock()
        work(number)
        found.append(clock() - started)
    return np.array(found)


def step_seconds(spec: PatchSpec, sample: dict, device: str, count: int) -> float:
    """Median time of a training step of a small network with a batch of one sample."""
    torch.manual_seed(0)
    network = build_network("UNet", {**SMALL, "in_channels": spec.channels}).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    image, target = sample["image"][None].to(device), sample["target"][None].to(device)

    def step(_: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        cascade_loss(network(image), target).backward()
        optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return float(np.median(seconds(step, count, time.process_time if device == "cpu" else time.perf_counter)))


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.75, 0.75, 1.0))
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = prepare(options.data, options.cache, PrepareSettings(tuple(options.spacing)))
    print(report.as_text(), end="")
    cache = Cache(report.folder)
    print("| patch | read | plain | augmented | refine, prior and lesions | step | augmented / step | refine / step |")
    print("|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        base = PatchSpec(size, sampling=SamplingSpec("labels"))
        variants = {
            "plain": dataclasses.replace(base, augmentation=AugmentationSpec.none()),
            "augmented": base,
            "refine": dataclasses.replace(base, inputs=("ct", "liver_probability"), synthetic_chance=0.5),
        }
        sets = {name: PatchDataset(cache, cache.names, spec, 1) for name, spec in variants.items()}
        read = seconds(sets["augmented"].read, options.samples).mean()
        took = {name: seconds(samples.__getitem__, options.samples).mean() for name, samples in sets.items()}
        steps = {name: step_seconds(variants[name], sets[name][1], options.device, options.steps) for name in took}
        cells = [read, took["plain"], took["augmented"], took["refine"], steps["refine"]]
        shares = [took[name] / steps[name] for name in ("augmented", "refine")]
        milliseconds = " | ".join(f"{1000 * cell:.0f} ms" for cell in cells)
        print(f"| {'×'.join(map(str, size))} | {milliseconds} | {shares[0]:.1%} | {shares[1]:.1%} |", flush=True)
        if options.device != "cpu":
            _on_device(cache, variants["refine"], options)


def _on_device(cache: Cache, spec: PatchSpec, options: argparse.Namespace) -> None:
    """Time of reading on the CPU and of finishing on the device, per sample in batches of two."""
    raw = PatchDataset(cache, cache.names, spec, 1, raw=True)
    finisher = Finisher(spec, cache.spacing_mm, options.device)
    batches = [[raw[2 * n], raw[2 * n + 1]] for n in range(6)]

    def finish(number: int) -> None:
        finisher(batches[number % 6])
        torch.cuda.synchronize()

    took = np.median(seconds(finish, 12, time.perf_counter)) / 2
    print(f"  finished on {options.device}: {1000 * took:.1f} ms a sample", flush=True)


if __name__ == "__main__":
    main()
