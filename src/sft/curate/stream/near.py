"""Copies and near-duplicates among rows, band by band, with every pair checked exactly.

A cluster is what is linked by similarities of 0.8 or more, as in `sft.texts.near_duplicates`. Of
each cluster its first row is kept. Held in memory: some 60 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sft.curate.stream.feature_pass import Progress
from sft.curate.stream.features import BAND_NAMES
from sft.curate.stream.ngrams import NUM_HASHES, jaccard
from sft.curate.stream.step_result import Mask, Rows, StepResult
from sft.curate.stream.store import Lists, Mapped, Store

THRESHOLD = 0.8
# A row is compared with so many of those that share a band with it, as in `near_duplicates`.
NEIGHBOURS = 8
SLACK = 0.11  # three standard errors of a similarity of 0.8 that is estimated from 126 hashes
_PAIRS = 20_000  # whose signatures are compared at a time


def exact(store: Store, alive: Mask, _progress: Progress) -> StepResult:
    """Drop the rows that have the same messages as an earlier row, case and white space apart."""
    rows = np.flatnonzero(alive)
    keys = Mapped(store.path("key"), np.uint64, 2)
    first_half, second_half = keys.values[rows, 0], keys.values[rows, 1]
    keys.forget()
    order = np.lexsort((second_half, first_half))  # stable: the first row of each key comes first
    same = (first_half[order][1:] == first_half[order][:-1]) & (
        second_half[order][1:] == second_half[order][:-1]
    )
    begins = np.flatnonzero(np.concatenate([[True], ~same])) if len(rows) else np.zeros(0, int)
    sizes = np.diff(np.append(begins, len(rows)))
    first = np.empty(len(rows), dtype=np.int64)
    first[order] = np.repeat(order[begins], sizes)
    copies = np.flatnonzero(first != np.arange(len(rows)))
    return StepResult.of(rows[copies], other=rows[first[copies]])


def near(store: Store, alive: Mask, progress: Progress) -> StepResult:
    """Drop all rows of each cluster of near-duplicates but its first."""
    rows = np.flatnonzero(alive)
    roots = Roots(len(rows))
    signatures = Mapped(store.path("signature"), np.uint8, NUM_HASHES)
    runs = Lists(store, "runs", np.uint64)
    try:
        for band, _ in enumerate(BAND_NAMES):
            for pairs in _likely(store, rows, band, roots, signatures):
                _join(pairs, rows, runs, roots)
            signatures.forget()
            progress("comparing rows: band", band + 1, len(BAND_NAMES))
        root = roots.all()
        later = np.flatnonzero(root != np.arange(len(rows)))
        dropped, kept = rows[later], rows[root[later]]
        value = [jaccard(runs.row(a), runs.row(b)) for a, b in zip(dropped, kept, strict=True)]
    finally:
        runs.close()
    return StepResult.of(dropped, other=kept, value=value)


def _likely(
    store: Store, rows: Rows, band: int, roots: Roots, signatures: Mapped
) -> Iterator[NDArray[np.int64]]:
    """`[num_pairs, 2]`: places in `rows` that agree in the band and seem to be alike."""
    keys = store.load(BAND_NAMES[band], np.uint64)[rows]
    # Sorted by the next band too, so that of many rows with one key the most alike are neighbours.
    after = store.load(BAND_NAMES[(band + 1) % len(BAND_NAMES)], np.uint64)[rows]
    order = np.lexsort((after, keys))
    del after
    keys = keys[order]
    for distance in range(1, min(NEIGHBOURS, len(rows) - 1) + 1):
        at = np.flatnonzero(keys[distance:] == keys[:-distance])
        for part in np.array_split(at, len(at) // _PAIRS + 1):
            pairs = np.stack([order[part], order[part + distance]], axis=1)
            root = roots.all()
            pairs = pairs[root[pairs[:, 0]] != root[pairs[:, 1]]]
            if len(pairs):
                agree = np.count_nonzero(
                    signatures.values[rows[pairs[:, 0]]] == signatures.values[rows[pairs[:, 1]]],
                    axis=1,
                )
                best = np.argsort(-agree, kind="stable")
                yield pairs[best][agree[best] >= (THRESHOLD - SLACK) * NUM_HASHES]


def _join(pairs: NDArray[np.int64], rows: Rows, runs: Lists, roots: Roots) -> None:
    for i, j in pairs.tolist():
        if roots.find(i) != roots.find(j):
            alike = jaccard(runs.row(int(rows[i])), runs.row(int(rows[j])))
            if alike >= THRESHOLD:
                roots.join(i, j)


class Roots:
    """Disjoint sets of the numbers below `size`; the root of a set is its smallest number."""

    def __init__(self, size: int) -> None:
        self._parent = np.arange(size, dtype=np.int32)
        self._settled = True

    def find(self, i: int) -> int:
        """The root of the set of `i`."""
        parent = self._parent
        root = i
        while (above := int(parent[root])) != root:
            root = above
        while (above := int(parent[i])) != root:
            parent[i], i = root, above
        return root

    def join(self, i: int, j: int) -> None:
        """Make one set of the two that hold `i` and `j`."""
        low, high = sorted((self.find(i), self.find(j)))
        self._parent[high] = low
        self._settled = False

    def all(self) -> NDArray[np.int32]:
        """`[size]`: the root of each number."""
        while not self._settled:
            above = self._parent[self._parent]
            self._settled = bool((above == self._parent).all())
            self._parent = above
        return self._parent
