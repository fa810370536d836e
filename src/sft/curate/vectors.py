"""Texts by their words and word pairs: TF-IDF vectors, nearest texts, hashed terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sft.texts.languages import STOP_WORDS
from sft.texts.near_duplicates import words
from sft.texts.ngrams import word_hashes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SEED = 0
_ROWS = 256  # of a block of similarities


def words_and_pairs(text: str) -> list[str]:
    """The words of a text and each two that stand together."""
    single = words(text)
    return single + [f"{a} {b}" for a, b in pairwise(single)]


class RowTerms(Protocol):
    """Hashed terms of many rows, in memory or on disk; `begins` is `[num_rows + 1]`."""

    @property
    def begins(self) -> NDArray[np.int64]:
        """Where the terms of each row begin, and where the last ones end."""

    def row(self, index: int) -> NDArray[np.uint32]:
        """The terms of one row."""


@dataclass(frozen=True, slots=True)
class HashedTerms:
    """`RowTerms` in memory: `flat` holds the terms of all rows, end to end."""

    flat: NDArray[np.uint32]
    begins: NDArray[np.int64]

    def row(self, index: int) -> NDArray[np.uint32]:
        """The terms of one row."""
        return self.flat[self.begins[index] : self.begins[index + 1]]


def hashed_terms(texts: Sequence[str]) -> HashedTerms:
    """The words and word pairs of each text as 32-bit hashes, the same in every process."""
    flat, begins = word_hashes([words_and_pairs(text) for text in texts])
    return HashedTerms((flat >> np.uint64(32)).astype(np.uint32), begins)


def tfidf(*groups: Sequence[str]) -> tuple[csr_matrix, list[str]]:
    """Vectors of all groups, one after the other, with one vocabulary for all, and its terms.

    They are `[num_texts, num_terms]`, sparse, each of length 1 (0 for a text of no words).

    With the vocabulary of the training texts alone, what is new in the others would vanish and
    the rest be scaled up to length 1: everything would seem to be known.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [text for group in groups for text in group]
    if not any(words(text) for text in texts):
        texts = [f"{text} \u2205" for text in texts]  # one word all share, rather than none
    vectorizer = TfidfVectorizer(analyzer=words_and_pairs, dtype=np.float32)
    rows = vectorizer.fit_transform(texts).tocsr()
    return rows, vectorizer.get_feature_names_out().tolist()


def nearest(
    rows: csr_matrix, others: csr_matrix, skip: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index and cosine, both `[num_rows]`: the nearest of `others` to each of `rows`.

    `skip[i]` is an index of `others` that is not compared with row i: the row itself.
    """
    index = np.zeros(rows.shape[0], dtype=np.int64)
    cosine = np.zeros(rows.shape[0])
    turned = others.T.tocsr()
    for start in range(0, rows.shape[0], _ROWS):
        block = (rows[start : start + _ROWS] @ turned).toarray()
        at = np.arange(len(block))
        if skip is not None:
            block[at, skip[start : start + _ROWS]] = -1.0
        index[start : start + _ROWS] = block.argmax(axis=1)
        cosine[start : start + _ROWS] = block.max(axis=1)
    return index, cosine


def is_telling(term: str) -> bool:
    """Whether a term is a single word that says what a text is about."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return term.isalpha() and len(term) > 1 and term not in STOP_WORDS | ENGLISH_STOP_WORDS


def top_words(weights: NDArray[np.float64], terms: Sequence[str], count: int) -> list[str]:
    """At most `count` single words of the largest weights above 0 that say what a text is about.

    `weights` is `[num_terms]`.
    """
    order = (i for i in np.argsort(-weights, kind="stable") if weights[i] > 0)
    return list(islice((terms[i] for i in order if is_telling(terms[i])), count))


def topics(
    rows: csr_matrix,
    labels: NDArray[np.integer],
    terms: Sequence[str],
    *,
    against: csr_matrix | None = None,
    min_texts: int = 1,
    named: float = 0.0,
    other: str = "other",
) -> dict[str, list[int]]:
    """The texts of each label by the three words that mark them, the largest group first.

    Words mark a group against the texts `against`, or else of the other groups. They are of
    `min_texts` texts at least, and so large a share `named` of the group has one of them: the group
    of all that fits nowhere else has marking words too, and is called `other`.
    """
    shared = np.asarray((rows > 0).sum(axis=0)).ravel() >= min_texts
    index = {term: i for i, term in enumerate(terms)}
    groups: dict[str, list[int]] = {}
    for label in np.unique(labels):
        inside = labels == label
        outside = rows[~inside] if against is None else against
        weights = np.asarray(rows[inside].mean(axis=0)).ravel() * shared
        if outside.shape[0]:
            weights = weights - np.asarray(outside.mean(axis=0)).ravel()
        marking = top_words(weights, terms, 3)
        having = rows[inside][:, [index[word] for word in marking]].sum(axis=1) > 0
        name = ", ".join(marking) if marking and having.mean() >= named else other
        groups.setdefault(name, []).extend(np.flatnonzero(inside).tolist())
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return {name: sorted(members) for name, members in ordered}
