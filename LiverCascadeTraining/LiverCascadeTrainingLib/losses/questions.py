"""What is asked of a network at a voxel, and what is known of the answer.

Labels are 0 background, 1 liver (parenchyma), 2 lesion. Not every data set knows all of them, so a loss is never given
logits and labels as they are but a :class:`Question`, in which what nobody knows has no say:

* a case without lesion labels: liver and lesion are merged, by adding their probabilities, into one label 'liver';
* a case without liver labels: background and liver are merged into 'no lesion';
* a voxel of value 3 is liver or lesion, nobody knows which; one of value 255 can be anything.

Adding probabilities of labels that an annotation does not tell apart is the marginal loss of Shi et al., Medical Image
Analysis 2021 (arXiv:2007.03868).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

BACKGROUND, LIVER, LESION, LIVER_OR_LESION, UNKNOWN = 0, 1, 2, 3, 255

Known = Mapping[str, "bool | torch.Tensor"]


@dataclass(frozen=True)
class Question:
    """Probabilities of labels, the truth, and where it is known.

    Attributes:
        log_p: log-probabilities [N, C, …], float32; of merged labels where labels are merged.
        log_rest: log-probabilities [N, C, …] that it is another label than this one.
        truth: [N, C, …], float32, 1 where the voxel has the label.
        known: [N, C, …], bool: whether it is known that a voxel has, or has not, the label.
        log_true: [N, …]: log-probability of what is known about a voxel: of its label, or of one of two.
        index: [N, …], int64: the label; where two are possible, the lower one; 0 where nothing is known.
        certain: [N, …], bool: whether anything is known about a voxel.
        active: [N, C], bool: labels that are asked for in a case.
    """

    log_p: torch.Tensor
    log_rest: torch.Tensor
    truth: torch.Tensor
    known: torch.Tensor
    log_true: torch.Tensor
    index: torch.Tensor
    certain: torch.Tensor
    active: torch.Tensor

    @property
    def nothing(self) -> torch.Tensor:
        """A zero that belongs to the graph, for terms that have nothing to say."""
        return self.log_p.sum() * 0.0

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes of ``log_p``."""
        return tuple(range(2, self.log_p.ndim))


def _flags(known: Known, group: str, count: int, device: torch.device) -> torch.Tensor:
    """Whether a group of labels is known, for each case; groups that are not mentioned are."""
    flags = torch.as_tensor(known.get(group, True), device=device).bool()
    return flags.expand(count) if flags.ndim == 0 else flags.reshape(count)


def _rest(log_p: torch.Tensor) -> torch.Tensor:
    """For each channel the log-probability of all others together, without cancellation."""
    count = log_p.shape[1]
    if count == 2:
        return log_p.flip(1)
    others = [[c for c in range(count) if c != channel] for channel in range(count)]
    return torch.stack([torch.logsumexp(log_p[:, rest], dim=1) for rest in others], dim=1)


def ask_labels(logits: torch.Tensor, target: torch.Tensor, known: Known | None = None) -> Question:
    """The question after background, liver and lesion.

    Args:
        logits: [N, 2 or more, …]; channels background, liver, lesion, and further labels where a data set has them.
            With two channels the second is the liver with its lesions.
        target: [N, …]: labels; 3 and 255 as described above.
        known: 'liver' and 'lesion': whether a case has these labels, as one bool or one for each case.
    """
    known = {} if known is None else known
    log_p = torch.log_softmax(logits.float(), dim=1)
    cases, channels = log_p.shape[:2]
    target = target.long()
    unknown = target.eq(UNKNOWN)
    wide = (-1, *[1] * (target.ndim - 1))
    has_liver = _flags(known, "liver", cases, log_p.device)
    has_lesion = _flags(known, "lesion", cases, log_p.device)
    rest = _rest(log_p)
    if channels == 2:
        # No question after lesions: all of the liver is liver.
        index = target.gt(BACKGROUND).long()
        certain = ~unknown & has_liver.reshape(wide)
        active = has_liver[:, None].expand(cases, 2)
        return _plain(log_p, rest, index, certain, active)
    no_lesion, no_liver = (has_liver & ~has_lesion).reshape(wide), (~has_liver & has_lesion).reshape(wide)
    either = target.eq(LIVER_OR_LESION) if channels == 3 else torch.zeros_like(unknown)
    inside, outside = rest[:, 0], torch.logsumexp(log_p[:, :2], dim=1)
    beyond = log_p[:, 2] if channels == 3 else torch.logsumexp(log_p[:, 2:], dim=1)
    columns = [
        torch.where(no_liver, outside, log_p[:, 0]),
        torch.where(no_lesion, inside, log_p[:, 1]),
        *log_p[:, 2:].unbind(1),
    ]
    others = [
        torch.where(no_liver, beyond, rest[:, 0]),
        torch.where(no_lesion, log_p[:, 0], rest[:, 1]),
        *rest[:, 2:].unbind(1),
    ]
    index = torch.where(no_lesion, target.clamp(max=LIVER), target)
    index = torch.where(no_liver & index.eq(LIVER), BACKGROUND, index)
    open_ = either & ~no_lesion
    index = torch.where(open_, LIVER, index)
    # Liver or lesion says nothing where 'no lesion' or 'lesion' is the question.
    certain = ~unknown & (has_liver | has_lesion).reshape(wide) & ~(either & no_liver)
    active = torch.ones((cases, channels), dtype=torch.bool, device=log_p.device)
    active[:, 1] = has_liver
    active[:, 2:] = has_lesion[:, None]
    active[:, 0] = has_liver | has_lesion
    question = _plain(torch.stack(columns, 1), torch.stack(others, 1), index, certain, active)
    if not bool(open_.any()):
        return question
    log_true = torch.where(open_, inside, question.log_true)
    undecided = torch.zeros_like(question.known)
    undecided[:, 1:3] = open_[:, None]
    return Question(
        question.log_p, question.log_rest, question.truth * ~undecided, question.known & ~undecided, log_true,
        index, certain, active,
    )  # fmt: skip


def ask_segments(logits: torch.Tensor, couinaud: torch.Tensor, known: Known | None = None) -> Question:
    """The question after the Couinaud segment of a voxel that is liver.

    Args:
        logits: [N, 8, …] among the segments I to VIII.
        couinaud: [N, …]: 1 to 8, 9 for IVa and 10 for IVb; 0 where there is no segment, and nothing is asked there.
        known: 'couinaud': whether a case has these labels.
    """
    log_p = torch.log_softmax(logits.float(), dim=1)
    cases, channels = log_p.shape[:2]
    couinaud = couinaud.long()
    segment = torch.where(couinaud.gt(8), 4, couinaud)
    has_segments = _flags({} if known is None else known, "couinaud", cases, log_p.device)
    wide = (-1, *[1] * (couinaud.ndim - 1))
    certain = segment.gt(0) & segment.le(channels) & has_segments.reshape(wide)
    index = torch.where(certain, segment - 1, 0)
    # A segment that a case does not have is not asked for: most patches hold a few of them.
    truth = torch.nn.functional.one_hot(index, channels).movedim(-1, 1).bool() & certain[:, None]
    active = truth.flatten(2).any(dim=2)
    return _plain(log_p, _rest(log_p), index, certain, active)


def _plain(
    log_p: torch.Tensor, rest: torch.Tensor, index: torch.Tensor, certain: torch.Tensor, active: torch.Tensor
) -> Question:
    """A question in which a voxel has one label, or nothing is known about it."""
    index = torch.where(certain, index, 0)
    channels = log_p.shape[1]
    truth = torch.nn.functional.one_hot(index.clamp(max=channels - 1), channels).movedim(-1, 1).float()
    wide = (*active.shape, *[1] * (log_p.ndim - 2))
    known = certain[:, None] & active.reshape(wide)
    log_true = torch.gather(log_p, 1, index.clamp(max=channels - 1)[:, None])[:, 0]
    return Question(log_p, rest, truth * known, known, log_true, index, certain, active)
