"""The probe pack: which examples are scored at every evaluation, fixed before the first step.

train_probe  training rows                       is it learning them by heart?
val          held-out rows                       does it learn the task?
usage        the user's prompts with answers     does that help where it is used?
usage_drift  prompts without answers, against the base model's own greedy answer
retain       the base model's texts, and the user's   what does it forget?
test         rows that decide nothing            scored on the base and the final model
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sft.data.tokenize import IGNORE_INDEX, Example
from sft.probes.retention import SAMPLE_TOKENS

# Rows a probe has at least, and at most, where there are so many.
FEWEST, MOST = 10, 32  # ten is the least that can alarm at six evaluations
FEWEST_TRAIN = 8  # which way the training rows go is plain to see
MOST_USAGE = 64
FEWEST_VAL = 32
# Scoring a token costs a third of training on it: no backward pass.
SCORING_COST = 3
# Boilerplate are tokens of an answer that most training answers share: each ends a run of three
# tokens (the start of the answer counts) that at least 30 % of the training answers hold.
_SHARE = 0.3
_RUN = 3
_START = -1  # stands before the first token of an answer


@dataclass(frozen=True, slots=True)
class Probe:
    """The examples of one probe.

    `surface` marks the boilerplate of each, where it is told apart; without `openings` the first
    tokens are not looked at.
    """

    name: str
    examples: list[Example]
    surface: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    openings: bool = True

    @property
    def num_tokens(self) -> int:
        """Tokens that one evaluation at this probe reads."""
        return sum(example.num_tokens for example in self.examples)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows of each probe."""

    val: int
    train_probe: int
    usage: int
    drift: int
    retain: int


def choose_sizes(
    train: Sequence[Example],
    val: Sequence[Example],
    usage: Sequence[Example],
    drift: Sequence[int] = (),
    *,
    trained_tokens: float,
    budget: float,
    num_evals: int,
) -> Sizes:
    """Rows per probe, so that `num_evals` evaluations and the one before training fit into
    `budget`.

    `drift` has the tokens of each prompt without an answer, with what is scored after it;
    `trained_tokens` are those of the whole run. Validation comes first; what is left is shared.
    No probe gets fewer than 10 rows (`train_probe`: 8), so a very short run can take more than
    its budget: the share is measured and reported.
    """
    allowed = budget * SCORING_COST * trained_tokens / (num_evals + 1)
    tokens = [[example.num_tokens for example in part] for part in (train, val, usage)]
    num_val = _fit(tokens[1], 0.5 * allowed, FEWEST_VAL, len(val))
    left = allowed - num_val * _mean(tokens[1])
    prompts = 0.45 * left / max(1, len(usage) + len(drift))  # for each of the user's
    return Sizes(
        val=num_val,
        train_probe=_fit(tokens[0], 0.25 * left, FEWEST_TRAIN, MOST),
        usage=_fit(tokens[2], prompts * len(usage), FEWEST, MOST_USAGE),
        drift=_fit(drift, prompts * len(drift), FEWEST, MOST_USAGE),
        retain=int(min(MOST, max(FEWEST, 0.3 * left / SAMPLE_TOKENS))),
    )


def _fit(lengths: Sequence[int], tokens: float, fewest: int, most: int) -> int:
    if not lengths:
        return 0
    return min(len(lengths), max(fewest, min(most, int(tokens / _mean(lengths)))))


def _mean(lengths: Sequence[int]) -> float:
    return sum(lengths) / len(lengths) if lengths else 0.0


def choose(examples: Sequence[Example], num: int, purpose: str) -> list[Example]:
    """`num` of `examples`, in their order; which ones does not depend on that order."""

    def draw(example: Example) -> bytes:
        return hashlib.sha256(f"{purpose}|{example.id}".encode()).digest()

    chosen = {id(example) for example in sorted(examples, key=draw)[:num]}
    return [example for example in examples if id(example) in chosen]


def val_probe(train: Sequence[Example], val: Sequence[Example], num: int) -> Probe:
    """`val`, with the boilerplate of the training answers marked."""
    chosen = choose(val, num, "val")
    known = boilerplate(train)
    return Probe("val", chosen, {example.id: surface_mask(example, known) for example in chosen})


def boilerplate(examples: Sequence[Example]) -> frozenset[tuple[int, ...]]:
    """The runs of tokens that at least 30 % of the answers of `examples` hold."""
    counts: Counter[tuple[int, ...]] = Counter()
    for example in examples:
        counts.update(set(_runs(example)))
    least = max(2.0, _SHARE * len(examples))
    return frozenset(run for run, count in counts.items() if count >= least)


def surface_mask(example: Example, known: frozenset[tuple[int, ...]]) -> NDArray[np.bool_]:
    """Which of the supervised tokens are boilerplate, `[num_trained]`."""
    return np.array([run in known for run in _runs(example)], dtype=bool)


def _runs(example: Example) -> Iterator[tuple[int, ...]]:
    answer = example.labels[example.labels != IGNORE_INDEX].tolist()
    padded = [_START] * (_RUN - 1) + answer
    for end in range(_RUN, len(padded) + 1):
        yield tuple(padded[end - _RUN : end])
