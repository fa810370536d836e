"""Steps that judge a row on its own: length, quality, checks, texts of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sft.curate.checks.leaks import Benchmarks
from sft.curate.corpus import Corpus
from sft.data.repeats import HeldOut, sides
from sft.data.rows.conversation import Conversation
from sft.texts.near_duplicates import words

# Of the answer. Half of the lines, or of the runs of 5 words, were there before: Gopher's rules
# (Rae et al. 2021, table A1) begin at 0.3 and 0.15, which drops tables, poems and code.
MAX_REPEATED = 0.5
MIN_LINES, MIN_WORDS, RUN = 6, 20, 5
MIN_LETTERS = 0.25  # of the characters that are no white space, in an answer of MIN_WORDS

Fate = tuple[str, str]  # the step that drops a row, and why


@dataclass(frozen=True, slots=True)
class RowRules:
    """Rules for rows. None may hold a text of `benchmarks`, or repeat a row of `held_out`."""

    min_words: int | None = None
    max_words: int | None = None
    quality: bool = False
    checks: tuple[str, ...] = ()
    benchmarks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    held_out: Sequence[Conversation] = ()

    def names(self) -> list[str]:
        """The steps in their order, those that are not asked for left out."""
        asked = {
            "min_answer_words": self.min_words is not None,
            "max_answer_words": self.max_words is not None,
            "quality": self.quality,
            **dict.fromkeys(self.checks, True),
            "decontaminate": bool(self.benchmarks),
        }
        return [name for name, wanted in asked.items() if wanted]


class RowSteps:
    """Rules made ready to judge many rows."""

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._benchmarks = Benchmarks(rules.benchmarks)
        self._held_out = HeldOut(rules.held_out)

    def fates(self, corpus: Corpus) -> dict[int, Fate]:
        """By index of the row: which step drops it, and why."""
        fates: dict[int, Fate] = {}
        for index, answer in enumerate(corpus.answers):
            fate = self._length(answer) or (_quality(answer) if self._rules.quality else None)
            if fate:
                fates[index] = fate
        for name in self._rules.checks:
            for index, reason in _checked(name, corpus.train, fates).items():
                fates[index] = (name, reason)
        if self._rules.benchmarks:
            for index, row in enumerate(corpus.train):
                if index not in fates and (reason := self._contaminated(row)):
                    fates[index] = ("decontaminate", reason)
        return fates

    def _contaminated(self, row: Conversation) -> str:
        """Which benchmark text or held-out row the row holds; empty for none."""
        if hit := self._benchmarks.find(sides(row).text):
            share = f"{100 * hit.share:.0f} % of its runs of words"
            return f"holds text {hit.text + 1} of {hit.benchmark} ({share})"
        if self._rules.held_out and (like := self._held_out.like(row)):
            return f"repeats {self._rules.held_out[like[0]].origin}"
        return ""

    def _length(self, answer: str) -> Fate | None:
        low, high = self._rules.min_words, self._rules.max_words
        if low is None and high is None:
            return None
        count = len(words(answer))
        if low is not None and count < low:
            return "min_answer_words", f"the answer has {count:,} words, and {low:,} is the least"
        if high is not None and count > high:
            return "max_answer_words", f"the answer has {count:,} words, and {high:,} is the most"
        return None


def _checked(name: str, rows: Sequence[Conversation], gone: Mapping[int, Fate]) -> dict[int, str]:
    """Rows that a check of `sft check` finds when it sees them one at a time."""
    from sft.curate.checks import CHECKS

    reasons = {}
    for index, row in enumerate(rows):
        if index not in gone:
            findings = CHECKS[name](Corpus(train=[row]))
            if any(one.rows for one in findings):
                reasons[index] = findings[0].message
    return reasons


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
