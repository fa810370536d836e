"""Texts as TF-IDF vectors of words and word pairs, and how near they lie to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft.data.near_duplicates import words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SEED = 0
_ROWS = 256  # of a block of similarities


@dataclass(frozen=True, slots=True)
class Vectors:
    """`rows` is `[num_texts, num_terms]`, sparse, each of length 1 (0 for a text of no words)."""

    rows: csr_matrix
    terms: NDArray[np.object_]


def words_and_pairs(text: str) -> list[str]:
    """The words of a text and each two that stand together."""
    single = words(text)
    return single + [f"{a} {b}" for a, b in zip(single, single[1:], strict=False)]


def tfidf(*groups: Sequence[str]) -> Vectors:
    """Vectors of all groups, one after the other, with one vocabulary for all of them.

    With the vocabulary of the training texts alone, what is new in the others would vanish and
    the rest be scaled up to length 1: everything would seem to be known.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [text for group in groups for text in group]
    if not any(words(text) for text in texts):
        texts = [f"{text} \u2205" for text in texts]  # one word all share, rather than none
    vectorizer = TfidfVectorizer(analyzer=words_and_pairs, dtype=np.float32)
    rows = vectorizer.fit_transform(texts).tocsr()
    return Vectors(rows, vectorizer.get_feature_names_out())


def nearest(rows: csr_matrix, others: csr_matrix, skip: Sequence[int] | None = None) -> Any:
    """`(index, cosine)`, both `[num_rows]`: the nearest of `others` to each of `rows`.

    `skip[i]` is an index of `others` that is not compared with row i: the row itself.
    """
    index = np.zeros(rows.shape[0], dtype=np.int64)
    cosine = np.zeros(rows.shape[0])
    turned = others.T.tocsr()
    for start in range(0, rows.shape[0], _ROWS):
        block = (rows[start : start + _ROWS] @ turned).toarray()
        at = np.arange(len(block))
        if skip is not None:
            block[at, list(skip[start : start + _ROWS])] = -1.0
        index[start : start + _ROWS] = block.argmax(axis=1)
        cosine[start : start + _ROWS] = block.max(axis=1)
    return index, cosine


def top_terms(inside: csr_matrix, outside: csr_matrix, terms: Sequence[str], count: int) -> str:
    """The single words that mark `inside` against `outside`, joined with commas."""
    weight = np.asarray(inside.mean(axis=0)).ravel()
    if outside.shape[0]:
        weight = weight - np.asarray(outside.mean(axis=0)).ravel()
    order = np.argsort(-weight, kind="stable")
    telling = (
        terms[i] for i in order[: 20 * count] if weight[i] > 0 and is_telling(terms[i])
    )
    return ", ".join(word for word, _ in zip(telling, range(count), strict=False))
