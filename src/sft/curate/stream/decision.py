"""What a step decides: rows to drop, and for each what the ledger says of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.stream.store import Store

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Decision:
    """Rows that a step drops, by index, in order; `other` and `value` say more of each of them.

    `other` is the index of the row that is kept in its place (-1: none), `value` a number that
    the reason tells, and `kind` a number that `notes` has words for.
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
    ) -> Decision:
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


def save(store: Store, step: str, decision: Decision) -> None:
    """Keep a decision in the work folder, so that the step is not done again."""
    for name in ("rows", "other", "value", "kind"):
        store.write_array(f"step.{step}.{name}", getattr(decision, name))
    json.dumps(decision.notes)  # what cannot be kept fails here, not when it is read
    store.part(f"step.{step}").update(done=True, notes=decision.notes)
    store.save()


def load(store: Store, step: str) -> Decision | None:
    """The decision of a step that was done before, or None."""
    part = store.part(f"step.{step}")
    if not part["done"]:
        return None
    return Decision(
        store.load(f"step.{step}.rows", np.int64),
        store.load(f"step.{step}.other", np.int64),
        store.load(f"step.{step}.value", np.float64),
        store.load(f"step.{step}.kind", np.int64),
        part["notes"],
    )
