"""Is a rewritten prompt still the same request, and a rewritten answer still the same answer?

These checks see what can be seen without understanding: numbers, quoted texts, code, length,
questions, words of the answer. Each gives the reason why a text is not used, or "".
"""

from __future__ import annotations

import json
import re
from typing import Any

from sft.augment.spans import kept_texts, numbers
from sft.augment.wrappers import kind_of

MAX_LONGER, MIN_SHORTER = 3.0, 0.4  # words, as a share of the original's
SLACK_WORDS = 8  # a short request may grow by so many
SHORT_WORDS = 5  # an answer of at most so many is a label
MIN_ROUGE_L = 0.4
_SAYS_ANSWER = 0.5  # share of the answer's own words, or of the new ones, that says the answer
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_PREFACE = re.compile(
    r"\W*(sure\b|certainly\b|of course\b|here(\s+is|\s+are|'s|\u2019s)\b|rewritten\b|rephrased\b"
    r"|paraphras|i('m| am) sorry|as an ai\b|the rewritten\b|rewrite\b.{0,40}:)",
    re.IGNORECASE,
)
_MARKS = "?\uff1f\u061f"
_REQUEST = re.compile(
    r"\b(please|pls|i need|i want|i('d| would) like|i am looking|i'm looking|help me|let me know"
    r"|let's|(your|the) task|request|should|must|kindly|show me|give me|tell me)\b",
    re.IGNORECASE,
)
_EVERYWHERE = frozenset(
    word
    for text in (
        "about also because been being both could does done down each even ever from have here",
        "into just know like many more most much must only other over same should some such than",
        "that their them then there these they this those very want well were what when where",
        "which while will with without would your please tell give make need",
    )
    for word in text.split()
)
_THOUGHTS = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


def words(text: str) -> list[str]:
    """Words in lower case; of scripts without spaces, characters."""
    return _WORD.findall(text.casefold())


def without_thoughts(text: str) -> str:
    """What a model wrote, without the reasoning before it."""
    return _THOUGHTS.sub("", text, count=1).strip()


def unquoted(text: str) -> str:
    """`text` without quotes around the whole of it."""
    for left, right in (('"', '"'), ("\u201c", "\u201d"), ("'", "'")):
        inner = text[1:-1]
        if text.startswith(left) and text.endswith(right) and len(text) > 2:
            return text if left in inner or right in inner else inner.strip()
    return text


def paraphrase_problem(original: str, new: str, answer: str) -> str:
    """Why `new` is not `original` in other words; `answer` is the row's answer."""
    if not new.strip():
        return "empty"
    if words(new) == words(original):
        return "the same words"
    if _PREFACE.match(new) and not _PREFACE.match(original):
        return "talks about the rewriting"
    return (
        _numbers(original, new)
        or _kept(original, new)
        or _length(original, new)
        or _request(original, new)
        or _says_answer(original, new, answer)
        or _shares_nothing(original, new)
    )


def _numbers(original: str, new: str) -> str:
    before, after = set(numbers(original)), set(numbers(new))
    if lost := sorted(before - after):
        return f"loses a number ({lost[0]})"
    if added := sorted(after - before):
        return f"adds a number ({added[0]})"
    return ""


def _kept(original: str, new: str) -> str:
    lost = any(text not in new for text in kept_texts(original))
    return "loses a quoted text, code, an address or a place to fill in" if lost else ""


def _length(original: str, new: str) -> str:
    before, after = len(words(original)), len(words(new))
    if after > max(MAX_LONGER * before, before + SLACK_WORDS):
        return f"more than {MAX_LONGER:g} times as long"
    if after < MIN_SHORTER * before:
        return f"less than {MIN_SHORTER:g} times as long"
    return ""


def _request(original: str, new: str) -> str:
    """A question stays one, and an order is not turned into what was ordered."""
    asked = any(mark in original for mark in _MARKS)
    if asked and not any(mark in new for mark in _MARKS):
        return "no question any more"
    if kind_of(original) != "imperative" or kind_of(new) != "statement":
        return ""
    return "" if _REQUEST.search(new) else "no request any more"


def _says_answer(original: str, new: str, answer: str) -> str:
    """What the new wording adds must not be what only the answer says."""
    before, after = _telling(original), _telling(new)
    own = _telling(answer) - before
    revealed, added = own & after, after - before
    much = len(revealed) > _SAYS_ANSWER * len(own) or len(revealed) >= _SAYS_ANSWER * len(added)
    return "answers instead of asking" if revealed and much else ""


def _telling(text: str) -> set[str]:
    """The longer words of a text, without those that every text has."""
    return {word for word in words(text) if len(word) > 3} - _EVERYWHERE


def _shares_nothing(original: str, new: str) -> str:
    before = {word for word in words(original) if len(word) > 3}
    if len(before) < 3 or before & set(words(new)):
        return ""
    return "shares no longer word with the original"


def answer_problem(reference: str, new: str) -> str:
    """Why `new` does not say what `reference` says."""
    if not new.strip():
        return "empty"
    if new.strip() == reference.strip():
        return "the same answer"
    wanted = _object(reference)
    if wanted is not None:
        return _other_object(wanted, _object(new))
    if set(numbers(reference)) != set(numbers(new)):
        return "other numbers than the reference"
    if len(words(reference)) <= SHORT_WORDS:
        return _other_label(words(reference), words(new))
    if rouge_l(new, reference) >= MIN_ROUGE_L:
        return ""
    return f"ROUGE-L with the reference below {MIN_ROUGE_L:g}"


def _other_label(reference: list[str], new: list[str]) -> str:
    """A label must be in the answer, word for word, with at most as many words around it."""
    size = len(reference)
    places = range(len(new) - size + 1)
    inside = any(new[i : i + size] == reference for i in places)
    return "" if inside and len(new) <= 2 * size + SLACK_WORDS else "another label"


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _other_object(wanted: dict[str, Any], given: dict[str, Any] | None) -> str:
    if given is None:
        return "no JSON object"
    if wanted.keys() != given.keys():
        return "other JSON keys"
    for key, value in wanted.items():
        long = isinstance(value, str) and len(words(value)) > SHORT_WORDS
        if long and isinstance(given[key], str) and rouge_l(given[key], value) >= MIN_ROUGE_L:
            continue
        if given[key] != value or type(given[key]) is not type(value):
            return "another value in the JSON object"
    return ""


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004); of the first 600 words each."""
    a, b = words(text)[:600], words(reference)[:600]
    if not a or not b:
        return 0.0
    lengths = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for j, other in enumerate(b, start=1):
            above = lengths[j]
            lengths[j] = before + 1 if word == other else max(above, lengths[j - 1])
            before = above
    return 2 * lengths[-1] / (len(a) + len(b))
