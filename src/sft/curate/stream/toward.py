"""Rows that resemble usage prompts: importance weights from hashed n-grams.

DSIR (Xie et al. 2023, arXiv 2302.03169): words and word pairs of the prompts are hashed into
10,000 buckets; the log weight of a row is the sum, over its n-grams, of the log ratio of their
shares in usage and in the data. One is added to each count, where the paper's code adds 1e-8:
usage is small here, and an n-gram it lacks by chance must not decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sft.config import SourceConfig
from sft.curate.stream.decision import Decision, Mask, Rows
from sft.curate.stream.ngrams import mixed, word_hashes
from sft.curate.stream.store import Store
from sft.curate.stream.vectors import term_blocks
from sft.curate.texts import prompt_text
from sft.curate.vectors import words_and_pairs
from sft.data.rows.prompts import read_prompts
from sft.errors import ConfigError

BUCKETS = 10_000
MIN_USAGE = 8
CLIP = 10.0
_LEARN_ROWS = 50_000

Terms = Sequence[NDArray[np.uint32]]


def read_usage(path: str) -> list[NDArray[np.uint32]]:
    """The hashed terms of each usage prompt.

    Raises:
        ConfigError: there are fewer than `MIN_USAGE`.
    """
    prompts = read_prompts([SourceConfig.model_validate(path)]).prompts
    texts = [prompt_text(prompt.conversation) for prompt in prompts]
    if len(texts) < MIN_USAGE:
        raise ConfigError(f"--toward {path}: {len(texts)} prompts; {MIN_USAGE} are the least")
    flat, starts = word_hashes([words_and_pairs(text) for text in texts])
    terms = (flat >> np.uint64(32)).astype(np.uint32)
    return np.split(terms, starts[1:-1])


def draw(store: Store, alive: Mask, usage: Terms, k: int, seed: int) -> Decision:
    """Keep `k` rows, drawn by their weights without replacement (Gumbel top-k).

    `value` is a row's log weight. Note `effective` is (sum w)^2 / sum w^2 (Kish): so many rows
    of equal weight would say as much.
    """
    rows = np.flatnonzero(alive)
    counts = _source_counts(store, rows)
    weights = _scores(store, rows, _log_ratio(_counts(usage), counts))
    found = np.exp(weights - weights.max(initial=-np.inf))
    notes = {"effective": _effective(found)}
    if k >= len(rows):
        return Decision.of([], notes=notes)
    drawn = weights + np.random.default_rng(seed).gumbel(size=len(rows))
    gone = np.sort(np.argsort(-drawn, kind="stable")[k:])
    return Decision.of(rows[gone], value=weights[gone], notes=notes)


def weigh(store: Store, alive: Mask, usage: Terms, seed: int) -> tuple[NDArray[np.float64], float]:
    """`[all rows]` weights, of mean 1 over the rows alive and 0 for the others; effective size.

    Log weights of whole prompts are far too sure, since n-grams are not independent. A logistic
    regression of usage against data on that one number makes them odds that can be trusted; usage
    prompts are scored by the n-grams of the other half of usage. Odds are clipped to 1/10 and 10.
    """
    from sklearn.linear_model import LogisticRegression

    rows = np.flatnonzero(alive)
    source = _source_counts(store, rows)
    scores = _scores(store, rows, _log_ratio(_counts(usage), source))
    halves = [usage[0::2], usage[1::2]]
    seen = np.concatenate(
        [
            _sums(own, _log_ratio(_counts(other), source))
            for own, other in (halves, reversed(halves))
        ]
    )
    learn = np.random.default_rng(seed).permutation(len(rows))[:_LEARN_ROWS]
    both = np.concatenate([scores[learn], seen])
    middle, spread = float(both.mean()), float(both.std()) or 1.0
    model = LogisticRegression(class_weight="balanced")
    sides = np.repeat([0, 1], [len(learn), len(seen)])
    model.fit(((both - middle) / spread)[:, None], sides)
    odds = model.decision_function(((scores - middle) / spread)[:, None])
    found = np.exp(np.clip(odds, -np.log(CLIP), np.log(CLIP)))
    weights = np.zeros(len(alive))
    weights[rows] = found / found.mean()
    return weights, _effective(found)


def _effective(weights: NDArray[np.float64]) -> float:
    return float(weights.sum() ** 2 / max((weights**2).sum(), 1e-300))


def _buckets(terms: NDArray[np.uint32]) -> NDArray[np.int64]:
    return (mixed(terms.astype(np.uint64)) % np.uint64(BUCKETS)).astype(np.int64)


def _counts(rows: Terms) -> NDArray[np.int64]:
    flat = np.concatenate([*rows, np.zeros(0, np.uint32)])
    return np.bincount(_buckets(flat), minlength=BUCKETS)


def _source_counts(store: Store, rows: Rows) -> NDArray[np.int64]:
    found = np.zeros(BUCKETS, dtype=np.int64)
    for _, terms in term_blocks(store, rows):
        found += _counts(terms)
    return found


def _log_ratio(usage: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = [np.log((counts + 1) / (counts.sum() + BUCKETS)) for counts in (usage, source)]
    return np.asarray(shares[0] - shares[1])


def _scores(store: Store, rows: Rows, ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = [_sums(terms, ratio) for _, terms in term_blocks(store, rows)]
    return np.concatenate([*parts, np.zeros(0)])


def _sums(rows: Terms, ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = [len(row) for row in rows]
    owner = np.repeat(np.arange(len(rows)), lengths)
    flat = np.concatenate([*rows, np.zeros(0, np.uint32)])
    return np.asarray(
        np.bincount(owner, weights=ratio[_buckets(flat)], minlength=len(rows)), dtype=np.float64
    )
