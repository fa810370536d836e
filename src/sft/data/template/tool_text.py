"""Tools and tool calls written as text, for chat templates that ignore them.

The convention is the one most open models were trained on (Hermes): tools as JSON lines in
the system message, `<tool_call>` around a call, `<tool_response>` around its result.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

ROLES = frozenset({"system", "tool"})


def tools_as_text(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    roles: Collection[str] = ROLES,
) -> list[dict[str, Any]]:
    """`messages` with tools, calls and results moved into their `content`.

    Use it before `tokenizer.apply_chat_template` when serving a model that was trained with
    tools as text.

    `roles` says which roles the chat template writes besides user and assistant, as
    `ChatTemplate.facts.roles` does. Without `system`, tools are listed in the first message of
    the user; without `tool`, results are what the user says next.
    """
    rewritten = [_as_text(message) for message in messages]
    if "tool" not in roles:
        rewritten = _results_of_the_user(rewritten)
    if not tools:
        return rewritten
    listing = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    block = (
        f"You may call these functions:\n<tools>\n{listing}\n</tools>\n"
        'To call one, answer with <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call>'
    )
    first = rewritten[0] if rewritten else {"role": ""}
    if first["role"] == "system":
        first["content"] = f"{first['content']}\n\n{block}"
    elif first["role"] == "user" and "system" not in roles:
        first["content"] = f"{block}\n\n{first['content']}"
    else:
        rewritten.insert(0, {"role": "system", "content": block})
    return rewritten


def _results_of_the_user(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Results as messages of the user, one after several calls, with what the user says then."""
    merged: list[dict[str, Any]] = []
    after_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        joins = is_result or (after_result and message["role"] == "user")
        if joins and merged and merged[-1]["role"] == "user":
            merged[-1]["content"] += f"\n{message['content']}"
        else:
            result = {"role": "user", "content": message["content"]}
            merged.append(result if is_result else dict(message))
        after_result = is_result
    return merged


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
    rewritten = {key: value for key, value in message.items() if key != "tool_calls"}
    if message["role"] == "tool":
        rewritten["content"] = f"<tool_response>\n{message['content']}\n</tool_response>"
    calls = [_call_text(call) for call in message.get("tool_calls", ())]
    if calls:
        rewritten["content"] = "\n".join(filter(None, [message["content"], *calls]))
    return rewritten


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
