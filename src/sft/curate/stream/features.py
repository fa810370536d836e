"""From a chunk of rows to the numbers that later steps compare: a pure function of the chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.corpus import Corpus
from sft.curate.stream.row_steps import Fate, RowRules, RowSteps
from sft.curate.stream.rows import Chunk, Source, conversations
from sft.curate.vectors import hashed_terms
from sft.data.repeats import sides
from sft.data.rows.conversation import Conversation
from sft.texts.near_duplicates import RUN, Sides, side_keys
from sft.texts.ngrams import (
    BANDS,
    Hashes,
    band_keys,
    run_hashes,
    short_signatures,
    signatures,
    text_hash,
    text_key,
    word_hashes,
)
from sft.texts.openers import opener

HEAD = 400  # characters of an answer, which hold more openers than are ever taken off
BAND_NAMES = tuple(f"band{band:02d}" for band in range(BANDS))


Runs = tuple[Hashes, NDArray[np.int64]]  # hashes end to end, and where those of each text begin


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which features later steps need, and the rules that rows are dropped by at once."""

    sources: tuple[Source, ...]
    rules: RowRules = field(default_factory=RowRules)
    exact: bool = False
    near: bool = False
    openers: bool = False
    heads: bool = False
    terms: bool = False


@dataclass(slots=True)
class Features:
    """Columns of the rows of one chunk, as bytes, and the rows that are dropped already."""

    rows: int
    columns: dict[str, bytes]
    fates: dict[int, Fate]


class Featurizer:
    """Makes features; holds what is the same for every chunk."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._steps = RowSteps(wanted.rules)

    def __call__(self, chunk: Chunk) -> Features:
        """The features of a chunk. Rows that are dropped have empty ones."""
        wanted = self._wanted
        source = wanted.sources[chunk.source]
        parsed = conversations(chunk, source)
        fates: dict[int, Fate] = {
            i: ("unreadable", row) for i, row in enumerate(parsed) if isinstance(row, str)
        }
        good = [i for i, row in enumerate(parsed) if i not in fates]
        corpus = Corpus(train=[row for row in parsed if isinstance(row, Conversation)])
        compared = wanted.near or wanted.rules.benchmarks
        compared_by = [sides(row) for row in corpus.train] if compared else []
        parts = [row.text for row in compared_by]
        hashed = word_hashes(parts)
        for at, fate in self._steps.fates(corpus, parts, hashed).items():
            fates[good[at]] = fate
        size = len(parsed)
        columns = _places(chunk, source.path)
        alive = np.array([i not in fates for i in range(size)], dtype=bool)
        columns["alive"] = alive.tobytes()
        stays = [at for at, i in enumerate(good) if i not in fates]
        runs = run_hashes(*_only(hashed, stays), RUN) if wanted.near else None
        sized = self._sized(corpus, runs, stays)
        lists = self._lists(corpus, runs, stays)
        if wanted.near:
            keys, words = _both_sides([compared_by[i] for i in stays], *_only(hashed, stays))
            sized |= keys
            lists |= words
        for name, values in sized.items():
            full = np.zeros((size, *values.shape[1:]), dtype=values.dtype)
            full[alive] = values
            columns[name] = full.tobytes()
        for name, (data, counts) in lists.items():
            full = np.zeros(size, dtype=np.uint32)
            full[alive] = counts
            columns[f"{name}.counts"] = full.tobytes()
            columns[name] = data
        return Features(size, columns, fates)

    def _sized(
        self, corpus: Corpus, runs: Runs | None, rows: Sequence[int]
    ) -> dict[str, NDArray[Any]]:
        """Columns with the same size for each row."""
        found: dict[str, NDArray[Any]] = {}
        if self._wanted.exact:
            keys = b"".join(text_key(corpus.keys[i]) for i in rows)
            found["key"] = np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2)
        if self._wanted.openers:
            begin = [opener(corpus.answers[i]) for i in rows]
            hashes = [text_hash(one) if one else 0 for one in begin]
            found["opener"] = np.array(hashes, dtype=np.uint64)
        if runs:
            signed = signatures(*runs)
            found["augmented"] = np.array([bool(corpus.train[i].parent) for i in rows], dtype=bool)
            found["signature"] = short_signatures(signed)
            found |= dict(zip(BAND_NAMES, band_keys(signed), strict=True))
        return found

    def _lists(
        self, corpus: Corpus, runs: Runs | None, rows: Sequence[int]
    ) -> dict[str, tuple[bytes, NDArray[np.int64]]]:
        """Columns of lists: their numbers end to end, and how many each row has."""
        found: dict[str, tuple[bytes, NDArray[np.int64]]] = {}
        if runs:
            found["runs"] = (runs[0].tobytes(), np.diff(runs[1]))
        if self._wanted.heads:
            heads = [corpus.answers[i][:HEAD].encode("utf-8", "surrogatepass") for i in rows]
            found["heads"] = (b"".join(heads), np.array([len(head) for head in heads], np.int64))
        if self._wanted.terms:
            terms = hashed_terms([corpus.prompts[i] for i in rows])
            found["terms"] = (terms.flat.tobytes(), np.diff(terms.begins))
        return found


def _both_sides(
    rows: Sequence[Sides], flat: Hashes, starts: NDArray[np.int64]
) -> tuple[dict[str, Hashes], dict[str, tuple[bytes, NDArray[np.int64]]]]:
    """Keys and words of prompt and answer, which stand in this order in the words of a row."""
    kinds = [row.kind for row in rows]
    keys: dict[str, Hashes] = {}
    words: dict[str, tuple[bytes, NDArray[np.int64]]] = {}
    begins = starts[:-1]
    for side in ("prompt", "answer"):
        counts = np.array([len(getattr(row, side)) for row in rows], dtype=np.int64)
        ends = np.concatenate([[0], np.cumsum(counts)])
        own = flat[np.arange(ends[-1]) + np.repeat(begins - ends[:-1], counts)]
        keys[f"{side}.key"] = side_keys(own, ends, kinds)
        words[side] = (own.tobytes(), counts)
        begins = begins + counts
    return keys, words


def _only(hashed: Runs, rows: Sequence[int]) -> Runs:
    """The hashes of some of the texts."""
    flat, starts = hashed
    if len(rows) == len(starts) - 1:
        return hashed
    found = np.concatenate([flat[:0], *(flat[starts[i] : starts[i + 1]] for i in rows)])
    return found, np.concatenate([[0], np.cumsum(np.diff(starts)[rows])]).astype(np.int64)


def _places(chunk: Chunk, path: str) -> dict[str, bytes]:
    """Where rows come from, and a number that orders them as if by chance (`by_origin`)."""
    places = [f"{path}:{line}".encode("utf-8", "surrogatepass") for line in chunk.numbers]
    orders = b"".join(hashlib.sha256(place).digest()[:8] for place in places)
    return {
        "file": np.full(len(places), chunk.source, dtype=np.int32).tobytes(),
        "line": np.array(chunk.numbers, dtype=np.int64).tobytes(),
        "order": orders,
    }
