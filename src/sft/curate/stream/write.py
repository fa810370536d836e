"""Pass 2: the rows that stay, as they were, and a line for every row that was dropped or edited."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.stream.feature_pass import Progress
from sft.curate.stream.row_changes import RowChanges
from sft.curate.stream.rows import (
    Chunk,
    Source,
    Values,
    chunk_values,
    chunks,
    conversation,
    json_line,
)
from sft.curate.stream.store import Store
from sft.curate.strip import first_answer, reason, stripped
from sft.data.repeats import answer_text
from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.formats import ROW_WEIGHT
from sft.data.rows.problems import RowError
from sft.errors import DataError
from sft.texts.openers import opener

PASS = "write"
OUT, LEDGER = "out", "ledger"


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the rows. `dropped` and `edited` are the results of the steps by name.

    `weights` `[rows]` go into a new column, when given.
    """

    sources: Sequence[Source]
    dropped: Mapping[str, RowChanges]
    edited: RowChanges | None = None
    weights: NDArray[np.float64] | None = None


def write_rows(store: Store, plan: Plan, size: int, progress: Progress) -> int:
    """Write the rows that stay and the ledger into the work folder; how many rows were edited."""
    if (notes := store.finished(PASS)) is not None:
        return int(notes["edited"])
    writer = _Writer(store, plan)
    with store.writing() as append:
        for chunk in chunks(plan.sources, size):
            append(writer.chunk(chunk))
            progress("writing rows:", writer.row, writer.num_rows)
    store.finish(PASS, edited=writer.edited)
    return writer.edited


class _Writer:
    """Goes through the rows in order; `row` is the number of the next one."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._plan = plan
        self._files = store.load("file", np.int32)
        self._lines = store.load("line", np.int64)
        self.num_rows = len(self._lines)
        self.row = self.edited = 0
        # Of each row: the step that drops it (0: none), its place in the result of that step, and
        # the row that is kept instead. Arrays, as there may be hundreds of millions of rows.
        self._step = np.zeros(self.num_rows, dtype=np.int8)
        self._place_in_step = np.zeros(self.num_rows, dtype=np.int32)
        self._kept = np.full(self.num_rows, -1, dtype=np.int64)
        for number, result in enumerate(plan.dropped.values(), start=1):
            self._step[result.rows] = number
            self._place_in_step[result.rows] = np.arange(len(result.rows))
            if result.other is not None:
                self._kept[result.rows] = result.other
        self._phrases = np.zeros(self.num_rows, dtype=np.int32)
        if plan.edited and plan.edited.kind is not None:
            self._phrases[plan.edited.rows] = plan.edited.kind
        self._fates = fates(store)
        self._fate = next(self._fates, None)

    def chunk(self, chunk: Chunk) -> dict[str, bytes]:
        """What the rows of a chunk add to the new file and to the ledger."""
        rows: list[bytes] = []
        ledger: list[bytes] = []
        source = self._plan.sources[chunk.source]
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
        if self._phrases[self.row] and self._plan.edited:
            phrases = self._plan.edited.notes["phrases"][self._phrases[self.row]]
            if edited := _edited(item, phrases, origin, source):
                line = edited
                ledger.append(_ledger_line(origin, "changed", "openers", reason(phrases)))
                self.edited += 1
        if self._plan.weights is not None:
            line = _weighted(line, float(self._plan.weights[self.row]), origin)
        return line

    def _dropped(self, item: Any, origin: Origin, source: Source) -> tuple[str, ...] | None:
        """Step, reason and the row kept in its place, of a row that is dropped."""
        if self._fate and self._fate[0] == self.row:
            _, step, reason = self._fate
            self._fate = next(self._fates, None)
            return step, reason
        if not self._step[self.row]:
            return None
        step = list(self._plan.dropped)[self._step[self.row] - 1]
        result, at = self._plan.dropped[step], int(self._place_in_step[self.row])
        value = 0.0 if result.value is None else float(result.value[at])
        kind = 0 if result.kind is None else int(result.kind[at])
        reason = REASONS.get(step, _finding)(value, kind, result.notes)
        if result.other is not None:
            last = kept = int(result.other[at])
            while self._kept[last] >= 0:  # a later step left it out too, for another one
                last = int(self._kept[last])
            return step, reason.format(self._origin(kept)), self._origin(last)
        if step == "openers":
            row = conversation(_values(item), origin, source)
            begin = opener(answer_text(row)) if isinstance(row, Conversation) else ""
            reason = reason.replace("{}", f'"{begin}"')
        return step, reason

    def _origin(self, row: int) -> str:
        return str(Origin(self._plan.sources[self._files[row]].path, int(self._lines[row])))


Notes = Mapping[str, Any]


def _near(value: float, _kind: int, _notes: Notes) -> str:
    return f"like {{}} ({value:.2f}{'' if value >= 0.8 else ', through other rows'})"


def _openers(value: float, _kind: int, notes: Notes) -> str:
    return f"{value:,.0f} answers begin with {{}}; {notes['kept']:,} are kept"


def _balance(value: float, kind: int, notes: Notes) -> str:
    return f"{value:,.0f} prompts are in cluster {kind}; {notes['kept']:,} are kept"


def _finding(_value: float, kind: int, notes: Notes) -> str:
    return str(notes["messages"][kind])


# What the ledger says of a row by the step that drops it; {} is the row kept, or the opener.
REASONS: dict[str, Callable[[float, int, Notes], str]] = {
    "exact_duplicates": lambda value, kind, notes: "same as {}",
    "near_duplicates": _near,
    "openers": _openers,
    "balance": _balance,
    "select": lambda value, kind, notes: "not among the rows that differ most",
    "toward": lambda value, kind, notes: f"not drawn; its log weight is {value:.1f}",
}


def fates(store: Store) -> Iterator[tuple[int, str, str]]:
    """Row, step and reason of the rows that pass 1 dropped, in order."""
    with store.path("fates").open(encoding="utf-8") as file:
        for line in file:
            row, step, reason = json.loads(line)
            yield row, step, reason


def _ledger_line(origin: Origin, action: str, step: str, reason: str, kept: str = "") -> bytes:
    entry = {"row": str(origin), "action": action, "by": step, "reason": reason}
    if kept:
        entry["kept"] = kept
    text = json.dumps(entry, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _values(item: Any) -> Values | RowError:
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
    if not isinstance(row, Conversation) or isinstance(values, RowError):
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
