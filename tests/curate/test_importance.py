import io
import json

import pytest

from sft import load_config
from sft.config import SourceConfig
from sft.curate.importance import importance
from sft.data.rows.read import read_conversations
from sft.errors import ConfigError, DataError
from sft.terminal.console import Console
from sft.training.setup import build_batches, prepare_data
from trained import make_world


def rows_of(folder, weights):
    path = folder / "weighted.jsonl"
    rows = [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(len(weights))]
    rows = [r if w is None else {**r, "row_weight": w} for r, w in zip(rows, weights, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return read_conversations([SourceConfig.model_validate(str(path))], "error").conversations


def test_a_row_says_how_often_it_is_seen(tmp_path):
    rows = read(rows_of(tmp_path, [None, 2, 0.25, "1.5"]))
    assert [row.weight for row in rows] == [1, 2, 0.25, 1.5]
    assert list(importance(rows, [], False).values()) == [1, 2, 0.25, 1.5]


def test_rows_without_a_weight_count_alike(tmp_path):
    assert importance(read(rows_of(tmp_path, [None, 1])), [], False) == {}


@pytest.mark.parametrize("weight", [0, -1, 101, "much", True, [2]])
def test_what_is_no_weight_is_refused(tmp_path, weight):
    with pytest.raises(DataError, match=r"row_weight: expected a number above 0, up to 100"):
        read(rows_of(tmp_path, [None, weight]))


def test_usage_multiplies_and_must_be_there(tmp_path):
    rows = read(rows_of(tmp_path, [1, 2, 1, 2] * 10))
    with pytest.raises(ConfigError, match="give --usage FILE"):
        importance(rows, [], True)
    plain = read(rows_of(tmp_path, [1] * 40))
    liked = importance(plain, rows[:8], True)
    both = importance(rows, rows[:8], True)
    assert [both[row.origin] for row in rows] == [row.weight * liked[row.origin] for row in rows]


def test_training_sees_rows_as_often_as_they_say(tmp_path, monkeypatch):
    make_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = rows_of(tmp_path, [3, 1, 1, 1])
    config = load_config(
        {}, {"data.train": [str(path)], "data.val_fraction": 0, "model.name": "llama"}
    )
    tokens = prepare_data(config, Console(io.StringIO()))
    batches = build_batches(tokens.resolver.config, tokens.data, tokens.held_out)
    assert batches.epoch_size == 6
    seen = [e.origin.line for _ in range(3) for e in batches.next()]  # 24 examples: 4 epochs
    assert [seen.count(line) for line in (1, 2, 3, 4)] == [12, 4, 4, 4]
