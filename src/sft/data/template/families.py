"""Augmented rows and the rows they were made of: a child is trained on only beside its parent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sft.data.rows.conversation import Conversation, Origin

PARENT_HELD_OUT = "augmented, and the row it comes from is in validation"
LIKE_HELD_OUT = "augmented, and like a validation row"
NOT_VALIDATED_ON = "augmented, so it is not validated on"

Key = Callable[[Conversation], str]


@dataclass(frozen=True, slots=True)
class Families:
    """`own` rows are split; `children` follow their parents, all of which are in `own`.

    `num_orphans` of `own` are augmented rows whose parent is not there.
    """

    own: list[Conversation]
    children: list[Conversation]
    num_orphans: int = 0

    def notes(self, name: str) -> list[str]:
        """What to tell the user about the rows of `name`, such as `data.train`."""
        if not self.num_orphans:
            return []
        return [
            f"{name}: {self.num_orphans:,} augmented rows come from rows that are not in the data "
            "(a changed prompt, or the original file is missing); they are split like any row, "
            "those of one row together"
        ]


def families(
    rows: Sequence[Conversation], key: Key, parents: Sequence[Conversation] = ()
) -> Families:
    """Tell children from rows of their own; a parent may also be one of `parents`."""
    if not any(row.parent for row in rows):
        return Families(list(rows), [])
    known = {key(row) for row in (*rows, *parents) if not row.parent}
    own = [row for row in rows if row.parent not in known]
    children = [row for row in rows if row.parent in known]
    return Families(own, children, sum(bool(row.parent) for row in own))


def left_out(
    children: Sequence[Conversation],
    train: Sequence[Conversation],
    val: Sequence[Conversation],
    key: Key,
) -> dict[Origin, str]:
    """The children that may not be trained on, each with the reason."""
    if not children:
        return {}
    trained, held_out = {key(row) for row in train}, {key(row) for row in val}
    reasons = {}
    for child in children:
        if child.parent not in trained:
            reasons[child.origin] = PARENT_HELD_OUT
        elif key(child) in held_out:
            reasons[child.origin] = LIKE_HELD_OUT
    return reasons
