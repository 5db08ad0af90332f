"""Writes a report: HTML page, PDF, JSON and CSV, all of them or none."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError
from ..lesions.assessment import Assessment
from ..lesions.remnant import Remnant
from ..steps import exhausted
from ..volume import Volume
from .document import ReaderText, ReportDocument
from .files import LESION_COLUMNS, OutputFolder, explained, lesion_cells, safe_cell
from .html import Pictures, render_html
from .identity import StudyIdentity
from .key_images import draw_lesion, encoded
from .pdf import pdf_steps
from .record import identity_in, read_record, reader_text_of, report_record, validation_steps
from .relief import Relief
from .texts import Texts
from .wording import build_document

HTML_FILE, PDF_FILE, JSON_FILE, CSV_FILE = REPORT_FILES = (
    "report.html",
    "report.pdf",
    "report.json",
    "report_lesions.csv",
)
RELIEF_PIXELS, OVERVIEW_PIXELS = 340, 600


@dataclass(frozen=True)
class ReportRequest:
    """What a report is to say beside what was measured.

    Attributes:
        identity: of patient and study.
        text: of the reader; what is None is taken from an earlier report of the same scan.
        date: of the report.
        remnant: the future liver remnant for segments that the reader chose.
        followup: a comparison with earlier studies; see :func:`.wording.build_document`.
        language: of the report.
        with_pdf: False leaves the PDF out.
        keep_identity: where the identity is empty, it is taken from an earlier report of the same scan too.
    """

    date: datetime
    identity: StudyIdentity = field(default_factory=StudyIdentity)
    text: ReaderText = field(default_factory=ReaderText)
    remnant: Remnant | None = None
    followup: Mapping[str, Any] | None = None
    language: str | Texts = "en"
    with_pdf: bool = True
    keep_identity: bool = True


@dataclass(frozen=True)
class WrittenReport:
    """What was written.

    Attributes:
        folder: that holds the files.
        identity, text: as they stand in the report, with what was kept of an earlier one.
        document: in words.
    """

    folder: Path
    identity: StudyIdentity
    text: ReaderText
    document: ReportDocument


def write_report(assessment: Assessment, folder: Path | str, request: ReportRequest) -> WrittenReport:
    """Writes report.html, report.pdf, report.json and report_lesions.csv into ``folder``.

    An earlier report of the same scan in this folder is replaced; what its reader wrote is kept, unless ``request``
    says otherwise.

    Raises:
        InputError: the report is not available in the wanted language.
        OutputError: the folder holds the report of another scan, or cannot be written.
        ResourceError: the disk or the memory is full.
    """
    return exhausted(report_steps(assessment, folder, request))


def report_steps(
    assessment: Assessment, folder: Path | str, request: ReportRequest
) -> Generator[None, None, WrittenReport]:
    """As :func:`write_report`, with pauses between short pieces; nothing is left behind if it is closed early."""
    with OutputFolder(folder) as output:
        written = yield from file_steps(assessment, output.staging, request, previous=output.path)
        output.commit()
    return WrittenReport(output.path, written.identity, written.text, written.document)


def file_steps(
    assessment: Assessment, folder: Path, request: ReportRequest, previous: Path | None = None
) -> Generator[None, None, WrittenReport]:
    """Writes the report's files into a folder that exists, such as the staging folder of a run.

    Args:
        previous: where an earlier report may lie, whose texts are kept; None looks for none.

    Raises:
        InputError, OutputError, ResourceError: as :func:`write_report`.
    """
    digest = yield from assessment.volume.sha256_steps()
    identity, text = request.identity, request.text
    if previous is not None and (previous / JSON_FILE).exists():
        known, written = _earlier(previous / JSON_FILE, digest)
        text = text.over(written)
        if request.keep_identity:
            identity = StudyIdentity(**{n: value or getattr(known, n) for n, value in vars(identity).items()})
    document = build_document(
        assessment,
        identity,
        text,
        date=request.date,
        remnant=request.remnant,
        followup=request.followup,
        language=request.language,
    )
    yield
    record = report_record(
        assessment, document, identity, text, digest, remnant=request.remnant, followup=request.followup
    )
    yield from validation_steps(record)
    pictures = yield from picture_steps(assessment, document)
    with explained(folder):
        write_csv(folder / CSV_FILE, assessment)
        content = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / JSON_FILE).write_text(_encodable(content) + "\n", encoding="utf-8", newline="\n")
        yield
        page = render_html(document, pictures)
        yield
        (folder / HTML_FILE).write_text(page, encoding="utf-8", newline="\n")
        yield
        if request.with_pdf:
            yield from pdf_steps(document, pictures, folder / PDF_FILE)
    return WrittenReport(folder, identity, text, document)


def picture_steps(assessment: Assessment, document: ReportDocument) -> Generator[None, None, Pictures]:
    """Draws all pictures of a report; yields between short pieces."""
    if not (assessment.labels > 0).any():
        return Pictures({}, {})
    yield
    t = document.t
    lesions = {lesion.label: lesion for lesion in assessment.lesions}
    relief = Relief(assessment)
    yield from relief.prepare()
    overview = encoded(
        relief.picture(OVERVIEW_PIXELS, numbers=document.numbers if len(document.numbers) <= 40 else None),
        t("The liver from the front with its lesions."),
    )
    yield
    slices, reliefs = {}, {}
    for key in document.key_lesions:
        slices[key.label] = encoded((yield from draw_lesion(assessment, lesions[key.label])), key.alternative)
        yield
        ringed = relief.picture(RELIEF_PIXELS, key.label)
        reliefs[key.label] = encoded(ringed, t("The liver from the front, this lesion in a ring."))
        yield
    return Pictures(slices, reliefs, overview)


def write_csv(path: Path, assessment: Assessment) -> None:
    """Writes one line per lesion: the columns of lesions.csv, and what the reader says.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*LESION_COLUMNS, "name", "review", "comment"])
        for lesion in assessment.lesions:
            axes = (lesion.long_axis, lesion.short_axis)
            grid = assessment.volume.grid
            cells = lesion_cells(lesion.values, axes, lesion.couinaud_text, grid, lesion.box, lesion.tracking_uid)
            texts = (assessment.volume.name, lesion.name, lesion.review, lesion.comment)
            name, *said = (safe_cell(_encodable(text)) for text in texts)
            writer.writerow([name, lesion.label - 1, *cells, *said])


def _encodable(text: str) -> str:
    """``text`` without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def check_earlier(folder: Path, volume: Volume) -> None:
    """Makes sure that a report of ``volume`` may be written into ``folder``.

    Raises:
        OutputError: it holds the report of another scan, or one that cannot be read.
    """
    if (folder / JSON_FILE).exists():
        _earlier(folder / JSON_FILE, exhausted(volume.sha256_steps()))


def _earlier(path: Path, digest: str) -> tuple[StudyIdentity, ReaderText]:
    """Identity and reader's text of the report at ``path``.

    Raises:
        OutputError: that report is of another scan, or cannot be read: what its reader wrote would be lost.
    """
    try:
        earlier = read_record(path)
        text = reader_text_of(earlier)
    except InputError as error:
        raise OutputError(f"{error} It is not overwritten, because it may hold what a reader wrote.") from None
    scan = earlier.get("input")
    if not isinstance(scan, Mapping) or scan.get("voxels_sha256") != digest:
        name = scan.get("name", "") if isinstance(scan, Mapping) else ""
        raise OutputError(
            f"{path.parent} holds the report of another scan ('{name}'). Choose another folder, so that it is kept."
        )
    return identity_in(earlier), text
