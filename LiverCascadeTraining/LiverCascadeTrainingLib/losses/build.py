"""Losses by name, over outputs of all depths and labels of which some are not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..names import SettingError, check_arguments, check_name, check_number, settings_of
from .cascade import cascade_loss
from .questions import LIVER_OR_LESION, UNKNOWN, Known, Question, ask_labels, ask_segments
from .terms import binary_cross_entropy, blobs, boundary, cross_entropy, dice, focal, tversky

Term = Callable[[Question], torch.Tensor]
Parts = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Loss:
    """A weighted sum of terms, over a network's outputs.

    Attributes:
        name: as it was asked for.
        terms: name, weight and function of each term.
        labels: channels of the labels; channels behind them are Couinaud segments.
        couinaud_weight: of the segments' cross-entropy and Dice.
        deep_weights: of the outputs, finest first; empty halves from each to the next. They are scaled to a sum of 1.
    """

    name: str
    terms: tuple[tuple[str, float, Term], ...]
    labels: int = 3
    couinaud_weight: float = 1.0
    deep_weights: tuple[float, ...] = field(default=())

    def __call__(
        self,
        outputs: Sequence[torch.Tensor],
        target: torch.Tensor | Mapping[str, Any],
        known: Known | None = None,
    ) -> tuple[torch.Tensor, Parts]:
        """The loss and its parts.

        Args:
            outputs: logits [N, C, …] of each depth, finest first; see :func:`..networks.outputs_of`. Coarser ones are
                judged by the label map at their size.
            target: labels [N, …]; or a mapping, such as a batch, with 'target' and, for multi-level networks,
                'couinaud'.
            known: which groups of labels ('liver', 'lesion', 'couinaud') the cases have; what is not mentioned is
                known. None takes the mapping's 'known' where it has one.

        Returns:
            The loss, float32 with its graph, and the terms of the finest output, detached and unweighted.
        """
        if torch.is_tensor(outputs):
            outputs = [outputs]
        if isinstance(target, Mapping):
            known = target.get("known") if known is None else known
            target, couinaud = target["target"], target.get("couinaud")
        else:
            couinaud = None
        known = {} if known is None else known
        weights = self._weights(len(outputs))
        total, parts = None, {}
        with torch.autocast(outputs[0].device.type, enabled=False):
            for depth, (weight, logits) in enumerate(zip(weights, outputs, strict=True)):
                if not weight:
                    continue
                value, here = self._one(logits, target, couinaud, known)
                total = weight * value if total is None else total + weight * value
                parts = parts if depth else here
        return total, parts

    def _weights(self, count: int) -> list[float]:
        if self.deep_weights:
            weights = list(self.deep_weights[:count]) + [0.0] * (count - len(self.deep_weights))
        else:
            weights = [0.5**n for n in range(count)]
        return [weight / sum(weights) for weight in weights]

    def _one(
        self, logits: torch.Tensor, target: torch.Tensor, couinaud: torch.Tensor | None, known: Known
    ) -> tuple[torch.Tensor, Parts]:
        """Loss and parts of one output."""
        shape = logits.shape[2:]
        values = self._label_terms(logits[:, : self.labels], resize_labels(target, shape), known)
        total = sum(weight * values[name] for name, weight, _ in self.terms)
        if logits.shape[1] > self.labels:
            if couinaud is None:
                couinaud, known = torch.zeros_like(target), {**known, "couinaud": False}
            question = ask_segments(logits[:, self.labels :], resize_labels(couinaud, shape), known)
            values["couinaud"] = cross_entropy(question) + dice(question, include_background=True)
            total = total + self.couinaud_weight * values["couinaud"]
        return total, {name: value.detach() for name, value in values.items()}

    def _label_terms(self, logits: torch.Tensor, target: torch.Tensor, known: Known) -> Parts:
        question = ask_labels(logits, target, known)
        return {name: term(question) for name, _, term in self.terms}


@dataclass(frozen=True)
class CascadeLoss(Loss):
    """:func:`.cascade.cascade_loss` in the same form."""

    settings: dict[str, float] = field(default_factory=dict)

    def _label_terms(self, logits: torch.Tensor, target: torch.Tensor, known: Known) -> Parts:
        cases = [torch.as_tensor(known.get(group, True)).expand(len(logits)) for group in ("liver", "lesion")]
        losses = []
        for n, (liver, lesion) in enumerate(zip(*(flags.tolist() for flags in cases), strict=True)):
            labels = target[n : n + 1].long()
            if not liver or bool(labels.eq(UNKNOWN).any()):
                raise SettingError(
                    "The loss 'cascade' needs the liver's labels in every voxel of every case; choose another loss "
                    "for data without them."
                )
            if not lesion:
                labels = torch.where(labels > 0, LIVER_OR_LESION, labels)
            losses.append(labels)
        return {"cascade": cascade_loss(logits, torch.cat(losses), **self.settings)}


def resize_labels(labels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A label map [N, …] at another size: the label at the center of each new voxel."""
    if labels.shape[1:] == tuple(shape):
        return labels
    # Labels are small whole numbers, which float32 holds exactly.
    return torch.nn.functional.interpolate(labels[:, None].float(), size=tuple(shape), mode="nearest-exact")[:, 0].to(
        labels.dtype
    )


def _ce(*, weight: float = 1.0) -> list:
    return [("ce", weight, cross_entropy)]


def _weighted_ce(*, class_weights: Sequence[float] = (0.2, 0.3, 0.5)) -> list:
    if not class_weights:
        raise SettingError("class_weights is empty, expected one number for each label.")
    for value in class_weights:
        check_number(value, "class_weights", 0)
    return [("ce", 1.0, _With(cross_entropy, {"class_weights": tuple(class_weights)}))]


def _bce() -> list:
    return [("bce", 1.0, binary_cross_entropy)]


def _regions(include_background: bool, batch: bool, smooth: float) -> dict[str, Any]:
    check_number(smooth, "smooth", 0, low_included=False)
    return {"include_background": include_background, "batch": batch, "smooth": smooth}


def _dice(*, include_background: bool = False, batch: bool = False, smooth: float = 1.0) -> list:
    return [("dice", 1.0, _With(dice, _regions(include_background, batch, smooth)))]


def _dice_ce(
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    include_background: bool = False,
    batch: bool = False,
    smooth: float = 1.0,
) -> list:
    regions = _regions(include_background, batch, smooth)
    return [("dice", dice_weight, _With(dice, regions)), ("ce", ce_weight, cross_entropy)]


def _dice_focal(
    *,
    dice_weight: float = 1.0,
    focal_weight: float = 1.0,
    gamma: float = 2.0,
    include_background: bool = False,
    batch: bool = False,
    smooth: float = 1.0,
) -> list:
    check_number(gamma, "gamma", 0)
    regions = _regions(include_background, batch, smooth)
    return [("dice", dice_weight, _With(dice, regions)), ("focal", focal_weight, _With(focal, {"gamma": gamma}))]


def _tversky(
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    include_background: bool = False,
    batch: bool = False,
    smooth: float = 1.0,
) -> list:
    check_number(alpha, "alpha", 0)
    check_number(beta, "beta", 0)
    settings = {"alpha": alpha, "beta": beta, **_regions(include_background, batch, smooth)}
    return [("tversky", 1.0, _With(tversky, settings))]


def _blob(
    *,
    blob_weight: float = 1.0,
    dice_weight: float = 2.0,
    ce_weight: float = 2.0,
    include_background: bool = False,
    batch: bool = False,
    smooth: float = 1.0,
) -> list:
    # The whole counts twice as much as the instances, as in the paper.
    whole = _dice_ce(
        dice_weight=dice_weight, ce_weight=ce_weight, include_background=include_background, batch=batch, smooth=smooth
    )
    return [*whole, ("blob", blob_weight, _With(blobs, {"smooth": smooth}))]


def _boundary(
    *,
    boundary_weight: float = 0.01,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    spacing: Sequence[float] | None = None,
    include_background: bool = False,
    batch: bool = False,
    smooth: float = 1.0,
) -> list:
    whole = _dice_ce(
        dice_weight=dice_weight, ce_weight=ce_weight, include_background=include_background, batch=batch, smooth=smooth
    )
    # Configurations speak of (R, A, S), arrays of [k, j, i].
    settings = {"spacing": tuple(spacing)[::-1]} if spacing else {}
    return [*whole, ("boundary", boundary_weight, _With(boundary, settings))]


def _cascade(
    *,
    lesion_weight: float = 2.0,
    false_lesion_weight: float = 0.0,
    missed_lesion_weight: float = 0.0,
    unseen_lesion_weight: float = 0.0,
    mistaken_lesion_weight: float = 0.0,
) -> list:
    return [("cascade", 1.0, None)]


@dataclass(frozen=True)
class _With:
    """A term with its settings; unlike a closure it can be sent to another process."""

    term: Callable[..., torch.Tensor]
    settings: dict[str, Any]

    def __call__(self, question: Question) -> torch.Tensor:
        return self.term(question, **self.settings)


# Name → maker of the terms; its keyword arguments are the settings that a configuration may name.
LOSSES: dict[str, Callable[..., list]] = {
    "ce": _ce,
    "weighted-ce": _weighted_ce,
    "bce": _bce,
    "dice": _dice,
    "dice-ce": _dice_ce,
    "dice-focal": _dice_focal,
    "tversky": _tversky,
    "blob": _blob,
    "boundary": _boundary,
    "cascade": _cascade,
}
COMMON_SETTINGS = {"labels": 3, "couinaud_weight": 1.0, "deep_weights": ()}


def loss_settings(name: str) -> dict[str, Any]:
    """What a loss can be told, with the defaults.

    Raises:
        SettingError: no such loss.
    """
    return {**settings_of(LOSSES[check_name(name, LOSSES, "loss")]), **COMMON_SETTINGS}


def build_loss(name: str, **arguments: Any) -> Loss:
    """A loss by name.

    Args:
        name: one of :data:`LOSSES`.
        arguments: settings that are to be others than :func:`loss_settings` says. For all losses: ``labels``, channels
            of the labels (2 for locate networks, 3 for refine networks; what follows are Couinaud segments),
            ``couinaud_weight``, and ``deep_weights``, the weights of deep supervision.

    Returns:
        A callable: (outputs, target, known) → (loss, parts); see :meth:`Loss.__call__`.

    Raises:
        SettingError: unknown loss or setting, or one that is out of range.
    """
    check_arguments(arguments, loss_settings(name), f"the loss {name!r}")
    for setting, value in arguments.items():
        if setting.endswith("_weight") or setting == "weight":
            check_number(value, setting, 0)
    common = {key: arguments.pop(key, default) for key, default in COMMON_SETTINGS.items()}
    check_number(common["labels"], "labels", 2, whole=True)
    common["deep_weights"] = tuple(common["deep_weights"])
    for value in common["deep_weights"]:
        check_number(value, "deep_weights", 0)
    if common["deep_weights"] and not common["deep_weights"][0]:
        raise SettingError("deep_weights begins with 0: the finest output must count.")
    terms = tuple(LOSSES[name](**arguments))
    if name == "weighted-ce" and len(terms[0][2].settings["class_weights"]) < common["labels"]:
        raise SettingError(f"class_weights has fewer numbers than there are labels ({common['labels']}).")
    if name == "cascade":
        return CascadeLoss(name, terms, **common, settings=arguments)
    return Loss(name, terms, **common)
