"""Pictures of the worst cases beside a model, small enough to be delivered with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.sampling import upright_view

from ..cards import write_card
from ..evaluation.pictures import draw_disagreement

PICTURES = "pictures"
MOST_BYTES = 100_000
COLORS = (96, 48, 24, 12)


@dataclass(frozen=True)
class FailurePicture:
    """A picture for a model's card.

    Attributes:
        file: its name.
        text: what it shows, and of which case.
        data: of a PNG file.
    """

    file: str
    text: str
    data: bytes


def draw_failure(
    file: str, what: str, labels: np.ndarray, truth: np.ndarray, ct: np.ndarray | None, grid: Grid, value: int
) -> FailurePicture:
    """The axial slice of a case in which most is wrong.

    Args:
        file: name of the file.
        what: which case this is.
        labels, truth: found and true labels [k, j, i] on ``grid``: 1 liver, 2 and above lesions.
        ct: HU on ``grid``; None where the voxels must not be shown.
        value: 1 looks at the liver, 2 at lesions.
    """
    arrays = [np.minimum(array, 2).astype(np.uint8) for array in (truth, labels)]
    upright = [np.ascontiguousarray(upright_view(array, grid)[0]) for array in arrays]
    scan = None if ct is None else np.ascontiguousarray(upright_view(ct, grid)[0])
    picture = draw_disagreement(*upright, scan, grid.canonical(), value)
    return FailurePicture(file, f"{what}; {picture.text}", shrunk(picture.data))


def shrunk(data: bytes, most: int = MOST_BYTES) -> bytes:
    """A PNG with as few colors as it takes to stay within ``most`` bytes.

    Raises:
        ValueError: not even the fewest colors do.
    """
    from PIL import Image

    image = Image.open(BytesIO(data)).convert("RGB")
    for colors in COLORS:
        stream = BytesIO()
        image.quantize(colors, dither=Image.Dither.NONE).save(stream, format="png", optimize=True)
        if stream.tell() <= most:
            return stream.getvalue()
    raise ValueError(f"A picture of {image.width} × {image.height} pixels does not fit into {most} bytes.")


def into_model(models: Path, pictures: list[FailurePicture]) -> None:
    """Writes pictures into the folder of the refine model in ``models``, and links them from its card; pictures of the
    same names are replaced, others stay.
    """
    folder = models / "refine"
    manifest = load_manifest(folder)
    texts: Mapping[str, str] = manifest.measured.get(PICTURES, {})
    for picture in pictures:
        (folder / picture.file).write_bytes(picture.data)
    texts = {**texts, **{picture.file: picture.text for picture in pictures}}
    measured = {**manifest.measured, PICTURES: dict(sorted(texts.items()))}
    dataclasses.replace(manifest, measured=measured).save(folder)
    write_card(folder)
