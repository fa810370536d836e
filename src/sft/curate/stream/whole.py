"""`--drop` for checks that need all rows at once: they are held in memory, so there is a limit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sft.curate.corpus import Corpus
from sft.curate.stream.decision import Decision, Mask
from sft.curate.stream.rows import Source, chunks, conversations
from sft.data.rows.conversation import Conversation
from sft.errors import ConfigError, did_you_mean

# Checks that judge each row on its own, and are run while rows are read.
ROW_CHECKS = (
    "empty",
    "echo",
    "repetition",
    "refusals",
    "cut_answers",
    "encoding",
    "special_text",
    "personal_data",
    "languages",
)
WHOLE_CHECKS = ("conflicts", "boilerplate", "wrong_roles", "lengths_text")
MAX_ROWS = 200_000
_INSTEAD = {
    "duplicates": "--dedupe exact",
    "near_duplicates": "--dedupe near",
    "contamination": "--decontaminate FILE",
    "leaks": "--decontaminate FILE, with the held-out rows as FILE",
    "openers": "--cap-openers SHARE",
}


def split_checks(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The checks that judge rows on their own, and those that need them all.

    Raises:
        ConfigError: a check is not known, or has an option of its own.
    """
    known = (*ROW_CHECKS, *WHOLE_CHECKS)
    for name in names:
        if name in _INSTEAD:
            raise ConfigError(f"--drop {name}: use {_INSTEAD[name]}")
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"--drop {name}: no such check.{near} Known: {', '.join(known)}.")
    return [n for n in names if n in ROW_CHECKS], [n for n in names if n in WHOLE_CHECKS]


def whole_check(name: str, sources: Sequence[Source], alive: Mask) -> Decision:
    """Drop the rows that a check finds among all that are left.

    Raises:
        ConfigError: there are more than `MAX_ROWS`.
    """
    from sft.curate.checks import CHECKS

    count = int(np.count_nonzero(alive))
    if count > MAX_ROWS:
        raise ConfigError(
            f"--drop {name} looks at all rows at once, and {count:,} are left; {MAX_ROWS:,} is the "
            "most. Curate parts of the data, or leave the check out"
        )
    rows: list[Conversation] = []
    index: dict[str, int] = {}
    number = 0
    for chunk in chunks(sources):
        for row in conversations(chunk, sources[chunk.source]):
            if alive[number] and isinstance(row, Conversation):
                index[str(row.origin)] = number
                rows.append(row)
            number += 1
    found: dict[int, int] = {}
    messages: list[str] = []
    for finding in CHECKS[name](Corpus(train=rows)):
        messages.append(finding.message)
        for place in finding.rows:
            found.setdefault(index[place], len(messages) - 1)
    gone = sorted(found)
    return Decision.of(gone, kind=[found[row] for row in gone], notes={"messages": messages})
