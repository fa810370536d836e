"""Languages: of an answer and of its prompt, and of the rows."""

from __future__ import annotations

import re
from collections import Counter

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, count, finding, place, quoted
from sft.texts.languages import surely

# A prompt that asks for another language, or about one.
_LANGUAGE_WORD = re.compile(
    r"translat|\blanguages?\b|übersetz|tradu[iczt]|vertaal|перев|翻译|翻訳|\b(?:english|german|french"
    r"|spanish|portuguese|italian|dutch|polish|swedish|japanese|chinese|korean|russian|greek|arabic"
    r"|hebrew|hindi|thai|latin|englisch|deutsch|franz|español|français|inglés|anglais)",
    re.I,
)
MIXED = 0.02  # share of the rows in another language than most


def languages(corpus: Corpus) -> list[DataFinding]:
    """Answers in another language than their prompt, and rows in another than most."""
    spoken = [surely(text) for text in corpus.answers]
    return [*_answered_in_another(corpus, spoken), *_mixed(corpus, spoken)]


def _answered_in_another(corpus: Corpus, spoken: list[str]) -> list[DataFinding]:
    asked = {
        i: surely(corpus.prompts[i])
        for i, answered in enumerate(spoken)
        if answered and not _LANGUAGE_WORD.search(corpus.prompts[i])
    }
    rows = [i for i, language in asked.items() if language and language != spoken[i]]
    if not rows:
        return []
    i = rows[0]
    message = (
        f"{count(len(rows), 'answer')} in another language than the prompt; {place(corpus, i)} is "
        f"asked in {asked[i]} and answered in {spoken[i]}: {quoted(corpus.answers[i], 60)}"
    )
    fix = "sft curate DATA --drop languages --out FILE"
    return [finding(corpus, "languages", "warning", rows, message, fix)]


def _mixed(corpus: Corpus, spoken: list[str]) -> list[DataFinding]:
    counts = Counter(filter(None, spoken))
    most = [name for name, _ in counts.most_common(1)]
    rows = [i for i, one in enumerate(spoken) if one and one not in most]
    if not rows or len(rows) < MIXED * counts.total():
        return []
    listed = ", ".join(f"{name} {n:,}" for name, n in counts.most_common(6))
    message = (
        f"answers in {count(len(counts), 'language')}: {listed} (of {len(spoken):,}; the others "
        "are too short to tell)"
    )
    return [finding(corpus, "languages", "info", rows, message)]
