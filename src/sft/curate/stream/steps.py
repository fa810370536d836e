"""Steps that compare rows with each other, on the columns that pass 1 wrote.

Copies and near-duplicates, openers that too many answers share, and what prompts ask for. The rules
are those of `sft.texts.near_duplicates` and `sft.curate`, which training asks too; here at most
some 60 bytes a row are in memory.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sft.config import SourceConfig
from sft.curate.diverse_rows import DIMENSIONS, Progress, Vectors, most_different, prompt_clusters
from sft.curate.remedies import largest_cap, opener_plan
from sft.curate.stream.store import Lists, Mask, RowChanges, Rows, Store
from sft.curate.usage_weights import effective_rows, log_weights, usage_weights
from sft.curate.vectors import HashedTerms, hashed_terms
from sft.data.repeats import prompt_text
from sft.data.rows.prompts import read_prompts
from sft.errors import ConfigError
from sft.texts.near_duplicates import link
from sft.texts.ngrams import NUM_HASHES, Hashes, jaccard


def exact_duplicates(store: Store, alive: Mask) -> RowChanges:
    """Drop the rows that have the same messages as an earlier row, case and white space apart."""
    rows = np.flatnonzero(alive)
    keys = store.load("key", np.uint64).reshape(-1, 2)[rows]
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: the first row of each key comes first
    keys = keys[order]
    new = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))
    first = np.empty(len(rows), dtype=np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    copies = np.flatnonzero(first != np.arange(len(rows)))
    return RowChanges(rows[copies], other=rows[first[copies]])


def near_duplicates(store: Store, alive: Mask, progress: Progress) -> RowChanges:
    """Drop all rows of each cluster of near-duplicates but its first; see `sft.data.repeats`.

    Augmented rows may be like the rows they come from, and stay.
    """
    rows = np.flatnonzero(alive & ~store.load("augmented", bool))
    columns = _OnDisk(store, rows)
    root = link(columns, progress).all()
    later = np.flatnonzero(root != np.arange(len(rows)))
    value = [
        jaccard(columns.hashes("runs", a), columns.hashes("runs", b))
        for a, b in zip(later.tolist(), root[later].tolist(), strict=True)
    ]
    return RowChanges(rows[later], other=rows[root[later]], value=np.array(value))


class _OnDisk:
    """The columns of the rows that are left; numbers count within `rows`."""

    def __init__(self, store: Store, rows: Rows) -> None:
        self._store, self._rows = store, rows
        with store.path("signature").open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._signatures = np.frombuffer(self._map, dtype=np.uint8).reshape(-1, NUM_HASHES)
        self._lists = {name: Lists(store, name, np.uint64) for name in ("runs", "prompt", "answer")}

    def __len__(self) -> int:
        return len(self._rows)

    def numbers(self, name: str) -> Hashes:
        """Pages of signatures that were needed before are given back."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        column: Hashes = self._store.load(name, np.uint64)[self._rows]
        return column

    def signatures(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        values: NDArray[np.uint8] = self._signatures[self._rows[rows]]
        return values

    def hashes(self, name: str, row: int) -> Hashes:
        return self._lists[name].row(int(self._rows[row]))


def drop_openers(store: Store, alive: Mask, share: float) -> RowChanges:
    """Drop rows until no opener begins more than `share` of the answers left (`cap_openers`).

    `value` is the number of answers that begin alike, and the note `kept` how many of them stay.
    """
    rows = np.flatnonzero(alive)
    hashes = store.load("opener", np.uint64)[rows]
    rows, hashes = rows[hashes != 0], hashes[hashes != 0]
    _, groups, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    cap = largest_cap(counts.tolist(), share)
    beyond = _beyond(store, rows, groups, cap)
    return RowChanges(rows[beyond], value=counts[groups[beyond]], notes={"kept": cap})


def strip_openers(store: Store, alive: Mask, share: float, progress: Progress) -> RowChanges:
    """Which openers are taken off which rows: `kind` is the number of one of the `phrases`."""
    heads = Lists(store, "heads", np.uint8)
    rows = np.flatnonzero(alive & (np.diff(heads.begins) > 0))

    def read(indices: Sequence[int]) -> Iterator[str]:
        for i in indices:
            yield heads.row(int(rows[i])).tobytes().decode("utf-8", "surrogatepass")

    order = store.load("order", ">u8")[rows]
    kinds, openers = opener_plan(read, order, math.floor(share * len(rows)), progress)
    edited = np.flatnonzero(kinds)
    notes = {"phrases": [list(taken) for taken in openers]}
    return RowChanges(rows[edited], kind=kinds[edited], notes=notes)


def balance(store: Store, alive: Mask, clusters: int, seed: int, progress: Progress) -> RowChanges:
    """Drop rows of large prompt clusters: none keeps more than its equal part of the rows.

    `kind` is the cluster of each dropped row and `value` its size.
    """
    rows = np.flatnonzero(alive)
    if clusters >= len(rows):
        return RowChanges(rows[:0])
    terms = Lists(store, "terms", np.uint32)
    labels = prompt_clusters(terms, rows, clusters, seed, partial(_on_disk, store), progress)
    cap = -(-len(rows) // clusters)
    beyond = _beyond(store, rows, labels, cap)
    sizes = np.bincount(labels)[labels[beyond]]
    return RowChanges(rows[beyond], kind=labels[beyond], value=sizes, notes={"kept": cap})


def _beyond(store: Store, rows: Rows, groups: NDArray[np.integer], cap: int) -> Rows:
    """Places in `rows` of those that come after the first `cap` of their group, by chance."""
    order = np.lexsort((store.load("order", ">u8")[rows], groups))
    counts = np.bincount(groups)
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank >= cap])


def select_diverse(store: Store, alive: Mask, k: int, seed: int, progress: Progress) -> RowChanges:
    """Keep `k` rows whose prompts lie as far from each other as possible."""
    terms, order = Lists(store, "terms", np.uint32), store.load("order", ">u8")
    rows = np.flatnonzero(alive)
    chosen = most_different(terms, rows, order, k, seed, partial(_on_disk, store), progress)
    return RowChanges(np.setdiff1d(rows, chosen, assume_unique=True))


def _on_disk(store: Store, blocks: Iterator[Vectors]) -> Vectors:
    """Vectors end to end in the work folder, mapped: the system may give their memory back."""
    with store.writing() as append:
        for block in blocks:
            append({"projected": block.tobytes()})
    return np.memmap(store.path("projected"), np.float16, "r").reshape(-1, DIMENSIONS)


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


def read_usage(path: str) -> HashedTerms:
    """The hashed terms of each usage prompt.

    Raises:
        ConfigError: there is none.
    """
    prompts = read_prompts([SourceConfig.model_validate(path)]).conversations
    if not prompts:
        raise ConfigError(f"--toward {path}: holds no prompts")
    return hashed_terms([prompt_text(prompt) for prompt in prompts])
