"""How alike answers are on the surface: how they begin, how well they compress, shared phrases."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

SEED = 0
OPENER_WORDS = 3
# Length-matched samples: so many answers, cut to so many words (guards: 2.2 on Alpaca).
SAMPLE_SIZE, SAMPLE_WORDS = 64, 60
# A phrase of 8 words holds one of 4, so looking for 4 finds all templates of 4 to 8.
PHRASE_WORDS = 4
TEMPLATE_SHARE, TEMPLATE_MIN = 0.10, 3
MAX_ANSWERS = 5_000  # that phrases are counted in

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def opener(answer: str, num_words: int = OPENER_WORDS) -> str:
    """The first words of an answer in lower case and without punctuation: "sure here is".

    An answer without words begins with its first character, an empty one with nothing.
    """
    found = [match.group() for match in islice(_WORD.finditer(answer), num_words)]
    return " ".join(found).lower() or answer.strip()[:1]


def surface(answers: Sequence[str], reference: Sequence[str] = ()) -> dict[str, Any]:
    """The `answers` part of `preflight.json`; `reference` are answers to usage prompts.

    `opener_count` of `n` answers begin with `opener`, the most frequent three words.
    `compression_ratio` (bytes by gzipped bytes, Shaib et al. 2403.00553) and `distinct_2` (share
    of different word pairs, Li et al. 1510.03055) depend on length and number, so that they are
    taken on samples of equal size with the reference. `template_rate` is the share of answers
    with a phrase of 4 to 8 words that more than a tenth of them have, and three at least.
    Values are None when nothing can be told.
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
    openers = Counter(opener(answer) for answer in answers)
    # Of equally frequent openers the first in the alphabet, whatever the order of the rows.
    first, count = min(openers.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
    sample = [" ".join(answer.split()[:length]) for answer in _sample(answers, size)]
    return {
        "n": len(answers),
        "opener": first,
        "opener_count": count,
        "compression_ratio": _compression_ratio(sample),
        "distinct_2": _distinct_pairs(sample),
        "template_rate": _template_rate(_sample(answers, MAX_ANSWERS)),
    }


def _sample(answers: Sequence[str], size: int) -> list[str]:
    """`size` of the answers by chance, the same whatever their order."""
    ordered = sorted(answers)
    chosen = np.random.default_rng(SEED).permutation(len(ordered))[:size]
    return [ordered[i] for i in sorted(chosen)]


def _compression_ratio(sample: Sequence[str]) -> float | None:
    data = "\n".join(sample).encode("utf-8", "surrogatepass")
    return len(data) / len(gzip.compress(data, mtime=0)) if data else None


def _distinct_pairs(sample: Sequence[str]) -> float | None:
    pairs = [pair for answer in sample for pair in zip(*_shifted(answer, 2), strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else None


def _template_rate(answers: Sequence[str]) -> float | None:
    if not answers:
        return None
    phrases = [set(zip(*_shifted(answer, PHRASE_WORDS), strict=False)) for answer in answers]
    counts = Counter(phrase for found in phrases for phrase in found)
    least = max(TEMPLATE_MIN, int(TEMPLATE_SHARE * len(answers)) + 1)
    common = {phrase for phrase, count in counts.items() if count >= least}
    return sum(not common.isdisjoint(found) for found in phrases) / len(answers)


def _shifted(answer: str, count: int) -> list[list[str]]:
    """The words of an answer from the first on, from the second on, and so forth."""
    found = [word.lower() for word in _WORD.findall(answer)]
    return [found[start:] for start in range(count)]
