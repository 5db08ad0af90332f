"""From a network's probabilities to what stands on the voxels of the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .geometry import Grid, iter_resampled, resample
from .located import Located
from .postprocess import LESION_CLASS
from .result import LIVER_LABEL

if TYPE_CHECKING:
    import torch

# How the names of Couinaud's segments begin.
COUINAUD = "couinaud_"
# Couinaud's segments as models number them, and as they are written.
ROMAN = {
    f"{COUINAUD}{number}": f"{COUINAUD}{roman}"
    for number, roman in enumerate(("I", "II", "III", "IV", "V", "VI", "VII", "VIII"), start=1)
}
# What the values of an answer mean where a network tells liver from lesion and nothing else.
LIVER_AND_LESION: Mapping[int, str] = {LIVER_LABEL: "liver", LESION_CLASS: "lesion"}


@dataclass(frozen=True, eq=False)
class Answer:
    """What one refine stage says of the voxels of the box, [k, j, i].

    Attributes:
        classes: uint8, 0 background.
        structures: what the other values of ``classes`` are: 'liver', 'lesion', 'couinaud_I' …, 'vessel'.
        lesion: probability of lesion, float16; None where the model does not tell lesions apart.
        lesion_doubt: at the voxels of lesion alone, in their order, float32 [n, 1 or 2]: the entropy of the classes as
            a share of the highest, and, where it is known, how far mirrored copies disagree.
        entropy: uint8, see :class:`.result.Uncertainty`; None where it is not wanted.
    """

    classes: np.ndarray
    structures: Mapping[int, str]
    lesion: np.ndarray | None
    lesion_doubt: np.ndarray
    entropy: np.ndarray | None

    def mask_of(self, *names: str) -> np.ndarray:
        """Where one of the structures is; a name that ends in '_' stands for all that begin so."""
        wanted = [
            value
            for value, structure in self.structures.items()
            if any(structure == name or (name.endswith("_") and structure.startswith(name)) for name in names)
        ]
        return np.isin(self.classes, wanted)

    def has(self, name: str) -> bool:
        """Whether the model draws a structure; a name that ends in '_' stands for all that begin so."""
        found = self.structures.values()
        return any(structure.startswith(name) for structure in found) if name.endswith("_") else name in found


@dataclass(frozen=True, eq=False)
class Opinion:
    """What one network says, on its own grid.

    Attributes:
        probability: [liver and, where the model tells them apart, lesion; k, j, i].
        grid: the network's.
        spread: how far mirrored copies disagree on lesions, [k, j, i]; None where it is not known.
    """

    probability: torch.Tensor
    grid: Grid
    spread: torch.Tensor | None = None

    def channels(self) -> list[torch.Tensor]:
        """Everything that has to be brought to the input grid, the spread last."""
        return [*self.probability, *([] if self.spread is None else [self.spread])]


def fuse(opinions: Sequence[Opinion], crop: Grid, with_entropy: bool = False) -> Answer:
    """Classes on the input grid: probabilities are resampled and put together, then decided once.

    Liver and lesion together decide what is liver; inside it the larger of the two decides the class. Several opinions
    count the same: the mean of their probabilities decides.

    Args:
        opinions: of networks that tell the same classes apart; the last one's spread counts.
        crop: the input grid inside the box.
        with_entropy: give the entropy of every voxel.
    """
    import torch

    classes, lesions, doubts, entropies = [], [], [], []
    labels = len(opinions[-1].probability)
    sizes = [len(opinion.channels()) for opinion in opinions]
    channels = [
        iter_resampled(channel, opinion.grid, crop, 0.0) for opinion in opinions for channel in opinion.channels()
    ]
    for slabs in zip(*channels, strict=True):
        parts, last = _together(slabs, sizes, labels)
        inside = sum(parts) > 0.5
        slab = inside.to(torch.uint8)
        if labels > 1:
            lesion = inside & (parts[1] > parts[0])
            slab[lesion] = LESION_CLASS
            lesions.append(parts[1].to(torch.float16))
            # Only where there is something to be sure of: a share of a percent of the voxels.
            there = [values[lesion] for values in parts]
            doubts.append(torch.stack([entropy_of(there), *(values[lesion] for values in last)], dim=1))
        classes.append(slab)
        if with_entropy:
            entropies.append(entropy_of(parts).mul_(255).round_().to(torch.uint8))
    return Answer(
        torch.cat(classes).numpy(),
        LIVER_AND_LESION if lesions else {LIVER_LABEL: "liver"},
        torch.cat(lesions).numpy() if lesions else None,
        torch.cat(doubts).numpy() if doubts else np.zeros((0, 1), np.float32),
        torch.cat(entropies).numpy() if with_entropy else None,
    )


def _together(
    slabs: Sequence[torch.Tensor], sizes: Sequence[int], labels: int
) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    """Mean probability of each label, and the last opinion's spread if it has one."""
    ends = np.cumsum(sizes)
    opinions = [slabs[end - size : end - size + labels] for size, end in zip(sizes, ends, strict=True)]
    spread = slabs[ends[-1] - sizes[-1] + labels :]
    if len(opinions) == 1:
        return opinions[0], spread
    return [sum(parts) / len(opinions) for parts in zip(*opinions, strict=True)], spread


def answer_of(
    labels: np.ndarray,
    near: np.ndarray,
    names: Mapping[int, str],
    lesion: np.ndarray | None,
    entropy: np.ndarray | None,
    with_entropy: bool,
) -> Answer:
    """The answer of a model that draws labels of its own.

    Args:
        labels: the model's values, uint8 [k, j, i].
        near: where they count, bool.
        names: structures by value; other values are taken away.
        lesion: probability of lesion, float16; None where the model does not tell lesions apart.
        entropy: of the classes, 0…1; None where nobody asks, which a model of lesions always does.
        with_entropy: give the entropy of every voxel.
    """
    table = np.zeros(256, np.uint8)
    table[list(names)] = list(names)
    classes = table[labels]
    classes[~near] = 0
    structures = {value: ROMAN.get(name, name) for value, name in names.items()}
    doubt = np.zeros((0, 1), np.float32)
    if lesion is not None:
        values = [value for value, name in names.items() if name == "lesion"]
        doubt = entropy[np.isin(classes, values)][:, None].astype(np.float32)
    shown = np.round(entropy * 255).astype(np.uint8) if with_entropy else None
    return Answer(classes, structures, lesion, doubt, shown)


def merged(answers: Sequence[Answer], located: Located, crop: Grid) -> Answer:
    """Liver and lesions from several answers; their probabilities are those of the first that tells lesions apart.

    Liver is what the answers call so; where none does, Couinaud's segments together, and where there are none either,
    the located liver. A lesion is what any of them calls so.

    Args:
        answers: of the refine stages, all on ``crop``.
        located: the liver of the locate stage.
        crop: the input grid inside the box.
    """
    if len(answers) == 1 and answers[0].structures.items() <= LIVER_AND_LESION.items():
        return answers[0]
    liver = _liver(answers, located, crop)
    lesion = drawn(answers, "lesion")
    lesion = np.zeros(crop.shape, bool) if lesion is None else lesion
    classes = liver.astype(np.uint8) * np.uint8(LIVER_LABEL)
    classes[lesion] = LESION_CLASS
    knowing = next((answer for answer in answers if answer.lesion is not None), None)
    first = next((answer.entropy for answer in answers if answer.entropy is not None), None)
    if knowing is None:
        return Answer(classes, LIVER_AND_LESION, None, np.zeros((0, 1), np.float32), first)
    # Lesions of other answers than the knowing one have its probability too, and no doubt of their own.
    doubt = np.ones((*crop.shape, knowing.lesion_doubt.shape[1]), np.float32)
    doubt[knowing.mask_of("lesion")] = knowing.lesion_doubt
    return Answer(classes, LIVER_AND_LESION, knowing.lesion, doubt[lesion], first)


def drawn(answers: Sequence[Answer], name: str) -> np.ndarray | None:
    """Where any of the answers draws ``name``, bool; None where none of them knows it."""
    knowing = [answer.mask_of(name) for answer in answers if answer.has(name)]
    return np.logical_or.reduce(knowing) if knowing else None


def _liver(answers: Sequence[Answer], located: Located, crop: Grid) -> np.ndarray:
    for name in ("liver", COUINAUD):
        liver = drawn(answers, name)
        if liver is not None:
            return liver
    return (resample(located.probability, located.grid, crop, 0.0) > 0.5).numpy()


def entropy_of(foreground: Sequence[torch.Tensor]) -> torch.Tensor:
    """−Σ p ln p over all classes, what is not foreground being background, as a share of its highest value: 0…1."""
    import torch

    total = torch.special.entr((1 - sum(foreground)).clamp_(0, 1))
    for values in foreground:
        total += torch.special.entr(values.clamp(0, 1))
    return total.div_(float(np.log(len(foreground) + 1))).clamp_(0, 1)
