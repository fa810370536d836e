"""Other wordings that need no model: wrappers of the instruction, and other system messages."""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from sft.augment.rows import Change, one_prompt, with_text
from sft.data.rows.conversation import Conversation, Message
from sft.errors import ConfigError

PROMPT = "{prompt}"
NONE = "(none)"
_FOR_ALL = ("Hello!\n\n{prompt}", "Hi, {prompt}", "{prompt}\n\nThanks in advance.")
TEMPLATES: dict[str, tuple[str, ...]] = {
    "question": (
        *_FOR_ALL,
        "I have a question: {prompt}",
        "Question: {prompt}",
        "Can you answer this? {prompt}",
        "{prompt} I would like to know.",
        "Please answer the following question.\n\n{prompt}",
    ),
    "imperative": (
        *_FOR_ALL,
        "Please do the following: {prompt}",
        "Task: {prompt}",
        "Here is what I need: {prompt}",
        "I need your help with this. {prompt}",
        "Instruction:\n{prompt}",
    ),
    "statement": _FOR_ALL,
}
# Without a task in them: nothing that an answer could contradict.
SYSTEM_MESSAGES = (
    NONE,
    "You are a helpful assistant.",
    "You are an AI assistant.",
    "You help users with their requests.",
    "You are an assistant. Do what the user asks.",
)
_GENERIC = re.compile(
    r"you are (an? |the )?"
    r"((helpful|friendly|polite|honest|harmless|useful|smart|respectful|ai|language|and),? )*"
    r"(assistant|chatbot|model)(,? (named|called|trained by|made by|created by) [^.\n]*)?[.!]?",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\W*(who|whom|whose|what|which|when|where|why|how|is|are|was|were|do|does|did|can|could|will"
    r"|would|should|has|have)\b",
    re.IGNORECASE,
)
_ORDERS = re.compile(
    r"\W*(please|write|list|give|explain|describe|create|generate|summari[sz]e|translate|find|make"
    r"|name|identify|classify|compare|rewrite|provide|suggest|tell|show|calculate|compute|design"
    r"|develop|compose|convert|determine|answer|discuss|outline|propose|construct|evaluate|analy[sz]e"
    r"|solve|draft|extract|choose|select|categori[sz]e|sort|add|complete|state|define|imagine)\b",
    re.IGNORECASE,
)


def kind_of(prompt: str) -> str:
    """`question`, `imperative` or `statement`, told from its first word and its end (English)."""
    if _ORDERS.match(prompt):
        return "imperative"
    if prompt.rstrip().endswith("?") or _ASKS.match(prompt):
        return "question"
    return "statement"


def template(row: Conversation, rng: random.Random, templates: Sequence[str] = ()) -> Change:
    """The prompt in a wrapper of its kind, or in one of `templates`."""
    place = one_prompt(row)
    if place is None:
        return Change(reason="more than one user turn")
    text = row.messages[place].content
    kind = kind_of(text)
    known = templates or TEMPLATES[kind]
    chosen = rng.randrange(len(known))
    detail = f"template {chosen + 1}" if templates else f"{kind} {chosen + 1}"
    return Change(with_text(row.messages, place, known[chosen].replace(PROMPT, text)), detail)


def system_prompt(row: Conversation, rng: random.Random, systems: Sequence[str] = ()) -> Change:
    """Another system message, or none.

    Without `systems` of the user's, a message that says what to do is left alone: the answer would
    no longer follow from what is shown.
    """
    first = row.messages[0]
    now = first.content.strip() if first.role == "system" else NONE
    if not systems and now != NONE and not is_generic(now):
        return Change(reason="its system message says what to do; give --system-prompts FILE")
    others = [text for text in systems or SYSTEM_MESSAGES if text != now]
    if not others:
        return Change(reason="there is no other system message to choose")
    chosen = rng.choice(others)
    rest = row.messages[1:] if first.role == "system" else row.messages
    if chosen == NONE:
        return Change(rest, "none")
    return Change(
        (Message("system", chosen), *rest), textwrap.shorten(chosen, 40, placeholder="...")
    )


def is_generic(system: str) -> bool:
    """Says nothing but that there is an assistant."""
    return len(system) <= 120 and _GENERIC.fullmatch(system.strip()) is not None


def read_lines(path: str, *, what: str) -> list[str]:
    r"""The non-empty lines of a text file; `\n` in one becomes a line break.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as {what} ({error})") from None
    lines = [line.strip().replace("\\n", "\n") for line in text.splitlines() if line.strip()]
    if not lines:
        raise ConfigError(f"{path}: holds no {what}; expected one a line")
    return lines


def read_templates(path: str) -> list[str]:
    """Templates, one a line, each with `{prompt}` once.

    Raises:
        ConfigError: a line has it not, or twice.
    """
    lines = read_lines(path, what="templates")
    for number, line in enumerate(lines, start=1):
        if line.count(PROMPT) != 1:
            raise ConfigError(
                f"{path}: template {number} must hold {PROMPT} once, found {line[:60]!r}"
            )
    return lines
