"""LiverCascade's engine, Slicer scene and panel."""

__version__ = "0.1.0"
