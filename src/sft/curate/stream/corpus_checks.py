"""`--drop`: checks that judge rows on their own, and those that need the whole corpus at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sft.curate.corpus import Corpus
from sft.curate.stream.row_changes import Mask, RowChanges
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
CORPUS_CHECKS = ("conflicts", "boilerplate", "wrong_roles", "lengths_text")
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
    known = (*ROW_CHECKS, *CORPUS_CHECKS)
    for name in names:
        if name in _INSTEAD:
            raise ConfigError(f"--drop {name}: use {_INSTEAD[name]}")
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"--drop {name}: no such check.{near} Known: {', '.join(known)}.")
    return [n for n in names if n in ROW_CHECKS], [n for n in names if n in CORPUS_CHECKS]


def drop_found(name: str, sources: Sequence[Source], alive: Mask) -> RowChanges:
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
    findings = CHECKS[name](Corpus(train=rows))
    reason: dict[int, int] = {}  # row -> number of the first finding that names it
    for number, finding in enumerate(findings):
        for place in finding.rows:
            reason.setdefault(index[place], number)
    dropped = np.array(sorted(reason), dtype=np.int64)
    messages = [finding.message for finding in findings]
    kind = np.array([reason[row] for row in dropped.tolist()], dtype=np.int64)
    return RowChanges(dropped, kind=kind, notes={"messages": messages})
