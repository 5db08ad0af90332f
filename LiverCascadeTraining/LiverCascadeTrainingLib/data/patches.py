"""Samples for the networks: a function of the seed and a number, read from prepared cases without loading volumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from LiverCascadeLib.channels import INPUTS, liver_contrast
from LiverCascadeLib.errors import InputError

from ..lesions import LesionRanges, add_lesions
from ..looks import SampleSpec
from ..priors import density_in_patch, imitate_prior
from .augmentation import (
    AugmentationSpec,
    Look,
    change_values,
    draw_look,
    look_up,
    reach,
    sampling_grid,
    windowed,
)
from .cache import AIR_HU, PRIOR, Cache, CachedCase
from .layouts import GROUPS, LESION
from .sampling import Sampler, SamplingSpec

KINDS = ("3d", "2.5d", "2d")
PRIORS = ("imitated", "located", "mixed")
# A locate network works at about this spacing: its imitation need not be finer.
_PRIOR_MM = 3.0


@dataclass(frozen=True)
class PatchSpec:
    """What a sample looks like.

    Attributes:
        patch_size: voxels along (R, A, S); the last is 1 for '2d' and '2.5d'.
        inputs: 'ct', and for refine networks 'liver_probability' and, by choice, 'liver_contrast'.
        window_hu: clipped to and scaled to 0…1.
        kind: '3d' gives [c, k, j, i]; '2d' one axial slice [c, j, i]; '2.5d' a stack of axial slices as channels,
            [c · stack, j, i], all slices of the first input, then all of the second.
        stack: slices of '2.5d', odd; the target is that of the middle one.
        sampling: where patches are taken.
        augmentation: how they are changed.
        synthetic_chance: of synthetic lesions in patches with healthy liver, where lesions are labeled.
        lesions: what these are drawn from.
        prior: where 'liver_probability' comes from: 'imitated' from the labels, 'located' by a network
            (:func:`.cache.add_priors`), or either ('mixed').
        gentle_prior_until: up to this sample number imitated priors are nearly right.
        couinaud: samples also hold the Couinaud segments, under 'couinaud'.
    """

    patch_size: tuple[int, int, int]
    inputs: tuple[str, ...] = ("ct",)
    window_hu: tuple[float, float] = (-175.0, 250.0)
    kind: str = "3d"
    stack: int = 5
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    synthetic_chance: float = 0.0
    lesions: LesionRanges = field(default_factory=LesionRanges)
    prior: str = "imitated"
    gentle_prior_until: int = 0
    couinaud: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"The kind of patch {self.kind!r} is not known: {', '.join(KINDS)}.")
        if len(self.patch_size) != 3 or min(self.patch_size) < 1:
            raise InputError(f"patch_size is {self.patch_size!r}; expected three positive numbers along R, A, S.")
        if self.kind != "3d" and self.patch_size[2] != 1:
            raise InputError(f"A {self.kind} patch has one slice along S, not {self.patch_size[2]}.")
        if self.kind == "2.5d" and (self.stack < 3 or self.stack % 2 == 0):
            raise InputError(f"stack is {self.stack}; expected an odd number of slices, 3 or more.")
        if self.inputs[:1] != ("ct",) or any(name not in INPUTS for name in self.inputs):
            raise InputError(f"inputs is {self.inputs!r}; expected 'ct', and by choice more of {', '.join(INPUTS)}.")
        if "liver_contrast" in self.inputs and "liver_probability" not in self.inputs:
            raise InputError("inputs has 'liver_contrast' without 'liver_probability', which says where the liver is.")
        if self.prior not in PRIORS:
            raise InputError(f"prior is {self.prior!r}; expected one of {', '.join(PRIORS)}.")
        if self.window_hu[0] >= self.window_hu[1]:
            raise InputError(f"window_hu is {self.window_hu!r}; expected two rising numbers.")
        if not 0 <= self.synthetic_chance <= 1:
            raise InputError(f"synthetic_chance is {self.synthetic_chance}; expected a chance from 0 to 1.")

    @property
    def block_size(self) -> tuple[int, int, int]:
        """Voxels that a sample covers, slices of a stack included, along (k, j, i)."""
        r, a, s = self.patch_size
        return (self.stack if self.kind == "2.5d" else s, a, r)

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return len(self.inputs) * (self.stack if self.kind == "2.5d" else 1)


@dataclass
class RawSample:
    """A sample before its look: what was read from the case, and everything random about it.

    Attributes:
        name: of the case.
        number: of the sample.
        image: int16 or float32 HU [k, j, i], a block around the patch.
        labels: uint8 [k, j, i]; zeros where the case has none.
        origin: the block's first voxel in the case, (k, j, i); may lie before the case.
        center: where the patch's middle lies in the block, voxels (k, j, i).
        look: what happens to it.
        known: label groups that the case knows.
        kind: the class that the place was chosen for.
        couinaud, prior: uint8 [k, j, i], or None.
    """

    name: str
    number: int
    image: np.ndarray
    labels: np.ndarray
    origin: np.ndarray
    center: np.ndarray
    look: Look
    known: dict[str, bool]
    kind: str
    couinaud: np.ndarray | None = None
    prior: np.ndarray | None = None


class PatchDataset(torch.utils.data.Dataset):
    """Samples of prepared cases; item n depends on the seed and n alone.

    Items are dicts: ``image`` float32 [c, k, j, i] ([c, j, i] for '2d' and '2.5d'), ``target`` uint8 [k, j, i] (or
    [j, i]) with 0 background, 1 liver, 2 lesion, ``known`` {'liver', 'lesion', 'couinaud': bool tensor}, ``name``,
    ``number``, and ``couinaud`` uint8 where the spec asks for it. With ``raw`` they are :class:`RawSample`, to be
    collated by ``list`` and finished by :class:`Finisher` on the device of the network.

    Args:
        cache: prepared cases, or its folder.
        names: which of them.
        spec: what a sample looks like.
        seed: of everything random.
        length: number of samples.
        raw: leave the look to a :class:`Finisher` of the caller.

    Raises:
        InputError: a case is not there, was altered, or has not what the spec needs.
    """

    def __init__(
        self,
        cache: Cache,
        names: Iterable[str],
        spec: PatchSpec,
        seed: int,
        length: int = 2**31 - 1,
        raw: bool = False,
    ):
        self.cache = cache if isinstance(cache, Cache) else Cache(cache)
        self.spec, self.seed, self.length, self.raw = spec, seed, length, raw
        self.cases: list[CachedCase] = [self.cache.case(name) for name in names]
        self._check()
        self.sampler = Sampler(self.cases, spec.sampling)
        self._spacing = self.cache.spacing_mm[::-1]
        self.finisher = Finisher(spec, self.cache.spacing_mm)

    def _check(self) -> None:
        wrong = self.cache.verify([case.name for case in self.cases])
        if wrong:
            shown = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in wrong.items())
            raise InputError(f"The prepared cases in {self.cache.folder} are damaged ({shown}). Prepare again.")
        if "liver_probability" in self.spec.inputs and self.spec.prior == "located":
            bare = [case.name for case in self.cases if not case.has(PRIOR)]
            if bare:
                raise InputError(f"No located probability was added to {', '.join(bare)}. Add it, or imitate it.")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Any] | RawSample:
        if not 0 <= number < self.length:
            raise IndexError(number)
        sample = self.read(number)
        if self.raw:
            return sample
        batch = self.finisher([sample])
        return {
            key: value[0] if key != "known" else {k: v[0] for k, v in value.items()} for key, value in batch.items()
        }

    def read(self, number: int) -> RawSample:
        """Sample ``number`` before its look."""
        rng = np.random.default_rng([self.seed, number])
        spec, size = self.spec, self.spec.block_size
        place = self.sampler.draw(rng)
        case = self.cases[place.case]
        look = draw_look(spec.augmentation, size, self._spacing, rng, spec.kind != "3d")
        middle = _middle(place.center, case.shape, size, spec.sampling.jitter, rng, spec.kind != "3d")
        far = reach(look, size, self._spacing)
        low = np.floor(middle - far).astype(int)
        high = np.ceil(middle + far).astype(int) + 1
        flat = spec.kind != "3d"
        image = cut_out(case.image, low, high, AIR_HU, flat)
        labels = np.zeros(image.shape, np.uint8) if case.labels is None else cut_out(case.labels, low, high, 0, flat)
        prior = self._prior(case, low, high, rng)
        if spec.synthetic_chance and rng.random() < spec.synthetic_chance and case.known["lesion"]:
            image, labels = self._with_lesions(image, labels, rng)
        couinaud = None
        if spec.couinaud and case.couinaud is not None:
            couinaud = cut_out(case.couinaud, low, high, 0, flat)
        known = {group: bool(case.known[group]) for group in GROUPS}
        return RawSample(
            name=case.name,
            number=number,
            image=image,
            labels=labels,
            origin=low,
            center=middle - low,
            look=look,
            known=known,
            kind=place.kind,
            couinaud=couinaud,
            prior=prior,
        )

    def _prior(self, case: CachedCase, low, high, rng: np.random.Generator) -> np.ndarray | None:
        """The block of a located probability, where this sample takes one."""
        if "liver_probability" not in self.spec.inputs or self.spec.prior == "imitated":
            return None
        take = rng.random() < 0.5 or self.spec.prior == "located"
        return cut_out(case.prior, low, high, 0, self.spec.kind != "3d") if take and case.has(PRIOR) else None

    def _with_lesions(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator):
        """Synthetic lesions, where the block holds healthy liver only."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        if (labels == LESION).any() or not labels.any():
            return image, labels
        hu, mask = add_lesions(
            torch.from_numpy(image.astype(np.float32)),
            torch.from_numpy(labels > 0),
            self._spacing,
            self.spec.lesions,
            rng,
            generator,
        )
        return hu.numpy(), np.where(mask.numpy(), np.uint8(LESION), labels)


def _middle(
    center: np.ndarray,
    shape: Sequence[int],
    size: Sequence[int],
    jitter: float,
    rng: np.random.Generator,
    flat: bool,
) -> np.ndarray:
    """Where the patch's middle lies, in voxels of the case: near the chosen voxel, the patch inside the case.

    Flat patches keep the chosen slice in their middle; a stack may go on beyond the case, where the outermost slice is
    repeated, as :mod:`LiverCascadeLib.models.slicewise` does.
    """
    size, shape = np.array(size), np.array(shape)
    shift = rng.uniform(-jitter, jitter, 3) * size
    # A patch of even size has its middle between two voxels.
    half = (size - 1) / 2
    start = np.round(center + shift - half)
    limit = shape - size
    inside = np.where(limit >= 0, np.clip(start, 0, np.maximum(limit, 0)), np.round(limit / 2))
    if flat:
        inside[0] = center[0] - half[0]
    return inside + half


def cut_out(array: np.ndarray, low: np.ndarray, high: np.ndarray, outside: int, flat: bool = False) -> np.ndarray:
    """A block of ``array`` [k, j, i] from ``low`` to below ``high``, which may lie beyond it, as a new array.

    Args:
        outside: value beyond the array.
        flat: beyond the first and the last slice these are repeated.
    """
    if flat:
        slices = np.clip(np.arange(int(low[0]), int(high[0])), 0, len(array) - 1)
        part = cut_out(array, (slices[0], *low[1:]), (slices[-1] + 1, *high[1:]), outside)
        return part[slices - slices[0]]
    inner = [slice(max(0, int(a)), max(0, min(n, int(b)))) for a, b, n in zip(low, high, array.shape, strict=True)]
    if all(s.start == a and s.stop == b for s, a, b in zip(inner, low, high, strict=True)):
        return np.array(array[tuple(inner)])
    block = np.full([int(b - a) for a, b in zip(low, high, strict=True)], outside, array.dtype)
    if all(s.start < s.stop for s in inner):
        where = tuple(slice(s.start - int(a), s.stop - int(a)) for s, a in zip(inner, low, strict=True))
        block[where] = array[tuple(inner)]
    return block


class Finisher:
    """Makes network inputs of raw samples, a batch at a time, on a device.

    Args:
        spec: as for the data set.
        spacing_mm: of the cases, along (R, A, S).
        device: where to compute, and where the batch is afterwards.
    """

    def __init__(self, spec: PatchSpec, spacing_mm: Sequence[float], device: torch.device | str = "cpu"):
        self.spec, self.device = spec, torch.device(device)
        self._spacing = tuple(float(s) for s in spacing_mm[::-1])

    def __call__(self, samples: Sequence[RawSample]) -> dict[str, Any]:
        """A batch of what :class:`PatchDataset` gives: the same keys, tensors with one more dimension."""
        spec = self.spec
        looks = [sample.look for sample in samples]
        straight = all(look.is_straight for look in looks)
        where = None if straight else self._positions(samples, looks)
        hu = self._moved([s.image for s in samples], samples, where, AIR_HU)
        target = self._moved([s.labels for s in samples], samples, where, 0, nearest=True).to(torch.uint8)
        self._cut(hu, target, looks)
        hu = change_values(hu, looks, self._spacing)
        channels = {}
        if "liver_probability" in spec.inputs:
            channels["liver_probability"] = self._priors(samples, target, where)
        if "liver_contrast" in spec.inputs:
            channels["liver_contrast"] = self._contrasts(hu, target, channels["liver_probability"], looks)
        channels["ct"] = windowed(hu, spec.window_hu, looks)
        image = torch.stack([channels[name] for name in spec.inputs], dim=1)
        batch: dict[str, Any] = {"image": image, "target": target}
        if spec.couinaud:
            blocks = [np.zeros_like(s.labels) if s.couinaud is None else s.couinaud for s in samples]
            batch["couinaud"] = self._moved(blocks, samples, where, 0, nearest=True).to(torch.uint8)
            self._cut(None, batch["couinaud"], looks)
        if spec.kind != "3d":
            middle = target.shape[1] // 2
            batch = {key: value.flatten(1, 2) if key == "image" else value[:, middle] for key, value in batch.items()}
        known = {group: torch.tensor([s.known[group] for s in samples], device=self.device) for group in GROUPS}
        numbers = torch.tensor([s.number for s in samples])
        return {**batch, "known": known, "name": [s.name for s in samples], "number": numbers}

    def _positions(self, samples: Sequence[RawSample], looks: Sequence[Look]) -> torch.Tensor:
        centers = torch.from_numpy(np.stack([sample.center for sample in samples]))
        shape = np.max([sample.image.shape for sample in samples], axis=0)
        return sampling_grid(looks, centers, self.spec.block_size, self._spacing, shape, self.device)

    def _moved(
        self,
        blocks: Sequence[np.ndarray],
        samples: Sequence[RawSample],
        where: torch.Tensor | None,
        outside: float,
        nearest: bool = False,
        everything: Sequence[RawSample] | None = None,
    ) -> torch.Tensor:
        """The patches of blocks: float32 [n, k, j, i]; ``everything`` is the batch that ``where`` was made for."""
        size = self.spec.block_size
        if where is None:
            half = (np.array(size) - 1) / 2
            parts = []
            for block, sample in zip(blocks, samples, strict=True):
                start = np.round(sample.center - half).astype(int)
                parts.append(cut_out(block, start, start + size, int(outside)))
            return torch.from_numpy(np.stack(parts)).to(self.device).float()
        largest = np.max([sample.image.shape for sample in everything or samples], axis=0)
        # Blocks differ in size; nothing is looked up where they are filled up.
        stacked = torch.full((len(blocks), 1, *largest.tolist()), float(outside), device=self.device)
        for number, block in enumerate(blocks):
            inner = tuple(slice(0, n) for n in block.shape)
            stacked[number, 0][inner] = torch.from_numpy(block).to(self.device).float()
        return look_up(stacked, where, nearest)[:, 0]

    @staticmethod
    def _cut(hu: torch.Tensor | None, target: torch.Tensor, looks: Sequence[Look]) -> None:
        """The scan begins or ends inside the patch: air there, and nothing labeled."""
        for number, look in enumerate(looks):
            if look.cut:
                part = slice(0, look.cut) if look.cut > 0 else slice(look.cut, None)
                target[number, part] = 0
                if hu is not None:
                    hu[number, part] = AIR_HU

    def _contrasts(
        self, hu: torch.Tensor, target: torch.Tensor, priors: torch.Tensor, looks: Sequence[Look]
    ) -> torch.Tensor:
        """Densities around each liver's own: float32 [n, k, j, i]."""
        rngs = [np.random.default_rng([look.seed, 1]) for look in looks]
        shown = zip(hu, target, priors, rngs, strict=True)
        return torch.stack([liver_contrast(one, density_in_patch(one, *rest), self._spacing) for one, *rest in shown])

    def _priors(self, samples: Sequence[RawSample], target: torch.Tensor, where: torch.Tensor | None) -> torch.Tensor:
        """The second channel of each sample, located or imitated: float32 [n, k, j, i]."""
        result = torch.empty(target.shape, device=self.device)
        for number, sample in enumerate(samples):
            if sample.prior is not None:
                own = None if where is None else where[number : number + 1]
                result[number] = self._moved([sample.prior], [sample], own, 0, everything=samples)[0] / 255
                self._cut(None, result[number : number + 1], [sample.look])
            else:
                result[number] = self._imitated(sample, target[number])
        return result

    def _imitated(self, sample: RawSample, target: torch.Tensor) -> torch.Tensor:
        """An imitated prior, made at about the spacing of a locate network and interpolated."""
        rng = np.random.default_rng(sample.look.seed)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        shape = tuple(target.shape)
        factors = [max(1.0, _PRIOR_MM / s) for s in self._spacing]
        small = tuple(max(2, round(n / f)) if n > 1 else 1 for n, f in zip(shape, factors, strict=True))
        interpolate = torch.nn.functional.interpolate
        coarse = interpolate(target[None, None].float(), size=small, mode="nearest-exact")[0, 0].to("cpu", torch.uint8)
        spacing = tuple(s * n / m for s, n, m in zip(self._spacing, shape, small, strict=True))
        like = SampleSpec(spacing[::-1], small[::-1], self.spec.window_hu, INPUTS[:2], True)
        gentle = sample.number < self.spec.gentle_prior_until
        prior = imitate_prior(coarse, like, rng, generator, gentle).to(self.device)
        return interpolate(prior[None, None], size=shape, mode="trilinear", align_corners=False)[0, 0]
