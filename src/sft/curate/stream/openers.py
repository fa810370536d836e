"""Openers that too many answers share: rows dropped, or the opener stripped, out of core.

The rules are those of `sft.curate.remedies.cap_openers` and `sft.curate.strip.strip_openers`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from sft.curate.remedies import largest_cap
from sft.curate.stream.feature_pass import Progress
from sft.curate.stream.row_changes import Mask, RowChanges
from sft.curate.stream.store import Lists, Store
from sft.curate.strip import plan


def drop_openers(store: Store, alive: Mask, share: float) -> RowChanges:
    """Drop rows until no opener begins more than `share` of the answers left.

    `value` is the number of answers that begin alike, and the note `kept` how many of them stay.
    """
    rows = np.flatnonzero(alive)
    hashes = store.load("opener", np.uint64)[rows]
    rows, hashes = rows[hashes != 0], hashes[hashes != 0]
    by_chance = store.load("order", ">u8")[rows]
    order = np.lexsort((by_chance, hashes))
    _, begins, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    cap = largest_cap(counts.tolist(), share)
    rank = np.arange(len(rows)) - np.repeat(begins, counts)
    beyond = np.flatnonzero(rank >= cap)
    size = np.repeat(counts, counts)[beyond]
    dropped = rows[order][beyond]
    sort = np.argsort(dropped)
    return RowChanges(dropped[sort], value=size[sort], notes={"kept": cap})


def strip_openers(store: Store, alive: Mask, share: float, progress: Progress) -> RowChanges:
    """Which openers are taken off which rows: `kind` is the number of one of the `phrases`."""
    heads = Lists(store, "heads", np.uint8)
    rows = np.flatnonzero(alive & (np.diff(heads.begins) > 0))

    def read(indices: Sequence[int]) -> Iterator[str]:
        for i in indices:
            yield heads.row(int(rows[i])).tobytes().decode("utf-8", "surrogatepass")

    try:
        order = store.load("order", ">u8")[rows]
        kinds, openers = plan(read, order, math.floor(share * len(rows)), progress)
    finally:
        heads.close()
    edited = np.flatnonzero(kinds)
    notes = {"phrases": [list(taken) for taken in openers]}
    return RowChanges(rows[edited], kind=kinds[edited], notes=notes)
