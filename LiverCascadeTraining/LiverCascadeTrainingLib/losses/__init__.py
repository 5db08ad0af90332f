"""Losses by name, and the terms that they are made of."""

from __future__ import annotations

from .build import LOSSES, Loss, build_loss, loss_settings
from .cascade import cascade_loss, missed_lesions, mistaken_lesions, soft_dice_loss, unseen_lesions
from .questions import Question, ask_labels, ask_segments
from .terms import signed_distances

__all__ = [
    "LOSSES",
    "Loss",
    "Question",
    "ask_labels",
    "ask_segments",
    "build_loss",
    "cascade_loss",
    "loss_settings",
    "missed_lesions",
    "mistaken_lesions",
    "signed_distances",
    "soft_dice_loss",
    "unseen_lesions",
]
