"""Plays ``livercascade-train`` for the panel's tests: it writes what the real commands write, at once or for ever.

The first argument is the behavior: 'works', 'fails', 'unusable', or 'endless' (a training without an end).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

COLUMNS = "step,epoch,loss,dice_liver,dice_lesion\n"


def main(behavior: str, module: str, arguments: list[str]) -> int:
    """Plays one command; returns the exit code."""
    if os.environ.get("FAKE_WARNING"):
        print("a warning of some library", file=sys.stderr)
    if behavior == "fails":
        print("a warning of some library", file=sys.stderr)
        print("livercascade-train: The data set is empty. Grüße.", file=sys.stderr)
        print("another warning", file=sys.stderr)
        return 2
    command = arguments[0] if module.endswith(".cli") else "test"
    value = {name: text for name, text in pairwise(arguments) if name.startswith("-")}
    print(command, *arguments[1:], flush=True)
    if command == "check":
        Path(value["-o"]).mkdir(parents=True, exist_ok=True)
        Path(value["-o"], "data-check.json").write_text("{}")
        return 2 if behavior == "unusable" else 0
    if command == "split":
        Path(value["-o"]).write_text("{}")
    if command == "prepare":
        Path(value["--cache"]).mkdir(exist_ok=True)
        print("1/1 case", flush=True)
        return 2 if behavior == "unusable" else 0
    if command in ("locate", "refine"):
        train(Path(value["--run"], command), behavior == "endless")
    return 0


def train(run: Path, endless: bool) -> None:
    """Writes figures, looks for the stop file, has a child as a data loader would."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "checkpoints").mkdir(exist_ok=True)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    metrics = run / "metrics.csv"
    metrics.write_text(COLUMNS)
    step = 0
    while endless or step < 6:
        step += 1
        with metrics.open("a") as stream:
            stream.write(f"{step},0,{1 / step:.4f},,\n")
            if step % 3 == 0:
                stream.write(f"{step},0,,0.{min(step, 9)},\n")
        print(f"step {step}/{6 if not endless else 1000}: loss", flush=True)
        (run / "checkpoints" / "last.ckpt").touch()
        if (run / "stop").exists():
            (run / "stop").unlink()
            break
        time.sleep(0.02)
    helper.kill()
    helper.wait()
    (run / "manifest.json").write_text("{}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUTF8", "1")
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
