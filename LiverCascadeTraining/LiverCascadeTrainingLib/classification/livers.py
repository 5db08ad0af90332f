"""Livers as the classification sees them: cut from prepared data sets, or made, each with its truth."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from LiverCascadeLib.cascade import Options, locate_liver
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.gate import crop_grid, slices_with_liver
from LiverCascadeLib.geometry import Box, Grid, resample
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.postprocess import components
from LiverCascadeLib.predictor import NetworkPredictor
from LiverCascadeLib.progress import Progress
from LiverCascadeLib.stages import Stage
from LiverCascadeLib.volume import Volume

from ..cases import AIR_HU, Case, load_cases
from ..data.cache import SETTINGS_FILE, Cache, CachedCase
from ..data.splits import PARTS, load_split
from ..looks import LESION, LIVER, SampleSpec, scan_of
from ..priors import imitate_prior
from ..training.sources import DataPlaces
from .config import ClassifyConfig

# About what a locate network works at; imitations of it are made there.
_LOCATE_MM = 3.0


@dataclass(frozen=True, eq=False)
class Liver:
    """A liver's block and its truth.

    Attributes:
        name, patient: whose it is.
        hu: int16 [k, j, i].
        probability: located liver, uint8 [k, j, i] in 1/255.
        judged: slices with enough located liver, bool [k].
        lesion_mm2: area of lesion in each slice, float32 [k], counted where the truth is, inside the mask or not.
        lesion_ml: of the whole liver, as labeled.
        fits: whether the liver is whole in the block.
    """

    name: str
    patient: str
    hu: np.ndarray
    probability: np.ndarray
    judged: np.ndarray
    lesion_mm2: np.ndarray
    lesion_ml: float
    fits: bool

    def slices(self, least_mm2: float) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the judged slices whose truth is clear, and that truth: int [n], bool [n]."""
        clear = self.judged & ((self.lesion_mm2 == 0) | (self.lesion_mm2 >= least_mm2))
        numbers = np.flatnonzero(clear)
        return numbers, self.lesion_mm2[numbers] > 0

    def truth(self, least_ml: float) -> bool | None:
        """Whether it holds lesions; None where there is less than counts."""
        return None if 0 < self.lesion_ml < least_ml else self.lesion_ml > 0


@dataclass(frozen=True)
class LiverSet:
    """The livers of a run by part ('train', 'validation', 'test').

    Attributes:
        parts: by name of the part.
        remarks: what a reader should know: livers that were left out or cut, and where the masks come from.
        fingerprint: two runs with the same one saw the same livers.
    """

    parts: dict[str, list[Liver]]
    remarks: tuple[str, ...]
    fingerprint: str


def gather(config: ClassifyConfig, places: DataPlaces, say: Callable[[str], None] = lambda text: None) -> LiverSet:
    """Cuts or makes all livers of a configuration.

    Args:
        config: what is wanted.
        places: where the data are.
        say: is told what takes long.

    Raises:
        InputError: data are missing, or a part that is needed has only livers with or only livers without lesions.
    """
    parts: dict[str, list[Liver]] = {part: [] for part in PARTS}
    remarks: list[str] = []
    if config.prepared:
        _add_prepared(parts, remarks, config, places, say)
    if config.synthetic.use:
        _add_synthetic(parts, remarks, config, places, say)
    cut = sorted({liver.name for livers in parts.values() for liver in livers if not liver.fits})
    if cut:
        remarks.append(
            f"{len(cut)} livers do not fit into grid.patch_size and are judged in part: {', '.join(cut[:10])}."
        )
    if not parts["test"]:
        parts["test"], parts["validation"] = parts["validation"], []
        remarks.append("The split has no test part: the validation part is judged, and no threshold is fitted on it.")
    for part in ("train", "test"):
        truths = {liver.truth(config.labels.least_lesion_ml) for liver in parts[part]}
        slices = np.concatenate(
            [np.zeros(0, bool), *(v.slices(config.labels.least_lesion_mm2)[1] for v in parts[part])]
        )
        both = slices.any() and not slices.all() if config.level == "slice" else {True, False} <= truths
        if not both:
            what = "slices" if config.level == "slice" else "livers"
            raise InputError(
                f"The {part} part has no {what} with lesions, or none without: {len(parts[part])} livers in all. "
                "Take more cases, healthy ones too, or synthetic livers (synthetic.use)."
            )
    digest = hashlib.sha256()
    for part in PARTS:
        for liver in parts[part]:
            digest.update(f"{part} {liver.name} {liver.lesion_ml}".encode())
            for array in (liver.hu, liver.probability, liver.lesion_mm2):
                digest.update(np.ascontiguousarray(array).data)
    return LiverSet(parts, tuple(remarks), digest.hexdigest())


def cut_liver(
    name: str,
    patient: str,
    volume: tuple[np.ndarray, Grid],
    located: tuple[torch.Tensor, Grid, Box],
    lesion: np.ndarray,
    config: ClassifyConfig,
) -> Liver:
    """The block of a liver, cut by the engine's own functions.

    Args:
        name, patient: whose it is.
        volume: HU [k, j, i] and their grid.
        located: probability [k, j, i], its grid, and the liver's box on it.
        lesion: bool [k, j, i] on the volume's grid.
        config: of the block.
    """
    array, grid = volume
    probability, located_grid, box = located
    spacing = config.grid.spacing_mm
    block, fits = crop_grid(grid, located_grid, box, spacing, config.grid.patch_size)
    hu = resample(array, grid, block, AIR_HU).round().clamp(AIR_HU, 3071).short()
    soft = resample(probability, located_grid, block, 0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    share = resample(lesion.astype(np.uint8), grid, block, 0)
    area = (share > 0.5).flatten(1).sum(dim=1).float() * (spacing[0] * spacing[1])
    # A little of a lesion in a slice, too little for any voxel, is still not 'no lesion'.
    area = torch.where((area == 0) & (share.flatten(1).amax(dim=1) > 0.1), torch.tensor(1e-3), area)
    return Liver(
        name,
        patient,
        hu.numpy(),
        soft.numpy(),
        slices_with_liver(soft.float() / 255, spacing).numpy(),
        area.numpy(),
        float(np.count_nonzero(lesion)) * grid.voxel_volume_mm3 / 1000,
        fits,
    )


def largest_box(probability: np.ndarray) -> Box | None:
    """The box of the largest component above one half; None where there is none."""
    numbers, sizes = components(probability > 0.5)
    return Box.around(numbers == int(np.argmax(sizes)) + 1) if sizes.size else None


def _add_prepared(parts, remarks, config: ClassifyConfig, places: DataPlaces, say) -> None:
    if places.cache is None or places.split is None:
        raise InputError(
            "This configuration uses prepared data: name their folder and the split, --cache and --split."
        )
    cache, split = _cache(Path(places.cache)), load_split(Path(places.split))
    imitated, unknown = [], []
    for part in PARTS:
        for name in split.names(part, places.fold):
            case = cache.case(name)
            if not (case.known["liver"] and case.known["lesion"]):
                unknown.append(name)
                continue
            say(f"{part}: {name}")
            probability = _stored_prior(case)
            if probability is None:
                imitated.append(name)
                probability = _imitated(case.labels > 0, case.grid, name)
            box = largest_box(probability)
            if box is None:
                remarks.append(f"{name} is left out: no liver was located.")
                continue
            located = (torch.from_numpy(probability), case.grid, box)
            lesion = case.labels == LESION
            parts[part].append(
                cut_liver(name, case.patient, (np.array(case.image), case.grid), located, lesion, config)
            )
    if imitated:
        remarks.append(
            f"The masks of {len(imitated)} prepared cases are imitated from the reference labels, which makes them "
            "better than a locate network's. Run 'livercascade-train prepare' with a locate model for real ones."
        )
    if unknown:
        remarks.append(f"{len(unknown)} cases do not know liver and lesions and are left out: {', '.join(unknown)}.")


def _cache(folder: Path) -> Cache:
    """A cache, or the only one in a folder of caches: blocks are resampled, so that any preparation will do."""
    if (folder / SETTINGS_FILE).is_file():
        return Cache(folder)
    found = sorted(path.parent for path in folder.glob(f"*/{SETTINGS_FILE}"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder} holds {len(found)} prepared caches ({names}), expected one: name it itself.")
    return Cache(found[0])


def _stored_prior(case: CachedCase) -> np.ndarray | None:
    prior = case.prior
    return None if prior is None else np.asarray(prior, dtype=np.float32) / 255


def _imitated(liver: np.ndarray, grid: Grid, name: str) -> np.ndarray:
    """What a locate network might give, on ``grid``: made of the liver with its lesions, so that it knows of none."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    spacing = tuple(float(max(_LOCATE_MM, s)) for s in grid.canonical().spacing)
    coarse = grid.canonical(spacing)
    target = (resample(liver.astype(np.uint8), grid, coarse, 0) > 0.5).to(torch.uint8) * LIVER
    spec = SampleSpec(spacing, coarse.size, (-175.0, 250.0), ("ct",), False)
    return resample(imitate_prior(target, spec, rng, generator), coarse, grid, 0.0).numpy()


def _add_synthetic(parts, remarks, config: ClassifyConfig, places: DataPlaces, say) -> None:
    if places.bodies is None:
        raise InputError("This configuration uses synthetic livers: name the bodies' folder, --bodies.")
    cases = [c for c in load_cases(Path(places.bodies), config.synthetic.exclude) if c.lesions_known]
    stage = None
    if places.locate is not None:
        stage = NetworkPredictor(load_manifest(places.locate), "cpu")
    where = synthetic_parts(cases, config)
    missed = []
    for case in cases:
        for look in range(config.synthetic.livers):
            say(f"{where[patient_of(case)]}: {case.name} {look}")
            liver = make_liver(case, look, config, stage)
            if liver is None:
                missed.append(f"{case.name} {look}")
            else:
                parts[where[patient_of(case)]].append(liver)
    if missed:
        remarks.append(f"{len(missed)} synthetic livers were not located and are left out: {', '.join(missed)}.")
    if stage is None:
        remarks.append("The masks of the synthetic livers are imitated from their truth, without their lesions.")
    else:
        manifest = stage.manifest
        remarks.append(f"The masks of the synthetic livers come from the locate model {manifest.id}.")
    digest = hashlib.sha256(json.dumps(where, sort_keys=True).encode()).hexdigest()[:12]
    counts = [sum(part == name for part in where.values()) for name in PARTS]
    remarks.append(f"Synthetic patients in training, validation and test: {counts}, split {digest}.")


def patient_of(case: Case) -> str:
    """Bodies that are invented around one label map count as one patient."""
    return case.name.rsplit("_", 1)[0] if case.kind == "synthetic" else case.name


def synthetic_parts(cases: Sequence[Case], config: ClassifyConfig) -> dict[str, str]:
    """The part of each patient; the real ones are shared out among the others."""
    names = sorted({patient_of(case) for case in cases})
    random.Random(config.training.split_seed).shuffle(names)
    ends = np.round(np.cumsum(config.synthetic.shares) * len(names)).astype(int)
    return {name: PARTS[int(np.searchsorted(ends, n, side="right"))] for n, name in enumerate(names)}


def make_liver(case: Case, look: int, config: ClassifyConfig, stage: Stage | None) -> Liver | None:
    """One look of a body, with lesions where ``look`` is odd; None where the locate model finds no liver."""
    rng = np.random.default_rng([config.training.split_seed, zlib.crc32(case.name.encode()), look])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    lesions = replace(config.synthetic.lesions, chance=float(look % 2))
    wanted = np.array(config.grid.spacing_mm[::-1])
    # A little finer than the block, so that the block is resampled as a real CT's is.
    spacing = np.maximum(np.minimum(wanted, 3.0), np.array(case.spacing))
    shape = np.maximum(2, np.ceil(np.array(case.image.shape) * case.spacing / spacing)).astype(int)
    axes = [torch.arange(int(n)) * float(t / s) for n, t, s in zip(shape, spacing, case.spacing, strict=True)]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).float()
    spec = SampleSpec(
        tuple(spacing[::-1].tolist()), tuple(shape[::-1].tolist()), (-175.0, 250.0), ("ct",), True, lesions=lesions
    )
    hu, target = scan_of(case, position, spec, rng, generator)
    array = hu.round().clamp(AIR_HU, 3071).to(torch.int16).numpy()
    labels = target.numpy()
    grid = Grid(tuple(shape[::-1].tolist()), np.diag([*spacing[::-1], 1.0]))
    name = f"{case.name}@{look}"
    if stage is None:
        probability = _imitated(labels > 0, grid, name)
        box = largest_box(probability)
        located = None if box is None else (torch.from_numpy(probability), grid, box)
    else:
        found = locate_liver(Volume(array, grid, name), stage, Options(), Progress())
        located = None if found is None else (found.probability, found.grid, found.box)
    if located is None:
        return None
    return cut_liver(name, patient_of(case), (array, grid), located, labels == LESION, config)
