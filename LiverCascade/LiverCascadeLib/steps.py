"""Work in steps: generators that yield between short pieces, so that a user interface stays alive between them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def exhausted(steps: Generator[None, None, T]) -> T:
    """Takes all steps at once; returns what the generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
