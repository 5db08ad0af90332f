"""A worker that needs no networks: speaks the worker's protocol and behaves well or badly, as its argument says.

``python fake_worker.py BEHAVIOR``, with one of: ``finds`` (liver and lesions by thresholds, within a second),
``finds-none``, ``slow`` (works until it is cancelled), ``deaf`` (works and does not listen), ``crashes``,
``out-of-memory``, ``lacks-package``, ``prints`` (crashes with last words), ``has-children`` (as deaf, behind a
launcher as PythonSlicer is one).
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
from analytic_bodies import result_from_masks
from LiverCascadeLib.findings import Finding, Severity
from LiverCascadeLib.geometry import Box
from LiverCascadeLib.jobs import JobFolder
from LiverCascadeLib.result import Uncertainty
from scipy import ndimage

STAGES = ("check", "locate", "refine", "fuse", "clean")


def tell(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}, default=str), flush=True)


def read_commands(commands: queue.Queue) -> None:
    for line in sys.stdin:
        commands.put(json.loads(line))
    os._exit(0)


def found(folder: str, nothing: bool, uncertain: bool) -> dict:
    job = JobFolder(folder)
    volume = job.read_volume()
    liver = (volume.array > 40) & (volume.array < 150) & (not nothing)
    numbers, count = ndimage.label(liver & (volume.array < 80))
    masks = sorted((numbers == n for n in range(1, count + 1)), key=np.count_nonzero, reverse=True)
    result = result_from_masks(volume.grid, liver, masks)
    if uncertain:
        box = Box((2, 2, 2), (6, 5, 4))
        result = replace(result, uncertainty=Uncertainty(np.full((2, 3, 4), 99, np.uint8), box))
    fields = job.write_result(result)
    if nothing:
        finding = Finding("no-liver", Severity.WARNING, "No liver was found: nothing on this scan looks like one.")
        fields["findings"] = [finding.as_dict()]
    return {**fields, "timings": {stage: 0.1 for stage in STAGES}, "provenance": {"models": []}}


def work(behavior: str, job: dict, commands: queue.Queue) -> None:
    for stage in STAGES:
        for step in range(5):
            tell("progress", id=job["id"], stage=stage, fraction=step / 5)
            time.sleep(0.01)
            if behavior in ("slow", "deaf", "has-children") and stage == "refine":
                while behavior != "slow" or commands.empty():
                    time.sleep(0.01)
            if not commands.empty() and commands.get()["command"] == "cancel":
                return tell("cancelled", id=job["id"])
        if stage == "refine" and behavior in ("crashes", "prints"):
            if behavior == "prints":
                print("Fatal: the network fell over", file=sys.stderr, flush=True)
            os._exit(139)
        if stage == "refine" and behavior == "out-of-memory":
            text = "The computer's memory is not enough for this volume."
            return tell("error", id=job["id"], kind="resources", message=text, exit_code=4)
        if stage == "refine" and behavior == "lacks-package":
            return tell("error", id=job["id"], kind="missing-package", message="MONAI is missing.", exit_code=4)
    tell("done", id=job["id"], **found(job["folder"], behavior == "finds-none", job["options"]["uncertainty"]))
    return None


def main() -> None:
    behavior = sys.argv[1]
    if behavior == "has-children":
        # As a launcher: the work is done by a child on the same pipes.
        sys.exit(subprocess.call([sys.executable, __file__, "deaf"]))
    commands: queue.Queue = queue.Queue()
    threading.Thread(target=read_commands, args=(commands,), daemon=True).start()
    tell("ready", version="0", pid=os.getpid())
    tell("log", message="fake worker")
    while True:
        job = commands.get()
        if job["command"] == "run":
            work(behavior, job, commands)
        elif job["command"] == "quit":
            return


if __name__ == "__main__":
    main()
