"""Pixel values on their way in and out: to int16 without a float copy of the volume, without noise on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .findings import Finding, Severity

if TYPE_CHECKING:
    import SimpleITK as sitk

INT16 = np.iinfo(np.int16)


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keeps ITK's own warnings off the terminal: what matters is said in findings and errors."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


class _OwnedPixels:
    """An array interface that keeps the image alive whose pixels it shows."""

    def __init__(self, image: sitk.Image):
        import SimpleITK as sitk

        view = sitk.GetArrayViewFromImage(image)
        # Nobody else holds the image, so its pixels may be written; PyTorch warns about arrays that are read-only.
        self.__array_interface__ = {**view.__array_interface__, "data": (view.ctypes.data, False)}
        self.image = image


def array_of(image: sitk.Image) -> np.ndarray:
    """The pixels of ``image`` [k, j, i] without a copy. The image must not be changed any more."""
    return np.asarray(_OwnedPixels(image))


def check_one_volume(path: Path, size: Sequence[int]) -> None:
    """Checks that ``size``, (i, j, k, …) voxels as the header of ``path`` says, is that of one 3D volume.

    Raises:
        InputError: a single slice, or a series of volumes.
    """
    shown = "×".join(map(str, size))
    if len(size) > 3 and max(size[3:]) > 1:
        raise InputError(
            f"{path} is {len(size)}D ({shown}), a series of volumes or a vector image; one 3D volume is expected. "
            "Extract one volume and pass that."
        )
    if len(size) < 3 or min(size[:3]) < 2:
        raise InputError(f"{path} is a single slice ({shown}); a 3D volume is expected.")


def allocated(shape: tuple[int, int, int], dtype: np.dtype, what: str) -> np.ndarray:
    """An array [k, j, i] for the voxels of the input called ``what``.

    Raises:
        InputError: there is not enough memory for it.
    """
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{what} claims to hold {shape[2]}×{shape[1]}×{shape[0]} voxels, which do not fit into memory. "
            "Check that the file is intact, or crop the volume to the abdomen."
        ) from error


class Int16Sink:
    """Collects a volume slab by slab as int16 and keeps account of what does not fit.

    Args:
        shape: (k, j, i) of the volume.
        what: how the input is called in messages, such as its path.

    Raises:
        InputError: there is not enough memory for the volume.
    """

    def __init__(self, shape: tuple[int, int, int], what: str):
        self.what = what
        self.not_finite = 0
        self.clipped = 0
        self.low, self.high = float("inf"), float("-inf")
        self.array = allocated(shape, np.dtype(np.int16), what)

    def put(self, start: int, slab: np.ndarray) -> None:
        """Stores ``slab`` [n, j, i], of any real type, at slices ``start`` … ``start`` + n - 1."""
        target = self.array[start : start + len(slab)]
        if slab.dtype.kind == "f":
            finite = np.isfinite(slab)
            bad = slab.size - int(np.count_nonzero(finite))
            if bad:
                self.not_finite += bad
                slab = np.where(finite, slab, 0)
            slab = np.rint(slab)
        if np.can_cast(slab.dtype, np.int16):
            target[...] = slab
            return
        low, high = slab.min(), slab.max()
        if low < INT16.min or high > INT16.max:
            self.clipped += int(np.count_nonzero((slab < INT16.min) | (slab > INT16.max)))
            self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
            slab = np.clip(slab, INT16.min, INT16.max)
        target[...] = slab

    def finish(self) -> tuple[np.ndarray, tuple[Finding, ...]]:
        """The whole array, and what was noticed.

        Raises:
            InputError: some voxels were NaN or infinite.
        """
        if self.not_finite:
            share = 100 * self.not_finite / self.array.size
            raise InputError(
                f"{self.what} holds {self.not_finite} voxels ({share:.2g} %) that are not numbers (NaN or infinite); "
                "every voxel must have a CT number. Replace them, for example by -1024 (air), and try again."
            )
        if not self.clipped:
            return self.array, ()
        text = (
            f"{self.clipped} voxels lay outside {INT16.min} … {INT16.max} (the input goes from {self.low:.6g} to "
            f"{self.high:.6g}) and were set to these limits. CT numbers of tissue are far inside them."
        )
        return self.array, (Finding("clipped-values", Severity.INFO, text),)


def write_raw(path: Path, array: np.ndarray) -> None:
    """Writes the bare values of ``array``. NumPy's own writers do not tell a full disk from other errors."""
    with path.open("wb") as stream:
        for part in array:  # one by one: a flipped volume is not copied as a whole
            stream.write(np.ascontiguousarray(part).data)
