"""The data stages in order: read, split, render and mask, tokenise; with every row accounted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sft.config import DataConfig
from sft.data.chat_template import ChatTemplate
from sft.data.conversation import Conversation, Origin
from sft.data.problems import BadRows
from sft.data.read import Loaded, read_conversations
from sft.data.splits import Split, given, split_off
from sft.data.tokenize import Example, RowFate, Tokenized, tokenize
from sft.errors import DataError

Progress = Callable[[str, int, int], None]  # (what, done, total)
# Rows and validation rows to the rows to train on, and the origin and reason of each that was
# changed or left out.
ChooseRows = Callable[
    [Sequence[Conversation], Sequence[Conversation]],
    tuple[list[Conversation], list[tuple[Origin, str]]],
]


@dataclass(frozen=True, slots=True)
class DataSet:
    """Examples to train and to validate on, and what became of every row read.

    `num_rows` counts all rows read; `fates` has an entry for each of them, bad ones included
    (of which at most the first 10,000 are listed; `num_bad` counts all).
    """

    train: list[Example]
    val: list[Example]
    fates: list[RowFate]
    num_rows: int
    num_bad: int
    files: dict[str, str]
    notes: list[str]
    split: Split

    def counts(self) -> dict[str, int]:
        """Rows by status; they add up to `num_rows`."""
        found = Counter(fate.status for fate in self.fates if fate.status != "bad")
        order = ("used", "val", "changed", "truncated", "dropped")
        return {**{status: found[status] for status in order}, "bad": self.num_bad}


def load_data(
    config: DataConfig,
    template: ChatTemplate,
    seed: int,
    progress: Progress = lambda _what, _done, _total: None,
    choose_rows: ChooseRows | None = None,
) -> DataSet:
    """Read everything `config` names and make examples of it. `config` holds no `auto`.

    `choose_rows` may change the rows to train on, or leave some out, once they are split.

    Raises:
        ConfigError, DataError, TemplateError: with file, line and count.
    """
    progress("reading", 0, 0)
    loaded = read_conversations(config.train, config.on_bad_row)
    loaded_val = read_conversations(config.val, config.on_bad_row) if config.val else None
    if loaded_val:
        split = given(loaded.conversations, loaded_val.conversations)
    else:
        split = split_off(loaded.conversations, config.val_fraction, seed)
    if choose_rows:
        chosen, changed = choose_rows(split.train, split.val)
        split = replace(split, train=chosen, changed=dict(changed))
    bad = BadRows(config.on_bad_row)
    num_conversations = len(split.train) + len(split.val)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done % 50 == 0 or done == num_conversations:
            progress("tokenising", done, num_conversations)

    def side(rows: Sequence[Conversation], prompt_weight: float) -> Tokenized:
        return tokenize(
            rows,
            template,
            bad,
            max_seq_len=int(config.max_seq_len),
            overflow=config.overflow,
            prompt_weight=prompt_weight,
            progress=advance,
        )

    train = side(split.train, config.prompt_weight)
    val = side(split.val, 0.0)  # validation measures answers, whatever is trained
    bad.raise_if_any(num_conversations)
    if not train.examples:
        raise DataError(_nothing_left(train, bad, int(config.max_seq_len)))
    return _account(loaded, loaded_val, split, train, val, bad)


def _account(
    loaded: Loaded,
    loaded_val: Loaded | None,
    split: Split,
    train: Tokenized,
    val: Tokenized,
    bad: BadRows,
) -> DataSet:
    unread = [row for part in (loaded, loaded_val) if part for row in part.bad_rows]
    special = {fate.origin: fate for fate in (*train.fates, *val.fates)}
    special |= {row.origin: RowFate(row.origin, "bad", row.reason) for row in (*unread, *bad.rows)}
    kept = {row.origin for row in split.train}
    left_out = {name: reason for name, reason in split.changed.items() if name not in kept}
    special |= {
        name: RowFate(name, "changed", reason)
        for name, reason in split.changed.items()
        if name in kept and name not in special
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
    return DataSet(
        train=train.examples,
        val=val.examples,
        fates=sorted(fates, key=lambda fate: (fate.origin.source, fate.origin.line)),
        num_rows=good + num_bad,
        num_bad=num_bad,
        files=loaded.files | (loaded_val.files if loaded_val else {}),
        notes=[*split.notes, *_notes(train, val, num_bad, bool(split.val))],
        split=split,
    )


def _notes(train: Tokenized, val: Tokenized, num_bad: int, has_val: bool) -> list[str]:
    notes = []
    both: Sequence[Tokenized] = (train, val)
    if num_bad:
        notes.append(f"{num_bad:,} unusable rows were skipped (data.on_bad_row: skip)")
    if num := sum(part.num_text_specials for part in both):
        notes.append(f"{num:,} rows spell a special token; it is encoded as text there")
    if num := sum(part.num_split for part in both):
        notes.append(
            f"{num:,} conversations are split into one example per turn, because the chat "
            "template rewrites earlier turns"
        )
    for status in ("dropped", "truncated"):
        if num := sum(fate.status == status for part in both for fate in part.fates):
            notes.append(f"{num:,} over-long rows were {status} (data.overflow)")
    if not val.examples:
        why = "none of its rows can be used" if has_val else "no rows are split off for it"
        notes.append(f"no validation: {why}")
    return notes


def _nothing_left(train: Tokenized, bad: BadRows, max_seq_len: int) -> str:
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


def account(data: DataSet) -> dict[str, Any]:
    """`account.json`: counts, files with their sha256, notes, and one entry a row."""
    return {
        "num_rows": data.num_rows,
        "counts": data.counts(),
        "files": data.files,
        "notes": data.notes,
        "rows": [
            {"row": str(fate.origin), "status": fate.status}
            | ({"reason": fate.reason} if fate.reason else {})
            for fate in data.fates
        ],
    }
