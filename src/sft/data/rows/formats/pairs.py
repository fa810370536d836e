"""A prompt column and an answer column, under any of the usual pairs of names.

Each is text, or a list of messages. A text in the column `context` is added to the prompt. An
answer that a column `label` calls unwanted (TRL's unpaired preferences) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sft.data.rows.conversation import Message
from sft.data.rows.formats.alpaca import join_prompt
from sft.data.rows.formats.messages import optional_text, parse_messages
from sft.data.rows.problems import RowError, describe


@dataclass(frozen=True, slots=True)
class Pair:
    """The names of the two columns, and of those whose text is added to the prompt."""

    prompt: str
    answer: str
    context: tuple[str, ...] = ("context",)

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Whether the row has both columns."""
        return self.prompt in values and self.answer in values

    def parse(self, values: Mapping[str, Any]) -> list[Message]:
        """The prompt's messages, which are not trained on by default, and the answer's."""
        if values.get("label") is False:
            raise RowError(
                "label: false, so the answer is an unwanted one; leave such rows out with "
                "on_bad_row: skip"
            )
        prompt, answer = values[self.prompt], values[self.answer]
        messages = (
            parse_messages(prompt, self.prompt, default_weight=0.0)
            if isinstance(prompt, list)
            else [Message("user", self._prompt_text(values))]
        )
        if isinstance(answer, list):
            return messages + parse_messages(answer, self.answer)
        return [*messages, Message("assistant", _text(answer, self.answer), weight=1.0)]

    def _prompt_text(self, values: Mapping[str, Any]) -> str:
        context = [optional_text(values, column) for column in self.context]
        return join_prompt(_text(values[self.prompt], self.prompt), *context)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{field}: expected text, found {describe(value)}")
    if not value.strip():
        raise RowError(f"{field}: empty")
    return value


PROMPT_COMPLETION = Pair("prompt", "completion")
PROMPT_RESPONSE = Pair("prompt", "response")
INSTRUCTION_RESPONSE = Pair("instruction", "response", context=("input", "context"))
QUESTION_ANSWER = Pair("question", "answer")
QUESTION_RESPONSE = Pair("question", "response")
QUERY_RESPONSE = Pair("query", "response")
PROBLEM_SOLUTION = Pair("problem", "solution")
INPUT_OUTPUT = Pair("input", "output")
INPUTS_TARGETS = Pair("inputs", "targets")
