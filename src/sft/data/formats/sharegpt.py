"""ShareGPT's format: `conversations`, a list of from and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft.data.conversation import Message, Role
from sft.data.formats.messages import lookup_role, parse_message, required, tool_call
from sft.data.json_rows import loads
from sft.data.problems import RowError, describe

COLUMNS = ("conversations", "conversation")

_CALLS = ("function_call", "tool_call")
_SPEAKERS: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
    "ipython": "tool",
}


def matches(values: Mapping[str, Any]) -> bool:
    """Whether the row has `conversations` or `conversation`."""
    return any(column in values for column in COLUMNS)


def parse(values: Mapping[str, Any]) -> list[Message]:
    """The turns of the row as messages."""
    name = next(column for column in COLUMNS if column in values)
    turns = values[name]
    if not isinstance(turns, list):
        raise RowError(f"{name}: expected a list of turns, found {describe(turns)}")
    return [_parse_turn(turn, f"{name}[{index}]") for index, turn in enumerate(turns)]


def _parse_turn(turn: Any, field: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"{field}: expected an object, found {describe(turn)}")
    speaker_key, text_key = "from", "value"
    if "from" not in turn and "role" in turn:
        speaker_key, text_key = "role", "content"
    speaker = required(turn, speaker_key, field)
    role = lookup_role(speaker, f"{field}.{speaker_key}", _SPEAKERS)
    message = {key: item for key, item in turn.items() if key not in ("from", "value")}
    message["role"] = role
    if text_key == "value":
        text = required(turn, "value", field)
        if not isinstance(text, str):
            raise RowError(f"{field}.value: expected text, found {describe(text)}")
        message["content"] = text
    if speaker in _CALLS and (calls := _calls(message.get("content"))):
        message |= {"content": "", "tool_calls": calls}
    return parse_message(message, field)


def _calls(text: Any) -> list[Mapping[str, Any]]:
    """The tool calls written as JSON; none when the text is something else, and stays text."""
    try:
        value = loads(text) if isinstance(text, str) else []
        calls = value if isinstance(value, list) else [value]
        return [tool_call(call, "tool_call") for call in calls]
    except RowError:
        return []
