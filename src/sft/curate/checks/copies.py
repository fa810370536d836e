"""Rows that are there more than once: exact copies, and rows that say almost the same."""

from __future__ import annotations

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, count, finding, place, quoted, share


def duplicates(corpus: Corpus) -> list[DataFinding]:
    """Rows with the same messages as an earlier row, case and white space apart.

    The first of each set is not among the rows of the finding, so that they can be dropped.
    """
    extra, _ = corpus.repeats
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

    Those of one cluster of near-duplicates; see `sft.data.repeats`.
    """
    _, near = corpus.repeats
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


def _pair(corpus: Corpus, later: dict[int, int]) -> str:
    copy, original = next(iter(later.items()))
    quote = quoted(corpus.prompts[copy], 60)
    return f"{place(corpus, copy)} repeats {place(corpus, original)}: {quote}"
