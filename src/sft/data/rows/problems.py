"""Unusable rows: what one is, and how they are collected, counted and told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sft.data.rows.conversation import Origin
from sft.errors import DataError
from sft.texts.safe import one_line

SKIP_HINT = "Correct them, or leave them out with --set data.on_bad_row=skip"

# Beyond these, rows are only counted: a wrong file must not fill the memory.
MAX_KEPT = 10_000
MAX_REASONS = 1_000
MAX_SHOWN = 20
MAX_PLACES = 3

_POSITION = re.compile(
    r"(?<=\[)\d+(?=\])|(?<=\bcolumn )\d+|(?<=\bline )\d+|(?<=\bbyte )0x[0-9A-F]{2}\b"
)


class RowError(DataError):
    """A row cannot be used. The message is the reason; the place is added by the reader."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and the reason in one sentence."""

    origin: Origin
    reason: str


@dataclass(slots=True)
class _Group:
    """Rows that cannot be used for the same reason."""

    reason: str
    count: int = 0
    places: list[str] = field(default_factory=list)


class BadRows:
    """Collects the rows that cannot be used; `rows` holds the first 10,000, `count` counts all."""

    def __init__(self, policy: Literal["error", "skip"]) -> None:
        self.policy = policy
        self.rows: list[BadRow] = []
        self.count = 0
        self._groups: dict[str, _Group] = {}

    def add(self, origin: Origin, reason: str) -> None:
        """Note that the row at `origin` cannot be used."""
        reason = one_line(reason)
        self.count += 1
        if len(self.rows) < MAX_KEPT:
            self.rows.append(BadRow(origin, reason))
        kind = _POSITION.sub("*", reason)
        if kind not in self._groups and len(self._groups) >= MAX_REASONS:
            kind = reason = "other reasons"
        group = self._groups.setdefault(kind, _Group(reason))
        group.count += 1
        if group.count > 1:
            group.reason = kind
        if len(group.places) < MAX_PLACES:
            group.places.append(str(origin))

    def table(self) -> str:
        """One line per reason, the most frequent first: count, reason, first places."""
        groups = sorted(self._groups.values(), key=lambda group: -group.count)
        lines = [
            f"  {group.count:>6,}  {group.reason} [{', '.join(group.places)}"
            f"{', ...' if group.count > len(group.places) else ''}]"
            for group in groups[:MAX_SHOWN]
        ]
        if len(groups) > MAX_SHOWN:
            lines.append(f"          and {len(groups) - MAX_SHOWN:,} more reasons")
        return "\n".join(lines)

    def raise_if_any(self, num_rows: int, hint: str = SKIP_HINT) -> None:
        """Under the policy `error`, raise one `DataError` for all of them; `num_rows` were read.

        `hint` says what can be done about it.
        """
        if self.policy == "error" and self.count:
            raise DataError(
                f"{self.count:,} of {num_rows:,} rows cannot be used:\n{self.table()}\n{hint}"
            )


def describe(value: Any) -> str:
    """What `value` is, in JSON's words: `null`, `text`, `a list`, ..."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, name in (
        (str, "text"),
        (int | float, "a number"),
        (list | tuple, "a list"),
        (Mapping, "an object"),
    ):
        if isinstance(value, kind):
            return name
    return f"a value of type {type(value).__name__}"


_KINDS: dict[type, str] = {str: "text", list: "a list", dict: "an object"}


def expect(value: Any, kind: type, field: str, what: str = "") -> None:
    """Raise `RowError` when `value` of `field` is not of the type `kind`, called `what`."""
    if not isinstance(value, kind):
        raise RowError(f"{field}: expected {what or _KINDS[kind]}, found {describe(value)}")


def listing(names: Mapping[str, Any]) -> str:
    """The keys of a row or message for a sentence, short even when there are many."""
    named = [f"{name:.40}" for name in list(names)[:20]]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return one_line(", ".join(named) + more) or "none"
