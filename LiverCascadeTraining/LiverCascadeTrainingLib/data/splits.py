"""Who is trained on, who steers the training, and who is only judged: splits by patient, seeded, never overlapping."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from LiverCascadeLib.errors import InputError

from .layouts import Study
from .patients import Linked, known_links

FORMAT = "livercascade-split"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)
_SHORT = {"val": VALIDATION, "valid": VALIDATION, "training": TRAIN, "testing": TEST}


@dataclass(frozen=True)
class Split:
    """A split, or the folds of a cross-validation.

    Attributes:
        scheme: '70/10/20', '90/10', '5-fold' or 'fixed'.
        seed: of the shuffling.
        folds: one mapping part → names of studies for each fold; a single one where there are no folds.
        patients: patient of each study.
        kept_together: names of studies that had to stay in one part though they name different patients, with reasons.
    """

    scheme: str
    seed: int
    folds: tuple[Mapping[str, tuple[str, ...]], ...]
    patients: Mapping[str, str]
    kept_together: tuple[tuple[tuple[str, ...], str], ...] = field(default=())

    def names(self, part: str, fold: int = 0) -> tuple[str, ...]:
        """Names of the studies of a part; none where the scheme has no such part.

        Raises:
            InputError: there is no such fold or part.
        """
        if part not in PARTS:
            raise InputError(f"A split has the parts {', '.join(PARTS)}, not {part!r}.")
        if not 0 <= fold < len(self.folds):
            raise InputError(f"This split has the folds 0 to {len(self.folds) - 1}, not {fold}.")
        return self.folds[fold].get(part, ())

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        folds = [{part: list(fold[part]) for part in PARTS if part in fold} for fold in self.folds]
        return {
            "format": FORMAT,
            "scheme": self.scheme,
            "seed": self.seed,
            "counts": [{part: len(names) for part, names in fold.items()} for fold in folds],
            "folds": folds,
            "kept_together": [{"studies": list(names), "reason": reason} for names, reason in self.kept_together],
            "patients": dict(sorted(self.patients.items())),
        }

    @property
    def sha256(self) -> str:
        """Digest of who is in which part."""
        return _digest(self.as_dict())

    def save(self, path: Path) -> None:
        """Writes the split with its digest, under a temporary name first."""
        content = {**self.as_dict(), "sha256": self.sha256}
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)


def _digest(content: Mapping[str, object]) -> str:
    kept = {key: content[key] for key in ("scheme", "seed", "folds", "patients")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def make_split(
    studies: Sequence[Study],
    scheme: str = "70/10/20",
    seed: int = 2026,
    contents: Mapping[str, str] | None = None,
    lists: Mapping[str, Iterable[str]] | Path | None = None,
    only_test: Iterable[str] = (),
) -> Split:
    """Splits studies so that no patient, and no CT, is in two parts.

    Args:
        studies: labeled studies.
        scheme: shares of train/validation/test or train/validation in percent ('70/10/20', '90/10'), 'N-fold'
            (validation rotates; 'only_test' studies are the test part of every fold), or 'fixed'.
        seed: of the shuffling; the order of ``studies`` does not matter.
        contents: keys of the CTs' voxels by name (:attr:`.checks.CheckReport.contents`): what is the same CT stays
            together.
        lists: for 'fixed': part → names of studies or patients, or a JSON file with that.
        only_test: names of studies, or patients, that must not be trained on.

    Raises:
        InputError: an unknown scheme, too few patients, or lists that overlap; the message names all of them.
    """
    if not studies:
        raise InputError("There are no studies to split.")
    by_name = {study.name: study for study in studies}
    if len(by_name) != len(studies):
        raise InputError("Two studies have one name; a split goes by names.")
    linked = _linked(studies, contents or {})
    groups = [(tuple(members), "; ".join(reasons)) for members, reasons in linked.groups()]
    patients = {study.name: study.patient for study in studies}
    together = tuple((members, reason) for members, reason in groups if len({patients[name] for name in members}) > 1)
    if scheme == "fixed" or lists is not None:
        fold = _fixed(studies, lists, [members for members, _ in groups])
        return Split("fixed", seed, (fold,), patients, together)
    banned = _resolved(only_test, studies, "only_test")
    free = [members for members, _ in groups if not banned.intersection(members)]
    kept_out = tuple(sorted(name for members, _ in groups if banned.intersection(members) for name in members))
    shuffled = _shuffled(free, by_name, seed)
    number = re.fullmatch(r"(\d+)-fold", scheme)
    if number:
        folds = _folds(shuffled, by_name, int(number[1]), kept_out)
    else:
        folds = (_shares(shuffled, by_name, _percentages(scheme), kept_out),)
    return Split(scheme, seed, folds, patients, together)


def _linked(studies: Sequence[Study], contents: Mapping[str, str]) -> Linked:
    """Which studies are of one patient, by identifier, by what is known, or by content."""
    linked = Linked(study.name for study in studies)
    by_patient: dict[str, str] = {}
    for study in studies:
        linked.add(by_patient.setdefault(study.patient, study.name), study.name, "one patient")
    for first, second, reason in known_links():
        if first in by_patient and second in by_patient:
            linked.add(by_patient[first], by_patient[second], reason)
    by_content: dict[str, str] = {}
    for name, key in sorted(contents.items()):
        if key:
            linked.add(by_content.setdefault(key, name), name, "the same CT")
    return linked


def _resolved(wanted: Iterable[str], studies: Sequence[Study], what: str) -> set[str]:
    """Names of studies from names or patients."""
    names: set[str] = set()
    unknown = []
    for entry in wanted:
        found = {study.name for study in studies if entry in (study.name, study.patient)}
        names |= found
        if not found:
            unknown.append(str(entry))
    if unknown:
        raise InputError(f"{what} names {', '.join(unknown)}, which is no study and no patient of this data set.")
    return names


def _percentages(scheme: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in scheme.split("/"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (2, 3) or min(numbers, default=0) <= 0 or abs(sum(numbers) - 100) > 1e-6:
        raise InputError(
            f"The scheme {scheme!r} is not known. Expected shares that add up to 100 such as 70/10/20 or 90/10, "
            "folds such as 5-fold, or fixed."
        )
    return numbers


def _shuffled(groups: Sequence[tuple[str, ...]], by_name: Mapping[str, Study], seed: int) -> list[tuple[str, ...]]:
    """Groups in an order that depends on the seed and the names alone, data sets and hospitals in turn."""
    strata: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for members in sorted(groups):
        first = by_name[members[0]]
        strata.setdefault((first.source, first.group), []).append(members)
    ranked = []
    for key in sorted(strata):
        order = strata[key]
        random.Random(f"{seed}/{key}").shuffle(order)
        # Positions between 0 and 1 mix the strata evenly, however large they are.
        ranked += [((n + 0.5) / len(order), key, members) for n, members in enumerate(order)]
    return [members for _, _, members in sorted(ranked)]


def _shares(
    groups: Sequence[tuple[str, ...]],
    by_name: Mapping[str, Study],
    percentages: Sequence[float],
    kept_out: tuple[str, ...],
) -> dict[str, tuple[str, ...]]:
    """Each group to the part that lacks most of its share; later parts first, so that none stays empty."""
    parts = PARTS[: len(percentages)]
    if len(groups) < len(parts):
        raise InputError(
            f"{len(groups)} independent patients cannot make {len(parts)} parts. Take fewer parts, or more data."
        )
    share = {part: percent / 100 for part, percent in zip(parts, percentages, strict=True)}
    chosen: dict[str, list[str]] = {part: [] for part in parts}
    # Studies that were dealt out so far, and how many of them each part got: of all, and of each stratum.
    seen: Counter = Counter()
    for number, members in enumerate(groups):
        first = by_name[members[0]]
        stratum = (first.source, first.group)
        empty = [part for part in parts if not chosen[part]]
        for key in ("all", stratum):
            seen[key] += len(members)
        lacks = {p: sum(share[p] * seen[key] - seen[key, p] for key in ("all", stratum)) for p in parts}
        part = empty[-1] if len(groups) - number <= len(empty) else max(parts, key=lambda p: lacks[p])
        for key in ("all", stratum):
            seen[key, part] += len(members)
        chosen[part] += members
    if kept_out:
        chosen.setdefault(TEST, []).extend(kept_out)
    return {part: tuple(sorted(names)) for part, names in chosen.items()}


def _folds(
    groups: Sequence[tuple[str, ...]], by_name: Mapping[str, Study], number: int, kept_out: tuple[str, ...]
) -> tuple[dict[str, tuple[str, ...]], ...]:
    if number < 2 or len(groups) < number:
        raise InputError(f"{len(groups)} independent patients cannot make {number} folds.")
    bins: list[list[str]] = [[] for _ in range(number)]
    for members in groups:
        min(bins, key=lambda names: (len(names), bins.index(names))).extend(members)
    folds = []
    for held in range(number):
        rest = sorted(name for index, names in enumerate(bins) if index != held for name in names)
        fold = {TRAIN: tuple(rest), VALIDATION: tuple(sorted(bins[held]))}
        folds.append({**fold, TEST: kept_out} if kept_out else fold)
    return tuple(folds)


def _fixed(
    studies: Sequence[Study], lists: Mapping[str, Iterable[str]] | Path | None, groups: Sequence[tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Given lists, checked: known names, no overlap, no patient in two parts."""
    if lists is None:
        raise InputError("The scheme 'fixed' needs lists: part → names of studies or patients.")
    content = _listed(lists) if isinstance(lists, Path | str) else lists
    parts = {}
    for part, entries in content.items():
        name = _SHORT.get(part, part)
        if name not in PARTS:
            raise InputError(f"A list is named {part!r}; expected {', '.join(PARTS)}.")
        if isinstance(entries, str) or not isinstance(entries, Iterable):
            raise InputError(f"The list {part!r} is not a list of names.")
        parts[name] = _resolved([str(entry) for entry in entries], studies, f"The list {part!r}")
    problems = []
    for index, first in enumerate(parts):
        for second in list(parts)[index + 1 :]:
            both = sorted(parts[first] & parts[second])
            if both:
                problems.append(f"{', '.join(both)} in {first} and {second}")
    for members in groups:
        where = sorted({part for part, names in parts.items() if names.intersection(members)})
        if len(where) > 1 and len(members) > 1:
            problems.append(f"{', '.join(members)} are one patient or one CT, but lie in {' and '.join(where)}")
    if problems:
        raise InputError(f"The fixed lists overlap: {'; '.join(problems)}.")
    if not parts.get(TRAIN):
        raise InputError("The fixed lists leave nothing to train on.")
    return {part: tuple(sorted(parts[part])) for part in PARTS if part in parts}


def _listed(path: Path | str) -> Mapping[str, Iterable[str]]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON lists of a split: {error}.") from None
    if isinstance(content, dict) and content.get("format") == FORMAT:
        content = content["folds"][0]
    if not isinstance(content, dict):
        raise InputError(f'{path} is no split: expected {{"train": [...], "validation": [...], "test": [...]}}.')
    return content


def load_split(path: Path) -> Split:
    """Reads what :meth:`Split.save` wrote.

    Raises:
        InputError: it is not there, was altered, or a study is in two parts.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The split {path} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is no split of LiverCascade.")
    try:
        folds = tuple({part: tuple(fold[part]) for part in PARTS if part in fold} for fold in content["folds"])
        together = tuple((tuple(e["studies"]), e["reason"]) for e in content.get("kept_together", []))
        split = Split(content["scheme"], content["seed"], folds, content["patients"], together)
        digest = split.sha256
    except (KeyError, TypeError) as error:
        raise InputError(f"The split {path} is incomplete ({error!r}). Make it again.") from None
    if content.get("sha256") != digest:
        raise InputError(f"The split {path} was altered by hand: its digest does not fit. Use 'fixed' lists instead.")
    for fold in folds:
        names = [name for part in fold.values() for name in part]
        if len(names) != len(set(names)):
            raise InputError(f"In the split {path} a study is in two parts.")
    return split
