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
from sft.data.rows.formats.content import filled_text
from sft.data.rows.formats.messages import optional_text, parse_messages
from sft.data.rows.problems import RowError


@dataclass(frozen=True, slots=True)
class Pair:
    """The names of the two columns, and of those whose text is added to the prompt."""

    prompt: str
    answer: str
    context: tuple[str, ...] = ("context",)

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
        return [*messages, Message("assistant", filled_text(answer, self.answer), weight=1.0)]

    def _prompt_text(self, values: Mapping[str, Any]) -> str:
        context = [optional_text(values, column) for column in self.context]
        return join_prompt(filled_text(values[self.prompt], self.prompt), *context)


PAIRS = {
    "prompt_completion": Pair("prompt", "completion"),
    "prompt_response": Pair("prompt", "response"),
    "instruction_response": Pair("instruction", "response", context=("input", "context")),
    "question_answer": Pair("question", "answer"),
    "question_response": Pair("question", "response"),
    "query_response": Pair("query", "response"),
    "problem_solution": Pair("problem", "solution"),
    "input_output": Pair("input", "output"),
    "inputs_targets": Pair("inputs", "targets"),
}
