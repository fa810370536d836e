"""Steps that compare prompts: `--balance`, `--select` and `--toward`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sft.config import SourceConfig
from sft.curate.diverse_rows import DIMENSIONS, Vectors, most_different, prompt_clusters
from sft.curate.stream.feature_pass import Progress
from sft.curate.stream.row_changes import Mask, RowChanges
from sft.curate.stream.store import Lists, Store
from sft.curate.usage_weights import effective_rows, log_weights, usage_weights
from sft.curate.vectors import HashedTerms, hashed_terms
from sft.data.repeats import prompt_text
from sft.data.rows.prompts import read_prompts
from sft.errors import ConfigError


def read_usage(path: str) -> HashedTerms:
    """The hashed terms of each usage prompt.

    Raises:
        ConfigError: there is none.
    """
    prompts = read_prompts([SourceConfig.model_validate(path)]).prompts
    if not prompts:
        raise ConfigError(f"--toward {path}: holds no prompts")
    return hashed_terms([prompt_text(prompt.conversation) for prompt in prompts])


def draw(store: Store, alive: Mask, usage: HashedTerms, k: int, seed: int) -> RowChanges:
    """Keep `k` rows, drawn by their weights without replacement (Gumbel top-k).

    `value` is a row's log weight, and note `effective` so many rows as the weights are worth.
    """
    rows = np.flatnonzero(alive)
    weights = log_weights(Lists(store, "terms", np.uint32), rows, usage)
    notes = {"effective": effective_rows(np.exp(weights - weights.max(initial=-np.inf)))}
    drawn = weights + np.random.default_rng(seed).gumbel(size=len(rows))
    dropped = np.sort(np.argsort(-drawn, kind="stable")[k:])
    return RowChanges(rows[dropped], value=weights[dropped], notes=notes)


def weigh(store: Store, alive: Mask, usage: HashedTerms) -> NDArray[np.float64]:
    """`[all rows]` weights, of mean 1 over the rows alive and 0 for the others."""
    rows = np.flatnonzero(alive)
    weights = np.zeros(len(alive))
    weights[rows] = usage_weights(Lists(store, "terms", np.uint32), rows, usage)
    return weights


def select_diverse(store: Store, alive: Mask, k: int, seed: int, progress: Progress) -> RowChanges:
    """Keep `k` rows whose prompts lie as far from each other as possible."""
    terms, order = Lists(store, "terms", np.uint32), store.load("order", ">u8")
    rows = np.flatnonzero(alive)
    chosen = most_different(terms, rows, order, k, seed, partial(_on_disk, store), progress)
    return RowChanges(np.setdiff1d(rows, chosen, assume_unique=True))


def balance(store: Store, alive: Mask, clusters: int, seed: int, progress: Progress) -> RowChanges:
    """Drop rows of large prompt clusters: none keeps more than its equal part of the rows.

    `kind` is the cluster of each dropped row and `value` its size.
    """
    rows = np.flatnonzero(alive)
    if clusters >= len(rows):
        return RowChanges(rows[:0])
    terms = Lists(store, "terms", np.uint32)
    labels = prompt_clusters(terms, rows, clusters, seed, partial(_on_disk, store), progress)
    order = np.lexsort((store.load("order", ">u8")[rows], labels))
    counts = np.bincount(labels, minlength=clusters)
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    cap = -(-len(rows) // clusters)
    beyond = np.sort(order[rank >= cap])
    return RowChanges(
        rows[beyond], kind=labels[beyond], value=counts[labels[beyond]], notes={"kept": cap}
    )


def _on_disk(store: Store, blocks: Iterator[Vectors]) -> Vectors:
    """Vectors end to end in the work folder, mapped: the system may give their memory back."""
    with store.writing() as append:
        for block in blocks:
            append({"projected": block.tobytes()})
    return np.memmap(store.path("projected"), np.float16, "r").reshape(-1, DIMENSIONS)
