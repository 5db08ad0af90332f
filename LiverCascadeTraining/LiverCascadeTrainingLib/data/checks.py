"""Everything that can be told about a data set before training: all problems of all cases in one report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from LiverCascadeLib.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError, ResourceError
from LiverCascadeLib.findings import Severity
from LiverCascadeLib.postprocess import components
from LiverCascadeLib.preflight import judge_coverage, judge_orientation, preflight
from LiverCascadeLib.volume import Volume

from .layouts import LESION, Study, find_studies
from .patients import Linked, ircadb_number, known_links
from .reading import StudyError, soft_tissue_share
from .repairs import LIVER_ML, LoadedStudy, Repair, load_study

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

FEW_SLICES = 16
# Voxel sizes of abdominal CT, in mm: within slices and between them.
SPACING_WITHIN = (0.3, 1.6)
SPACING_BETWEEN = (0.4, 8.0)
# Less of a liver than this has a liver's density where the label is not of this image.
LEAST_SOFT_TISSUE = 0.6
# A second piece of liver above this share of the whole is worth a look.
LARGE_PIECE = 0.05
# Lesions with more than this share of their voxels away from the liver.
MOST_OUTSIDE = 0.5

# Every check by name: how much it matters, and what it says.
CHECKS: dict[str, tuple[Severity, str]] = {
    "missing-image": (ERROR, "a label map without its CT"),
    "missing-label": (ERROR, "a CT without its labels"),
    "missing-couinaud": (ERROR, "a table names Couinaud labels that are not there"),
    "unreadable": (ERROR, "a file that is damaged, or no image"),
    "grid-mismatch": (ERROR, "labels that do not have the voxels of their CT"),
    "label-empty": (ERROR, "a label map without liver"),
    "label-out-of-range": (ERROR, "label values that mean nothing"),
    "label-elsewhere": (ERROR, "a liver label that does not lie on tissue of a liver's density"),
    "not-ct": (ERROR, "values that are no Hounsfield units"),
    "few-slices": (ERROR, f"fewer than {FEW_SLICES} slices"),
    "identity-affine": (ERROR, "a header without voxel size and orientation, and nobody knows them"),
    "orientation": (ERROR, "a header that contradicts where liver, lungs and spine lie"),
    "duplicate-label": (ERROR, "two CTs with the same label map"),
    "duplicate-content": (WARNING, "the same CT twice; both go into the same part of a split"),
    "same-patient": (INFO, "a patient who is in several data sets; kept in the same part of a split"),
    "spacing-odd": (WARNING, "voxels of a size that abdominal CT does not have"),
    "liver-volume": (WARNING, "a liver of an unlikely volume"),
    "liver-pieces": (WARNING, "a liver in several large pieces"),
    "liver-cut": (INFO, "a liver that goes on beyond the scan"),
    "lesion-outside-liver": (WARNING, "lesions away from the liver"),
    "no-lesion": (INFO, "a liver without any lesion, where lesions are labeled"),
    "couinaud-off-liver": (WARNING, "Couinaud segments that do not cover the liver"),
    "repaired": (INFO, "a header that was repaired; the log says how"),
    "note": (INFO, "something worth knowing"),
}


@dataclass(frozen=True)
class Problem:
    """One observation about one or more cases.

    Attributes:
        check: a name of :data:`CHECKS`.
        cases: names of the studies that it is about.
        message: what was found, what was expected, what to do.
    """

    check: str
    cases: tuple[str, ...]
    message: str

    @property
    def severity(self) -> Severity:
        """ERROR: the case cannot be used; WARNING: look at it; INFO: know it."""
        return CHECKS[self.check][0]

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "check": self.check,
            "severity": self.severity.value,
            "cases": list(self.cases),
            "message": self.message,
        }


@dataclass(frozen=True)
class CaseFacts:
    """What was measured about one case while checking it.

    Attributes:
        name, source, patient: of the study.
        shape: voxels along (i, j, k).
        spacing_mm: along (i, j, k).
        liver_ml, lesion_ml, lesions: volumes, and the number of connected lesions; None where nothing is labeled.
        content: key of the CT's voxels that flips and headers do not change.
        label: key of the label map's voxels, empty without labels.
    """

    name: str
    source: str
    patient: str
    shape: tuple[int, int, int] = (0, 0, 0)
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    liver_ml: float | None = None
    lesion_ml: float | None = None
    lesions: int | None = None
    content: str = ""
    label: str = ""


@dataclass(frozen=True)
class CheckReport:
    """The report on a data set.

    Attributes:
        folder: what was checked.
        cases: facts of all cases that could be read, and the names of those that could not.
        problems: errors first.
        repairs: what was changed while reading; the files themselves are never touched.
    """

    folder: str
    cases: tuple[CaseFacts, ...]
    problems: tuple[Problem, ...] = ()
    repairs: tuple[Repair, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0, or 2 where a case cannot be used."""
        return EXIT_BAD_INPUT if any(p.severity is ERROR for p in self.problems) else EXIT_DONE

    @property
    def unusable(self) -> tuple[str, ...]:
        """Names of the cases with errors, sorted."""
        return tuple(sorted({name for p in self.problems if p.severity is ERROR for name in p.cases}))

    @property
    def usable(self) -> tuple[str, ...]:
        """Names of the cases without errors."""
        return tuple(case.name for case in self.cases if case.name not in self.unusable)

    @property
    def contents(self) -> dict[str, str]:
        """Keys of the CTs' voxels by name, for :func:`.splits.make_split`."""
        return {case.name: case.content for case in self.cases if case.content}

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "format": "livercascade-data-check",
            "folder": self.folder,
            "cases": [vars(case) for case in self.cases],
            "problems": [problem.as_dict() for problem in self.problems],
            "repairs": [repair.as_dict() for repair in self.repairs],
            "unusable": list(self.unusable),
        }

    def as_text(self) -> str:
        """The report for a reader."""
        counts = {s: sum(p.severity is s for p in self.problems) for s in (ERROR, WARNING, INFO)}
        sources = sorted({case.source for case in self.cases})
        lines = [
            f"{self.folder}: {_count(len(self.cases), 'case')} ({', '.join(sources)}), {len(self.usable)} usable; "
            f"{_count(counts[ERROR], 'error')}, {_count(counts[WARNING], 'warning')}, "
            f"{_count(counts[INFO], 'remark')}."
        ]
        for severity, title in ((ERROR, "Errors"), (WARNING, "Warnings"), (INFO, "Remarks")):
            found = [p for p in self.problems if p.severity is severity]
            if not found:
                continue
            lines += ["", title]
            for check in dict.fromkeys(p.check for p in found):
                lines.append(f"  {check}: {CHECKS[check][1]}")
                lines += [f"    {p.message}" for p in found if p.check == check]
        if self.repairs:
            lines += ["", "Repairs (in memory; no file was changed)"]
            lines += [f"  {r.case}, {r.kind}: {r.before} → {r.after}. {r.text}" for r in self.repairs]
        lines += ["", _verdict(self)]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> None:
        """Writes ``data-check.txt`` and ``data-check.json`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data-check.txt").write_text(self.as_text(), encoding="utf-8")
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (folder / "data-check.json").write_text(text + "\n", encoding="utf-8")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _verdict(report: CheckReport) -> str:
    if not report.unusable:
        return "All cases can be used."
    return f"These cannot be used before the errors are mended, or must be left out: {', '.join(report.unusable)}."


def check_data(
    folder: Path | str,
    layout: str = "auto",
    processes: int = 1,
    exclude: Iterable[str] = (),
    unknown_size: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> CheckReport:
    """Checks a data set: all cases, all problems.

    Args:
        folder: as for :func:`.layouts.find_studies`.
        layout: likewise.
        processes: cases that are looked at at once.
        exclude: names of studies that are left out.
        unknown_size: see :func:`.repairs.load_study`.
        progress: called with (done, all, name) after each case.

    Raises:
        InputError: there is no data set in the folder; everything else is in the report.
    """
    left_out = set(exclude)
    studies = [study for study in find_studies(folder, layout) if study.name not in left_out]
    if not studies:
        raise InputError(f"All studies in {folder} are excluded.")
    return check_studies(studies, str(folder), processes, unknown_size, progress)


def check_studies(
    studies: Sequence[Study],
    title: str = "",
    processes: int = 1,
    unknown_size: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> CheckReport:
    """:func:`check_data` for studies that were found already."""
    twins = twins_among(studies)
    facts, problems, repairs = [], [], []
    jobs = [(study, twins, unknown_size) for study in studies]
    for number, result in enumerate(each_in_turn(_checked, jobs, processes), start=1):
        facts.append(result[0])
        problems += result[1]
        repairs += result[2]
        if progress is not None:
            progress(number, len(studies), result[0].name)
    problems += _across(facts)
    rank = {ERROR: 0, WARNING: 1, INFO: 2}
    order = list(CHECKS)
    problems.sort(key=lambda p: (rank[p.severity], order.index(p.check), p.cases))
    return CheckReport(title, tuple(facts), tuple(problems), tuple(repairs))


def twins_among(studies: Sequence[Study]) -> dict[int, Study]:
    """The studies of 3D-IRCADb by their number, whose headers know what LiTS lost."""
    return {
        number: study
        for study in studies
        if study.source == "ircadb" and study.image is not None
        if (number := ircadb_number(study.patient)) is not None
    }


def each_in_turn(function: Callable, jobs: Sequence[tuple], processes: int):
    """``function(*job)`` for all jobs, in their order, in this process or in several fresh ones.

    Raises:
        ResourceError: one of the processes was ended from outside.
    """
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield function(*job)
        return
    with ProcessPoolExecutor(min(processes, len(jobs)), get_context("spawn"), _one_thread) as pool:
        waiting = [pool.submit(function, *job) for job in jobs]
        try:
            for future in waiting:
                yield future.result()
        except BrokenExecutor as error:
            text = "A process was ended from outside, probably because memory ran out. Take fewer processes."
            raise ResourceError(text) from error
        finally:
            for future in waiting:
                future.cancel()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _checked(
    study: Study, twins: dict[int, Study], unknown_size: bool
) -> tuple[CaseFacts, list[Problem], list[Repair]]:
    """Facts, problems and repairs of one study."""
    bare = CaseFacts(study.name, study.source, study.patient)
    if study.missing:
        what = {"image": "no CT", "label": "no label map", "couinaud": "no Couinaud labels"}
        there = next((p.name for p in (study.image, study.label) if p is not None), "nothing else")
        found = [
            Problem(
                f"missing-{part}", (study.name,), f"{study.name}: {what[part]}; found {there}. Add it, or remove both."
            )
            for part in study.missing
        ]
        return bare, found, []
    try:
        return _looked_at(load_study(study, twins, unknown_size))
    except StudyError as error:
        return bare, [Problem(error.check, (study.name,), str(error))], []
    except (ArithmeticError, IndexError, MemoryError, RuntimeError, ValueError) as error:
        # One odd case must not end the report on all others.
        text = f"{study.name} cannot be judged ({type(error).__name__}: {error}). Leave it out, or report this."
        return bare, [Problem("unreadable", (study.name,), text)], []


def _looked_at(loaded: LoadedStudy) -> tuple[CaseFacts, list[Problem], list[Repair]]:
    """Facts, problems and repairs of a study that could be read."""
    name = loaded.study.name
    problems = [Problem("note", (name,), f"{name}: {note}") for note in loaded.notes]
    if loaded.repairs:
        kinds = ", ".join(repair.kind for repair in loaded.repairs)
        problems.append(Problem("repaired", (name,), f"{name}: {kinds}."))
    problems += _of_image(loaded)
    facts = _facts(loaded)
    if loaded.labels is not None:
        problems += _of_labels(loaded, facts)
    return facts, problems, list(loaded.repairs)


def content_key(volume: Volume) -> str:
    """A key of a CT's voxels: how many have which value, and the sorted shape.

    Flips, swapped axes and other headers leave it alone, so that one scan is known again in another data set; two
    different scans never have the same histogram.
    """
    values, counts = np.unique(volume.array, return_counts=True)
    digest = hashlib.sha256(str(sorted(volume.array.shape)).encode())
    digest.update(values.astype("<i4").tobytes() + counts.astype("<i8").tobytes())
    return digest.hexdigest()[:24]


def _label_key(labels: np.ndarray) -> str:
    if not labels.any():
        return ""
    digest = hashlib.sha256(str(labels.shape).encode())
    digest.update(np.packbits(labels > 0).tobytes() + np.packbits(labels == LESION).tobytes())
    return digest.hexdigest()[:24]


def _facts(loaded: LoadedStudy) -> CaseFacts:
    study, grid = loaded.study, loaded.volume.grid
    liver_ml = lesion_ml = count = None
    key = ""
    if loaded.labels is not None:
        ml = grid.voxel_volume_mm3 / 1000
        key = _label_key(loaded.labels)
        liver_ml = round(float(np.count_nonzero(loaded.labels)) * ml, 1)
        if "lesion" in study.known:
            lesion_ml = round(float(np.count_nonzero(loaded.labels == LESION)) * ml, 2)
            count = len(components(loaded.labels == LESION)[1])
    spacing = tuple(round(float(s), 4) for s in grid.spacing)
    content = content_key(loaded.volume)
    return CaseFacts(
        study.name, study.source, study.patient, grid.size, spacing, liver_ml, lesion_ml, count, content, key
    )


def _of_image(loaded: LoadedStudy) -> list[Problem]:
    """Problems of the CT alone."""
    name, volume = loaded.study.name, loaded.volume
    upright = volume.grid.canonical()
    right, front, up = (float(s) for s in upright.spacing)
    found = []
    if upright.size[2] < FEW_SLICES:
        text = f"{name}: {upright.size[2]} slices; a patch needs at least {FEW_SLICES}. Leave it out."
        found.append(Problem("few-slices", (name,), text))
    for spacing, (low, high), what in (
        (right, SPACING_WITHIN, "within slices"),
        (front, SPACING_WITHIN, "within slices"),
        (up, SPACING_BETWEEN, "between slices"),
    ):
        if not low <= spacing <= high:
            text = f"{name}: {spacing:.3g} mm {what}, usual are {low} to {high} mm. Check the header."
            found.append(Problem("spacing-odd", (name,), text))
            break
    if volume.array.shape and min(volume.grid.size) >= 4:
        codes = ("constant-volume", "not-hu", "mr-like", "no-soft-tissue")
        for finding in preflight(volume):
            if finding.code in codes:
                found.append(Problem("not-ct", (name,), f"{name}: {finding.message}"))
                break
    return found


def _of_labels(loaded: LoadedStudy, facts: CaseFacts) -> list[Problem]:
    """Problems of the labels, alone and on their CT."""
    study, labels, volume = loaded.study, loaded.labels, loaded.volume
    name, found = study.name, []

    def tell(check: str, text: str) -> None:
        found.append(Problem(check, (name,), f"{name}: {text}"))

    if loaded.out_of_range:
        shown = ", ".join(f"{v} ({n} voxels)" for v, n in list(loaded.out_of_range.items())[:5])
        expected = ", ".join(str(v) for v in study.meanings)
        tell("label-out-of-range", f"the values {shown} mean nothing; expected {expected}. Map or remove them.")
    if "liver" not in study.known:
        return found
    liver = labels > 0
    if not liver.any():
        tell("label-empty", "no voxel is liver. Label it, or leave the case out.")
        return found
    share = soft_tissue_share(volume.array, liver)
    if share < LEAST_SOFT_TISSUE:
        tell(
            "label-elsewhere",
            f"{share:.0%} of the label lie on tissue of a liver's density (-20 to 220 HU), at least "
            f"{LEAST_SOFT_TISSUE:.0%} were expected: the labels are of another CT, or flipped against it.",
        )
    if not LIVER_ML[0] <= facts.liver_ml <= LIVER_ML[1]:
        tell("liver-volume", f"the liver has {facts.liver_ml:.0f} mL; usual are {LIVER_ML[0]:.0f} mL and more.")
    _, sizes = components(liver)
    if len(sizes) > 1 and sizes[1] > LARGE_PIECE * sizes.sum():
        tell("liver-pieces", f"the liver is in {len(sizes)} pieces, the second {sizes[1] / sizes.sum():.0%} of it.")
    for finding in judge_orientation(liver, volume.grid, volume):
        check = "orientation" if finding.severity is ERROR else "note"
        tell(check, finding.message)
    for finding in judge_coverage(liver, volume.grid):
        tell("liver-cut", finding.message)
    if "lesion" in study.known:
        _tell_lesions(labels, tell)
    if loaded.couinaud is not None:
        covered = np.count_nonzero((loaded.couinaud > 0) & liver)
        missed = 1 - covered / np.count_nonzero(liver)
        outside = 1 - covered / max(1, np.count_nonzero(loaded.couinaud))
        if max(missed, outside) > 0.1:
            tell("couinaud-off-liver", f"{missed:.0%} of the liver have no segment, {outside:.0%} lie outside it.")
    return found


def _tell_lesions(labels: np.ndarray, tell: Callable[[str, str], None]) -> None:
    lesion = labels == LESION
    if not lesion.any():
        tell("no-lesion", "no lesion; it counts as a healthy liver.")
        return
    from scipy import ndimage

    # A lesion belongs to the liver where it touches what is labeled as such.
    numbers, sizes = components(lesion)
    near = ndimage.binary_dilation(labels == 1, iterations=2)
    touching = np.bincount(numbers[near & lesion], minlength=len(sizes) + 1)[1:]
    alone = np.flatnonzero(touching == 0)
    if len(alone):
        voxels = int(sizes[alone].sum())
        tell("lesion-outside-liver", f"{_count(len(alone), 'lesion')} of {voxels} voxels do not touch the liver.")


def _across(facts: Sequence[CaseFacts]) -> list[Problem]:
    """Problems that only two cases together have."""
    problems = []
    for key, check in (("content", "duplicate-content"), ("label", "duplicate-label")):
        same: dict[str, list[CaseFacts]] = {}
        for case in facts:
            if getattr(case, key):
                same.setdefault(getattr(case, key), []).append(case)
        for cases in same.values():
            # One CT in two data sets has one label map twice; two CTs must not.
            if len(cases) < 2 or (key == "label" and len({case.content for case in cases}) == 1):
                continue
            names = tuple(case.name for case in cases)
            what = "are the same CT, voxel by voxel" if key == "content" else "have the same label map"
            problems.append(Problem(check, names, f"{', '.join(names)} {what}."))
    by_patient: dict[str, list[str]] = {}
    for case in facts:
        by_patient.setdefault(case.patient, []).append(case.name)
    linked = Linked(by_patient)
    for first, second, reason in known_links():
        linked.add(first, second, reason)
    for patients, reasons in linked.groups():
        if len(patients) > 1:
            names = tuple(name for patient in patients for name in by_patient[patient])
            problems.append(Problem("same-patient", names, f"{', '.join(names)}: {'; '.join(reasons)}."))
    return problems
