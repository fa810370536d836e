"""Runs of words as 64-bit hashes, and their MinHash signatures: the same in every process.

Word hashes are BLAKE2b; a run is hashed by a polynomial of its words and mixed. Signatures are
MinHash (Broder 1997) with multiply-add permutations of 32 bits, as in datasketch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# 21 bands of 6: a pair that is exactly 0.8 alike is found with a chance of 0.998.
BANDS, BAND_WIDTH = 21, 6
NUM_HASHES = BANDS * BAND_WIDTH
_MAX_WORDS = 200_000  # whose hashes are remembered
_BLOCK = 2_048  # runs that are permuted at a time
_RNG = np.random.default_rng(20_250_101)
_FACTORS = _RNG.integers(0, 1 << 32, NUM_HASHES, dtype=np.uint32) | np.uint32(1)
_OFFSETS = _RNG.integers(0, 1 << 32, NUM_HASHES, dtype=np.uint32)
_PLACES = _RNG.integers(0, 1 << 63, 64, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


class _WordHashes(dict[str, int]):
    """Word -> hash, computed when first asked for."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MAX_WORDS:
            self.clear()
        self[word] = found = text_hash(word)
        return found


_WORDS = _WordHashes()


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b of a text."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def text_key(text: str) -> bytes:
    """16 bytes of BLAKE2b of a text: two texts with the same key are the same."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def word_hashes(parts: Sequence[Sequence[str]]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of all words of some texts, end to end, and where each text begins: `[texts + 1]`."""
    starts = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in parts], out=starts[1:])
    found = list(map(_WORDS.__getitem__, chain.from_iterable(parts)))
    flat = np.array(found, dtype=np.uint64)
    return flat, starts


def run_hashes(
    flat: Hashes, starts: NDArray[np.int64], length: int, whole: bool = True
) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of the runs of `length` words of each text, in order, and where each text's begin.

    With `whole`, a text of fewer words is one run; without, it has none.
    """
    num_words = np.diff(starts)
    counts = np.maximum(num_words - length + 1, 1 if whole else 0)
    begins = np.zeros(len(starts), dtype=np.int64)
    np.cumsum(counts, out=begins[1:])
    at = np.arange(begins[-1]) + np.repeat(starts[:-1] - begins[:-1], counts)
    left = np.repeat(np.minimum(num_words, length), counts)  # words of the run
    padded = np.append(flat, np.zeros(length, dtype=np.uint64))
    found = mixed(left.astype(np.uint64) + np.uint64(length))
    full = left.min(initial=length) == length
    for i in range(length):
        term = padded[at + i] * _PLACES[i]
        found += term if full else np.where(left > i, term, np.uint64(0))
    return mixed(found), begins


def mixed(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele et al. 2014): every bit depends on every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def signatures(runs: Hashes, begins: NDArray[np.int64]) -> NDArray[np.uint32]:
    """`[texts, NUM_HASHES]`: two texts agree in a column with the chance of their Jaccard."""
    short = (runs >> np.uint64(32)).astype(np.uint32)
    found = np.full((len(begins) - 1, NUM_HASHES), 0xFFFFFFFF, dtype=np.uint32)
    for row, start, end in zip(found, begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        for at in range(start, end, _BLOCK):
            block = short[at : min(at + _BLOCK, end), None] * _FACTORS
            block += _OFFSETS
            np.minimum(row, block.min(axis=0), out=row)
    return found


def band_keys(signed: NDArray[np.uint32]) -> Hashes:
    """`[BANDS, texts]`: texts with the same key agree in all columns of the band."""
    parts = signed.astype(np.uint64).reshape(len(signed), BANDS, BAND_WIDTH)
    keys = (parts * _PLACES[:BAND_WIDTH]).sum(axis=2, dtype=np.uint64)
    return mixed(keys).T.copy()


def short_signatures(signed: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """`[texts, NUM_HASHES]`: 8 bits of each column, enough to estimate a similarity."""
    return signed.astype(np.uint8)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared runs by all runs of both, each run counted once."""
    both = np.concatenate([np.unique(a), np.unique(b)])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared) if len(both) else 1.0
