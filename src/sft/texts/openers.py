"""How answers begin, and how alike they are on the surface: openers, compression, word pairs.

An opener is what an answer says before it says anything: the words before its first mark ("Sure!",
"I'm sorry, but"), or else its first three words. Words are found by Unicode's rules, so
that it is the same in every script; one that is written without spaces has a word a character.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import regex

from sft.texts.near_duplicates import words

SEED = 0
NUM_WORDS, MAX_WORDS = 3, 6  # of an opener that no mark ends, and of one that a mark ends
HEAD = 200  # characters of an answer, which hold any opener
# Length-matched samples: so many answers, cut to so many words (guards: 2.2 on Alpaca).
SAMPLE_SIZE, SAMPLE_WORDS = 64, 60
# A phrase of 8 words holds one of 4, so looking for 4 finds all templates of 4 to 8.
PHRASE_WORDS = 4
TEMPLATE_SHARE, TEMPLATE_MIN = 0.10, 3
MAX_ANSWERS = 5_000  # that phrases are counted in

# Words by Unicode's boundaries (UAX 29): "I'm" and "3.5" are one, each character of 好的 is one.
_WORD = regex.compile(r"(?w)\w(?:\B.)*", regex.V1)
# What may stand between an opener and the rest: marks of any script, dashes, a new line.
_MARK = regex.compile(r"\s*(?:[\p{Terminal_Punctuation}\u2026\u2013\u2014]|-(?=\s)|\n)[^\w\s]*\s*")
_COLONS = ":\uff1a"
_CONJUNCTION = regex.compile(r"(?:but|and|so|aber|mais|pero|però|mas)\s+(?=\w)", regex.I)

# What a chat model says before it answers; reported, and taken off, when few answers share it.
FILLERS = frozenset(
    (
        *("sure", "sure thing", "certainly", "absolutely", "definitely", "okay", "ok", "alright"),
        *("of course", "great question", "good question", "great", "no problem", "i understand"),
        *("i'd be happy to help", "i'd be glad to help", "happy to help", "i can help with that"),
        *("of course i can help you with that", "thank you for your question"),
        *("gerne", "natürlich", "bien sûr", "claro", "por supuesto", "certo", "конечно"),
        *("好的", "当然", "当然可以", "没问题", "もちろん", "承知しました", "わかりました"),
        *("물론입니다", "물론이죠", "แน่นอน", "ได้เลย", "بالتأكيد", "ज़रूर"),
    )
)
# Words that lead to what follows without a mark: "Here is a list" goes on as "A list".
LEAD_INS = frozenset(
    (
        *("here is", "here are", "here's", "hier ist", "hier sind", "voici", "aquí está"),
        *("aquí tienes", "ecco"),
    )
)
# These are answers, however often they begin one.
CONTENT = frozenset(
    (
        *("yes", "no", "true", "false", "ja", "nein", "oui", "non", "sí", "si", "não", "sim"),
        *(
            "да",
            "нет",
            "是",
            "是的",
            "不是",
            "否",
            "对",
            "不",
            "はい",
            "いいえ",
            "네",
            "예",
            "아니요",
        ),
        *("ใช่", "ไม่", "نعم", "لا", "हाँ", "नहीं"),
    )
)


@dataclass(frozen=True, slots=True)
class Opener:
    """How an answer begins: `phrase` is what openers are counted by.

    `clause` are the words up to the first mark where those are no more than six, and `rest` the
    answer without them, which begins properly; both are empty where the opener cannot be taken off.
    """

    phrase: str
    clause: str = ""
    rest: str = ""


def opener(answer: str) -> str:
    """The opener of an answer in lower case: "sure", "i'm sorry but", "好的", '{"name'.

    An answer without words begins with its first character, an empty one with nothing.
    """
    return read_opener(answer).phrase


def read_opener(answer: str) -> Opener:
    """The opener of an answer, and what is left without it."""
    text = answer.lstrip()
    head = text[:HEAD]
    found = list(islice(_WORD.finditer(head), 2 * MAX_WORDS))
    if not found:
        return Opener(head[:1])
    if found[0].start() > 0:  # JSON, code, a list
        return Opener(head[: found[0].end()].lower())
    plain = Opener(_joined(head, found[:NUM_WORDS]))
    if not found[0].group()[0].isalpha():
        return plain
    for count, match in enumerate(found, start=1):
        phrase = _joined(head, found[:count])
        mark = _MARK.match(head, match.end())
        if mark and not _abbreviated(match.group(), mark.group()):
            return _marked(text, phrase, mark) or plain
        if phrase in LEAD_INS and (rest := _proper(text[match.end() :].lstrip())):
            return Opener(plain.phrase, phrase, rest)
    return plain


def _abbreviated(word: str, mark: str) -> bool:
    """Whether a mark is part of the word before it, as in "e.g." and "f(x,y)"."""
    return "." in word or (len(word) == 1 and word.isascii()) or mark[-1:] in ".,:"


def _marked(text: str, phrase: str, mark: regex.Match[str]) -> Opener | None:
    """The opener that a mark ends; None where the words before it are part of the answer."""
    if _size(phrase) > MAX_WORDS or phrase in CONTENT:
        return None
    if mark.group().strip()[:1] in _COLONS and _size(phrase) <= 2 and phrase not in FILLERS:
        return None  # a field: "Answer: 5"
    end = mark.end()
    if "," in mark.group() and (word := _CONJUNCTION.match(text, end)):
        phrase, end = f"{phrase} {word.group().strip().lower()}", word.end()
    rest = _proper(text[end:])
    if not rest:
        return None  # the opener is the whole answer
    short = _size(phrase) <= NUM_WORDS
    return Opener(phrase if short else " ".join(phrase.split()[:NUM_WORDS]), phrase, rest)


def _size(phrase: str) -> float:
    """The number of words; two characters count as one where words have no spaces."""
    return sum(
        1 if part.isascii() or len(_WORD.findall(part)) == 1 else len(_WORD.findall(part)) / 2
        for part in phrase.split()
    )


def _joined(head: str, found: Sequence[regex.Match[str]]) -> str:
    """Words with a space between those that do not touch; case and kind of apostrophe apart."""
    parts = [found[0].group()]
    for before, match in pairwise(found):
        parts.append("" if before.end() == match.start() else " ")
        parts.append(match.group())
    return "".join(parts).lower().replace("\u2019", "'")


def _proper(text: str) -> str:
    """`text` with a capital first letter, unless it begins with a single letter, as a formula may;

    empty where it has no word.
    """
    word = _WORD.search(text)
    if not word:
        return ""
    one_letter = len(word.group()) == 1 and word.group() not in "ai"
    return text if word.start() or one_letter else text[0].upper() + text[1:]


def top_opener(answers: Sequence[str]) -> tuple[str, int]:
    """The most frequent opener and how many answers have it; of equals the first in the alphabet.

    Empty answers have none.
    """
    counts = Counter(filter(None, map(opener, answers)))
    return min(counts.items(), key=lambda item: (-item[1], item[0]), default=("", 0))


def compression_ratio(answers: Sequence[str]) -> float | None:
    """Bytes over gzipped bytes of all texts; high where they repeat (arXiv 2403.00553).

    None without any text.
    """
    data = "\n".join(answers).encode("utf-8", "surrogatepass")
    return len(data) / len(gzip.compress(data, mtime=0)) if data else None


def distinct_pairs(answers: Sequence[str]) -> float | None:
    """Different word pairs over all word pairs (arXiv 1510.03055); None when there are none."""
    pairs = [pair for answer in answers for pair in runs_of(words(answer), 2)]
    return len(set(pairs)) / len(pairs) if pairs else None


def runs_of(parts: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """All runs of `length` words, in order."""
    return [tuple(parts[i : i + length]) for i in range(len(parts) - length + 1)]


def surface(answers: Sequence[str], reference: Sequence[str] = ()) -> dict[str, Any]:
    """The `answers` part of `preflight.json`; `reference` are answers to usage prompts.

    `opener_count` of `n` answers begin with `opener`, the most frequent one. Compression and
    distinct pairs (`distinct_2`) depend on length and number, so that they are taken on samples of
    equal size with the reference. `template_rate` is the share of answers with a phrase of 4 to 8
    words that more than a tenth of them have, and three at least. Values are None when nothing can
    be told.
    """
    sides = [list(filter(None, answers)), list(filter(None, reference))]
    size, length = _matched([side for side in sides if side])
    described = [_describe(side, size, length) if side else None for side in sides]
    return (described[0] or _describe([], 0, 0)) | {"reference": described[1]}


def _matched(sides: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Number of answers and number of words that all sides can be sampled to."""
    lengths = [int(np.median([len(answer.split()) for answer in side])) for side in sides]
    sizes = [len(side) for side in sides]
    return min([SAMPLE_SIZE, *sizes]), max(1, min([SAMPLE_WORDS, *lengths]))


def _describe(answers: Sequence[str], size: int, length: int) -> dict[str, Any]:
    first, count = top_opener(answers)
    sample = [" ".join(answer.split()[:length]) for answer in _sample(answers, size)]
    return {
        "n": len(answers),
        "opener": first,
        "opener_count": count,
        "compression_ratio": compression_ratio(sample),
        "distinct_2": distinct_pairs(sample),
        "template_rate": _template_rate(_sample(answers, MAX_ANSWERS)),
    }


def _sample(answers: Sequence[str], size: int) -> list[str]:
    """`size` of the answers by chance, the same whatever their order."""
    ordered = sorted(answers)
    chosen = np.random.default_rng(SEED).permutation(len(ordered))[:size]
    return [ordered[i] for i in sorted(chosen)]


def _template_rate(answers: Sequence[str]) -> float | None:
    if not answers:
        return None
    phrases = [set(runs_of(words(answer), PHRASE_WORDS)) for answer in answers]
    counts = Counter(phrase for own in phrases for phrase in own)
    least = max(TEMPLATE_MIN, int(TEMPLATE_SHARE * len(answers)) + 1)
    common = {phrase for phrase, count in counts.items() if count >= least}
    return sum(not common.isdisjoint(own) for own in phrases) / len(answers)
