"""Boilerplate: tokens of an answer that most training answers share.

A token is boilerplate where it ends a run of three tokens (the start of the answer counts) that
at least 30 % of the training answers hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sft.data.tokenize import IGNORE_INDEX, Example

SHARE = 0.3
_LENGTH = 3
_START = -1  # stands before the first token of an answer


def boilerplate(examples: Sequence[Example]) -> frozenset[tuple[int, ...]]:
    """The runs of tokens that at least 30 % of the answers of `examples` hold."""
    counts: Counter[tuple[int, ...]] = Counter()
    for example in examples:
        counts.update(set(_runs(example)))
    least = max(2.0, SHARE * len(examples))
    return frozenset(run for run, count in counts.items() if count >= least)


def surface_mask(example: Example, known: frozenset[tuple[int, ...]]) -> NDArray[np.bool_]:
    """Which of the supervised tokens are boilerplate, `[num_trained]`."""
    return np.array([run in known for run in _runs(example)], dtype=bool)


def _runs(example: Example) -> Iterator[tuple[int, ...]]:
    answer = example.labels[example.labels != IGNORE_INDEX].tolist()
    padded = [_START] * (_LENGTH - 1) + answer
    for end in range(_LENGTH, len(padded) + 1):
        yield tuple(padded[end - _LENGTH : end])
