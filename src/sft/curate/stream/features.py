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

Lists = tuple[bytes, NDArray[np.int64]]  # numbers of all rows end to end, and how many each has


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
        source = self._wanted.sources[chunk.source]
        parsed = conversations(chunk, source)
        fates: dict[int, Fate] = {
            i: ("unreadable", row) for i, row in enumerate(parsed) if isinstance(row, str)
        }
        readable = [i for i in range(len(parsed)) if i not in fates]
        rows = [row for row in parsed if isinstance(row, Conversation)]
        for at, fate in self._steps.fates(Corpus(train=rows)).items():
            fates[readable[at]] = fate
        alive = np.array([i not in fates for i in range(len(parsed))], dtype=bool)
        columns = {**_places(chunk, source.path), "alive": alive.tobytes()}
        kept = [row for i, row in zip(readable, rows, strict=True) if alive[i]]
        numbers, lists = self._features(Corpus(train=kept))
        for name, values in numbers.items():
            full = np.zeros((len(parsed), *values.shape[1:]), dtype=values.dtype)
            full[alive] = values
            columns[name] = full.tobytes()
        for name, (data, counts) in lists.items():
            full = np.zeros(len(parsed), dtype=np.uint32)
            full[alive] = counts
            columns[f"{name}.counts"] = full.tobytes()
            columns[name] = data
        return Features(len(parsed), columns, fates)

    def _features(self, rows: Corpus) -> tuple[dict[str, NDArray[Any]], dict[str, Lists]]:
        """Columns of numbers, as many for each row, and of lists."""
        wanted = self._wanted
        numbers: dict[str, NDArray[Any]] = {}
        lists: dict[str, Lists] = {}
        if wanted.exact:
            keys = b"".join(map(text_key, rows.keys))
            numbers["key"] = np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2)
        if wanted.openers:
            begins = [opener(answer) for answer in rows.answers]
            hashes = [text_hash(one) if one else 0 for one in begins]
            numbers["opener"] = np.array(hashes, dtype=np.uint64)
        if wanted.heads:
            heads = [answer[:HEAD].encode("utf-8", "surrogatepass") for answer in rows.answers]
            lists["heads"] = (b"".join(heads), np.array([len(head) for head in heads], np.int64))
        if wanted.terms:
            terms = hashed_terms(rows.prompts)
            lists["terms"] = (terms.flat.tobytes(), np.diff(terms.begins))
        if wanted.near:
            both = [sides(row) for row in rows.train]
            hashed = word_hashes([row.text for row in both])
            runs, begins_of_runs = run_hashes(*hashed, RUN)
            signed = signatures(runs, begins_of_runs)
            side_hashes, side_words = _both_sides(both, *hashed)
            numbers["augmented"] = np.array([bool(row.parent) for row in rows.train], dtype=bool)
            numbers["signature"] = short_signatures(signed)
            numbers |= dict(zip(BAND_NAMES, band_keys(signed), strict=True)) | side_hashes
            lists |= {"runs": (runs.tobytes(), np.diff(begins_of_runs)), **side_words}
        return numbers, lists


def _both_sides(
    rows: Sequence[Sides], flat: Hashes, starts: NDArray[np.int64]
) -> tuple[dict[str, Hashes], dict[str, Lists]]:
    """Keys and words of prompt and answer, which stand in this order in the words of a row."""
    kinds = [row.kind for row in rows]
    keys: dict[str, Hashes] = {}
    words: dict[str, Lists] = {}
    begins = starts[:-1]
    for side in ("prompt", "answer"):
        counts = np.array([len(getattr(row, side)) for row in rows], dtype=np.int64)
        ends = np.concatenate([[0], np.cumsum(counts)])
        own = flat[np.arange(ends[-1]) + np.repeat(begins - ends[:-1], counts)]
        keys[f"{side}.key"] = side_keys(own, ends, kinds)
        words[side] = (own.tobytes(), counts)
        begins = begins + counts
    return keys, words


def _places(chunk: Chunk, path: str) -> dict[str, bytes]:
    """Where rows come from, and a number that orders them as if by chance (`by_origin`)."""
    places = [f"{path}:{line}".encode("utf-8", "surrogatepass") for line in chunk.numbers]
    orders = b"".join(hashlib.sha256(place).digest()[:8] for place in places)
    return {
        "file": np.full(len(places), chunk.source, dtype=np.int32).tobytes(),
        "line": np.array(chunk.numbers, dtype=np.int64).tobytes(),
        "order": orders,
    }
