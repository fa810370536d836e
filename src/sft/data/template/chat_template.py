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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from sft.data.rows.conversation import Conversation
from sft.data.template.encoding import MARK_END, MARK_START, Encoded, TextEncoder
from sft.data.template.facts import PROBE, TemplateFacts, common_prefix, find_facts
from sft.data.template.limits import check_limits
from sft.data.template.plain_rows import given_ids, plain_text
from sft.data.template.tool_text import tools_as_text, with_mappings
from sft.errors import DataError, TemplateError

Messages = Sequence[Mapping[str, Any]]

# Two answers that differ in their first and in their last character.
_VARIANTS = ("Aa", "Bb")
_REASONING = ("reasoning_content", "thinking", "reasoning")


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
            self.text: str = tokenizer.get_chat_template()
        except ValueError as error:  # several named ones, and none of them the default
            raise TemplateError(f"{error} Set model.template to chatml, plain or a file") from None
        source = tokenizer.name_or_path or "this tokenizer"
        check_limits(self.text, source, tokenizer.special_tokens_map)
        self._encoder = TextEncoder(tokenizer)
        self.facts: TemplateFacts = find_facts(self, self._encoder, tokenizer.bos_token_id, tools)
        probe = self.render(PROBE)
        plain = self._encoder.encode(probe).ids
        self._refuse_two_bos(plain)
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
                chat_template=self.text,
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

    def as_served(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Messages, Sequence[Mapping[str, Any]]]:
        """Messages and tools as a server hands them to the template."""
        if self.facts.tools_by == "text":
            return tools_as_text(messages, tools, self.facts.roles), ()
        return (with_mappings(messages) if self.facts.takes_mappings else messages), tools

    def _shown(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]]
    ) -> tuple[Messages, Sequence[Mapping[str, Any]]]:
        """Messages and tools as the template is to see them, special tokens in them marked."""
        messages, tools = self.as_served(messages, tools)
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

    def marked(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[str, list[tuple[int, int]]]:
        """The render, and the ranges of it between the template's generation markers."""
        return self._render(messages, tools, markers=True)

    # ---------------------------------------------------------------- masks

    def encode(self, conversation: Conversation) -> list[Rendered]:
        """Ids and loss weights of a conversation, a plain text, or a row of token ids.

        One `Rendered`, or, when the template rewrites earlier turns (as those that drop old
        reasoning do), one for each trained assistant turn, as it is seen when serving.

        Raises:
            TemplateError: the mask cannot be proven; the message shows the tokens.
            DataError: the text cannot be encoded.
        """
        if conversation.kind == "tokens":
            return [self._finish(*given_ids(conversation.messages, self._tokenizer))]
        messages, tools = self._shown(conversation.as_dicts(), conversation.tools)
        if conversation.kind == "text":
            body = self._encoder.encode(messages[0]["content"])
            return [self._finish(*plain_text(body, self._tokenizer))]
        weight = _weights(messages, conversation)
        turns = list(weight)
        whole = self.render(messages, tools)
        self._refuse_what_is_left_out(conversation)
        ends = {
            i: whole if i == len(messages) - 1 else self.render(messages[: i + 1], tools)
            for i in turns
        }
        prompts = {i: self.render(messages[:i], tools, generation_prompt=True) for i in turns}
        # What follows the stop token may depend on where the conversation ends.
        closed = {i: _up_to(self._stop_of(messages[i])[1], ends[i], prompts[i]) for i in turns}
        if all(whole.startswith(closed[i]) and whole.startswith(prompts[i]) for i in turns):
            encoded = self._encoder.encode(whole)
            weights = [0.0] * len(encoded.ids)
            for i in turns:
                # The last turn ends where the whole does, whose tokens are known already.
                ids = None if ends[i] is whole else self._encoder.encode(closed[i]).ids
                for t in self._turn(encoded, messages[: i + 1], tools, prompts[i], ends[i], ids):
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
                f"...{_clean(end)[common_prefix(prompt, end) :][:60]!r}"
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
        end_ids: Sequence[int] | None = None,
    ) -> range:
        """The tokens of the last of `messages`, by both methods; they must be the same.

        `end_ids` are the ids of `end`; None: they are those of `encoded`.
        """
        stop = self._stop_of(messages[-1])
        num = len(encoded.ids if end_ids is None else end_ids)
        by_prefix = self._by_prefix(encoded, prompt, num, *stop)
        by_spans = self._by_spans(encoded, messages, tools, end, stop[0])
        if by_prefix != by_spans:
            raise TemplateError(
                f"two methods disagree on the trained tokens of messages[{len(messages) - 1}] | "
                f"prefix difference {self._show(encoded, by_prefix)}, "
                f"spans {self._show(encoded, by_spans)}"
            )
        return by_prefix

    def _stop_of(self, message: Mapping[str, Any]) -> tuple[int, str]:
        """The special token that ends this message of the assistant."""
        calls = bool(message.get("tool_calls"))
        index = self.facts.call_stop_id if calls else self.facts.stop_id
        return index, self._encoder.special_ids[index]

    def _by_prefix(
        self, encoded: Encoded, prompt: str, num: int, stop_id: int, stop_token: str
    ) -> range:
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
        stop = max(num, start)
        while stop > start and encoded.ids[stop - 1] != stop_id:
            stop -= 1
        if stop == start:
            raise TemplateError(
                f"the turn does not end with the stop token {stop_token!r} | "
                f"{self._tokens(encoded.ids[start:][-8:])}"
            )
        return range(start, stop)

    def _by_spans(
        self,
        encoded: Encoded,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]],
        end: str,
        stop_id: int,
    ) -> range:
        if self.facts.has_generation_markers:
            text, spans = self.marked(messages, tools)
            first, after = spans[-1] if spans else (0, 0)
            first, after = len(_clean(text[:first])), len(_clean(text[:after]))
        else:
            first, after = self._span_by_variants(messages, tools, end)
        start = next((t for t, (a, b) in enumerate(encoded.offsets) if b > first), 0)
        stop = start
        while stop < len(encoded.ids) and encoded.offsets[stop][0] < after:
            stop += 1
        # Close the turn: white space, or a token that ends the answer only (Command R7B's
        # `<|END_RESPONSE|>`), may stand between the answer and its stop token.
        closing = stop
        while closing < len(encoded.ids) and self._is_between(encoded, closing, stop_id):
            closing += 1
        if closing < len(encoded.ids) and encoded.ids[closing] == stop_id:
            return range(start, closing + 1)
        while stop > start and encoded.ids[stop - 1] != stop_id:
            stop -= 1
        return range(start, stop)

    def _is_between(self, encoded: Encoded, t: int, stop_id: int) -> bool:
        index = encoded.ids[t]
        if index in self._encoder.special_ids:
            return index != stop_id
        return encoded.text[slice(*encoded.offsets[t])].isspace()

    def _span_by_variants(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]], end: str
    ) -> tuple[int, int]:
        """Characters of the last message in `end`, found by rendering two other answers."""
        renders = [
            _clean(self.render([*messages[:-1], {"role": "assistant", "content": text}], tools))
            for text in _VARIANTS
        ]
        text = _clean(end)
        first = min(common_prefix(text, render) for render in renders)
        after = len(text) - min(common_prefix(text[::-1], render[::-1]) for render in renders)
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

    def _refuse_what_is_left_out(self, conversation: Conversation) -> None:
        """Refuse a row whose system message or reasoning the template would not write."""
        has_system = any(m.role == "system" and m.content.strip() for m in conversation.messages)
        if has_system and "system" not in self.facts.roles:
            raise TemplateError("the chat template leaves out system messages; remove this row's")
        trained = [m for m in conversation.messages if m.weight > 0]
        thought = any(m.extra.get(key) for m in trained for key in _REASONING)
        inline = any("</think>" in m.content for m in trained)
        if thought and not self.facts.reasons:
            raise TemplateError(
                "the chat template leaves out `reasoning_content`; write it into `content`, "
                "or remove it"
            )
        if inline and not self.facts.reasons_inline:
            raise TemplateError(
                "the chat template leaves out what an answer has before </think>; remove it, or "
                "set model.template to a template that keeps it in the last answer"
            )

    def _refuse_two_bos(self, ids: Sequence[int]) -> None:
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise TemplateError("the render begins with two BOS tokens")

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


def _up_to(stop_token: str, end: str, prompt: str) -> str:
    """`end` without what stands after the stop token of its last turn."""
    after = end.rfind(stop_token) + len(stop_token)
    is_turn = after > len(prompt) and not end.startswith(MARK_END, after)
    return end[:after] if is_turn else end


def _weights(messages: Messages, conversation: Conversation) -> dict[int, float]:
    """Weights of the trained turns, by their index in `messages`: showing tools moves them."""
    places = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    given = [message for message in conversation.messages if message.role == "assistant"]
    return {i: m.weight for i, m in zip(places, given, strict=True) if m.weight > 0}
