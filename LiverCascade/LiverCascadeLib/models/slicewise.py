"""2D and 2.5D networks behind the face of a 3D one: slice by slice, with neighboring slices as channels."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def neighbors(patch: torch.Tensor, context: int) -> torch.Tensor:
    """Each slice of a patch with its neighbors as channels.

    Beyond the patch the outermost slice is repeated.

    Args:
        patch: [N, C, k, j, i].
        context: slices on either side.

    Returns:
        [N, k, C · (2 · context + 1), j, i]; for each channel of the patch the slices from -context to +context.
    """
    import torch

    count = patch.shape[2]
    offsets = torch.arange(-context, context + 1, device=patch.device)
    places = (torch.arange(count, device=patch.device)[:, None] + offsets).clamp_(0, count - 1)
    return patch[:, :, places].permute(0, 2, 1, 3, 4, 5).flatten(2, 3)


def _finest_first(answer: torch.Tensor | Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], bool]:
    """What a 2D network gave as a list, and whether it was one answer: deep supervision gives lists, or stacks."""
    if isinstance(answer, list | tuple):
        return list(answer), False
    return (list(answer.unbind(1)), False) if answer.ndim == 5 else ([answer], True)


@cache
def _slice_wise() -> type[torch.nn.Module]:
    import torch

    from .networks import build_network

    class SliceWise(torch.nn.Module):
        """Applies a 2D network to every axial slice of a patch.

        Args:
            architecture, arguments: of the 2D network, from the allow-list; its input channels are those of the patch,
                each 2 · context + 1 times, in the order of :func:`neighbors`.
            context: slices on either side that the network sees too: 0 is 2D, 1 and above 2.5D.
            slices_at_once: slices per pass outside training, so that a thick patch does not need much memory.
        """

        def __init__(self, architecture: str, arguments: dict[str, Any], context: int = 0, slices_at_once: int = 16):
            super().__init__()
            if context < 0 or slices_at_once < 1:
                raise ValueError(f"context is {context}, slices_at_once {slices_at_once}: expected ≥ 0 and ≥ 1")
            self.context, self.slices_at_once = context, slices_at_once
            self.network = build_network(architecture, arguments)

        def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
            """Logits [N, C, k, j, i] of a patch [N, C, k, j, i], or [N, C, j, i] of slices that have their neighbors.

            A network with deep supervision gives a list in training, finest first.
            """
            if image.ndim == 4:
                parts, whole = _finest_first(self.network(image))
                return parts if not whole else parts[0]
            cases, slices = image.shape[0], image.shape[2]
            stack = neighbors(image, self.context).flatten(0, 1)
            if self.training:
                parts, whole = _finest_first(self.network(stack))
            else:
                parts = [torch.cat([self.network(part) for part in stack.split(self.slices_at_once)])]
                whole = True
            parts = [part.unflatten(0, (cases, slices)).transpose(1, 2) for part in parts]
            return parts[0] if whole else parts

        def _apply(self, function, recurse=True):
            """As PyTorch's, for patches' memory formats too: a 2D kernel takes them as a 3D one of one slice."""

            def on_planes(tensor: torch.Tensor) -> torch.Tensor:
                try:
                    return function(tensor)
                except RuntimeError as error:
                    if tensor.ndim != 4 or "channels_last_3d" not in str(error):
                        raise
                    return function(tensor.unsqueeze(2)).squeeze(2)

            return super()._apply(on_planes, recurse)

    SliceWise.__qualname__ = "SliceWise"
    return SliceWise


def __getattr__(name: str) -> type:
    """The class is made when it is first asked for, so that importing this file does not import PyTorch."""
    if name == "SliceWise":
        return _slice_wise()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
