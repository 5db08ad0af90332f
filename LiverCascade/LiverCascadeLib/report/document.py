"""A report as plain data, in the order in which it is read: pages and files only lay it out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from .texts import Texts


@dataclass(frozen=True)
class ReaderText:
    """What the reader wrote; None where nothing was said, which is not the same as a text that was emptied."""

    clinical_information: str | None = None
    findings: str | None = None
    impression: str | None = None

    def over(self, kept: ReaderText) -> ReaderText:
        """This text, and ``kept`` where this one says nothing."""
        pairs = ((getattr(self, f.name), getattr(kept, f.name)) for f in fields(self))
        return ReaderText(*(old if new is None else new for new, old in pairs))


@dataclass(frozen=True)
class Entry:
    """A name and what stands beside it."""

    label: str
    value: str


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: of the column.
        is_number: numbers are set to the right.
        width: share of the table's width on paper.
    """

    title: str
    is_number: bool = False
    width: float = 1.0


@dataclass(frozen=True)
class Table:
    """Texts in rows."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class KeyLesion:
    """What is said beside a lesion's pictures.

    Attributes:
        label: of the lesion.
        heading: its name, with a mark where the reader is not sure.
        caption: of the slice.
        alternative: what the slice shows, for whoever cannot see it.
        details: its figures.
        comment: the reader's, in paragraphs, where it is too long for the figures' list.
    """

    label: int
    heading: str
    caption: str
    alternative: str
    details: tuple[Entry, ...]
    comment: tuple[str, ...]


@dataclass(frozen=True)
class FollowUpSection:
    """Comparison with earlier studies, as whoever compared them says it.

    Attributes:
        pictures: of JPEG or PNG files, with what they show.
    """

    title: str
    sentences: tuple[str, ...]
    table: Table | None
    pictures: tuple[tuple[bytes, str], ...] = ()


@dataclass(frozen=True, eq=False)
class ReportDocument:
    """A report in the reader's language, in the order in which it is read.

    Attributes:
        t: translates what belongs to the layout.
        date: when it was made.
        patient, study: identity; empty where nobody knows it.
        running_title: patient and study on one line, for every page.
        reader: the three texts of the reader, in paragraphs, by the names of :class:`ReaderText`.
        summary: sentences.
        lesions: the table of all lesions; None where there are none.
        lesion_notes: sentences below it.
        key_lesions: those with pictures.
        liver, segments: tables; None where there is nothing to tell.
        segment_notes: how segments were drawn.
        remnant: sentences about the future liver remnant.
        findings: about the input and the run: severity in words, and what was found.
        numbers: short names of lesions for the overview picture, by their labels.
    """

    t: Texts
    date: datetime
    patient: tuple[Entry, ...]
    study: tuple[Entry, ...]
    running_title: str
    reader: dict[str, tuple[str, ...]]
    summary: tuple[str, ...]
    lesions: Table | None
    lesion_notes: tuple[str, ...]
    key_lesions: tuple[KeyLesion, ...]
    liver: Table | None
    segments: Table | None
    segment_notes: tuple[str, ...]
    remnant: tuple[str, ...]
    followup: FollowUpSection | None
    findings: tuple[Entry, ...]
    technique: tuple[Entry, ...]
    limitations: tuple[str, ...]
    numbers: dict[int, str]
