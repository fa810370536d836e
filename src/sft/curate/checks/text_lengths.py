"""Prompts and answers that are far longer or shorter than the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, count, finding, place, quoted, share

OUTLIER = 6.0  # robust standard deviations of the logarithm of the length
MIN_ROWS = 50


def lengths_text(corpus: Corpus) -> list[DataFinding]:
    """Prompts and answers that are far longer or shorter than the others, by their characters."""
    sides = {"answer": corpus.answers, "prompt": corpus.prompts}
    return [one for name, texts in sides.items() for one in _outliers(corpus, name, texts)]


def _outliers(corpus: Corpus, name: str, texts: Sequence[str]) -> list[DataFinding]:
    if len(texts) < MIN_ROWS:
        return []
    sizes = np.log([max(1, len(text)) for text in texts])
    middle = float(np.median(sizes))
    # 1.4826 makes the median deviation a standard deviation; equal lengths have none.
    spread = max(1.4826 * float(np.median(np.abs(sizes - middle))), 0.25)
    findings = []
    for word, distance in (("longer", sizes - middle), ("shorter", middle - sizes)):
        rows = np.flatnonzero(distance > OUTLIER * spread).tolist()
        if rows:
            i = int(np.argmax(distance))
            message = (
                f"{count(len(rows), name)} ({share(len(rows), len(texts))}) far {word} than the "
                f"others; {place(corpus, i)} has {len(texts[i]):,} characters, the median is "
                f"{np.exp(middle):,.0f}: {quoted(texts[i], 50)}"
            )
            findings.append(finding(corpus, "lengths_text", "info", rows, message))
    return findings
