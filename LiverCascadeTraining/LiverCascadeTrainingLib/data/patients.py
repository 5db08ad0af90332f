"""Patients that are in several public data sets: what is known, and where it is known from."""

from __future__ import annotations

from collections.abc import Iterable

# LiTS training volumes 28 … 47 are the 20 patients of 3D-IRCADb-01, in its order. Known from: these, and no others,
# have an identity affine (github.com/PatrickChrist/LITS-CHALLENGE, issue 14); the slice counts of LiTS agree with the
# table of 3D-IRCADb (ircad.fr, 'liver-segmentation-3d-ircadb-01'), where 18 of 20 differ from one another; the liver
# masks of LiTS 44 and IRCADb 17 are the same voxels.
LITS_OF_IRCADB = {patient: 27 + patient for patient in range(1, 21)}

# Another count has IRCADb 18, 19, 20 = LiTS 46, 47, 48 (github.com/assassint2017/MICCAI-LITS2017, issue 33). Slice
# counts speak against it (IRCADb 18 has 74 slices, as LiTS 45). It is kept together all the same: to separate them
# wrongly would leak, to keep them together costs nothing.
DISPUTED = (("ircadb:18", "lits:46"), ("ircadb:19", "lits:47"), ("ircadb:20", "lits:48"))

# MSD Task03 consists of the LiTS volumes, and 'liver_N' has the number of 'volume-N' (Antonelli et al., 'The Medical
# Segmentation Decathlon', 2022; Bilic et al., 'The Liver Tumor Segmentation Benchmark', 2023).
_LITS_TRAINING = range(131)

# Voxel sizes of 3D-IRCADb-01: (mm within slices, mm between them, number of slices), from the table on ircad.fr. LiTS
# and MSD lost them for these patients. Within slices they are rounded to 0.01 mm.
IRCADB_VOXELS = {
    1: (0.57, 1.6, 129), 2: (0.78, 1.6, 172), 3: (0.62, 1.25, 200), 4: (0.74, 2.0, 91), 5: (0.78, 1.6, 139),
    6: (0.78, 1.6, 135), 7: (0.78, 1.6, 151), 8: (0.56, 1.6, 124), 9: (0.87, 2.0, 111), 10: (0.73, 1.6, 122),
    11: (0.72, 1.6, 132), 12: (0.68, 1.0, 260), 13: (0.67, 1.6, 122), 14: (0.72, 1.6, 113), 15: (0.78, 1.6, 125),
    16: (0.70, 1.6, 155), 17: (0.74, 1.6, 119), 18: (0.74, 2.5, 74), 19: (0.70, 4.0, 124), 20: (0.81, 2.0, 225),
}  # fmt: skip


def known_links() -> list[tuple[str, str, str]]:
    """Pairs of patient identifiers that are or may be one person, each with the reason."""
    links = [(f"ircadb:{i}", f"lits:{n}", "3D-IRCADb in LiTS") for i, n in LITS_OF_IRCADB.items()]
    links += [(a, b, "3D-IRCADb in LiTS, disputed") for a, b in DISPUTED]
    return links + [(f"lits:{n}", f"msd:liver_{n}", "LiTS in MSD Task03") for n in _LITS_TRAINING]


def ircadb_number(patient: str) -> int | None:
    """The number within 3D-IRCADb of a patient of LiTS, MSD or 3D-IRCADb; None where there is none."""
    head, _, tail = patient.partition(":")
    digits = tail.removeprefix("liver_")
    if head not in ("lits", "msd", "ircadb") or not digits.isdigit():
        return None
    number = int(digits) - (0 if head == "ircadb" else 27)
    return number if number in IRCADB_VOXELS else None


class Linked:
    """Items that belong together, directly or through others, each link with a reason (union-find)."""

    def __init__(self, items: Iterable[str]):
        self._parent = {item: item for item in items}
        self._reasons: list[tuple[str, str]] = []

    def add(self, first: str, second: str, reason: str) -> None:
        """Says that two items belong together; items that are not there are passed over."""
        if first in self._parent and second in self._parent:
            roots = sorted((self._root(first), self._root(second)))
            self._parent[roots[1]] = roots[0]
            self._reasons.append((first, reason))

    def _root(self, item: str) -> str:
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def groups(self) -> list[tuple[list[str], list[str]]]:
        """(items, reasons) of each group, both sorted, in the order of the first items."""
        found: dict[str, list[str]] = {}
        for item in sorted(self._parent):
            found.setdefault(self._root(item), []).append(item)
        reasons: dict[str, set[str]] = {root: set() for root in found}
        for item, reason in self._reasons:
            reasons[self._root(item)].add(reason)
        return [(found[root], sorted(reasons[root])) for root in sorted(found)]
