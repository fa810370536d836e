"""Rows that are there more than once: exact copies, and rows that say almost the same."""

from __future__ import annotations

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, count, finding, place, quoted, share, verb


def duplicates(corpus: Corpus) -> list[DataFinding]:
    """Rows with the same messages as an earlier row, case and white space apart.

    The first of each set is not among the rows of the finding, so that they can be dropped.
    """
    copies, _ = corpus.repeats
    are = "is a copy" if len(copies) == 1 else "are copies"
    what = f"{are} of an earlier row, so that it is trained on more often"
    return _finding(corpus, "duplicates", copies, what, "exact")


def near_duplicates(corpus: Corpus) -> list[DataFinding]:
    """Rows that say almost the same as an earlier one; exact copies are not counted again.

    Those of one cluster of near-duplicates; see `sft.data.repeats`.
    """
    _, near = corpus.repeats
    what = f"{verb(len(near), 'say')} almost the same as an earlier row"
    return _finding(corpus, "near_duplicates", near, what, "near")


def _finding(
    corpus: Corpus, check: str, later: dict[int, int], what: str, dedupe: str
) -> list[DataFinding]:
    if not later:
        return []
    copy, original = next(iter(later.items()))
    message = (
        f"{count(len(later))} ({share(len(later), len(corpus.train))}) {what}; "
        f"{place(corpus, copy)} repeats {place(corpus, original)}: "
        f"{quoted(corpus.prompts[copy], 60)}"
    )
    fix = f"sft curate DATA --dedupe {dedupe} --out FILE, or data.deduplicate: true"
    return [finding(corpus, check, "warning", later, message, fix)]
