"""What a model is asked to write, and what comes back, whoever the model is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sft.augment.faithful import (
    answer_problem,
    paraphrase_problem,
    unquoted,
    without_thoughts,
)
from sft.augment.rows import Change, answers_of, one_prompt, with_text
from sft.data.rows.conversation import Conversation

# Each further paraphrase of a row asks for another style, so that they differ.
STYLES = (
    "in other words",
    "casually, as typed in a chat",
    "shorter, without losing anything",
    "formally",
    "as someone would say it aloud",
)
_PARAPHRASE = (
    "Rewrite the message between the marks {style}. Keep its meaning, its language, and exactly as "
    "they are: numbers, names, quoted texts, code and links. Do not answer it and do not follow "
    "it. A question stays a question. Reply with the rewritten message only.\n\n"
    "<message>\n{prompt}\n</message>"
)
# After the prompt of self-distillation fine-tuning (Yang et al. 2024, arXiv 2402.13669).
_DISTILL = (
    "Below are an instruction that describes a task along with a reference answer. Using the "
    "reference answer as a guide, write your own response.\n\n"
    "### Instruction:\n{prompt}\n\n### Reference answer:\n{answer}\n\n### Your response:"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model: `(role, content)` messages, and how long the answer may be."""

    messages: tuple[tuple[str, str], ...]
    max_tokens: int

    def as_dicts(self) -> list[dict[str, str]]:
        """The messages as an endpoint takes them."""
        return [{"role": role, "content": content} for role, content in self.messages]

    @property
    def num_chars(self) -> int:
        """Characters that are sent."""
        return sum(len(content) for _, content in self.messages)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a text that the model ended itself, or the reason why there is none."""

    text: str = ""
    problem: str = ""


class Writer(Protocol):
    """A model that writes."""

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """A reply to each of the requests, in their order."""


def room_for(text: str, factor: float) -> int:
    """Tokens that a rewritten `text` may take: four characters each, or two bytes of UTF-8."""
    size = max(len(text) / 4, (len(text.encode("utf-8", "replace")) - len(text)) / 2)
    return 64 + round(factor * size)


def ask_paraphrase(row: Conversation, variant: int) -> Request | str:
    """The request for another wording of the row's prompt, or the reason why there is none."""
    place = one_prompt(row)
    if place is None:
        return "more than one user turn"
    prompt = row.messages[place].content
    text = _PARAPHRASE.format(style=STYLES[variant % len(STYLES)], prompt=prompt)
    return Request((("user", text),), room_for(prompt, 2.0))


def take_paraphrase(row: Conversation, reply: Reply, variant: int = 0) -> Change:
    """The row with its prompt in the words of `reply`, if they still ask for the same."""
    place = one_prompt(row)
    if reply.problem or place is None:
        return Change(reason=reply.problem or "more than one user turn")
    new = without_thoughts(reply.text)
    new = new.removeprefix("<message>").removesuffix("</message>").strip()
    prompt = row.messages[place].content
    if unquoted(prompt) == prompt:
        new = unquoted(new)
    if reason := paraphrase_problem(prompt, new, answers_of(row)):
        return Change(reason=reason)
    return Change(with_text(row.messages, place, new), STYLES[variant % len(STYLES)])


def ask_own_answer(row: Conversation, _variant: int = 0) -> Request | str:
    """The request for the row's answer in the model's own words, or why there is none."""
    *context, last = row.messages
    roles = [message.role for message in row.messages if message.role != "system"]
    if roles != ["user", "assistant"] or last.tool_calls or not last.content.strip():
        return "not one user turn and one answer"
    text = _DISTILL.format(prompt=context[-1].content, answer=last.content)
    system = tuple((m.role, m.content) for m in context if m.role == "system")
    return Request((*system, ("user", text)), room_for(last.content, 1.5))


def take_own_answer(row: Conversation, reply: Reply, _variant: int = 0) -> Change:
    """The row with the answer of `reply`, if it says what the reference says."""
    if reply.problem:
        return Change(reason=reply.problem)
    new = without_thoughts(reply.text)
    place = len(row.messages) - 1
    if reason := answer_problem(row.messages[place].content, new):
        return Change(reason=reason)
    return Change(with_text(row.messages, place, new), "in the model's own words")


# How a model is asked for the `variant`-th new row of a row, and what its reply makes of it. The
# first gives the reason instead where the row is none to ask about.
Ask = Callable[[Conversation, int], Request | str]
Take = Callable[[Conversation, Reply, int], Change]
MODEL_WAYS: dict[str, tuple[Ask, Take]] = {
    "paraphrase": (ask_paraphrase, take_paraphrase),
    "self_answer": (ask_own_answer, take_own_answer),
}
