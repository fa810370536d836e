"""What became of every row that was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sft.data.mixing import Share
from sft.data.rows.problems import BadRows
from sft.data.rows.read import Loaded
from sft.data.splits import Split
from sft.data.tokenize import Example, RowFate, Tokenized

Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Examples to train and to validate on, and what became of every row read.

    `num_rows` counts all rows read; `fates` has an entry for each of them, bad ones included
    (of which at most the first 10,000 are listed; `num_bad` counts all).

    Of a stream, `split.train` holds the first rows only, which are `sampled` of all; `num_unlisted`
    rows that are simply used are not in `fates`. `remarks` tell how the examples were made, and
    are no part of the account: they differ between two runs of the same data.
    """

    train: list[Example]
    val: list[Example]
    fates: list[RowFate]
    num_rows: int
    num_bad: int
    files: dict[str, str]
    notes: list[str]
    split: Split
    num_unlisted: int = 0
    sampled: float = 1.0
    remarks: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Rows by status; they add up to `num_rows`."""
        counts = Counter(fate.status for fate in self.fates if fate.status != "bad")
        counts["used"] += self.num_unlisted
        order = ("used", "val", "changed", "truncated", "dropped")
        return {**{status: counts[status] for status in order}, "bad": self.num_bad}


def data_set(
    loaded: Loaded,
    loaded_val: Loaded | None,
    split: Split,
    train: Tokenized,
    val: Tokenized,
    bad: BadRows,
) -> DataSet:
    """The data set, with what became of each row that was read."""
    unread = [row for part in (loaded, loaded_val) if part for row in part.bad_rows]
    special = {fate.origin: fate for fate in (*train.fates, *val.fates)}
    special |= {row.origin: RowFate(row.origin, "bad", row.reason) for row in (*unread, *bad.rows)}
    trained = {row.origin for row in split.train}
    left_out = {name: reason for name, reason in split.changed.items() if name not in trained}
    special |= {
        name: RowFate(name, "changed", reason)
        for name, reason in split.changed.items()
        if name in trained and name not in special
    }
    fates = []
    for rows, part, status in ((split.train, train, "used"), (split.val, val, "val")):
        usable = {example.origin for example in part.examples}
        # Neither usable nor special is a bad row beyond those that are listed.
        fates += [
            special.get(c.origin, RowFate(c.origin, status))
            for c in rows
            if c.origin in special or c.origin in usable
        ]
    fates += [
        RowFate(c.origin, "dropped", "its prompt is also in data.train") for c in split.leaked
    ]
    fates += [RowFate(name, "dropped", reason) for name, reason in left_out.items()]
    fates += [RowFate(row.origin, "bad", row.reason) for row in unread]
    num_bad = loaded.num_bad + (loaded_val.num_bad if loaded_val else 0) + bad.count
    good = len(split.train) + len(split.val) + len(split.leaked) + len(left_out) - bad.count
    reading = [note for part in (loaded, loaded_val) if part for note in part.notes]
    return DataSet(
        train=train.examples,
        val=val.examples,
        fates=sorted(fates, key=lambda fate: (fate.origin.source, fate.origin.line)),
        num_rows=good + num_bad,
        num_bad=num_bad,
        files=loaded.files | (loaded_val.files if loaded_val else {}),
        notes=[*reading, *split.notes, *_notes(train, val, num_bad, bool(split.val))],
        split=split,
    )


def _notes(train: Tokenized, val: Tokenized, num_bad: int, has_val: bool) -> list[str]:
    notes = []
    both: Sequence[Tokenized] = (train, val)
    if num_bad:
        notes.append(f"{num_bad:,} unusable rows were skipped (data.on_bad_row: skip)")
    notes += token_notes(
        sum(part.num_text_specials for part in both), sum(part.num_split for part in both)
    )
    for status in ("dropped", "truncated"):
        if num := sum(fate.status == status for part in both for fate in part.fates):
            notes.append(f"{num:,} over-long rows were {status} (data.overflow)")
    if not val.examples:
        why = "none of its rows can be used" if has_val else "no rows are split off for it"
        notes.append(f"no validation: {why}")
    return notes


def token_notes(num_text_specials: int, num_split: int) -> list[str]:
    """What to tell about rows that spell special tokens, and about those split into turns."""
    notes = []
    if num_text_specials:
        notes.append(
            f"{num_text_specials:,} rows spell a special token; it is encoded as text there"
        )
    if num_split:
        notes.append(
            f"{num_split:,} conversations are split into one example per turn, because the chat "
            "template rewrites earlier turns"
        )
    return notes


def nothing_left(train: Tokenized, bad: BadRows, max_seq_len: int) -> str:
    """Why there is no example to train on."""
    if train.fates:
        lengths = [int(fate.reason.split()[0]) for fate in train.fates]
        which, others = "row", ""
        if bad.count:
            which, others = "usable row", f"; and {bad.count:,} cannot be used:\n{bad.table()}"
        return (
            f"every {which} is longer than data.max_seq_len = {max_seq_len}: the shortest has "
            f"{min(lengths)} tokens; raise it with --set data.max_seq_len={max(lengths)}{others}"
        )
    return f"no usable row is left to train on:\n{bad.table()}"


def account(data: DataSet, shares: Sequence[Share] = ()) -> dict[str, Any]:
    """`account.json`: counts, files with their sha256, notes, sources, and one entry a row.

    `shares` are told where there are several sources.
    """
    return {
        "num_rows": data.num_rows,
        "counts": data.counts(),
        "files": data.files,
        "notes": data.notes,
        **({"sources": [share.record() for share in shares]} if shares else {}),
        "rows": [
            {"row": str(fate.origin), "status": fate.status}
            | ({"reason": fate.reason} if fate.reason else {})
            for fate in data.fates
        ],
    }
