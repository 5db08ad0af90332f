"""Two tiny cases that any network must be able to learn by heart, and settings that make every preset tiny."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from LiverCascadeLib.models import build_network
from LiverCascadeTrainingLib.losses import build_loss
from LiverCascadeTrainingLib.networks import build, outputs_of
from torch.nn.functional import one_hot


@dataclass(frozen=True)
class Tiny:
    """A preset made tiny.

    Attributes:
        patch_size: along (R, A, S).
        changes: arguments that are others than the preset's.
        learning_rate: of Adam, with which it learns the two cases.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    patch_size: tuple[int, int, int] = (32, 32, 16)
    learning_rate: float = 5e-3


_THREE = {"channels": [8, 16, 32]}
_PLANAR = (32, 32, 8)
TINY: dict[str, Tiny] = {
    "unet": Tiny(_THREE),
    "residual-unet": Tiny({**_THREE, "strides": [2, 2]}),
    "dynunet": Tiny({"filters": [8, 16, 16, 16]}),
    "segresnet": Tiny({"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}),
    "attention-unet": Tiny({**_THREE, "strides": [2, 2]}),
    "unetr": Tiny({"feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4}, learning_rate=2e-3),
    "swin-unetr": Tiny({"feature_size": 12, "depths": [1, 1, 1, 1], "window_size": 4}, (64, 32, 32), 2e-3),
    "transunet": Tiny({**_THREE, "hidden_size": 48, "num_heads": 4, "mlp_dim": 96, "num_layers": 2}),
    "transunet-2d": Tiny({**_THREE, "hidden_size": 48, "num_heads": 4, "mlp_dim": 96, "num_layers": 2}, _PLANAR),
    "unet-2d": Tiny(_THREE, _PLANAR),
    "unet-2.5d": Tiny(_THREE, _PLANAR),
    "unet-resnet34-2.5d": Tiny({"encoder": "resnet18", "decoder_channels": [32, 16, 8]}, _PLANAR),
    "fcn": Tiny({}, (64, 64, 1), 1e-3),
    "deeplabv3plus": Tiny({"encoder": "resnet18", "decoder_channels": 32}, (64, 64, 4)),
    "multi-level": Tiny({"filters": [8, 16, 16, 16], "features": 8}),
}
# Networks of packages that are not MONAI.
FURTHER_PACKAGES = {"fcn", "deeplabv3plus", "unet-resnet34-2.5d"}


def build_tiny(name: str, in_channels: int = 1, out_channels: int = 3, **more: Any) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments of a preset made tiny."""
    tiny = TINY[name]
    return build(name, in_channels, out_channels, tiny.patch_size, (2.0, 2.0, 4.0), **tiny.changes, **more)


def two_cases(patch_size: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    """A batch of two patches: a liver with two lesions each, noise, and eight segments.

    Args:
        patch_size: along (R, A, S).

    Returns:
        'image' [2, 1, k, j, i], 'target' and 'couinaud' [2, k, j, i].
    """
    shape = np.array(patch_size[::-1])
    place = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij"))

    def ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
        # Flat patches are cut through the middle of everything.
        scale = np.array([0.4 if shape[0] < 16 else 0.8, 1, 1])[:, None, None, None]
        return (((place - np.array(center)[:, None, None, None]) * scale) ** 2).sum(axis=0) < radius**2

    random = np.random.default_rng(2026)
    batch: dict[str, list[torch.Tensor]] = {"image": [], "target": [], "couinaud": []}
    for liver, lesions in (
        ((0.5, 0.5, 0.45), (((0.45, 0.38, 0.4), 0.13), ((0.55, 0.65, 0.5), 0.1))),
        ((0.5, 0.45, 0.55), (((0.5, 0.5, 0.7), 0.13), ((0.5, 0.38, 0.42), 0.1))),
    ):
        target = ball(liver, 0.36).astype(np.int64)
        for center, radius in lesions:
            target[ball(center, radius)] = 2
        image = np.choose(target, [0.3, 0.6, 0.42]) + random.normal(0, 0.03, shape)
        octant = sum((place[a] > liver[a]).astype(np.int64) << a for a in range(3))
        batch["image"].append(torch.from_numpy(image[None].astype(np.float32)))
        batch["target"].append(torch.from_numpy(target))
        batch["couinaud"].append(torch.from_numpy(np.where(target > 0, octant + 1, 0)))
    return {key: torch.stack(values) for key, values in batch.items()}


def foreground_dice(logits: torch.Tensor, target: torch.Tensor) -> list[float]:
    """Dice of the liver with its lesions and, where there are three labels, of the lesions.

    Args:
        logits: [N, 2 or more, …]; what follows the third channel is not looked at.
        target: [N, …].
    """
    found = logits[:, :3].argmax(dim=1)
    pairs = [(found > 0, target > 0)] + ([(found == 2, target == 2)] if logits.shape[1] > 2 else [])
    return [2 * int((a & b).sum()) / max(1, int(a.sum() + b.sum())) for a, b in pairs]


def segment_dice(logits: torch.Tensor, couinaud: torch.Tensor) -> float:
    """Mean Dice over the segments of logits [N, 3 + 8, …], inside the liver."""
    inside = couinaud > 0
    found, true = logits[:, 3:].argmax(dim=1)[inside], couinaud[inside] - 1
    a, b = one_hot(found, 8).sum(0), one_hot(true, 8).sum(0)
    both = (one_hot(found, 8) & one_hot(true, 8)).sum(0)
    return float((2 * both / (a + b).clamp(min=1))[b > 0].mean())


@dataclass
class Learned:
    """What came of learning by heart.

    Attributes:
        network: in evaluation mode.
        losses: at each step.
        dice: as of :func:`foreground_dice`, in evaluation mode.
    """

    network: torch.nn.Module
    losses: list[float]
    dice: list[float]


def learn_by_heart(
    network: torch.nn.Module,
    batch: dict[str, torch.Tensor],
    loss: Callable,
    learning_rate: float = 5e-3,
    steps: int = 150,
    enough: float = 0.92,
    autocast: bool = False,
    every: int = 10,
) -> Learned:
    """Trains on one batch until every foreground label has a Dice of ``enough``, at most ``steps`` steps."""
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    losses: list[float] = []
    dice = [0.0]
    while len(losses) < steps and min(dice) < enough:
        network.train()
        for _ in range(every):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                outputs = outputs_of(network(batch["image"]))
            value, _ = loss(outputs, batch)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
            optimizer.step()
            losses.append(float(value.detach()))
        network.eval()
        with torch.inference_mode():
            dice = foreground_dice(outputs_of(network(batch["image"]))[0], batch["target"])
    return Learned(network.eval(), losses, dice)


def learn_preset(name: str, loss: str = "dice-ce", steps: int = 150) -> Learned:
    """Has a preset, made tiny, learn the two cases."""
    torch.manual_seed(0)
    tiny = TINY[name]
    network = build_network(*build_tiny(name))
    return learn_by_heart(network, two_cases(tiny.patch_size), build_loss(loss), tiny.learning_rate, steps)
