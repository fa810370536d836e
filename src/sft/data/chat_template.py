"""Conversations to token ids and loss weights, with the tokenizer's own chat template.

Which tokens are trained is found twice, by methods that share no step:

* *prefix differences*: the turn is what the render with the turn adds to the render of
  everything before it with a generation prompt, that is, to what is sent when serving;
* *spans*: the template's `{% generation %}` markers where it has them, otherwise the place
  where two renders with other answers start and stop to differ from this one.

Both are closed at the turn's stop token. Where they disagree on a single token, the row is
refused, and the error shows the tokens.

    <|im_start|> user \\n Hi <|im_end|> \\n <|im_start|> assistant \\n Hello <|im_end|> \\n
    0            0    0  0  0          0  0            0         0  1     1          0
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from sft.data.conversation import Conversation
from sft.data.encoding import MARK_END, MARK_START, Encoded, TextEncoder
from sft.data.tool_text import tools_as_text, with_mappings
from sft.errors import DataError, TemplateError

Messages = Sequence[Mapping[str, Any]]

# Two answers that differ in their first and in their last character.
_VARIANTS = ("Aa", "Bb")
_PROBE = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"})
_SCHEMA = {"type": "object", "properties": {}}
_TOOL = {
    "type": "function",
    "function": {"name": "sft_probe", "description": "", "parameters": _SCHEMA},
}
_CALL = {"name": "sft_call", "arguments": {}}
_CALLING = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call00001", "type": "function", "function": _CALL}],
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """One rendered conversation: `weights[t]` is the loss weight of predicting `ids[t]`.

    `text` is the render, `offsets[t]` the characters of it that token `t` covers, and
    `num_text_specials` counts special-token strings of the data that were encoded as text.
    """

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    weights: list[float]


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What was found out about a template, on a two-message probe."""

    sha256: str
    stop_id: int
    stop_token: str
    generation_prompt: str
    has_generation_markers: bool
    leading_bos: bool
    tools_by: str  # "template" or "text"


class ChatTemplate:
    """Renders and masks conversations with the template of `tokenizer`.

    Raises:
        TemplateError: the template cannot be rendered, writes no stop token, or doubles BOS.
    """

    def __init__(self, tokenizer: Any, tools: str = "auto") -> None:
        if not tokenizer.chat_template:
            raise TemplateError(
                "the tokenizer has no chat template; set model.template to chatml, plain or a file"
            )
        self._tokenizer = tokenizer
        try:
            self._template: str = tokenizer.get_chat_template()
        except ValueError as error:  # several named ones, and none of them the default
            raise TemplateError(f"{error} Set model.template to chatml, plain or a file") from None
        self._encoder = TextEncoder(tokenizer)
        self.facts = self._find_facts(tools)
        self._takes_mappings = self._writes("sft_call", [_PROBE[0], _CALLING])
        probe = self.render(_PROBE)
        plain = self._encoder.encode(probe).ids
        self._can_encode_specials_as_text = self._encoder.encode_in_pieces(probe).ids == plain

    # ---------------------------------------------------------------- rendering

    def render(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] = (),
        generation_prompt: bool = False,
    ) -> str:
        """The text the template makes of `messages`, in transformers' Jinja sandbox."""
        text, _ = self._render(messages, tools, generation_prompt)
        return text

    def _render(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]],
        generation_prompt: bool = False,
        markers: bool = False,
    ) -> tuple[str, list[tuple[int, int]]]:
        try:
            rendered, spans = render_jinja_template(
                conversations=[[dict(message) for message in messages]],
                tools=[dict(tool) for tool in tools] or None,
                chat_template=self._template,
                return_assistant_tokens_mask=markers,
                add_generation_prompt=generation_prompt,
                **self._tokenizer.special_tokens_map,
            )
        except Exception as error:  # a template is a program: it can fail in any way
            raise TemplateError(f"the chat template refuses the conversation | {error}") from None
        return rendered[0], [tuple(span) for span in spans[0]] if markers else []

    def prompt_ids(self, messages: Messages, tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """What is sent to the model to get the next answer: the render with a generation prompt."""
        messages, tools = self._shown(messages, tools)
        return self._encoder.encode(self.render(messages, tools, generation_prompt=True)).ids

    def _shown(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]]
    ) -> tuple[Messages, Sequence[Mapping[str, Any]]]:
        """Messages and tools as the template is to see them."""
        if self.facts.tools_by == "text":
            messages, tools = tools_as_text(messages, tools), ()
        elif self._takes_mappings:
            messages = with_mappings(messages)
        if self._encoder.has_special_text([list(messages), list(tools)]):
            messages, tools = self._encoder.mark(messages), self._encoder.mark(tools)
            if not self._can_encode_specials_as_text:
                raise DataError(
                    "holds a special-token string, which this tokenizer cannot encode as text"
                )
        return messages, tools

    def has_special_text(self, conversation: Conversation) -> bool:
        """Does the data of this row spell a special token (which is then encoded as text)?"""
        return self._encoder.has_special_text([conversation.as_dicts(), list(conversation.tools)])

    # ---------------------------------------------------------------- masks

    def encode(self, conversation: Conversation) -> list[Rendered]:
        """Ids and loss weights of a conversation.

        One `Rendered`, or, when the template rewrites earlier turns (as those that drop old
        reasoning do), one for each trained assistant turn, as it is seen when serving.

        Raises:
            TemplateError: the mask cannot be proven; the message shows the tokens.
            DataError: the text cannot be encoded.
        """
        messages, tools = self._shown(conversation.as_dicts(), conversation.tools)
        added = len(messages) - len(conversation.messages)  # a system message that shows tools
        weight = {i: m.weight for i, m in enumerate(conversation.messages, added) if m.weight > 0}
        turns = list(weight)
        whole = self.render(messages, tools)
        ends = {
            i: whole if i == len(messages) - 1 else self.render(messages[: i + 1], tools)
            for i in turns
        }
        prompts = {i: self.render(messages[:i], tools, generation_prompt=True) for i in turns}
        if all(whole.startswith(ends[i]) and whole.startswith(prompts[i]) for i in turns):
            encoded = self._encoder.encode(whole)
            weights = [0.0] * len(encoded.ids)
            for i in turns:
                for t in self._turn(encoded, messages[: i + 1], tools, prompts[i], ends[i]):
                    weights[t] = weight[i]
            return [self._finish(encoded, weights)]
        return [
            self._per_turn(messages[: i + 1], tools, prompts[i], ends[i], weight[i]) for i in turns
        ]

    def _per_turn(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]],
        prompt: str,
        end: str,
        weight: float,
    ) -> Rendered:
        if not end.startswith(prompt):
            raise TemplateError(
                f"the chat template renders messages[{len(messages) - 1}] differently from what it "
                "sends to get it, so no mask can be right | "
                f"sent: ...{_clean(prompt)[-60:]!r}; rendered: "
                f"...{_clean(end)[_common(prompt, end) :][:60]!r}"
            )
        encoded = self._encoder.encode(end)
        weights = [0.0] * len(encoded.ids)
        for t in self._turn(encoded, messages, tools, prompt, end):
            weights[t] = weight
        return self._finish(encoded, weights)

    def _turn(
        self,
        encoded: Encoded,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]],
        prompt: str,
        end: str,
    ) -> range:
        """The tokens of the last of `messages`, by both methods; they must be the same."""
        by_prefix = self._by_prefix(encoded, prompt, end)
        by_spans = self._by_spans(encoded, messages, tools, end)
        if by_prefix != by_spans:
            raise TemplateError(
                f"two methods disagree on the trained tokens of messages[{len(messages) - 1}] | "
                f"prefix difference {self._show(encoded, by_prefix)}, "
                f"spans {self._show(encoded, by_spans)}"
            )
        return by_prefix

    def _by_prefix(self, encoded: Encoded, prompt: str, end: str) -> range:
        sent = self._encoder.encode(prompt).ids
        start = len(sent)
        if encoded.ids[:start] != sent:
            same = next(
                t for t, (a, b) in enumerate(zip(encoded.ids, sent, strict=False)) if a != b
            )
            raise TemplateError(
                "the answer changes how its prompt is split into tokens, so serving would see "
                "other tokens (does it begin with white space?) | "
                f"sent {self._tokens(sent[same:start][:6])}, "
                f"rendered {self._tokens(encoded.ids[same : same + 6])}"
            )
        stop = start + len(self._encoder.encode(end).ids[start:])
        while stop > start and encoded.ids[stop - 1] != self.facts.stop_id:
            stop -= 1
        if stop == start:
            raise TemplateError(
                f"the turn does not end with the stop token {self.facts.stop_token!r} | "
                f"{self._tokens(encoded.ids[start:][-8:])}"
            )
        return range(start, stop)

    def _by_spans(
        self,
        encoded: Encoded,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]],
        end: str,
    ) -> range:
        if self.facts.has_generation_markers:
            text, spans = self._render(messages, tools, markers=True)
            first, after = spans[-1] if spans else (0, 0)
            first, after = len(_clean(text[:first])), len(_clean(text[:after]))
        else:
            first, after = self._span_by_variants(messages, tools, end)
        start = next((t for t, (a, b) in enumerate(encoded.offsets) if b > first), 0)
        stop = start
        while stop < len(encoded.ids) and encoded.offsets[stop][0] < after:
            stop += 1
        # Close the turn: white space may stand between the answer and its stop token.
        closing = stop
        while (
            closing < len(encoded.ids) and encoded.text[slice(*encoded.offsets[closing])].isspace()
        ):
            closing += 1
        if closing < len(encoded.ids) and encoded.ids[closing] == self.facts.stop_id:
            return range(start, closing + 1)
        while stop > start and encoded.ids[stop - 1] != self.facts.stop_id:
            stop -= 1
        return range(start, stop)

    def _span_by_variants(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]], end: str
    ) -> tuple[int, int]:
        """Characters of the last message in `end`, found by rendering two other answers."""
        renders = [
            _clean(self.render([*messages[:-1], {"role": "assistant", "content": text}], tools))
            for text in _VARIANTS
        ]
        text = _clean(end)
        first = min(_common(text, render) for render in renders)
        after = len(text) - min(_common(text[::-1], render[::-1]) for render in renders)
        prompt = self.facts.generation_prompt
        if prompt:
            # What a template writes between its generation prompt and the answer (an empty
            # reasoning block, say) is part of what the model must write.
            at = text.rfind(prompt, 0, first)
            return (at + len(prompt) if at >= 0 else first), max(after, first)
        while first and text[first - 1].isspace():
            first -= 1
        return first, max(after, first)

    def _finish(self, encoded: Encoded, weights: list[float]) -> Rendered:
        self._refuse_two_bos(encoded.ids)
        return Rendered(encoded.text, encoded.ids, encoded.offsets, weights)

    def _refuse_two_bos(self, ids: Sequence[int]) -> None:
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise TemplateError("the render begins with two BOS tokens")

    # ---------------------------------------------------------------- facts

    def _find_facts(self, tools: str) -> TemplateFacts:
        prompt = self.render(_PROBE[:1], generation_prompt=True)
        bare = self.render(_PROBE[:1])
        ids = self._encoder.encode(self.render(_PROBE)).ids
        start = _common(ids, self._encoder.encode(prompt).ids)
        stop = next((i for i in reversed(ids[start:]) if i in self._encoder.special_ids), None)
        if stop is None:
            raise TemplateError(
                "the chat template writes no special token after an answer, so the model could "
                "not learn to stop; set model.template to chatml or plain, or repair the template"
            )
        self._refuse_two_bos(ids)
        markers = bool(re.search(r"\{%-?\s*generation\s*-?%\}", self._template))
        if markers and (spans := self._render(_PROBE[:1], (), markers=True)[1]):
            raise TemplateError(
                "the chat template's generation markers cover what a user wrote | "
                f"{bare[slice(*spans[0])]!r}"
            )
        return TemplateFacts(
            sha256=hashlib.sha256(self._template.encode()).hexdigest(),
            stop_id=stop,
            stop_token=self._encoder.special_ids[stop],
            generation_prompt=prompt[len(bare) :] if prompt.startswith(bare) else "",
            has_generation_markers=markers,
            leading_bos=ids[0] == self._tokenizer.bos_token_id,
            tools_by=tools if tools != "auto" else self._tools_by(),
        )

    def _tools_by(self) -> str:
        """`template` when it writes both tools and tool calls, otherwise `text`."""
        shows = self._writes("sft_probe", _PROBE, [_TOOL])
        return "template" if shows and self._writes("sft_call", [_PROBE[0], _CALLING]) else "text"

    def _writes(
        self, text: str, messages: Messages, tools: Sequence[Mapping[str, Any]] = ()
    ) -> bool:
        try:
            return text in self.render(messages, tools)
        except TemplateError:
            return False

    # ---------------------------------------------------------------- messages

    def _tokens(self, ids: Sequence[int]) -> str:
        return " ".join(repr(self._tokenizer.decode([i])) for i in ids) or "nothing"

    def _show(self, encoded: Encoded, span: range) -> str:
        if not span:
            return "nothing"
        ids = encoded.ids[span.start : span.stop]
        if len(ids) <= 10:
            return f"[{span.start}:{span.stop}] {self._tokens(ids)}"
        return f"[{span.start}:{span.stop}] {self._tokens(ids[:4])} ... {self._tokens(ids[-4:])}"


def _clean(text: str) -> str:
    return text.replace(MARK_START, "").replace(MARK_END, "")


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the common prefix."""
    shorter = min(len(a), len(b))
    if a[:shorter] == b[:shorter]:
        return shorter
    low, high = 0, shorter
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low
