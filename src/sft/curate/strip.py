"""Take an opener that too many answers share off the answers that are too many."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from sft.curate.remedies import Remedied, by_origin, check_share
from sft.data.conversation import Conversation, Message

MAX_WORDS = 3
_MAX_ROUNDS = 10
_WORD = r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*"
# So many words at the start, with the marks and the space after each.
_STARTS = [
    re.compile(
        rf"\s*{_WORD}" + rf"[^\w\s]*\s+{_WORD}" * (count - 1) + r"(?P<end>[^\w\s]*(?:\s+|$))"
    )
    for count in range(1, MAX_WORDS + 1)
]
_LETTERS = re.compile(_WORD)
_BREAK = re.compile(r"[,.!:;\u2013\u2014\u2026\uff01\uff0c\uff1a-]|\n")
# Phrases that can go even when no mark follows them.
_FILLERS = frozenset(
    (
        *("sure", "certainly", "absolutely", "definitely", "okay", "ok", "alright", "of course"),
        *("here is", "here are", "here's", "gerne", "natürlich", "hier ist", "hier sind"),
        *("bien sûr", "voici", "claro", "por supuesto", "aquí está", "ecco"),
    )
)
# These are answers, however often they begin one.
_CONTENT = frozenset(
    ("yes", "no", "true", "false", "ja", "nein", "oui", "non", "sí", "si", "não", "sim")
)
# The share of its uses that a mark must follow for an opener to be a phrase of its own.
_MARKED = 0.9


def strip_openers(rows: Sequence[Conversation], max_share: float) -> Remedied:
    """Where one opener begins more than `max_share` of the answers, strip it from those beyond.

    An opener is one to three words and the marks after them: "Sure!", "Of course,". It can be
    stripped when it is a known filler, or when a mark or line break nearly always follows and no
    other opener is as frequent (two or more may be labels: "Positive." and "Negative."). Never
    stripped are yes, no, true and false, code and numbers, and what is the whole answer. The
    rest begins with a capital. What follows ("here is") may be the next opener beyond its share.

    Raises:
        ConfigError: when `max_share` is not above 0 and at most 1.
    """
    check_share(max_share)
    answers = [_first_answer(row) for row in rows]
    texts = [
        row.messages[i].content if i >= 0 else "" for row, i in zip(rows, answers, strict=True)
    ]
    limit = math.floor(max_share * sum(i >= 0 for i in answers))
    order = by_origin(rows)
    stripped: dict[int, list[str]] = {}
    for _ in range(_MAX_ROUNDS):
        found = _most_frequent(texts, limit)
        if not found:
            break
        phrase, users = found
        for i in [i for i in order if i in users][limit:]:
            texts[i] = users[i]
            stripped.setdefault(i, []).append(phrase)
    kept = [
        _with_answer(row, answers[i], texts[i]) if i in stripped else row
        for i, row in enumerate(rows)
    ]
    changed = [
        (rows[i].origin, f'opener "{" ".join(phrases)}" stripped from the answer')
        for i, phrases in sorted(stripped.items())
    ]
    return kept, changed


def _first_answer(row: Conversation) -> int:
    """Index of the first answer that has a text, or -1."""
    messages = enumerate(row.messages)
    return next((i for i, m in messages if m.role == "assistant" and m.content.strip()), -1)


def _with_answer(row: Conversation, index: int, text: str) -> Conversation:
    messages: list[Message] = list(row.messages)
    messages[index] = replace(messages[index], content=text)
    return replace(row, messages=tuple(messages))


def _most_frequent(texts: Sequence[str], limit: int) -> tuple[str, dict[int, str]] | None:
    """The opener to strip next, and by row what remains without it; None when there is none."""
    uses = _uses(texts)
    frequent = {phrase: found for phrase, found in uses.items() if len(found) > limit}
    fillers = [phrase for phrase in frequent if phrase in _FILLERS]
    marked = [
        phrase
        for phrase, found in frequent.items()
        if phrase not in _FILLERS
        and sum(mark for mark, _ in found.values()) >= _MARKED * len(found)
    ]
    # Two labels would be two phrases; "of course" and "of course sir" are one that goes on.
    if len({phrase.split()[0] for phrase in marked}) > 1:
        marked = []
    ranked = sorted(fillers + marked, key=lambda phrase: (-len(frequent[phrase]), phrase))
    if not ranked:
        return None
    return ranked[0], {i: rest for i, (_, rest) in frequent[ranked[0]].items()}


def _uses(texts: Sequence[str]) -> dict[str, dict[int, tuple[bool, str]]]:
    """Opener -> row -> (whether a mark follows it, the answer without it)."""
    uses: dict[str, dict[int, tuple[bool, str]]] = {}
    for i, text in enumerate(texts):
        for start in _STARTS:
            match = start.match(text)
            if not match:
                break
            rest = text[match.end() :]
            phrase = " ".join(_LETTERS.findall(match.group())).lower().replace("\u2019", "'")
            if re.search(r"\w", rest) and phrase.split()[0] not in _CONTENT:
                marked = bool(_BREAK.search(match["end"]))
                uses.setdefault(phrase, {})[i] = (marked, _capitalised(rest))
    return uses


def _capitalised(text: str) -> str:
    """With a capital first letter, unless it begins with a single letter, as a formula may."""
    word = _LETTERS.match(text)
    if not word or (len(word.group()) == 1 and word.group() not in "ai"):
        return text
    return text[0].upper() + text[1:]
