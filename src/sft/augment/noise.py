"""Prompts as people type them: lower case, no final stop, doubled spaces, typing errors.

Code, quoted texts, anything with a digit and addresses stay as they are, and so do tasks that are
about the form of their text. Words that stand in the answer get no typing errors, since it may copy
them from the prompt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import partial

from sft.augment.rows import Change, answers_of, indices_of, with_text
from sft.augment.spans import free_spans
from sft.data.rows.conversation import Conversation

TYPO_RATE = 0.05  # of the words; at least one
SPACE_RATE = 0.08  # of the gaps between words; at least one
MIN_TYPO_LETTERS = 4

_NEIGHBOURS = {
    **{"q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij"},
    **{"i": "uok", "o": "ipl", "p": "ol", "a": "qsz", "s": "adw", "d": "sfe", "f": "dgr"},
    **{"g": "fht", "h": "gjy", "j": "hku", "k": "jli", "l": "kop", "z": "xas", "x": "zcs"},
    **{"c": "xvd", "v": "cbf", "b": "vng", "n": "bmh", "m": "njk"},
}
_ABOUT_FORM = re.compile(
    r"\b(spell|misspel|typo|grammar|capitali[sz]|upper-?case|lower-?case|letters?\b|punctuat"
    r"|proofread|characters?\b|palindrom|anagram|rhym|acronym|syllab|vowel|consonant|white-?space"
    r"|indent|regex|regular expression|edit (the|this)|correct (the|this|any)|fix (the|this|any)"
    r"|how many words|reverse|alphabet|encod|decod|cipher)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER_WORD = re.compile(
    r"zero|three|four(teen|th)?|five|fifth|seven(teen)?|eight(een|y)?|nine(teen|ty)?|eleven|twelve"
    r"|thirteen|fifteen|sixteen|twenty|thirty|forty|fifty|sixty|seventy|hundred|thousand|million"
    r"|billion|first|second|third|half|halves|quarters?|double|twice|thrice|triple|times|dozen|once",
    re.IGNORECASE,
)
_FORM = "the task is about the form of its text"

Edit = Callable[[str, frozenset[str], random.Random], tuple[str, str]]


def _edited(edit: Edit, row: Conversation, rng: random.Random) -> Change:
    """`edit` on each user message; the same words are spared in all of them."""
    places = indices_of("user", row)
    texts = [row.messages[place].content for place in places]
    if any(_ABOUT_FORM.search(text) for text in texts):
        return Change(reason=_FORM)
    spared = frozenset(word.casefold() for word in _WORD.findall(answers_of(row)))
    messages, details = row.messages, []
    for place, text in zip(places, texts, strict=True):
        changed, detail = edit(text, spared, rng)
        if changed != text:
            messages = with_text(messages, place, changed)
            details.append(detail)
    if not details:
        return Change(reason="nothing in it may be changed in this way")
    return Change(messages, ", ".join(dict.fromkeys(details)))


def _change_case(text: str, _spared: frozenset[str], rng: random.Random) -> tuple[str, str]:
    """Lower case, or no final stop, or both. Words in capitals (NASA, US) keep them."""
    kind = rng.choice(("lower", "no_stop", "lower_no_stop"))
    changed = text
    if kind != "no_stop":
        for start, end in free_spans(text):
            part = _WORD.sub(_lowered, text[start:end])
            changed = changed[:start] + part + changed[end:]
    if kind != "lower":
        changed = re.sub(r"(?<=[^\W_])[.?!]\s*\Z", "", changed)
    return changed, kind


def _lowered(match: re.Match[str]) -> str:
    word = match.group()
    lower = word.lower()
    # Some letters become two, which would move what follows; an acronym means something else.
    if len(lower) != len(word) or (len(word) > 1 and word.isupper()):
        return word
    return lower


def _change_spaces(text: str, _spared: frozenset[str], rng: random.Random) -> tuple[str, str]:
    """Some doubled spaces, and now and then a space or an empty line at the end."""
    gaps = [
        start + match.start()
        for start, end in free_spans(text)
        for match in re.finditer(r"(?<=\S) (?=\S)", text[start:end])
    ]
    if not gaps:
        return text, ""
    chosen = rng.sample(gaps, max(1, round(SPACE_RATE * len(gaps))))
    for gap in sorted(chosen, reverse=True):
        text = text[:gap] + "  " + text[gap + 1 :]
    return text + rng.choice(("", "", " ", "\n")), f"{len(chosen)} doubled"


def _mistype(text: str, spared: frozenset[str], rng: random.Random) -> tuple[str, str]:
    """One word in twenty with a neighbouring key, or with two letters swapped."""
    places = [
        (start + match.start(), match.group())
        for start, end in free_spans(text)
        for match in _WORD.finditer(text[start:end])
    ]
    fit = [(place, word) for place, word in places if _may_mistype(word, spared)]
    if not fit:
        return text, ""
    chosen = rng.sample(fit, min(len(fit), max(1, round(TYPO_RATE * len(places)))))
    for place, word in chosen:  # the length stays, so places stay right
        text = text[:place] + _wrong(word, rng) + text[place + len(word) :]
    return text, f"{len(chosen)} words"


def _may_mistype(word: str, spared: frozenset[str]) -> bool:
    plain = word.isascii() and not word.isupper() and len(word) >= MIN_TYPO_LETTERS
    return plain and word.casefold() not in spared and not _NUMBER_WORD.fullmatch(word)


def _wrong(word: str, rng: random.Random) -> str:
    """The word with one error, not in its first letter, where people seldom err."""
    at = rng.randrange(1, len(word) - 1)
    if rng.random() < 0.5 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    near = _NEIGHBOURS.get(word[at].lower(), "e")
    return word[:at] + rng.choice(near) + word[at + 1 :]


# Each makes a `Change` of a row and random numbers.
case = partial(_edited, _change_case)
whitespace = partial(_edited, _change_spaces)
typos = partial(_edited, _mistype)
