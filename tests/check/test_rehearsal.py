import io

import pytest

from sft import load_config
from sft.check.rehearsal import longest_batch, rehearse
from sft.setup import prepare_data
from sft.trackers.console import Console
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
