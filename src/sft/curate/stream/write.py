"""Pass 2: the rows that stay, as they were, and a line for every row that was dropped or edited."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.diverse_rows import Progress
from sft.curate.remedies import first_answer, strip_reason, stripped
from sft.curate.stream.rows import Chunk, Source, chunk_values, chunks, conversation, json_line
from sft.curate.stream.store import RowChanges, Store
from sft.data.repeats import answer_text
from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.formats import ROW_WEIGHT
from sft.data.rows.problems import RowError
from sft.errors import DataError
from sft.texts.openers import opener

PASS = "write"
OUT, LEDGER = "out", "ledger"

# What the ledger says of a row by the step that drops it; a check says what it found.
REASONS = {
    "exact_duplicates": "same as {other}",
    "near_duplicates": "like {other} ({value:.2f}{through})",
    "openers": '{value:,.0f} answers begin with "{opener}"; {kept:,} are kept',
    "balance": "{value:,.0f} prompts are in cluster {kind}; {kept:,} are kept",
    "select": "not among the rows that differ most",
    "toward": "not drawn; its log weight is {value:.1f}",
}


def write_rows(store: Store, writer: Writer, size: int, progress: Progress) -> int:
    """Write the rows that stay and the ledger into the work folder; how many rows were edited."""
    if (notes := store.finished(PASS)) is not None:
        return int(notes["edited"])
    with store.writing() as append:
        for chunk in chunks(writer.sources, size):
            append(writer.chunk(chunk))
            progress("writing rows:", writer.row, len(writer.lines))
    store.finish(PASS, edited=writer.num_edited)
    return writer.num_edited


class Writer:
    """Goes through the rows in order; `row` is the number of the next one.

    `dropped` and `edited` are the results of the steps by name. `weights` `[rows]` go into a new
    column, when given.
    """

    def __init__(
        self,
        store: Store,
        sources: Sequence[Source],
        dropped: Mapping[str, RowChanges],
        edited: RowChanges | None,
        weights: NDArray[np.float64] | None,
    ) -> None:
        self.sources = sources
        self._steps = list(dropped.items())
        self._weights = weights
        self._files = store.load("file", np.int32)
        self.lines = store.load("line", np.int64)
        self.row = self.num_edited = 0
        # Of each row: the step that drops it (0: none, -1: the rules of pass 1), and what is taken
        # off its answer. Arrays, as there may be hundreds of millions of rows.
        self._step = store.load("alive", bool).astype(np.int8) - np.int8(1)
        for number, (_, changes) in enumerate(self._steps, start=1):
            self._step[changes.rows] = number
        self._openers = np.zeros(len(self.lines), dtype=np.int32)
        self._phrases = edited.notes["phrases"] if edited else []
        if edited and edited.kind is not None:
            self._openers[edited.rows] = edited.kind
        self._fates = fates(store)

    def chunk(self, chunk: Chunk) -> dict[str, bytes]:
        """What the rows of a chunk add to the new file and to the ledger."""
        rows: list[bytes] = []
        ledger: list[bytes] = []
        source = self.sources[chunk.source]
        for number, item in zip(chunk.numbers, chunk.items, strict=True):
            origin = Origin(source.path, number)
            if reasons := self._dropped(item, origin, source):
                ledger.append(_ledger_line(origin, "dropped", *reasons))
            else:
                rows.append(self._line(item, origin, source, ledger))
            self.row += 1
        return {OUT: b"".join(rows), LEDGER: b"".join(ledger)}

    def _line(self, item: Any, origin: Origin, source: Source, ledger: list[bytes]) -> bytes:
        """The line of a row that stays; that it was edited goes into the ledger."""
        line = json_line(item)
        if number := self._openers[self.row]:
            phrases = self._phrases[number]
            if edited := _edited(item, phrases, origin, source):
                line = edited
                ledger.append(_ledger_line(origin, "changed", "openers", strip_reason(phrases)))
                self.num_edited += 1
        if self._weights is not None:
            line = _weighted(line, float(self._weights[self.row]), origin)
        return line

    def _dropped(self, item: Any, origin: Origin, source: Source) -> Sequence[str]:
        """Step, reason and the row kept in its place, of a row that is dropped; else nothing."""
        number = int(self._step[self.row])
        if number <= 0:
            return next(self._fates) if number else ()
        step, changes = self._steps[number - 1]
        at = int(np.searchsorted(changes.rows, self.row))
        value = 0.0 if changes.value is None else float(changes.value[at])
        kind = 0 if changes.kind is None else int(changes.kind[at])
        if step not in REASONS:
            return step, str(changes.notes["messages"][kind])
        other, *last = self._kept(changes, at)
        begin = ""
        if step == "openers":
            row = conversation(_values(item), origin, source)
            begin = opener(answer_text(row)) if isinstance(row, Conversation) else ""
        through = "" if value >= 0.8 else ", through other rows"
        named = {"value": value, "kind": kind, "other": other, "opener": begin, "through": through}
        return step, REASONS[step].format(**named, **changes.notes), *last

    def _kept(self, changes: RowChanges, at: int) -> list[str]:
        """The row that a row is like, and the one that is kept, where later steps dropped that."""
        if changes.other is None:
            return [""]
        row = last = int(changes.other[at])
        while (number := int(self._step[last])) > 0:
            later = self._steps[number - 1][1]
            if later.other is None:
                break
            last = int(later.other[np.searchsorted(later.rows, last)])
        return [
            str(Origin(self.sources[self._files[i]].path, int(self.lines[i]))) for i in (row, last)
        ]


def fates(store: Store) -> Iterator[list[str]]:
    """Rule and reason of each row that pass 1 dropped, in order."""
    with store.path("fates").open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _ledger_line(origin: Origin, action: str, step: str, reason: str, kept: str = "") -> bytes:
    entry = {"row": str(origin), "action": action, "by": step, "reason": reason}
    if kept:
        entry["kept"] = kept
    text = json.dumps(entry, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _values(item: Any) -> dict[str, Any] | RowError:
    return chunk_values(Chunk(0, [1], [item]))[0]


def _weighted(line: bytes, weight: float, origin: Origin) -> bytes:
    """The line with the column `row_weight` at its end, which training reads."""
    body = line.rstrip()
    if ROW_WEIGHT.encode() in body and ROW_WEIGHT in json.loads(body):
        raise DataError(
            f"{origin}: has a column {ROW_WEIGHT!r} already, where --toward writes its own"
        )
    return body[:-1].rstrip() + f', "{ROW_WEIGHT}": {weight:.6g}}}\n'.encode()


def _edited(item: Any, phrases: list[str], origin: Origin, source: Source) -> bytes | None:
    """The row without its openers; None when its answer does not stand in it as one text."""
    values = _values(item)
    row = conversation(values, origin, source)
    if not isinstance(row, Conversation):
        return None
    at = first_answer(row)
    old = row.messages[at].content
    new = stripped(old, phrases)
    if new is None:
        return None
    messages = (*row.messages[:at], replace(row.messages[at], content=new), *row.messages[at + 1 :])
    for changed in _replaced(values, old, new):
        again = conversation(changed, origin, source)
        if isinstance(again, Conversation) and again.messages == messages:
            return json_line(changed)
    return None


def _replaced(value: Any, old: str, new: str) -> Iterator[Any]:
    """`value` with one text that is `old` replaced, for each place where it stands."""
    if value == old and isinstance(value, str):
        yield new
    elif isinstance(value, dict):
        for key, item in value.items():
            for changed in _replaced(item, old, new):
                yield {**value, key: changed}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for changed in _replaced(item, old, new):
                yield [*value[:index], changed, *value[index + 1 :]]
