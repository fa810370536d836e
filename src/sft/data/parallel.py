"""Tokenising with several processes: the same examples, in the same order, from more cores.

Workers are new processes of loky (joblib's executor), which, unlike those of `multiprocessing`, do
not run the script that called us, so that it need not be guarded by `__main__`. A few chunks of
rows wait for each, so that neither side ever waits for the other to read.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

from sft.data.rows.conversation import Conversation
from sft.data.rows.problems import BadRow, BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Tokenized, tokenize
from sft.errors import DataError

PARALLEL_FROM = 5_000  # rows; a worker takes one to two seconds to start
CHUNK_ROWS = 64
AHEAD = 4  # chunks per worker that may wait for an earlier one

Chunk = list[Conversation]
Result = tuple[Tokenized, list[BadRow]]


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """What decides, besides rows, template and tokenizer, which examples come of rows."""

    max_seq_len: int
    overflow: str
    prompt_weight: float


class WorkersFailed(Exception):
    """The workers could not be started; nothing was tokenised."""


def num_workers(wanted: int | str, num_rows: int) -> int:
    """`auto`: one below 5,000 rows, else one for each core this process may use."""
    if wanted != "auto":
        return int(wanted)
    if num_rows < PARALLEL_FROM:
        return 1
    # Fewer than the machine has, in a container; macOS cannot be asked.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def tokenize_chunks(
    rows: Iterable[Conversation],
    template: ChatTemplate,
    bad_rows: BadRows,
    options: TokenOptions,
    *,
    workers: int,
    progress: Callable[[], None] = lambda: None,
    remark: Callable[[str], None] = lambda _text: None,
) -> Iterator[Tokenized]:
    """`tokenize`, a chunk of rows at a time, by `workers` processes (1: by this one).

    The result does not depend on them. `rows` is read only as far as needed. `remark` gets the
    reason why workers could not be used, if so.
    """
    rows = iter(rows)
    chunks = iter(lambda: list(islice(rows, CHUNK_ROWS)), [])
    if workers > 1:
        try:
            with _started(template, options, workers) as pool:
                for (part, bad), chunk in _results(pool, chunks, AHEAD * workers):
                    for _ in chunk:
                        progress()
                    for row in bad:
                        bad_rows.add(row.origin, row.reason)
                    yield part
            return
        except WorkersFailed as error:
            remark(f"tokenised by one process: {error}")
    for chunk in chunks:
        yield tokenize(chunk, template, bad_rows, progress=progress, **asdict(options))


@contextmanager
def _started(template: ChatTemplate, options: TokenOptions, workers: int) -> Iterator[Executor]:
    """Workers that have `template`; whatever happens, they end with the block."""
    from joblib.externals.loky import ProcessPoolExecutor

    single = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}  # each has one core
    pool = ProcessPoolExecutor(
        workers, initializer=_start, initargs=(template, options), env=single
    )
    try:
        try:
            pool.submit(_is_ready).result()
        except Exception as error:  # pickling a tokenizer of unknown code fails in any way
            problem = f"{type(error).__name__}: {error}"
            raise WorkersFailed(
                f"a worker cannot be given the tokenizer ({problem:.300})"
            ) from None
        yield pool
    finally:
        pool.shutdown(kill_workers=True)


def _results(pool: Executor, chunks: Iterator[Chunk], ahead: int) -> Iterator[tuple[Result, Chunk]]:
    """The result of each of `chunks`, in order; at most `ahead` of them are in work."""
    waiting: deque[tuple[Future[Result | str], Chunk]] = deque()
    more = True
    while more or waiting:
        chunk = next(chunks, [])
        more = bool(chunk)
        try:
            if chunk:
                waiting.append((pool.submit(_tokenized, chunk), chunk))
            while waiting and (not more or len(waiting) >= ahead):
                future, chunk = waiting.popleft()
                result = future.result()
                if isinstance(result, str):  # our own fault: its traceback is kept
                    raise RuntimeError(result)
                yield result, chunk
        except BrokenProcessPool:
            raise DataError(
                f"{chunk[0].origin} to {chunk[-1].origin}: the worker that tokenised these rows "
                "was killed, as happens when memory runs out; try --set data.workers=1"
            ) from None


# What a worker was given when it started.
_given: tuple[ChatTemplate, TokenOptions]


def _start(template: ChatTemplate, options: TokenOptions) -> None:
    """Begin the life of a worker."""
    global _given
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _given = template, options


def _is_ready() -> bool:
    return True


def _tokenized(chunk: Chunk) -> Result | str:
    """What the rows of `chunk` become, or the traceback of what went wrong."""
    template, options = _given
    bad, row = BadRows("skip"), -1

    def next_row() -> None:
        nonlocal row
        row += 1

    try:
        part = tokenize(chunk, template, bad, progress=next_row, **asdict(options))
    except Exception:
        return f"{chunk[row].origin}: a worker failed on this row\n{traceback.format_exc()}"
    return part, bad.rows
