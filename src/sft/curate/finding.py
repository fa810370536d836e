"""What is wrong with the data: a `DataFinding` for each kind of fault, with all its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")  # the worst first


@dataclass(frozen=True, slots=True)
class DataFinding:
    """One fault. `error` teaches something wrong, `warning` may, `info` is good to know.

    `count` is the number of rows concerned and `rows` are their places (`file:line`), as many as
    are known. `fix` is a config line or a command that mends it; empty when only a person can.
    """

    check: str
    severity: Severity
    count: int
    rows: tuple[str, ...]
    message: str
    fix: str = ""

    def record(self) -> dict[str, Any]:
        """The finding as plain JSON types."""
        return {**asdict(self), "rows": list(self.rows)}


def worst_first(findings: Iterable[DataFinding]) -> list[DataFinding]:
    """By severity, and of equal severity the most rows first."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), -one.count))


def as_severe_as(limit: str, findings: Iterable[DataFinding]) -> list[DataFinding]:
    """The findings that are as severe as `limit`, or more; none for `never`."""
    severities = SEVERITIES[: SEVERITIES.index(limit) + 1] if limit in SEVERITIES else ()
    return [finding for finding in findings if finding.severity in severities]
