"""Stands for the process that writes MRML, where a test is about something else."""

from __future__ import annotations

from LiverCascadeLib.report.overview import Rendering


class NoScene:
    """Writes nothing and draws nothing."""

    def __init__(self, scratch):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def prepare(self, volume):
        pass

    def start(self, result, folder):
        pass

    def finish(self, progress):
        return Rendering(None, "no scene")
