"""Near-duplicates: which texts or rows say almost the same, and how many different ones remain.

Two texts are near-duplicates when the Jaccard similarity of their word 5-grams is at least 0.8,
and two rows of one turn also when one side has the same words and the other nearly: short rows
that differ in a word or two have few 5-grams in common. Candidates come from MinHash (Broder 1997)
in bands; each is then compared exactly, so that no two are joined by chance. The columns that are
compared may lie in memory or on disk, so that millions of rows are judged by the same rule as six.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sft.texts.ngrams import (
    BANDS,
    NUM_HASHES,
    Hashes,
    band_keys,
    jaccard,
    mixed,
    run_hashes,
    short_signatures,
    signatures,
    text_hash,
    word_hashes,
)

THRESHOLD, RUN = 0.8, 5  # of the Jaccard similarity of runs of so many words
# A row is compared with so many of those it shares a band with. Templated rows share one by the
# thousand; there the most similar stand next to each other, so few are enough.
NEIGHBOURS = 8
SLACK = 0.11  # three standard errors of a similarity of 0.8 that is estimated from 126 hashes
# When one side of two rows has the same words, the other side may differ by this share of its own.
SAME_ANSWER, SAME_PROMPT = 0.7, 0.6
MIN_SHARED = 5  # words of the side that is the same: many rows have the answer "Positive"
MAX_SET = 1_000  # rows with one side in common that are compared with each other
_PAIRS = 20_000  # whose signatures are compared at a time
_BLOCK = 2_000  # texts that are hashed at a time
BAND_NAMES = tuple(f"band{band:02d}" for band in range(BANDS))

Pairs = NDArray[np.int64]  # [pairs, 2]

# Scripts that are written without spaces, or with spaces of another meaning: a character a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Marks that can be added to a text or left out; other symbols (+ < {) carry meaning.
_MARKS = r"\s.,;:!?\"'()`*\u2018-\u201f\u2026\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+|[^\w{_MARKS}]")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; other symbols are words too."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, slots=True)
class Sides:
    """The words of a row: of all that it says, and of both sides where it is one question and one
    answer (else empty). Rows of different `kind`, such as with other tools, have no side in common.
    """

    text: Sequence[str]
    prompt: Sequence[str] = ()
    answer: Sequence[str] = ()
    kind: str = ""

    @classmethod
    def of(cls, text: str) -> Sides:
        """Those of a text; one without words is split at white space."""
        return cls(words(text) or text.lower().split() or [""])

    @property
    def key(self) -> str:
        """Equal for rows that say the same."""
        return "\0".join((*(" ".join(p) for p in (self.text, self.prompt, self.answer)), self.kind))


def clusters(texts: Sequence[str]) -> list[int]:
    """Cluster number of each text; see `row_clusters`."""
    return row_clusters([Sides.of(text) for text in texts])


def row_clusters(rows: Sequence[Sides]) -> list[int]:
    """Cluster number of each row; numbers count from 0 in the order of the rows.

    A cluster is a set of rows that are near-duplicates, directly or through others. A text of
    fewer words than a run is one run. Which rows are together depends neither on their order nor
    on the process. Takes about five seconds for 50,000 rows of 90 words.
    """
    keys = [row.key for row in rows]
    distinct = dict(sorted(zip(keys, rows, strict=True)))
    roots = link(_InMemory(list(distinct.values())))
    index = {key: i for i, key in enumerate(distinct)}
    number: dict[int, int] = {}
    return [number.setdefault(roots.find(index[key]), len(number)) for key in keys]


def first_of_each(labels: Sequence[int]) -> list[int]:
    """Indices of the first of each label, in order."""
    first: dict[int, int] = {}
    for index, label in enumerate(labels):
        first.setdefault(label, index)
    return list(first.values())


def without_repeats(texts: Sequence[str]) -> list[int]:
    """Indices of the first text of each cluster of near-duplicates, in order."""
    return first_of_each(clusters(texts))


def effective_size(labels: Sequence[int]) -> float:
    """exp(entropy of the cluster sizes): the number of clusters when all are equally large.

    64 rows that are 16 copies of 4 rows count as 4. 0 for no rows.
    """
    if not labels:
        return 0.0
    shares = [count / len(labels) for count in Counter(labels).values()]
    # 16 rows that all differ are 16, not 15.999999999999996: limits may be met exactly.
    return round(math.exp(-sum(share * math.log(share) for share in shares)), 9)


def alike(a: Sequence[str], b: Sequence[str]) -> float:
    """Jaccard similarity of two lists of words, in any order; 1 for two empty ones."""
    first, second = set(a), set(b)
    return len(first & second) / len(first | second) if first or second else 1.0


class Roots:
    """Disjoint sets of the numbers below `size`; the root of a set is its smallest number."""

    def __init__(self, size: int) -> None:
        self._parent = np.arange(size, dtype=np.int32)
        self._settled = True

    def find(self, i: int) -> int:
        """The root of the set of `i`."""
        parent = self._parent
        root = i
        while (above := int(parent[root])) != root:
            root = above
        while (above := int(parent[i])) != root:
            parent[i], i = root, above
        return root

    def join(self, i: int, j: int) -> None:
        """Make one set of the two that hold `i` and `j`."""
        low, high = sorted((self.find(i), self.find(j)))
        self._parent[high] = low
        self._settled = False

    def join_equal(self, labels: Sequence[object]) -> None:
        """Make one set of the numbers with the same label."""
        first: dict[object, int] = {}
        for i, label in enumerate(labels):
            if (earlier := first.setdefault(label, i)) != i:
                self.join(earlier, i)

    def all(self) -> NDArray[np.int32]:
        """`[size]`: the root of each number."""
        while not self._settled:
            above = self._parent[self._parent]
            self._settled = bool((above == self._parent).all())
            self._parent = above
        return self._parent


def columns_of(
    rows: Sequence[Sides],
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[Hashes, NDArray[np.int64]]]]:
    """What rows are compared by, by name: numbers of each row, and lists of hashes.

    The numbers are `signature` (`[rows, NUM_HASHES]`), the bands of the signatures, and the keys of
    both sides (`side_keys`); the lists, end to end with how many each row has, are `runs` and the
    words of `prompt` and `answer` in order.
    """
    runs, begins = run_hashes(*word_hashes([row.text for row in rows]), RUN)
    signed = signatures(runs, begins)
    numbers: dict[str, NDArray[Any]] = {"signature": short_signatures(signed)}
    numbers |= zip(BAND_NAMES, band_keys(signed), strict=True)
    lists = {"runs": (runs, np.diff(begins))}
    for side in ("prompt", "answer"):
        flat, starts = word_hashes([getattr(row, side) for row in rows])
        numbers[f"{side}.key"] = side_keys(flat, starts, [row.kind for row in rows])
        lists[side] = (flat, np.diff(starts))
    return numbers, lists


class Columns(Protocol):
    """The columns of `columns_of`; rows are numbered from 0."""

    def __len__(self) -> int:
        """The number of rows."""

    def numbers(self, name: str) -> Hashes:
        """`[rows]`: a band, or the keys of a side."""

    def signatures(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """`[rows, NUM_HASHES]`."""

    def hashes(self, name: str, row: int) -> Hashes:
        """One of the lists of a row."""


class _InMemory:
    """The columns of some rows."""

    def __init__(self, rows: Sequence[Sides]) -> None:
        parts = [columns_of(rows[at : at + _BLOCK]) for at in range(0, max(1, len(rows)), _BLOCK)]
        self._size = len(rows)
        self._numbers = {
            name: np.concatenate([numbers[name] for numbers, _ in parts]) for name in parts[0][0]
        }
        self._hashes = {
            name: [
                one
                for _, lists in parts
                for one in np.split(lists[name][0], np.cumsum(lists[name][1])[:-1])
            ]
            for name in parts[0][1]
        }

    def __len__(self) -> int:
        return self._size

    def numbers(self, name: str) -> Hashes:
        return self._numbers[name]

    def signatures(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._numbers["signature"][rows]

    def hashes(self, name: str, row: int) -> Hashes:
        return self._hashes[name][row]


def link(columns: Columns, progress: Callable[[str, int, int], None] | None = None) -> Roots:
    """The sets of rows that are near-duplicates, directly or through others."""
    roots = Roots(len(columns))
    if len(columns) < 2:
        return roots
    for i, j in same_side_pairs(columns):
        roots.join(i, j)
    for band in range(BANDS):
        for pairs in _likely(columns, band, roots):
            for i, j in pairs.tolist():
                joined = roots.find(i) == roots.find(j)
                if not joined and (
                    jaccard(columns.hashes("runs", i), columns.hashes("runs", j)) >= THRESHOLD
                ):
                    roots.join(i, j)
        if progress:
            progress("comparing rows: band", band + 1, BANDS)
    return roots


def _likely(columns: Columns, band: int, roots: Roots) -> Iterator[Pairs]:
    """Rows that agree in the band, seem to be alike and are not joined yet; the best first."""
    keys = columns.numbers(BAND_NAMES[band])
    # Sorted by the next band too, so that of many rows with one key the most alike are neighbours.
    order = np.lexsort((columns.numbers(BAND_NAMES[(band + 1) % BANDS]), keys))
    keys = keys[order]
    for distance in range(1, min(NEIGHBOURS, len(keys) - 1) + 1):
        at = np.flatnonzero(keys[distance:] == keys[:-distance])
        for part in np.array_split(at, len(at) // _PAIRS + 1):
            pairs = np.stack([order[part], order[part + distance]], axis=1)
            root = roots.all()
            pairs = pairs[root[pairs[:, 0]] != root[pairs[:, 1]]]
            if len(pairs):
                first, second = (columns.signatures(pairs[:, i]) for i in (0, 1))
                agree = np.count_nonzero(first == second, axis=1)
                best = np.argsort(-agree, kind="stable")
                yield pairs[best][agree[best] >= (THRESHOLD - SLACK) * NUM_HASHES]


# ------------------------------------------------------------------ rows with one side in common


def side_keys(flat: Hashes, starts: NDArray[np.int64], kinds: Sequence[str]) -> Hashes:
    """`[rows]`: a number for the words of each row in any order; 0 for fewer than `MIN_SHARED`.

    `flat` and `starts` are those of `word_hashes`.
    """
    sums = np.append(np.uint64(0), np.cumsum(mixed(flat), dtype=np.uint64))  # modulo 2^64
    kind = np.array([text_hash(one) if one else 0 for one in kinds], dtype=np.uint64)
    keys: Hashes = mixed(sums[starts[1:]] - sums[starts[:-1]] + kind) | np.uint64(1)
    keys[np.diff(starts) < MIN_SHARED] = 0
    return keys


def same_side_pairs(columns: Columns) -> Iterator[tuple[int, int]]:
    """Rows of which one side has the same words, and the other nearly or goes on."""
    for same, other, least in (
        ("prompt", "answer", SAME_PROMPT),
        ("answer", "prompt", SAME_ANSWER),
    ):
        keys = columns.numbers(f"{same}.key")
        for rows in _sets(keys):
            hashed = [columns.hashes(other, row) for row in rows.tolist()]
            for i, j in _overlapping(keys[rows], hashed, least):
                yield int(rows[i]), int(rows[j])
            if same == "prompt":
                for i, j in _going_on(keys[rows], hashed):
                    yield int(rows[i]), int(rows[j])


def _sets(keys: Hashes) -> Iterator[NDArray[np.int64]]:
    """Rows that share their key with others, whole sets together, `MAX_SET` at a time."""
    order = np.argsort(keys, kind="stable")
    order = order[keys[order] != 0]
    _, begins, counts = np.unique(keys[order], return_index=True, return_counts=True)
    batch: list[NDArray[np.int64]] = []
    size = 0
    for begin, count in zip(begins[counts > 1], counts[counts > 1], strict=True):
        if size + count > MAX_SET and batch:
            yield np.concatenate(batch)
            batch, size = [], 0
        for start in range(begin, begin + count, MAX_SET):
            batch.append(order[start : min(start + MAX_SET, begin + count)])
            size += len(batch[-1])
            if size >= MAX_SET:
                yield np.concatenate(batch)
                batch, size = [], 0
    if batch:
        yield np.concatenate(batch)


def _overlapping(keys: Hashes, hashed: Sequence[Hashes], least: float) -> Iterator[tuple[int, int]]:
    """Those with one key whose sets of words have a Jaccard similarity of `least`."""
    from scipy.sparse import csr_matrix

    # A word counts as the same within one set of rows only.
    parts = [np.unique(mixed(one ^ key)) for one, key in zip(hashed, keys, strict=True)]
    sizes = np.array([len(part) for part in parts])
    _, column = np.unique(np.concatenate(parts), return_inverse=True)
    begins = np.concatenate([[0], np.cumsum(sizes)])
    has = csr_matrix((np.ones(len(column), np.int32), column, begins))
    shared = (has @ has.T).tocoo()
    pairs = shared.row < shared.col
    row, col, both = shared.row[pairs], shared.col[pairs], shared.data[pairs]
    near = both >= least * (sizes[row] + sizes[col] - both)
    yield from zip(row[near].tolist(), col[near].tolist(), strict=True)


def _going_on(keys: Hashes, hashed: Sequence[Hashes]) -> Iterator[tuple[int, int]]:
    """Those with one key of which one is the beginning of the other."""
    ordered = sorted(
        (int(key), one.tolist(), i)
        for i, (key, one) in enumerate(zip(keys, hashed, strict=True))
        if len(one)
    )
    beginnings: list[tuple[int, list[int], int]] = []  # of the one before, each of the next
    for key, one, i in ordered:
        while beginnings and not (
            beginnings[-1][0] == key and one[: len(beginnings[-1][1])] == beginnings[-1][1]
        ):
            beginnings.pop()
        if beginnings:
            yield beginnings[-1][2], i
        beginnings.append((key, one, i))
