"""Copies and near-duplicates among rows whose columns are on disk.

A cluster is what `sft.texts.near_duplicates` says; of each its first row is kept. Held in memory:
some 60 bytes a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sft.curate.stream.feature_pass import Progress
from sft.curate.stream.features import BAND_NAMES
from sft.curate.stream.row_changes import Mask, RowChanges, Rows
from sft.curate.stream.store import Lists, Mapped, Store
from sft.texts.near_duplicates import link
from sft.texts.ngrams import NUM_HASHES, Hashes, jaccard


def exact(store: Store, alive: Mask, _progress: Progress) -> RowChanges:
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
    return RowChanges(rows[copies], other=rows[first[copies]])


def near(store: Store, alive: Mask, progress: Progress) -> RowChanges:
    """Drop all rows of each cluster of near-duplicates but its first; see `sft.data.repeats`.

    Augmented rows may be like the rows they come from, and stay.
    """
    rows = np.flatnonzero(alive & ~store.load("augmented", bool))
    columns = _OnDisk(store, rows)
    try:
        root = link(columns, progress).all()
        later = np.flatnonzero(root != np.arange(len(rows)))
        value = [
            jaccard(columns.runs(a), columns.runs(b))
            for a, b in zip(later.tolist(), root[later].tolist(), strict=True)
        ]
    finally:
        columns.close()
    return RowChanges(rows[later], other=rows[root[later]], value=np.array(value))


class _OnDisk:
    """The columns of the rows that are left; numbers count within `rows`."""

    def __init__(self, store: Store, rows: Rows) -> None:
        self._store, self._rows = store, rows
        self._signatures = Mapped(store.path("signature"), np.uint8, NUM_HASHES)
        self._runs = Lists(store, "runs", np.uint64)
        self._words = {side: Lists(store, side, np.uint64) for side in ("prompt", "answer")}

    def __len__(self) -> int:
        return len(self._rows)

    def band(self, number: int) -> Hashes:
        """Pages of signatures that the band before needed are given back."""
        self._signatures.forget()
        return self._column(BAND_NAMES[number])

    def signatures(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        values: NDArray[np.uint8] = self._signatures.values[self._rows[rows]]
        return values

    def runs(self, row: int) -> Hashes:
        return self._runs.row(int(self._rows[row]))

    def side_keys(self, side: str) -> Hashes:
        return self._column(f"{side}.key")

    def side_words(self, side: str, row: int) -> Hashes:
        return self._words[side].row(int(self._rows[row]))

    def close(self) -> None:
        """Close the files."""
        for lists in (self._runs, *self._words.values()):
            lists.close()

    def _column(self, name: str) -> Hashes:
        column: Hashes = self._store.load(name, np.uint64)[self._rows]
        return column
