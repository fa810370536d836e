"""What a step came to: the rows it drops or edits, and for each what the ledger says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.stream.store import Store
from sft.disk import disk_errors

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Rows that a step drops or edits, by index, in order, and what the reasons tell of each.

    `other` is the index of the row that is kept in its place, `value` a number that the reason
    tells, and `kind` a number that `notes` (plain JSON types) has words for: each as long as
    `rows`, or None.
    """

    rows: Rows
    other: Rows | None = None
    value: NDArray[Any] | None = None
    kind: NDArray[Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def save(self, store: Store, step: str) -> None:
        """Keep them in the work folder, so that the step is not done again."""
        arrays = {name: getattr(self, name) for name in ("rows", "other", "value", "kind")}
        given: dict[str, Any] = {name: a for name, a in arrays.items() if a is not None}
        with disk_errors(store.folder):
            np.savez(store.path(f"{step}.npz"), **given)
        store.finish(step, **self.notes)

    @classmethod
    def load(cls, store: Store, step: str) -> RowChanges | None:
        """The changes of a step that was finished before, or None."""
        notes = store.finished(step)
        if notes is None:
            return None
        with np.load(store.path(f"{step}.npz")) as arrays:
            return cls(**arrays, notes=notes)
