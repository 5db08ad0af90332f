"""Memory that is kept while networks compute, and given back afterwards."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from LiverCascadeLib import allocator

SCRIPT = """
import numpy as np, psutil
from LiverCascadeLib.allocator import give_back_freed_memory, keep_freed_memory
assert keep_freed_memory()
def resident():
    return psutil.Process().memory_info().rss / 1e6
before = resident()
block = np.ones(200_000_000, np.uint8)
del block
kept = resident() - before
give_back_freed_memory()
print(kept, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is what is told")
def test_freed_memory_is_kept_and_given_back_on_request():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment()
    )
    kept, left = map(float, done.stdout.split())
    assert kept > 150
    assert left < 50


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(allocator.__file__).parents[1])}


def test_elsewhere_than_with_glibc_nothing_is_touched(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("the C library was asked"))
    assert not allocator.keep_freed_memory()
    allocator.give_back_freed_memory()
