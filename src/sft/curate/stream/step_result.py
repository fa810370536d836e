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
class StepResult:
    """Rows that a step drops or edits, by index, in order, and what the reasons tell of each.

    `other` is the index of the row that is kept in its place (-1: none), `value` a number that
    the reason tells, and `kind` a number that `notes` (plain JSON types) has words for.
    """

    rows: Rows
    other: Rows
    value: NDArray[np.float64]
    kind: Rows
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows: Any,
        other: Any = None,
        value: Any = None,
        kind: Any = None,
        notes: dict[str, Any] | None = None,
    ) -> StepResult:
        """With what is not given left empty."""
        index = np.asarray(rows, dtype=np.int64)
        none = np.full(len(index), -1, dtype=np.int64)
        return cls(
            index,
            none if other is None else np.asarray(other, dtype=np.int64),
            np.zeros(len(index)) if value is None else np.asarray(value, dtype=np.float64),
            none if kind is None else np.asarray(kind, dtype=np.int64),
            notes or {},
        )

    def save(self, store: Store, step: str) -> None:
        """Keep it in the work folder, so that the step is not done again."""
        with disk_errors(store.folder):
            np.savez(
                store.path(f"{step}.npz"),
                rows=self.rows,
                other=self.other,
                value=self.value,
                kind=self.kind,
            )
        store.finish(step, **self.notes)

    @classmethod
    def load(cls, store: Store, step: str) -> StepResult | None:
        """The result of a step that was finished before, or None."""
        notes = store.finished(step)
        if notes is None:
            return None
        with np.load(store.path(f"{step}.npz")) as arrays:
            return cls(**arrays, notes=notes)
