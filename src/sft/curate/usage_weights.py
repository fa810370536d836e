"""How often each row is seen: its own weight, and how much it resembles the usage prompts.

DSIR (Xie et al. 2023, arXiv 2302.03169): words and word pairs of the prompts are hashed into
10,000 buckets; the log weight of a row is the sum, over its terms, of the log ratio of their
shares in usage and in the data. One is added to each count, where the paper's code adds 1e-8:
usage is small here, and a term that it lacks by chance must not decide.

Both `data.usage_weighting` and `sft curate --toward` ask this module. `docs/data.md` compares it
with a classifier on TF-IDF vectors, which it replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sft.curate.vectors import SEED, RowTerms, hashed_terms
from sft.data.repeats import Prompted, prompt_text
from sft.data.rows.conversation import Conversation, Origin
from sft.errors import ConfigError
from sft.texts.ngrams import mixed

BUCKETS = 10_000
CLIP = 10.0  # weights lie between 1/10 and 10 before they are scaled to a mean of 1
LEARN_ROWS = 50_000  # of the data, from which the odds are learned
_BLOCK = 4_000  # rows whose terms are in memory at a time

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


def importance(
    rows: Sequence[Conversation], prompts: Sequence[Prompted], by_usage: bool
) -> dict[Origin, float]:
    """The factor of each row, by its origin; empty where all rows count alike.

    It is `row_weight` of the row, times its likeness to `prompts` where `by_usage` is asked for.

    Raises:
        ConfigError: rows are to be weighted by usage, and there is none.
    """
    if by_usage and not prompts:
        raise ConfigError("data.usage_weighting: needs prompts to resemble; give --usage FILE")
    if not by_usage and all(row.weight == 1 for row in rows):
        return {}
    likeness = np.ones(len(rows))
    if by_usage:
        terms = hashed_terms([prompt_text(row) for row in rows])
        usage = hashed_terms([prompt_text(prompt) for prompt in prompts])
        likeness = usage_weights(terms, np.arange(len(rows)), usage)
    both = zip(rows, likeness.tolist(), strict=True)
    return {row.origin: row.weight * weight for row, weight in both}


def usage_weights(terms: RowTerms, rows: Rows, usage: RowTerms) -> Floats:
    """`[len(rows)]`, mean 1: how much more often each of `rows` would come in usage.

    Log weights of whole prompts are far too sure, since terms are not independent. A logistic
    regression of usage against data on that one number makes them odds that can be trusted; usage
    prompts are scored by the terms of the other half of usage. Weights cannot create topics that
    the data lack.
    """
    from sklearn.linear_model import LogisticRegression

    source = _counts(terms, rows)
    every = np.arange(len(usage.begins) - 1)
    scores = _scores(terms, rows, _log_ratio(_counts(usage, every), source))
    halves = (every[0::2], every[1::2])
    usage_scores = np.concatenate(
        [
            _scores(usage, own, _log_ratio(_counts(usage, other), source))
            for own, other in (halves, halves[::-1])
        ]
    )
    learn = np.random.default_rng(SEED).permutation(len(rows))[:LEARN_ROWS]
    both = np.concatenate([scores[learn], usage_scores])
    middle, spread = float(both.mean()), float(both.std()) or 1.0
    model = LogisticRegression(class_weight="balanced")
    sides = np.repeat([0, 1], [len(learn), len(usage_scores)])
    model.fit(((both - middle) / spread)[:, None], sides)
    log_odds = model.decision_function(((scores - middle) / spread)[:, None])
    weights = np.exp(np.clip(log_odds, -np.log(CLIP), np.log(CLIP)))
    return np.asarray(weights / weights.mean())


def log_weights(terms: RowTerms, rows: Rows, usage: RowTerms) -> Floats:
    """`[len(rows)]`: DSIR's log weight of each of `rows`, neither calibrated nor clipped."""
    every = np.arange(len(usage.begins) - 1)
    return _scores(terms, rows, _log_ratio(_counts(usage, every), _counts(terms, rows)))


def effective_rows(weights: Floats) -> float:
    """(sum w)^2 / sum w^2 (Kish): so many rows of equal weight would say as much."""
    return float(weights.sum() ** 2 / max((weights**2).sum(), 1e-300))


def _blocks(terms: RowTerms, rows: Rows) -> Iterator[tuple[Rows, Rows]]:
    """The buckets of all terms of a block of rows, end to end, and the number of each row."""
    for start in range(0, len(rows), _BLOCK):
        each = [terms.row(int(row)) for row in rows[start : start + _BLOCK]]
        flat = mixed(np.concatenate(each).astype(np.uint64)) % np.uint64(BUCKETS)
        yield flat.astype(np.int64), np.array([len(one) for one in each])


def _counts(terms: RowTerms, rows: Rows) -> Rows:
    counts = np.zeros(BUCKETS, dtype=np.int64)
    for buckets, _ in _blocks(terms, rows):
        counts += np.bincount(buckets, minlength=BUCKETS)
    return counts


def _log_ratio(usage: Rows, source: Rows) -> Floats:
    shares = [np.log((counts + 1) / (counts.sum() + BUCKETS)) for counts in (usage, source)]
    return np.asarray(shares[0] - shares[1])


def _scores(terms: RowTerms, rows: Rows, ratio: Floats) -> Floats:
    """The sum of `ratio` over the terms of each of `rows`."""
    scores: list[Floats] = [np.zeros(0)]
    for buckets, lengths in _blocks(terms, rows):
        row = np.repeat(np.arange(len(lengths)), lengths)
        sums = np.bincount(row, weights=ratio[buckets], minlength=len(lengths))
        scores.append(sums.astype(np.float64))
    return np.concatenate(scores)
