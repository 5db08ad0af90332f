"""What CTs without labels can teach: agreement with the averaged weights, or their sure answers as labels."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cross_entropy

from .config import UnlabeledSection


def ramp(step: int, section: UnlabeledSection) -> float:
    """Weight of the unlabeled part at ``step``: weight · exp(-5 (1 - t)²), t from 0 to 1 over the ramp."""
    if section.ramp_steps == 0:
        return section.weight
    share = min(1.0, step / section.ramp_steps)
    return section.weight * math.exp(-5 * (1 - share) ** 2)


def disturbed(image: torch.Tensor, noise: float) -> torch.Tensor:
    """What only the student sees: other contrast, brightness and noise of the CT channel.

    Args:
        image: [N, C, k, j, i]; the first channel is the CT, 0…1.
        noise: standard deviation.
    """
    shape = (len(image), 1, *[1] * (image.ndim - 2))
    contrast = 1 + 0.2 * (torch.rand(shape, device=image.device) - 0.5)
    shift = 0.1 * (torch.rand(shape, device=image.device) - 0.5)
    ct = image[:, :1]
    ct = (ct * contrast + shift + noise * torch.randn_like(ct)).clamp(0, 1)
    return torch.cat([ct, image[:, 1:]], dim=1)


def unlabeled_loss(student: torch.Tensor, teacher: torch.Tensor, section: UnlabeledSection) -> torch.Tensor:
    """The loss of one batch without labels.

    Args:
        student: logits of the network [N, C, …], with gradient.
        teacher: logits of the averaged weights on the undisturbed image, without gradient.
        section: method and threshold.
    """
    student, teacher = student.float(), teacher.float().detach()
    if section.method == "mean-teacher":
        return (student.softmax(dim=1) - teacher.softmax(dim=1)).square().mean()
    confidence, answer = teacher.softmax(dim=1).max(dim=1)
    sure = (confidence >= section.threshold).float()
    return (cross_entropy(student, answer, reduction="none") * sure).sum() / sure.sum().clamp(min=1)
