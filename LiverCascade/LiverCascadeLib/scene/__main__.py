"""The child of :class:`~.process.SceneProcess`: reads messages from stdin, answers with events on stdout."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

import numpy as np

from ..geometry import Box, Grid
from ..pixels import write_raw
from ..report.overview import Rendering
from ..result import Lesion, Result
from ..structures import Structures
from ..volume import Volume
from .process import describe

# It works ahead while the parent reads, locates and refines, and must not slow that down; in the end, when the parent
# waits for it, it has the computer for itself.
_BESIDE = 5


class _Events:
    """The channel to the parent. Whatever else prints to stdout, libraries included, goes to stderr from now on."""

    def __init__(self) -> None:
        self._stream: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, event: str, **fields: object) -> None:
        print(json.dumps({"event": event, **fields}), file=self._stream, flush=True)


def _read_volume(message: dict, scratch: Path) -> Volume:
    grid = Grid(message["size"], message["ijk_to_ras"])
    array = np.memmap(scratch / "volume.raw", dtype=np.int16, mode="r+", shape=grid.shape)
    return Volume(array, grid, message["name"])


def _read_result(message: dict, volume: Volume, scratch: Path) -> Result:
    """As much of the result as a segmentation needs: labels, and the ids of the lesions."""
    if message["box"] is None:
        labels, box = np.zeros(volume.grid.shape, np.uint8), None
    else:
        box = Box(*[tuple(corner) for corner in message["box"]])
        crop = np.fromfile(scratch / "labels.raw", message["dtype"]).reshape(box.size[::-1])
        labels = np.zeros(volume.grid.shape, crop.dtype)  # its untouched pages cost no memory
        labels[box.slices] = crop
    lesions = tuple(Lesion(n, 0, 0.0, (0.0, 0.0, 0.0), box) for n in message["lesions"])
    known = message["structures"]
    structures = None if known is None else Structures.read(scratch, known)
    return Result(volume, labels, lesions, message["liver_volume_ml"], structures=structures)


def _draw(scene, segmentationNode) -> Rendering:
    from . import render3D

    try:
        return render3D(scene, segmentationNode)
    except Exception as error:  # the files are written: a missing picture must not undo them
        return Rendering(None, f"drawing failed: {error}")


def _serve(scratch: Path, events: _Events) -> None:
    from . import (
        SceneBundle,
        createClosedSurface,
        createScene,
        nodeFromVolume,
        segmentationFromResult,
        showInSliceViews,
    )

    events.tell("ready")
    scene = createScene()
    bundle = SceneBundle(scene, scratch)
    volume = _read_volume(json.loads(sys.stdin.readline())["volume"], scratch)
    volumeNode = nodeFromVolume(volume, scene)
    showInSliceViews(volumeNode, scene)
    bundle.addVolume(volumeNode)
    events.tell("prepared")
    message = json.loads(sys.stdin.readline())["result"]
    result = _read_result(message, volume, scratch)
    segmentationNode = segmentationFromResult(result, scene, volumeNode)
    createClosedSurface(segmentationNode)
    bundle.finish(segmentationNode, Path(message["folder"]))
    events.tell("files")
    rendering = _draw(scene, segmentationNode)
    shape = None
    if rendering.image is not None:
        shape = rendering.image.shape
        write_raw(scratch / "rendering.raw", rendering.image)
    events.tell("rendering", shape=shape, reason=rendering.reason)


def main() -> None:
    """Serves one run."""
    # Ctrl-C reaches the whole terminal group; the parent decides what it means, and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(_BESIDE)
    events = _Events()
    try:
        _serve(Path(sys.argv[1]), events)
    except Exception as error:
        events.tell(**describe(error))


if __name__ == "__main__":
    main()
