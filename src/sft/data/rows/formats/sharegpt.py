"""ShareGPT's format: `conversations`, a list of from and value.

Turns may also be written with role and content, as plain texts that take turns (the user's
first), or as objects that hold a question and its answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sft.data.rows.conversation import Message, Role
from sft.data.rows.formats.content import decoded_list, required, required_text
from sft.data.rows.formats.messages import lookup_role, optional_text, parse_message, tool_call
from sft.data.rows.json_rows import loads
from sft.data.rows.problems import RowError, expect

COLUMNS = ("conversations", "conversation", "dialogue", "dialog")

_CALLS = ("function_call", "tool_call")
_SPEAKERS: dict[str, Role] = {
    "system": "system",
    "developer": "system",
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
# A question and its answer in one object, as Capybara and MOSS have them.
_PAIRS = (("input", "output"), ("human", "assistant"))


def has_turns(values: Mapping[str, Any]) -> bool:
    """Whether the row has `conversations` or `conversation`, or a list of turns in `dialogue`."""
    if values.get("chosen") is not None and values.get("rejected") is not None:
        return False  # preferences, whose turns are the prompt alone
    # Data sets to summarise have a `dialogue` too: one text.
    return any(
        name in values and (name in COLUMNS[:2] or isinstance(values[name], list))
        for name in COLUMNS
    )


def column(values: Mapping[str, Any]) -> str:
    """The name of the column that holds the turns."""
    return next((name for name in COLUMNS if name in values), COLUMNS[0])


def parse(values: Mapping[str, Any]) -> list[Message]:
    """The turns of the row as messages."""
    name = column(values)
    return parse_turns(values[name], name)


def parse_turns(value: Any, field: str, *, default_weight: float = 1.0) -> list[Message]:
    """A list of turns; `field` is its name in the file."""
    return [
        _parse_turn(turn, f"{field}[{index}]", default_weight, index)
        for index, turn in _unpacked(value, field)
    ]


def _unpacked(value: Any, field: str) -> Iterator[tuple[int, Any]]:
    turns = decoded_list(value, field)
    expect(turns, list, field, "a list of turns")
    for index, turn in enumerate(turns):
        if isinstance(turn, str):
            yield index, {"from": "assistant" if index % 2 else "user", "value": turn}
            continue
        pair = _pair(turn)
        if pair is None:
            yield index, turn
            continue
        question, answer = pair
        if not index and optional_text(turn, "system", f"{field}[0]").strip():
            yield index, {"from": "system", "value": turn["system"]}
        yield index, {"from": "user", "value": turn[question]}
        yield index, {"from": "assistant", "value": turn[answer]}


def _pair(turn: Any) -> tuple[str, str] | None:
    """The keys of a turn that is a question with its answer."""
    if not isinstance(turn, dict) or "from" in turn or "role" in turn:
        return None
    return next((pair for pair in _PAIRS if pair[0] in turn and pair[1] in turn), None)


def _parse_turn(turn: Any, field: str, default_weight: float, place: int) -> Message:
    expect(turn, dict, field)
    speaker_key, text_key = "from", "value"
    if "from" not in turn and "role" in turn:
        speaker_key, text_key = "role", "content"
    speaker = required(turn, speaker_key, field)
    role = lookup_role(speaker, f"{field}.{speaker_key}", _SPEAKERS)
    message = {key: item for key, item in turn.items() if key not in ("from", "value")}
    message["role"] = role
    if text_key == "value":
        message["content"] = required_text(turn, "value", field)
    if speaker in _CALLS and (calls := _calls(message.get("content"))):
        # Calls that are given as such say more than their text: they have ids.
        message = {"tool_calls": calls, **message, "content": ""}
    return parse_message(message, field, default_weight, place)


def _calls(text: Any) -> list[Mapping[str, Any]]:
    """The tool calls written as JSON; none when the text is something else, and stays text."""
    try:
        value = loads(text) if isinstance(text, str) else []
        calls = value if isinstance(value, list) else [value]
        return [tool_call(call, "tool_call") for call in calls]
    except RowError:
        return []
