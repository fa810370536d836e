"""What a list of messages must be like to be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from sft.data.rows.conversation import Message
from sft.errors import did_you_mean


def validate(
    messages: Sequence[Message], name: str = "messages", *, has_places: bool = False
) -> str | None:
    """The first reason why `messages` cannot be trained on, or None when they can.

    `name` is what the list is called in the user's file, where a message is at its `place` if it
    `has_places`, and else at its index.
    """
    before: Message | None = None
    called: list[str] = []
    for index, message in enumerate(messages):
        reason = _content(message) or _turn(before, message, index) or _result(message, called)
        if reason:
            return f"{name}[{message.place if has_places else index}]: {reason}"
        called += [str(call["id"]) for call in message.tool_calls if call.get("id") is not None]
        before = message
    if before is None or before.role != "assistant":
        ends = f"with a {before.role} message" if before else "before its first message"
        return f"{name}: ends {ends}; the last message must be the assistant's answer"
    if not any(message.weight > 0 for message in messages):
        return f"{name}: no assistant message to train on; all of them have weight 0"
    return None


def _content(message: Message) -> str | None:
    if message.content.strip() or message.role not in ("user", "assistant"):
        return None
    if message.role == "assistant" and message.tool_calls:
        return None
    return f"the {message.role} message is empty"


def _turn(before: Message | None, message: Message, index: int) -> str | None:
    """Why `message` may not follow `before`."""
    role = message.role
    last = before.role if before else "system"
    if role == "system":
        return "a system message may only come first" if index else None
    if last == "system":
        return None if role == "user" else f"a user message must come first, found role {role!r}"
    if role == "tool":
        return _tool_turn(before, message)
    if role == "user" and last == "user":
        return "two user messages in a row"
    if role == "assistant" and last == "assistant" and not (before and before.tool_calls):
        return "two assistant messages in a row"
    return None


def _tool_turn(before: Message | None, message: Message) -> str | None:
    if before is None or before.role not in ("assistant", "tool"):
        return "a tool message must follow the assistant message that calls the tool"
    # Some data sets have the call in the text (`<tool_call>...`); their results carry no id.
    if before.role == "assistant" and not before.tool_calls and "tool_call_id" in message.extra:
        return "a tool message has a tool_call_id, but the message before it has no tool_calls"
    return None


def _result(message: Message, called: Sequence[str]) -> str | None:
    """Why a tool message cannot be the result of a call before it; `called` are the calls' ids."""
    wanted = message.extra.get("tool_call_id")
    if message.role != "tool" or wanted is None or not called or wanted in called:
        return None
    hint = did_you_mean(wanted[:80], called) or f" Calls before it: {', '.join(called[-5:])}."
    return f"tool_call_id {wanted[:80]!r} is not the id of a call before it.{hint}"
