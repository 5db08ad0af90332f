"""Pictures of a validation case: contours on CT, as a still and as an animated sweep through the slices."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.cache import CachedCase
from ..data.layouts import LESION

SWEEP_SLICES = 24
# Truth light, what was found strong.
COLORS = {
    "true liver": (120, 200, 255),
    "true lesion": (255, 190, 120),
    "liver": (0, 110, 255),
    "lesion": (230, 30, 30),
}


def edges(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask [j, i] that touch what is outside it."""
    inner = mask.copy()
    for axis in (0, 1):
        for shift in (1, -1):
            inner &= np.roll(mask, shift, axis)
    return mask & ~inner


def slice_picture(hu: np.ndarray, found: np.ndarray, true: np.ndarray, window_hu: Sequence[float]) -> np.ndarray:
    """One axial slice with contours, uint8 [rows, columns, 3] as radiologists see it: right is left, front is up.

    Args:
        hu, found, true: [j, i], axes along A and R.
        window_hu: of the gray values.
    """
    low, high = window_hu
    gray = (np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    picture = np.repeat(gray[..., None], 3, axis=-1)
    for labels, prefix in ((true, "true "), (found, "")):
        picture[edges(labels > 0)] = COLORS[f"{prefix}liver"]
        picture[edges(labels == LESION)] = COLORS[f"{prefix}lesion"]
    return np.ascontiguousarray(picture[::-1, ::-1])


def slices_of(case: CachedCase, found: np.ndarray, window_hu: Sequence[float]) -> np.ndarray:
    """Pictures of evenly chosen slices through the liver, from below upward, uint8 [n, rows, columns, 3]."""
    true = np.array(case.labels)
    there = np.flatnonzero(true.any(axis=(1, 2)))
    low, high = (int(there[0]), int(there[-1])) if len(there) else (0, len(true) - 1)
    chosen = np.unique(np.linspace(low, high, min(SWEEP_SLICES, high - low + 1)).round().astype(int))
    return np.stack([slice_picture(case.image[k], found[k], true[k], window_hu) for k in chosen])


def grid_picture(pictures: np.ndarray, count: int = 6) -> np.ndarray:
    """Some of the pictures side by side, in two rows, uint8 [rows, columns, 3]."""
    chosen = pictures[np.linspace(0, len(pictures) - 1, count).round().astype(int)]
    half = count // 2
    return np.concatenate([np.concatenate(list(part), axis=1) for part in (chosen[:half], chosen[half:])], axis=0)


def animated(pictures: np.ndarray, milliseconds: int = 120) -> bytes:
    """The pictures as an animated GIF, up and down again."""
    from PIL import Image

    frames = [Image.fromarray(picture) for picture in [*pictures, *pictures[-2:0:-1]]]
    frames = [frame.quantize(64) for frame in frames]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return stream.getvalue()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and moves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def add_animation(writer, tag: str, gif: bytes, shape: Sequence[int], step: int) -> None:
    """Shows an animated GIF in TensorBoard, whose page plays it as it is.

    Args:
        writer: a SummaryWriter.
        tag: its name there.
        gif: the file.
        shape: (rows, columns, 3).
        step: of the run.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(height=shape[0], width=shape[1], colorspace=3, encoded_image_string=gif)
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
