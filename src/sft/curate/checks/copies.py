"""Rows that are there more than once: exact copies, and rows that say almost the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from sft.curate.checks.wording import count, finding, place, quoted, share
from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding

# When prompt or answer is the same, the other side may differ by this share of its words.
SAME_SIDE = 0.7
SAME_PROMPT = 0.6  # of the words of two answers to one prompt
MIN_SHARED = 5  # words of the side that is the same: many rows have the answer "Positive"
MAX_SET = 50  # rows of one text that are compared with each other


def duplicates(corpus: Corpus) -> list[DataFinding]:
    """Rows with the same messages as an earlier row, case and white space apart.

    The first of each set is not among the rows of the finding, so that they can be dropped.
    """
    extra = _later(corpus.keys)
    if not extra:
        return []
    verb = "is a copy" if len(extra) == 1 else "are copies"
    return [
        finding(
            corpus,
            "duplicates",
            "warning",
            extra,
            f"{count(len(extra))} ({share(len(extra), len(corpus.train))}) {verb} of an earlier "
            f"row, so that it is trained on more often; {_pair(corpus, extra)}",
            "sft curate DATA --dedupe exact --out FILE, or data.deduplicate: true",
        )
    ]


def near_duplicates(corpus: Corpus) -> list[DataFinding]:
    """Rows that say almost the same as an earlier one; exact copies are not counted again.

    Those of one near-duplicate cluster (see `sft.texts.near_duplicates`), and short rows that
    differ in a word or two of their prompt or of their answer only, which word 5-grams miss.
    Augmented rows are meant to be like their parents, and are left out.
    """
    skipped = _later(corpus.keys).keys() | {i for i, r in enumerate(corpus.train) if r.parent}
    near = _almost(corpus) | _later(corpus.labels)
    near = {i: near[i] for i in sorted(near) if i not in skipped}
    if not near:
        return []
    verb = "says" if len(near) == 1 else "say"
    return [
        finding(
            corpus,
            "near_duplicates",
            "warning",
            near,
            f"{count(len(near))} ({share(len(near), len(corpus.train))}) {verb} almost the same as "
            f"an earlier row; {_pair(corpus, near)}",
            "sft curate DATA --dedupe near --out FILE, or data.deduplicate: true",
        )
    ]


def _later(labels: Sequence[Hashable]) -> dict[int, int]:
    """Index of each row whose label came before -> index of the first row of that label."""
    first: dict[Hashable, int] = {}
    found = {}
    for index, label in enumerate(labels):
        if first.setdefault(label, index) != index:
            found[index] = first[label]
    return found


def _almost(corpus: Corpus) -> dict[int, int]:
    """Rows of one turn of which one side has the words of an earlier row and the other nearly.

    Rows with other tools are other tasks.
    """
    single = [i for i, row in enumerate(corpus.train) if len(row.messages) <= 3]
    sides = {i: [side.split() for side in corpus.words[i]] for i in single}
    found: dict[int, int] = {}
    for side in (0, 1):
        same: dict[tuple[str, ...], list[int]] = {}
        for i in single:
            if len(sides[i][side]) >= MIN_SHARED:
                tools = str(corpus.train[i].tools) if corpus.train[i].tools else ""
                same.setdefault((tools, *sorted(sides[i][side])), []).append(i)
        for rows in same.values():
            for earlier, later in _pairs(rows[:MAX_SET]):
                pair = sides[earlier][1 - side], sides[later][1 - side]
                if alike(*pair) >= (SAME_SIDE if side else SAME_PROMPT) or (
                    side == 0 and _goes_on(*pair)
                ):
                    found.setdefault(later, earlier)
    return found


def _goes_on(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether one of two answers is the beginning of the other."""
    short, long = sorted((a, b), key=len)
    return bool(short) and long[: len(short)] == short


def _pairs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    for number, later in enumerate(rows):
        for earlier in rows[:number]:
            yield earlier, later


def alike(a: Sequence[str], b: Sequence[str]) -> float:
    """Jaccard similarity of two lists of words, in any order; 1 for two empty ones."""
    first, second = set(a), set(b)
    return len(first & second) / len(first | second) if first or second else 1.0


def _pair(corpus: Corpus, later: dict[int, int]) -> str:
    copy, original = next(iter(later.items()))
    quote = quoted(corpus.prompts[copy], 60)
    return f"{place(corpus, copy)} repeats {place(corpus, original)}: {quote}"
