"""Which rows repeat each other: the one rule of the split, `sft check`, curating and remedies.

Within a data set (`clusters`), rows are together when they are near-duplicates, directly or
through others. Across two (`HeldOut`), a row repeats a held-out one when it is a near-duplicate of
it or asks the same, whatever the answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sft.data.rows.conversation import Conversation
from sft.texts.near_duplicates import (
    MIN_SHARED,
    RUN,
    SAME_ANSWER,
    THRESHOLD,
    Sides,
    alike,
    row_clusters,
    words,
)
from sft.texts.shingles import Index

Prompted = Conversation  # one that may be without an answer


def prompt_text(row: Prompted) -> str:
    """What the user said, in all turns."""
    return "\n".join(message.content for message in row.messages if message.role == "user")


def answer_text(row: Prompted) -> str:
    """The first answer that has a text; empty when there is none."""
    answers = (m.content.strip() for m in row.messages if m.role == "assistant")
    return next(filter(None, answers), "")


def row_text(row: Prompted) -> str:
    """What tells a row from others: all messages and tool calls, without system messages.

    Many rows share one long system message; with it they would all look alike.
    """
    parts = []
    for message in row.messages:
        if message.role != "system":
            parts.append(message.content)
            parts += [json.dumps(dict(call), default=str) for call in message.tool_calls]
    return "\n".join(parts)


def prompt_key(row: Prompted) -> str:
    """Hash of all that is shown to the model but not written by it: white space and case apart.

    Rows with equal keys are copies of each other, or other answers to the same question.
    """
    given = [message for message in row.messages if message.role != "assistant"]
    texts = [
        f"{message.role}\0{' '.join(message.content.lower().split())}"
        for message in given or row.messages  # a plain text is all the row has
    ]
    return hashlib.sha256("\1".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def prompt_words(row: Prompted) -> tuple[str, ...]:
    """The words of the prompt in any order: equal for the same question; () for too few words."""
    found = words(prompt_text(row))
    return tuple(sorted(found)) if len(found) >= MIN_SHARED else ()


def sides(row: Conversation) -> Sides:
    """The words that near-duplicates are told by. A row has two sides when it is one turn."""
    messages = [message for message in row.messages if message.role != "system"]
    one_turn = [m.role for m in messages] == ["user", "assistant"]
    if not one_turn or any(m.tool_calls for m in messages):
        return Sides.of(row_text(row))
    prompt, answer = (words(message.content) for message in messages)
    if not prompt and not answer:
        return Sides.of(row_text(row))
    return Sides([*prompt, *answer], prompt, answer, str(row.tools) if row.tools else "")


def clusters(rows: Sequence[Conversation]) -> list[int]:
    """Number of the cluster of near-duplicates of each row, from 0 in the order of the rows."""
    return row_clusters([sides(row) for row in rows])


def repeats(
    rows: Sequence[Conversation], labels: Sequence[int] | None = None
) -> tuple[dict[int, int], dict[int, int]]:
    """Exact copies and near-duplicates: index of each later row -> index of the first like it.

    Augmented rows are meant to be like the rows they come from: only copies of them repeat
    something. `labels` are the `clusters` of the rows, if they are known.
    """
    copies = _later(range(len(rows)), [copy_key(row) for row in rows])
    own = [i for i, row in enumerate(rows) if not row.parent and i not in copies]
    if labels is None or any(row.parent for row in rows):
        return copies, _later(own, clusters([rows[i] for i in own]))
    return copies, _later(own, [labels[i] for i in own])


def _later(rows: Iterable[int], labels: Sequence[Hashable]) -> dict[int, int]:
    """Each row whose label came before -> the first row of that label."""
    first: dict[Hashable, int] = {}
    return {
        i: first[label]
        for i, label in zip(rows, labels, strict=True)
        if first.setdefault(label, i) != i
    }


def copy_key(row: Conversation) -> str:
    """All messages of a row, case and white space apart: equal for exact copies."""
    system = "\n".join(m.content for m in row.messages if m.role == "system")
    return "\0".join(" ".join(text.lower().split()) for text in (system, row_text(row)))


class HeldOut:
    """Held-out rows made ready to be compared with many others; exact, without any sketching."""

    def __init__(self, rows: Sequence[Prompted]) -> None:
        self._prompts = [words(prompt_text(row)) for row in rows]
        self._by_key: dict[Hashable, list[int]] = {}
        self._by_answer: dict[tuple[str, ...], list[int]] = {}
        texts, bare = [], []
        for i, row in enumerate(rows):
            for key in _questions(row):
                self._by_key.setdefault(key, []).append(i)
            answer = words(answer_text(row))
            if len(answer) >= MIN_SHARED:
                self._by_answer.setdefault(tuple(sorted(answer)), []).append(i)
            texts.append(" ".join(words(row_text(row))))
            # A row without an answer is compared with prompts.
            bare.append("" if answer else " ".join(self._prompts[i]))
        self._texts, self._bare = Index(texts, RUN), Index(bare, RUN)

    def same_question(self, row: Prompted) -> list[int]:
        """Numbers of the held-out rows that ask what `row` asks."""
        return sorted({i for key in _questions(row) for i in self._by_key.get(key, ())})

    def like(self, row: Prompted) -> list[int]:
        """Numbers of the held-out rows that `row` repeats."""
        prompt, answer = words(prompt_text(row)), words(answer_text(row))
        numbers = set(self.same_question(row))
        for index, parts in ((self._texts, words(row_text(row))), (self._bare, prompt)):
            if len(parts) >= RUN and index.may_match(parts):
                numbers.update(index.near(parts, THRESHOLD))
        for other in self._by_answer.get(tuple(sorted(answer)), ()):
            if alike(self._prompts[other], prompt) >= SAME_ANSWER:
                numbers.add(other)
        return sorted(numbers)


def _questions(row: Prompted) -> Iterator[Hashable]:
    yield prompt_key(row)
    if asked := prompt_words(row):
        yield asked


@dataclass(frozen=True, slots=True)
class Leaks:
    """`rows`: each row that repeats a held-out one -> the first such; `held_out` the reverse."""

    rows: dict[int, int] = field(default_factory=dict)
    held_out: dict[int, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rows)


def leaks(rows: Sequence[Prompted], held_out: Sequence[Prompted]) -> Leaks:
    """Which rows repeat which held-out rows, by index."""
    pairs = Leaks()
    known = HeldOut(held_out)
    for i, row in enumerate(rows if held_out else ()):
        for other in known.like(row):
            pairs.rows.setdefault(i, other)
            pairs.held_out.setdefault(other, i)
    return pairs
