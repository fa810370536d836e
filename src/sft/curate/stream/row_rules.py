"""Rules that rows are dropped by: of their length, quality, the checks of `--drop`, benchmarks.

Most judge each row on its own, while rows are read; some checks need all rows at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sft.curate.checks.leaks import Benchmarks, benchmark_texts, held_out_rows
from sft.curate.corpus import Corpus
from sft.curate.stream.options import CurateConfig
from sft.curate.stream.rows import Source, chunks, conversations
from sft.curate.stream.store import Mask, RowChanges
from sft.data.repeats import HeldOut, sides
from sft.data.rows.conversation import Conversation
from sft.errors import ConfigError, did_you_mean
from sft.texts.near_duplicates import words

# Of the answer. Half of the lines, or of the runs of 5 words, were there before: Gopher's rules
# (Rae et al. 2021, table A1) begin at 0.3 and 0.15, which drops tables, poems and code.
MAX_REPEATED = 0.5
MIN_LINES, MIN_WORDS, RUN = 6, 20, 5
MIN_LETTERS = 0.25  # of the characters that are no white space, in an answer of MIN_WORDS

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

Fate = tuple[str, str]  # the rule that drops a row, and why


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


def rule_names(config: CurateConfig) -> list[str]:
    """The rules for single rows that are asked for, in their order."""
    asked = {
        "min_answer_words": config.min_answer_words is not None,
        "max_answer_words": config.max_answer_words is not None,
        "quality": config.quality,
        **dict.fromkeys(split_checks(config.drop)[0], True),
        "decontaminate": bool(config.decontaminate),
    }
    return [name for name, wanted in asked.items() if wanted]


class RowRules:
    """The rules for single rows, made ready to judge many of them."""

    def __init__(self, config: CurateConfig) -> None:
        self._config = config
        self._checks, _ = split_checks(config.drop)
        files = config.decontaminate
        self._benchmarks = Benchmarks({p: benchmark_texts(p, "--decontaminate") for p in files})
        self._held_out = [row for path in files for row in held_out_rows(path)]
        self._held_out_index = HeldOut(self._held_out)

    def fates(self, corpus: Corpus) -> dict[int, Fate]:
        """By index of the row: which rule drops it, and why."""
        fates: dict[int, Fate] = {}
        for index, (row, answer) in enumerate(zip(corpus.train, corpus.answers, strict=True)):
            fate = (
                self._length(answer)
                or (_quality(answer) if self._config.quality else None)
                or self._checked(row)
                or self._contaminated(row)
            )
            if fate:
                fates[index] = fate
        return fates

    def _checked(self, row: Conversation) -> Fate | None:
        """What the checks of `sft check` find when they see a row on its own."""
        from sft.curate.checks import CHECKS

        for name in self._checks:
            findings = CHECKS[name](Corpus(train=[row]))
            if any(one.rows for one in findings):
                return name, findings[0].message
        return None

    def _contaminated(self, row: Conversation) -> Fate | None:
        """Which benchmark text or held-out row the row holds."""
        if not self._config.decontaminate:
            return None
        if hit := self._benchmarks.find(sides(row).text):
            share = f"{100 * hit.share:.0f} % of its runs of words"
            return "decontaminate", f"holds text {hit.text + 1} of {hit.benchmark} ({share})"
        if like := self._held_out_index.like(row):
            return "decontaminate", f"repeats {self._held_out[like[0]].origin}"
        return None

    def _length(self, answer: str) -> Fate | None:
        low, high = self._config.min_answer_words, self._config.max_answer_words
        if low is None and high is None:
            return None
        count = len(words(answer))
        if low is not None and count < low:
            return "min_answer_words", f"the answer has {count:,} words, and {low:,} is the least"
        if high is not None and count > high:
            return "max_answer_words", f"the answer has {count:,} words, and {high:,} is the most"
        return None


def _quality(answer: str) -> Fate | None:
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if len(lines) >= MIN_LINES and (repeated := _repeated(lines)) > MAX_REPEATED:
        return "quality", f"{100 * repeated:.0f} % of the answer's lines repeat an earlier one"
    parts = words(answer)
    if len(parts) < MIN_WORDS:
        return None
    runs = [" ".join(parts[start : start + RUN]) for start in range(len(parts) - RUN + 1)]
    if (repeated := _repeated(runs)) > MAX_REPEATED:
        return "quality", f"{100 * repeated:.0f} % of the answer's {RUN}-word runs are repeats"
    letters = [character.isalnum() for character in answer if not character.isspace()]
    share = sum(letters) / len(letters)
    if share < MIN_LETTERS:
        return "quality", f"{100 * share:.0f} % of the answer's characters are letters or digits"
    return None


def _repeated(parts: Sequence[str]) -> float:
    """Share of the parts that were there before."""
    return 1 - len(Counter(parts)) / len(parts)


def corpus_check(name: str, sources: Sequence[Source], alive: Mask) -> RowChanges:
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
    every = (
        row for chunk in chunks(sources) for row in conversations(chunk, sources[chunk.source])
    )
    rows = {i: row for i, row in enumerate(every) if alive[i] and isinstance(row, Conversation)}
    index = {str(row.origin): i for i, row in rows.items()}
    findings = CHECKS[name](Corpus(train=list(rows.values())))
    reason: dict[int, int] = {}  # row -> number of the first finding that names it
    for number, finding in enumerate(findings):
        for place in finding.rows:
            reason.setdefault(index[place], number)
    dropped = sorted(reason)
    return RowChanges(
        np.array(dropped, dtype=np.int64),
        kind=np.array([reason[row] for row in dropped], dtype=np.int64),
        notes={"messages": [finding.message for finding in findings]},
    )
