"""Pass 2: the rows that stay, as they were, and a line for every row that was dropped or edited."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.stream.decision import Decision
from sft.curate.stream.feature_pass import Progress
from sft.curate.stream.openers import stripped
from sft.curate.stream.rows import (
    Chunk,
    Source,
    Values,
    chunk_values,
    chunks,
    conversation,
    written,
)
from sft.curate.stream.store import Store
from sft.curate.texts import answer_text
from sft.data.rows.conversation import Conversation, Origin
from sft.data.rows.formats import ROW_WEIGHT
from sft.data.rows.problems import RowError
from sft.errors import DataError
from sft.texts.openers import opener

PART = "write"
OUT, LEDGER = "out", "ledger"


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the rows. `dropped` and `edited` are the decisions of the steps by name.

    `weights` `[rows]` go into a new column, when given.
    """

    sources: Sequence[Source]
    dropped: Mapping[str, Decision]
    edited: Decision | None = None
    weights: NDArray[np.float64] | None = None


def write_rows(store: Store, plan: Plan, size: int, progress: Progress) -> None:
    """Write the rows that stay and the ledger into the work folder, from where it stopped."""
    part = store.part(PART)
    if part["done"]:
        return
    writer = _Writer(store, plan, part["rows"])
    part.setdefault("changed", 0)
    for chunk in chunks(plan.sources, size, skip=part["rows"]):
        lines, ledger, changed = writer.chunk(chunk, part["rows"])
        columns = {OUT: b"".join(lines), LEDGER: b"".join(ledger)}
        part["changed"] += changed
        store.append(PART, columns, len(chunk.items))
        store.commit()
        progress("writing rows:", part["rows"], len(writer))
    store.finish(PART)


class _Writer:
    def __init__(self, store: Store, plan: Plan, skip: int) -> None:
        self._plan = plan
        self._steps = list(plan.dropped)
        self._files = store.load("file", np.int32)
        self._lines = store.load("line", np.int64)
        self._by = np.zeros(len(self._lines), dtype=np.int8)  # number of the step, from 1
        self._at = np.zeros(len(self._lines), dtype=np.int32)
        self._kept = np.full(len(self._lines), -1, dtype=np.int64)
        for number, decision in enumerate(plan.dropped.values(), start=1):
            self._by[decision.rows] = number
            self._at[decision.rows] = np.arange(len(decision.rows))
            self._kept[decision.rows] = decision.other
        self._edits = np.zeros(len(self._lines), dtype=np.int32)
        if plan.edited:
            self._edits[plan.edited.rows] = plan.edited.kind
        self._read_fates = _fates(store, skip)
        self._fate = next(self._read_fates, None)

    def __len__(self) -> int:
        return len(self._lines)

    def chunk(self, chunk: Chunk, start: int) -> tuple[list[bytes], list[bytes], int]:
        """Lines of the new file, lines of the ledger, and how many rows were edited."""
        lines: list[bytes] = []
        ledger: list[bytes] = []
        edited = 0
        source = self._plan.sources[chunk.source]
        for row, (number, item) in enumerate(
            zip(chunk.numbers, chunk.items, strict=True), start=start
        ):
            origin = Origin(source.path, number)
            gone = self._gone(row, item, origin, source)
            if gone:
                ledger.append(_entry(origin, "dropped", *gone))
                continue
            line = written(item)
            if self._edits[row] and self._plan.edited:
                phrases = self._plan.edited.notes["phrases"][self._edits[row]]
                changed = _edited(item, phrases, origin, source)
                if changed:
                    line = changed
                    reason = f'opener "{" ".join(phrases)}" stripped from the answer'
                    ledger.append(_entry(origin, "changed", "openers", reason))
                    edited += 1
            if self._plan.weights is not None:
                line = _weighted(line, float(self._plan.weights[row]), origin)
            lines.append(line)
        return lines, ledger, edited

    def _gone(self, row: int, item: Any, origin: Origin, source: Source) -> tuple[str, ...] | None:
        """Step, reason and the row kept in its place, of a row that is dropped."""
        if self._fate and self._fate[0] == row:
            _, step, reason = self._fate
            self._fate = next(self._read_fates, None)
            return step, reason
        if not self._by[row]:
            return None
        step = self._steps[self._by[row] - 1]
        decision, at = self._plan.dropped[step], int(self._at[row])
        if decision.other[at] >= 0:
            kept = int(decision.other[at])
            last = kept  # which a later step may have left out for another one
            while self._kept[last] >= 0:
                last = int(self._kept[last])
            reason = REASONS[step](decision, at).format(self._place(kept))
            return step, reason, self._place(last)
        reason = REASONS.get(step, _found)(decision, at)
        if step == "openers":
            row_values = _one(item)
            parsed = conversation(row_values, origin, source)
            begin = opener(answer_text(parsed)) if isinstance(parsed, Conversation) else ""
            reason = reason.replace("{}", f'"{begin}"')
        return step, reason

    def _place(self, row: int) -> str:
        return str(Origin(self._plan.sources[self._files[row]].path, int(self._lines[row])))


def _near(decision: Decision, at: int) -> str:
    value = decision.value[at]
    return f"like {{}} ({value:.2f}{'' if value >= 0.8 else ', through other rows'})"


def _openers(decision: Decision, at: int) -> str:
    return f"{decision.value[at]:,.0f} answers begin with {{}}; {decision.notes['kept']:,} are kept"


def _balance(decision: Decision, at: int) -> str:
    size, kept = decision.value[at], decision.notes["kept"]
    return f"{size:,.0f} prompts are in cluster {decision.kind[at]}; {kept:,} are kept"


def _found(decision: Decision, at: int) -> str:
    return str(decision.notes["messages"][decision.kind[at]])


REASONS: dict[str, Callable[[Decision, int], str]] = {
    "exact_duplicates": lambda decision, at: "same as {}",
    "near_duplicates": _near,
    "openers": _openers,
    "balance": _balance,
    "select": lambda decision, at: "not among the rows that differ most",
    "toward": lambda decision, at: f"not drawn; its log weight is {decision.value[at]:.1f}",
}


def _fates(store: Store, skip: int) -> Iterator[tuple[int, str, str]]:
    """Row, step and reason of the rows that pass 1 dropped, from row `skip` on."""
    with store.path("fates").open(encoding="utf-8") as file:
        for line in file:
            row, step, reason = json.loads(line)
            if row >= skip:
                yield row, step, reason


def _entry(origin: Origin, action: str, step: str, reason: str, kept: str = "") -> bytes:
    entry = {"row": str(origin), "action": action, "by": step, "reason": reason}
    if kept:
        entry["kept"] = kept
    text = json.dumps(entry, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _one(item: Any) -> Values | RowError:
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
    values = _one(item)
    row = conversation(values, origin, source)
    if not isinstance(row, Conversation) or isinstance(values, RowError):
        return None
    at = next(i for i, m in enumerate(row.messages) if m.role == "assistant" and m.content.strip())
    old = row.messages[at].content
    new = stripped(old, phrases)
    if new is None:
        return None
    messages = (*row.messages[:at], replace(row.messages[at], content=new), *row.messages[at + 1 :])
    for changed in _replaced(values, old, new):
        found = conversation(changed, origin, source)
        if isinstance(found, Conversation) and found.messages == messages:
            return written(changed)
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
