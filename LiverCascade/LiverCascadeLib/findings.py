"""Findings: observations about an input or a result, in plain words, that travel with the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters to the reader of the result."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One observation.

    Attributes:
        code: stable identifier in kebab-case, for tests, filters and translations.
        severity: INFO needs no action, WARNING asks for a look, ERROR means that the result is probably wrong.
        message: one or two plain sentences: what was found, and what to do about it.
    """

    code: str
    severity: Severity
    message: str

    def as_dict(self) -> dict[str, str]:
        """Plain texts, for JSON."""
        return {**asdict(self), "severity": self.severity.value}
