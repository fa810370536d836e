"""Prompts as vectors, out of core: clusters of equal size, and rows that differ most.

Words and word pairs are hashed into 262,144 terms and weighted by TF-IDF. For many rows they are
projected to 64 dimensions: each term has 64 random signs (Achlioptas 2003), and a row is the sum
of the signs of its terms, kept as float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.stream.decision import Decision, Mask, Rows
from sft.curate.stream.feature_pass import Progress
from sft.curate.stream.ngrams import mixed
from sft.curate.stream.store import Lists, Mapped, Store

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TERMS = 1 << 18
DIMENSIONS = 64
EXACT_ROWS = 50_000  # up to so many, rows are compared by all their terms
BLOCK_ROWS = 50_000  # of which representatives are chosen at a time
LEARN_ROWS = 100_000  # that clusters are learned from
_BLOCK = 4_000


def select_diverse(store: Store, alive: Mask, k: int, seed: int, progress: Progress) -> Decision:
    """Keep `k` rows whose prompts lie as far from each other as possible: greedy k-center.

    As `sft.curate.remedies.select_diverse` for up to `EXACT_ROWS` rows (Gonzalez 1985: at most
    twice as far as the best choice). Beyond, on the projection: `k` rows of each block, and `k` of
    those (Malkomes et al. 2015: at most four times as far as the best choice on the projection).
    Takes about 2 * 64 * rows * k multiplications and additions.
    """
    rows = np.flatnonzero(alive)
    if k >= len(rows):
        return Decision.of([])
    if len(rows) <= EXACT_ROWS:
        rows = rows[np.argsort(store.load("order", ">u8")[rows], kind="stable")]
        vectors = _sparse(store, rows)
        chosen = rows[
            _k_center(lambda i: vectors @ vectors[i].toarray().ravel(), len(rows), k, seed)
        ]
    else:
        chosen = _from_blocks(store, rows, k, seed, progress)
    stays = np.zeros(len(alive), dtype=bool)
    stays[chosen] = True
    return Decision.of(np.flatnonzero(alive & ~stays))


def _from_blocks(store: Store, rows: Rows, k: int, seed: int, progress: Progress) -> Rows:
    projected = project(store, rows, progress)
    part = store.part("core")  # what was chosen of each block, should this be interrupted
    for start in range(part["rows"], len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        chosen = block[_k_center_dense(projected, block, k, seed)]
        store.append("core", {"core": chosen.tobytes()}, len(block))
        store.commit()
        progress("choosing rows:", part["rows"], len(rows))
    store.close()
    core = store.load("core", np.int64)
    return core[_k_center_dense(projected, core, k, seed)]


def _k_center_dense(projected: Mapped, rows: Rows, k: int, seed: int) -> NDArray[np.int64]:
    if k >= len(rows):
        return np.arange(len(rows))
    vectors = projected.values[rows].astype(np.float32)
    projected.forget()
    return _k_center(lambda i: vectors @ vectors[i], len(rows), k, seed)


def _k_center(likeness_to: Any, size: int, k: int, seed: int) -> NDArray[np.int64]:
    """Begin with one row, then always take the row that is least like those taken."""
    taken = [int(np.random.default_rng(seed).integers(size))]
    likeness = np.full(size, -1.0, dtype=np.float32)
    while len(taken) < k:
        np.maximum(likeness, likeness_to(taken[-1]), out=likeness)
        likeness[taken[-1]] = np.inf
        taken.append(int(likeness.argmin()))
    return np.array(taken, dtype=np.int64)


def balance(store: Store, alive: Mask, clusters: int, seed: int, progress: Progress) -> Decision:
    """Drop rows of large prompt clusters: none keeps more than its equal part of the rows.

    Clusters are those of k-means on the projection, learned from at most `LEARN_ROWS` rows.
    `kind` is the cluster of each dropped row and `value` its size.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    rows = np.flatnonzero(alive)
    if clusters >= len(rows):
        return Decision.of([])
    projected = project(store, rows, progress)
    learn = np.random.default_rng(seed).permutation(len(rows))[:LEARN_ROWS]
    with threadpool_limits(1):  # sums of floats depend on the number of threads
        model = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=4_096)
        model.fit(projected.values[np.sort(rows[learn])].astype(np.float32))
        labels = np.concatenate(
            [
                model.predict(projected.values[rows[at : at + _BLOCK]].astype(np.float32))
                for at in range(0, len(rows), _BLOCK)
            ]
        )
    projected.forget()
    order = np.lexsort((store.load("order", ">u8")[rows], labels))
    counts = np.bincount(labels, minlength=clusters)
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    cap = -(-len(rows) // clusters)
    beyond = np.sort(order[rank >= cap])
    return Decision.of(
        rows[beyond], kind=labels[beyond], value=counts[labels[beyond]], notes={"kept": cap}
    )


def project(store: Store, rows: Rows, progress: Progress) -> Mapped:
    """`[all rows, DIMENSIONS]` float16, of length 1 for `rows`; made once."""
    part = store.part("projected")
    if not part["done"]:
        terms = Lists(store, "terms", np.uint32)
        size = len(terms.begins) - 1
        idf = _idf(terms, rows)
        signs = _signs()
        with store.path("projected").open("wb") as file:
            for start in range(0, size, _BLOCK):
                made = np.zeros((min(_BLOCK, size - start), DIMENSIONS), dtype=np.float16)
                inside = _between(rows, start, start + len(made))
                if len(inside):
                    flat = _matrix(terms, inside, idf) @ signs
                    length = np.linalg.norm(flat, axis=1, keepdims=True)
                    made[inside - start] = flat / np.maximum(length, 1e-6)
                file.write(made.tobytes())
                progress("projecting prompts:", start + len(made), size)
        terms.close()
        store.finish("projected")
    return Mapped(store.path("projected"), np.float16, DIMENSIONS)


def _signs() -> NDArray[np.float32]:
    """`[TERMS, DIMENSIONS]`: the 64 bits of each term's number, mixed, as -1 and 1."""
    bits = np.unpackbits(mixed(np.arange(TERMS, dtype=np.uint64)).view(np.uint8))
    return bits.reshape(TERMS, DIMENSIONS).astype(np.float32) * 2 - 1


def _sparse(store: Store, rows: Rows) -> csr_matrix:
    """`[rows, TERMS]`: TF-IDF of the prompts of `rows`, in their order."""
    terms = Lists(store, "terms", np.uint32)
    matrix = _matrix(terms, rows, _idf(terms, np.sort(rows)))
    terms.close()
    return matrix


def _idf(terms: Lists, rows: Rows) -> NDArray[np.float32]:
    """`[TERMS]`: log of the rows by those that have the term, plus 1 (as scikit-learn's)."""
    having = np.zeros(TERMS, dtype=np.int64)
    for start in range(0, len(terms.begins) - 1, _BLOCK):
        inside = _between(rows, start, start + _BLOCK)
        for row in inside:
            having[np.unique(terms.row(int(row)) % TERMS)] += 1
    return (np.log((1 + len(rows)) / (1 + having)) + 1).astype(np.float32)


def _matrix(terms: Lists, rows: Rows, idf: NDArray[np.float32]) -> csr_matrix:
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    each = [terms.row(int(row)) % TERMS for row in rows]
    begins = np.concatenate([[0], np.cumsum([len(one) for one in each])])
    columns = np.concatenate(each).astype(np.int32) if each else np.zeros(0, np.int32)
    matrix = csr_matrix((idf[columns], columns, begins), shape=(len(rows), TERMS))
    matrix.sum_duplicates()
    return normalize(matrix)


def _between(rows: Rows, start: int, end: int) -> Rows:
    first, last = np.searchsorted(rows, [start, end])
    return rows[first:last]


def term_blocks(store: Store, rows: Rows) -> Iterator[tuple[Rows, list[NDArray[np.uint32]]]]:
    """The hashed terms of the prompts of `rows`, block by block."""
    terms = Lists(store, "terms", np.uint32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        yield block, [terms.row(int(row)) for row in block]
    terms.close()
