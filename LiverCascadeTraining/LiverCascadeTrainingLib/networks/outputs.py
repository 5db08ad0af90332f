"""What networks give, in one form."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def outputs_of(output: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Logits as a list, finest first, of what a network gave.

    Args:
        output: [N, C, …]; or, from deep supervision, a list of such, or a stack [N, outputs, C, k, j, i].
    """
    if isinstance(output, list | tuple):
        return list(output)
    return list(output.unbind(1)) if output.ndim == 6 else [output]
