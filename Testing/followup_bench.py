"""How often lesions are matched rightly: many synthetic pairs, and one registration at full size.

    python Testing/followup_bench.py example chaos_03 --pairs 10
    python Testing/followup_bench.py ircadb_17 --pairs 12 --first-seed 101

Every lesion of both studies counts: as many as the truth links or leaves alone. A lesion is matched rightly if the
comparison puts exactly the right lesions of both studies together; its category is right if it is that of the true
masks. Where voxels are so coarse that the true masks do not show the change that was planned, that is said.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "LiverCascade"), str(ROOT / "Testing")]

from followup_pairs import Case, Link, Pair, Recipe, cropped, make_pair  # noqa: E402
from LiverCascadeLib.followup import Change, FollowUp, follow_up, study_of  # noqa: E402
from LiverCascadeLib.followup.comparison import change_of_volume  # noqa: E402
from LiverCascadeLib.lesions.assess import assess  # noqa: E402
from LiverCascadeLib.volume import read_labels, read_volume  # noqa: E402

SHARED = ROOT.parent / "shared" / "data"
CHANGES = {
    "stable": Change.STABLE,
    "grown": Change.GROWN,
    "shrunk": Change.SHRUNK,
    "resolved": Change.RESOLVED,
    "new": Change.NEW,
    "split": Change.SPLIT,
    "merged": Change.MERGED,
}


def read_case(name: str) -> Case:
    """'example', or a folder of the shared data that has a liver."""
    if name == "example":
        folder = ROOT / "LiverCascade" / "Resources" / "SampleData"
        labels, _ = read_labels(folder / "synthetic_abdomen_truth.nii.gz")
        return Case(read_volume(folder / "synthetic_abdomen.nii.gz"), labels)
    folder = SHARED / name
    with tempfile.TemporaryDirectory() as scratch:
        if name == "ircadb_17":
            return _ircadb(folder, Path(scratch))
        labels, _ = read_labels(folder / "liver.nii.gz")
        if (folder / "series.zip").exists():
            with zipfile.ZipFile(folder / "series.zip") as archive:
                archive.extractall(scratch)
            volume = read_volume(scratch)
        else:
            volume = read_volume(folder / "ct.nii.gz")
    return Case(volume, (labels > 0).astype(np.uint8))


def _ircadb(folder: Path, scratch: Path) -> Case:
    for name in ("PATIENT_DICOM", "MASKS_DICOM"):
        with zipfile.ZipFile(folder / f"{name}.zip") as archive:
            archive.extractall(scratch / name)
    volume = read_volume(scratch / "PATIENT_DICOM")
    labels = np.zeros(volume.grid.shape, np.uint8)
    for structure, value in (("liver", 1), ("livertumor1", 2), ("livertumor2", 3)):
        path = next(path for path in (scratch / "MASKS_DICOM").rglob(structure) if path.is_dir())
        labels[read_volume(path).array > 0] = value
    return Case(volume, labels)


def compared(pair: Pair) -> FollowUp:
    """The comparison of a pair."""
    studies = [
        study_of(assess(case.volume, case.labels), name=name)
        for case, name in ((pair.earlier, "earlier"), (pair.later, "later"))
    ]
    return follow_up(studies)


def true_change(pair: Pair, link: Link) -> Change:
    """What the true masks of a lesion say; on coarse voxels, that can be another thing than what was planned."""
    if link.fate in ("split", "merged", "new", "resolved"):
        return CHANGES[link.fate]
    volumes = [
        int((case.labels == labels[0]).sum()) * case.volume.grid.voxel_volume_mm3 / 1000
        for case, labels in ((pair.earlier, link.before), (pair.later, link.after))
    ]
    return change_of_volume(*volumes)


def verdict(pair: Pair, found: FollowUp) -> tuple[int, int, list[str], list[str]]:
    """(lesions matched rightly, all lesions, wrong matches, wrong categories) of a comparison."""
    sites = {}
    for track in found.tracks:
        key = tuple(frozenset(lesion.label for lesion in lesions) for lesions in track.lesions)
        sites[key] = track
    right, total, wrong_matches, wrong_changes = 0, 0, [], []
    for link in pair.links:
        count = max(len(link.before), len(link.after))
        total += count
        track = sites.get((frozenset(link.before), frozenset(link.after)))
        what = f"{link.fate} {link.before} -> {link.after}"
        if track is None:
            wrong_matches.append(what)
            continue
        right += count
        if track.changes[1] is not true_change(pair, link):
            wrong_changes.append(f"{what}: {track.changes[1]}")
    return right, total, wrong_matches, wrong_changes


def main() -> None:
    """Runs the benchmark and prints a line per pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", help="example, chaos_03, lits_000, ircadb_17")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--amplitude", type=float, default=20.0, help="largest displacement in mm")
    parser.add_argument("--whole", action="store_true", help="do not crop the earlier study to the liver")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    totals, seconds, counted = np.zeros(2, int), [], 0
    bad_categories = unlike_plan = 0
    for name in options.cases:
        case = read_case(name)
        case = case if options.whole else cropped(case)
        seed = options.first_seed - 1
        done = 0
        while done < options.pairs:
            seed += 1
            try:
                pair = make_pair(case, Recipe(seed, amplitude_mm=options.amplitude))
            except AssertionError:  # a deformation that no liver undergoes
                continue
            done += 1
            started = time.perf_counter()
            found = compared(pair)
            seconds.append(time.perf_counter() - started)
            right, total, matches, changes = verdict(pair, found)
            totals += (right, total)
            bad_categories += len(changes)
            unlike_plan += sum(
                link.fate in CHANGES and true_change(pair, link) is not CHANGES[link.fate] for link in pair.links
            )
            counted += 1
            error = np.linalg.norm(found.steps[0].registration.deformation.apply(pair.points) - pair.images, axis=1)
            quality = found.steps[0].registration.quality
            print(
                f"{name} {seed}: {right}/{total} right, error {error.mean():.1f} mm (95 %: "
                f"{np.percentile(error, 95):.1f}), Dice {quality.rigid_dice:.3f} -> {quality.dice:.3f}, Jacobian >= "
                f"{quality.smallest_jacobian:.2f}, {seconds[-1]:.1f} s",
                *matches,
                *changes,
                flush=True,
            )
    print(
        f"{counted} pairs: {totals[0]} of {totals[1]} lesions matched rightly ({100 * totals[0] / totals[1]:.1f} %), "
        f"{bad_categories} wrong categories among them ({unlike_plan} lesions whose voxels do not show the planned "
        f"change); median {np.median(seconds):.1f} s, longest "
        f"{max(seconds):.1f} s"
    )


if __name__ == "__main__":
    main()
