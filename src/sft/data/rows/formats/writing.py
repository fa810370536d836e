"""From a `Conversation` back to the columns of a row: `WRITERS`, one for each shape to write.

What is written reads back as the same conversation, or it is not written at all: whatever a
shape has no place for is a `RowError` that names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sft.data.rows.conversation import Conversation, Message
from sft.data.rows.problems import RowError

_PLAIN = {"type", "function"}  # keys of a call without an id
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def write(conversation: Conversation, shape: str) -> dict[str, Any]:
    """The row that has `conversation` in one of the `WRITERS`, its parent included.

    Raises:
        RowError: the shape has no place for something of it.
    """
    kind = "text" if shape == "text" else "chat"
    if conversation.kind != kind:
        raise RowError(_other_kind(conversation.kind, shape))
    row = WRITERS[shape](conversation)
    return {**row, "parent": conversation.parent} if conversation.parent else row


def _other_kind(kind: str, shape: str) -> str:
    if kind == "tokens":
        return "a row of token ids, whose text is not known without its tokenizer"
    if kind == "text":
        return f"a plain text, which has no prompt and answer to be written as {shape}"
    return "a conversation, which only a chat template could write as one text"


def _messages(conversation: Conversation) -> dict[str, Any]:
    row: dict[str, Any] = {
        "messages": [m.as_dict() | _weight(m) for m in conversation.messages],
    }
    return row | ({"tools": list(conversation.tools)} if conversation.tools else {})


def _weight(message: Message) -> dict[str, Any]:
    """The weight, where it is not what a message of this role has anyway."""
    if message.role != "assistant" or message.weight == 1:
        return {}
    whole = message.weight == int(message.weight)  # OpenAI's own files have 0 and 1
    return {"weight": int(message.weight) if whole else message.weight}


def _sharegpt(conversation: Conversation) -> dict[str, Any]:
    messages = enumerate(conversation.messages)
    row: dict[str, Any] = {"conversations": [_turn(m, f"messages[{i}]") for i, m in messages]}
    # As text, which is how most readers of this shape want it.
    tools = {"tools": json.dumps(list(conversation.tools), ensure_ascii=False)}
    return row | (tools if conversation.tools else {})


def _turn(message: Message, field: str) -> dict[str, Any]:
    speaker, value = _SPEAKERS[message.role], message.content
    beside: dict[str, Any] = {}
    if message.tool_calls:
        if value:
            raise RowError(f"{field}: text and tool calls in one message; sharegpt has one a turn")
        speaker, value = "function_call", _calls_text(message.tool_calls)
        if any({**call, "type": "function"}.keys() != _PLAIN for call in message.tool_calls):
            beside = {"tool_calls": [dict(call) for call in message.tool_calls]}  # with their ids
    return {"from": speaker, "value": value, **beside, **message.extra, **_weight(message)}


def _calls_text(calls: Sequence[Mapping[str, Any]]) -> str:
    bare = [call["function"] for call in calls]
    return json.dumps(bare[0] if len(bare) == 1 else bare, ensure_ascii=False)


def _alpaca(conversation: Conversation) -> dict[str, Any]:
    system, prompt, answer = _one_exchange(conversation, "alpaca")
    return {"instruction": prompt, "input": "", "output": answer} | system


def _prompt_completion(conversation: Conversation) -> dict[str, Any]:
    system, prompt, answer = _one_exchange(conversation, "prompt_completion")
    return {"prompt": prompt, "completion": answer} | system


def _one_exchange(conversation: Conversation, shape: str) -> tuple[dict[str, str], str, str]:
    """The column `system` if there is one, and the texts of one prompt and one answer."""
    if conversation.tools:
        raise RowError(f"tools: {shape} has no place for them")
    rest = list(conversation.messages)
    system = {"system": rest.pop(0).content} if rest[0].role == "system" else {}
    if any(not text.strip() for text in system.values()):
        raise RowError(f"messages[0]: an empty system message, which {shape} has no place for")
    for place, message in enumerate(conversation.messages):
        if message.tool_calls or message.role == "tool":
            raise RowError(f"messages[{place}]: a tool call or result; {shape} has no place for it")
    if [message.role for message in rest] != ["user", "assistant"]:
        raise RowError(f"messages: several turns; {shape} has one prompt and one answer")
    for place, message in enumerate(conversation.messages):
        if message.extra:
            names = ", ".join(message.extra)
            raise RowError(f"messages[{place}].{names}: {shape} has no place for it")
        if _weight(message):
            raise RowError(f"messages[{place}]: weight {message.weight:g}; {shape} has only 1")
    return system, rest[0].content, rest[1].content


def _text(conversation: Conversation) -> dict[str, Any]:
    return {"text": conversation.messages[0].content}


WRITERS: dict[str, Callable[[Conversation], dict[str, Any]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "text": _text,
}
