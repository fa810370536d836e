"""`Corpus`: all rows that `sft check` looks at, with the texts that checks compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from sft.data.repeats import (
    Prompted,
    answer_text,
    clusters,
    copy_key,
    prompt_text,
    repeats,
    row_text,
)
from sft.data.rows.conversation import Conversation, Message


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer that is trained on, and the text of the message before it.

    `row` counts in `Corpus.train`. `role` is that of the message before: `user` or `tool`. `calls`
    says that the answer has tool calls.
    """

    row: int
    prompt: str
    role: str
    answer: str
    calls: bool


@dataclass(frozen=True)
class Corpus:
    """Rows by what they are for; every list but `train` may be empty.

    `usage` rows may lack an answer. `benchmarks` are named texts that must not be trained on, such
    as the questions of a public test. `val_is_split_off`: sft took the validation rows out of the
    training data itself.
    """

    train: Sequence[Conversation]
    val: Sequence[Conversation] = ()
    usage: Sequence[Prompted] = ()
    test: Sequence[Prompted] = ()
    benchmarks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    val_is_split_off: bool = False

    @cached_property
    def prompts(self) -> list[str]:
        """What the user says in each training row, all turns."""
        return [prompt_text(row) for row in self.train]

    @cached_property
    def answers(self) -> list[str]:
        """The first answer with a text of each training row; empty when there is none."""
        return [answer_text(row) for row in self.train]

    @cached_property
    def turns(self) -> list[Turn]:
        """Every answer of the training chats that has a loss weight above 0, in order."""
        return [
            Turn(index, before.content, before.role, message.content, bool(message.tool_calls))
            for index, row in enumerate(self.train)
            if row.kind == "chat"  # a plain text answers nothing
            for before, message in pairwise((Message("user", ""), *row.messages))
            if message.role == "assistant" and message.weight > 0
        ]

    @cached_property
    def contents(self) -> list[tuple[int, str, str]]:
        """Row, role and text of every message of the training rows that has a text."""
        return [
            (index, message.role, message.content)
            for index, row in enumerate(self.train)
            for message in row.messages
            if message.content and row.kind != "tokens"
        ]

    @cached_property
    def texts(self) -> list[str]:
        """The text of each training row, without its system message; see `splits.row_text`."""
        return [row_text(row) for row in self.train]

    @cached_property
    def keys(self) -> list[str]:
        """Equal for exact copies; see `repeats.copy_key`."""
        return [copy_key(row) for row in self.train]

    @cached_property
    def labels(self) -> list[int]:
        """Cluster of near-duplicates of each training row; see `repeats.clusters`."""
        return clusters(self.train)

    @cached_property
    def repeats(self) -> tuple[dict[int, int], dict[int, int]]:
        """Exact copies and near-duplicates of earlier rows; see `repeats.repeats`."""
        return repeats(self.train, self.labels)

    @cached_property
    def places(self) -> list[str]:
        """`file:line` of each training row."""
        return [str(row.origin) for row in self.train]
