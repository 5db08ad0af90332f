"""Keeps None, True and False alive under PySide 6.12 on Python 3.11.

From Python 3.12 on these three are immortal, and PySide 6.12 relies on it: its functions return them without taking a
reference, so that Python 3.11 would end with "none_dealloc" after some ten thousand calls. A count out of reach does
what immortality does.
"""

from __future__ import annotations

import ctypes
import sys


def keepAlive() -> None:
    """To be called once, before PySide is used much."""
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40
