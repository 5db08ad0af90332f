"""Modules of a network under another class, with their weights and names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def swap_class(network: nn.Module, usual: type[nn.Module], special: type[nn.Module]) -> nn.Module:
    """Makes every module of a network that is a ``usual`` one a ``special`` one, which inherits from it.

    Returns:
        the same network.
    """
    for module in network.modules():
        # Exactly this class: one that inherits from it may do something else.
        if type(module) is usual:
            module.__class__ = special
    return network
