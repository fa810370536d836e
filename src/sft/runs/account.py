"""What became of the rows of a run, summed up: the one reading of `account.json`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What became of a row, in words; the keys are those of `account.json`.
STATUSES = {
    "used": "trained on",
    "changed": "edited, and trained on",
    "truncated": "cut, and trained on",
    "val": "kept back for validation",
    "dropped": "left out",
    "bad": "cannot be used",
}
TRAINED_ON = ("used", "changed", "truncated")
FURTHER = "further rows, not listed"
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")


@dataclass(frozen=True, slots=True)
class AccountLine:
    """`count` rows became `status` (used, val, changed, truncated, dropped, bad) for `reason`."""

    count: int
    status: str
    reason: str
    places: tuple[str, ...]  # the first few, file:line


class _Reason:
    """Rows of one status whose reasons differ in their numbers only."""

    def __init__(self, reason: str) -> None:
        self._texts = _NUMBER.split(reason)
        self._numbers = _NUMBER.findall(reason)
        self.count = 0
        self.places: list[str] = []

    def add(self, reason: str, place: str, max_places: int) -> None:
        numbers = zip(self._numbers, _NUMBER.findall(reason), strict=True)
        self._numbers = [a if a == b else "#" for a, b in numbers]
        self.count += 1
        if len(self.places) < max_places:
            self.places.append(place)

    def __str__(self) -> str:
        return "".join(map("".join, zip(self._texts, [*self._numbers, ""], strict=True)))


def account_lines(
    account: Mapping[str, Any], max_places: int, *, places_of_all: bool = False
) -> tuple[AccountLine, ...]:
    """One line for each status and reason of an account as `account.json` has it.

    Statuses come in the order of `STATUSES`, and the most frequent reason of one first. Reasons
    that differ in numbers alone are one, with `#` for each number that differs. Rows that are
    counted and not listed (of a stream, and bad ones beyond the first 10,000) have a line of their
    own. Places of rows without a reason, which are used as they are, are given with
    `places_of_all` only.
    """
    reasons: dict[tuple[str, str], _Reason] = {}
    listed: Counter[str] = Counter()
    rows = account.get("rows")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping):
            status, reason = str(row.get("status", "")), str(row.get("reason") or "")
            listed[status] += 1
            key = (status, _NUMBER.sub("#", reason))
            group = reasons.setdefault(key, _Reason(reason))
            group.add(reason, str(row.get("row", "")), max_places if reason or places_of_all else 0)
    lines = [
        AccountLine(group.count, status, str(group), tuple(group.places))
        for (status, _), group in reasons.items()
    ]
    counts = account.get("counts")
    for status, count in (counts if isinstance(counts, Mapping) else {}).items():
        if isinstance(count, int) and count > listed[status]:
            reason = "" if status in ("used", "val") and not listed[status] else FURTHER
            lines.append(AccountLine(count - listed[status], str(status), reason, ()))
    order = [*STATUSES]
    return tuple(
        sorted(
            lines,
            key=lambda line: (
                order.index(line.status) if line.status in order else len(order),
                -line.count,
                line.reason,
            ),
        )
    )
