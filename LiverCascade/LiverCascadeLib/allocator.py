"""Memory that the networks free and want again a moment later."""

from __future__ import annotations

import ctypes
import platform

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES, _LARGEST_BYTES, _PAD_BYTES = 2_000_000_000, 500_000_000, 64 << 20


def keep_freed_memory() -> bool:
    """Has this process keep memory that it frees, for its next use; returns whether that was possible.

    Each layer of a network takes some hundred megabytes and frees them again. By default glibc gives blocks of that
    size back to the system at once, and the system clears every page before it hands it out anew: a seventh of a run
    on the CPU. For processes that do nothing else than segment; elsewhere than on Linux with glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    options = ((_M_MMAP_THRESHOLD, _LARGEST_BYTES), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _PAD_BYTES))
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(option, value) == 1 for option, value in options])


def give_back_freed_memory() -> None:
    """Gives the memory that :func:`keep_freed_memory` kept back to the system: the process has nothing to do now."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
