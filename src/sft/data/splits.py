"""The train / validation split, with equal prompts always on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sft.data.conversation import Conversation
from sft.errors import ConfigError, DataError

AUTO_FRACTION, AUTO_MIN, AUTO_MAX = 0.05, 16, 128


@dataclass(frozen=True, slots=True)
class Split:
    """Both sides, in the order of the data, and rows of val left out as also in train."""

    train: list[Conversation]
    val: list[Conversation]
    leaked: list[Conversation]


def prompt_key(conversation: Conversation) -> str:
    """Hash of all that is shown to the model but not written by it: white space and case apart.

    Rows with equal keys are copies of each other, or other answers to the same question.
    """
    shown = [
        f"{message.role}\0{' '.join(message.content.lower().split())}"
        for message in conversation.messages
        if message.role != "assistant"
    ]
    return hashlib.sha256("\1".join(shown).encode("utf-8", "surrogatepass")).hexdigest()


def num_val(num_rows: int, fraction: float | str) -> int:
    """Rows to split off; `auto` is 5 %, at least 16 and at most 128, never above a fifth.

    One row at least is left to train on.
    """
    if fraction != "auto":
        return max(0, min(round(num_rows * float(fraction)), num_rows - 1))
    wanted = min(max(round(num_rows * AUTO_FRACTION), AUTO_MIN), AUTO_MAX)
    return min(wanted, num_rows // 5)


def split_off(conversations: Sequence[Conversation], fraction: float | str, seed: int) -> Split:
    """Split validation rows off, whole groups of equal prompts at a time.

    Which groups go does not depend on the order of the rows. A group is never larger than
    what is still wanted, so a data set of copies of one row cannot be split.
    """
    groups: dict[str, list[int]] = {}
    for index, conversation in enumerate(conversations):
        groups.setdefault(prompt_key(conversation), []).append(index)
    wanted = num_val(len(conversations), fraction)
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}|{key}".encode()).digest())
    chosen: set[int] = set()
    for key in order:
        if len(chosen) + len(groups[key]) <= wanted:
            chosen.update(groups[key])
    return Split(
        train=[row for i, row in enumerate(conversations) if i not in chosen],
        val=[row for i, row in enumerate(conversations) if i in chosen],
        leaked=[],
    )


def given(train: Sequence[Conversation], val: Sequence[Conversation]) -> Split:
    """Use the user's own validation rows, without those whose prompt is also trained on."""
    if len(val) > len(train):
        raise ConfigError(
            f"data.val has {len(val)} rows and data.train {len(train)}: "
            "validation is larger than training; are they swapped?"
        )
    trained = {prompt_key(row) for row in train}
    leaked = [row for row in val if prompt_key(row) in trained]
    kept = [row for row in val if prompt_key(row) not in trained]
    if not kept:
        raise DataError(
            f"all {len(val)} rows of data.val have a prompt that is also in data.train; "
            "nothing is left to measure with"
        )
    return Split(list(train), kept, leaked)
