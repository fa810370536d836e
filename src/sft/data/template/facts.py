"""What a chat template does, found out by rendering a few short conversations with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sft.data.template.encoding import TextEncoder
from sft.errors import TemplateError

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]

USER = {"role": "user", "content": "Hi"}
PROBE = (USER, {"role": "assistant", "content": "Yes"})
_SCHEMA = {"type": "object", "properties": {}}
_TOOL = {
    "type": "function",
    "function": {"name": "sft_probe", "description": "", "parameters": _SCHEMA},
}
_RESULT = {"role": "tool", "content": "sft_result"}
_RESULT_OF_CALL = {**_RESULT, "tool_call_id": "call00001", "name": "sft_call"}


def _calling(arguments: Any) -> dict[str, Any]:
    call = {"name": "sft_call", "arguments": arguments}
    calls = [{"id": "call00001", "type": "function", "function": call}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


class Renderer(Protocol):
    """What is probed: a chat template, as text, and its renders."""

    text: str

    def render(self, messages: Messages, tools: Tools = (), generation_prompt: bool = False) -> str:
        """The text the template makes of `messages`."""

    def marked(self, messages: Messages, tools: Tools = ()) -> tuple[str, list[tuple[int, int]]]:
        """The same, and the ranges of it between the template's generation markers."""


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What was found out about a template.

    `stop_id` ends an answer and `call_stop_id` a turn that calls a tool; they are the same in
    most templates. `roles` are those besides user and assistant whose messages are written.
    `takes_mappings`: the arguments of a call may be a mapping. `reasons` and `reasons_inline`:
    of the last answer, `reasoning_content` and `<think>` in its content are written.
    """

    sha256: str
    stop_id: int
    stop_token: str
    generation_prompt: str
    has_generation_markers: bool
    leading_bos: bool
    tools_by: str  # "template" or "text"
    roles: frozenset[str]
    takes_mappings: bool
    reasons: bool
    reasons_inline: bool
    call_stop_id: int

    @property
    def stop_ids(self) -> list[int]:
        """The ids that end a turn, each once."""
        return list(dict.fromkeys((self.stop_id, self.call_stop_id)))


def find_facts(
    template: Renderer, encoder: TextEncoder, bos_id: int | None, tools: str
) -> TemplateFacts:
    """Probe `template`; `tools` is `auto`, or who shows the tools.

    Raises:
        TemplateError: the template cannot be rendered, or writes no stop token.
    """
    prober = _Prober(template, encoder)
    prompt = template.render(PROBE[:1], generation_prompt=True)
    bare = template.render(PROBE[:1])
    stop = prober.stop(PROBE, "Yes", USER)
    if stop is None:
        raise TemplateError(
            "the chat template writes no special token after an answer, so the model could "
            "not learn to stop; set model.template to chatml or plain, or repair the template"
        )
    markers = bool(re.search(r"\{%-?\s*generation\s*-?%\}", template.text))
    if markers and (spans := template.marked(PROBE[:1])[1]):
        raise TemplateError(
            "the chat template's generation markers cover what a user wrote | "
            f"{bare[slice(*spans[0])]!r}"
        )
    by = tools if tools != "auto" else prober.tools_by()
    call_stop = prober.call_stop() if by == "template" else None
    opening = prober.generation_prompt(prompt, bare)
    thought = {"role": "assistant", "content": "Yes", "reasoning_content": "sft_thought"}
    inline = {"role": "assistant", "content": "<think>\nsft_thought\n</think>\n\nYes"}
    return TemplateFacts(
        sha256=hashlib.sha256(template.text.encode()).hexdigest(),
        stop_id=encoder.id_of(stop),
        stop_token=stop,
        generation_prompt=opening,
        has_generation_markers=markers,
        leading_bos=encoder.encode(bare).ids[:1] == [bos_id],
        tools_by=by,
        roles=prober.roles(opening),
        takes_mappings=prober.writes("sft_call", [USER, _calling({})]),
        reasons=prober.writes("sft_thought", [USER, thought]),
        reasons_inline=prober.writes("sft_thought", [USER, inline]),
        call_stop_id=encoder.id_of(call_stop or stop),
    )


class _Prober:
    def __init__(self, template: Renderer, encoder: TextEncoder) -> None:
        self._template = template
        self._encoder = encoder

    def writes(self, text: str, messages: Messages, tools: Tools = ()) -> bool:
        """Is `text`, which is in `messages` or `tools`, in what the template makes of them?"""
        return text in (self._rendered(messages, tools) or "")

    def tools_by(self) -> str:
        """`template` when it writes tools, calls and results, otherwise `text`."""
        calling = [USER, _calling({})]
        shows = (
            self.writes("sft_probe", PROBE, [_TOOL])
            and self.writes("sft_call", calling)
            and self.writes("sft_result", [*calling, _RESULT_OF_CALL, PROBE[1]])
        )
        return "template" if shows else "text"

    def roles(self, generation_prompt: str) -> frozenset[str]:
        """Roles besides user and assistant whose messages are neither refused nor left out.

        What counts is what is sent to get an answer, which must end as it always does: DeepSeek's
        template opens no turn of the assistant after a result.
        """
        system = {"role": "system", "content": "sft_system"}
        probes = {"system": [system, USER], "tool": [*PROBE, _RESULT]}
        roles = set()
        for role, messages in probes.items():
            sent = self._rendered(messages, generation_prompt=True) or ""
            text = messages[0 if role == "system" else -1]["content"]
            if text in sent and sent.endswith(generation_prompt):
                roles.add(role)
        return frozenset(roles)

    def generation_prompt(self, prompt: str, bare: str) -> str:
        """What `prompt` has after the user's message; `bare` is the render without it.

        A template may end `bare` with what is not there when the conversation goes on.
        """
        if prompt.startswith(bare):
            return prompt[len(bare) :]
        length = common_prefix(bare, self._template.render(PROBE))
        length = next((a for a, b in self._encoder.special_spans(bare) if a < length < b), length)
        shows_user = USER["content"] in bare[:length]
        return prompt[length:] if shows_user and prompt.startswith(bare[:length]) else ""

    def call_stop(self) -> str | None:
        """What ends a turn that calls a tool."""
        for calling in (_calling({}), _calling("{}")):  # a template may take either only
            if self.writes("sft_call", [USER, calling]):
                return self.stop([USER, calling], "sft_call", _RESULT_OF_CALL)
        return None

    def stop(self, messages: Messages, text: str, following: Mapping[str, Any]) -> str | None:
        """The special token that ends the last of `messages`, in which `text` is written.

        A template may end the whole text with more than the turn: Phi 3's adds `<|endoftext|>`.
        That is not there when the conversation goes on, so the last special token is taken of
        those that are in both renders; where they have none in common, of the whole text.
        """
        alone = self._template.render(messages)
        alone = alone[max(alone.rfind(text), 0) :]
        going_on = self._rendered([*messages, following]) or ""
        going_on = going_on[max(going_on.rfind(text), 0) :]
        shared = alone[: common_prefix(alone, going_on)]
        for text in (shared, alone):
            if spans := self._encoder.special_spans(text):
                return text[slice(*spans[-1])]
        return None

    def _rendered(
        self, messages: Messages, tools: Tools = (), generation_prompt: bool = False
    ) -> str | None:
        try:
            return self._template.render(messages, tools, generation_prompt)
        except TemplateError:
            return None


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the common prefix."""
    shorter = min(len(a), len(b))
    if a[:shorter] == b[:shorter]:
        return shorter
    low, high = 0, shorter
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low
