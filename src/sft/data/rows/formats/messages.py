"""OpenAI's format: `messages`, a list of role and content.

A message may have `tool_calls`, `tool_call_id`, `name`, `reasoning_content` (or `reasoning`, or
`thinking`), and `train` (true or false) or `weight` (a number) to choose the assistant messages
that are trained on. Lists may be JSON text, as in the cells of a CSV file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sft.data.rows.conversation import Message, Role
from sft.data.rows.formats.content import (
    decoded_list,
    expanded,
    required,
    required_text,
    text_of,
)
from sft.data.rows.problems import RowError, describe, expect
from sft.errors import did_you_mean

COLUMNS = ("messages",)

# Roles as they are written, and ours.
ROLE_NAMES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_EXTRA = ("name", "tool_call_id")
# What the model thought before it answered, as different servers call it.
_REASONING = ("reasoning_content", "reasoning", "thinking")

MAX_WEIGHT = 100  # as of a source; far larger ones would overflow the sums


def parse(values: Mapping[str, Any]) -> list[Message]:
    """The messages of the row."""
    return parse_messages(values["messages"], "messages")


def parse_messages(value: Any, field: str, *, default_weight: float = 1.0) -> list[Message]:
    """A list of messages; `field` is its name in the file.

    `default_weight` is that of assistant messages with neither `train` nor `weight`.
    """
    value = decoded_list(value, field)
    expect(value, list, field, "a list of messages")
    return [
        parse_message(message, place, default_weight, index)
        for index, item in enumerate(value)
        for place, message in expanded(item, f"{field}[{index}]")
    ]


def parse_message(item: Any, field: str, default_weight: float, place: int) -> Message:
    """One message; `field` is its name in the file, such as `messages[2]`, of index `place`."""
    expect(item, dict, field)
    role = lookup_role(required(item, "role", field), f"{field}.role", ROLE_NAMES)
    calls = _tool_calls(item, field)
    if calls and role != "assistant":
        raise RowError(f"{field}.tool_calls: only assistant messages call tools, not {role}")
    if item.get("content") is None and calls:
        content = ""
    else:
        content = text_of(required(item, "content", field), f"{field}.content")
    extra = {key: optional_text(item, key, field) for key in _EXTRA if item.get(key) is not None}
    reasoning = _reasoning(item, field)
    if reasoning is not None:
        extra["reasoning_content"] = reasoning
    weight = _weight(item, role, field, default_weight)
    return Message(role, content, calls, weight, extra, place)


def optional_text(values: Mapping[str, Any], key: str, field: str = "") -> str:
    """The text of `key`; empty when it is missing or null."""
    value = values.get(key)
    if value is None:
        return ""
    expect(value, str, f"{field}.{key}" if field else key)
    return str(value)


def lookup_role(value: Any, field: str, names: Mapping[str, Role]) -> Role:
    """Our role for the one in the file."""
    expect(value, str, field)
    if value not in names:
        near = did_you_mean(value[:40].lower(), names)
        hint = near or f" Known roles: {', '.join(names)}."
        raise RowError(f"{field}: unknown role {value[:40]!r}.{hint}")
    return names[value]


def _reasoning(item: Mapping[str, Any], field: str) -> str | None:
    """What the message has under any of the names of its reasoning."""
    texts = {
        key: optional_text(item, key, field) for key in _REASONING if item.get(key) is not None
    }
    if len({text for text in texts.values() if text}) > 1:
        raise RowError(f"{field}: has {' and '.join(texts)}, which are not the same")
    return max(texts.values(), key=len, default=None)


def _weight(item: Mapping[str, Any], role: Role, field: str, default: float) -> float:
    train, weight = item.get("train"), item.get("weight")
    if train is not None and weight is not None:
        raise RowError(f"{field}: has both train and weight; one of them is enough")
    if train is not None:
        expect(train, bool, f"{field}.train", "true or false")
        key, chosen = "train", float(train)
    elif weight is not None:
        key, chosen = "weight", _number(weight, f"{field}.weight")
    else:
        return default if role == "assistant" else 0.0
    if chosen and role != "assistant":
        raise RowError(f"{field}.{key}: only assistant messages are trained on, not {role}")
    return chosen


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(f"{field}: expected a number, found {describe(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number <= MAX_WEIGHT:  # nor NaN, which is neither
        raise RowError(f"{field}: expected a number from 0 to {MAX_WEIGHT}, found {number:g}")
    return number


def _tool_calls(item: Mapping[str, Any], field: str) -> tuple[Mapping[str, Any], ...]:
    calls = item.get("tool_calls")
    legacy = item.get("function_call")
    if legacy is not None:
        if calls:
            raise RowError(f"{field}: has both tool_calls and function_call")
        return (tool_call(legacy, f"{field}.function_call"),)
    calls = decoded_list(calls, f"{field}.tool_calls")
    if calls is None or calls == "":
        return ()
    expect(calls, list, f"{field}.tool_calls")
    return tuple(tool_call(call, f"{field}.tool_calls[{i}]") for i, call in enumerate(calls))


def tool_call(call: Any, field: str) -> Mapping[str, Any]:
    """A call in OpenAI's shape; one of name and arguments only is put into it."""
    expect(call, dict, field)
    wrapped = call if "function" in call else {"type": "function", "function": call}
    function = wrapped["function"]
    expect(function, dict, f"{field}.function")
    required_text(function, "name", field)
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, dict | str):
        raise RowError(f"{field}.arguments: expected an object, found {describe(arguments)}")
    return wrapped
