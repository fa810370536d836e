"""Several processes make the same examples as one; what goes wrong in them names the row."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
from sft.data.parallel import (
    AHEAD,
    CHUNK_ROWS,
    TokenOptions,
    num_workers,
    tokenize_chunks,
)
from sft.data.rows.conversation import Message
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import Tokenized, fingerprint
from sft.errors import DataError

OPTIONS = TokenOptions(max_seq_len=40, overflow="drop", prompt_weight=0.0)
SPECIAL = ("<|im_end|>", "one", "\ue0f0", "two " * 40)  # as text, plain, refused, too long


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(tiny.tokenizer())


@pytest.fixture
def rows(talk):
    texts = [SPECIAL[i % len(SPECIAL)] if i % 3 == 0 else f"row {i}" for i in range(150)]
    return [talk(("user", t), ("assistant", "Yes"), line=i) for i, t in enumerate(texts, 1)]


def workers_left():
    return multiprocessing.active_children()


def tokenize_rows(*args, **options):
    whole = Tokenized()
    for part in tokenize_chunks(*args, **options):
        whole.extend(part)
    return whole


def test_workers_give_what_one_process_gives(template, rows):
    results = []
    for workers in (1, 2):
        bad, progress, remarks = BadRows("skip"), [], []
        done = tokenize_rows(
            rows,
            template,
            bad,
            OPTIONS,
            workers=workers,
            progress=progress.append,
            remark=remarks.append,
        )
        assert sum(progress) == len(rows) and max(progress) == CHUNK_ROWS and not remarks
        ids = [(e.id, e.origin, e.source, e.num_bytes) for e in done.examples]
        numbers = (done.num_text_specials, done.num_split, bad.count)
        results.append(
            (ids, fingerprint(done.examples), done.fates, numbers, bad.rows, bad.table())
        )
    assert results[0] == results[1]
    assert min(len(results[0][2]), *results[0][3][::2]) > 3  # each kind of row is among them
    assert not workers_left()


def test_a_worker_that_fails_names_the_row(template, rows, talk):
    broken = talk(("user", "Hi"), Message("assistant", "Yes", weight="1"), line=777)
    with pytest.raises(RuntimeError, match=r"rows\.jsonl:777: a worker failed(.|\n)*TypeError"):
        tokenize_rows([*rows[:3], broken], template, BadRows("skip"), OPTIONS, workers=2)
    assert not workers_left()


def test_a_worker_that_is_killed_names_its_rows(template, rows):
    chunks = tokenize_chunks(iter(rows * 20), template, BadRows("skip"), OPTIONS, workers=2)
    next(chunks)
    for worker in workers_left():
        worker.kill()
    with pytest.raises(DataError, match=r"rows\.jsonl:\d+ to rows\.jsonl:\d+: .* was killed"):
        list(chunks)
    assert not workers_left()


# Not guarded by `__main__`: a worker that ran it again would start workers of its own.
SCRIPT = """
import multiprocessing, os, signal, time, tiny
from sft.data.parallel import TokenOptions, tokenize_chunks
from sft.data.rows.conversation import Conversation, Message, Origin
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate

talk = (Message("user", "Hi"), Message("assistant", "Yes", weight=1.0))
rows = [Conversation(talk, Origin("rows.jsonl", line)) for line in range(1, 700)]
template, options = ChatTemplate(tiny.tokenizer()), TokenOptions(40, "drop", 0.0)
chunks = tokenize_chunks(rows, template, BadRows("error"), options, workers=2)
next(chunks)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    pids = done.stdout.split()
    assert done.returncode == -signal.SIGKILL and len(pids) == 2
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(("workers", "num_chunks"), [(1, 1), (2, 2 * AHEAD)])
def test_rows_are_read_only_as_far_as_needed(template, rows, workers, num_chunks):
    read = []
    chunks = tokenize_chunks(
        (read.append(row) or row for row in rows * 10),
        template,
        BadRows("skip"),
        OPTIONS,
        workers=workers,
    )
    next(chunks)
    assert len(read) == num_chunks * CHUNK_ROWS
    chunks.close()


def test_a_tokenizer_that_cannot_be_sent_is_used_by_one_process(rows):
    tokenizer = tiny.tokenizer()
    tokenizer.of_its_own = lambda text: text  # which cannot be pickled
    template, remarks = ChatTemplate(tokenizer), []
    remark = remarks.append
    actual = tokenize_rows(rows, template, BadRows("skip"), OPTIONS, workers=2, remark=remark)
    wanted = tokenize_rows(rows, template, BadRows("skip"), OPTIONS, workers=1)
    assert fingerprint(actual.examples) == fingerprint(wanted.examples)
    assert len(remarks) == 1
    assert remarks[0].startswith("tokenised by one process: a worker cannot")


def test_auto_is_one_process_for_few_rows():
    cores = len(os.sched_getaffinity(0))
    assert [num_workers("auto", n) for n in (1, 4_999, 5_000)] == [1, 1, cores]
    assert num_workers(3, 1) == 3
