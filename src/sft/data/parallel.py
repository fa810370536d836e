"""Tokenising with several processes: the same examples, in the same order, from more cores.

Workers are new processes that run nothing but `work`: they load no torch, and, unlike those of
`multiprocessing`, not the script that called us, which need not be guarded by `__main__`. Each has
one chunk of rows at a time, so that neither side ever waits for the other to read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from sft.data.rows.conversation import Conversation
from sft.data.rows.problems import BadRow, BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Tokenized, tokenize
from sft.errors import DataError

PARALLEL_FROM = 5_000  # rows; a worker takes one to two seconds to start
CHUNK_ROWS = 64
AHEAD = 4  # chunks per worker that may wait for an earlier one

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


def tokenize_rows(
    rows: Sequence[Conversation],
    template: ChatTemplate,
    bad_rows: BadRows,
    options: TokenOptions,
    *,
    workers: int,
    progress: Callable[[], None] = lambda: None,
    remark: Callable[[str], None] = lambda _text: None,
) -> Tokenized:
    """`tokenize`, by `workers` processes (1: by this one). The result does not depend on them.

    `remark` is told why workers could not be used, if so.
    """
    whole = Tokenized([], [], 0, 0)
    for part in tokenize_chunks(
        rows, template, bad_rows, options, workers=workers, progress=progress, remark=remark
    ):
        whole.examples.extend(part.examples)
        whole.fates.extend(part.fates)
        whole = Tokenized(
            whole.examples,
            whole.fates,
            whole.num_text_specials + part.num_text_specials,
            whole.num_split + part.num_split,
        )
    return whole


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
    """As `tokenize_rows`, a chunk of rows at a time; `rows` is read only as far as needed."""
    rows = iter(rows)
    serial = partial(
        tokenize,
        template=template,
        max_seq_len=options.max_seq_len,
        overflow=options.overflow,
        prompt_weight=options.prompt_weight,
    )
    if workers > 1:
        try:
            with _started(template, options, workers) as pipes:
                for (done, bad), num_rows in _results(pipes, rows):
                    for _ in range(num_rows):
                        progress()
                    for row in bad:
                        bad_rows.add(row.origin, row.reason)
                    yield done
                return
        except WorkersFailed as error:
            remark(f"tokenised by one process: {error}")
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield serial(chunk, bad_rows=bad_rows, progress=progress)


@contextmanager
def _started(
    template: ChatTemplate, options: TokenOptions, workers: int
) -> Iterator[list[Connection[Any, Any]]]:
    """Pipes to workers that have loaded `template`; whatever happens, they end with the block."""
    pipes: list[Connection[Any, Any]] = []
    processes: list[subprocess.Popen[bytes]] = []
    # Each has one core, and the code that this process has, wherever that was found.
    single = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **single, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        try:
            for _ in range(workers):
                ours, theirs = Pipe()
                pipes.append(ours)
                with theirs:
                    code = f"from sft.data.parallel import work; work({theirs.fileno()})"
                    command, inherited = [sys.executable, "-c", code], [theirs.fileno()]
                    processes.append(subprocess.Popen(command, pass_fds=inherited, env=environment))
            for pipe in pipes:
                pipe.send((template, options))
            problem = next(filter(None, [pipe.recv() for pipe in pipes]), None)
        except Exception as error:  # pickling a tokenizer of unknown code fails in any way
            problem = f"{type(error).__name__}: {error}"
        if problem:
            raise WorkersFailed(f"a worker cannot be given the tokenizer ({problem})")
        yield pipes
    finally:
        _end(pipes, processes)


def _end(
    pipes: Sequence[Connection[Any, Any]], processes: Sequence[subprocess.Popen[bytes]]
) -> None:
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def _results(
    pipes: Sequence[Connection[Any, Any]], rows: Iterator[Conversation]
) -> Iterator[tuple[Result, int]]:
    """The result of each chunk of `rows` and its number of rows, in order."""
    busy: dict[Connection[Any, Any], tuple[int, list[Conversation]]] = {}
    finished: dict[int, tuple[Result, int]] = {}
    sent = given = 0
    more = True
    while True:
        for pipe in pipes:
            if more and pipe not in busy and sent < given + AHEAD * len(pipes):
                chunk = list(islice(rows, CHUNK_ROWS))
                more = bool(chunk)
                if chunk:
                    _ask(pipe, chunk)
                    busy[pipe] = (sent, chunk)
                    sent += 1
        while given in finished:
            yield finished.pop(given)
            given += 1
        if not busy:
            if not more:
                return
            continue
        for ready in wait(list(busy)):
            assert isinstance(ready, Connection)
            number, chunk = busy.pop(ready)
            finished[number] = (_answer(ready, chunk), len(chunk))


def _ask(pipe: Connection[Any, Any], chunk: list[Conversation]) -> None:
    try:
        pipe.send(chunk)
    except OSError:
        raise _died(chunk) from None


def _answer(pipe: Connection[Any, Any], chunk: list[Conversation]) -> Result:
    try:
        answer = pipe.recv()
    except (EOFError, OSError):
        raise _died(chunk) from None
    if isinstance(answer, str):  # our own fault: its traceback is kept
        raise RuntimeError(answer)
    result: Result = answer
    return result


def _died(chunk: list[Conversation]) -> DataError:
    return DataError(
        f"{chunk[0].origin} to {chunk[-1].origin}: the worker that tokenised these rows was "
        "killed, as happens when memory runs out; try --set data.workers=1"
    )


def work(descriptor: int) -> None:
    """The whole life of a worker: the tokenizer, then chunks of rows until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with Connection(descriptor) as pipe:
        try:
            template, options = pipe.recv()
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
            return
        pipe.send(None)
        try:
            while True:
                pipe.send(_worked(pipe.recv(), template, options))
        except (EOFError, OSError):  # the parent is done, or gone
            return


def _worked(
    chunk: list[Conversation], template: ChatTemplate, options: TokenOptions
) -> Result | str:
    bad, row = BadRows("skip"), -1

    def next_row() -> None:
        nonlocal row
        row += 1

    try:
        done = tokenize(
            chunk,
            template,
            bad,
            max_seq_len=options.max_seq_len,
            overflow=options.overflow,
            prompt_weight=options.prompt_weight,
            progress=next_row,
        )
    except Exception:
        return f"{chunk[row].origin}: a worker failed on this row\n{traceback.format_exc()}"
    return done, bad.rows
