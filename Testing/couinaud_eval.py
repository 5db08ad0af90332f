"""Measures how well Couinaud's segments are found; run by hand. See docs/couinaud.md for the figures.

python Testing/couinaud_eval.py prior  DATA    writes lesions/couinaud_prior.py from DATA/labels_btcv
python Testing/couinaud_eval.py organs DATA    estimate against landmarks from organ labels, each case left out
python Testing/couinaud_eval.py vessels DATA   DATA/ircadb_17: against planes through segmented vessels
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
from couinaud_reference import OrganCase, organ_cases, vessel_case
from LiverCascadeLib.errors import InputError
from LiverCascadeLib.lesions import couinaud_planes, couinaud_prior
from LiverCascadeLib.lesions.couinaud import BY_VALUE, shares
from LiverCascadeLib.lesions.couinaud_landmarks import FISSURE, GALLBLADDER, IVC, PORTAL
from LiverCascadeLib.lesions.couinaud_planes import LiverDivider

KEYS = (IVC, GALLBLADDER, FISSURE, PORTAL)


def offsets(cases: list[OrganCase]) -> dict[str, np.ndarray]:
    """For each landmark: (n, 3), from the liver's centroid, mm, in the cases that show it."""
    return {
        key: np.array([np.array(c.landmarks[key]) - c.center for c in cases if key in c.landmarks]) for key in KEYS
    }


def write_prior(cases: list[OrganCase]) -> None:
    """Writes the mean offsets and their spread into the engine."""
    found = offsets(cases)
    lines = [
        '"""Where landmarks lie in a mean liver: written by Testing/couinaud_eval.py from organ label maps."""',
        "",
        "from __future__ import annotations",
        "",
        f"# How many livers the means are of; the fewest that show a landmark: {min(map(len, found.values()))}.",
        f"LIVERS = {len(cases)}",
        "# From the liver's centroid, RAS mm.",
        "OFFSETS: dict[str, tuple[float, float, float]] = {",
        *(f'    "{k}": ({", ".join(f"{n:.1f}" for n in v.mean(axis=0))}),' for k, v in found.items()),
        "}",
        "# Root mean square distance from the mean along one axis, mm.",
        "SPREADS: dict[str, float] = {",
        *(f'    "{k}": {np.sqrt(v.var(axis=0, ddof=1).mean()):.1f},' for k, v in found.items()),
        "}",
    ]
    Path(couinaud_prior.__file__).write_text("\n".join(lines) + "\n", encoding="utf-8")


def plain(labels: np.ndarray) -> np.ndarray:
    """IVa and IVb as IV, so that maps with and without a known portal plane can be compared."""
    return np.where(labels >= 9, 4, labels)


def same(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the liver's voxels with the same segment."""
    liver = one > 0
    return float((plain(one)[liver] == plain(other)[liver]).mean())


def side(labels: np.ndarray) -> np.ndarray:
    """1 left (II, III, IV), 2 right; the caudate counts as itself (3)."""
    return np.array([0, 3, 1, 1, 1, 2, 2, 2, 2, 1, 1])[labels]


def fractions(labels: np.ndarray) -> np.ndarray:
    """Parts of the liver in I … VIII, percent."""
    counts = np.bincount(plain(labels[labels > 0]), minlength=9)[1:9]
    return 100 * counts / counts.sum()


def measure_organs(cases: list[OrganCase]) -> None:
    """Estimates of a case that was left out, against the planes through its own landmarks."""
    full = dict(couinaud_prior.OFFSETS)
    kept, agreements, parts = [], [], {"estimate": [], "landmarks": []}
    for case in cases:
        couinaud_planes.OFFSETS.update(
            {k: tuple(v.mean(axis=0)) for k, v in offsets([c for c in cases if c is not case]).items()}
        )
        divider = LiverDivider(case.grid, case.liver)
        estimated = divider.divide().labels
        couinaud_planes.OFFSETS.update(full)
        parts["estimate"].append(fractions(estimated))
        if not set(KEYS) <= case.landmarks.keys():
            continue
        placed = divider.divide({key: [point] for key, point in case.landmarks.items()}).labels
        kept.append(case.name)
        parts["landmarks"].append(fractions(placed))
        known = (estimated > 0) & (placed > 0)
        halves = (side(estimated)[known] == side(placed)[known]).mean()
        sectors = [np.isin(estimated, v)[known] == np.isin(placed, v)[known] for v in ((2, 3), (4, 9, 10))]
        agreements.append([same(estimated, placed), halves, *(float(s.mean()) for s in sectors)])
    for name, rows in parts.items():
        table = np.array(rows)
        print(f"{name}, {len(table)} livers, percent of the liver in I … VIII (10th, 50th, 90th percentile):")
        for percentile in (10, 50, 90):
            print("   ", " ".join(f"{n:5.1f}" for n in np.percentile(table, percentile, axis=0)))
        groups = np.stack([table[:, 0], table[:, 1:3].sum(1), table[:, 3], table[:, 4:].sum(1)], axis=1)
        print("    mean I, II+III, IV, V-VIII:", groups.mean(axis=0).round(1), "sd", groups.std(axis=0).round(1))
    table = 100 * np.array(agreements)
    print(f"{len(kept)} livers: same segment, same half, II+III or not, IV or not; percent")
    for title, row in (("mean", table.mean(axis=0)), ("lowest", table.min(axis=0)), ("highest", table.max(axis=0))):
        print(f"    {title:8}", " ".join(f"{n:5.1f}" for n in row))


def measure_vessels(folder: Path) -> None:
    """Without and with landmarks, against planes through all voxels of segmented veins."""
    case = vessel_case(folder)
    started = time.perf_counter()
    divider = LiverDivider(case.grid, case.liver)
    print(f"prepared in {time.perf_counter() - started:.2f} s")
    reference, strict = case.divided(case.planes), case.divided(case.strict)
    for title, landmarks in (("none", {}), *case.landmark_sets.items()):
        started = time.perf_counter()
        labels = divider.divide(landmarks).labels
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        divider.preview(landmarks)
        preview = 1000 * (time.perf_counter() - started)
        halves = (side(labels)[case.liver] == side(reference)[case.liver]).mean()
        print(f"{title}: same segment {same(reference, labels):.1%}, same half {halves:.1%}, ", end="")
        print(f"{same(strict, labels):.1%} with one portal plane in the reference; ", end="")
        print(f"{seconds:.2f} s, preview {preview:.0f} ms")
        print("    parts", fractions(labels).round(1), "reference", fractions(reference).round(1))
        for number, lesion in enumerate(case.lesions, start=1):
            ours, theirs = (shares(plain(x), lesion & case.liver) for x in (labels, reference))
            equal = (plain(labels)[lesion & case.liver] == plain(reference)[lesion & case.liver]).mean()
            texts = [", ".join(f"{BY_VALUE[s.value].name} {s.fraction:.0%}" for s in x) for x in (ours, theirs)]
            print(f"    lesion {number}: {texts[0]} | reference {texts[1]} | same {equal:.0%}")
    print(
        f"one portal plane for both halves in the reference: {same(case.divided(case.strict), reference):.1%} the same"
    )
    exact = case.landmark_sets["one point each"]
    rng = np.random.default_rng(17)
    for error in (5.0, 10.0):
        found = []
        for _ in range(20):
            moved = {key: np.array(points) + rng.normal(0, error, (len(points), 3)) for key, points in exact.items()}
            with contextlib.suppress(InputError):
                found.append(same(reference, divider.divide(moved).labels))
        text = f"{np.mean(found):.1%}, lowest {min(found):.1%}, {20 - len(found)} of 20 refused"
        print(f"one point each, off by {error:.0f} mm along each axis: {text}")


if __name__ == "__main__":
    task, data = sys.argv[1], Path(sys.argv[2])
    if task == "vessels":
        measure_vessels(data / "ircadb_17")
    else:
        organs = organ_cases(data / "labels_btcv")
        write_prior(organs) if task == "prior" else measure_organs(organs)
