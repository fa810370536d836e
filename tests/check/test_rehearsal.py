import io
from dataclasses import replace

import numpy as np
import pytest

from sft import load_config
from sft.check.rehearsal import longest_batch, rehearse
from sft.data.rows.conversation import Origin
from sft.data.tokenize import IGNORE_INDEX, Example
from sft.terminal.console import Console
from sft.training.tokens import prepare_data
from trained import Outcome, make_world


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    make_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tokens(**values):
    config = {"data.train": ["rows.jsonl"], "model.name": "llama", **values}
    return prepare_data(load_config({}, config), Console(io.StringIO()))


@pytest.mark.parametrize("limit", [8, 64, 100, 100_000])
def test_the_rehearsed_batch_is_the_fullest_there_can_be(limit):
    found = tokens(**{"batch.micro_batch_tokens": limit})
    lengths = sorted((e.num_tokens for e in found.data.train), reverse=True)
    batch = longest_batch(found)
    if limit >= sum(lengths):
        assert batch.num_tokens == sum(lengths)
    elif lengths[0] >= limit:
        assert batch.lengths == (lengths[0],)
    else:
        assert lengths[0] in batch.lengths
        assert limit - min(lengths) < batch.num_tokens <= limit


def test_a_rehearsal_tells_time_memory_and_disk(world):
    before = sorted(path.name for path in world.iterdir())
    found = rehearse(tokens(), 12, Console(io.StringIO()))
    assert set(found) == {"rehearsal", "time", "memory", "disk"}
    assert "for 12 steps" in found["time"] and " GB" in found["memory"]
    assert sorted(path.name for path in world.iterdir()) == before  # nothing is written


def test_it_is_rehearsed_where_a_config_is_given(world):
    (world / "run.yaml").write_text("model: {name: llama}\ndata: {train: rows.jsonl}\n")
    never = ("--fail-on", "never", "--rows", "0")
    assert "forward, backward" in Outcome("check", "run.yaml", *never).out
    assert "forward, backward" not in Outcome("check", "run.yaml", "--no-rehearse", *never).out
    bare = Outcome("check", "rows.jsonl", "--model", "llama", *never)
    assert "time and memory: not measured" in " ".join(bare.out.split())


def test_a_batch_is_filled_with_what_fits():
    """Of 40, 39 and 24 tokens a micro-batch of 64 can hold the first and the last."""
    found = tokens(**{"batch.micro_batch_tokens": 64})
    rows = [example(line, length, 2) for line, length in enumerate([39, 24, 40, 30], start=1)]
    batch = longest_batch(replace(found, data=replace(found.data, train=rows)))
    assert sorted(batch.lengths) == [24, 40]


def example(line, num_tokens, num_trained):
    labels = np.full(num_tokens, IGNORE_INDEX)
    labels[-num_trained:] = 7
    origin = Origin("a.jsonl", line)
    weights = (labels != IGNORE_INDEX).astype(np.float32)
    return Example(str(origin), origin, 0, np.arange(num_tokens), labels, weights, 1)
