"""Preferences: `chosen` and `rejected`. The chosen answer is trained on, the other is not used.

The prompt is a column of its own (`prompt`, a text or messages), or what both begin with. Either
way the same is trained: the answer that was chosen, and not the turns before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sft.data.rows.conversation import Message
from sft.data.rows.formats import messages as openai
from sft.data.rows.formats import sharegpt
from sft.data.rows.formats.alpaca import join_prompt
from sft.data.rows.formats.content import filled_text
from sft.data.rows.formats.messages import optional_text
from sft.data.rows.problems import RowError, expect, listing

COLUMNS = ("chosen", "rejected")
# Where the prompt may stand, the first that is there.
PROMPTS = ("prompt", "question", "instruction", "query", *sharegpt.COLUMNS)

# Whole dialogues as one text, as in Anthropic's hh-rlhf.
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def parse(values: Mapping[str, Any]) -> list[Message]:
    """The prompt, which is not trained on by default, and the chosen answer."""
    chosen, rejected = (values[column] for column in COLUMNS)
    prompt = next((column for column in PROMPTS if values.get(column) is not None), None)
    if isinstance(chosen, str):
        return _of_text(chosen, values, prompt)
    chosen = [chosen] if isinstance(chosen, dict) else chosen
    answer = _messages(chosen, "chosen")
    if _is_whole(answer):
        return _untrained(answer, chosen, rejected)
    if prompt is None:
        raise RowError(f"prompt: missing, and chosen has no user message; found {listing(values)}")
    return [*_prompt(values, prompt), *answer]


def _of_text(chosen: str, values: Mapping[str, Any], prompt: str | None) -> list[Message]:
    filled_text(chosen, "chosen")
    if prompt is not None:
        return [*_prompt(values, prompt), Message("assistant", chosen, weight=1.0)]
    _, *parts = _SPEAKER.split(chosen.rstrip())
    if not parts:
        raise RowError(f"prompt: missing, and chosen is one text; found {listing(values)}")
    messages = [
        Message("user" if speaker == "Human" else "assistant", text.strip())
        for speaker, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    return [*messages[:-1], replace(messages[-1], weight=float(messages[-1].role == "assistant"))]


def _prompt(values: Mapping[str, Any], column: str) -> list[Message]:
    value = values[column]
    if isinstance(value, list):
        return _messages(value, column, default_weight=0.0)
    expect(value, str, column, "text or messages")
    filled_text(value, column)
    more = optional_text(values, "input") if column == "instruction" else ""
    return [Message("user", join_prompt(value, more))]


def _messages(value: Any, field: str, default_weight: float = 1.0) -> list[Message]:
    """Messages, or turns in ShareGPT's notation."""
    parse = sharegpt.parse_turns if _is_sharegpt(value) else openai.parse_messages
    return parse(value, field, default_weight=default_weight)


def _is_sharegpt(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and "from" in first


def _is_whole(messages: list[Message]) -> bool:
    """Whether these are a conversation, and not an answer only."""
    return any(message.role == "user" for message in messages)


def _untrained(messages: list[Message], chosen: list[Any], rejected: Any) -> list[Message]:
    """`messages` without a weight on the turns that both sides have; the last one keeps its own.

    Equal sides prefer nothing; their last message is the answer.
    """
    others = rejected if isinstance(rejected, list) else chosen
    same = [a == b for a, b in zip(chosen, others, strict=False)]
    num_common = min(same.index(False) if False in same else len(same), len(chosen) - 1)
    return [
        replace(message, weight=0.0)
        if message.place < num_common and not _says_weight(chosen[message.place])
        else message
        for message in messages
    ]


def _says_weight(item: Any) -> bool:
    return isinstance(item, dict) and any(item.get(key) is not None for key in ("weight", "train"))
