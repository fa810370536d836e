"""What can be done about data before training on it. Pure functions from rows to rows.

Each returns the rows to train on, in the order given, and what became of the others: origin and
reason of every row that was changed or dropped. None depends on chance; which of several equal
rows is kept depends on their origins, not on their order.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

from sft.data.repeats import Prompted, answer_text, leaks, repeats
from sft.data.rows.conversation import Conversation, Origin
from sft.errors import ConfigError
from sft.texts.openers import opener

Remedied = tuple[list[Conversation], list[tuple[Origin, str]]]


def dedupe(rows: Sequence[Conversation]) -> Remedied:
    """Leave out exact copies and near-duplicates of earlier rows; see `sft.data.repeats`."""
    copies, near = repeats(rows)
    later = dict(sorted((copies | near).items()))
    return (
        [row for i, row in enumerate(rows) if i not in later],
        [(rows[i].origin, f"near-duplicate of {rows[first].origin}") for i, first in later.items()],
    )


def without_leaks(rows: Sequence[Conversation], val: Sequence[Conversation]) -> Remedied:
    """Leave out the rows that repeat a validation row."""
    leaking = leaks(rows, val).rows
    return (
        [row for i, row in enumerate(rows) if i not in leaking],
        [(rows[i].origin, f"repeats validation row {val[h].origin}") for i, h in leaking.items()],
    )


def cap_openers(rows: Sequence[Conversation], max_share: float) -> Remedied:
    """Drop rows until no opener begins more than `max_share` of the answers left.

    One row of each opener always stays. Where few rows begin otherwise that drops nearly all;
    `strip_openers` keeps them.

    Raises:
        ConfigError: when `max_share` is not above 0 and at most 1.
    """
    check_share(max_share)
    openers = [opener(answer_text(row)) for row in rows]
    counts = Counter(filter(None, openers))
    cap = largest_cap(list(counts.values()), max_share)
    taken: Counter[str] = Counter()
    stays = [not found for found in openers]
    for i in by_origin(rows):
        if openers[i] and taken[openers[i]] < cap:
            taken[openers[i]] += 1
            stays[i] = True
    kept = [row for row, stay in zip(rows, stays, strict=True) if stay]
    dropped = [
        (row.origin, f'{counts[found]:,} answers begin with "{found}"; {taken[found]:,} are kept')
        for row, found, stay in zip(rows, openers, stays, strict=True)
        if not stay
    ]
    return kept, dropped


def largest_cap(counts: Sequence[int], max_share: float) -> int:
    """Largest number of rows an opener may keep: no more than its share of all that are kept."""
    total = sum(counts)
    while True:
        cap = max(1, math.floor(max_share * total + 1e-9))
        left = sum(min(count, cap) for count in counts)
        if left == total:
            return cap
        total = left


def by_origin(rows: Sequence[Prompted]) -> list[int]:
    """Indices in an order that looks random but does not depend on the order of the rows."""
    origins = [str(row.origin).encode("utf-8", "surrogatepass") for row in rows]
    return sorted(range(len(rows)), key=lambda i: hashlib.sha256(origins[i]).digest())


def check_share(max_share: float) -> None:
    """Raise `ConfigError` for a share that is not above 0 and at most 1."""
    if not 0 < max_share <= 1:
        raise ConfigError(f"max_share is {max_share}; it must be above 0 and at most 1")
