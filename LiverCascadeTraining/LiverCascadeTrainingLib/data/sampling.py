"""Where patches are taken: by class, by lesion, in the liver, or anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from LiverCascadeLib.errors import InputError

from .cache import LABELS, CachedCase

CLASSES = ("background", "liver", "lesion")
STRATEGIES = ("foreground", "labels", "lesions", "liver", "random")


@dataclass(frozen=True)
class SamplingSpec:
    """How patches are chosen.

    Attributes:
        strategy: 'foreground': liver or lesion against background, by ``foreground_share``, which 0.5 makes 1:1;
            'labels': by the class of the chosen voxel, with ``label_weights``; 'lesions': ``lesion_share`` of the
            patches at a lesion, each of the data set equally likely whatever its size, the others as 'foreground';
            'liver': all in the liver; 'random': anywhere.
        foreground_share: see above.
        label_weights: of background, liver and lesion; need not add up to 1.
        lesion_share: see above.
        jitter: the chosen voxel lies up to this share of the patch away from the patch's middle.
    """

    strategy: str = "foreground"
    foreground_share: float = 0.5
    label_weights: Mapping[str, float] = field(
        default_factory=lambda: {"background": 0.2, "liver": 0.3, "lesion": 0.5}
    )
    lesion_share: float = 0.5
    jitter: float = 0.25

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(f"The sampling strategy {self.strategy!r} is not known: {', '.join(STRATEGIES)}.")
        unknown = [name for name in self.label_weights if name not in CLASSES]
        if unknown or min(self.label_weights.values(), default=0) < 0 or sum(self.label_weights.values()) <= 0:
            raise InputError(
                f"label_weights is {dict(self.label_weights)!r}; expected weights that are not negative, not all 0, "
                f"of {', '.join(CLASSES)}."
            )
        for name in ("foreground_share", "lesion_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected a number from 0 to 1.")
        if not 0 <= self.jitter < 0.5:
            raise InputError(f"jitter is {self.jitter}; expected a number from 0 to below 0.5.")


class Place(NamedTuple):
    """Where a patch is taken.

    Attributes:
        case: index of the case.
        center: the voxel that was chosen, (k, j, i).
        kind: the class that it was chosen for: one of :data:`CLASSES`, or 'anywhere'.
    """

    case: int
    center: np.ndarray
    kind: str


class Sampler:
    """Draws places in cases.

    Args:
        cases: prepared cases.
        spec: how.

    Raises:
        InputError: no cases, or a strategy that needs labels for cases without any.
    """

    def __init__(self, cases: Sequence[CachedCase], spec: SamplingSpec):
        if not cases:
            raise InputError("There are no cases to sample from.")
        self.spec, self._cases = spec, list(cases)
        self._with = {
            name: [n for n, case in enumerate(cases) if case.has(LABELS) and self._count(case, name)]
            for name in CLASSES
        }
        # One entry for each lesion of the data set: that makes small and large ones equally likely.
        self._lesions = [(n, lesion["positions"]) for n, case in enumerate(cases) for lesion in case.lesions]
        if spec.strategy != "random" and not self._with["liver"] and not self._with["lesion"]:
            raise InputError(f"No case has labels, which the strategy {spec.strategy!r} needs. Take 'random'.")

    @staticmethod
    def _count(case: CachedCase, name: str) -> int:
        start, stop = case.facts.get("positions", {}).get(name, (0, 0))
        return stop - start

    def draw(self, rng: np.random.Generator) -> Place:
        """A place, from the next random numbers of ``rng``."""
        spec = self.spec
        if spec.strategy == "random":
            return self._anywhere(rng)
        if spec.strategy == "liver":
            return self._of_class("liver", rng)
        if spec.strategy == "labels":
            weights = np.array([spec.label_weights.get(name, 0.0) for name in CLASSES])
            return self._of_class(CLASSES[int(rng.choice(len(CLASSES), p=weights / weights.sum()))], rng)
        if spec.strategy == "lesions" and self._lesions and rng.random() < spec.lesion_share:
            case, where = self._lesions[int(rng.integers(len(self._lesions)))]
            return Place(case, self._one(self._cases[case].positions(where), rng), "lesion")
        if rng.random() >= spec.foreground_share:
            return self._of_class("background", rng)
        return self._foreground(rng)

    def _foreground(self, rng: np.random.Generator) -> Place:
        """A voxel of liver or lesion, each case equally likely, each of its foreground voxels too."""
        pool = sorted({*self._with["liver"], *self._with["lesion"]})
        number = pool[int(rng.integers(len(pool)))]
        case = self._cases[number]
        lesions = sum(lesion["voxels"] for lesion in case.lesions)
        # Listed voxels are at most a few thousand of each class: their classes' true sizes say how to mix them.
        share = lesions / max(1, lesions + case.facts.get("liver_voxels", 0)) if lesions else 0.0
        name = "lesion" if self._count(case, "lesion") and rng.random() < share else "liver"
        name = name if self._count(case, name) else "lesion"
        return Place(number, self._one(case.positions(name), rng), name)

    def _of_class(self, name: str, rng: np.random.Generator) -> Place:
        """A voxel of a class, from the cases that have it; where none has, of the next commoner one."""
        order = {"lesion": ("lesion", "liver", "background"), "liver": ("liver", "lesion", "background")}
        for candidate in order.get(name, ("background", "liver", "lesion")):
            pool = self._with[candidate]
            if pool:
                case = pool[int(rng.integers(len(pool)))]
                return Place(case, self._one(self._cases[case].positions(candidate), rng), candidate)
        return self._anywhere(rng)

    def _anywhere(self, rng: np.random.Generator) -> Place:
        case = int(rng.integers(len(self._cases)))
        return Place(case, rng.integers(0, self._cases[case].shape), "anywhere")

    @staticmethod
    def _one(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return places[int(rng.integers(len(places)))].astype(np.int64)
