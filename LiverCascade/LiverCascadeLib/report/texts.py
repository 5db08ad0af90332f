"""What a report says, in the reader's language.

English is written where it is used, as ``t("Lesion")``, and is the key of a translation. A language is a file
``Resources/Report/texts-LANGUAGE.json`` that maps English texts to translated ones; what it lacks stays English.
The engine works without Slicer and therefore without Slicer's own translations.
"""

from __future__ import annotations

import json
import re
import unicodedata

from ..errors import InputError
from ..resources import RESOURCES

FOLDER = RESOURCES / "Report"
SOURCE_LANGUAGE = "en"


class Texts:
    """Translates; call it with an English text.

    Args:
        language: such as 'de' or 'pt-BR'.
        catalog: translated texts by their English ones; None reads the language's file.

    Raises:
        InputError: there is no such language, or its file is damaged.
    """

    def __init__(self, language: str = SOURCE_LANGUAGE, catalog: dict[str, str] | None = None):
        self.language = language
        self._catalog = _read_catalog(language) if catalog is None else catalog

    def __call__(self, text: str, **values: object) -> str:
        """The translation of ``text``, with ``{name}`` replaced by ``values``."""
        translated = self._catalog.get(text, text)
        if not values:
            return translated
        try:
            return translated.format(**values)
        except (KeyError, IndexError, ValueError):  # a translation with a place that does not exist
            return text.format(**values)

    def count(self, number: int, one: str, many: str, **values: object) -> str:
        """``one`` or ``many``, in which {n} is ``number``."""
        return self(one if number == 1 else many, n=number, **values)


def languages() -> tuple[str, ...]:
    """Languages that there are."""
    found = (path.stem.removeprefix("texts-") for path in FOLDER.glob("texts-*.json"))
    return (SOURCE_LANGUAGE, *sorted(found))


def _read_catalog(language: str) -> dict[str, str]:
    if language == SOURCE_LANGUAGE:
        return {}
    path = FOLDER / f"texts-{language}.json"
    if not re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*", language) or not path.is_file():
        raise InputError(f"Reports are not available in '{language}'. Choose one of: {', '.join(languages())}.")
    try:
        catalog = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The texts in {path} cannot be read: {error}.") from None
    if not isinstance(catalog, dict) or not all(isinstance(text, str) for text in catalog.values()):
        raise InputError(f"The texts in {path} are not a JSON object of texts.")
    return catalog


def plain(text: object, most: int | None = None) -> str:
    """Somebody's text for one line: no control characters, and none that turn the direction of others around.

    Args:
        most: characters that are kept; an ellipsis says that there were more.
    """
    text = " ".join(_without_controls(str(text)).split())
    return text if most is None or len(text) <= most else text[: most - 1].rstrip() + "…"


def paragraphs(text: object) -> tuple[str, ...]:
    """Somebody's text, line by line; empty lines separate and are left out."""
    lines = _without_controls(str(text).replace("\r\n", "\n").replace("\r", "\n")).split("\n")
    return tuple(line for line in (" ".join(line.split()) for line in lines) if line)


def _without_controls(text: str) -> str:
    # Cc: controls; Cf: invisible ones, of which some reverse what follows; Cs: halves of characters, in no encoding.
    kept = (c if unicodedata.category(c) not in ("Cc", "Cs", "Cn", "Co") or c == "\n" else " " for c in text)
    return "".join(c for c in kept if unicodedata.category(c) != "Cf" or c in "\u200c\u200d")
