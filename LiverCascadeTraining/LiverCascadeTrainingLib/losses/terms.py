"""The terms that losses are made of: each a function of a :class:`.questions.Question`, giving one number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .questions import Question


def cross_entropy(question: Question, class_weights: Sequence[float] | None = None) -> torch.Tensor:
    """Mean of -log p over the voxels of which something is known.

    Args:
        question: see there.
        class_weights: weight of each label's voxels; the mean is weighted, as PyTorch's.
    """
    weight = question.certain.float()
    if class_weights is not None:
        values = torch.tensor(class_weights, dtype=torch.float32, device=weight.device)
        weight = weight * values[question.index]
    return -(weight * question.log_true).sum() / weight.sum().clamp(min=1e-6)


def binary_cross_entropy(question: Question) -> torch.Tensor:
    """Mean over labels and voxels of -t log p - (1 - t) log (1 - p), each label against all others."""
    values = question.truth * question.log_p + (1 - question.truth) * question.log_rest
    known = question.known.float()
    return -(known * values).sum() / known.sum().clamp(min=1)


def focal(question: Question, gamma: float = 2.0) -> torch.Tensor:
    """Mean of -(1 - p)^γ log p over voxels (Lin et al., ICCV 2017)."""
    miss = 1 - question.log_true.exp()
    certain = question.certain.float()
    return -(certain * miss.clamp(min=0) ** gamma * question.log_true).sum() / certain.sum().clamp(min=1)


def _sums(question: Question, include_background: bool, batch: bool) -> tuple[torch.Tensor, ...]:
    """Σ p t, Σ p and Σ t over known voxels [N or 1, C], and which of them count [N or 1, C]."""
    first = 0 if include_background else 1
    known = question.known[:, first:]
    truth = question.truth[:, first:]
    p = question.log_p[:, first:].exp() * known
    sums = [(p * truth).sum(question.axes), p.sum(question.axes), truth.sum(question.axes)]
    counts = question.active[:, first:] & known.flatten(2).any(dim=2)
    if batch:
        sums = [value.sum(dim=0, keepdim=True) for value in sums]
        counts = counts.any(dim=0, keepdim=True)
    return *sums, counts


def _mean(values: torch.Tensor, counts: torch.Tensor, question: Question) -> torch.Tensor:
    total = counts.sum()
    return (values * counts).sum() / total.clamp(min=1) if bool(total) else question.nothing


def dice(
    question: Question, include_background: bool = False, batch: bool = False, smooth: float = 1.0
) -> torch.Tensor:
    """1 - soft Dice, (2 Σ p t + s) / (Σ p + Σ t + s), mean over cases and labels.

    Args:
        question: see there.
        include_background: count the background as a label.
        batch: take the sums over the whole batch, so that a case without a label does not count as a miss of its own.
        smooth: s, in voxels; it decides what a few false voxels cost where there is nothing to be found.
    """
    overlap, found, true, counts = _sums(question, include_background, batch)
    return _mean(1 - (2 * overlap + smooth) / (found + true + smooth), counts, question)


def tversky(
    question: Question,
    alpha: float = 0.3,
    beta: float = 0.7,
    include_background: bool = False,
    batch: bool = False,
    smooth: float = 1.0,
) -> torch.Tensor:
    """1 - (Σ p t + s) / (Σ p t + α Σ p (1 - t) + β Σ (1 - p) t + s) (Salehi et al., MLMI 2017).

    ``alpha`` weighs what is false, ``beta`` what is missed; with both at one half it is Dice.
    """
    overlap, found, true, counts = _sums(question, include_background, batch)
    score = (overlap + smooth) / (overlap + alpha * (found - overlap) + beta * (true - overlap) + smooth)
    return _mean(1 - score, counts, question)


def instance_sums(values: torch.Tensor, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of values inside each connected component of a mask; voxels touch by faces, edges or corners.

    Args:
        values: of all voxels, […, k · j · i] or […, j · i].
        mask: bool, [k, j, i] or [j, i].

    Returns:
        (sums outside the mask and inside its n components, […, 1 + n]; voxels of each component, [n]).
    """
    from scipy import ndimage

    numbers, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    places = torch.from_numpy(numbers.ravel()).to(values.device, torch.int64)
    nothing = torch.zeros((*values.shape[:-1], count + 1), device=values.device, dtype=values.dtype)
    sums = nothing.index_add(-1, places, values)
    return sums, torch.bincount(places, minlength=count + 1).to(values.dtype)[1:]


def blobs(question: Question, label: int = -1, smooth: float = 1.0) -> torch.Tensor:
    """Dice of each instance of a label alone, mean over instances and then over cases: small lesions count as large.

    Kofler et al., blob loss, IPMI 2023 (arXiv:2205.08209): for each connected component of the truth the loss over all
    voxels but those of the other components. With p_n the probability's sum inside instance n, b the sum outside all
    instances and v_n its voxels, Dice's loss is 1 - (2 p_n + s) / (p_n + b + v_n + s). Voxels touch by faces, edges or
    corners. Cases without instances, or without that label, have no say.

    Args:
        question: see there.
        label: channel whose instances count; -1 is the last one, the lesions.
        smooth: s, in voxels.
    """
    label %= question.log_p.shape[1]
    known = question.known[:, label]
    p = (question.log_p[:, label].exp() * known).flatten(1)
    masks = (question.truth[:, label] > 0).cpu().numpy()
    losses = []
    for case in torch.nonzero(question.active[:, label]).flatten().tolist():
        inside, sizes = instance_sums(p[case], masks[case])
        if not len(sizes):
            continue
        score = (2 * inside[1:] + smooth) / (inside[1:] + inside[0] + sizes + smooth)
        losses.append((1 - score).mean())
    return torch.stack(losses).mean() if losses else question.nothing


def signed_distances(mask: np.ndarray, spacing: Sequence[float] | None = None) -> np.ndarray:
    """Distances of voxels to the boundary of a mask: positive outside, negative inside, 0 on its outermost voxels.

    Args:
        mask: [k, j, i] or [j, i].
        spacing: of the voxels along the same axes; None measures in voxels.

    Returns:
        float32 of the mask's shape; all zero where the mask is empty, or everything.
    """
    from scipy import ndimage

    mask = mask.astype(bool)
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, np.float32)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    # The outermost voxels of the mask, which lie one step from outside, are its boundary.
    step = 1.0 if spacing is None else float(min(spacing))
    return np.where(mask, -np.maximum(inside - step, 0), outside).astype(np.float32)


def boundary(question: Question, spacing: Sequence[float] | None = None) -> torch.Tensor:
    """Mean over foreground labels and voxels of the signed distance to the true boundary times p.

    Kervadec et al., MIDL 2019 / Medical Image Analysis 2021 (arXiv:1812.07032): to first order the area between the
    two boundaries. It may be negative. Used beside a term over regions, as it says nothing where a label is absent.

    Args:
        question: see there.
        spacing: mm along the array's axes; None measures distances in voxels.
    """
    total = question.nothing
    active = question.active[:, 1:].tolist()
    truth = (question.truth[:, 1:] > 0).cpu().numpy()
    maps = np.zeros(truth.shape, np.float32)
    for case, flags in enumerate(active):
        for label, flag in enumerate(flags):
            if flag:
                maps[case, label] = signed_distances(truth[case, label], spacing)
    known = question.known[:, 1:]
    distance = torch.from_numpy(maps).to(known.device)
    total = total + (distance * question.log_p[:, 1:].exp() * known).sum()
    return total / known.sum().clamp(min=1)
