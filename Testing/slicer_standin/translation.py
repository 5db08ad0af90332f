"""Small modules: slicer.i18n and SampleData."""

from __future__ import annotations

import types
from typing import Any, ClassVar


def make() -> types.ModuleType:
    """slicer.i18n: English only; an f-string with the values already in it cannot be told from a plain text here."""
    made = types.ModuleType("slicer.i18n")
    made.tr = _tr
    made.translate = _translate
    return made


def _tr(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"tr() takes a str, not {text!r}")
    return text


def _translate(context: str, text: str) -> str:
    return _tr(text)


def sampleData(hasCategories: bool) -> types.ModuleType:
    """SampleData: registered samples are kept in ``SampleDataLogic.sources`` as (category, name, keywords).

    Args:
        hasCategories: whether categories can have titles, which are kept in ``SampleDataLogic.categories``.
    """
    made = types.ModuleType("SampleData")

    class SampleDataLogic:
        """Keeps what modules register."""

        sources: ClassVar[list[tuple[str, str, dict[str, Any]]]] = []
        categories: ClassVar[dict[str, str]] = {}

        @staticmethod
        def registerCustomSampleDataSource(
            category: str = "Custom",
            sampleName: str | None = None,
            uris: Any = None,
            fileNames: Any = None,
            nodeNames: Any = None,
            customDownloader: Any = None,
            thumbnailFileName: str | None = None,
            loadFileTypes: Any = None,
            loadFiles: bool | None = None,
            loadFileProperties: dict[str, Any] | None = None,
            checksums: Any = None,
            loadFileType: str | None = None,
        ) -> None:
            """As SampleDataLogic's, with its parameters."""
            given = {
                "uris": uris,
                "fileNames": fileNames,
                "nodeNames": nodeNames,
                "customDownloader": customDownloader,
                "thumbnailFileName": thumbnailFileName,
                "loadFileTypes": loadFileTypes or loadFileType,
                "loadFiles": loadFiles,
                "loadFileProperties": loadFileProperties,
                "checksums": checksums,
            }
            known = {key: value for key, value in given.items() if value is not None}
            SampleDataLogic.sources.append((category, sampleName, known))

    if hasCategories:
        register = SampleDataLogic.categories.__setitem__
        SampleDataLogic.registerCustomSampleDataCategory = staticmethod(
            lambda category, title: register(category, title)
        )
    made.SampleDataLogic = SampleDataLogic
    return made
