"""`Conversation`: the one shape every data format is turned into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
Kind = Literal["chat", "text", "tokens"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from: file (or data set id), and line (or row number), from 1."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    `weight` is the loss weight of an assistant message: 1 trains it, 0 shows it to the
    model without training on it. It is 0 for every other role.
    `tool_calls` follow OpenAI's shape; their `arguments` are kept exactly as they were
    in the file (a mapping stays a mapping, a string stays a string).
    `extra` holds further keys a chat template may read (`name`, `tool_call_id`,
    `reasoning_content`). `place` is the index in the file's list that it comes from.
    """

    role: Role
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    weight: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    place: int = field(default=0, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The plain dictionary a chat template is rendered with."""
        message: dict[str, Any] = {"role": self.role, "content": self.content, **self.extra}
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        return message


@dataclass(frozen=True, slots=True)
class Conversation:
    """A validated conversation and where it came from.

    Has at least one assistant message with a weight above 0, and is not empty. Only one that was
    read as a prompt may be without an answer: it ends with what the user said, or a tool's result.
    `source` is the index of the entry in `data.train` (or `data.val`) it belongs to.
    `parent` is the `prompt_key` of the row that an augmented row was made of. `weight` is how
    often the row is seen where others are seen once.

    `kind` says what the messages are. `chat`: rendered with the chat template. `text`: a plain
    text in one assistant message, all of it trained. `tokens`: token ids written as words, the
    trained ones in assistant messages and the others in user messages.
    """

    messages: tuple[Message, ...]
    origin: Origin
    tools: Sequence[Mapping[str, Any]] = ()
    source: int = 0
    parent: str = ""
    kind: Kind = "chat"
    weight: float = 1.0

    @property
    def has_answer(self) -> bool:
        """Whether the model has the last word."""
        return self.messages[-1].role == "assistant"

    def as_dicts(self) -> list[dict[str, Any]]:
        """All messages as plain dictionaries, in order."""
        return [message.as_dict() for message in self.messages]
