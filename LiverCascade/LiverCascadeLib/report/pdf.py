"""The report as PDF, laid out by ReportLab in short steps."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .document import Column, Entry, KeyLesion, ReportDocument, Table
from .files import RESEARCH_USE
from .fonts import BOLD, MARK, REGULAR, Fonts
from .html import Pictures, overview_caption
from .key_images import Picture
from .texts import plain

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import Flowable

MM = 72 / 25.4
PAGE_WIDTH, PAGE_HEIGHT, MARGIN, HEAD, FOOT = 210 * MM, 297 * MM, 16 * MM, 17 * MM, 18 * MM
WIDTH = PAGE_WIDTH - 2 * MARGIN
SLICE_MM, RELIEF_MM, OVERVIEW_MM = 68, 42, 74
# A cell must fit on a page: what is longer is shortened here, and is whole in the HTML page and in report.json.
MOST_IN_CELL, MOST_IN_NAME = 160, 40
GRAY, LIGHT = "#555555", "#bbbbbb"


def pdf_steps(document: ReportDocument, pictures: Pictures, path: Path) -> Generator[None, None, None]:
    """Writes the PDF; yields between short pieces.

    The file depends on the document alone: not on the time, and on nothing else of the computer but its fonts.

    Raises:
        OSError: it cannot be written.
    """
    fonts = Fonts()
    yield
    story = []
    for part in _Layout(document, pictures, fonts).parts():
        story += part
        yield
    if fonts.is_incomplete:
        text = document.t(
            "{mark} stands for text that this PDF has no letters for. The HTML page of this report has all of it.",
            mark=MARK,
        )
        story.insert(_AFTER_NOTICE, _paragraph(fonts, text, "note"))
    template = _template(document, fonts, path)
    yield from template.steps(story)


class _Layout:
    """Turns a document into flowables, part by part."""

    def __init__(self, document: ReportDocument, pictures: Pictures, fonts: Fonts):
        self._document, self._pictures, self._fonts, self._t = document, pictures, fonts, document.t

    def parts(self) -> Generator[list[Flowable], None, None]:
        document, t = self._document, self._t
        yield self._head()
        yield self._reader(t("Clinical information"), document.reader["clinical_information"], 9)
        yield [self._heading(t("Measured summary")), *self._texts(document.summary)]
        yield self._reader(t("Findings"), document.reader["findings"], 18)
        yield self._reader(t("Impression"), document.reader["impression"], 18)
        if document.lesions is not None:
            yield [self._heading(t("Lesions"))]
            yield from self._long_table(document.lesions)
            yield self._texts(document.lesion_notes, "note")
        for index, lesion in enumerate(document.key_lesions):
            yield self._key_lesion(lesion, is_first=index == 0)
        if document.liver is not None:
            yield self._liver()
        if document.followup is not None:
            yield from self._followup()
        if document.findings:
            yield [self._heading(t("Notes on the scan and the run")), *self._entries(document.findings, 30)]
        yield [self._heading(t("Technique")), *self._entries(document.technique, 36, "small")]
        texts = [_paragraph(self._fonts, text, "bullet", bullet="•") for text in document.limitations]
        yield [self._heading(t("Limitations")), *texts, self._signature()]

    def _head(self) -> list[Flowable]:
        from reportlab.platypus import Spacer

        document, t = self._document, self._t
        date = document.date.strftime("%Y-%m-%d %H:%M")
        title = self._row(
            [_paragraph(self._fonts, t("Liver report"), "title"), _paragraph(self._fonts, date, "right")],
            [WIDTH * 0.7, WIDTH * 0.3],
            [("LINEBELOW", (0, 0), (-1, -1), 1.2, "#111111"), ("VALIGN", (0, 0), (-1, -1), "BOTTOM")],
        )
        notice = _paragraph(self._fonts, t(RESEARCH_USE), "notice")
        half = WIDTH / 2 - 3 * MM
        columns = [
            self._entry_table(document.patient, 33, half, is_first_bold=True),
            self._entry_table(document.study, 33, half),
        ]
        identity = self._row(columns, [WIDTH / 2, WIDTH / 2], [("VALIGN", (0, 0), (-1, -1), "TOP")])
        return [title, notice, Spacer(1, 2 * MM), identity]

    def _reader(self, title: str, texts: Sequence[str], room_mm: float) -> list[Flowable]:
        if texts:
            return [self._heading(title), *self._texts(texts)]
        box = self._row([""], [WIDTH], [("BOX", (0, 0), (-1, -1), 0.5, LIGHT)], [room_mm * MM])
        return [_together([self._heading(title), box])]

    def _key_lesion(self, lesion: KeyLesion, is_first: bool) -> list[Flowable]:
        relief = self._pictures.reliefs.get(lesion.label)
        beside_width = WIDTH - (SLICE_MM + 5) * MM
        beside: list[Any] = [] if relief is None else [_image(relief, RELIEF_MM)]
        beside.append(self._entry_table(lesion.details, 32, beside_width, "small"))
        caption = _paragraph(self._fonts, lesion.caption, "caption")
        pair = self._row(
            [[_image(self._pictures.slices[lesion.label], SLICE_MM), caption], beside],
            [(SLICE_MM + 5) * MM, beside_width],
            [("VALIGN", (0, 0), (-1, -1), "TOP")],
        )
        heading = _paragraph(self._fonts, plain(lesion.heading, 120), "heading3")
        block = [heading, pair]
        if is_first:
            block.insert(0, self._heading(self._t("Key images")))
        return [_together(block), *self._texts(lesion.comment)]

    def _liver(self) -> list[Flowable]:
        from reportlab.platypus import Spacer

        document, t = self._document, self._t
        overview = self._pictures.overview
        right = WIDTH if overview is None else WIDTH - (OVERVIEW_MM + 6) * MM
        tables: list[Flowable] = [self._table(document.liver, right, with_head=False)]
        if document.segments is not None:
            tables += [Spacer(1, 3 * MM), self._table(document.segments, right)]
        body: Flowable
        if overview is None:
            body = self._row([tables], [right], [])
        else:
            caption = _paragraph(self._fonts, overview_caption(document), "caption")
            left = [_image(overview, OVERVIEW_MM), caption]
            body = self._row([left, tables], [(OVERVIEW_MM + 6) * MM, right], [("VALIGN", (0, 0), (-1, -1), "TOP")])
        parts = [_together([self._heading(t("Liver")), body]), *self._texts(document.segment_notes, "note")]
        if document.remnant:
            heading = _paragraph(self._fonts, t("Future liver remnant"), "heading3")
            parts += [_together([heading, *self._texts(document.remnant)])]
        return parts

    def _followup(self) -> Generator[list[Flowable], None, None]:
        section = self._document.followup
        yield [self._heading(section.title), *self._texts(section.sentences)]
        if section.table is not None:
            yield from self._long_table(section.table)
        for data, text in section.pictures:
            yield [_wide_image(data), _paragraph(self._fonts, text, "caption")]

    def _signature(self) -> Flowable:
        from reportlab.platypus import Spacer

        t = self._t
        cells = [_paragraph(self._fonts, text, "caption") for text in (t("Read by"), t("Date"))]
        line = [("LINEABOVE", (0, 0), (0, 0), 0.5, "#111111"), ("LINEABOVE", (2, 0), (2, 0), 0.5, "#111111")]
        row = self._row([cells[0], "", cells[1]], [WIDTH * 0.6, WIDTH * 0.06, WIDTH * 0.34], line)
        return _together([Spacer(1, 14 * MM), row])

    def _heading(self, text: str) -> Flowable:
        return _paragraph(self._fonts, text, "heading")

    def _texts(self, texts: Sequence[str], style: str = "body") -> list[Flowable]:
        return [_paragraph(self._fonts, text, style) for text in texts]

    def _entries(self, entries: Sequence[Entry], label_mm: float, style: str = "body") -> list[Flowable]:
        """One table per entry: long ones may go on over the page's end together with others."""
        return [self._entry_table([entry], label_mm, WIDTH, style) for entry in entries]

    def _entry_table(
        self,
        entries: Sequence[Entry],
        label_mm: float,
        width: float,
        style: str = "body",
        is_first_bold: bool = False,
    ) -> Flowable:
        from reportlab.platypus import Table as FlowTable

        if not entries:
            return _paragraph(self._fonts, "", style)
        rows = [
            [
                _paragraph(self._fonts, entry.label, f"{style} label"),
                _paragraph(self._fonts, plain(entry.value, 700), f"{style} bold" if first else style),
            ]
            for first, entry in ((is_first_bold and n == 0, entry) for n, entry in enumerate(entries))
        ]
        padding = 0.6 if style == "small" else 1.0
        table = FlowTable(rows, [label_mm * MM, width - label_mm * MM], hAlign="LEFT")
        table.setStyle(
            [*_NO_PADDING, ("VALIGN", (0, 0), (-1, -1), "TOP"), ("BOTTOMPADDING", (0, 0), (-1, -1), padding)]
        )
        return table

    def _long_table(self, content: Table) -> Generator[list[Flowable], None, None]:
        """A table over as many pages as it needs; a step for some rows each, since each cell is set as a paragraph."""
        step = 25
        rows: list[list[Flowable]] = []
        for start in range(0, len(content.rows), step):
            rows += self._rows(content.columns, content.rows[start : start + step])
            yield []
        yield [self._flow_table(content.columns, rows, WIDTH, with_head=True)]

    def _table(self, content: Table, width: float, with_head: bool = True) -> Flowable:
        return self._flow_table(content.columns, self._rows(content.columns, content.rows), width, with_head)

    def _rows(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[list[Flowable]]:
        styles = ["number" if column.is_number else "cell" for column in columns]
        most = [MOST_IN_NAME if index == 0 else MOST_IN_CELL for index in range(len(columns))]
        return [
            [
                _paragraph(self._fonts, plain(text, longest), style)
                for text, longest, style in zip(row, most, styles, strict=True)
            ]
            for row in rows
        ]

    def _flow_table(
        self, columns: Sequence[Column], rows: list[list[Flowable]], width: float, with_head: bool
    ) -> Flowable:
        from reportlab.platypus import LongTable

        styles = ["number head" if column.is_number else "cell head" for column in columns]
        head = [_paragraph(self._fonts, c.title, style) for c, style in zip(columns, styles, strict=True)]
        total = sum(column.width for column in columns)
        table = LongTable(
            [head, *rows] if with_head else rows,
            [width * column.width / total for column in columns],
            repeatRows=1 if with_head else 0,
            hAlign="LEFT",
        )
        lines = [("LINEBELOW", (0, 0), (-1, -1), 0.3, LIGHT)]
        if with_head:
            lines += [("LINEBELOW", (0, 0), (-1, 0), 0.8, "#111111"), ("VALIGN", (0, 0), (-1, 0), "BOTTOM")]
        if not columns[-1].is_number:
            lines.append(("LEFTPADDING", (-1, 0), (-1, -1), 9))
        padding = [
            ("LEFTPADDING", (0, 0), (-1, -1), 2.5),
            ("LEFTPADDING", (0, 0), (0, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 2.5),
            ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ]
        table.setStyle([*padding, *lines])
        return table

    def _row(
        self, cells: Sequence[Any], widths: Sequence[float], style: Sequence[tuple], heights: list[float] | None = None
    ) -> Flowable:
        """Things side by side."""
        from reportlab.platypus import Table as FlowTable

        table = FlowTable([list(cells)], list(widths), heights, hAlign="LEFT")
        table.setStyle([*_NO_PADDING, *style])
        return table


_NO_PADDING = [(f"{side}PADDING", (0, 0), (-1, -1), 0) for side in ("LEFT", "RIGHT", "TOP", "BOTTOM")]
# Title and notice come first in the story.
_AFTER_NOTICE = 2


def _template(document: ReportDocument, fonts: Fonts, path: Path) -> Any:
    """A ReportLab document that is built in steps, with patient, study, notice and page number on every page."""
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate

    class Numbered(Canvas):
        """Knows how many pages there are before it writes the first one."""

        def __init__(self, *args: Any, **more: Any):
            super().__init__(*args, **more)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, start=1):
                self.__dict__.update(page)
                _decorate(self, document, fonts, number, len(self._pages))
                Canvas.showPage(self)
            super().save()

    class Stepwise(BaseDocTemplate):
        """Lays out one flowable a step."""

        def steps(self, story: list[Flowable]) -> Generator[None, None, None]:
            self._startBuild(None, Numbered)
            while story:
                self.clean_hanging()
                self.handle_flowable(story)
                yield
            self._endBuild()

    template = Stepwise(
        str(path),
        pagesize=(PAGE_WIDTH, PAGE_HEIGHT),
        title=document.t("Liver report"),  # no name: titles show up in lists of files
        author="LiverCascade",
        subject=document.t(RESEARCH_USE),
        creator="LiverCascade",
        lang=document.t.language,
        invariant=1,
    )
    frame = Frame(MARGIN, FOOT, WIDTH, PAGE_HEIGHT - HEAD - FOOT, 0, 0, 0, 0)
    template.addPageTemplates([PageTemplate("page", [frame])])
    return template


def _decorate(canvas: Canvas, document: ReportDocument, fonts: Fonts, number: int, count: int) -> None:
    """Head and foot of a page."""
    if number > 1:
        _place(canvas, _paragraph(fonts, document.running_title, "running"), PAGE_HEIGHT - 12 * MM)
    canvas.setLineWidth(0.4)
    canvas.line(MARGIN, 13.5 * MM, PAGE_WIDTH - MARGIN, 13.5 * MM)
    _place(canvas, _paragraph(fonts, document.t(RESEARCH_USE), "running"), 9.5 * MM)
    page = document.t("Page {number} of {count}", number=number, count=count)
    _place(canvas, _paragraph(fonts, page, "running right"), 9.5 * MM)


def _place(canvas: Canvas, paragraph: Flowable, y: float) -> None:
    paragraph.wrapOn(canvas, WIDTH, 10 * MM)
    paragraph.drawOn(canvas, MARGIN, y)


def _paragraph(fonts: Fonts, text: str, style: str, bullet: str | None = None) -> Flowable:
    from reportlab.platypus import Paragraph

    return Paragraph(fonts.markup(text), _style(style), bulletText=bullet)


@lru_cache(maxsize=32)
def _style(name: str) -> Any:
    """A paragraph's style; a second word changes the first one's."""
    from reportlab.lib.enums import TA_RIGHT
    from reportlab.lib.styles import ParagraphStyle

    base = {"fontName": REGULAR, "fontSize": 8.5, "leading": 11.4, "textColor": "#111111", "splitLongWords": 1}
    kinds: dict[str, dict[str, Any]] = {
        "body": {"spaceAfter": 1.5},
        "small": {"fontSize": 7.2, "leading": 9.2},
        "title": {"fontName": BOLD, "fontSize": 16, "leading": 20},
        "heading": {
            "fontName": BOLD,
            "fontSize": 10,
            "leading": 13,
            "spaceBefore": 9,
            "spaceAfter": 3,
            "keepWithNext": 1,
            "borderPadding": 0,
        },
        "heading3": {"fontName": BOLD, "spaceBefore": 7, "spaceAfter": 3, "keepWithNext": 1},
        "notice": {"fontName": BOLD, "fontSize": 8, "leading": 11, "spaceBefore": 3},
        "note": {"fontSize": 7.2, "leading": 9.4, "textColor": GRAY, "spaceBefore": 1.5},
        "caption": {"fontSize": 6.8, "leading": 8.6, "textColor": GRAY, "spaceBefore": 2},
        "cell": {"fontSize": 7.3, "leading": 9.2},
        "number": {"fontSize": 7.3, "leading": 9.2, "alignment": TA_RIGHT},
        "bullet": {"fontSize": 7.2, "leading": 9.4, "leftIndent": 9, "bulletFontName": REGULAR, "bulletFontSize": 7.2},
        "running": {"fontSize": 7, "leading": 9, "textColor": GRAY},
        "right": {"alignment": TA_RIGHT, "textColor": GRAY},
    }
    words = name.split()
    style = {**base, **kinds[words[0]]}
    for word in words[1:]:
        style |= {
            "label": {"textColor": GRAY},
            "head": {"fontName": BOLD, "fontSize": 7, "leading": 8.8},
            "right": {"alignment": TA_RIGHT},
            "bold": {"fontName": BOLD},
        }[word]
    return ParagraphStyle(name, **style)


def _together(parts: list[Flowable]) -> Flowable:
    from reportlab.platypus import KeepTogether

    return KeepTogether(parts)


def _image(picture: Picture, width_mm: float) -> Flowable:
    from reportlab.platypus import Image

    width = width_mm * MM
    return Image(BytesIO(picture.data), width, width * picture.height / picture.width, hAlign="LEFT")


def _wide_image(data: bytes) -> Flowable:
    """A picture as wide as the page, or lower where it would be too high for it."""
    from reportlab.lib.utils import ImageReader
    from reportlab.platypus import Image

    width, height = ImageReader(BytesIO(data)).getSize()
    scale = min(WIDTH / width, 120 * MM / height)
    return Image(BytesIO(data), width * scale, height * scale, hAlign="LEFT")
