"""The train / validation split, with equal prompts and near-duplicates always on one side."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from sft.data.repeats import clusters, leaks, prompt_key, prompt_words
from sft.data.rows.conversation import Conversation, Origin
from sft.errors import ConfigError, DataError
from sft.texts.near_duplicates import Roots

# Why an augmented row is left out: it is trained on only beside the row it was made of.
PARENT_HELD_OUT = "augmented, and the row it comes from is in validation"
LIKE_HELD_OUT = "augmented, and like a validation row"
NOT_VALIDATED_ON = "augmented, so it is not validated on"

AUTO_FRACTION, AUTO_MIN, AUTO_MAX = 0.05, 16, 128


@dataclass(frozen=True, slots=True)
class Split:
    """Both sides, in the order of the data, and rows of val left out as also in train.

    `changed` has the reason for each row that a remedy edited or left out, and for each augmented
    row that may not be trained on. `notes` are for the user: what is not as it should be, and why.
    """

    train: list[Conversation]
    val: list[Conversation]
    leaked: list[Conversation]
    changed: Mapping[Origin, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def num_val(num_rows: int, fraction: float | str) -> int:
    """Rows to split off; `auto` is 5 %, at least 16 and at most 128, never above a fifth.

    One row at least is left to train on.
    """
    if fraction != "auto":
        return max(0, min(round(num_rows * float(fraction)), num_rows - 1))
    wanted = min(max(round(num_rows * AUTO_FRACTION), AUTO_MIN), AUTO_MAX)
    return min(wanted, num_rows // 5)


def split_off(conversations: Sequence[Conversation], fraction: float | str, seed: int) -> Split:
    """Split validation rows off, whole groups of equal prompts and near-duplicates at a time.

    Which groups go does not depend on the order of the rows. A group is never larger than
    what is still wanted, so a data set of copies of one row cannot be split. Where that leaves
    less than half of the wanted rows, as with rows filled into one template, groups are of equal
    prompts only, and a note says so.

    Augmented rows are never split off: the others are split as they would be without them, and
    each is trained on if the row it comes from is, and left out otherwise.
    """
    family = _families(conversations)
    split = _split_own(family.own, fraction, seed)
    children, like = family.children, set[Origin]()
    if not split.notes:  # else near-duplicates are on both sides anyway
        like = {children[i].origin for i in leaks(children, split.val).rows}
    return _with_children(split, conversations, children, family.notes("data.train"), like)


def _with_children(
    split: Split,
    rows: Sequence[Conversation],
    children: Sequence[Conversation],
    notes: Sequence[str],
    like_val: Set[Origin] = frozenset(),
) -> Split:
    """`split` with the augmented rows that may be trained on, in the order of `rows`.

    Those of `like_val` may not.
    """
    if not children:
        return replace(split, notes=[*split.notes, *notes])
    reasons = dict.fromkeys(like_val, LIKE_HELD_OUT)
    parents, held_out = ({prompt_key(row) for row in side} for side in (split.train, split.val))
    for child in children:
        if child.parent not in parents:
            reasons[child.origin] = PARENT_HELD_OUT
        elif prompt_key(child) in held_out:
            reasons[child.origin] = LIKE_HELD_OUT
    trained = {id(row) for row in split.train}
    trained |= {id(child) for child in children if child.origin not in reasons}
    note = (
        f"{len(reasons):,} of {len(children):,} augmented rows are left out: they come from "
        "validation rows, or have the prompt of one"
    )
    return replace(
        split,
        train=[row for row in rows if id(row) in trained],
        changed={**split.changed, **reasons},
        notes=[*split.notes, *notes, *([note] if reasons else [])],
    )


@dataclass(frozen=True, slots=True)
class _Families:
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


def _families(rows: Sequence[Conversation], parents: Sequence[Conversation] = ()) -> _Families:
    """Tell children from rows of their own; a parent may also be one of `parents`."""
    if not any(row.parent for row in rows):
        return _Families(list(rows), [])
    known = {prompt_key(row) for row in (*rows, *parents) if not row.parent}
    own = [row for row in rows if row.parent not in known]
    children = [row for row in rows if row.parent in known]
    return _Families(own, children, sum(bool(row.parent) for row in own))


def _split_own(rows: Sequence[Conversation], fraction: float | str, seed: int) -> Split:
    wanted = num_val(len(rows), fraction)
    if not wanted:
        return Split(list(rows), [], [])
    # A group is named by its smallest prompt, whatever the order of the rows.
    prompts = [prompt_key(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: prompts[i])
    by_prompt, groups = Roots(len(rows)), Roots(len(rows))
    labels = clusters([rows[i] for i in order])
    for roots in (by_prompt, groups):
        roots.join_equal([prompts[i] for i in order])
        roots.join_equal([prompt_words(rows[i]) or i for i in order])
        roots.join_equal([rows[i].parent or i for i in order])
    groups.join_equal(labels)

    def choose(roots: Roots) -> set[int]:
        names = [prompts[order[root]] for root in roots.all().tolist()]
        return _choose(names, wanted, seed)

    chosen, notes = _apart([rows[i] for i in order], choose, groups), []
    if len(chosen) < wanted / 2:
        only_by_prompt = choose(by_prompt)
        if len(only_by_prompt) > len(chosen):
            largest = max(Counter(labels).values())
            notes.append(
                f"{largest:,} of {len(rows):,} rows are near-duplicates of each other, "
                "too many to keep on one side: validation rows resemble rows that are trained "
                "on, and the validation loss is too good"
            )
            chosen = only_by_prompt
    val = {order[i] for i in chosen}
    return Split(
        train=[row for i, row in enumerate(rows) if i not in val],
        val=[row for i, row in enumerate(rows) if i in val],
        leaked=[],
        notes=notes,
    )


def _apart(
    rows: Sequence[Conversation], choose: Callable[[Roots], set[int]], groups: Roots
) -> set[int]:
    """The rows chosen for validation, once none of them is repeated by a row that is not.

    Sketches miss a near-duplicate in some hundreds; a split made by them alone would be refused
    by the exact comparison of `sft check`.
    """
    while True:
        chosen = choose(groups)
        val = sorted(chosen)
        train = [i for i in range(len(rows)) if i not in chosen]
        pairs = leaks([rows[i] for i in train], [rows[i] for i in val])
        if not pairs:
            return chosen
        for trained, held_out in pairs.rows.items():
            groups.join(train[trained], val[held_out])


def _choose(keys: Sequence[str], wanted: int, seed: int) -> set[int]:
    """Row indices of whole groups, `wanted` at most; `keys` has the group of each row."""
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}|{key}".encode()).digest())
    chosen: set[int] = set()
    for key in order:
        if len(chosen) + len(groups[key]) <= wanted:
            chosen.update(groups[key])
    return chosen


def given(train: Sequence[Conversation], val: Sequence[Conversation]) -> Split:
    """Use the user's own validation rows, without those whose prompt is also trained on.

    Near-duplicates stay in, as the user may want them; `leaks` lists them. Augmented rows are not
    validated on, and are trained on only if the row they come from is.
    """
    if len(val) > len(train):
        raise ConfigError(
            f"data.val has {len(val)} rows and data.train {len(train)}: "
            "validation is larger than training; are they swapped?"
        )
    family, held_out = _families(train, val), _families(val, train)
    trained = {prompt_key(row) for row in family.own}
    leaked = [row for row in held_out.own if prompt_key(row) in trained]
    kept = [row for row in held_out.own if prompt_key(row) not in trained]
    if not kept:
        raise DataError(
            f"all {len(val)} rows of data.val have a prompt that is also in data.train; "
            "nothing is left to measure with"
        )
    augmented = {row.origin: NOT_VALIDATED_ON for row in held_out.children}
    split = Split(family.own, kept, leaked, augmented)
    notes = family.notes("data.train") + held_out.notes("data.val")
    return _with_children(split, train, family.children, notes)
