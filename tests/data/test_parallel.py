"""Several processes make the same examples as one; what goes wrong in them names the row."""

import os
import signal
from pathlib import Path

import pytest

import tiny
from sft.data.parallel import (
    CHUNK_ROWS,
    TokenOptions,
    num_workers,
    tokenize_chunks,
    tokenize_rows,
)
from sft.data.rows.conversation import Message
from sft.data.rows.problems import BadRows
from sft.data.template.chat_template import ChatTemplate
from sft.data.tokenize import fingerprint
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


def children():
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in listed.split()]


def test_workers_give_what_one_process_gives(template, rows):
    before, found = children(), []
    for workers in (1, 2):
        bad, said = BadRows("skip"), []
        done = tokenize_rows(
            rows,
            template,
            bad,
            OPTIONS,
            workers=workers,
            progress=lambda said=said: said.append("row"),
            remark=said.append,
        )
        assert said == ["row"] * len(rows)
        ids = [(e.id, e.origin, e.source, e.num_bytes) for e in done.examples]
        numbers = (done.num_text_specials, done.num_split, bad.count)
        found.append((ids, fingerprint(done.examples), done.fates, numbers, bad.rows, bad.table()))
    assert found[0] == found[1]
    assert min(len(found[0][2]), *found[0][3][::2]) > 3  # each kind of row is among them
    assert children() == before


def test_a_worker_that_fails_names_the_row(template, rows, talk):
    broken = talk(("user", "Hi"), Message("assistant", "Yes", weight="1"), line=777)
    with pytest.raises(RuntimeError, match=r"rows\.jsonl:777: a worker failed(.|\n)*TypeError"):
        tokenize_rows([*rows[:3], broken], template, BadRows("skip"), OPTIONS, workers=2)


def test_a_worker_that_is_killed_names_its_rows(template, rows):
    before = set(children())
    chunks = tokenize_chunks(iter(rows * 20), template, BadRows("skip"), OPTIONS, workers=2)
    next(chunks)
    for pid in set(children()) - before:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"rows\.jsonl:\d+ to rows\.jsonl:\d+: .* was killed"):
        list(chunks)
    assert set(children()) == before


def test_rows_are_read_only_as_far_as_needed(template, rows):
    read = []
    chunks = tokenize_chunks(
        (read.append(row) or row for row in rows * 10),
        template,
        BadRows("skip"),
        OPTIONS,
        workers=1,
    )
    next(chunks)
    assert len(read) == CHUNK_ROWS
    chunks.close()


def test_a_tokenizer_that_cannot_be_sent_is_used_by_one_process(rows):
    tokenizer = tiny.tokenizer()
    tokenizer.of_its_own = lambda text: text  # which cannot be pickled
    template, said = ChatTemplate(tokenizer), []
    found = tokenize_rows(rows, template, BadRows("skip"), OPTIONS, workers=2, remark=said.append)
    wanted = tokenize_rows(rows, template, BadRows("skip"), OPTIONS, workers=1)
    assert fingerprint(found.examples) == fingerprint(wanted.examples)
    assert len(said) == 1 and said[0].startswith("tokenised by one process: a worker cannot")


def test_auto_is_one_process_for_few_rows():
    cores = len(os.sched_getaffinity(0))
    assert [num_workers("auto", n) for n in (1, 4_999, 5_000)] == [1, 1, cores]
    assert num_workers(3, 1) == 3
