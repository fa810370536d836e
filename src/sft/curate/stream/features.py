"""Pass 1: from rows to the numbers that later steps compare, here, in other processes, or on Ray.

The features of a chunk are a pure function of it. Chunks are worked on out of order and written in
order, so that what is written depends neither on the number of processes nor on the engine. As
many chunks are in memory as are being worked on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.corpus import Corpus
from sft.curate.diverse_rows import Progress
from sft.curate.stream.options import CurateConfig
from sft.curate.stream.row_rules import RowRules
from sft.curate.stream.rows import Chunk, Source, chunks, conversations, count_rows
from sft.curate.stream.store import Store
from sft.curate.vectors import hashed_terms
from sft.data.repeats import sides
from sft.data.rows.conversation import Conversation
from sft.errors import ConfigError, SFTError
from sft.texts.near_duplicates import columns_of
from sft.texts.ngrams import text_hash, text_key
from sft.texts.openers import opener

PASS = "features"
HEAD = 400  # characters of an answer, which hold more openers than are ever taken off
AHEAD = 2  # chunks that wait for each process
RAY_WINDOW = 64  # chunks for each worker that are given to Ray at a time: each time starts actors

Columns = dict[str, bytes]  # what the rows of a chunk add to each column
Lists = tuple[bytes, NDArray[np.int64]]  # numbers of all rows end to end, and how many each has


def feature_pass(
    store: Store, config: CurateConfig, sources: Sequence[Source], size: int, progress: Progress
) -> None:
    """Fill the columns of `store`, unless that is done already."""
    if store.finished(PASS) is not None:
        return
    total = count_rows(sources)
    rows = 0
    todo = chunks(sources, size)
    featurize = Featurizer(config, sources)
    if config.engine == "ray":
        done = _on_ray(config.workers, featurize, todo)
    elif config.workers == 1:
        done = (featurize(chunk) for chunk in todo)
    else:
        done = _in_processes(config.workers, featurize, todo)
    with closing(done), store.writing() as append:
        for columns in done:
            append(columns)
            rows += len(columns["alive"])
            if rows < total:
                progress("reading rows:", rows, total)
    store.finish(PASS)
    progress("reading rows:", rows, rows)


class Featurizer:
    """Makes features; holds what is the same for every chunk."""

    def __init__(self, config: CurateConfig, sources: Sequence[Source]) -> None:
        self._config = config
        self._sources = sources
        self._rules = RowRules(config)

    def __call__(self, chunk: Chunk) -> Columns:
        """The features of a chunk. Rows that are dropped at once have empty ones, and `fates`."""
        source = self._sources[chunk.source]
        parsed = conversations(chunk, source)
        fates = {i: ("unreadable", row) for i, row in enumerate(parsed) if isinstance(row, str)}
        readable = [i for i in range(len(parsed)) if i not in fates]
        rows = [row for row in parsed if isinstance(row, Conversation)]
        for at, fate in self._rules.fates(Corpus(train=rows)).items():
            fates[readable[at]] = fate
        alive = np.array([i not in fates for i in range(len(parsed))], dtype=bool)
        columns = {**_places(chunk, source.path), "alive": alive.tobytes()}
        columns["fates"] = "".join(f"{json.dumps(fates[i])}\n" for i in sorted(fates)).encode()
        left = [row for i, row in zip(readable, rows, strict=True) if alive[i]]
        numbers, lists = self._features(Corpus(train=left))
        for name, (data, counts) in lists.items():
            columns[name] = data
            numbers[f"{name}.counts"] = counts.astype(np.uint32)
        for name, values in numbers.items():
            full = np.zeros((len(parsed), *values.shape[1:]), dtype=values.dtype)
            full[alive] = values
            columns[name] = full.tobytes()
        return columns

    def _features(self, rows: Corpus) -> tuple[dict[str, NDArray[Any]], dict[str, Lists]]:
        """Columns of numbers, as many for each row, and of lists: those that a step needs."""
        config = self._config
        numbers: dict[str, NDArray[Any]] = {}
        lists: dict[str, Lists] = {}
        if config.dedupe != "none":
            keys = b"".join(map(text_key, rows.keys))
            numbers["key"] = np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2)
        if config.cap_openers is not None and config.openers == "drop":
            begins = [opener(answer) for answer in rows.answers]
            hashes = [text_hash(one) if one else 0 for one in begins]
            numbers["opener"] = np.array(hashes, dtype=np.uint64)
        elif config.cap_openers is not None:
            heads = [answer[:HEAD].encode("utf-8", "surrogatepass") for answer in rows.answers]
            lists["heads"] = (b"".join(heads), np.array([len(head) for head in heads], np.int64))
        if config.balance or config.select or config.toward:
            terms = hashed_terms(rows.prompts)
            lists["terms"] = (terms.flat.tobytes(), np.diff(terms.begins))
        if config.dedupe == "near":
            numbers["augmented"] = np.array([bool(row.parent) for row in rows.train], dtype=bool)
            compared, own = columns_of([sides(row) for row in rows.train])
            numbers |= compared
            lists |= {name: (flat.tobytes(), counts) for name, (flat, counts) in own.items()}
        return numbers, lists


def _places(chunk: Chunk, path: str) -> Columns:
    """Where rows come from, and a number that orders them as if by chance (`by_origin`)."""
    places = [f"{path}:{line}".encode("utf-8", "surrogatepass") for line in chunk.numbers]
    orders = b"".join(hashlib.sha256(place).digest()[:8] for place in places)
    return {
        "file": np.full(len(places), chunk.source, dtype=np.int32).tobytes(),
        "line": np.array(chunk.numbers, dtype=np.int64).tobytes(),
        "order": orders,
    }


# ------------------------------------------------------------------------ in several processes

_of_worker: list[Featurizer] = []  # of a worker process


def _in_processes(workers: int, featurize: Featurizer, todo: Iterator[Chunk]) -> Generator[Columns]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (featurize, os.getpid()))
    waiting: deque[Future[Columns]] = deque()
    try:
        for chunk in todo:
            waiting.append(pool.submit(_work, chunk))
            if len(waiting) > workers * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise SFTError(
            "a process that reads rows was ended, maybe for want of memory. Fewer --workers "
            "need less of it"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(featurize: Featurizer, parent: int) -> None:
    """Ctrl-C is for the parent to answer; without a parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _of_worker[:] = [featurize]


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(chunk: Chunk) -> Columns:
    return _of_worker[0](chunk)


def _on_ray(workers: int, featurize: Featurizer, todo: Iterator[Chunk]) -> Generator[Columns]:
    """The same through `ray.data`: `map_batches` on a window of chunks at a time."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"--engine ray needs Ray, which is not installed ({error}): pip install 'sft[ray]'"
        ) from None
    if not ray.is_initialized():
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    while window := list(itertools.islice(todo, workers * RAY_WINDOW)):
        features = ray.data.from_items([{"item": chunk} for chunk in window]).map_batches(
            _OnRay, fn_constructor_args=(featurize,), batch_size=1, concurrency=workers
        )
        for row in features.iter_rows():
            yield row["item"]


class _OnRay:
    """What a Ray actor calls on each batch, which is one chunk."""

    def __init__(self, featurize: Featurizer) -> None:
        self._featurize = featurize

    def __call__(self, batch: dict[str, list[Chunk]]) -> dict[str, list[Columns]]:
        return {"item": [self._featurize(chunk) for chunk in batch["item"]]}
