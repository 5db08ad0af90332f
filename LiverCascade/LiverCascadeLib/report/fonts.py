"""Letters for the PDF: a font that comes with ReportLab, and the system's where it lacks a script.

HTML pages leave this to the browser. A PDF carries its letters with it, and ReportLab draws them one by one from left
to right: scripts whose letters join, stack or run from right to left would come out wrong, and a wrong name is worse
than none. Where a text cannot be shown, a mark stands instead, and the document says where the full text is.
"""

from __future__ import annotations

import os
import re
import unicodedata
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from reportlab.pdfbase.ttfonts import TTFont

REGULAR, BOLD = "LiverCascade-Regular", "LiverCascade-Bold"
MARK = "[?]"
_MARKS = re.compile(rf"{re.escape(MARK)}(\s*{re.escape(MARK)})+")

# Well-known places; the first that has all letters of a word is taken. TrueType outlines only: ReportLab cannot
# embed others.
SYSTEM_FONTS = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/liberation-sans/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/opentype/ipafont-gothic/ipag.ttf",
    "/usr/share/fonts/truetype/takao-gothic/TakaoGothic.ttf",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/arphic/uming.ttc",
    "/usr/share/fonts/truetype/nanum/NanumGothic.ttf",
    "/usr/share/fonts/truetype/unifont/unifont.ttf",
    "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
    "/Library/Fonts/Arial Unicode.ttf",
    "/System/Library/Fonts/Supplemental/Arial.ttf",
    "{windows}/Fonts/arial.ttf",
    "{windows}/Fonts/segoeui.ttf",
    "{windows}/Fonts/msgothic.ttc",
    "{windows}/Fonts/YuGothM.ttc",
    "{windows}/Fonts/msyh.ttc",
    "{windows}/Fonts/simsun.ttc",
    "{windows}/Fonts/malgun.ttf",
)

# First and last letter of scripts that join, stack or run from right to left.
_SHAPED = (
    (0x0590, 0x08FF),  # Hebrew, Arabic, Syriac, Thaana, N'Ko and others
    (0x0900, 0x0DFF),  # scripts of India and Sri Lanka
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Myanmar
    (0x1780, 0x18AF),  # Khmer, Mongolian
    (0xFB1D, 0xFDFF),  # presentation forms
    (0xFE70, 0xFEFE),
    (0x10800, 0x10FFF),
    (0x1E800, 0x1EEFF),
)


class Fonts:
    """Chooses fonts for one document.

    Args:
        system_fonts: paths of font files to look at, in this order.

    Attributes:
        is_incomplete: whether a mark had to stand for a text so far.
    """

    def __init__(self, system_fonts: tuple[str, ...] = SYSTEM_FONTS):
        from reportlab.pdfbase import pdfmetrics
        from reportlab.pdfbase.ttfonts import TTFont

        for name, file in ((REGULAR, "Vera.ttf"), (BOLD, "VeraBd.ttf")):
            pdfmetrics.registerFont(TTFont(name, file))
        pdfmetrics.registerFontFamily(REGULAR, normal=REGULAR, bold=BOLD, italic=REGULAR, boldItalic=BOLD)
        self._base = pdfmetrics.getFont(REGULAR).face.charToGlyph
        self._waiting = list(system_fonts)
        self._more: list[TTFont] = []
        self.is_incomplete = False

    def markup(self, text: str) -> str:
        """``text`` for a ReportLab paragraph: nothing in it is markup, and each letter has a font that knows it."""
        text = unicodedata.normalize("NFC", text)
        pieces = []
        for font, letters in groupby(text, key=self._font_of):
            run = "".join(letters)
            if font is None:
                self.is_incomplete = True
                pieces.append(MARK)
            else:
                pieces.append(escape(run) if font == REGULAR else f'<font name="{font}">{escape(run)}</font>')
        # One mark stands for a whole name, not one for each of its words.
        return _MARKS.sub(MARK, "".join(pieces))

    def _font_of(self, letter: str) -> str | None:
        code = ord(letter)
        if code in self._base or letter.isspace():
            return REGULAR
        if any(first <= code <= last for first, last in _SHAPED):
            return None
        for font in self._more:
            if code in font.face.charToGlyph:
                return font.fontName
        while self._waiting:
            font = _opened(self._waiting.pop(0))
            if font is not None:
                self._more.append(font)
                if code in font.face.charToGlyph:
                    return font.fontName
        return None


def _opened(place: str) -> TTFont | None:
    """The font at a well-known place; None where there is none that ReportLab can embed."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFError, TTFont

    path = Path(place.format(windows=os.environ.get("WINDIR", "C:/Windows")))
    if not path.is_file():
        return None
    name = f"LiverCascade-{path.stem}".replace(" ", "")
    try:
        font = TTFont(name, str(path))
    except (TTFError, OSError, ValueError, KeyError, IndexError):
        return None
    pdfmetrics.registerFont(font)
    pdfmetrics.registerFontFamily(name, normal=name, bold=name, italic=name, boldItalic=name)
    return font
