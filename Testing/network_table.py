"""Measures every network preset and writes the table in docs/networks.md.

    python Testing/network_table.py                      # all presets, printed
    python Testing/network_table.py unet segresnet       # some of them
    python Testing/network_table.py --write              # into docs/networks.md

Each preset runs in a process of its own: parameters, memory that one training step adds (weights, activations,
gradients, AdamW's state), processor time of a training step and of a forward pass in evaluation mode. With one thread
processor time is what one core needs, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "networks.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
PATCH, SPACING = (96, 96, 32), (0.8, 0.8, 2.0)


def measure(name: str, patch: tuple[int, int, int], steps: int) -> dict[str, float]:
    """Figures of one preset; to be called in a fresh process, as peak memory never falls again."""
    import resource
    import time

    import psutil
    import torch
    from LiverCascadeLib.models import build_network
    from LiverCascadeTrainingLib.losses import build_loss
    from LiverCascadeTrainingLib.networks import build, outputs_of

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = patch[::-1]
    image, target = torch.rand(1, 1, *shape), torch.randint(0, 3, (1, *shape))
    loss = build_loss("dice-ce")
    architecture, arguments = build(name, 1, 3, patch, SPACING)
    # Building once loads the packages, which are not to be counted.
    build_network(architecture, arguments)
    before = psutil.Process().memory_info().rss
    network = build_network(architecture, arguments)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    times = []
    for _ in range(steps):
        started = time.process_time()
        value, _ = loss(outputs_of(network(image)), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        times.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    optimizer.zero_grad()
    forward = []
    with torch.inference_mode():
        network.eval()
        for _ in range(steps):
            started = time.process_time()
            network(image)
            forward.append(time.process_time() - started)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "gib": (peak - before) / 2**30,
        "step": min(times),
        "forward": min(forward),
    }


def measured_apart(name: str, patch: tuple[int, int, int], steps: int) -> dict[str, float] | str:
    """Figures of one preset from a process of its own, or why there are none."""
    command = [sys.executable, __file__, "--one", name, "--patch", *map(str, patch), "--steps", str(steps)]
    paths = [ROOT / "LiverCascade", ROOT / "LiverCascadeTraining", *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths if str(path)),
        "OMP_NUM_THREADS": "1",
    }
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    if answer.returncode:
        return (answer.stderr.strip().splitlines() or ["killed"])[-1]
    return json.loads(answer.stdout.strip().splitlines()[-1])


def row(name: str, figures: dict[str, float] | str) -> str:
    """One line of the table."""
    from LiverCascadeTrainingLib.networks import PRESETS

    preset = PRESETS[name]
    start = f"| `{name}` | {preset.title} |"
    if isinstance(figures, str):
        return f"{start} not measured | | | |"
    return (
        f"{start} {figures['parameters'] / 1e6:.1f} | {figures['gib']:.2f} | {figures['step']:.1f} | "
        f"{figures['forward']:.1f} |"
    )


def main() -> None:
    """The command."""
    sys.path[:0] = [str(ROOT / "LiverCascade"), str(ROOT / "LiverCascadeTraining")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="presets; all without one")
    parser.add_argument("--patch", nargs=3, type=int, default=PATCH, metavar=("R", "A", "S"))
    parser.add_argument("--steps", type=int, default=3, help="the fastest of so many is taken")
    parser.add_argument("--write", action="store_true", help="replace the table in docs/networks.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    patch = tuple(options.patch)
    if options.one:
        print(json.dumps(measure(options.one, patch, options.steps)))
        return
    from LiverCascadeTrainingLib.networks import PRESETS

    head = "| name | network | parameters (millions) | memory (GiB) | training step (s) | forward pass (s) |"
    lines = [head, "|---|---|--:|--:|--:|--:|"]
    for name in options.names or PRESETS:
        figures = measured_apart(name, patch, options.steps)
        lines.append(row(name, figures))
        print(lines[-1], "" if isinstance(figures, dict) else figures, flush=True)
    if options.write:
        sizes = " × ".join(map(str, patch))
        day = datetime.date.today().isoformat()
        spacing = " × ".join(map(str, SPACING))
        note = (
            f"Measured {day} by `Testing/network_table.py` on 2 CPU cores, no GPU, with one thread, in float32: one "
            f"patch of {sizes} voxels of {spacing} mm, one input channel, three labels, Dice + cross-entropy, AdamW."
        )
        table = "\n".join([BEGIN, note, "", *lines, END])
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: table, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
