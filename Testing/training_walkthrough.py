"""The whole way from a downloaded data set to a judged model, command by command, on small data.

``python Testing/training_walkthrough.py --layout lits --to FOLDER`` lays out invented CTs (with ``--data
../shared/data``: also real ones, and bodies around real label maps) as LiTS or MSD, and runs what docs/training.md
says: check, split, prepare, locate, refine, segment, evaluate. With ``--quick`` it trains for seconds only.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATIONS = ROOT / "LiverCascadeTraining" / "Resources" / "Configurations"
QUICK = ["--set", "training.steps=60", "--set", "validation.every=30", "--set", "training.checkpoint_every=20"]


def run(*command: str | Path, good: tuple[int, ...] = (0,)) -> None:
    """Runs a command as a user would, and shows it."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    modules = {"livercascade": "LiverCascadeLib.cli", "livercascade-train": "LiverCascadeTrainingLib.cli"}
    if words[0] in modules:
        words = [sys.executable, "-m", modules[words[0]], *words[1:]]
    paths = [str(ROOT / name) for name in ("LiverCascade", "LiverCascadeTraining", "Testing")]
    started = time.perf_counter()
    code = subprocess.run(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}).returncode
    print(f"({time.perf_counter() - started:.0f} s)", flush=True)
    if code not in good:
        raise SystemExit(f"That ended with {code}.")


def walk(to: Path, layout: str, data: Path | None, quick: bool) -> dict:
    """Everything in turn; returns the pooled figures of the evaluation."""
    data_set, cache, runs, split = to / layout, to / "cache", to / "runs", to / "split.json"
    train = "livercascade-train"
    locate, refine = CONFIGURATIONS / "small-locate.yaml", CONFIGURATIONS / "small-refine.yaml"
    changes = QUICK if quick else []
    lay_out = [sys.executable, ROOT / "Testing" / "dataset_layouts.py", "--to", data_set, "--layout", layout]
    lay_out += ["--data", data] if data else []
    run(*lay_out, "--bodies", "6" if quick else "10", "--step", "2" if quick else "1")

    run(train, "check", data_set, "-o", to / "report", good=(0, 2))
    run(train, "split", data_set, "-o", split, "--scheme", "60/20/20", "--report", to / "report" / "data-check.json")
    run(train, "prepare", data_set, "--cache", cache, "--config", locate, refine, "--split", split)
    common = ["--run", runs, "--cache", cache, "--split", split, *changes]
    run(train, "locate", locate, *common)
    run(
        train, "prepare", data_set, "--cache", cache, "--config", refine, "--split", split, "--locate", runs / "locate"
    )
    run(train, "refine", refine, *common)

    fold = json.loads(split.read_text())["folds"][0]
    cts, truth = test_files(data_set, fold["test"], to / "test")
    for ct in cts:
        name = ct.name.split(".")[0]
        run("livercascade", "segment", ct, "-o", to / "results" / name, "--model", runs, "--quiet")
    run(train, "evaluate", "--pred", to / "results", "--ref", truth, "-o", to / "evaluation")
    return json.loads((to / "evaluation" / "pooled.json").read_text())


def test_files(data_set: Path, names: list[str], to: Path) -> tuple[list[Path], Path]:
    """CTs and label maps of the test part, under the names of their cases."""
    from LiverCascadeTrainingLib.data.layouts import find_studies

    (to / "ct").mkdir(parents=True, exist_ok=True)
    (to / "truth").mkdir(exist_ok=True)
    cts = []
    for study in find_studies(data_set):
        if study.name in names:
            cts.append(link(study.image, to / "ct" / f"{study.name}{''.join(study.image.suffixes)}"))
            link(study.label, to / "truth" / f"{study.name}{''.join(study.label.suffixes)}")
    return cts, to / "truth"


def link(path: Path, name: Path) -> Path:
    """A file under another name."""
    if not name.exists():
        os.link(path, name)
    return name


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--layout", choices=("lits", "msd"), default="lits")
    parser.add_argument("--data", type=Path, help="folder with label maps and real CTs; without it, formulas only")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes of training")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    walk(options.to, options.layout, options.data, options.quick)
    print(f"\nEverything ran, in {time.perf_counter() - started:.0f} s; the page is in {options.to / 'evaluation'}.")


if __name__ == "__main__":
    main()
