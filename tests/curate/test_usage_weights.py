"""How often rows are seen: their own weight, and their likeness to usage."""

import io
import json

import numpy as np
import pytest

from sft import load_config
from sft.config import SourceConfig
from sft.curate.usage_weights import effective_rows, importance
from sft.data.rows.read import read_conversations
from sft.errors import ConfigError, DataError
from sft.terminal.console import Console
from sft.training.setup import build_batches
from sft.training.tokens import prepare_data
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


def weights_of(train, usage):
    return np.array([*importance(train, usage, True).values()])


def test_weights_lead_to_usage(rows, topic):
    food, law = topic("food", 0), topic("law", 1)
    train = rows([*food.prompts(80), *law.prompts(20)])
    weights = weights_of(train, rows(law.prompts(40)))
    assert weights.shape == (100,) and weights.mean() == pytest.approx(1)
    assert weights[80:].mean() > 5 * weights[:80].mean()
    assert weights.max() <= 100 * weights.min() * 1.001  # clipped at 10 and 1/10
    assert 10 < effective_rows(weights) < 50


def test_weights_of_the_same_source_are_nearly_equal(rows, topic):
    prompts = topic("food", 0).prompts(200)
    weights = weights_of(rows(prompts[:150]), rows(prompts[150:]))
    assert effective_rows(weights) > 75
    again = weights_of(rows(prompts[:150]), rows(prompts[150:]))
    assert np.array_equal(weights, again)


def test_the_weighted_share_of_a_topic_comes_near_that_of_usage(real, rows):
    """Half of the rows are school maths, a tenth of usage is: the weights should say a tenth."""
    maths = [prompt for prompt, _ in real("gsm8k")]
    others = [prompt for prompt, _ in real("alpaca")]
    train = rows([*maths[:400], *others[:400]])
    weights = weights_of(train, rows([*maths[400:410], *others[400:490]]))
    assert weights[:400].sum() / weights.sum() == pytest.approx(0.1, abs=0.1)
    plain = weights_of(train, rows([*maths[400:445], *others[400:445]]))
    assert plain[:400].sum() / plain.sum() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_usage_prompts_hardly_change_anything_for_the_worse(rows, topic, number):
    food, law = topic("food", 0), topic("law", 1)
    train = rows([*food.prompts(50), *law.prompts(50)])
    weights = weights_of(train, rows(law.prompts(number)))
    assert np.isfinite(weights).all() and weights[50:].mean() >= 0.9 * weights[:50].mean()
