"""The rows that differ most, and clusters of prompts, for any number of rows.

Words and word pairs of the prompts are hashed into 262,144 terms and weighted by TF-IDF. Many rows
are projected to 64 dimensions: each term has 64 random signs (Achlioptas 2003), and a row is the
sum of the signs of its terms, kept as float16. `data.select_rows` and `sft curate --select` and
`--balance` all ask this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sft.curate.vectors import RowTerms
from sft.texts.ngrams import mixed

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TERMS = 1 << 18
DIMENSIONS = 64
EXACT_ROWS = 50_000  # up to so many, rows are compared by all their terms
BLOCK_ROWS = 50_000  # of which representatives are chosen at a time
LEARN_ROWS = 100_000  # that clusters are learned from
_BLOCK = 4_000

Rows = NDArray[np.int64]
Vectors = NDArray[np.float16]
Progress = Callable[[str, int, int], None]  # (what, done, total)
# Puts blocks of vectors end to end: in memory, or in a file that is mapped.
Joined = Callable[[Iterator[Vectors]], Vectors]


def most_different(
    terms: RowTerms,
    rows: Rows,
    order: NDArray[np.generic],
    k: int,
    seed: int,
    joined: Joined | None = None,
    progress: Progress = lambda *_: None,
) -> Rows:
    """`k` of `rows` (ascending) whose prompts are far from each other: greedy k-center.

    Begins with one row and always takes the row that is least like those taken. No prompt is then
    further from its nearest taken one than twice what the best choice of `k` could do (Gonzalez
    1985). Beyond `EXACT_ROWS` rows, on the projection: `k` rows of each block, and `k` of those
    (Malkomes et al. 2015: at most four times). Takes about 2 * 64 * rows * k multiplications and
    additions. `order` has a number for each row of `terms`, which decides where the choice begins,
    so that it does not depend on the order of the rows.
    """
    if k >= len(rows):
        return rows
    if len(rows) <= EXACT_ROWS:
        ordered = rows[np.argsort(order[rows], kind="stable")]
        vectors = _matrix(terms, ordered, _idf(terms, rows))

        def likeness_to(i: int) -> NDArray[np.float32]:
            return np.asarray(vectors @ vectors[i].toarray().ravel())

        return ordered[_k_center(likeness_to, len(rows), k, seed)]
    projected = (joined or _in_memory)(_projection(terms, rows, progress))
    chosen = []
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        chosen.append(block[_k_center_dense(projected[block], k, seed)])
        progress("choosing rows:", start + len(block), len(rows))
    core = np.concatenate(chosen)
    return core[_k_center_dense(projected[core], k, seed)]


def prompt_clusters(
    terms: RowTerms,
    rows: Rows,
    clusters: int,
    seed: int,
    joined: Joined | None = None,
    progress: Progress = lambda *_: None,
) -> NDArray[np.int32]:
    """`[len(rows)]`: the cluster of each of `rows` (ascending), of k-means on the projection.

    It is learned from at most `LEARN_ROWS` rows.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    vectors = (joined or _in_memory)(_projection(terms, rows, progress))
    learn = np.random.default_rng(seed).permutation(len(rows))[:LEARN_ROWS]
    with threadpool_limits(1):  # sums of floats depend on the number of threads
        model = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=4_096)
        model.fit(vectors[np.sort(rows[learn])].astype(np.float32))
        return np.concatenate(
            [
                model.predict(vectors[rows[at : at + _BLOCK]].astype(np.float32))
                for at in range(0, len(rows), _BLOCK)
            ]
        )


def _k_center_dense(vectors: Vectors, k: int, seed: int) -> Rows:
    if k >= len(vectors):
        return np.arange(len(vectors))
    exact = vectors.astype(np.float32)
    return _k_center(lambda i: exact @ exact[i], len(exact), k, seed)


def _k_center(
    likeness_to: Callable[[int], NDArray[np.float32]], size: int, k: int, seed: int
) -> Rows:
    taken = [int(np.random.default_rng(seed).integers(size))]
    likeness = np.full(size, -1.0, dtype=np.float32)
    while len(taken) < k:
        np.maximum(likeness, likeness_to(taken[-1]), out=likeness)
        likeness[taken[-1]] = np.inf
        taken.append(int(likeness.argmin()))
    return np.array(taken, dtype=np.int64)


def _in_memory(blocks: Iterator[Vectors]) -> Vectors:
    return np.concatenate(list(blocks))


def _projection(terms: RowTerms, rows: Rows, progress: Progress) -> Iterator[Vectors]:
    """`[all rows, DIMENSIONS]`, block by block; of length 1 for `rows`, 0 for the others."""
    size = len(terms.begins) - 1
    idf = _idf(terms, rows)
    signs = _signs()
    for start in range(0, size, _BLOCK):
        block = np.zeros((min(_BLOCK, size - start), DIMENSIONS), dtype=np.float16)
        inside = rows[slice(*np.searchsorted(rows, [start, start + len(block)]))]
        if len(inside):
            flat = _matrix(terms, inside, idf) @ signs
            length = np.linalg.norm(flat, axis=1, keepdims=True)
            block[inside - start] = flat / np.maximum(length, 1e-6)
        yield block
        progress("projecting prompts:", start + len(block), size)


def _signs() -> NDArray[np.float32]:
    """`[TERMS, DIMENSIONS]`: the 64 bits of each term's number, mixed, as -1 and 1."""
    bits = np.unpackbits(mixed(np.arange(TERMS, dtype=np.uint64)).view(np.uint8))
    return bits.reshape(TERMS, DIMENSIONS).astype(np.float32) * 2 - 1


def _idf(terms: RowTerms, rows: Rows) -> NDArray[np.float32]:
    """`[TERMS]`: log of the rows by those that have the term, plus 1 (as scikit-learn's)."""
    having = np.zeros(TERMS, dtype=np.int64)
    for row in rows.tolist():
        having[np.unique(terms.row(row) % TERMS)] += 1
    return (np.log((1 + len(rows)) / (1 + having)) + 1).astype(np.float32)


def _matrix(terms: RowTerms, rows: Rows, idf: NDArray[np.float32]) -> csr_matrix:
    """`[len(rows), TERMS]`: TF-IDF of the prompts of `rows`, in their order, of length 1."""
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    each = [terms.row(int(row)) % TERMS for row in rows]
    begins = np.concatenate([[0], np.cumsum([len(one) for one in each])])
    columns = np.concatenate(each).astype(np.int32)
    matrix = csr_matrix((idf[columns], columns, begins), shape=(len(rows), TERMS))
    matrix.sum_duplicates()
    return normalize(matrix)
