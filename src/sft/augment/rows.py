"""A new row, where it comes from, and the line it becomes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sft.data.repeats import prompt_key
from sft.data.rows.conversation import Conversation, Message
from sft.data.rows.formats.writing import write


@dataclass(frozen=True, slots=True)
class Change:
    """What a way makes of a row: new messages and `detail`, or `reason` why there are none."""

    messages: tuple[Message, ...] = ()
    detail: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NewRow:
    """`conversation` was made of the row at `parent_row` (file:line) by `way`."""

    conversation: Conversation
    parent_row: str
    way: str
    detail: str

    def record(self) -> dict[str, Any]:
        """The line of the file: the messages shape, and where the row comes from."""
        return {
            **write(self.conversation, "messages"),
            "parent_row": self.parent_row,
            "augmentation": f"{self.way}: {self.detail}",
        }


def new_row(parent: Conversation, way: str, change: Change) -> NewRow:
    """The row that `change` makes of `parent`; of an augmented row, the parent is its parent."""
    key = parent.parent or prompt_key(parent)
    conversation = replace(parent, messages=change.messages, parent=key)
    return NewRow(conversation, str(parent.origin), way, change.detail)


def identity(conversation: Conversation) -> str:
    """Equal for rows that would be trained on in the same way."""
    row = write(replace(conversation, parent=""), "messages")
    return json.dumps(row, sort_keys=True, default=str)


def indices_of(role: str, row: Conversation) -> list[int]:
    """Places of the messages of `role`."""
    return [i for i, message in enumerate(row.messages) if message.role == role]


def with_text(
    messages: Sequence[Message], place: int, text: str, weight: float | None = None
) -> tuple[Message, ...]:
    """`messages` with another text at `place`."""
    old = messages[place]
    changed = replace(old, content=text, weight=old.weight if weight is None else weight)
    return (*messages[:place], changed, *messages[place + 1 :])


def one_prompt(row: Conversation) -> int | None:
    """The place of the only user message; None where there are several: later ones refer back."""
    places = indices_of("user", row)
    return places[0] if len(places) == 1 else None
