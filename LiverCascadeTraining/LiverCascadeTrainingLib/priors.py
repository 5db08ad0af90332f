"""What the refine network is told of the liver: imitations of a locate network, and a trained one at work."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from LiverCascadeLib.cascade import Options, locate_liver
from LiverCascadeLib.channels import blur, liver_density
from LiverCascadeLib.geometry import Grid
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.stages import Stage
from LiverCascadeLib.volume import Volume

from .cases import AIR_HU, Case
from .looks import LEAST_PARENCHYMA, LESION, SampleSpec, look_up, offsets, parenchyma_of, scan_of
from .painting import torch_noise


def imitate_prior(
    target: torch.Tensor, spec: SampleSpec, rng: np.random.Generator, generator: torch.Generator, gentle: bool = False
) -> torch.Tensor:
    """A liver probability such as a locate network at 3 mm gives: blurred, with wrong edges, holes and leaks.

    The errors must be as large as real ones: a refine network that never saw a wrong edge copies the edges of the
    locate network, and takes what lies between a leak and the true surface for lesions.

    Args:
        target: sample target [k, j, i].
        gentle: edges that are off by a millimeter only.

    Returns:
        float32 [k, j, i] in 0…1.
    """
    spacing, shape = spec.spacing_mm[::-1], tuple(target.shape)
    width = float(rng.uniform(2.0, 4.5))
    soft = target.gt(0).float()
    if rng.random() < 0.5:  # locate networks tend to leave large lesions out
        soft = soft - float(rng.uniform(0, 0.8)) * target.eq(LESION).float()
    soft = blur(soft, tuple(width / s for s in spacing))
    shift, wobble = (0.08, 2.0) if gentle else (0.16, 3.5)
    error = torch_noise(shape, float(rng.uniform(12, 40)) / max(spacing), generator)
    logits = (soft - float(rng.normal(0.5, shift))) * float(rng.uniform(8, 18)) + float(rng.uniform(0, wobble)) * error
    if not gentle:
        for _ in range(int(rng.poisson(1.0))):
            logits = logits + _blob(shape, spacing, rng)
    return torch.sigmoid(logits)


def _blob(shape: tuple[int, int, int], spacing: Sequence[float], rng: np.random.Generator) -> torch.Tensor:
    """A leak or a hole somewhere in the patch: a smooth hill or dale of a few centimeters, in logits."""
    center = [(float(rng.uniform(-0.5, 0.5)) * n * s) for n, s in zip(shape, spacing, strict=True)]
    distance = (offsets(shape, spacing) - torch.tensor(center)).norm(dim=-1)
    height = float(rng.choice([-1, 1]) * rng.uniform(4, 12))
    return height * torch.exp(-0.5 * (distance / float(rng.uniform(5, 16))) ** 2)


def density_in_patch(hu: torch.Tensor, target: torch.Tensor, prior: torch.Tensor, rng: np.random.Generator) -> float:
    """The liver's density in HU, as the engine would find it in the whole liver, which a patch does not show.

    A lesion that fills the patch is not the liver's density, so known parenchyma counts first. What is found differs
    by a few HU from what the engine finds.

    Args:
        hu: of the patch, float32 [k, j, i].
        target: of the patch, as in :class:`.samples.SampleSet`.
        prior: located liver probability of the patch.
    """
    parenchyma = parenchyma_of(target)
    liver = parenchyma if int(parenchyma.sum()) >= LEAST_PARENCHYMA else prior > 0.5
    return liver_density(hu, liver) + float(rng.normal(0, 5))


class PriorBank:
    """What a trained locate network gives on the training cases, in several looks of each.

    A locate network errs in its own way: over the heart, along the vena cava, around lesions. An imitation does not
    know where. The bank is made once, by :meth:`fill`, and kept as files.

    Args:
        folder: where the files are.
        spacing_mm: of the locate network's grid, along (k, j, i).
    """

    def __init__(self, folder: Path, spacing_mm: Sequence[float]):
        self.folder, self.spacing = Path(folder), np.array(spacing_mm, dtype=float)
        self._files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.glob("*.npy")):
            self._files.setdefault(path.stem.rsplit("@", 1)[0], []).append(path)

    @classmethod
    def fill(
        cls, folder: Path, cases: Sequence[Case], stage: Stage, spec: SampleSpec, variants: int, seed: int
    ) -> PriorBank:
        """Makes what is missing: ``variants`` looks of each synthetic case, four times as many of each real one.

        Args:
            folder: where the files go.
            cases: the prepared cases.
            stage: the locate network.
            spec: of the refine samples: the looks are painted from the same ranges.
            variants: looks of a case.
            seed: of everything random.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        coarse = dataclasses.replace(spec, spacing_mm=stage.manifest.spacing_mm)
        for case in cases:
            for look in range(variants * (4 if case.kind == "real" else 1)):
                path = folder / f"{case.name}@{look}.npy"
                if path.exists():
                    continue
                rng = np.random.default_rng([seed, zlib.crc32(case.name.encode()), look])
                generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
                probability = _located(case, stage, coarse, rng, generator)
                np.save(path.with_suffix(".part.npy"), probability)
                path.with_suffix(".part.npy").rename(path)
        return cls(folder, stage.manifest.spacing_mm[::-1])

    def knows(self, case: Case) -> bool:
        """Whether there is a look of ``case``."""
        return case.name in self._files

    def prior(
        self,
        case: Case,
        position: torch.Tensor,
        target: torch.Tensor,
        spec: SampleSpec,
        rng: np.random.Generator,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """The prior of a patch, from one of the looks of its case.

        Args:
            case: where the patch comes from.
            position: of the patch's voxels, in voxels of the case, float32 [k, j, i, 3].
            target: sample target [k, j, i]; lesions that the look did not have may leave a hole.

        Returns:
            float32 [k, j, i] in 0…1.
        """
        files = self._files[case.name]
        look = np.load(files[int(rng.integers(len(files)))], mmap_mode="r")
        scale = torch.from_numpy((np.array(case.spacing) / self.spacing).astype(np.float32))
        probability = look_up(look, position * scale)
        logits = torch.logit(probability.clamp(0.001, 0.999))
        spacing, shape = spec.spacing_mm[::-1], tuple(target.shape)
        errors = spec.located_errors
        logits = logits + float(rng.normal(0, 0.8 * errors))
        if rng.random() < 0.5 * errors:
            hole = blur(target.eq(LESION).float(), tuple(3.0 / s for s in spacing))
            logits = logits - float(rng.uniform(0, 8)) * hole
        if rng.random() < 0.5 * errors:
            error = torch_noise(shape, float(rng.uniform(12, 40)) / max(spacing), generator)
            logits = logits + float(rng.uniform(0, 2.0)) * error
        if rng.random() < 0.3 * errors:
            logits = logits + _blob(shape, spacing, rng)
        return torch.sigmoid(logits)


def _located(case: Case, stage: Stage, spec: SampleSpec, rng, generator) -> np.ndarray:
    """The locate network's probability on one look of the whole case: float16 [k, j, i]."""
    spacing = spec.spacing_mm[::-1]
    shape = [max(2, int(np.ceil(n * s / t))) for n, s, t in zip(case.image.shape, case.spacing, spacing, strict=True)]
    axes = [torch.arange(n) * (t / s) for n, t, s in zip(shape, spacing, case.spacing, strict=True)]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).float()
    hu, _ = scan_of(case, position, spec, rng, generator)
    grid = Grid(tuple(shape[::-1]), np.diag([*spec.spacing_mm, 1.0]))
    array = hu.round().clamp(AIR_HU, 3071).to(torch.int16).numpy()
    located = locate_liver(Volume(array, grid, case.name), stage, Options(), Progress())
    if located is None:
        return np.zeros(shape, np.float16)
    return located.probability.numpy().astype(np.float16)
