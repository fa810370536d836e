"""Tokenising with several processes: the same examples, in the same order, from more cores."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from types import ModuleType

from sft.data.rows.conversation import Conversation
from sft.data.rows.problems import BadRow, BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Tokenized, tokenize
from sft.errors import DataError

PARALLEL_FROM = 5_000  # rows; a worker takes one to two seconds to start
CHUNK_ROWS = 64
AHEAD = 2  # chunks per worker, in work or waiting for an earlier one

Chunk = list[Conversation]
Result = tuple[Tokenized, list[BadRow]]


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """What decides, besides rows, template and tokenizer, which examples come of rows."""

    max_seq_len: int
    overflow: str
    prompt_weight: float


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
    progress: Callable[[int], None] = lambda _rows: None,
    remark: Callable[[str], None] = lambda _text: None,
) -> Iterator[Tokenized]:
    """`tokenize`, a chunk of rows at a time, by `workers` processes (1: by this one).

    The result does not depend on them. `rows` is read only as far as needed. `progress` is called
    with the number of rows of each chunk, and `remark` with the reason why workers could not be
    used, if so.
    """
    rows = iter(rows)
    chunks = iter(lambda: list(islice(rows, CHUNK_ROWS)), [])
    pool = _started(template, options, workers, remark) if workers > 1 else None
    if pool is None:
        for chunk in chunks:
            yield tokenize(chunk, template, bad_rows, **asdict(options))
            progress(len(chunk))
        return
    try:
        for (part, bad), num_rows in _results(pool, chunks, workers):
            for row in bad:
                bad_rows.add(row.origin, row.reason)
            yield part
            progress(num_rows)
    finally:
        pool.shutdown(cancel_futures=True)


def _started(
    template: ChatTemplate, options: TokenOptions, workers: int, remark: Callable[[str], None]
) -> Executor | None:
    """Workers that have `template`; None where it cannot be sent to them."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (template, options))
    # A new process would run the script that called us again, and it need not be guarded by
    # `__main__`. An empty one stands in for it while they start.
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        for ready in [pool.submit(_is_ready) for _ in range(workers)]:
            ready.result()
    except Exception as error:  # pickling a tokenizer of unknown code fails in any way
        pool.shutdown()
        problem = f"{type(error).__name__}: {error}"
        remark(f"tokenised by one process: a worker cannot be given the tokenizer ({problem:.300})")
        return None
    finally:
        sys.modules["__main__"] = script
    return pool


def _results(pool: Executor, chunks: Iterator[Chunk], workers: int) -> Iterator[tuple[Result, int]]:
    """The result of each of `chunks`, in order, and its number of rows."""
    pending: deque[tuple[Future[Result], Chunk]] = deque()
    more = True
    while more or pending:
        while more and len(pending) < AHEAD * workers:
            if chunk := next(chunks, []):
                pending.append((pool.submit(_tokenized, chunk), chunk))
            more = bool(chunk)
        if pending:
            future, chunk = pending[0]
            try:
                yield future.result(), len(chunk)
            except BrokenProcessPool:
                last = pending[min(workers, len(pending)) - 1][1][-1]
                raise DataError(
                    f"{chunk[0].origin} to {last.origin}: a worker that tokenised some of these "
                    "rows was killed, as happens when memory runs out; try --set data.workers=1"
                ) from None
            pending.popleft()


# What a worker was given when it started.
_given: tuple[ChatTemplate, TokenOptions]


def _start(template: ChatTemplate, options: TokenOptions) -> None:
    """Begin the life of a worker."""
    global _given
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it has one core
    Thread(target=_end_with_parent, daemon=True).start()
    _given = template, options


def _end_with_parent() -> None:
    """An executor's worker would wait for ever for a parent that was killed."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _is_ready() -> bool:
    return True


def _tokenized(chunk: Chunk) -> Result:
    """What the rows of `chunk` become."""
    template, options = _given
    bad, last = BadRows("skip"), chunk[:1]

    def rows() -> Iterator[Conversation]:
        for last[0] in chunk:
            yield last[0]

    try:
        return tokenize(rows(), template, bad, **asdict(options)), bad.rows
    except Exception:  # our own fault: its traceback is kept
        problem = f"{last[0].origin}: a worker failed on this row\n{traceback.format_exc()}"
        raise RuntimeError(problem) from None
