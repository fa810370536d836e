"""Tools and tool calls written as text, for chat templates that ignore them.

The convention is the one most open models were trained on (Hermes): tools as JSON lines in
the system message, `<tool_call>` around a call, `<tool_response>` around its result.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def tools_as_text(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """`messages` with tools, calls and results moved into their `content`.

    Use it before `tokenizer.apply_chat_template` when serving a model that was trained with
    tools as text.
    """
    shown = [_as_text(message) for message in messages]
    if not tools:
        return shown
    listing = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    block = (
        f"You may call these functions:\n<tools>\n{listing}\n</tools>\n"
        'To call one, answer with <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call>'
    )
    if shown and shown[0]["role"] == "system":
        shown[0]["content"] = f"{shown[0]['content']}\n\n{block}"
    else:
        shown.insert(0, {"role": "system", "content": block})
    return shown


def with_mappings(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`messages` with the arguments of calls as mappings, as most templates expect them.

    OpenAI's format has them as JSON text, which `tojson` would quote once more. Servers parse
    them too before they render.
    """
    return [
        {**message, "tool_calls": [_with_mapping(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def _with_mapping(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = _parsed(function.get("arguments"))
    if not isinstance(arguments, Mapping):
        return dict(call)
    function = {**function, "arguments": arguments}
    return {**call, "function": function} if "function" in call else function


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in message.items() if key != "tool_calls"}
    if message["role"] == "tool":
        shown["content"] = f"<tool_response>\n{message['content']}\n</tool_response>"
    calls = [_call_text(call) for call in message.get("tool_calls", ())]
    if calls:
        shown["content"] = "\n".join([message["content"], *calls] if message["content"] else calls)
    return shown


def _call_text(call: Mapping[str, Any]) -> str:
    function = call.get("function", call)
    arguments = _parsed(function.get("arguments"))
    body = json.dumps({"name": function.get("name"), "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def _parsed(arguments: Any) -> Any:
    if isinstance(arguments, str):  # kept as it was in the file: JSON text, not a JSON string
        with contextlib.suppress(ValueError):
            return json.loads(arguments)
    return arguments
