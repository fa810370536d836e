"""The texts of a row that are compared: its prompt and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sft.data.rows.conversation import Message, Origin
from sft.texts.near_duplicates import clusters


class Prompted(Protocol):
    """A `Conversation`, or a prompt without an answer."""

    @property
    def messages(self) -> Sequence[Message]:
        """In order; one of the user at least."""

    @property
    def origin(self) -> Origin:
        """Where the row came from; its text is the row's id."""


def prompt_text(row: Prompted) -> str:
    """What the user said, in all turns."""
    return "\n".join(message.content for message in row.messages if message.role == "user")


def answer_text(row: Prompted) -> str:
    """The first answer that has a text; empty when there is none."""
    answers = (m.content.strip() for m in row.messages if m.role == "assistant")
    return next(filter(None, answers), "")


def first_of_each(labels: Sequence[int]) -> list[int]:
    """Indices of the first of each label, in order."""
    first: dict[int, int] = {}
    for index, label in enumerate(labels):
        first.setdefault(label, index)
    return list(first.values())


def without_repeats(texts: Sequence[str]) -> list[int]:
    """Indices of the first text of each cluster of near-duplicates, in order."""
    return first_of_each(clusters(texts))
