"""Families of chat templates, conversations, and what `sft` makes of them, as lines of text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.data.template.chat_template import ChatTemplate, Rendered
from sft.errors import SFTError

FOLDER = Path(__file__).parent
HEAD = """\
# Made by `python tests/golden/write.py`. Each line that changes is a change of what
# is trained. ⟦ ⟧ enclose what has a loss. Every example of a conversation has its text and its ids.
"""


@dataclass(frozen=True)
class Family:
    """A template, and the special tokens it writes.

    `absorbs` are special tokens that swallow the white space after them, as Phi 3's do.
    """

    bos: str
    eos: str
    specials: tuple[str, ...] = ()
    absorbs: tuple[str, ...] = ()

    @property
    def all_specials(self) -> list[str]:
        """Every special token once, in the order of their ids."""
        return list(dict.fromkeys(["<pad>", self.bos, self.eos, *self.specials, *self.absorbs]))


IM = ("<|im_start|>", "<|im_end|>")
LLAMA_3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = Family("<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"))
MISTRAL = (
    *("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]"),
    *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
PHI_3 = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
COHERE = ("SYSTEM", "USER", "CHATBOT", "START_OF_TURN", "END_OF_TURN")
HARMONY = ("start", "end", "message", "channel", "call", "constrain")
DEEPSEEK = ("<\uff5cbegin▁of▁sentence\uff5c>", "<\uff5cend▁of▁sentence\uff5c>")
DEEPSEEK_3 = ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>")

FAMILIES = {
    "chatml": Family("<|im_start|>", "<|im_end|>"),
    "llama2": Family("<s>", "</s>"),
    "llama3": Family("<|begin_of_text|>", "<|end_of_text|>", LLAMA_3),
    "llama3.1": Family("<|begin_of_text|>", "<|eot_id|>", (*LLAMA_3, "<|python_tag|>")),
    "mistral-v1": Family("<s>", "</s>"),
    "mistral-v3": Family("<s>", "</s>", MISTRAL[:7]),
    "mistral-v3-tekken": Family("<s>", "</s>", MISTRAL[:7]),
    "mistral-v7": Family("<s>", "</s>", MISTRAL),
    "mistral-v7-tekken": Family("<s>", "</s>", MISTRAL),
    "gemma": GEMMA,
    "gemma3": GEMMA,
    "qwen2.5": Family("<|endoftext|>", "<|im_end|>", IM),
    "qwen3": Family("<|endoftext|>", "<|im_end|>", IM),
    "phi3": Family("<s>", "<|endoftext|>", absorbs=PHI_3),
    "phi3.5": Family("<s>", "<|endoftext|>", absorbs=PHI_3),
    "phi4": Family("<|endoftext|>", "<|im_end|>", (*IM, "<|im_sep|>")),
    "zephyr": Family("<s>", "</s>"),
    "deepseek-v2": Family(*DEEPSEEK),
    "deepseek-v3": Family(*DEEPSEEK, DEEPSEEK_3),
    "deepseek-r1": Family(*DEEPSEEK, DEEPSEEK_3),
    "command-r": Family(
        "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", tuple(f"<|{n}_TOKEN|>" for n in COHERE)
    ),
    "command-r7b": Family(
        "<BOS_TOKEN>",
        "<|END_OF_TURN_TOKEN|>",
        (*(f"<|{n}_TOKEN|>" for n in COHERE), "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    "gpt-oss": Family("<|startoftext|>", "<|return|>", tuple(f"<|{n}|>" for n in HARMONY)),
    "granite": Family(
        "<|end_of_text|>", "<|end_of_text|>", ("<|start_of_role|>", "<|end_of_role|>")
    ),
    "olmo2": Family("<|endoftext|>", "<|endoftext|>"),
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
ARGUMENTS = {"city": "Paris"}
CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)},
}


def talk(*messages: Message | tuple[str, str], tools: Any = ()) -> Conversation:
    """A conversation in which every assistant message is trained."""
    made = [
        m if isinstance(m, Message) else Message(m[0], m[1], weight=float(m[0] == "assistant"))
        for m in messages
    ]
    return Conversation(tuple(made), Origin("golden.jsonl", 1), tools)


def thought(reasoning: str, content: str) -> Message:
    return Message("assistant", content, weight=1.0, extra={"reasoning_content": reasoning})


SYSTEM, HI, YES = ("system", "Be kind."), ("user", "Hi"), ("assistant", "Yes.")
AND, NO = ("user", "And two?"), ("assistant", "No.")
CONVERSATIONS = {
    "one turn": talk(HI, YES),
    "two turns": talk(HI, YES, AND, NO),
    "system message": talk(SYSTEM, HI, YES, AND, NO),
    "empty system message": talk(("system", ""), HI, YES),
    "white space": talk(("user", " Hi \n"), ("assistant", " Yes. \n"), AND, ("assistant", "\nNo.")),
    "tools": talk(
        ("user", "Is it warm?"),
        Message("assistant", "", (CALL,), weight=1.0),
        Message("tool", "21 °C", extra={"tool_call_id": CALL["id"], "name": "weather"}),
        ("assistant", "It is."),
        ("user", "Thanks."),
        ("assistant", "Bye."),
        tools=TOOLS,
    ),
    "reasoning": talk(HI, thought("one", "Yes."), AND, thought("two", "No.")),
    "reasoning in the answer": talk(HI, ("assistant", "<think>\none\n</think>\n\nYes."), AND, NO),
}


def tokenizer(name: str) -> Any:
    """The tokenizer of a family: its special tokens, on byte-level BPE of a few sentences."""
    from tokenizers import AddedToken

    family = FAMILIES[name]
    fast = tiny.tokenizer(None, ["<pad>"])
    added = [
        AddedToken(token, special=True, normalized=False, rstrip=token in family.absorbs)
        for token in family.all_specials
    ]
    fast.add_tokens(added, special_tokens=True)
    fast.bos_token, fast.eos_token, fast.pad_token = family.bos, family.eos, "<pad>"
    fast.chat_template = template_text(name)
    return fast


def template_text(name: str) -> str:
    folder = resources.files("sft.data.template") if name == "chatml" else FOLDER / "templates"
    return (folder / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


@cache
def chat_template(name: str) -> ChatTemplate:
    """The `ChatTemplate` of a family."""
    return ChatTemplate(tokenizer(name))


class _Today(datetime):
    """Some templates write the date of today."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 1, 31)


def on_a_fixed_day() -> Any:
    return mock.patch("transformers.utils.chat_template_utils.datetime", _Today)


def view(part: Rendered) -> tuple[str, str]:
    """The text and the ids of an example on a line each, what is trained in ⟦ ⟧."""
    text, ids, last = "", [], 0
    for trained, run in itertools.groupby(range(len(part.ids)), key=lambda t: part.weights[t] > 0):
        tokens = list(run)
        end = part.offsets[tokens[-1]][1]
        piece = part.text[last:end]
        text, last = text + (f"⟦{piece}⟧" if trained else piece), end
        numbers = [str(part.ids[t]) for t in tokens]
        ids += ["⟦", *numbers, "⟧"] if trained else numbers
    text += part.text[last:]
    return text.replace("\\", "\\\\").replace("\n", "\\n"), " ".join(ids)


def lines(name: str) -> Iterator[str]:
    """What `sft` makes of every conversation, with the template of a family."""
    template = chat_template(name)
    facts = template.facts
    yield f"stop: {facts.stop_token}"
    yield f"tools: {facts.tools_by}; roles: {', '.join(sorted(facts.roles)) or 'none'}"
    for title, conversation in CONVERSATIONS.items():
        yield f"\n[{title}]"
        try:
            parts = template.encode(conversation)
        except SFTError as error:
            yield f"refused: {error}".replace("\n", "\\n")
            continue
        for part in parts:
            text, ids = view(part)
            yield f"text: {text}"
            yield f"ids: {ids}"


def golden(name: str) -> str:
    """The whole file of a family."""
    with on_a_fixed_day():
        return HEAD + "\n".join(lines(name)) + "\n"
