"""The panel in Slicer: the only room that touches Qt. Each file is one concern; ``panel.py`` puts them together."""
