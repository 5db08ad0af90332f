"""What Slicer would only have printed: a test fails for it at its end, as a run with ``--testing`` does."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass, field


@dataclass
class Problems:
    """Texts of all that went wrong where Qt, not the test, was the caller.

    Attributes:
        texts: one text per problem, oldest first. A test that provokes one takes it out.
    """

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Prints and keeps ``text``."""
        print(text, file=sys.stderr)
        self.texts.append(text)

    def addException(self, where: str) -> None:
        """Keeps the exception that is being handled."""
        self.add(f"Exception in {where}:\n{traceback.format_exc()}")

    def take(self) -> list[str]:
        """Hands all texts over and forgets them."""
        texts, self.texts = self.texts, []
        return texts


problems = Problems()
