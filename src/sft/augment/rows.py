"""What a way makes of a row, and the parts of rows that it works on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sft.data.rows.conversation import Conversation, Message
from sft.data.rows.formats.writing import write


@dataclass(frozen=True, slots=True)
class Change:
    """What a way makes of a row: new messages and `detail`, or `reason` why there are none."""

    messages: tuple[Message, ...] = ()
    detail: str = ""
    reason: str = ""


def identity(conversation: Conversation) -> str:
    """Equal for rows that would be trained on in the same way."""
    row = write(replace(conversation, parent=""), "messages")
    return json.dumps(row, sort_keys=True, default=str)


def indices_of(role: str, row: Conversation) -> list[int]:
    """Places of the messages of `role`."""
    return [i for i, message in enumerate(row.messages) if message.role == role]


def answers_of(row: Conversation) -> str:
    """What the assistant says in the row."""
    return " ".join(message.content for message in row.messages if message.role == "assistant")


def with_text(messages: Sequence[Message], place: int, text: str) -> tuple[Message, ...]:
    """`messages` with another text at `place`."""
    changed = replace(messages[place], content=text)
    return (*messages[:place], changed, *messages[place + 1 :])


def one_prompt(row: Conversation) -> int | None:
    """The place of the only user message; None where there are several: later ones refer back."""
    places = indices_of("user", row)
    return places[0] if len(places) == 1 else None
