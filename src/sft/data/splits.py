"""The train / validation split, with equal prompts and near-duplicates always on one side."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sft.data.rows.conversation import Conversation, Origin
from sft.data.template.families import NOT_VALIDATED_ON, families, left_out
from sft.errors import ConfigError, DataError
from sft.texts.near_duplicates import clusters

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


def prompt_key(conversation: Conversation) -> str:
    """Hash of all that is shown to the model but not written by it: white space and case apart.

    Rows with equal keys are copies of each other, or other answers to the same question.
    """
    given = [message for message in conversation.messages if message.role != "assistant"]
    shown = [
        f"{message.role}\0{' '.join(message.content.lower().split())}"
        for message in given or conversation.messages  # a plain text is all the row has
    ]
    return hashlib.sha256("\1".join(shown).encode("utf-8", "surrogatepass")).hexdigest()


def row_text(conversation: Conversation) -> str:
    """What tells a row from others: all messages and tool calls, without system messages.

    Many rows share one long system message; with it they would all look alike.
    """
    parts = []
    for message in conversation.messages:
        if message.role != "system":
            parts.append(message.content)
            parts += [json.dumps(dict(call), default=str) for call in message.tool_calls]
    return "\n".join(parts)


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
    family = families(conversations, prompt_key)
    split = _split_own(family.own, fraction, seed)
    return _with_children(split, conversations, family.children, family.notes("data.train"))


def _with_children(
    split: Split,
    rows: Sequence[Conversation],
    children: Sequence[Conversation],
    notes: Sequence[str],
) -> Split:
    """`split` with the augmented rows that may be trained on, in the order of `rows`."""
    if not children:
        return replace(split, notes=[*split.notes, *notes])
    reasons = left_out(children, split.train, split.val, prompt_key)
    kept = {id(row) for row in split.train}
    kept |= {id(child) for child in children if child.origin not in reasons}
    told = (
        f"{len(reasons):,} of {len(children):,} augmented rows are left out: they come from "
        "validation rows, or have the prompt of one"
    )
    return replace(
        split,
        train=[row for row in rows if id(row) in kept],
        changed={**split.changed, **reasons},
        notes=[*split.notes, *notes, *([told] if reasons else [])],
    )


def _split_own(conversations: Sequence[Conversation], fraction: float | str, seed: int) -> Split:
    wanted = num_val(len(conversations), fraction)
    if not wanted:
        return Split(list(conversations), [], [])
    prompts = _unite(
        [prompt_key(row) for row in conversations],
        [row.parent or index for index, row in enumerate(conversations)],
    )
    labels = clusters([row_text(row) for row in conversations])
    chosen, notes = _choose(_unite(prompts, labels), wanted, seed), []
    if len(chosen) < wanted / 2:
        by_prompt = _choose(prompts, wanted, seed)
        if len(by_prompt) > len(chosen):
            largest = max(Counter(labels).values())
            notes.append(
                f"{largest:,} of {len(conversations):,} rows are near-duplicates of each other, "
                "too many to keep on one side: validation rows resemble rows that are trained "
                "on, and the validation loss is too good"
            )
            chosen = by_prompt
    return Split(
        train=[row for i, row in enumerate(conversations) if i not in chosen],
        val=[row for i, row in enumerate(conversations) if i in chosen],
        leaked=[],
        notes=notes,
    )


def _unite(prompts: Sequence[str], labels: Sequence[Hashable]) -> list[str]:
    """Group of each row: rows of one prompt or one cluster, linked through others too.

    A group is named by its smallest prompt, whatever the order of the rows.
    """
    name = dict(zip(prompts, prompts, strict=True))

    def find(prompt: str) -> str:
        while name[prompt] != prompt:
            name[prompt] = prompt = name[name[prompt]]
        return prompt

    first: dict[Hashable, str] = {}
    for prompt, label in zip(prompts, labels, strict=True):
        low, high = sorted((find(prompt), find(first.setdefault(label, prompt))))
        name[high] = low
    return [find(prompt) for prompt in prompts]


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


def leaks(
    train: Sequence[Conversation], val: Sequence[Conversation]
) -> list[tuple[Conversation, Conversation]]:
    """The rows of `val` that are also in `train`, each after the first row it is like there.

    Pairs are (row of train, row of val), of equal prompts or near-duplicates, in the order of
    `val`. With any of them the validation loss is too good and hides overfitting.
    """
    prompts = [prompt_key(row) for row in (*train, *val)]
    labels = clusters([row_text(row) for row in (*train, *val)])
    trained: dict[str | int, Conversation] = {}
    for row, prompt, label in zip(train, prompts, labels, strict=False):
        trained.setdefault(prompt, row)
        trained.setdefault(label, row)
    found = []
    for row, prompt, label in zip(val, prompts[len(train) :], labels[len(train) :], strict=True):
        twin = trained.get(prompt) or trained.get(label)
        if twin is not None:
            found.append((twin, row))
    return found


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
    family, held_out = families(train, prompt_key, val), families(val, prompt_key, train)
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
