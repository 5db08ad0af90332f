"""Several questions to one network: is it liver, is that lesion, and which segment is it?"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

LEVELS = ("liver", "lesion", "couinaud")
ANSWERS = ("labels", "couinaud", "all")
# Log-probability of what does not happen; a manifest has a channel for 'liver' in any case.
NEVER = -30.0


@cache
def _multi_level() -> type[torch.nn.Module]:
    import torch
    from monai.networks.blocks import Convolution
    from torch.nn.functional import log_softmax, logsigmoid

    from .networks import build_network

    class MultiLevel(torch.nn.Module):
        """One trunk with one head per level, put together so that a softmax over the labels is right.

        The liver's head says whether a voxel is liver (lesions included), the lesion's head whether liver is lesion,
        and Couinaud's head which segment liver is. With l, m and s their logits, the labels' channels are
        log σ(-l) for background, log σ(l) + log σ(-m) for parenchyma and log σ(l) + log σ(m) for lesion: logarithms of
        probabilities that sum to one, which a softmax leaves as they are.

        Args:
            architecture, arguments: of the trunk, from the allow-list; its output channels are the heads' input.
            features: output channels of the trunk.
            levels: 'liver', and any of 'lesion' and 'couinaud'.
            segments: number of Couinaud segments.
            spatial_dims: 3, or 2 where the trunk is given slices.
            answer: what comes out in evaluation mode: 'labels' (background, liver and, with that level, lesion),
                'couinaud' (background, liver without a segment, which does not happen, and the segments), or 'all',
                which is also what comes out in training: the labels' channels, then the segments' logits among
                themselves.
        """

        def __init__(
            self,
            architecture: str,
            arguments: dict[str, Any],
            features: int,
            levels: Sequence[str] = LEVELS,
            segments: int = 8,
            spatial_dims: int = 3,
            answer: str = "labels",
        ):
            super().__init__()
            if "liver" not in levels or any(level not in LEVELS for level in levels):
                raise ValueError(f"levels is {list(levels)}, expected 'liver' and any of 'lesion', 'couinaud'")
            if answer not in ANSWERS or (answer == "couinaud" and "couinaud" not in levels):
                raise ValueError(f"answer is {answer!r} with the levels {', '.join(levels)}")
            self.levels, self.answer = tuple(level for level in LEVELS if level in levels), answer
            self.trunk = build_network(architecture, arguments)
            widths = {"liver": 1, "lesion": 1, "couinaud": segments}
            act, norm = ("leakyrelu", {"inplace": True}), ("instance", {"affine": True})
            self.heads = torch.nn.ModuleDict(
                {
                    level: torch.nn.Sequential(
                        Convolution(spatial_dims, features, features, kernel_size=3, act=act, norm=norm),
                        Convolution(spatial_dims, features, widths[level], kernel_size=1, conv_only=True),
                    )
                    for level in self.levels
                }
            )

        def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
            features = self.trunk(image)
            if torch.is_tensor(features) and features.ndim == image.ndim:
                return self._answer(features)
            # A trunk with deep supervision: a list, or stacked behind the batch.
            parts = features if isinstance(features, list | tuple) else features.unbind(1)
            return [self._answer(part) for part in parts]

        def _answer(self, features: torch.Tensor) -> torch.Tensor:
            logits = {level: head(features).float() for level, head in self.heads.items()}
            inside = logsigmoid(logits["liver"])
            channels = [logsigmoid(-logits["liver"])]
            if "lesion" in logits:
                channels += [inside + logsigmoid(-logits["lesion"]), inside + logsigmoid(logits["lesion"])]
            else:
                channels.append(inside)
            answer = "all" if self.training else self.answer
            if answer == "couinaud":
                channels = [channels[0], inside + NEVER, inside + log_softmax(logits["couinaud"], dim=1)]
            elif answer == "all" and "couinaud" in logits:
                channels.append(logits["couinaud"])
            return torch.cat(channels, dim=1)

    MultiLevel.__qualname__ = "MultiLevel"
    return MultiLevel


def __getattr__(name: str) -> type:
    """The class is made when it is first asked for, so that importing this file does not import PyTorch."""
    if name == "MultiLevel":
        return _multi_level()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
