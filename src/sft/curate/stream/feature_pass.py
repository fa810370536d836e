"""Pass 1: features of all rows, chunk by chunk, in this process, in others, or on Ray.

Chunks are worked on out of order and written in order, so that what is written depends neither
on the number of processes nor on the engine. As many chunks are held as are being worked on.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from sft.curate.stream.features import Features, Featurizer, Wanted
from sft.curate.stream.rows import Chunk, chunks, count_rows
from sft.curate.stream.store import Store
from sft.errors import ConfigError, SFTError

PASS = "features"
AHEAD = 2  # chunks that wait for each process
RAY_WINDOW = 64  # chunks for each worker that are given to Ray at a time: each time starts actors

Progress = Callable[[str, int, int], None]
_featurizer: list[Featurizer] = []  # of a worker process


def feature_pass(
    store: Store, wanted: Wanted, engine: str, workers: int, size: int, progress: Progress
) -> int:
    """Fill the columns of `store`, unless that is done already; the number of rows."""
    if (notes := store.finished(PASS)) is not None:
        return int(notes["rows"])
    total = count_rows(wanted.sources)
    rows = 0
    todo = chunks(wanted.sources, size)
    with _featurized(engine, workers, wanted, todo) as done, store.writing() as append:
        for features in done:
            lines = [
                json.dumps([rows + at, *fate]) + "\n" for at, fate in sorted(features.fates.items())
            ]
            append({**features.columns, "fates": "".join(lines).encode()})
            rows += features.rows
            if rows < total:
                progress("reading rows:", rows, total)
    store.finish(PASS, rows=rows)
    progress("reading rows:", rows, rows)
    return rows


@contextmanager
def _featurized(
    engine: str, workers: int, wanted: Wanted, todo: Iterator[Chunk]
) -> Iterator[Iterator[Features]]:
    """The features of each chunk, in order."""
    if engine == "ray":
        yield _on_ray(workers, wanted, todo)
    elif workers == 1:
        yield map(Featurizer(wanted), todo)
    else:
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _start_worker, (wanted, os.getpid())
        )
        try:
            yield _in_order(pool, todo, workers * AHEAD)
        except BrokenProcessPool:
            raise SFTError(
                "a process that reads rows was ended, maybe for want of memory. Fewer --workers "
                "need less of it"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, todo: Iterator[Chunk], ahead: int) -> Iterator[Features]:
    waiting: deque[Future[Features]] = deque()
    for chunk in todo:
        waiting.append(pool.submit(_work, chunk))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker(wanted: Wanted, parent: int) -> None:
    """Ctrl-C is for the parent to answer; without a parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _featurizer[:] = [Featurizer(wanted)]


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(chunk: Chunk) -> Features:
    return _featurizer[0](chunk)


class _OnRay:
    """What a Ray actor calls on each batch, which is one chunk."""

    def __init__(self, wanted: Wanted) -> None:
        self._featurizer = Featurizer(wanted)

    def __call__(self, batch: dict[str, list[Chunk]]) -> dict[str, list[Features]]:
        return {"item": [self._featurizer(chunk) for chunk in batch["item"]]}


def _on_ray(workers: int, wanted: Wanted, todo: Iterator[Chunk]) -> Iterator[Features]:
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
            _OnRay, fn_constructor_args=(wanted,), batch_size=1, concurrency=workers
        )
        for row in features.iter_rows():
            yield row["item"]
