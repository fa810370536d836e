"""Rows that are there more than once: exact copies, and rows that say almost the same."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from sft.curate.checks.wording import count, quoted, share
from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding


def duplicates(corpus: Corpus) -> list[DataFinding]:
    """Rows with the same messages as an earlier row, case and white space apart.

    The first of each set is not among the rows of the finding, so that they can be dropped.
    """
    extra = _later(corpus.keys)
    if not extra:
        return []
    copy, original = next(iter(extra.items()))
    return [
        DataFinding(
            check="duplicates",
            severity="warning",
            count=len(extra),
            rows=tuple(corpus.places[i] for i in extra),
            message=f"{count(len(extra))} ({share(len(extra), len(corpus.train))}) "
            f"{'is a copy' if len(extra) == 1 else 'are copies'} of an earlier row and would be "
            f"trained on more often than the others; {_pair(corpus, copy, original)}",
            fix="sft curate DATA --dedupe exact --out FILE, or data.deduplicate: true",
        )
    ]


def near_duplicates(corpus: Corpus) -> list[DataFinding]:
    """Rows that say almost the same as an earlier one; exact copies are not counted again."""
    exact = _later(corpus.keys)
    near = {i: j for i, j in _later(corpus.labels).items() if i not in exact}
    if not near:
        return []
    copy, original = next(iter(near.items()))
    return [
        DataFinding(
            check="near_duplicates",
            severity="warning",
            count=len(near),
            rows=tuple(corpus.places[i] for i in near),
            message=f"{count(len(near))} ({share(len(near), len(corpus.train))}) "
            f"{'says' if len(near) == 1 else 'say'} almost the same as an earlier row; "
            f"{_pair(corpus, copy, original)}",
            fix="sft curate DATA --dedupe near --out FILE, or data.deduplicate: true",
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


def _pair(corpus: Corpus, copy: int, original: int) -> str:
    places = quoted(corpus.places[copy])[1:-1], quoted(corpus.places[original])[1:-1]
    return f"{places[0]} repeats {places[1]}: {quoted(corpus.prompts[copy], 60)}"
