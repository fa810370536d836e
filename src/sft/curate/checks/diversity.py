"""How varied the rows are: what they ask for, how prompts and answers begin, shared phrases."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sft.curate.corpus import Corpus
from sft.curate.finding import DataFinding, count, finding, place, quoted, share, word_set
from sft.curate.vectors import SEED, topics
from sft.texts.near_duplicates import effective_size, first_of_each, words
from sft.texts.openers import opener, surface

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MIN_ROWS = 20
MAX_TOPICS, ROWS_A_TOPIC = 20, 25
MAX_FITTED = 10_000  # prompts that topics are learned from; the others are put into them
MAX_TERMS, COMPONENTS = 20_000, 50
MAX_TEXT = 1_000  # characters of a prompt: it says at its beginning what it asks for
DOMINATES, FEW_DIFFERENT = 0.5, 0.5
EXAMPLES = 3
NAMED, MIXED = 0.5, "mixed"  # so many rows of a topic have one of the words that name it
# Said before what is asked for.
_POLITE = word_set(
    "please can could would will you kindly i want need to like help me hi hello hey now let us"
    " lets bitte kannst können sie du"
)

Topic = Mapping[str, Any]


def diversity(
    corpus: Corpus,
) -> tuple[Mapping[str, str], tuple[Topic, ...], tuple[DataFinding, ...]]:
    """Facts (name -> text), topics, and findings where one kind of row rules.

    A topic has `name` (its marking words), `rows` (a number), `share` and `examples` (places). The
    largest comes first. There are none for fewer than 20 rows.
    """
    if not corpus.train:
        return {}, (), ()
    rows_by_topic = _topics(corpus) if len(corpus.train) >= MIN_ROWS else {}
    facts_of_topics = tuple(
        {
            "name": name,
            "rows": len(rows),
            "share": len(rows) / len(corpus.train),
            "examples": tuple(corpus.places[i] for i in rows[:EXAMPLES]),
        }
        for name, rows in rows_by_topic.items()
    )
    return _facts(corpus, rows_by_topic), facts_of_topics, tuple(_findings(corpus, rows_by_topic))


def _facts(corpus: Corpus, rows_by_topic: Mapping[str, Sequence[int]]) -> dict[str, str]:
    total = len(corpus.train)
    effective = effective_size(corpus.labels)
    distinct = first_of_each(corpus.labels)
    alike = surface([corpus.answers[i] for i in distinct])
    begins = Counter(filter(None, map(first_word, corpus.prompts)))
    facts = {
        "different rows": f"{effective:,.0f} of {total:,} (near-duplicates count as one)",
        "prompts begin with": ", ".join(
            f"{word} {share(number, total)}" for word, number in _most(begins, 8)
        )
        or "no words",
        "spread of first words": f"{_spread(begins):.2f} (0 all alike, 1 all equally frequent)",
        "answers begin with": _openers(corpus, distinct),
    }
    if alike["template_rate"] is not None:
        facts["answers that share a phrase"] = (
            f"{alike['template_rate']:.0%} have four words in a row that a tenth of them have"
        )
    if alike["distinct_2"] is not None:
        facts["different word pairs"] = (
            f"{alike['distinct_2']:.0%}, compression {alike['compression_ratio']:.2f} "
            "(a sample of 64 answers)"
        )
    if rows_by_topic:
        sizes = [len(rows) for rows in rows_by_topic.values()]
        labels = [i for i, size in enumerate(sizes) for _ in range(size)]
        facts["topics"] = f"{len(sizes)}, as varied as {effective_size(labels):.1f} of equal size"
    return facts


def _most(counts: Counter[str], number: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]


def first_word(prompt: str) -> str:
    """The first word of a prompt that is no politeness: the verb of most instructions."""
    return next((w for w in words(prompt[:200]) if w not in _POLITE and w.isalpha()), "")


def _spread(counts: Counter[str]) -> float:
    """Entropy of the shares by its largest possible value."""
    if len(counts) < 2:
        return 0.0
    shares = [number / counts.total() for number in counts.values()]
    return -sum(one * math.log(one) for one in shares) / math.log(len(counts))


def _openers(corpus: Corpus, distinct: Sequence[int]) -> str:
    begins = Counter(filter(None, (opener(corpus.answers[i]) for i in distinct)))
    most = [(phrase, number) for phrase, number in _most(begins, 4) if number > 1]
    parts = [f"{quoted(phrase, 40)} {share(number, len(distinct))}" for phrase, number in most]
    return ", ".join(parts) or "different words each"


def _topics(corpus: Corpus) -> dict[str, list[int]]:
    """Three marking words, or `mixed` -> rows, the largest first: k-means in a latent space."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
    from sklearn.preprocessing import normalize

    def telling(text: str) -> list[str]:
        return [word for word in words(text) if word.isalpha() and word not in ENGLISH_STOP_WORDS]

    texts = [prompt[:MAX_TEXT] for prompt in corpus.prompts]
    chosen = np.arange(len(texts))
    if len(texts) > MAX_FITTED:
        chosen = np.sort(np.random.default_rng(SEED).choice(len(texts), MAX_FITTED, replace=False))
    vectorizer = TfidfVectorizer(
        analyzer=telling,
        max_features=MAX_TERMS,
        max_df=0.5,
        min_df=2,
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        vectorizer.fit([texts[i] for i in chosen])
    except ValueError:  # no word is in two prompts and not in most of them
        return {}
    rows: csr_matrix = vectorizer.transform(texts).tocsr()
    components = min(COMPONENTS, rows.shape[1] - 1, len(chosen) - 1)
    number = max(2, min(MAX_TOPICS, len(texts) // ROWS_A_TOPIC))
    if components < 2:
        return {}
    svd = TruncatedSVD(components, random_state=SEED).fit(rows[chosen])
    latent = normalize(svd.transform(rows))
    means = MiniBatchKMeans(number, n_init=3, random_state=SEED, batch_size=2048)
    labels = means.fit(latent[chosen]).predict(latent)
    terms = vectorizer.get_feature_names_out().tolist()
    return topics(rows, labels, terms, against=rows, named=NAMED, other=MIXED)


def _findings(corpus: Corpus, rows_by_topic: Mapping[str, Sequence[int]]) -> list[DataFinding]:
    total = len(corpus.train)
    findings = []
    if len(rows_by_topic) > 2:
        name, rows = next(iter(rows_by_topic.items()))
        if name != MIXED and len(rows) > DOMINATES * total:
            message = f"{count(len(rows))} ({share(len(rows), total)}) are about one topic: {name}"
            fix = "sft curate DATA --select K --out FILE keeps the K most different rows"
            findings.append(finding(corpus, "diversity", "info", rows, message, fix))
    effective = effective_size(corpus.labels)
    if total >= MIN_ROWS and effective < FEW_DIFFERENT * total:
        copies = sorted({*range(total)} - {*first_of_each(corpus.labels)})
        message = (
            f"{total:,} rows say as much as {effective:,.0f} different ones; "
            f"{place(corpus, copies[0])} is like an earlier row"
        )
        fix = "sft curate DATA --dedupe near --out FILE, or data.deduplicate: true"
        findings.append(finding(corpus, "diversity", "warning", copies, message, fix))
    return findings
