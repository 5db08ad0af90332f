"""Data sets: what lies in a folder, whether it can be used, how it is split, prepared, and cut into samples."""
