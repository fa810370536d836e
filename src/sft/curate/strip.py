"""Take an opener that too many answers share off the answers that are too many."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sft.curate.remedies import Remedied, by_origin, check_share
from sft.data.rows.conversation import Conversation, Message

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
FILLERS = frozenset(
    (
        *("sure", "certainly", "absolutely", "definitely", "okay", "ok", "alright", "of course"),
        *("here is", "here are", "here's", "gerne", "natürlich", "hier ist", "hier sind"),
        *("bien sûr", "voici", "claro", "por supuesto", "aquí está", "ecco"),
    )
)
# These are answers, however often they begin one.
CONTENT = frozenset(
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
    uses: dict[str, dict[int, tuple[bool, str]]] = {}
    for i, text in enumerate(texts):
        for phrase, marked, rest in openings(text):
            uses.setdefault(phrase, {})[i] = (marked, rest)
    counts = {
        phrase: (len(found), sum(mark for mark, _ in found.values()))
        for phrase, found in uses.items()
    }
    phrase = choose(counts, limit)
    return (phrase, {i: rest for i, (_, rest) in uses[phrase].items()}) if phrase else None


def choose(counts: Mapping[str, tuple[int, int]], limit: int) -> str:
    """The opener to strip next; empty when there is none.

    `counts` has how many answers begin with each opener, and of how many a mark follows it; those
    of `limit` answers at most may be left out.
    """
    frequent = {phrase: found for phrase, found in counts.items() if found[0] > limit}
    fillers = [phrase for phrase in frequent if phrase in FILLERS]
    marked = [
        phrase
        for phrase, (uses, marks) in frequent.items()
        if phrase not in FILLERS and marks >= _MARKED * uses
    ]
    # Two labels would be two phrases; "of course" and "of course sir" are one that goes on.
    if len({phrase.split()[0] for phrase in marked}) > 1:
        marked = []
    ranked = sorted(fillers + marked, key=lambda phrase: (-frequent[phrase][0], phrase))
    return ranked[0] if ranked else ""


def openings(text: str) -> Iterator[tuple[str, bool, str]]:
    """Each opener of an answer, whether a mark follows it, and the answer without it."""
    for start in _STARTS:
        match = start.match(text)
        if not match:
            break
        rest = text[match.end() :]
        phrase = " ".join(_LETTERS.findall(match.group())).lower().replace("\u2019", "'")
        if re.search(r"\w", rest) and phrase.split()[0] not in CONTENT:
            yield phrase, bool(_BREAK.search(match["end"])), _capitalised(rest)


def _capitalised(text: str) -> str:
    """With a capital first letter, unless it begins with a single letter, as a formula may."""
    word = _LETTERS.match(text)
    if not word or (len(word.group()) == 1 and word.group() not in "ai"):
        return text
    return text[0].upper() + text[1:]
