"""The loss that the embedded models were trained with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..looks import BACKGROUND, LESION, LIVER_OR_LESION
from .terms import instance_sums

# Added to a mean probability before its logarithm: what cannot be seen at all must not outweigh everything else.
_LEAST_CHANCE = 1e-3


def soft_dice_loss(probability: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice over a whole batch: 1 - (2 Σpr + 1) / (Σp + Σr + 1).

    Args:
        probability, reference: same shape, values 0…1.
    """
    overlap = (probability * reference).sum()
    return 1 - (2 * overlap + 1) / (probability.sum() + reference.sum() + 1)


def missed_lesions(probability: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
    """Mean over lesions of 1 - their mean probability; a lesion counts by the cube root of its volume.

    In Dice over a whole patch a lesion of 1 cm is nothing beside one of 5 cm. Counted by diameter, as readers do, it
    is a fifth of it; the crumbs that lobed lesions leave beside them still hardly count.

    Args:
        probability: of lesion, [batch, k, j, i].
        lesion: the truth, of the same shape; lesions are its 26-connected components.

    Returns:
        0…1; 0 where there is no lesion.
    """
    return _over_lesions(probability, lesion, lambda chance: 1 - chance)


def unseen_lesions(probability: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
    """Mean over lesions of -log of their mean probability, counted as in :func:`missed_lesions`.

    Dice and :func:`missed_lesions` are straight in the probability, so that what the softmax gives back of their
    gradient is p (1 - p): a lesion that a network is sure not to see teaches it nothing. This one's is 1 - p.

    Args:
        probability, lesion: as in :func:`missed_lesions`.

    Returns:
        0 or more, with natural logarithms; 0 where there is no lesion.
    """
    return _over_lesions(probability, lesion, lambda chance: -torch.log(chance + _LEAST_CHANCE))


def _over_lesions(
    probability: torch.Tensor, lesion: torch.Tensor, price: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Mean over lesions, by diameter, of the price of their mean probability."""
    total, counted = probability.sum() * 0.0, 0.0
    for chance, mask in zip(probability.flatten(1), lesion.gt(0).cpu().numpy(), strict=True):
        sums, sizes = instance_sums(chance, mask)
        diameters = sizes ** (1 / 3)
        total = total + (diameters * price(sums[1:] / sizes)).sum()
        counted += float(diameters.sum())
    return total / max(counted, 1e-6)


def mistaken_lesions(probability: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
    """Mean of -log(1 - mean probability) over what is found and is no lesion; counted by diameter, among the lesions.

    What :func:`unseen_lesions` is for lesions, this is for false ones: a network that is sure of one learns nothing
    from its Dice. The diameters of true lesions are in the mean with a price of 0, so that a false lesion costs most
    where there is none.

    Args:
        probability: of lesion, [batch, k, j, i]; 0 where nobody knows the truth.
        lesion: the truth, of the same shape. False lesions are the 26-connected components of a probability above
            0.5 that hold no voxel of it; what reaches out of a true lesion is left to the other terms.

    Returns:
        0 or more, with natural logarithms; 0 where nothing false is found.
    """
    total, counted = probability.sum() * 0.0, 0.0
    found = probability.detach().gt(0.5).cpu().numpy()
    for chance, truth, region in zip(probability.flatten(1), lesion.gt(0), found, strict=True):
        (sums, true), sizes = instance_sums(torch.stack([chance, truth.flatten().to(chance.dtype)]), region)
        diameters = sizes ** (1 / 3) * true[1:].eq(0)
        _, true_sizes = instance_sums(chance, truth.cpu().numpy())
        total = total - (diameters * torch.log(1 - sums[1:] / sizes + _LEAST_CHANCE)).sum()
        counted += float(diameters.sum()) + float((true_sizes ** (1 / 3)).sum())
    return total / max(counted, 1e-6)


def cascade_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    lesion_weight: float = 2.0,
    false_lesion_weight: float = 0.0,
    missed_lesion_weight: float = 0.0,
    unseen_lesion_weight: float = 0.0,
    mistaken_lesion_weight: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy + Dice for liver against background, and the same for lesion against the rest where it is known.

    Args:
        logits: [batch, 2 or 3, k, j, i]; channels background, liver, lesion.
        target: [batch, k, j, i] with the values of :mod:`..samples`; 3 (liver of which nobody knows whether it is
            lesion) counts as liver in the first term and is left out of the second.
        lesion_weight: weight of the second term.
        false_lesion_weight: weight of log(1 + v / 500) in the second term, where v is the number of voxels that are
            taken for lesions and are none. It weighs a few false voxels almost as much as many, as a reader does.
            Alone it teaches silence: a small lesion gains less in Dice than its unsure voxels cost.
        missed_lesion_weight: weight of :func:`missed_lesions` in the second term.
        unseen_lesion_weight: weight of :func:`unseen_lesions` in the second term.
        mistaken_lesion_weight: weight of :func:`mistaken_lesions` in the second term.
    """
    log_probability = torch.log_softmax(logits.float(), dim=1)
    in_liver = target.ne(BACKGROUND).float()
    log_background = log_probability[:, 0]
    # log(1 - p) of the background, from the other channels, without cancellation.
    log_liver = torch.logsumexp(log_probability[:, 1:], dim=1)
    liver_entropy = -(in_liver * log_liver + (1 - in_liver) * log_background).mean()
    loss = liver_entropy + soft_dice_loss(log_liver.exp(), in_liver)
    if logits.shape[1] < 3:
        return loss
    known = target.ne(LIVER_OR_LESION)
    lesion = target.eq(LESION).float()
    log_lesion = log_probability[:, 2]
    log_other = torch.logsumexp(log_probability[:, :2], dim=1)
    entropy = -(lesion * log_lesion + (1 - lesion) * log_other)
    # Averaged over the liver and its surroundings rather than the patch: lesions are rare in a patch.
    weight = known * (0.1 + 0.9 * in_liver)
    lesion_loss = (entropy * weight).sum() / (weight.sum() + 1)
    if bool(lesion.any()):
        lesion_loss = lesion_loss + soft_dice_loss(log_lesion.exp() * known, lesion)
    if false_lesion_weight:
        false_voxels = (log_lesion.exp() * known * (1 - lesion)).sum()
        lesion_loss = lesion_loss + false_lesion_weight * torch.log1p(false_voxels / 500)
    if missed_lesion_weight:
        lesion_loss = lesion_loss + missed_lesion_weight * missed_lesions(log_lesion.exp(), lesion)
    if unseen_lesion_weight:
        lesion_loss = lesion_loss + unseen_lesion_weight * unseen_lesions(log_lesion.exp(), lesion)
    if mistaken_lesion_weight:
        lesion_loss = lesion_loss + mistaken_lesion_weight * mistaken_lesions(log_lesion.exp() * known, lesion)
    return loss + lesion_weight * lesion_loss
