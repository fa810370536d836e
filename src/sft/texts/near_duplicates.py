"""Near-duplicate texts: clusters of rows that say almost the same, and how many rows remain.

Two texts are near-duplicates when the Jaccard similarity of their word 5-grams is at least 0.8.
Candidates are found with MinHash (Broder 1997) and locality-sensitive hashing; each of them is
then checked with its real similarity, so that no two texts are joined by chance.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

NUM_HASHES = 256
SEED = 1
# Chance to find a pair that is exactly as similar as the threshold asks; more similar: higher.
FOUND = 0.995
# A text is compared with so many of the texts it shares a bucket with. Templated rows share one
# by the thousand; there the most similar stand next to each other, so few are enough.
NEIGHBOURS = 8
# Three standard errors of a similarity of 0.8 that is estimated from 256 hashes.
SLACK = 0.075

# Scripts that are written without spaces, or with spaces of another meaning: a character a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Marks that can be added to a text or left out; other symbols (+ < {) carry meaning.
_MARKS = r"\s.,;:!?\"'()`*\u2018-\u201f\u2026\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+|[^\w{_MARKS}]")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; other symbols are words too."""
    return _WORD.findall(text.lower())


def clusters(texts: Sequence[str], threshold: float = 0.8, ngram: int = 5) -> list[int]:
    """Cluster number of each text; numbers count from 0 in the order of the texts.

    A cluster is a set of texts that are linked by similarities of at least `threshold`, directly
    or through others. A text of fewer words than `ngram` is one n-gram. Texts with the same
    words are always together. Which texts are together depends neither on their order nor on
    the process. Takes about ten seconds for 50,000 texts of 90 words.
    """
    keys = [" ".join(words(text)) or " ".join(text.lower().split()) for text in texts]
    distinct = sorted(set(keys))
    roots = _Roots(len(distinct))
    if len(distinct) > 1:
        _join(distinct, threshold, ngram, roots)
    place = {key: i for i, key in enumerate(distinct)}
    number: dict[int, int] = {}
    return [number.setdefault(roots.find(place[key]), len(number)) for key in keys]


def effective_size(labels: Sequence[int]) -> float:
    """exp(entropy of the cluster sizes): the number of clusters when all are equally large.

    64 rows that are 16 copies of 4 rows count as 4. 0 for no rows.
    """
    if not labels:
        return 0.0
    shares = [count / len(labels) for count in Counter(labels).values()]
    # 16 rows that all differ are 16, not 15.999999999999996: limits may be met exactly.
    return round(math.exp(-sum(share * math.log(share) for share in shares)), 9)


class _Roots:
    """Disjoint sets of the numbers below `size`."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        i, j = sorted((self.find(i), self.find(j)))
        self._parent[j] = i


def _join(texts: Sequence[str], threshold: float, ngram: int, roots: _Roots) -> None:
    """Join the texts of each pair whose real similarity reaches the threshold."""
    known: dict[int, frozenset[int]] = {}

    def shingles(i: int) -> frozenset[int]:
        if i not in known:  # 64-bit hashes take half the memory of the n-grams themselves
            known[i] = frozenset(map(hash, _shingles(texts[i], ngram)))
        return known[i]

    for i, j in _candidates(_signatures(texts, ngram), threshold):
        if roots.find(i) == roots.find(j):
            continue
        shared = len(shingles(i) & shingles(j))
        if shared >= threshold * (len(shingles(i)) + len(shingles(j)) - shared):
            roots.join(i, j)


def _shingles(text: str, ngram: int) -> frozenset[str]:
    parts = text.split(" ")
    return frozenset(
        " ".join(parts[start : start + ngram]) for start in range(max(1, len(parts) - ngram + 1))
    )


def _signatures(texts: Sequence[str], ngram: int) -> NDArray[np.uint32]:
    """`[num_texts, NUM_HASHES]`: two texts agree in a column with the chance of their Jaccard."""
    from datasketch import MinHash  # half a second to import

    encoded = (
        [shingle.encode("utf-8", "surrogatepass") for shingle in _shingles(text, ngram)]
        for text in texts
    )
    sketches = MinHash.generator(
        encoded, num_perm=NUM_HASHES, seed=SEED, hashfunc=zlib.crc32, scheme="affine32"
    )
    found = np.empty((len(texts), NUM_HASHES), dtype=np.uint32)
    for row, sketch in zip(found, sketches, strict=True):
        row[:] = sketch.hashvalues
    return found


def _candidates(signatures: NDArray[np.uint32], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs that agree in one band of the signature and are similar by estimate; best first."""
    num_texts = len(signatures)
    width = _band_width(threshold)
    codes, estimates = [], []
    for start in range(0, NUM_HASHES - width + 1, width):
        pairs = _same_bucket(signatures, start, width)
        for part in np.array_split(pairs, len(pairs) // 50_000 + 1):
            agree = np.count_nonzero(signatures[part[:, 0]] == signatures[part[:, 1]], axis=1)
            keep = agree >= (threshold - SLACK) * NUM_HASHES
            codes.append(part[keep, 0] * num_texts + part[keep, 1])
            estimates.append(agree[keep].astype(np.int16))
    code, first = np.unique(np.concatenate(codes), return_index=True)
    best = np.argsort(-np.concatenate(estimates)[first], kind="stable")
    for pair in code[best]:
        i, j = divmod(int(pair), num_texts)
        yield i, j


def _band_width(threshold: float) -> int:
    """Columns of a band, as many as still find a pair at the threshold with chance `FOUND`."""
    widths = range(NUM_HASHES // 2, 1, -1)
    missed = ((width, (1 - threshold**width) ** (NUM_HASHES // width)) for width in widths)
    return next((width for width, chance in missed if chance <= 1 - FOUND), 1)


def _same_bucket(signatures: NDArray[np.uint32], start: int, width: int) -> NDArray[np.int64]:
    """`[num_pairs, 2]`: texts that agree in the band, each with the next few after it."""
    # Sorted by the band and then by what follows it, so that the most similar are neighbours.
    columns = [(start + i) % NUM_HASHES for i in range(2 * width)]
    order = np.lexsort([signatures[:, column] for column in reversed(columns)])
    band = signatures[order, start : start + width]
    bucket = np.concatenate([[0], np.cumsum((band[1:] != band[:-1]).any(axis=1))])
    pairs = []
    for distance in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
        same = bucket[distance:] == bucket[:-distance]
        pairs.append(np.stack([order[:-distance][same], order[distance:][same]], axis=1))
    return np.sort(np.concatenate(pairs), axis=1)
