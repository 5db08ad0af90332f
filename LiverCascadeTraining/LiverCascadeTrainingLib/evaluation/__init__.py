"""How well label maps agree with references: each figure is defined once, where it is computed.

``agreement`` has the few figures of a model card; ``cases`` has all figures of one case, ``pooled`` those of a data
set, ``comparison`` those of two and more models, ``command`` is the command line.
"""

from __future__ import annotations

from .agreement import LESION_HIT_IOU, compare, compare_files, lesion_counts
from .files import in_order_of
from .overlap import dice
from .surfaces import surface_distance_95

__all__ = [
    "LESION_HIT_IOU",
    "compare",
    "compare_files",
    "dice",
    "in_order_of",
    "lesion_counts",
    "surface_distance_95",
]
