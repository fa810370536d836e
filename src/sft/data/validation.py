"""What a list of messages must be like to be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from sft.data.conversation import Message


def validate(messages: Sequence[Message], name: str = "messages") -> str | None:
    """The first reason why `messages` cannot be trained on, or None when they can.

    `name` is what the list is called in the user's file.
    """
    before: Message | None = None
    for index, message in enumerate(messages):
        reason = _content(message) or _turn(before, message, index)
        if reason:
            return f"{name}[{index}]: {reason}"
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
