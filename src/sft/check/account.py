"""What became of every row, how long the rows are, and what is wrong with either."""

from __future__ import annotations

from collections.abc import Sequence

from sft.check.report import AccountLine
from sft.curate.checks.messages import count
from sft.curate.finding import DataFinding
from sft.data.account import DataSet
from sft.data.tokenize import RowFate

NUM_PLACES = 3
# Above this share of rows that are too long, the limit is more likely wrong than the rows.
MANY = 0.05


def account_lines(data: DataSet) -> tuple[AccountLine, ...]:
    """One line for each status and reason; of a status, the most frequent reason first."""
    lines = []
    for status, total in data.counts().items():
        reasons: dict[str, list[str]] = {}
        for fate in data.fates:
            if fate.status == status:
                reasons.setdefault(_kind(fate.reason), []).append(str(fate.origin))
        listed = sum(map(len, reasons.values()))
        if total > listed:  # bad rows beyond those that are kept
            reasons.setdefault("further rows, not listed", []).extend([""] * (total - listed))
        for reason, places in sorted(reasons.items(), key=lambda item: -len(item[1])):
            shown = tuple(filter(None, places[:NUM_PLACES])) if reason else ()
            lines.append(AccountLine(len(places), status, reason, shown))
    return tuple(lines)


def _kind(reason: str) -> str:
    """Reasons that differ in their numbers only are one kind."""
    head, comma, tail = reason.partition(",")
    return f"too long:{tail}" if comma and head.endswith(" tokens") else reason


def row_findings(data: DataSet, policy: str) -> list[DataFinding]:
    """Rows that cannot be used, are too long, or were cut; and too few to measure with.

    `policy` is `data.on_bad_row`: with `error`, training would not start.
    """
    found = []
    bad = [fate for fate in data.fates if fate.status == "bad"]
    if data.num_bad:
        first = f"; the first: {bad[0].reason} [{bad[0].origin}]" if bad else ""
        found.append(
            DataFinding(
                check="unusable",
                severity="error" if policy == "error" else "warning",
                count=data.num_bad,
                rows=tuple(str(fate.origin) for fate in bad),
                message=f"{data.num_bad:,} of {data.num_rows:,} rows cannot be used{first}",
                fix="correct them, or leave them out: --set data.on_bad_row=skip",
            )
        )
    found += _too_long(data)
    if not data.val:
        found.append(
            DataFinding(
                check="no_validation",
                severity="warning",
                count=0,
                rows=(),
                message="no row is held back, so overfitting could not be seen",
                fix="--set data.val_fraction=0.1, or give --val FILE",
            )
        )
    return found


def _too_long(data: DataSet) -> list[DataFinding]:
    dropped = [f for f in data.fates if f.status == "dropped" and " tokens, " in f.reason]
    cut = [fate for fate in data.fates if fate.status == "truncated"]
    found = []
    if dropped:
        share = len(dropped) / data.num_rows
        found.append(
            DataFinding(
                check="too_long",
                severity="warning" if share > MANY else "info",
                count=len(dropped),
                rows=tuple(str(fate.origin) for fate in dropped),
                message=f"{count(len(dropped))} ({share:.1%}) longer than data.max_seq_len, "
                "left out",
                fix=f"--set data.max_seq_len={_longest(dropped)} keeps all, if the model's limit "
                "allows",
            )
        )
    if cut:
        found.append(
            DataFinding(
                check="truncated",
                severity="warning",
                count=len(cut),
                rows=tuple(str(fate.origin) for fate in cut),
                message=f"{count(len(cut), 'answer')} cut at data.max_seq_len, which teach how an "
                "answer begins, and not how it ends",
                fix=f"--set data.max_seq_len={_longest(cut)}, or --set data.overflow=drop",
            )
        )
    return found


def _longest(fates: Sequence[RowFate]) -> int:
    return max(int(fate.reason.split()[0]) for fate in fates)
