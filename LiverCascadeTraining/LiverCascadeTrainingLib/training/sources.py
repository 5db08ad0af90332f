"""Where the samples of a run come from: prepared data sets and synthetic bodies, by shares; CTs without labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.models import load_manifest
from LiverCascadeLib.predictor import NetworkPredictor

from ..cases import Case, load_cases
from ..data.cache import PRIOR, Cache, CachedCase
from ..data.patches import PatchDataset
from ..data.sources import MixedDataset, SyntheticSource
from ..data.splits import TRAIN, VALIDATION, load_split
from ..priors import PriorBank
from ..samples import SampleSet
from .config import RunConfig


@dataclass(frozen=True)
class DataPlaces:
    """Where the data of a run are.

    Attributes:
        cache: prepared data sets: the folder that holds a cache for each preparation, or one of these.
        split: who is trained on.
        fold: of the split.
        bodies: synthetic bodies, prepared by ``livercascade-train bodies``.
        locate: folder of a locate model, whose probabilities become priors of synthetic samples.
    """

    cache: Path | None = None
    split: Path | None = None
    fold: int = 0
    bodies: Path | None = None
    locate: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        places = {name: getattr(self, name) for name in ("cache", "split", "bodies", "locate")}
        return {**{k: None if v is None else str(Path(v).resolve()) for k, v in places.items()}, "fold": self.fold}


class PairedDataset(torch.utils.data.Dataset):
    """Item n holds item n of a labeled and of an unlabeled data set."""

    def __init__(self, labeled: torch.utils.data.Dataset, unlabeled: torch.utils.data.Dataset):
        self.labeled, self.unlabeled = labeled, unlabeled

    def __len__(self) -> int:
        return len(self.labeled)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {**self.labeled[number], "unlabeled": self.unlabeled[number]}


class StepSampler(torch.utils.data.Sampler):
    """Sample numbers of each pass of an epoch: pass p takes samples p · batch … (p + 1) · batch - 1 for ever.

    The processes of a run share them out, so that a run does not depend on their number; a resumed epoch begins where
    the run stands, which is what makes it the same run.

    Args:
        passes: of an epoch.
        batch: samples of a pass, over all processes.
        rank, world: which of how many processes this is.

    Attributes:
        passes_done: tells how many passes of the whole run are done.
    """

    def __init__(self, passes: int, batch: int, rank: int = 0, world: int = 1):
        if batch % world:
            raise InputError(f"A batch of {batch} samples cannot be shared among {world} devices evenly.")
        self.passes, self.batch, self.rank, self.world = passes, batch, rank, world
        self.passes_done: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        return self.passes

    def __iter__(self) -> Iterator[list[int]]:
        # Asked now rather than when the first item is wanted: a loader may look ahead.
        done = self.passes_done()
        return map(self._samples, range(done, done - done % self.passes + self.passes))

    def _samples(self, number: int) -> list[int]:
        each = self.batch // self.world
        first = number * self.batch + self.rank * each
        return list(range(first, first + each))


class Sources:
    """The data of a run.

    Args:
        config: the run's.
        places: where they are.
        run: folder of the run, where priors are kept.
        device: on which a locate network makes priors.

    Attributes:
        train: the data set that is trained on.
        validation: prepared cases that steer the training.
        names: of the cases by part: 'train', 'validation', 'unlabeled', 'bodies'.
        fingerprint: digest of everything that decides the samples but the configuration.

    Raises:
        InputError: something is not there that the configuration wants.
    """

    def __init__(self, config: RunConfig, places: DataPlaces, run: Path, device: str = "cpu"):
        self.config, self.run = config, run
        self.names: dict[str, list[str]] = {"train": [], "validation": [], "unlabeled": [], "bodies": []}
        self.validation: list[CachedCase] = []
        self._digest = hashlib.sha256()
        self._sources: list[torch.utils.data.Dataset] = []
        shares: list[float] = []
        unlabeled = None
        if config.prepared.share:
            self._add_prepared(places)
            shares.append(config.prepared.share)
            unlabeled = self._unlabeled(places)
        if config.synthetic.share:
            self._add_synthetic(places, device)
            shares.append(config.synthetic.share)
        seed = config.training.seed
        self.train = self._sources[0] if len(shares) == 1 else MixedDataset(self._sources, shares, seed)
        if config.unlabeled.method != "none":
            if unlabeled is None:
                raise InputError("unlabeled.method needs prepared.share above 0: CTs without labels lie in its cache.")
            self.train = PairedDataset(self.train, unlabeled)
        self.fingerprint = self._digest.hexdigest()

    def _cache(self, places: DataPlaces) -> Cache:
        if places.cache is None:
            raise InputError("This configuration trains on prepared data: name their folder, --cache.")
        settings = self.config.prepare_settings()
        inner = Path(places.cache) / settings.key
        cache = Cache(inner if inner.is_dir() else places.cache)
        if cache.settings.key != settings.key:
            raise InputError(
                f"The cache {cache.folder} was prepared with other settings ({cache.settings.as_dict()}) than this "
                f"configuration wants ({settings.as_dict()}). Run 'livercascade-train prepare' with the configuration."
            )
        return cache

    def _add_prepared(self, places: DataPlaces) -> None:
        if places.split is None:
            raise InputError("This configuration trains on prepared data: name the split, --split.")
        cache, split = self._cache(places), load_split(Path(places.split))
        for part in (TRAIN, VALIDATION):
            self.names[part] = list(split.names(part, places.fold))
        if not self.names[TRAIN]:
            raise InputError(f"The split {places.split} leaves nothing to train on.")
        absent = [name for part in (TRAIN, VALIDATION) for name in self.names[part] if name not in cache.names]
        if absent:
            raise InputError(f"Not prepared yet: {', '.join(absent)}. Run 'livercascade-train prepare' first.")
        most, names = self.config.validation.cases, self.names[VALIDATION]
        if most and len(names) > most:
            self.names[VALIDATION] = [names[n * len(names) // most] for n in range(most)]
        self.validation = [cache.case(name) for name in self.names[VALIDATION]]
        seed = self.config.training.seed
        self._sources.append(PatchDataset(cache, self.names[TRAIN], self.config.patch_spec(), seed))
        used = [*self.names[TRAIN], *self.names[VALIDATION]]
        self._digest.update(f"{split.sha256} {places.fold} {cache.fingerprint(used)}".encode())
        self._add_located(self._sources[-1].cases)

    def _add_located(self, cases: Sequence[CachedCase]) -> None:
        """Located priors are made by another model than the cases are; their size and beginning tell them apart."""
        if "liver_probability" not in self.config.inputs or self.config.prepared.prior == "imitated":
            return
        for case in cases:
            if case.has(PRIOR):
                with (case.place / PRIOR).open("rb") as stream:
                    self._digest.update(str((case.place / PRIOR).stat().st_size).encode() + stream.read(2**20))

    def _unlabeled(self, places: DataPlaces) -> PatchDataset | None:
        if self.config.unlabeled.method == "none":
            return None
        cache = self._cache(places)
        names = [name for name in cache.names if not any(cache.case(name).known.values())]
        if not names:
            raise InputError(
                f"unlabeled.method is {self.config.unlabeled.method!r}, but {cache.folder} holds no CT without "
                "labels. Prepare some with 'livercascade-train prepare --unlabeled'."
            )
        self.names["unlabeled"] = names
        self._digest.update(cache.fingerprint(names).encode())
        # Another seed, so that labeled and unlabeled samples do not look alike.
        return PatchDataset(cache, names, self.config.patch_spec(unlabeled=True), self.config.training.seed + 1)

    def _add_synthetic(self, places: DataPlaces, device: str) -> None:
        config = self.config
        if places.bodies is None:
            raise InputError("This configuration trains on synthetic bodies: name their folder, --bodies.")
        cases = load_cases(Path(places.bodies), config.synthetic.exclude)
        self.names["bodies"] = [case.name for case in cases]
        bank = self._priors(cases, places, device)
        weights = config.synthetic.real_weights
        samples = SampleSet(cases, config.sample_spec(), config.training.seed, bank, weights)
        self._sources.append(SyntheticSource(samples))
        facts = [json.loads((Path(places.bodies) / f"{case.name}.json").read_text()) for case in cases]
        self._digest.update(json.dumps(facts, sort_keys=True).encode())
        if bank is not None:
            self._digest.update(load_manifest(places.locate).weights_sha256.encode())

    def _priors(self, cases: Sequence[Case], places: DataPlaces, device: str) -> PriorBank | None:
        synthetic = self.config.synthetic
        if not synthetic.located_share:
            return None
        if places.locate is None:
            raise InputError("This configuration trains with the priors of a locate model: name it, --locate.")
        stage = NetworkPredictor(load_manifest(places.locate), device)
        looks, seed = synthetic.located_looks, synthetic.located_seed
        return PriorBank.fill(self.run / "priors", cases, stage, self.config.sample_spec(), looks, seed)
