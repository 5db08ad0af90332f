"""Checkpoints of other software, which are pickles: only numbers, texts and lists are let in, no code."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError


def read_numbers(path: Path, advice: str, types: Sequence[Any] = (), mapped: bool = False) -> Any:
    """What ``torch.save`` wrote to ``path``, without running anything from it.

    Args:
        path: a file that exists.
        advice: what to do where the file holds more than it may: a sentence.
        types: of NumPy that are let in beside PyTorch's tensors.
        mapped: leave the tensors on disk until they are used; files of PyTorch before 1.6 cannot be mapped.

    Raises:
        ModelError: damaged, or it holds more than numbers, lists and texts.
    """
    import torch

    try:
        with torch.serialization.safe_globals(list(types)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"The checkpoint {path} holds more than numbers and texts, and is not opened, because such files can run "
            f"programs: {first_line(error)} {advice}"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"The checkpoint {path} is damaged: {first_line(error)} Get the file again.") from error


def first_line(error: Exception) -> str:
    """What an error says, as one sentence."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if text.endswith(".") else f"{text}."
