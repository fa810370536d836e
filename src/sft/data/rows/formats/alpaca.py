"""Alpaca's format: `instruction`, an optional `input`, and `output`; `history` before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sft.data.rows.conversation import Message
from sft.data.rows.formats.messages import optional_text
from sft.data.rows.problems import RowError, expect

COLUMNS = ("instruction", "output")


def parse(values: Mapping[str, Any]) -> list[Message]:
    """The pairs of `history`, then instruction and input as one user message, and the output."""
    prompt = join_prompt(optional_text(values, "instruction"), optional_text(values, "input"))
    output = optional_text(values, "output")
    if not prompt.strip():
        raise RowError("instruction: empty, and so is input")
    if not output.strip():
        raise RowError("output: empty")
    answer = Message("assistant", output, weight=1.0)
    return [*_history(values.get("history")), Message("user", prompt), answer]


def join_prompt(*parts: str) -> str:
    """The parts that are not empty, with a blank line between them."""
    return "\n\n".join(part for part in parts if part.strip())


def _history(value: Any) -> list[Message]:
    if value is None:
        return []
    expect(value, list, "history", "a list of pairs")
    messages = []
    for index, pair in enumerate(value):
        match pair:
            case [str(prompt), str(answer)] if prompt.strip() and answer.strip():
                messages.append(Message("user", prompt))
                messages.append(Message("assistant", answer, weight=1.0))
            case _:
                raise RowError(f"history[{index}]: expected a pair of texts that are not empty")
    return messages
