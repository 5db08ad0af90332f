"""The whole comparison: studies in order, their lesions followed through time, change and response."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from ..errors import InputError
from ..findings import Finding, Severity
from ..geometry import Grid
from ..lesions.assessment import AssessedLesion
from ..progress import Progress
from ..steps import exhausted
from .liver_sample import LiverSample, liver_sample_steps
from .matching import Body, Group, body_steps, match
from .registration import Registration, register
from .response import MOST_TARGETS, Judged, Seen, candidates, judge, long_axis_mm
from .study import Study, check_comparable, ordered

# Beyond these, the volume of a lesion changed by more than measurements of an unchanged one vary.
# Source: Beaumont et al., Cancer Imaging 15:15 (2015), for lung lesions: -35 % and +55 %.
GROWN_FACTOR, SHRUNK_FACTOR = 1.55, 0.65
# Beyond both, two livers differ more in shape than those of one patient are expected to: of synthetic deformations up
# to 20 mm, none did; of livers of different people, all did.
LEAST_RIGID_DICE, MOST_MOVED_MM = 0.82, 8.0


class Change(StrEnum):
    """What became of a lesion since the study before."""

    STABLE = "stable"
    GROWN = "grown"
    SHRUNK = "shrunk"
    NEW = "new"
    RESOLVED = "resolved"
    MERGED = "merged"
    SPLIT = "split"
    REGROUPED = "regrouped"
    CUT = "cut off"
    NOT_COVERED = "not covered"


CHANGE_WORDS = {
    Change.STABLE: "volume within -35 % and +55 %, which measurements of an unchanged lesion may differ by",
    Change.GROWN: "volume at least 55 % larger",
    Change.SHRUNK: "volume at least 35 % smaller",
    Change.NEW: "not there in the study before, which shows its place",
    Change.RESOLVED: "no longer there; the study shows its place",
    Change.MERGED: "several lesions became one",
    Change.SPLIT: "one lesion became several",
    Change.REGROUPED: "several lesions became several others, which cannot be told apart",
    Change.CUT: "the volume ends inside the lesion: its change is not judged",
    Change.NOT_COVERED: "the other study does not show its place",
}


@dataclass(frozen=True, eq=False)
class Step:
    """Two neighboring studies.

    Attributes:
        registration: from the earlier to the later one; its deformation is corrected by the matched lesions.
        groups: all lesions of both.
    """

    registration: Registration
    groups: tuple[Group, ...]


@dataclass(frozen=True, eq=False)
class Track:
    """One disease site through time.

    Attributes:
        number: 1, 2, … for tables.
        lesions: for each study, the lesions there.
        changes: for each study, what happened since the one before; None at the first one, and while it is not there.
        sure: whether every match of it is beyond doubt.
    """

    number: int
    lesions: tuple[tuple[AssessedLesion, ...], ...]
    changes: tuple[Change | None, ...]
    sure: bool

    def volume_ml(self, study: int) -> float:
        """Of all its lesions in a study, in mL."""
        return sum(float(lesion.values.get("volume_ml") or 0.0) for lesion in self.lesions[study])

    def diameter_mm(self, study: int) -> float:
        """Sum of the long axes of its lesions in a study: fragments are added, as RECIST 1.1 has it."""
        return sum(long_axis_mm(lesion) for lesion in self.lesions[study])

    @property
    def name(self) -> str:
        """Of the lesion where it was seen first."""
        first = next(lesions for lesions in self.lesions if lesions)
        return " + ".join(lesion.name for lesion in first)


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Everything that is known about several studies of a patient.

    Attributes:
        studies: in the order of time; the first one is the baseline.
        steps: from each study to the next.
        tracks: all lesions.
        targets: labels of the target lesions in the baseline.
        chosen: whether the reader chose the targets; otherwise they are candidates.
        judged: the response at each study.
        findings: what a reader should know.
    """

    studies: tuple[Study, ...]
    steps: tuple[Step, ...]
    tracks: tuple[Track, ...]
    targets: tuple[int, ...]
    chosen: bool
    judged: tuple[Judged, ...]
    findings: tuple[Finding, ...]

    @property
    def last(self) -> Judged:
        """The response at the last study."""
        return self.judged[-1]

    def track_of(self, study: int, label: int) -> Track:
        """The track of a lesion.

        Raises:
            KeyError: there is no such lesion.
        """
        for track in self.tracks:
            if any(lesion.label == label for lesion in track.lesions[study]):
                return track
        raise KeyError(label)

    def with_targets(self, targets: Sequence[int] | None) -> FollowUp:
        """The same comparison, judged by other target lesions of the baseline; None goes back to the candidates.

        Raises:
            InputError: no such lesion, or too many.
        """
        return followed(self.studies, self.steps, targets, self.findings)


def follow_up(
    studies: Sequence[Study],
    targets: Sequence[int] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> FollowUp:
    """Compares studies of one patient.

    Args:
        studies: in any order; they are sorted by date where all dates are known.
        targets: labels of target lesions in the baseline; None takes the candidates.
        force: compare although identities or sizes of the livers differ.
        progress: gets the stage ``register``.

    Raises:
        InputError: the studies do not belong together, or their livers do not fit.
        Cancelled: the user asked for it.
    """
    progress = progress or Progress()
    studies, findings = ordered(studies)
    findings += check_comparable(studies, force)
    progress.stage("register")
    sides = []
    for study in studies:
        sides.append(exhausted(side_steps(study)))
        progress.update(0.1 * len(sides) / len(studies))
    steps = []
    for index, (one, other) in enumerate(pairwise(sides)):
        part = _Part(progress, 0.1 + 0.9 * index / (len(studies) - 1), 0.9 / (len(studies) - 1))
        steps.append(compare(one, other, part))
    progress.finish()
    findings += check_shapes(studies, steps, force)
    return followed(studies, tuple(steps), targets, findings)


def check_shapes(studies: Sequence[Study], steps: Sequence[Step], force: bool = False) -> tuple[Finding, ...]:
    """Refuses livers whose shapes are not those of one patient, unless the identities say that they are.

    Args:
        studies: in the order of time.
        steps: one for each two neighbors.
        force: compare all the same.

    Returns:
        findings that take the place of the refusals.

    Raises:
        InputError: the shapes differ too much.
    """
    found = []
    for (one, other), step in zip(pairwise(studies), steps, strict=True):
        quality = step.registration.quality
        if quality.rigid_dice >= LEAST_RIGID_DICE or quality.moved_mm <= MOST_MOVED_MM:
            continue
        text = (
            f"The livers of '{one.label}' and '{other.label}' differ more in shape than those of one patient are "
            f"expected to: laid upon each other without a deformation, their overlap (Dice) is "
            f"{quality.rigid_dice:.2f}, and {quality.moved_mm:.0f} mm of deformation were needed on average. Check "
            "that both studies belong to the same patient."
        )
        same = bool(one.patient_id) and one.patient_id == other.patient_id
        if not same and not force:
            raise InputError(f"{text} If they do, force the comparison.")
        found.append(Finding("liver-shapes-differ", Severity.WARNING, text))
    return tuple(found)


class _Part(Progress):
    """Progress of one of several registrations, told as a part of the whole."""

    def __init__(self, whole: Progress, start: float, length: float):
        super().__init__()
        self._whole, self._start, self._length = whole, start, length

    def update(self, fraction: float) -> None:
        self._whole.update(self._start + self._length * fraction)


@dataclass(frozen=True, eq=False)
class Side:
    """What a comparison of two studies needs of one of them; small, whatever the size of its CT.

    Attributes:
        sample: its liver.
        bodies: its lesions.
        grid: of the whole volume.
    """

    sample: LiverSample
    bodies: tuple[Body, ...]
    grid: Grid


def side_steps(study: Study) -> Generator[None, None, Side]:
    """Takes a study's side in short steps.

    Raises:
        InputError: there is no liver.
    """
    assessment = study.assessment
    sample = yield from liver_sample_steps(assessment.volume, assessment.labels)
    those = yield from body_steps(assessment)
    return Side(sample, tuple(those), assessment.volume.grid)


def compare(before: Side, after: Side, progress: Progress | None = None) -> Step:
    """Registers two studies and matches their lesions.

    Raises:
        PoorRegistration: the livers do not overlap enough, or do not fit.
        Cancelled: the user asked for it.
    """
    registration = register(before.sample, after.sample, progress)
    found = match(before.bodies, after.bodies, registration.deformation, before.grid, after.grid)
    return Step(replace(registration, deformation=found.deformation), found.groups)


def followed(
    studies: Sequence[Study],
    steps: Sequence[Step],
    targets: Sequence[int] | None = None,
    findings: Iterable[Finding] = (),
) -> FollowUp:
    """Follows lesions through studies that were matched, and judges the response.

    Args:
        studies: in the order of time.
        steps: one for each two neighbors.
        targets: labels in the baseline; None takes the candidates.
        findings: from the checks before.

    Raises:
        InputError: there is no such target, or there are too many.
    """
    first = {lesion.label: lesion for lesion in studies[0].assessment.lesions}
    chosen = targets is not None
    wanted = tuple(sorted(set(candidates(list(first.values())) if targets is None else targets)))
    _check_targets(wanted, first, studies[0])
    tracks = _tracks(studies, steps)
    found = {finding.message: finding for finding in findings if finding.code not in _OF_TRACKS}
    for step in steps:
        found |= {finding.message: finding for finding in step.registration.findings}
    for finding in _findings(tracks, wanted, first):
        found[finding.message] = finding
    seen = [_seen(index, studies, steps, tracks, wanted) for index in range(len(studies))]
    return FollowUp(tuple(studies), tuple(steps), tracks, wanted, chosen, judge(seen), tuple(found.values()))


def _check_targets(targets: tuple[int, ...], first: dict[int, AssessedLesion], baseline: Study) -> None:
    missing = [label - 1 for label in targets if label not in first]
    if missing:
        there = ", ".join(f"{label - 1}" for label in sorted(first)) or "none"
        raise InputError(
            f"There is no lesion {', '.join(map(str, missing))} in the baseline '{baseline.label}'. It has: {there}."
        )
    if len(targets) > MOST_TARGETS:
        raise InputError(
            f"{len(targets)} target lesions were chosen; RECIST 1.1 takes at most {MOST_TARGETS} in one organ."
        )


def _tracks(studies: Sequence[Study], steps: Sequence[Step]) -> tuple[Track, ...]:
    lesions = [{lesion.label: lesion for lesion in study.assessment.lesions} for study in studies]
    home: dict[tuple[int, int], int] = {}
    members: dict[int, set[tuple[int, int]]] = {}
    for study, those in enumerate(lesions):
        for label in those:
            home[study, label] = len(members)
            members[len(members)] = {(study, label)}
    for index, step in enumerate(steps):
        for group in step.groups:
            nodes = [(index, label) for label in group.before] + [(index + 1, label) for label in group.after]
            nodes = [node for node in nodes if node in home]
            for node in nodes[1:]:
                old, new = home[node], home[nodes[0]]
                if old != new:
                    for moved in members.pop(old):
                        home[moved] = new
                        members.setdefault(new, set()).add(moved)
    ordered_sites = sorted(members.values(), key=lambda nodes: _order(min(nodes), nodes, lesions))
    return tuple(_track(number, nodes, lesions, steps) for number, nodes in enumerate(ordered_sites, start=1))


def _order(first: tuple[int, int], nodes: set[tuple[int, int]], lesions: list[dict]) -> tuple:
    return first[0], min(label for study, label in nodes if study == first[0])


def _track(number: int, nodes: set[tuple[int, int]], lesions: list[dict], steps: Sequence[Step]) -> Track:
    there = [
        tuple(lesions[study][label] for index, label in sorted(nodes) if index == study)
        for study in range(len(lesions))
    ]
    changes: list[Change | None] = [None]
    sure = True
    gone = Change.RESOLVED
    for index, step in enumerate(steps):
        labels = {lesion.label for lesion in there[index]}, {lesion.label for lesion in there[index + 1]}
        groups = [g for g in step.groups if labels[0] & set(g.before) or labels[1] & set(g.after)]
        sure = sure and all(group.sure for group in groups)
        if not groups:
            seen_before = any(there[: index + 1])
            changes.append(gone if seen_before else None)
            continue
        change = _change(there[index], there[index + 1], groups)
        if change in (Change.RESOLVED, Change.NOT_COVERED):
            gone = change
        changes.append(change)
    return Track(number, tuple(there), tuple(changes), sure)


def _change(before: tuple[AssessedLesion, ...], after: tuple[AssessedLesion, ...], groups: Sequence[Group]) -> Change:
    if not before or not after:
        if not all(group.covered for group in groups):
            return Change.NOT_COVERED
        return Change.RESOLVED if before else Change.NEW
    if len(groups) > 1 or (len(before) > 1 and len(after) > 1):
        return Change.REGROUPED
    if len(before) > 1:
        return Change.MERGED
    if len(after) > 1:
        return Change.SPLIT
    if before[0].values.get("touches_border") or after[0].values.get("touches_border"):
        return Change.CUT
    return change_of_volume(before[0].values.get("volume_ml"), after[0].values.get("volume_ml"))


def change_of_volume(before: object, after: object) -> Change:
    """Whether a lesion is stable, grown or shrunk, by its volumes in mL."""
    if not all(isinstance(v, int | float) and math.isfinite(v) and v > 0 for v in (before, after)):
        return Change.CUT
    factor = float(after) / float(before)
    return Change.GROWN if factor >= GROWN_FACTOR else Change.SHRUNK if factor <= SHRUNK_FACTOR else Change.STABLE


def _descendants(targets: Sequence[int], steps: Sequence[Step], study: int) -> tuple[set[int], bool]:
    """(labels that the targets became until ``study``, whether all places were shown on the way)."""
    labels, shown = set(targets), True
    for step in steps[:study]:
        following: set[int] = set()
        for group in step.groups:
            if labels & set(group.before):
                following |= set(group.after)
                shown = shown and group.covered
        labels = following
    return labels, shown


def _seen(
    index: int, studies: Sequence[Study], steps: Sequence[Step], tracks: Sequence[Track], targets: tuple[int, ...]
) -> Seen:
    lesions = {lesion.label: lesion for lesion in studies[index].assessment.lesions}
    labels, shown = _descendants(targets, steps, index)
    total = sum(long_axis_mm(lesions[label]) for label in labels if label in lesions) if targets else None
    fresh = [track for track in tracks if _is_new(track, index)]
    others = [
        track for track in tracks if track.lesions[index] and not labels & {les.label for les in track.lesions[index]}
    ]
    grown = [
        track
        for track in others
        if index and track.changes[index] in (Change.GROWN, Change.MERGED) and track not in fresh
    ]
    return Seen(
        total,
        shown,
        tuple(_named(track, index) for track in fresh if not _is_doubtful(track, index)),
        tuple(_named(track, index) for track in fresh if _is_doubtful(track, index)),
        sum(len(track.lesions[index]) for track in others),
        tuple(_named(track, index) for track in grown),
    )


def _is_new(track: Track, index: int) -> bool:
    """Whether the lesion is there and was not at the baseline, whose place an earlier study showed."""
    if index == 0 or not track.lesions[index] or track.lesions[0]:
        return False
    first = next(n for n, lesions in enumerate(track.lesions) if lesions)
    return track.changes[first] is Change.NEW


def _is_doubtful(track: Track, index: int) -> bool:
    return all(lesion.review == "unsure" for lesion in track.lesions[index])


def _named(track: Track, index: int) -> str:
    return " + ".join(lesion.name for lesion in track.lesions[index])


_OF_TRACKS = ("match-unsure", "target-not-measurable", "target-cut")


def _findings(tracks: Sequence[Track], targets: tuple[int, ...], first: dict[int, AssessedLesion]) -> list[Finding]:
    found = []
    unsure = [track.name for track in tracks if not track.sure]
    if unsure:
        text = f"It is not beyond doubt which lesion is which: {', '.join(unsure)}. Look at both studies."
        found.append(Finding("match-unsure", Severity.WARNING, text))
    for label in targets:
        lesion = first[label]
        if not lesion.values.get("measurable"):
            text = f"The target {lesion.name} is not measurable by RECIST 1.1. Choose another one, if there is one."
            found.append(Finding("target-not-measurable", Severity.WARNING, text))
        if lesion.values.get("touches_border"):
            text = f"The target {lesion.name} is cut by the edge of the volume: its diameter may be too small."
            found.append(Finding("target-cut", Severity.WARNING, text))
    return found
