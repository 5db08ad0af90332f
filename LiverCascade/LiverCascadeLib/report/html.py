"""The report as one HTML page that needs nothing else: no file, no network, no script."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from .document import ReportDocument
from .files import RESEARCH_USE
from .key_images import Picture
from .texts import FOLDER

TEMPLATE_FILE = "report.html.j2"


@dataclass(frozen=True)
class Pictures:
    """The pictures of a report.

    Attributes:
        slices, reliefs: key image and 3D picture by lesions' labels.
        overview: the whole liver; None where there is none.
    """

    slices: dict[int, Picture]
    reliefs: dict[int, Picture]
    overview: Picture | None = None


@dataclass(frozen=True)
class _Embedded:
    uri: str
    width: int
    height: int
    alternative: str


def render_html(document: ReportDocument, pictures: Pictures) -> str:
    """The page. Whatever a text holds, it is shown as text: markup and scripts in it have no effect."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    t = document.t
    followup = document.followup.pictures if document.followup is not None else ()
    page = environment.get_template(TEMPLATE_FILE).render(
        doc=document,
        t=t,
        date=document.date.strftime("%Y-%m-%d %H:%M"),
        notice=t(RESEARCH_USE),
        slices={label: _embedded(picture) for label, picture in pictures.slices.items()},
        reliefs={label: _embedded(picture) for label, picture in pictures.reliefs.items()},
        overview=_embedded(pictures.overview),
        overview_caption=overview_caption(document),
        followup_pictures=[_Embedded(_uri(data), 0, 0, text) for data, text in followup],
    )
    return page.lstrip()


def overview_caption(document: ReportDocument) -> str:
    """What stands below the picture of the whole liver."""
    t = document.t
    if document.numbers:
        return t("The liver from the front, seen from slightly right and above; lesions with their numbers.")
    return t("The liver from the front, seen from slightly right and above.")


def _embedded(picture: Picture | None) -> _Embedded | None:
    if picture is None:
        return None
    return _Embedded(_uri(picture.data), picture.width, picture.height, picture.alternative)


def _uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
